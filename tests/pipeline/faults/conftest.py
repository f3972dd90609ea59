"""The fault suite counts what was tried by kind, and says what was lost: `make faults`.

A test is one attempt. It names its kind with the fixture `attempt`, draws what it does from the
fixture `draw`, and fails where something was lost, hung, or ended without a sentence.
"""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from tabulate import tabulate

SEED = int(os.environ.get("FAULTS_SEED", "0"))
"""All random choices of a run follow from it."""

_tried, _survived, _lost = Counter(), Counter(), {}
_not_made = Counter()
"""Attempts that the machine does not allow, by reason."""


@pytest.fixture
def draw(request):
    """Return the random numbers of this attempt; the same for the same seed and test."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def attempt(record_property):
    """Return a function that names the kind this attempt counts for, and what it does."""

    def name(kind, what=""):
        record_property("kind", kind)
        record_property("what", what)

    return name


@pytest.fixture
def in_time():
    """Let an attempt take a minute at most."""

    def give_up(*_):
        raise TimeoutError("it took more than a minute")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_runtest_logreport(report):
    named = dict(report.user_properties)
    has_ended = report.when == "call" or (report.when == "setup" and report.failed)
    if "faults" not in report.nodeid.split("/"):
        return
    if report.skipped:
        _not_made[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if not has_ended or report.skipped:
        return
    kind = named.get("kind", "never begun")
    _tried[kind] += 1
    if report.passed:
        _survived[kind] += 1
    else:
        reason = getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr)
        first_line = str(reason).splitlines()[0] if str(reason) else "failed"
        _lost.setdefault(kind, []).append(f"{named.get('what') or report.nodeid}: {first_line}")


def pytest_terminal_summary(terminalreporter):
    if not _tried and not _not_made:
        return
    rows = [
        [kind, _tried[kind], _survived[kind], "; ".join(_lost.get(kind, [])) or "nothing"]
        for kind in sorted(_tried)
    ]
    rows.append(["all", _tried.total(), _survived.total(), ""])
    text = tabulate(rows, ["kind", "tried", "survived", "lost"], tablefmt="github")
    for reason, number in _not_made.items():
        text += f"\n\n{number} attempts were not made: {reason}"
    terminalreporter.write_line(f"\nFaults tried with FAULTS_SEED={SEED}\n\n{text}\n")
    if "FAULTS_TABLE" in os.environ:
        Path(os.environ["FAULTS_TABLE"]).write_text(f"{text}\n", encoding="utf-8")
