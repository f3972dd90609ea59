"""Reliability diagrams agree with the calibration error."""

import numpy as np
import pytest

from distillation.report.calibration import draw_calibration, reliability_bins
from distillation.report.palette import make_styles, stand_ins
from distillation.runs.calibration import calibration_error
from distillation.runs.predictions import Predictions


def test_bins_give_the_calibration_error_of_one_training():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    found = Predictions(
        logits=generator.normal(0, 3, (1, 300, 4)).astype(np.float32),
        seeds=np.array([0]),
        labels=labels,
        class_names=tuple("abcd"),
    )
    confidence, accuracy, counts = reliability_bins(found)
    assert counts.sum() == 300
    gaps = np.nansum(counts / 300 * np.abs(accuracy - confidence))
    assert gaps == pytest.approx(calibration_error(found.logits[0], labels))


def test_an_empty_bin_has_no_point():
    found = Predictions(
        logits=np.full((1, 5, 2), [9.0, 0.0], dtype=np.float32),
        seeds=np.array([0]),
        labels=np.zeros(5, dtype=np.int64),
        class_names=("a", "b"),
    )
    confidence, accuracy, counts = reliability_bins(found)
    assert counts.tolist() == [0] * 14 + [5]
    assert np.isnan(accuracy[:14]).all()
    assert (accuracy[14], round(confidence[14], 3)) == (1.0, 1.0)


def test_teacher_and_methods_have_a_diagram_each(project):
    inputs = project.read("control", "exp1")
    styles = make_styles(inputs.methods)
    found = draw_calibration(inputs, styles, stand_ins(styles.values()))
    assert [one.method for one in found] == ["teacher", "control", "exp1"]
    assert found[0].error_std is None
    assert found[1].error_std > 0
    labels = inputs.data.test.labels
    errors = [calibration_error(one, labels) for one in inputs.predictions["exp1"].logits]
    assert found[2].error == found[2].scaled_error == pytest.approx(np.mean(errors))
    inputs.predictions["exp1"].temperatures[:] = 3.0
    scaled = draw_calibration(inputs, styles, stand_ins(styles.values()))[2]
    assert (scaled.error, scaled.temperature) == (found[2].error, 3.0)
    assert scaled.scaled_error == pytest.approx(
        np.mean([calibration_error(one / 3.0, labels) for one in inputs.predictions["exp1"].logits])
    )
