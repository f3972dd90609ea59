"""The benchmarks' arithmetic by hand, their report, and one real measurement."""

import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from benchmarks import growth, layers, prepare, processes, run, throughput, views
from benchmarks.figures import (
    best_of_rounds,
    busy_measurements,
    headline_ratios,
    median_of_rounds,
    ratio_of_rounds,
    row_key,
    summarize_row,
)
from benchmarks.report import merge_section, render
from benchmarks.settings import PEERS, WAYS, count_images
from benchmarks.throughput import plan_rows, read_output

STAMP = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789abcdef",
    "uncommitted_changes": False,
    "hardware": {
        "cpu": "A CPU",
        "instructions": "AVX2",
        "cores": 2,
        "gpus": [],
        "matrix_product_gflop_per_second": 123.4,
        "copy_gb_per_second": 21.9,
    },
    "versions": {"torch": "2.0", "torchdistill": None},
    "settings": {"rounds": 2},
}
SPEEDS = {
    "timm_task": [[100.0, 110.0, 90.0], [120.0, 80.0, 100.0]],
    "torchdistill": [[90.0, 90.0, 90.0], [95.0, 130.0, 80.0]],
    "tutorial": [[50.0, 50.0, 50.0], [60.0, 60.0, 60.0]],
    "ours_live": [[360.0, 260.0, 400.0]],
    "ours_cached": [[600.0, 1300.0, 1200.0]],
    "limit": [[1000.0, 1000.0, 1000.0]],
}


def taken(speed):
    return {"error": "out of luck"} if speed is None else {"images_per_second": speed}


def make_rows(speeds=SPEEDS, *, device="cpu", stem="stock"):
    """Make a round of rows; a way with several has them at 0, 1, … DataLoader workers."""
    return {
        row_key(device=device, stem=stem, way=way, workers=workers): {
            "way": way,
            "title": way.upper(),
            "device": device,
            "stem": stem,
            "workers": workers,
            "num_images": 256,
            **summarize_row([taken(speed) for speed in rounds]),
        }
        for way, rows in speeds.items()
        for workers, rounds in enumerate(rows)
    }


@pytest.fixture
def fake_measuring(monkeypatch):
    """Measure without processes; `asked` lists what was asked for, `broken` what is to fail."""

    class Fake:
        def __init__(self):
            self.asked = []
            self.broken = set()

        def __call__(self, measurement, *, seconds):
            self.asked.append(measurement)
            broken = measurement.way in self.broken
            return taken(None if broken else 10.0 * len(self.asked))

    fake = Fake()
    monkeypatch.setattr(throughput, "run_measurement", fake)
    return fake


# --- figures ---


def test_a_row_has_median_and_extremes_and_keeps_its_rounds():
    row = summarize_row([taken(3.0), taken(1.0), taken(2.25)])
    assert row["status"] == "ok"
    assert row["images_per_second"] == {"median": 2.2, "min": 1.0, "max": 3.0}
    assert [r["images_per_second"] for r in row["rounds"]] == [3.0, 1.0, 2.25]


def test_a_row_with_a_failed_round_has_failed_but_shows_the_others():
    row = summarize_row([taken(3.0), taken(None)])
    assert row["status"] == "failed"
    assert row["images_per_second"]["median"] == 3.0
    assert summarize_row([taken(None)])["images_per_second"] is None


def test_the_best_is_chosen_round_by_round():
    assert best_of_rounds([[1.0, 5.0], [2.0, 4.0]]) == [2.0, 5.0]


def test_a_round_in_which_a_peer_failed_has_no_best():
    assert best_of_rounds([[1.0, None], [2.0, 4.0]]) == [2.0, None]


def test_ratios_pair_the_rounds_before_the_median():
    ratios = ratio_of_rounds([10.0, 90.0, 20.0], [1.0, 10.0, 10.0])
    assert ratios == [10.0, 9.0, 2.0]
    assert median_of_rounds(ratios) == 9.0  # medians first would have given 20 / 10
    assert ratio_of_rounds([None, 4.0], [1.0, None]) == [None, None]
    assert median_of_rounds([None, 3.0]) == 3.0
    assert median_of_rounds([None]) is None


