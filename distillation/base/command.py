"""How a command ends: its exit status, and one line instead of a traceback where one is enough.

    0    it is done
    1    a mistake that the user can put right, said in one line
    2    an option that does not exist, or a value that an option does not take
    130  Ctrl-C (SIGINT), 143 a request to end (SIGTERM): as shells count them

Anything else that goes wrong is a bug, and keeps its traceback. What had been done when a command
was interrupted, and how to go on, only the command knows: it raises `KeyboardInterrupt` with a
text.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from distillation.base.errors import DistillationError
from distillation.base.limits import describe_limit, find_out_of_memory
from distillation.base.printable import printable_lines

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def run_command(work: Callable[[], None], *, if_interrupted: str) -> int:
    """Do the work of a command.

    Args:
        work: what the command does.
        if_interrupted: how to go on, where the work does not say it itself.

    Returns:
        The exit status. After a signal it does not return: the process ends with that status.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if received:
            # Whatever hinders the first request to end, a second one does not wait for it.
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt

    before = _handle_signals(interrupt)
    try:
        work()
    except Exception as error:
        if (said := one_line(error)) is None:
            raise
        print(f"error: {printable_lines(said)}", file=sys.stderr)
        if find_out_of_memory(error) is not None:
            sys.unraisablehook = lambda _: None  # what libraries do at exit fails as well
        return 1
    except KeyboardInterrupt as error:
        number = received[0] if received else signal.SIGINT
        _say(number, str(error) or if_interrupted)
        if received:
            # All contexts are closed. What python would still tidy up takes seconds with torch.
            sys.stdout.flush()
            os._exit(128 + number)
        return 128 + number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def one_line(error: BaseException) -> str | None:
    """Return what to say of an error that a user can put right; None for a bug."""
    if (cause := find_out_of_memory(error)) is not None:
        return describe_limit(cause)
    return str(error) if isinstance(error, DistillationError) else describe_limit(error)


def positive(text: str) -> int:
    """Read an option's number; as the `type` of an option, argparse shows what is wrong."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a whole number at least 1")
    return value


def end_quietly_while_loading() -> None:
    """Let Ctrl-C, SIGTERM and a limit of the machine end the program in one line from the start.

    Importing torch takes seconds, and a traceback out of the middle of it tells nobody anything.
    Called by programs before their imports; `run_command` takes over.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _say(number, "nothing was changed")
        os._exit(128 + number)

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if (said := one_line(error)) is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {printable_lines(said)}", file=sys.stderr)

    _handle_signals(end)
    sys.excepthook = tell


@contextmanager
def saying_on_interrupt(explain: Callable[[], str]) -> Iterator[None]:
    """Yield a `KeyboardInterrupt` that passes through the text that `explain` returns, if any."""
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args or not (text := explain()):
            raise
        raise KeyboardInterrupt(text) from None


def _say(number: int, text: str) -> None:
    print(f"{_WORDS[signal.Signals(number)]}: {text}", file=sys.stderr, flush=True)


def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of both signals; gives those it takes the place of."""
    found = {number: signal.getsignal(number) for number in _WORDS}
    # A program that a script starts in the background is told to ignore Ctrl-C, and does.
    before: dict[int, Any] = {n: known for n, known in found.items() if known != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    return before
