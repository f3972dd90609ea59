"""The model card that is shipped with a student: made from the metrics, with no number of its own.

What is true of this student stands here; what is true of all of them stands in docs/deploy.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillation.base.methods import CONTROL
from distillation.data.balance import measure_balance
from distillation.data.prepared import PreparedData
from distillation.export.front_matter import add_front_matter
from distillation.export.loading import loading_code
from distillation.export.selection import Selection
from distillation.results.commits import describe_code, newest_commit, setup_commands
from distillation.results.doubts import class_doubts, majority_note
from distillation.results.markdown import escape
from distillation.results.verdict import leads_over_control
from distillation.runs.seeds import SeedRecord, combine_seeds

_MODELS = {
    "student": "`student.onnx`",
    "student_int8": "`student-int8.onnx`",
    "teacher": "the teacher, for comparison",
}
_MOST_CLASSES = 30
"""Classes a card names; a file's metadata names all."""
_LICENSE = """## Licence

Nobody has said under which licence these weights may be used. That depends on the images, on the \
weights the training started from and on the teacher's; the licence of the code that trained them \
says nothing about it."""


def make_card(
    deploy: Mapping[str, Any],
    *,
    selection: Selection,
    methods: Mapping[str, Sequence[SeedRecord]],
    teacher: Mapping[str, Any],
    data: PreparedData,
    environments: Mapping[str, Mapping[str, Any]],
) -> str:
    """Write the card: front matter for the Hugging Face Hub, then Markdown.

    Args:
        deploy: what `export_student` measured.
        selection: the method.
        methods: the trainings of every method.
        teacher: the teacher's entry of `metrics/baseline.json`.
        data: the set it was trained on.
        environments: what the teacher and the method ran on.
    """
    student = deploy["models"]["student"]
    paragraphs = [
        f"# `{student['model']}`, trained on {escape(data.source)}",
        *(f"**{escape(remark)}**" for remark in deploy["remarks"]),
        f"A classifier of images into {data.num_classes} classes with "
        f"{student['parameters']:,} parameters. {escape(selection.reason)}",
        _files(deploy, data),
        *([] if deploy["agreement"] is None else [_usage(data)]),
        _usage_by_timm(deploy["timm"]),
        _training(selection, methods[selection.method], teacher),
        _reproduction(environments),
        _data(data),
        _accuracy(deploy, selection=selection, methods=methods, data=data),
        _limits(deploy, selection=selection, num_seeds=len(methods[selection.method])),
        _LICENSE,
    ]
    return add_front_matter("\n\n".join(paragraphs) + "\n", deploy, data=data)


def _files(deploy: Mapping[str, Any], data: PreparedData) -> str:
    majority = _majority(data)
    beside = "" if majority is None else f" ({majority})"
    rows = [
        f"| {_name_of(name, values)} | {values['file_bytes'] / 1e6:.2f} | {values['acc']:.2f} | "
        f"{values['multiply_adds'] / 1e6:.1f} | {_speeds(values)} |"
        for name in _MODELS
        if (values := deploy["models"].get(name)) is not None
    ]
    batches = [one.get("throughput_batch_size") for one in deploy["models"].values()]
    batch = next((batch for batch in batches if batch is not None), "–")
    measured = [
        f"Measured in turns with ONNX Runtime {deploy['versions']['onnxruntime']} on "
        f"{escape(deploy['cpu'])}, {deploy['num_threads']} thread(s)."
    ]
    return "\n".join(
        [
            "## Files",
            "",
            f"| file | MB | test accuracy, %{beside} | multiply–adds, 10⁶ | latency p50, ms | "
            f"p95, ms | images/s at batch {batch} |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            *(measured if _is_timed(deploy) else []),
            "`model.safetensors` and `config.json` are the student for timm, without teacher or "
            "regressor.",
            "",
            "SHA-256 of the files, as `sha256sum --check` reads it:",
            "",
            "```",
            *(f"{digest}  {name}" for name, digest in deploy["files"].items()),
            "```",
        ]
    )


