"""`python -m distillation.export.phone`: the shipped student for LiteRT on Android and iOS.

Its packages do not go together with all of the project's: docs/phone.md makes an environment for
them. Nothing else imports this module.

Shapes: N images, S = image_size, K classes.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distillation.base.command import run_command, saying_on_interrupt
from distillation.base.files import new_directory, write_text
from distillation.base.workspace import Workspace
from distillation.data.prepared import load_prepared
from distillation.export.agreement import check_agreement, compare_logits
from distillation.export.errors import ExportError, NoFileError
from distillation.export.onnx_file import plain_copy
from distillation.export.sessions import INT8_FILE, ONNX_FILE, load_exported
from distillation.models.creation import create_classifier

LITERT_FILE, SMALL_FILE, LABELS_FILE = "student.tflite", "student-int8.tflite", "labels.txt"

_PACKAGES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
_ROUNDS, _SINGLES = 12, 10
"""Images timed one by one: so many of each model, in so many turns."""


class PhoneModel(nn.Module):
    """A classifier of one image whose pixels lie as in a bitmap."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (1, K) of pixels (1, S, S, 3) uint8, RGB, 0 … 255."""
        return self.classifier(pixels.permute(0, 3, 1, 2))


class LiteRTModel:
    """A LiteRT file, ready to run on one thread of the CPU."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (pixels,) = self._interpreter.get_input_details()
        (logits,) = self._interpreter.get_output_details()
        self._pixels, self._logits = pixels["index"], logits["index"]

    def predict_logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (N, K) of images (N, S, S, 3), one by one."""
        return np.concatenate([self._run(image[None]) for image in images])

    def _run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._pixels, image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._logits)


def convert(classifier: nn.Module, path: Path, *, image_size: int) -> None:
    """Write a classifier, in evaluation mode and float32, as a LiteRT file."""
    import litert_torch

    pixels = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
    litert_torch.convert(PhoneModel(classifier).eval(), (pixels,)).export(str(path))


def shrink(source: Path, target: Path) -> None:
    """Write a LiteRT file with its weights in 8 bits; it still computes in float32."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(source), recipe.weight_only_wi8_afp32())
    tool.quantize().export_model(str(target))


def measure_latencies(models: Mapping[str, Any], images: NDArray[np.uint8]) -> dict[str, float]:
    """Return the median milliseconds that one image takes, by model; models run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS):
        for name, model in models.items():
            model.predict_logits(images[:1])
            for number in range(_SINGLES):
                one = images[number % len(images)][None]
                start = time.perf_counter()
                model.predict_logits(one)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}


def main(workspace: Workspace) -> None:
    """Write `models/phone` and print how its files compare with ONNX Runtime on the test split.

    Raises:
        ExportError: a package is missing, or the float32 file predicts something else than
            `student.onnx`.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ExportError(
            f"{', '.join(missing)}: not installed in this environment; docs/phone.md makes one"
        )
    data = load_prepared(workspace.prepared)
    images = data.test.images
    paths = {name: workspace.student / name for name in (ONNX_FILE, INT8_FILE)}
    models: dict[str, Any] = {ONNX_FILE: load_exported(paths[ONNX_FILE], num_threads=1)}
    try:
        models[INT8_FILE] = load_exported(paths[INT8_FILE], num_threads=1)
    except NoFileError:
        del paths[INT8_FILE]
    student = create_classifier(
        f"local-dir:{workspace.student}",
        class_names=data.class_names,
        image_size=data.image_size,
        seed=0,  # every weight comes from the folder
        pretrained=True,
        key="student",
    )
    folder = workspace.student.parent / "phone"
    # Converter and quantiser tell their steps; what is printed here is the table alone.
    with redirect_stdout(sys.stderr), new_directory(folder) as new:
        convert(plain_copy(student), new / LITERT_FILE, image_size=data.image_size)
        shrink(new / LITERT_FILE, new / SMALL_FILE)
        write_text(new / LABELS_FILE, "".join(f"{name}\n" for name in data.class_names))
        models |= {name: LiteRTModel(new / name) for name in (LITERT_FILE, SMALL_FILE)}
        logits = {name: model.predict_logits(images) for name, model in models.items()}
        found = {name: compare_logits(logits[ONNX_FILE], logits[name]) for name in models}
        check_agreement(
            found[LITERT_FILE], name=student.name, reader="LiteRT", reference="ONNX Runtime"
        )
    paths |= {name: folder / name for name in (LITERT_FILE, SMALL_FILE)}
    with saying_on_interrupt(lambda: f"{folder} is written, its files were not timed"):
        milliseconds = measure_latencies(models, images)
    print(f"One thread; {len(images):,} test images; classes and logits against student.onnx.\n")
    print("| file | bytes | same class | largest difference of a logit | accuracy, % | p50, ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, path in paths.items():
        accuracy = 100 * float((logits[name].argmax(axis=1) == data.test.labels).mean())
        print(
            f"| {path} | {path.stat().st_size:,} | {found[name].same_predictions:,} | "
            f"{found[name].largest_logit_difference:.2g} | {accuracy:.2f} | "
            f"{milliseconds[name]:.3f} |"
        )


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(Workspace()), if_interrupted="nothing was written"))
