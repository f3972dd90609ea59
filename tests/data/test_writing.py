"""Images written one by one are the files that numpy writes of a whole array."""

import os

import numpy as np
import pytest

from distillation.data.prepared import SPLITS
from distillation.data.writing import ImageWriter

COUNTS = {"train": 5, "validation": 2, "test": 3}
SIDES = {"train": 6, "validation": 4, "test": 4}


def images(split):
    shape = (COUNTS[split], SIDES[split], SIDES[split], 3)
    return np.random.default_rng(len(split)).integers(0, 256, shape, dtype=np.uint8)


def test_rows_in_any_order_make_the_file_that_numpy_writes(tmp_path):
    with ImageWriter(tmp_path, COUNTS, SIDES) as writer:
        for split in SPLITS:
            for row in np.random.default_rng(1).permutation(COUNTS[split]):
                writer.write(split, int(row), images(split)[row])
    for split in SPLITS:
        np.save(tmp_path / "whole.npy", images(split))
        assert (tmp_path / f"{split}_images.npy").read_bytes() == (
            tmp_path / "whole.npy"
        ).read_bytes()


def test_an_image_that_is_not_contiguous_is_written_as_it_is_seen(tmp_path):
    turned = images("train")[0].transpose(1, 0, 2)
    with ImageWriter(tmp_path, COUNTS, SIDES) as writer:
        writer.write("train", 3, turned)
    np.testing.assert_array_equal(np.load(tmp_path / "train_images.npy")[3], turned)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_a_full_disk_is_told(tmp_path):
    with ImageWriter(tmp_path, COUNTS, SIDES) as writer, open("/dev/full", "wb") as full:  # noqa: PTH123
        writer._files["train"] = full
        with pytest.raises(OSError, match="No space left on device"):
            writer.write("train", 0, images("train")[0])