def _is_timed(deploy: Mapping[str, Any]) -> bool:
    return any("latency_ms_p50" in values for values in deploy["models"].values())


def _name_of(name: str, values: Mapping[str, Any]) -> str:
    return _MODELS[name] if "latency_ms_p50" in values else "`model.safetensors`, not timed"


def _speeds(values: Mapping[str, Any]) -> str:
    if "latency_ms_p50" not in values:
        return "– | – | –"
    return (
        f"{values['latency_ms_p50']:.2f} | {values['latency_ms_p95']:.2f} | "
        f"{values['throughput_images_per_second']:,.0f}"
    )


def _usage(data: PreparedData) -> str:
    size = data.image_size
    return f"""## How to use it

```sh
python -m distillation predict --model student.onnx photo.jpg
```

Elsewhere: the input `images` is uint8 (batch, 3, {size}, {size}), RGB from 0 to 255 and not \
normalised, of any batch size; the output `logits` is float32 (batch, {data.num_classes}), in the \
order of the classes. An image is turned upright, put on white where it is transparent, resized \
bicubically and cropped to the middle square. Class names, provenance and versions are in the \
ONNX files' metadata."""


def _usage_by_timm(timm_folder: Mapping[str, Any]) -> str:
    lines = ["## How to use it with timm", ""]
    if timm_folder["strides"]:
        paths = ", ".join(f"`{path}`" for path in timm_folder["strides"])
        stride = next(iter(timm_folder["strides"].values()))[0]
        lines += [
            f"The student's first convolution ({paths}) has stride {stride}, which is not "
            f"`{timm_folder['architecture']}`'s own and which timm's configuration cannot say. "
            "`config.json` names it as an argument that timm does not know, so that loading the "
            "folder by its name fails instead of predicting something else. In this folder:",
            "",
        ]
    elif timm_folder["loads_by_name"]:
        lines += [
            "The folder, or a repository of the Hugging Face Hub with these files "
            '(`"hf-hub:USER/NAME"`), is loaded by its name. In this folder:',
            "",
        ]
    else:
        lines += ["timm cannot load the folder by its name. In this folder:", ""]
    return "\n".join([*lines, "```python", loading_code(timm_folder).rstrip(), "```"])


def _training(
    selection: Selection, records: Sequence[SeedRecord], teacher: Mapping[str, Any]
) -> str:
    record = selection.record
    if selection.method == CONTROL:
        how = "by labels alone, without a teacher"
    else:
        how = (
            f"by distillation from `{teacher['model']}` ({teacher['acc']:.2f} % on the test images)"
        )
        if not teacher["trained"]:
            how += ", **which was not trained on these classes**"
    heading = "## How it was trained\n\n"
    if not selection.is_trained:
        return f"{heading}It was not: no epoch was run."
    seeds = ", ".join(str(one["seed"]) for one in records)
    return (
        f"{heading}Method `{selection.method}`: {how}. {record['epochs']} epochs were run; these "
        f"are the weights of epoch {record['best_epoch']} with seed {record['seed']}, the best on "
        f"the validation split (seeds that were trained: {seeds}). The test split chose nothing."
    )


def _reproduction(environments: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        [
            "## Reproduce",
            "",
            f"{' '.join(describe_code(environments))} In a clone of the project:",
            "",
            "```sh",
            *setup_commands(newest_commit(environments)),
            "dvc repro",
            "```",
            "",
            "Every hyperparameter is in the `params.yaml` of the run; the end of its "
            "`report/index.html` has them in one command, which takes the place of `dvc repro`.",
        ]
    )


