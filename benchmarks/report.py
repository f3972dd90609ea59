"""From sections to `results.json` and `results.md`: pure functions, nothing is measured here.

A section's result is a dictionary. Some keys mean the same in every section: `ratios`, headline
figures that also appear at the top level; `failures`, what could not be measured, one sentence
each; `busy`, what others on the machine disturbed; `notes`, sentences a reader must know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.hardware import kind_of

_RATES = ("matrix_product_gflop_per_second", "copy_gb_per_second")

_NOT_FIGURES = {
    *("date", "commit", "uncommitted_changes", "hardware", "versions", "environment"),
    *("settings", "seconds", "ratios", "ratio_rounds", "busy", "failures", "notes"),
}


def merge_section(
    results: Mapping[str, Any], name: str, section: Mapping[str, Any]
) -> dict[str, Any]:
    """Put a section into the results; other sections, and those of other CPUs, stay."""
    sections = {**results.get(name, {}), kind_of(section["hardware"]): dict(section)}
    return {**results, name: sections}


def render(results: Mapping[str, Any]) -> str:
    """Return all sections as Markdown."""
    parts = [
        "# Benchmarks\n",
        "Written by `python -m benchmarks`; every round is in `results.json`. Each kind of CPU has "
        "its own tables.\n",
        headline_table(results.get("throughput", {})),
    ]
    for name, kinds in results.items():
        for kind, section in kinds.items():
            parts += [f"## {name.capitalize()}: {kind}\n", _origin(section) + "\n"]
            parts.append(TABLES.get(name, other_table)(section))
            ratios = section.get("ratios", {})
            parts.append(
                _table(("ratio", "value"), [(f"`{n}`", _number(r, 2)) for n, r in ratios.items()])
            )
            remarks = [*section.get("notes", ())]
            if section.get("busy"):
                remarks.append(f"**Disturbed:** {len(section['busy'])} measurements; see `busy`.")
            remarks += [f"**Failed:** {line}" for line in section.get("failures", ())]
            parts.append("".join(f"- {_text(remark)}\n" for remark in remarks))
    return "\n".join(part for part in parts if part.strip())


def headline_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row per kind of CPU: what an epoch of this project makes of it."""
    header = ("CPU", "commit", "product, GFLOP/s", "copy, GB/s")
    columns = [
        (f"{title}, {stem} stem", key + ("_stem1" if stem == "1" else suffix))
        for stem in ("stock", "1")
        for title, key, suffix in (
            ("× best peer", "cached_vs_best_peer", "_stock"),
            ("× limit", "cached_vs_limit", ""),
        )
    ]
    lines = []
    for kind, section in kinds.items():
        rates = [section["hardware"].get(key) for key in _RATES]
        ratios = section.get("ratios", {})
        lines.append(
            (
                *(kind, _commit(section), *map(_number, rates)),
                *(_number(ratios.get(key), 2) for _, key in columns),
            )
        )
    return _table((*header, *(title for title, _ in columns)), lines, num_texts=2)


def throughput_table(section: Mapping[str, Any]) -> str:
    """Return the rows of the section `throughput` as a Markdown table."""
    header = ("device", "stem", "way", "workers", "images/s", "min", "max", "images", "peak MiB")
    lines = []
    for row in section["rows"].values():
        speed = row["images_per_second"] or {}
        peaks = [r["peak_rss_bytes"] / 2**20 for r in row["rounds"] if "peak_rss_bytes" in r]
        workers = "" if row["workers"] is None else str(row["workers"])
        lines.append(
            (
                row["device"],
                row["stem"],
                f"{row['title']} (`{row['way']}`)",
                workers,
                _number(speed.get("median")),
                _number(speed.get("min")),
                _number(speed.get("max")),
                str(row["num_images"]),
                _number(max(peaks, default=None)),
            )
        )
    return _table(header, lines, num_texts=3)


def other_table(section: Mapping[str, Any]) -> str:
    """Return a section without a table of its own as names and values."""
    return _table(
        ("figure", "value"),
        [
            (name, _text(value if isinstance(value, str) else json.dumps(value)))
            for name, value in section.items()
            if name not in _NOT_FIGURES
        ],
        num_texts=2,
    )


def step_table(section: Mapping[str, Any]) -> str:
    """Return the rows of the section `step`, and the rate they are compared with."""
    header = ("model", "stem", "step", "images/s", "ratio", "start, s", "GFLOP/s", "of a product")
    lines = [
        (
            *(row["model"], row["stem"], f"{row['title']} (`{row['variant']}`)"),
            _number(row.get("images_per_second")),
            _number(row.get("ratio"), 2),
            _number(row.get("start_seconds"), 1),
            _number(row.get("gflop_per_second"), 1),
            _number(row.get("share_of_matrix_product"), 2),
        )
        for row in section["rows"]
    ]
    rate = _number(section["matrix_product_gflop_per_second"])
    return f"A float32 matrix product runs at {rate} GFLOP/s.\n\n" + _table(
        header, lines, num_texts=3
    )


