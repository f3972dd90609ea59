"""How far a stage is, in a log and on a terminal."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios

from distillation.base.progress import Progress


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_log_has_a_line_a_minute_with_the_time_left(caplog, capsys):
    caplog.set_level("INFO")
    now = iter([0.0, *(20.0 * step for step in range(1, 13))])
    with Progress(12_000, unit="image", clock=lambda: next(now)) as progress:
        for _ in range(12):
            progress.advance(1000)
    assert messages(caplog) == [
        "3,000 of 12,000 images (25 %), about 3 min 0 s left",
        "6,000 of 12,000 images (50 %), about 2 min 0 s left",
        "9,000 of 12,000 images (75 %), about 1 min 0 s left",
        "12,000 of 12,000 images (100 %), about 0.0 s left",
    ]
    assert capsys.readouterr().err == ""


def test_what_was_done_before_says_nothing_of_the_speed(caplog):
    caplog.set_level("INFO")
    now = iter([0.0, 60.0])
    with Progress(300, unit="step", clock=lambda: next(now)) as progress:
        progress.skip(100)
        progress.describe("exp1 seed 1 epoch 2/4")
        progress.advance(100)
    assert messages(caplog) == [
        "exp1 seed 1 epoch 2/4: 200 of 300 steps (67 %), about 1 min 0 s left"
    ]


def test_what_is_quick_says_nothing(caplog):
    caplog.set_level("INFO")
    with Progress(10, unit="image") as progress:
        progress.advance(10)
    assert messages(caplog) == []


STEPS_ON_A_TERMINAL = """
import time
from distillation.base.progress import Progress
with Progress(30, unit="step") as progress:
    progress.describe("exp1 epoch 1/3")
    progress.skip(10)
    for step in range(20):
        time.sleep(0.02)
        progress.advance()
        if step == 9:
            progress.pause()
            print("the line of an epoch", flush=True)
"""


def test_a_terminal_has_a_bar_that_makes_way_for_lines(repository):
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        os.chdir(repository)
        os.execv(sys.executable, [sys.executable, "-c", STEPS_ON_A_TERMINAL])
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes any more
        while data := os.read(terminal, 4096):
            shown += data
    assert os.waitpid(pid, 0)[1] == 0
    before, line, after = shown.decode().partition("the line of an epoch")
    assert line
    assert re.search(r"exp1 epoch 1/3: +\d+%\|.*\| 1\d/30 \[", before)
    assert re.search(r" {40}\r$", before), "the bar was left beside the line"
    assert re.search(r"exp1 epoch 1/3: +\d+%\|.*\| 2\d/30 \[", after)
