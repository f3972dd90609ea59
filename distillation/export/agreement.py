"""Whether two ways to run one model say the same, image by image.

Shapes: N images, K classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillation.export.errors import ExportError
from distillation.runs.predictions import map_rows

TOLERANCE = 1e-4
"""How far apart logits may be, as a share of the largest one's magnitude. Rounding in float32
leaves about 1e-6; a wrong normalisation, weight or resolution more than 1e-2."""

_SAME = -1.0
"""In place of how far a class is ahead of another, where both are the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How alike two models' logits are."""

    num_images: int
    same_predictions: int
    """Images for which both have the largest logit in the same class."""
    ties: int
    """Images for which they have not, but whose two classes the reference has no further apart than
    `tolerance`: rounding decides between them."""
    largest_logit_difference: float
    tolerance: float
    """The largest difference that is allowed: `TOLERANCE` of the largest magnitude of a logit."""

    @property
    def agrees(self) -> bool:
        """Return whether every prediction is the same or a tie, and no logit is further off."""
        # Written so that a NaN does not agree.
        return (
            self.same_predictions + self.ties == self.num_images
            and self.largest_logit_difference <= self.tolerance
        )

    def summary(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return dataclasses.asdict(self)


def compare_logits(
    reference: NDArray[np.floating[Any]], logits: NDArray[np.floating[Any]]
) -> Agreement:
    """Compare logits (N, K) with those of the reference (N, K), in float64.

    Raises:
        ExportError: their shapes differ, there are none, or one is not finite.
    """
    if reference.shape != logits.shape or not len(reference):
        raise ExportError(
            f"logits of shape {logits.shape} cannot be compared with {reference.shape}; allowed: "
            "one row an image, the same classes, at least one image"
        )
    largest, ahead, apart = map_rows(_compare_rows, reference, logits).T
    if not (np.isfinite(largest).all() and np.isfinite(apart).all()):
        raise ExportError("a logit is not finite; allowed: numbers")
    tolerance = TOLERANCE * float(largest.max())
    is_same = ahead == _SAME
    return Agreement(
        num_images=len(reference),
        same_predictions=int(is_same.sum()),
        ties=int((~is_same & (ahead <= tolerance)).sum()),
        largest_logit_difference=float(apart.max()),
        tolerance=tolerance,
    )


def _compare_rows(
    reference: NDArray[np.floating[Any]], logits: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return (rows, 3) what decides about rows of logits (rows, K).

    The reference's largest magnitude; how far its class is ahead of the other's, in the reference,
    or `_SAME` where both have one class; and the largest difference of a logit.
    """
    expected, found = reference.astype(np.float64), logits.astype(np.float64)
    rows = np.arange(len(expected))
    wanted, got = expected.argmax(axis=1), found.argmax(axis=1)
    ahead = expected[rows, wanted] - expected[rows, got]
    return np.stack(
        [
            np.abs(expected).max(axis=1),
            np.where(wanted == got, _SAME, ahead),
            np.abs(expected - found).max(axis=1),
        ],
        axis=1,
    )


def check_agreement(
    agreement: Agreement,
    *,
    name: str,
    reader: str = "ONNX Runtime",
    reference: str = "PyTorch",
) -> None:
    """Raise `ExportError` when an exported model does not predict what its reference predicts.

    Args:
        agreement: what was found.
        name: what to call the model.
        reader: what ran the exported model.
        reference: what ran the model whose logits were the reference.
    """
    if agreement.agrees:
        return
    differ = agreement.num_images - agreement.same_predictions - agreement.ties
    raise ExportError(
        f"{name}: {reader} and {reference} disagree on {differ} of {agreement.num_images:,} test "
        f"images, with logits up to {agreement.largest_logit_difference:.3g} apart; allowed: the "
        f"same prediction for each, and logits at most {agreement.tolerance:.3g} apart"
    )
