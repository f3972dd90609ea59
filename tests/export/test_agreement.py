"""Two models agree when their predictions are the same, but for ties, and their logits close."""

import numpy as np
import pytest

from distillation.export.agreement import TOLERANCE, check_agreement, compare_logits
from distillation.export.errors import ExportError

LOGITS = np.array([[10.0, 0.0, 1.0], [0.0, 5.0, 5.0 - 1e-4], [1.0, 2.0, 3.0]])


def test_equal_logits_agree():
    found = compare_logits(LOGITS, LOGITS.astype(np.float32))
    assert (found.num_images, found.same_predictions, found.ties) == (3, 3, 0)
    assert found.largest_logit_difference < 1e-6
    assert found.tolerance == pytest.approx(10 * TOLERANCE)
    check_agreement(found, name="x")


def test_rounding_may_decide_a_tie_and_nothing_else():
    swapped = LOGITS.copy()
    swapped[1] = [0.0, 5.0 - 1e-4, 5.0]
    found = compare_logits(LOGITS, swapped)
    assert (found.same_predictions, found.ties, found.agrees) == (2, 1, True)
    swapped[2] = [1.0, 3.0, 2.0]
    found = compare_logits(LOGITS, swapped)
    assert (found.same_predictions, found.ties, found.agrees) == (1, 1, False)
    with pytest.raises(ExportError, match=r"^x: .* disagree on 1 of 3 test images, .* up to 1 ap"):
        check_agreement(found, name="x")


def test_the_same_predictions_with_other_logits_do_not_agree():
    found = compare_logits(LOGITS, LOGITS * 1.01)
    assert (found.same_predictions, found.agrees) == (3, False)
    assert found.largest_logit_difference == pytest.approx(0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    broken = LOGITS.copy()
    broken[2, 0] = value
    for pair in ((LOGITS, broken), (broken, LOGITS)):
        with pytest.raises(ExportError, match="a logit is not finite"):
            compare_logits(*pair)


def test_shapes_must_be_the_same():
    with pytest.raises(ExportError, match=r"shape \(2, 3\) cannot be compared with \(3, 3\)"):
        compare_logits(LOGITS, LOGITS[:2])
    with pytest.raises(ExportError, match="at least one image"):
        compare_logits(LOGITS[:0], LOGITS[:0])
