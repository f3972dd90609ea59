"""What cannot be run is said before any image is prepared or any model trained."""

import numpy as np
import pytest
from PIL import Image

from distillation.base.params import ParamError, make_params
from distillation.base.workspace import Workspace
from distillation.models.names import ModelError
from stages import check_inputs


@pytest.fixture
def check(tiny_values, tmp_path):
    """Return a function that runs the stage on a few images of two classes."""
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((32, 32, 3), 20 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")

    def run(asked=None, **changes):
        values = {**tiny_values, "dataset": str(tmp_path / "images"), "image_size": 32, **changes}
        params = make_params(values)
        return check_inputs.main(params, Workspace(root=tmp_path), methods=asked)

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["dkd"]}, r"^methods: got dkd, but the data set has 2 classes"),
        ({"standardize_logits": True}, r"^standardize_logits: got true, but of 2 classes"),
    ],
)
def test_a_loss_that_two_classes_make_a_constant_is_refused(check, changes, message):
    with pytest.raises(ParamError, match=message):
        check(**changes)


@pytest.mark.parametrize(
    "place", ["data/prepared", "data/prepared/mine", "models/x", "report", "data", "."]
)
def test_images_where_a_stage_writes_are_refused_before_any_is_lost(check, tmp_path, place):
    folder = tmp_path / place
    (tmp_path / "images").rename(tmp_path / "moved")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ant", "bee"):
        (tmp_path / "moved" / name).rename(folder / name)
    with pytest.raises(ParamError, match=r"^dataset: got .* stages of the pipeline write, and rem"):
        check(dataset=str(folder))
    assert len(list(folder.rglob("*.png"))) == 10


def test_images_beside_what_a_stage_writes_are_taken(check, tmp_path):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "images").rename(tmp_path / "data" / "raw" / "pets")
    (written,) = check(dataset=str(tmp_path / "data" / "raw" / "pets"))
    assert written.exists()


PIT = {"teacher": "pit_ti_224", "image_size": 224, "teacher_stem_stride": None}


def test_a_further_method_that_a_model_has_no_features_for_is_refused(check):
    with pytest.raises(ModelError, match=r"^teacher: got pit_ti_224, .* similarity compares feat"):
        check(["control", "similarity"], **PIT)


def test_an_experiment_that_cannot_be_run_is_warned_of(check, caplog):
    (written,) = check(**PIT)
    assert written.exists()
    said = [line for line in caplog.messages if line.startswith("WARNING: exp")]
    assert [line[:32] for line in said] == ["WARNING: exp3 cannot be run: tea"]
    caplog.clear()
    check(["control", "exp1"], **PIT)
    assert caplog.messages == []