def test_headline_ratios_by_hand():
    per_round, ratios = headline_ratios(make_rows())
    # Best peers: 120, 130, 100.
    assert per_round["cached_vs_best_peer_stock"] == [5.0, 10.0, 12.0]
    assert per_round["live_vs_best_peer_stock"] == [3.0, 2.0, 4.0]
    assert ratios == {
        "cached_vs_best_peer_stock": 10.0,
        "live_vs_best_peer_stock": 3.0,
        "cached_vs_limit": 1.2,
    }


def test_other_stems_and_devices_have_ratios_of_their_own():
    rows = {**make_rows(stem="1"), **make_rows(device="cuda")}
    assert set(headline_ratios(rows)[1]) == {
        "cached_vs_best_peer_stem1",
        "live_vs_best_peer_stem1",
        "cached_vs_limit_stem1",
        "cached_vs_best_peer_stock_cuda",
        "live_vs_best_peer_stock_cuda",
        "cached_vs_limit_cuda",
    }


def test_no_best_peer_without_all_peers():
    rows = make_rows({way: speeds for way, speeds in SPEEDS.items() if way != "torchdistill"})
    assert headline_ratios(rows)[1] == {"cached_vs_limit": 1.2}


def test_a_failed_way_has_no_ratio_rather_than_a_wrong_one():
    failed = [[None, None, None]]
    assert headline_ratios(make_rows({**SPEEDS, "limit": failed}))[1]["cached_vs_limit"] is None


def test_a_disturbed_measurement_is_named():
    rows = make_rows({"limit": [[1.0, 1.0]]})
    (row,) = rows.values()
    row["rounds"][1]["others_cpu_share"] = 0.42
    (line,) = busy_measurements(rows)
    assert line.startswith("cpu/stock/limit/workers=0, round 2: ")
    assert "42%" in line


# --- report ---


def test_a_section_replaces_itself_alone():
    results = merge_section({}, "throughput", {**STAMP, "slope": 1})
    results = merge_section(results, "growth", {**STAMP, "slope": 2})
    results = merge_section(results, "throughput", {**STAMP, "slope": 3})
    slopes = {name: [s["slope"] for s in kinds.values()] for name, kinds in results.items()}
    assert slopes == {"throughput": [3], "growth": [2]}


@pytest.mark.parametrize("other", [{"cpu": "Another"}, {"instructions": "AVX512"}])
def test_each_kind_of_cpu_keeps_its_own_tables(other):
    ratios = {"cached_vs_best_peer_stock": 4.5, "cached_vs_limit": 0.9}
    first = {**STAMP, "rows": make_rows(), "ratios": ratios}
    later = {**first, "hardware": {**STAMP["hardware"], **other}, "ratios": {}, "commit": "fedcba"}
    text = render(merge_section(merge_section({}, "throughput", first), "throughput", later))
    kind = ", ".join(later["hardware"][key] for key in ("cpu", "instructions"))
    assert "| A CPU, AVX2 | 0123456789 | 123 | 22 | 4.50 | 0.90 | – | – |" in text
    assert f"| {kind} | fedcba | 123 | 22 | – | – | – | – |" in text
    assert "## Throughput: A CPU, AVX2" in text
    assert f"## Throughput: {kind}" in text