def growth_table(section: Mapping[str, Any]) -> str:
    """Return the rows of the section `growth`."""
    header = (
        *("images in the file", "trained on", "epoch, s", "images/s", "images, MB", "targets, MB"),
        *("streamed", "peak MiB"),
    )
    lines = []
    for row in section["rows"]:
        streamed = [kind for kind in ("images", "targets") if row.get(f"{kind}_are_streamed")]
        lines.append(
            (
                *(f"{row['samples']:,}", f"{row['trained']:,}"),
                *(_number(row.get("seconds"), 1), _number(row.get("images_per_second"))),
                *(_number(row.get(key, 0) / 1e6) for key in ("images_bytes", "targets_bytes")),
                ", ".join(streamed) or "no",
                _number(row["peak_rss_bytes"] / 2**20 if "peak_rss_bytes" in row else None),
            )
        )
    return _table(header, lines, num_texts=0)


def prepare_table(section: Mapping[str, Any]) -> str:
    """Return the rows of the section `prepare`."""
    header = ("images", "side", "images/s", "Pillow alone", "ratio", "peak GB")
    lines = [
        (
            *(f"{row['images']:,}", str(row["side"])),
            *(_number(row[key]) for key in ("images_per_second", "pillow_images_per_second")),
            *(_number(row[key], 2) for key in ("ratio", "peak_memory_gb")),
        )
        for row in section["rows"]
        if "error" not in row
    ]
    return _table(header, lines, num_texts=0)


def pipeline_table(section: Mapping[str, Any]) -> str:
    """Return the figures of the section `pipeline`."""
    stages = section["seconds_of_stages_without_epochs"]
    lines = [(f"stage `{name}`, no epochs", _number(value, 1)) for name, value in stages.items()]
    nothing = section["seconds_of_repro_with_nothing_to_do"]
    lines.append(("`dvc repro` with nothing to do", _number(nothing, 1)))
    if "seconds_of_make_demo" in section:
        lines.append(("`make demo`", _number(section["seconds_of_make_demo"], 1)))
    return _table(("what", "seconds"), lines)


def layers_table(section: Mapping[str, Any]) -> str:
    """Return the rows of the section `layers`."""
    header = ("kernel", "stride", "map", "channels", "batch", "rule", "torch", "Gram", "ratio")
    lines = [
        (
            *(f"{row['side']}×{row['side']}", str(row["stride"])),
            *(f"{row['size']}×{row['size']}", str(row["channels"]), str(row["batch"]), row["rule"]),
            *(_number(row[key], 2) for key in ("torch_ms", "gram_ms", "ratio")),
        )
        for row in section["rows"]
    ]
    return _table(header, lines, num_texts=6)


def views_table(section: Mapping[str, Any]) -> str:
    """Return the rows of the section `views`."""
    header = ("stem", "views", "images/s", "ratio")
    lines = [
        (
            *(row["stem"], f"{row['title']} (`{row['views']}`)"),
            *(_number(row["images_per_second"]), _number(row["ratio"], 2)),
        )
        for row in section["rows"]
    ]
    return _table(header, lines, num_texts=2)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "throughput": throughput_table,
    "step": step_table,
    "layers": layers_table,
    "views": views_table,
    "growth": growth_table,
    "prepare": prepare_table,
    "pipeline": pipeline_table,
}
"""How a section's figures are shown; `other_table` where nothing is said."""


def _origin(section: Mapping[str, Any]) -> str:
    hardware, versions = section["hardware"], section["versions"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    product, copy = (_number(hardware.get(key)) for key in _RATES)
    limits = [f"{name}={value}" for name, value in section.get("environment", {}).items()]
    return (
        f"{section['date']}, commit {_commit(section)}; {kind_of(hardware)}, {hardware['cores']} "
        f"cores, matrix product {product} GFLOP/s, copy {copy} GB/s, {gpus}; "
        f"{'; '.join([packages, *limits])}."
    )


def _commit(section: Mapping[str, Any]) -> str:
    changed = " with uncommitted changes" if section["uncommitted_changes"] else ""
    return f"{(section['commit'] or 'unknown')[:10]}{changed}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], *, num_texts: int = 1) -> str:
    """Return a Markdown table; the columns after the first `num_texts` are numbers."""
    if not lines:
        return ""
    rule = ["---"] * num_texts + ["---:"] * (len(header) - num_texts)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *lines))


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _text(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
