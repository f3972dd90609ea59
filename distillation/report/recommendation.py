"""Which student to take, and why, in one sentence.

The choice is by validation accuracy; test accuracy only says how far to believe in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distillation.base.methods import CONTROL
from distillation.results.intervals import Difference
from distillation.results.table import best_method, validation_accuracies
from distillation.results.verdict import EPOCHS, kept_lead
from distillation.runs.seeds import SeedRecord, best_by_validation

_NOISE_POINTS = 0.5
"""What one seed cannot show, as in the summary's remarks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The method to take, if there is one."""

    method: str | None
    """The method with the best validation accuracy; None when no student was trained."""
    seed: int | None
    """The seed whose weights are kept."""
    sentence: str
    shown_method: str | None
    """The distilled method that is compared with the control in detail: `method`, or the best of
    the distilled ones where the control is best; None when there is none."""


def recommend(methods: Mapping[str, Sequence[SeedRecord]]) -> Recommendation:
    """Choose by mean validation accuracy at the best epochs; of equals the earlier in the table.

    Args:
        methods: the trainings of each method.
    """
    accuracies, best = validation_accuracies(methods), best_method(methods)
    if best is None:
        what = "No student was trained (epochs: 0)" if methods else "No method is there"
        return Recommendation(
            method=None, seed=None, shown_method=None, sentence=f"{what}, so there is none to take."
        )
    distilled = {name: records for name, records in methods.items() if name != CONTROL}
    return Recommendation(
        method=best,
        seed=best_by_validation(methods[best])["seed"],
        sentence=_sentence(
            best, accuracies, kept_lead(methods, best), _not_told_apart(methods, best)
        ),
        shown_method=best_method(distilled),
    )


def _not_told_apart(methods: Mapping[str, Sequence[SeedRecord]], best: str) -> list[str]:
    """Return the methods that are as good as the best one, as far as the seeds can tell."""
    differences = {
        name: kept_lead(methods, best, name) for name in methods if name not in (best, CONTROL)
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
                "Take the control, for want of anything else: it is the only method here, and no "
                "method was run to compare it with."
            )
        rival = max(rivals, key=lambda name: rivals[name])
        return (
            f"Take the control, the student trained by labels alone: with {own} no method "
            f"has a higher validation accuracy (the best of them, {rival}, has "
            f"{rivals[rival]:.2f} %), so nothing here speaks for distillation."
        )
    if over is None:
        others = (
            "the only method" if len(accuracies) == 1 else f"the best of {len(accuracies)} methods"
        )
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
    points = f"{over.to_text()} points {EPOCHS}"
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
