"""Exit statuses, and what is said where a program ends before its time."""

import os
import signal

import pytest

from distillation.base.command import run_command, saying_on_interrupt
from distillation.base.errors import DistillationError


@pytest.fixture(autouse=True)
def in_the_foreground():
    """Let the tests mean the same where pytest itself was started to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fail(error):
    def work():
        raise error

    return work


def test_work_that_is_done_has_status_0_and_says_nothing(capsys):
    assert run_command(lambda: None, if_interrupted="again") == 0
    assert capsys.readouterr() == ("", "")


def test_a_users_mistake_has_status_1_and_one_line(capsys):
    assert run_command(fail(DistillationError("alpha: got -1")), if_interrupted="again") == 1
    assert capsys.readouterr() == ("", "error: alpha: got -1\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match=r"^a bug$"):
        run_command(fail(ValueError("a bug")), if_interrupted="again")


@pytest.mark.parametrize(
    ("explain", "said"), [("after epoch 3", "after epoch 3"), ("", "the outer")]
)
def test_what_knows_more_says_how_to_go_on(capsys, explain, said):
    def work():
        with saying_on_interrupt(lambda: "the outer"), saying_on_interrupt(lambda: explain):
            raise KeyboardInterrupt

    assert run_command(work, if_interrupted="from the start") == 130
    assert capsys.readouterr().err == f"interrupted: {said}\n"
    assert run_command(fail(KeyboardInterrupt()), if_interrupted="from the start") == 130
    assert capsys.readouterr().err == "interrupted: from the start\n"


def test_the_signals_are_as_before_when_the_work_is_done():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []
    run_command(lambda: seen.append(signal.getsignal(signal.SIGINT)), if_interrupted="again")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert seen[0] not in before


def test_a_second_ctrl_c_does_not_wait_for_what_hinders_the_first():
    child = os.fork()
    if not child:  # pytest's own process must not end

        def work():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
            os._exit(99)

        run_command(work, if_interrupted="again")
        os._exit(98)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143