def _data(data: PreparedData) -> str:
    names = [escape(name) for name in data.class_names[:_MOST_CLASSES]]
    more = data.num_classes - len(names)
    listed = ", ".join(names) + (f" and {more} more" if more else "")
    checksum = data.provenance.get("sha256")
    source = "It comes with a library" if checksum is None else f"SHA-256 `{checksum}`"
    return (
        "## Data\n\n"
        f"{escape(data.source)}: {len(data.train):,} training images ({len(data.labeled):,} with "
        f"labels), {len(data.validation):,} for validation, {len(data.test):,} for testing, at "
        f"{data.image_size} × {data.image_size} pixels. {source}.\n\nClasses: {listed}."
    )


def _majority(data: PreparedData) -> str | None:
    """Return what always predicting the largest class would score; None where it is no news."""
    note = majority_note(measure_balance(data.test.labels, data.class_names).summary())
    return None if note is None else escape(note)


def _accuracy(
    deploy: Mapping[str, Any],
    *,
    selection: Selection,
    methods: Mapping[str, Sequence[SeedRecord]],
    data: PreparedData,
) -> str:
    models, agreement = deploy["models"], deploy["agreement"]
    balances = {
        name: measure_balance(getattr(data, name).labels, data.class_names).summary()
        for name in ("test", "validation")
    }
    lines = [f"- **{escape(doubt)}**" for doubt in class_doubts(balances)]
    lines += [
        f"- {_MODELS[name] if agreement else 'the student'}: {models[name]['acc']:.2f} % (95 % "
        f"interval for {len(data.test):,} test images {models[name]['acc_low']:.2f} … "
        f"{models[name]['acc_high']:.2f}), macro-F1 {models[name]['f1']:.4f}"
        for name in ("student", "student_int8")
        if name in models
    ]
    combined = combine_seeds(methods[selection.method])
    if combined["best_acc_std"] is not None:
        lines.append(
            f"- all seeds of {selection.method}: {combined['best_acc']:.2f} ± "
            f"{combined['best_acc_std']:.2f} % (n = {combined['n']}); a new training ends there"
        )
    lead = leads_over_control(methods).get(selection.method)
    if lead is not None:
        lines.append(
            f"- over the same student trained by labels alone: {lead.to_text()}; "
            f"{lead.verdict.value}"
        )
    if "best_top5" in selection.record:
        lines.append(f"- top-5 accuracy: {selection.record['best_top5']:.2f} %")
    lines.append(f"- calibration error: {selection.record['best_ece']:.3f}")
    if agreement is not None:
        ties = f", {agreement['ties']} of the others are ties" if agreement["ties"] else ""
        lines.append(
            f"- `student.onnx` in ONNX Runtime against PyTorch: "
            f"{agreement['same_predictions']:,} of {agreement['num_images']:,} predictions are the "
            f"same{ties}; the largest difference of a logit is "
            f"{agreement['largest_logit_difference']:.2g}"
        )
    return "\n".join(["## How good it is", "", "On the test split:", "", *lines])


def _limits(deploy: Mapping[str, Any], *, selection: Selection, num_seeds: int) -> str:
    models = deploy["models"]
    lines = [
        "- It answers with one of its classes whatever it is shown, and has no answer for anything "
        "else.",
        "- All numbers are for images like the test images; how it does on others, by groups of "
        "people or places, or against an adversary, was not measured.",
    ]
    if "student_int8" in models:
        gained = round(models["student_int8"]["acc"] - models["student"]["acc"], 2) + 0.0  # no -0.0
        lines.append(
            f"- `student-int8.onnx` is kept as what it is: {gained:+.2f} points of accuracy "
            "against `student.onnx`."
        )
    if _is_timed(deploy):
        lines.append(
            "- Latency and throughput are this machine's, with whatever else it was doing."
        )
    if num_seeds == 1:
        lines.append("- One seed was trained: how much of the accuracy is luck is not known.")
    if not selection.is_trained:
        lines.insert(
            0, "- No epoch was run. Unless it started from trained weights, it is of no use."
        )
    return "\n".join(["## Limits", "", *lines])
