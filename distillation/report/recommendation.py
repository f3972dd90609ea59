"""Which student to take, and why, in one sentence.

The choice is by validation accuracy; test accuracy only says how far to believe in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distillation.methods import CONTROL
from distillation.results import best_arm, difference, validation_accuracies
from distillation.seeds import SeedRecord, best_by_validation
from distillation.statistics import Difference

_NOISE_POINTS = 0.5
"""What one seed cannot show, as in the summary's remarks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The arm to take, if there is one."""

    arm: str | None
    """The arm with the best validation accuracy; None when no student was trained."""
    seed: int | None
    """The seed whose weights are kept."""
    sentence: str
    shown_arm: str | None
    """The distilled arm that is compared with the control in detail: `arm`, or the best of the
    distilled ones where the control is best; None when there is none."""


def recommend(arms: Mapping[str, Sequence[SeedRecord]]) -> Recommendation:
    """Choose by mean validation accuracy at the best epochs; of equals the earlier in the table.

    Args:
        arms: the trainings of each arm.
    """
    accuracies, best = validation_accuracies(arms), best_arm(arms)
    if best is None:
        what = "No student was trained (epochs: 0)" if arms else "No arm is there"
        return Recommendation(
            arm=None, seed=None, shown_arm=None, sentence=f"{what}, so there is none to take."
        )
    distilled = {name: records for name, records in arms.items() if name != CONTROL}
    return Recommendation(
        arm=best,
        seed=best_by_validation(arms[best])["seed"],
        sentence=_sentence(
            best, accuracies, difference(arms, best, CONTROL), _not_told_apart(arms, best)
        ),
        shown_arm=best_arm(distilled),
    )


def _not_told_apart(arms: Mapping[str, Sequence[SeedRecord]], best: str) -> list[str]:
    """Give the methods that are as good as the best one, as far as the seeds can tell."""
    differences = {
        name: difference(arms, best, name) for name in arms if name not in (best, CONTROL)
    }
    return [
        name
        for name, found in differences.items()
        if found is not None and found.n > 1 and not found.is_separated
    ]


def _sentence(
    best: str, accuracies: Mapping[str, float], over: Difference | None, alike: Sequence[str]
) -> str:
    own = f"{accuracies[best]:.2f} %"
    if best == CONTROL:
        rivals = {name: acc for name, acc in accuracies.items() if name != CONTROL}
        if not rivals:
            return (
                "Take the control, for want of anything else: it is the only arm here, and no "
                "method was run to compare it with."
            )
        rival = max(rivals, key=lambda name: rivals[name])
        return (
            f"Take the control, the student trained by labels alone: with {own} no method "
            f"has a higher validation accuracy (the best of them, {rival}, has "
            f"{rivals[rival]:.2f} %), so nothing here speaks for distillation."
        )
    if over is None:
        others = "the only arm" if len(accuracies) == 1 else f"the best of {len(accuracies)} arms"
        return (
            f"Take {best}, with {own} validation accuracy {others} here; without a control it is "
            "not known what distillation adds to training by labels."
        )
    control = f" (the control has {accuracies[CONTROL]:.2f} %)" if CONTROL in accuracies else ""
    others = " and ".join(filter(None, [", ".join(alike[:-1]), *alike[-1:]]))
    apart = f"; the data do not tell it apart from {others}" if others else ""
    return (
        f"Take {best}: it has the highest validation accuracy, {own}{control}, "
        f"{_on_test(over)}{apart}."
    )


def _on_test(over: Difference) -> str:
    points = f"{over.to_text()} points"
    if over.n == 1 and abs(over.mean) < _NOISE_POINTS:
        return (
            f"but on test the two differ by less than one seed can show, {points}: the control may "
            "be as good"
        )
    if over.n > 1 and not over.is_separated:
        return (
            f"but on test the data do not tell it apart from the control, {points}: the control "
            "may be as good"
        )
    if over.mean < 0:
        return (
            f"but on test it is behind the control, {points}: validation and test disagree, and "
            "more seeds are needed"
        )
    if over.n == 1:
        return (
            f"and on test it is ahead of the control by {points}; this is one seed, which has no "
            "interval"
        )
    return f"and on test it beats the control, {points}"
