"""`python -m distillation predict`: classify images with an exported student.

It imports neither torch nor timm: ONNX Runtime runs the model, and an image is prepared by the
function that prepared the training images.

Shapes: S = image_size, K classes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillation.base.command import run_command
from distillation.export.sessions import ExportedModel, load_exported
from distillation.sources.decode import DataError, read_image
from distillation.sources.names import printable, problem_with_name
from distillation.sources.walk import Unreadable, walk_folder

DEFAULT_MODEL = Path("models/student/student.onnx")

_BATCH_SIZE = 64

_EPILOG = """\
examples:
  python -m distillation predict cat.jpg               the five most probable classes
  python -m distillation predict photos/ --top 1       every image in a folder
  python -m distillation predict *.png --json          one JSON object a line

exit status: 0 every image was classified, 1 one was not or there is no model, 2 wrong usage,
130 after Ctrl-C
"""

Result = dict[str, Any]
"""`path` with `class`, `probability` and `top`, or with `error`."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m distillation predict",
        description="Classify images with an exported student, by ONNX Runtime alone.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="an image, or a folder: all files in it and below, but for hidden ones and what "
        "systems leave behind",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=DEFAULT_MODEL,
        help=f"a file that the stage export_student wrote (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--top",
        type=_positive,
        default=5,
        metavar="N",
        help="how many of the most probable classes to name (default: 5)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a line: path, class, probability and top, or path and error",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 when an image could not be classified."""
    options = build_parser().parse_args(arguments)
    failed: list[Result] = []
    status = run_command(
        lambda: _classify_and_print(options, failed),
        if_interrupted="what is not printed was not classified",
    )
    return status or (1 if failed else 0)


def _classify_and_print(options: argparse.Namespace, failed: list[Result]) -> None:
    """Print every result when its batch is done; those with an error are added to `failed`."""
    model = load_exported(options.model)
    for result in classify(model, list_images(options.images), top=options.top):
        if "error" in result:
            failed.append(result)
            print(f"error: {result['error']}", file=sys.stderr, flush=True)
        if options.json:
            print(json.dumps(result, ensure_ascii=False), flush=True)
        elif "error" not in result:
            print(to_line(result), flush=True)


def list_images(paths: Iterable[Path]) -> Iterator[Path | Unreadable]:
    """Yield the files among paths and in the folders among them, in order, as training walks.

    What cannot be read comes among the files, with a message. A folder without files is given
    itself: `classify` has a message for it.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        walk = walk_folder(path)
        files: list[Path | Unreadable] = [path / file for file in walk.files]
        found = sorted([*files, *walk.problems], key=lambda item: _path_of(item).parts)
        yield from found or [path]


def classify(
    model: ExportedModel, paths: Iterable[Path | Unreadable], *, top: int
) -> Iterator[Result]:
    """Classify image files in batches.

    Args:
        model: the exported classifier.
        paths: files, and what is known to be unreadable, which gives an error.
        top: how many classes to name, all of them where there are fewer.

    Yields:
        One result a path, in order.
    """
    remaining = iter(paths)
    while chunk := list(itertools.islice(remaining, _BATCH_SIZE)):
        decoded = [_decode(path, model.image_size) for path in chunk]
        images = [image for image in decoded if isinstance(image, np.ndarray)]
        probabilities = iter(_softmax(model.predict_logits(np.stack(images))) if images else ())
        for path, image in zip(chunk, decoded, strict=True):
            shown = printable(str(_path_of(path)))
            if isinstance(image, DataError):
                yield {"path": shown, "error": str(image)}
            else:
                named = _describe(next(probabilities), model.class_names, top)
                yield {"path": shown, **named}


def to_line(result: Result) -> str:
    """Say a result in one line, the most probable class first."""
    classes = (f"{one['class']} {100 * one['probability']:.1f} %" for one in result["top"])
    return f"{result['path']}: {', '.join(classes)}"


def _path_of(item: Path | Unreadable) -> Path:
    return item.path if isinstance(item, Unreadable) else item


def _decode(path: Path | Unreadable, image_size: int) -> NDArray[np.uint8] | DataError:
    if isinstance(path, Unreadable):
        return DataError(path.message)
    if refused := problem_with_name(path.name):
        return DataError(f"{printable(str(path))} {refused}")
    if path.is_dir():
        return DataError(f"{path} holds no files; allowed: a folder of images")
    try:
        return read_image(path, image_size)
    except DataError as error:
        return error


def _describe(probabilities: NDArray[np.float64], names: Sequence[str], top: int) -> Result:
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"class": names[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {**best[0], "top": best}


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities (B, K) of logits (B, K)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a whole number at least 1")
    return value
