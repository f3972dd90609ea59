"""`python -m distillation predict`: classify images with an exported student.

It imports neither torch nor timm: ONNX Runtime runs the model, and an image is prepared by the
function that prepared the training images.

Shapes: S = image_size, K classes.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillation.base.command import positive, run_command
from distillation.base.printable import printable
from distillation.base.regular_files import NotAFileError, open_regular
from distillation.cli.result_lines import Result, to_json, to_line
from distillation.export.errors import ExportError
from distillation.export.sessions import (
    INT8_FILE,
    ONNX_FILE,
    WEIGHTS,
    ExportedModel,
    choose_batch_size,
    load_exported,
)
from distillation.sources.decode import DataError, read_image
from distillation.sources.names import problem_with_name
from distillation.sources.walk import Unreadable, iter_folder

DEFAULT_MODEL = Path("models/student") / ONNX_FILE
COMMITTED_MODEL = Path("models/student") / INT8_FILE
"""The same student in 8 bits: in git, so every clone has it."""

_BATCH_SIZE = 64
_FIRST_BATCHES = (1, 8)
"""The first lines need not wait for a whole batch of photographs."""

_MOST_THREADS = 8
"""Each decodes a photograph, which takes tens of megabytes meanwhile."""

_READER_IS_GONE = 141
"""The exit status after `| head -1`, as shells count SIGPIPE."""

_EPILOG = """\
examples:
  python -m distillation predict cat.jpg               the five most probable classes
  python -m distillation predict photos/ --top 1       every image in a folder
  python -m distillation predict *.png --json          one JSON object a line

exit status: 0 every image was classified, 1 one was not or there is no model, 2 wrong usage,
130 after Ctrl-C, 141 when nobody reads on
"""


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
        type=_path,
        metavar="IMAGE",
        help="an image, or a folder: all files in it and below, but for hidden ones and what "
        "systems leave behind",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help=f"a file that the stage export_student wrote (default: {DEFAULT_MODEL}; where it is "
        f"not there, {COMMITTED_MODEL})",
    )
    parser.add_argument(
        "--top",
        type=positive,
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
    failed = _Failed()
    try:
        status = run_command(
            lambda: _classify_and_print(options, failed),
            if_interrupted="what is not printed was not classified",
        )
    except BrokenPipeError:
        # What is still to be flushed when python ends has to go somewhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return _READER_IS_GONE
    return status or (1 if failed.any else 0)


@dataclasses.dataclass
class _Failed:
    """Whether an image could not be classified."""

    any: bool = False


def _classify_and_print(options: argparse.Namespace, failed: _Failed) -> None:
    """Print every result when its batch is done, and note in `failed` whether one is an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # letters that the terminal has not
    path = options.model or _choose_model()
    model = _load_model(path)
    if path is DEFAULT_MODEL:
        _check_commit(model)
    for result in classify(model, list_images(options.images), top=options.top):
        if "error" in result:
            failed.any = True
            print(f"error: {result['error']}", file=sys.stderr, flush=True)
        if options.json:
            print(to_json(result, encoding=sys.stdout.encoding), flush=True)
        elif "error" not in result:
            print(to_line(result), flush=True)


def _choose_model() -> Path:
    """Return the shipped student's file that is here, and say which on stderr."""
    if os.path.exists(DEFAULT_MODEL):  # noqa: PTH110 - False where the question is an error
        path, why = DEFAULT_MODEL, ""
    elif os.path.exists(COMMITTED_MODEL):  # noqa: PTH110
        path = COMMITTED_MODEL
        why = f" ({DEFAULT_MODEL.name} is not here: `dvc pull` brings it, `dvc repro` makes it)"
    else:
        raise ExportError(
            f"{DEFAULT_MODEL}: no such file, nor {COMMITTED_MODEL.name} beside it; `dvc repro "
            "export_student` makes both, and --model names a file elsewhere"
        )
    print(f"model: {path}{why}", file=sys.stderr, flush=True)
    return path


def _check_commit(model: ExportedModel) -> None:
    """Check that the file DVC keeps is of the run that git's is of: `git pull` brings one alone."""
    try:
        committed = load_exported(COMMITTED_MODEL)
    except ExportError:
        return
    if model.metadata.get(WEIGHTS) != committed.metadata.get(WEIGHTS):
        raise ExportError(
            f"{DEFAULT_MODEL}: holds other weights than {COMMITTED_MODEL.name} beside it, which "
            "git keeps; `dvc checkout models/student` or `dvc pull models/student` brings those of "
            f"the commit, and --model {COMMITTED_MODEL} does without"
        )


def _load_model(path: Path) -> ExportedModel:
    """Open the model, where it is a file at all."""
    try:
        open_regular(path).close()
    except NotAFileError as error:
        raise ExportError(
            f"{path}: is a {error.kind}; allowed: a file that the stage export_student wrote"
        ) from error
    except OSError:
        pass  # `load_exported` says what to do
    return load_exported(path)


def list_images(paths: Iterable[Path]) -> Iterator[Path | Unreadable]:
    """Yield the files among paths and in the folders among them, in order, as training walks.

    What cannot be read comes among the files, with a message. A folder without files is given
    itself: `classify` has a message for it.
    """
    for path in paths:
        is_empty = True
        if os.path.isdir(path):  # noqa: PTH112 - False where the question is an error
            for found in iter_folder(path):
                if isinstance(found, Unreadable):
                    is_empty = False
                    yield found
                elif not found[1]:
                    is_empty = False
                    yield path / found[0]
        if is_empty:
            yield path


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
    largest = min(_BATCH_SIZE, choose_batch_size(model.image_size))
    sizes = itertools.chain(_FIRST_BATCHES, itertools.repeat(largest))
    decode = functools.partial(_decode, image_size=model.image_size)
    threads = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    while chunk := list(itertools.islice(remaining, next(sizes))):
        decoded = list(threads.map(decode, chunk))
        images = [image for image in decoded if isinstance(image, np.ndarray)]
        logits = iter(model.predict_logits(np.stack(images)) if images else ())
        for item, image in zip(chunk, decoded, strict=True):
            path = str(item.path if isinstance(item, Unreadable) else item)
            try:
                if isinstance(image, DataError):
                    raise image
                named = _describe(_softmax(next(logits), path), model.class_names, top)
                yield {"path": path, **named}
            except DataError as error:
                yield {"path": path, "error": printable(str(error))}


def _decode(path: Path | Unreadable, image_size: int) -> NDArray[np.uint8] | DataError:
    if isinstance(path, Unreadable):
        return DataError(path.message)
    if refused := problem_with_name(path.name):
        return DataError(f"{printable(str(path))} {refused}")
    if os.path.isdir(path):  # noqa: PTH112 - False where the question is an error
        return DataError(f"{path} holds no files; allowed: a folder of images")
    try:
        return read_image(path, image_size)
    except DataError as error:
        return error


def _describe(probabilities: NDArray[np.float64], names: Sequence[str], top: int) -> Result:
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"class": names[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {**best[0], "top": best}


def _softmax(logits: NDArray[np.float32], path: str) -> NDArray[np.float64]:
    """Return probabilities (K,) of logits (K,); raises `DataError` where they are no numbers."""
    if not np.isfinite(logits).all():
        raise DataError(
            f"{path}: the model's outputs for it are not finite (NaN or infinite); its weights are "
            "damaged, or made so by the training: `dvc repro --force export_student`"
        )
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def _path(text: str) -> Path:
    if not text:  # of which `Path` would make the whole of this folder
        raise argparse.ArgumentTypeError("got ''; allowed: the path of an image or a folder")
    return Path(text)
