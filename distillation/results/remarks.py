"""What a reader must know before believing a gain, one sentence each. No torch.

What a table's columns mean is said where the table is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillation.base.methods import CONTROL, sort_methods
from distillation.results.doubts import class_doubts
from distillation.results.intervals import CONFIDENCE, Difference, correct_by_holm, p_text
from distillation.results.verdict import EPOCHS, NOISE_POINTS, Verdict, judge, kept_lead
from distillation.runs.seeds import SeedRecord, combine_seeds

_CLEAR_LEAD_POINTS = 2.0


def remarks(
    methods: Mapping[str, Sequence[SeedRecord]],
    teacher: Mapping[str, Any],
    *,
    source: str,
    balance: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Say what a reader must know of the table, one sentence each.

    Args:
        methods: the trainings of each method.
        teacher: the teacher's `acc` in percent, whether it is `trained`, and its `checkpoint`.
        source: what the images are.
        balance: how the images of `test` and `validation` are spread over the classes.
    """
    sentences = class_doubts(balance)
    if not teacher["trained"]:
        sentences.append(
            "The teacher was never trained: what is distilled from it is noise, and the table "
            "says nothing about the methods."
        )
    if teacher["checkpoint"] is not None:
        sentences.append(
            f"The teacher started from the checkpoint {teacher['checkpoint']}: what that was "
            "trained on, and with which labels, is not known here."
        )
    if CONTROL in methods:
        lead = teacher["acc"] - combine_seeds(methods[CONTROL])["best_acc"]
        if teacher["trained"] and lead < _CLEAR_LEAD_POINTS:
            place = "barely leads" if lead > 0 else "does not even lead"
            sentences.append(
                f"The teacher {place} the control ({lead:+.2f} points): it has little to teach."
            )
        sentences += _verdicts(methods)
    else:
        sentences.append("No control was run: without it a gain only says that training helps.")
    if source.startswith("digits"):
        sentences.append(
            "Digits are few and easy: they show that the machinery works, not that "
            "distillation pays."
        )
    if any(len(records) == 1 for records in methods.values()):
        sentences.append(
            f"One seed: a difference under {NOISE_POINTS} points proves nothing; run more with "
            "-S 'seeds=[0,1,2]'."
        )
    return sentences


def _verdicts(methods: Mapping[str, Sequence[SeedRecord]]) -> list[str]:
    """Say of each method whether it beats the control, and which of the best is not told apart."""
    distilled = [name for name in sort_methods(methods) if name != CONTROL]
    over = {name: lead for name in distilled if (lead := kept_lead(methods, name))}
    p_values = correct_by_holm({name: lead.p_value for name, lead in over.items()})
    sentences = [
        f"{name} {_verdict(lead, p_values[name])}: {lead.to_text()} points {EPOCHS}"
        f"{_correction(p_values, name)}."
        for name, lead in over.items()
    ]
    if len(over) < 2:
        return sentences
    best = max(over, key=lambda name: over[name].mean)
    rivals = {name: kept_lead(methods, best, name) for name in over if name != best}
    close = [
        f"{name} ({lead.to_text()})"
        for name, lead in rivals.items()
        if lead is not None and _is_close(lead)
    ]
    if close:
        sentences.append(f"The data do not separate {best} from {', '.join(close)} {EPOCHS}.")
    return sentences


def _correction(p_values: Mapping[str, float | None], name: str) -> str:
    """Say how likely such a lead is by chance, with so many methods compared."""
    p = p_values[name]
    if p is None or len(p_values) < 2:
        return ""
    return f"; {p_text(p)} by Holm's correction for {len(p_values)} methods"


def _is_close(lead: Difference) -> bool:
    """Return whether a lead may be luck."""
    return lead.mean < NOISE_POINTS if lead.n == 1 else not lead.is_separated


def _verdict(over: Difference, p: float | None) -> str:
    """Say what a lead over the control shows; p is corrected for all that are compared."""
    is_shown = p is None or p < 1 - CONFIDENCE
    by_itself = "the control by its own interval, not with so many compared"
    one_seed, several = {
        Verdict.AHEAD: (
            "is ahead of the control",
            "beats the control" if is_shown else f"is ahead of {by_itself}",
        ),
        Verdict.BEHIND: (
            "is behind the control",
            "is worse than the control" if is_shown else f"is behind {by_itself}",
        ),
        Verdict.NOT_SHOWN: (
            "and the control differ by less than one seed can show",
            "is not told apart from the control",
        ),
    }[judge(over)]
    return one_seed if over.n == 1 else several
