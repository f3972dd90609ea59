"""By how much one method's students are ahead of another's: one definition for all who say it.

Kept, shipped and recommended are the students of their best epochs by validation accuracy, so these
are compared. The table's `acc_over_control` compares last epochs. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distillation.base.methods import CONTROL
from distillation.results.intervals import Difference
from distillation.results.table import difference
from distillation.runs.seeds import SeedRecord

EPOCHS = "at the best epochs"
"""Which students a lead is of; stands beside every lead."""


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
