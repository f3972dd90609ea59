"""Which student to take, and why, in one sentence.

The choice is by validation accuracy. Test accuracy says how far to believe in it, and decides one
thing: in place of a method that is behind the control there, the control is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distillation.base.methods import CONTROL
from distillation.results.intervals import NOISE_POINTS
from distillation.results.table import best_methods, validation_accuracies
from distillation.results.verdict import (
    Lead,
    Verdict,
    kept_lead,
    leads_over_control,
    may_be_luck,
)
from distillation.runs.seeds import SeedRecord, best_by_validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The method to take, if there is one."""

    method: str | None
    """The method with the best validation accuracy, or the control where that one is behind it on
    test; None when no student was trained."""
    seed: int | None
    """The seed whose weights are kept."""
    sentence: str
    shown_method: str | None
    """The distilled method that is compared with the control in detail, by validation the best of
    them; None when there is none."""


def recommend(methods: Mapping[str, Sequence[SeedRecord]]) -> Recommendation:
    """Choose by mean validation accuracy at the best epochs; of equals the earlier in the table.

    The control is taken in place of a method that is behind it on test.

    Args:
        methods: the trainings of each method.
    """
    accuracies, all_best = validation_accuracies(methods), best_methods(methods)
    if not all_best:
        what = "No student was trained (epochs: 0)" if methods else "No method is there"
        return Recommendation(
            method=None, seed=None, shown_method=None, sentence=f"{what}, so there is none to take."
        )
    best = all_best[0]
    distilled = {name: records for name, records in methods.items() if name != CONTROL}
    leads = leads_over_control(methods)
    is_behind = best in leads and leads[best].verdict is Verdict.BEHIND
    taken = CONTROL if is_behind else best
    return Recommendation(
        method=taken,
        seed=best_by_validation(methods[taken])["seed"],
        sentence=_sentence(all_best, accuracies, leads, _not_told_apart(methods, best)),
        shown_method=next(iter(best_methods(distilled)), None),
    )


def _not_told_apart(methods: Mapping[str, Sequence[SeedRecord]], best: str) -> list[str]:
    """Return the methods that are as good as the best one, as far as the seeds can tell."""
    differences = {
        name: kept_lead(methods, best, name) for name in methods if name not in (best, CONTROL)
    }
    return [
        name
        for name, found in differences.items()
        if found is not None and found.n > 1 and may_be_luck(found)
    ]


def _sentence(
    all_best: Sequence[str],
    accuracies: Mapping[str, float],
    leads: Mapping[str, Lead],
    alike: Sequence[str],
) -> str:
    best, *equals = all_best
    own = f"{accuracies[best]:.2f} %"
    if best == CONTROL:
        rivals = {name: acc for name, acc in accuracies.items() if name != CONTROL}
        if not rivals:
            return (
                "Take the control, for want of anything else: it is the only method here, and no "
                "method was run to compare it with."
            )
        rival = max(rivals, key=lambda name: rivals[name])
        start = (
            f"Take the control, the student trained by labels alone: with {own} no method "
            f"has a higher validation accuracy (the best of them, {rival}, has "
            f"{rivals[rival]:.2f} %)"
        )
        ahead = {name: one for name, one in leads.items() if one.verdict is Verdict.AHEAD}
        if not ahead:
            return f"{start}, so nothing here speaks for distillation."
        first = max(ahead, key=lambda name: ahead[name].over.mean)
        return (
            f"{start}. On test {first} is ahead of it, {ahead[first].to_text()}. Validation and "
            "test disagree; more seeds or validation images would tell."
        )
    lead = leads.get(best)
    if lead is None:
        others = (
            "the only method" if len(accuracies) == 1 else f"the best of {len(accuracies)} methods"
        )
        lacking = "a seed that the control has too" if CONTROL in accuracies else "a control"
        return (
            f"Take {best}, with {own} validation accuracy {others} here; without {lacking} it is "
            "not known what distillation adds to training by labels."
        )
    asides = [f"as much as {_join(equals)}"] if equals else []
    if CONTROL in accuracies:
        asides.append(f"the control has {accuracies[CONTROL]:.2f} %")
    aside = f" ({'; '.join(asides)})" if asides else ""
    highest = f"the highest validation accuracy, {own}{aside}"
    apart = f"; the data do not tell {best} apart from {_join(alike)}" if alike else ""
    points, is_one_seed = lead.to_text(), lead.over.n == 1
    one_seed = "; this is one seed, which has no interval" if is_one_seed else ""
    match lead.verdict:
        case Verdict.AHEAD:
            verb = "is ahead of" if lead.p is None else "beats"
            return (
                f"Take {best}: it has {highest}, and on test it {verb} the control, "
                f"{points}{one_seed}{apart}."
            )
        case Verdict.BEHIND:
            return (
                f"Take the control, the student trained by labels alone: {best} has {highest}, but "
                f"on test it is behind the control, {points}{one_seed}. Validation and test "
                "disagree; more seeds would tell."
            )
        case Verdict.NOT_SHOWN:
            why = "has an interval that includes 0"
            if is_one_seed:
                why = "is less than one seed can show"
            elif lead.p is None:
                why = f"is less than {NOISE_POINTS} points"
            elif lead.over.is_separated:
                why = "may be chance with so many compared"
            return (
                f"No difference from the control is shown: {best} has {highest}, but on test its "
                f"lead {why}, {points}. The control is as good a choice{apart}."
            )


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
