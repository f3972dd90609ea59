"""By how much one method's students are ahead of another's, and what that shows.

One definition for report, card and remarks, so that they never disagree.
Kept, shipped and recommended are the students of their best epochs by validation accuracy, so these
are compared. The table's `acc_over_control` compares last epochs. No torch.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence

from distillation.base.methods import CONTROL, sort_methods
from distillation.results.intervals import (
    CONFIDENCE,
    NOISE_POINTS,
    Difference,
    correct_by_holm,
    p_text,
)
from distillation.results.table import difference
from distillation.runs.seeds import SeedRecord

EPOCHS = "at the best epochs"
"""Which students a lead is of; stands beside every lead."""


def may_be_luck(lead: Difference) -> bool:
    """Return whether a lead is one that the seeds do not show."""
    return abs(lead.mean) < NOISE_POINTS if lead.low is None else not lead.is_separated


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lead:
    """A method's lead over the control, as one of several methods that are compared with it."""

    over: Difference
    p: float | None
    """Corrected by Holm for all methods compared; None where `over` has no interval."""
    num_compared: int

    @property
    def verdict(self) -> Verdict:
        """Return what it shows.

        Several seeds show a difference when p is below 5 %, which one method reaches when its 95 %
        interval leaves out 0. Without an interval, as one seed is, it must be `NOISE_POINTS`.
        """
        over = self.over
        is_shown = abs(over.mean) >= NOISE_POINTS if self.p is None else self.p < 1 - CONFIDENCE
        if not is_shown:
            return Verdict.NOT_SHOWN
        return Verdict.AHEAD if over.mean > 0 else Verdict.BEHIND

    def to_text(self) -> str:
        """Say how large it is, of which students, and how likely by chance."""
        text = f"{self.over.to_text()} points {EPOCHS}"
        if self.p is None or self.num_compared < 2:
            return text
        return f"{text}; {p_text(self.p)} by Holm's correction for {self.num_compared} methods"


def leads_over_control(methods: Mapping[str, Sequence[SeedRecord]]) -> dict[str, Lead]:
    """Return the lead of each distilled method that shares a seed with the control, in order.

    Args:
        methods: the trainings of each method that is compared, the control among them.
    """
    distilled = [name for name in sort_methods(methods) if name != CONTROL]
    over = {name: found for name in distilled if (found := kept_lead(methods, name))}
    p_values = correct_by_holm({name: found.p_value for name, found in over.items()})
    num_compared = sum(p is not None for p in p_values.values())
    return {
        name: Lead(over=found, p=p_values[name], num_compared=num_compared)
        for name, found in over.items()
    }