def test_what_limits_the_instructions_stands_beside_the_table():
    section = {**STAMP, "rows": make_rows(), "environment": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
    assert "; ONEDNN_MAX_CPU_ISA=AVX2." in render(merge_section({}, "throughput", section))


def test_the_report_shows_every_row_and_what_failed():
    rows = make_rows({**SPEEDS, "limit": [[None, 250.4, None]]})
    section = {**STAMP, "rows": rows, "ratios": {"cached_vs_limit": None, "x": 1.234}}
    section |= {"failures": ["limit: a | b"], "notes": ["A note."], "busy": ["x", "y"]}
    text = render(merge_section({}, "throughput", section))
    assert "A CPU, AVX2, 2 cores, matrix product 123 GFLOP/s, copy 22 GB/s, no GPU" in text
    assert "; torch 2.0." in text
    assert "commit 0123456789;" in text
    assert "| cpu | stock | TIMM_TASK (`timm_task`) | 1 | 100 | 80 | 120 | 256 | – |" in text
    assert "| cpu | stock | LIMIT (`limit`) | 0 | 250 | 250 | 250 | 256 | – |" in text
    assert "| `cached_vs_limit` | – |" in text
    assert "| `x` | 1.23 |" in text
    assert "**Failed:** limit: a \\| b" in text
    assert "- A note." in text
    assert "**Disturbed:** 2 measurements" in text


def test_a_section_without_a_table_of_its_own_is_shown_too():
    text = render(merge_section({}, "other", {**STAMP, "slope": 2, "words": "a|b"}))
    assert "## Other: A CPU, AVX2" in text
    assert "| slope | 2 |" in text
    assert "| words | a\\|b |" in text
    assert "| rounds" not in text


# --- measuring ---


def test_faster_ways_have_longer_epochs_in_whole_batches():
    options = {"device": "cpu", "stem": "stock", "seconds": 10.0, "batch_size": 128}
    counts = {way: count_images(way, **options) for way in WAYS}
    assert all(count % 128 == 0 for count in counts.values())
    assert counts["limit"] > counts["ours_live"] > counts["timm_task"]
    assert count_images("limit", **{**options, "seconds": 1e-6}) == 4 * 128


def test_rounds_interleave_and_every_second_runs_backwards(fake_measuring, tmp_path):
    arguments = ["--sections", "throughput", "--rows", "limit", "timm_task", "--stems", "stock"]
    arguments += ["--workers", "2", "0"]
    arguments += ["--devices", "cpu", "--rounds", "2", "--output-dir", str(tmp_path)]
    assert run.main(arguments) == 0
    names = [measurement.key.removeprefix("cpu/stock/") for measurement in fake_measuring.asked]
    there = ["timm_task/workers=0", "timm_task/workers=2", "limit"]
    assert names == there + there[::-1]
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (section,) = results["throughput"].values()
    speeds = [r["images_per_second"] for r in section["rows"]["cpu/stock/limit"]["rounds"]]
    assert speeds == [30.0, 40.0]
    assert section["settings"]["rounds"] == 2
    assert "`timm_task`" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_a_failure_is_written_down_and_sets_the_status(fake_measuring, tmp_path, capsys):
    fake_measuring.broken = {"torchdistill"}
    before = json.dumps(merge_section({}, "other", {**STAMP, "slope": 2}))
    (tmp_path / "results.json").write_text(before, encoding="utf-8")
    arguments = ["--sections", "throughput", "--rounds", "1", "--stems", "1", "--workers", "0"]
    arguments += ["--devices", "cpu"]
    assert run.main([*arguments, "--output-dir", str(tmp_path)]) == 1
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [section["slope"] for section in results["other"].values()] == [2]
    (section,) = results["throughput"].values()
    row = section["rows"]["cpu/1/torchdistill/workers=0"]
    assert row["status"] == "failed"
    assert row["rounds"] == [{"error": "out of luck"}]
    assert section["ratios"]["cached_vs_best_peer_stem1"] is None
    assert section["ratios"]["cached_vs_limit_stem1"] is not None
    assert "cpu/1/torchdistill/workers=0: out of luck" in capsys.readouterr().err


def test_all_peers_are_tried_with_all_numbers_of_workers():
    settings, _, _ = run.parse_settings(["--workers", "0", "3", "--devices", "cpu"])
    for peer in PEERS:
        workers = [m.workers for m in plan_rows(settings) if m.way == peer and m.stem == "1"]
        assert workers == [0, 3]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((1, "", "Traceback\nKeyError: 'a'\n"), "KeyError: 'a' (exit status 1)"),
        ((-9, "", ""), "no message (exit status -9)"),
        ((0, "hello\n", ""), "no result on the last line of the output: 'hello'"),
        ((0, '{"seconds": 1}', ""), "no result on the last line"),
        ((0, '{"images_per_second": NaN}', ""), "no result on the last line"),
        ((0, '{"images_per_second": 0}', ""), "images_per_second is 0.0"),
    ],
)
def test_a_process_without_a_result_has_an_error(output, message):
    assert message in read_output(*output)["error"]


