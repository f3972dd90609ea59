"""What a reader must know before believing a gain, one sentence each. No torch.

What a table's columns mean is said where the table is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillation.base.methods import CONTROL
from distillation.results.doubts import class_doubts
from distillation.results.intervals import NOISE_POINTS
from distillation.results.verdict import (
    EPOCHS,
    Lead,
    Verdict,
    kept_lead,
    leads_over_control,
    may_be_luck,
)
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
            f"One seed: a difference under {NOISE_POINTS} points proves nothing; run more, as "
            "seeds=[0,1,2]."
        )
    return sentences


def _verdicts(methods: Mapping[str, Sequence[SeedRecord]]) -> list[str]:
    """Say of each method whether it beats the control, and which of the best is not told apart."""
    leads = leads_over_control(methods)
    sentences = [f"{name} {_verdict(lead)}: {lead.to_text()}." for name, lead in leads.items()]
    if len(leads) < 2:
        return sentences
    best = max(leads, key=lambda name: leads[name].over.mean)
    rivals = {name: kept_lead(methods, best, name) for name in leads if name != best}
    close = [
        f"{name} ({lead.to_text()})"
        for name, lead in rivals.items()
        if lead is not None and may_be_luck(lead)
    ]
    if close:
        sentences.append(f"The data do not separate {best} from {', '.join(close)} {EPOCHS}.")
    return sentences


def _verdict(lead: Lead) -> str:
    """Say what a lead over the control shows."""
    alone, several = {
        Verdict.AHEAD: ("is ahead of the control", "beats the control"),
        Verdict.BEHIND: ("is behind the control", "is worse than the control"),
        Verdict.NOT_SHOWN: (
            "and the control differ by less than one seed can show",
            "is not told apart from the control",
        ),
    }[lead.verdict]
    if lead.over.n == 1 or (lead.p is None and lead.verdict is not Verdict.NOT_SHOWN):
        return alone
    if lead.verdict is Verdict.NOT_SHOWN and lead.over.is_separated:
        side = "ahead of" if lead.over.mean > 0 else "behind"
        return f"is {side} the control by its own interval, not with so many compared"
    return several
