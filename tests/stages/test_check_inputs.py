"""Images that a stage would remove are refused before any is prepared."""

import numpy as np
import pytest
from PIL import Image

from distillation.base.params import ParamError, make_params
from distillation.base.workspace import Workspace
from stages import check_inputs


@pytest.fixture
def check(tiny_values, tmp_path):
    """Return a function that runs the stage on a few images of two classes."""
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((32, 32, 3), 20 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")

    def run(**changes):
        values = {**tiny_values, "dataset": str(tmp_path / "images"), "image_size": 32, **changes}
        params = make_params(values)
        return check_inputs.main(params, Workspace(root=tmp_path))

    return run


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