def test_the_result_is_the_last_line():
    assert read_output(0, 'loading\n{"images_per_second": 5}\n\n', "") == {"images_per_second": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "fastest"], "invalid choice: 'fastest'"),
        (["--rounds", "0"], "allowed: 1 or more"),
        (["--workers", "-1"], "allowed: 0 or more"),
        (["--seconds", "0"], "--seconds: got 0; allowed: above 0"),
    ],
)
def test_wrong_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.parse_settings(arguments)
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(run, "find_devices", lambda: ("cpu",))
    with pytest.raises(SystemExit, match="2"):
        run.parse_settings(["--devices", "cuda"])
    assert "--devices: got cuda; found: cpu" in capsys.readouterr().err
    assert run.parse_settings([])[0].devices == ("cpu",)


@pytest.mark.slow
def test_a_real_measurement(repository):
    command = [sys.executable, "-m", "benchmarks.measure", "--way", "limit"]
    done = subprocess.run(
        [*command, "--images", "24", "--batch", "8"],
        cwd=repository,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    result = read_output(done.returncode, done.stdout, done.stderr)
    assert result["num_images"] == 24
    assert result["num_steps"] == 3
    assert result["images_per_second"] == pytest.approx(24 / result["seconds"])
    assert result["peak_rss_bytes"] > 2**20


def test_the_limit_is_the_faster_of_its_two_forms():
    rows = {
        way: {"device": "cpu", "stem": "stock", "way": way, "rounds": rounds}
        for way, rounds in {
            "ours_cached": [{"images_per_second": 90}, {"images_per_second": 95}],
            "limit": [{"images_per_second": 100}, {"images_per_second": 80}],
            "own_limit": [{"images_per_second": 60}, {"images_per_second": 100}],
        }.items()
    }
    rounds, ratios = headline_ratios(rows)
    assert rounds["cached_vs_limit"] == [0.9, 0.95]
    assert ratios["cached_vs_limit"] == pytest.approx(0.925)


def test_a_real_measurement_of_a_weight_gradient(monkeypatch):
    monkeypatch.setattr(layers, "_CACHE_BYTES", 0)
    row = layers.measure_shape(16, 8, 5, 2, 4)
    assert row["ratio"] == pytest.approx(row["torch_ms"] / row["gram_ms"], abs=1e-3)
    assert 0 <= row["relative_error"] < 1e-5
    assert row["rule"] == "gram"
    assert layers.measure_shape(16, 8, 3, 1, 4)["rule"] == "torch"


def test_no_shape_is_measured_twice():
    for quick in (False, True):
        shapes = layers.list_shapes(quick=quick)
        assert len(shapes) == len(set(shapes)) > 10


def test_own_tables_show_every_row_and_what_failed():
    step = {
        "matrix_product_gflop_per_second": 100.0,
        "rows": [
            {"model": "m", "stem": "1", "variant": "bf16", "title": "bf16", "ratio": 0.5},
            {"model": "m", "stem": "1", "variant": "nchw", "title": "layout"},
        ],
    }
    growth = {
        "rows": [
            {"samples": 5000, "trained": 5000, "seconds": 2.0, "peak_rss_bytes": 2**30},
            {"samples": 1000000, "trained": 20000, "error": "no space"},
        ]
    }
    layers = {
        "rows": [
            {
                **{"batch": 128, "channels": 240, "side": 5, "stride": 2, "size": 4},
                **{"torch_ms": 10.0, "gram_ms": 0.5, "ratio": 20.0, "rule": "gram"},
            }
        ]
    }
    pipeline = {
        "seconds_of_stages_without_epochs": {"prepare_data": 1.25},
        "seconds_of_repro_with_nothing_to_do": 1.5,
    }
    prepare = {
        "rows": [
            {
                **{"images": 4000, "side": 256, "images_per_second": 789},
                **{"pillow_images_per_second": 1017, "ratio": 0.776, "peak_memory_gb": 0.9},
            },
            {"error": "no space"},
        ]
    }
    results = {}
    view_rows = {
        "rows": [
            {
                **{"stem": "1", "views": "mixup", "title": "with mixup"},
                **{"images_per_second": 1290.4, "ratio": 0.956},
            }
        ]
    }
    sections = {"step": step, "layers": layers, "growth": growth}
    sections |= {"pipeline": pipeline, "views": view_rows, "prepare": prepare}
    for name, section in sections.items():
        results = merge_section(results, name, {**STAMP, **section})
    text = render(results)
    assert "100 GFLOP/s" in text
    assert "| m | 1 | bf16 (`bf16`) | – | 0.50 |" in text
    assert "| 5×5 | 2 | 4×4 | 240 | 128 | gram | 10.00 | 0.50 | 20.00 |" in text
    assert "| 5,000 | 5,000 | 2.0 |" in text
    assert "| 1 | with mixup (`mixup`) | 1290 | 0.96 |" in text
    assert "| 1024 |" in text
    assert "| 1,000,000 | 20,000 | – |" in text
    assert "| 4,000 | 256 | 789 | 1017 | 0.78 | 0.90 |" in text
    assert "stage `prepare_data`, no epochs | 1.2 |" in text
    assert "`dvc repro` with nothing to do | 1.5 |" in text


def test_every_kind_of_view_is_measured_against_the_first():
    rows = views.measure("stock", num_steps=1, batch_size=8, rounds=1)
    assert [row["views"] for row in rows] == list(views.KINDS)
    assert rows[0]["ratio"] == 1.0
    for row in rows:
        assert row["ratio"] == pytest.approx(
            row["images_per_second"] / rows[0]["images_per_second"], abs=0.01
        )
        assert len(row["rounds"]) == 1


def test_growth_and_preparation_are_measured_on_files_as_the_stages_read_them():
    """They write the files of a prepared set and of stored outputs themselves, or have them."""
    grown = growth.measure(samples=40, trained=40, batch_size=20)
    assert grown["images_bytes"] == 40 * 32 * 32 * 3
    prepared = prepare.measure(num_images=60, side=40, num_rounds=1)
    assert prepared["ratio"] > 0
    assert grown["peak_rss_bytes"] > 0


def test_the_peak_of_a_process_is_not_its_parents():
    held = np.ones(3 * 10**8, dtype=np.uint8)
    code = "from benchmarks.processes import peak_memory_bytes; print(peak_memory_bytes())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(held) < processes.peak_memory_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_most_private_memory_of_a_command_is_found(tmp_path):
    size = 10**8
    hold = ["timeit", "-n", "1", "-r", "1", "-s", "import time"]
    peak = processes.run_watched([*hold, f"x = b'x' * {size}; time.sleep(0.4)"], cwd=tmp_path)
    assert size < peak < 1.5 * size
    with pytest.raises(RuntimeError, match=r"^no_module failed with exit status 1$"):
        processes.run_watched(["no_module"], cwd=tmp_path)


def test_the_archive_of_all_stages_holds_different_pictures_of_all_classes(tmp_path):
    growth.write_archive(path := tmp_path / "images.tar", 200)
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        contents = {archive.extractfile(member).read() for member in members}
    assert len(contents) == len(members) == 200
    assert len({member.name.split("/")[0] for member in members}) == 100
