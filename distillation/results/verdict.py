"""By how much one method's students are ahead of another's, and what that shows.

One definition for report, card and remarks.
Kept, shipped and recommended are the students of their best epochs by validation accuracy, so these
are compared. The table's `acc_over_control` compares last epochs. No torch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from distillation.base.methods import CONTROL
from distillation.results.intervals import Difference
from distillation.results.table import difference
from distillation.runs.seeds import SeedRecord

EPOCHS = "at the best epochs"
"""Which students a lead is of; stands beside every lead."""
NOISE_POINTS = 0.5
"""A smaller difference of one seed may be luck."""


def kept_lead(
    methods: Mapping[str, Sequence[SeedRecord]], first: str, second: str = CONTROL
) -> Difference | None:
    """Return the lead in test accuracy, in points, paired by seed; None where there are no pairs.

    Args:
        methods: the trainings of each method.
        first: the method whose lead it is.
        second: the method it is held against.
    """
    return difference(methods, first, second, "best_acc")


class Verdict(enum.Enum):
    """What a lead over the control shows, in the words of report and card."""

    AHEAD = "ahead of the control"
    BEHIND = "behind the control: the control is the one to take"
    NOT_SHOWN = "no difference from the control is shown"


def judge(lead: Difference) -> Verdict:
    """Return what a lead over the control shows.

    Several seeds show a difference when the 95 % interval leaves out 0; one seed, which has no
    interval, when it is `NOISE_POINTS` or more.
    """
    is_shown = abs(lead.mean) >= NOISE_POINTS if lead.n == 1 else lead.is_separated
    if not is_shown:
        return Verdict.NOT_SHOWN
    return Verdict.AHEAD if lead.mean > 0 else Verdict.BEHIND
