"""What a library could not do with a model, in one sentence."""

import errno
import itertools

import pytest

from distillation.export.errors import ExportError, refuse


def chained(*errors):
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def test_the_innermost_reason_is_said_on_one_line():
    error = chained(RuntimeError("\x1b[96mstep 1/3\x1b[0m"), ValueError("\n  no \x1b[1mrule\nx"))
    refusal = refuse("m cannot be exported", error)
    assert isinstance(refusal, ExportError)
    assert str(refusal) == "m cannot be exported: no \\x1b[1mrule"


@pytest.mark.parametrize(
    ("error", "reason"), [(AssertionError(), "AssertionError"), (ValueError("x" * 900), "x" * 200)]
)
def test_a_reason_has_words_but_not_too_many(error, reason):
    assert str(refuse("m", error)).removesuffix("…") == f"m: {reason}"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        chained(RuntimeError("export failed"), MemoryError()),
        RuntimeError("[enforce fail] not enough memory: you tried to allocate 5 bytes"),
        chained(RuntimeError("export failed"), OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_what_the_machine_lacks_is_no_fault_of_the_model(error):
    cause = error.__cause__ or error
    with pytest.raises(type(cause)) as caught:
        refuse("m", error)
    assert caught.value is cause
