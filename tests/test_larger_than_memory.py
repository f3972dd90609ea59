"""What stands between a set of images and the report holds a few numbers of each image, no more."""

import contextlib
import io
import json
import sys
import tarfile

import numpy as np
import pytest

from distillation.data.rows import make_rows
from distillation.export.agreement import compare_logits
from distillation.export.onnx_file import export_onnx
from distillation.export.quantization import NUM_CALIBRATION_IMAGES, choose_calibration_images
from distillation.export.sessions import load_exported
from distillation.models.creation import create_classifier
from distillation.report.calibration import reliability_bins
from distillation.results.measures import measure, predicted_classes, teacher_agreement
from distillation.runs import predictions as predictions_module
from distillation.runs.calibration import calibration_error, fit_temperature
from distillation.runs.predictions import Predictions, load_predictions, top5_accuracy
from distillation.sources import repeated
from distillation.sources.decode import DataError
from distillation.sources.files import FileSource
from distillation.sources.repeated import count_repeated
from distillation.training.evaluation import predict_logits
from distillation.training.runtime import CPU
from tests.helpers.growth import bytes_per_item, peak_of_process

FEW, MANY = 1_500, 6_000
NUM_CLASSES = 100
ROW_BYTES = 4 * NUM_CLASSES  # of the logits of an image
SIZE = 32
IMAGE_BYTES = 3 * SIZE**2


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Take pieces that are small beside what is measured."""
    monkeypatch.setattr(predictions_module, "_PIECE_VALUES", 2**14)
    monkeypatch.setattr(repeated, "_PIECE_ROWS", 2**8)


def make_predictions(num_images, *, seed=0):
    generator = np.random.default_rng(seed)
    return Predictions(
        logits=generator.normal(size=(2, num_images, NUM_CLASSES)).astype(np.float32),
        seeds=np.arange(2),
        labels=generator.integers(NUM_CLASSES, size=num_images),
        class_names=tuple(f"class {number}" for number in range(NUM_CLASSES)),
    )


USES = {
    "calibration error": lambda it: calibration_error(it.logits[0], it.labels),
    "temperature": lambda it: fit_temperature(it.logits[0], it.labels),
    "top-5 accuracy": lambda it: top5_accuracy(it.logits[0], it.labels),
    "agreement of exports": lambda it: compare_logits(it.logits[0], it.logits[1]),
    "agreement with the teacher": lambda it: teacher_agreement(it.logits[0], it.logits[1]),
    "reliability": reliability_bins,
    "measures": lambda it: measure(it, it),
    "predicted classes": lambda it: predicted_classes(it, seed=1),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_no_second_copy_of_the_logits_is_made(use):
    def make(num_images):
        predictions = make_predictions(num_images)
        return lambda: use(predictions)

    assert bytes_per_item(make, few=FEW, many=MANY) < ROW_BYTES / 4


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_size_of_a_piece_decides_no_bit(use, monkeypatch):
    found = []
    for values in (1, 7 * NUM_CLASSES, 2**30):
        monkeypatch.setattr(predictions_module, "_PIECE_VALUES", values)
        found.append(repr(use(make_predictions(50))))
    assert len(set(found)) == 1


def test_stored_logits_are_not_read_into_memory(tmp_path):
    def make(num_images):
        make_predictions(num_images).save(path := tmp_path / f"{num_images}.npz")
        return lambda: load_predictions(path)

    assert bytes_per_item(make, few=FEW, many=MANY) < ROW_BYTES / 4


@pytest.mark.parametrize("is_folder", [False, True], ids=["archive", "folder"])
def test_of_a_source_its_names_are_held_and_little_else(tmp_path, is_folder):
    names = [f"class {number % 10}/image {number:06}.jpg" for number in range(MANY)]

    def make(num_images):
        path = tmp_path / f"{num_images}{'' if is_folder else '.tar'}"
        with tarfile.open(path, "w") if not is_folder else io.BytesIO() as archive:
            for name in names[:num_images]:
                if is_folder:
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                    (path / name).write_bytes(b"x")
                    continue
                member = tarfile.TarInfo(name)
                member.size = 1
                archive.addfile(member, io.BytesIO(b"x"))

        def read():
            source = FileSource(path)
            for sample in source.samples():
                with contextlib.suppress(DataError):  # it is no image, but its hash is kept
                    sample.load([SIZE])
            source.provenance()

        return read

    assert bytes_per_item(make, few=FEW, many=MANY) < sys.getsizeof(names[0]) + 150


def test_copies_are_counted_without_an_object_per_image():
    def make(num_images):
        hashes = np.random.default_rng(0).integers(0, 256, (num_images, 16), dtype=np.uint8)
        labels = np.arange(num_images) % NUM_CLASSES
        test, train = slice(num_images // 5), slice(num_images // 5, num_images)
        return lambda: count_repeated(hashes[test], labels[test], hashes[train], labels[train])

    assert bytes_per_item(make, few=FEW, many=MANY) < 70


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_those_that_a_search_one_by_one_finds(seed):
    generator = np.random.default_rng(seed)
    pool = generator.integers(0, 256, (400, 16), dtype=np.uint8)
    pool[:, :15] = 0  # beginnings and ends that are zeros
    numbers, train_numbers = generator.integers(400, size=300), generator.integers(400, size=700)
    labels, train_labels = generator.integers(3, size=300), generator.integers(3, size=700)
    known = {}
    for row, label in zip(pool[train_numbers], train_labels, strict=True):
        known.setdefault(row.tobytes(), set()).add(label)
    others = [
        label not in known[row.tobytes()]
        for row, label in zip(pool[numbers], labels, strict=True)
        if row.tobytes() in known
    ]
    counted = count_repeated(pool[numbers], labels, pool[train_numbers], train_labels)
    assert counted == {"images": len(others), "with_another_label": sum(others)}


@pytest.fixture(scope="module")
def model():
    return create_classifier("test_resnet", num_classes=10, image_size=SIZE, seed=0)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    names = json.dumps([str(number) for number in range(10)])
    metadata = {"class_names": names, "image_size": str(SIZE), "versions": "{}"}
    export_onnx(model, path, image_size=SIZE, metadata=metadata, is_shipped=False)
    return load_exported(path, num_threads=1)


@pytest.fixture
def map_images(tmp_path):
    def make(num_images):
        path = tmp_path / f"{num_images}.npy"
        pixels = np.random.default_rng(0).integers(0, 256, (num_images, SIZE, SIZE, 3), np.uint8)
        np.save(path, pixels)
        return np.load(path, mmap_mode="r")

    return make


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("use", ["evaluation", "export"])
def test_evaluation_and_export_hold_no_images(use, model, exported, map_images):
    def make(num_images):
        images = map_images(num_images)
        if use == "evaluation":
            rows = make_rows(images, CPU.device)
            return lambda: predict_logits(model, rows, runtime=CPU, batch_size=250)
        return lambda: exported.predict_logits(images)

    grown = bytes_per_item(make, few=FEW, many=MANY, measure=peak_of_process)
    assert grown < IMAGE_BYTES / 3


def test_only_the_images_for_calibration_are_read(map_images):
    def make(num_images):
        images = map_images(num_images)
        return lambda: choose_calibration_images(images, image_size=SIZE)

    assert len(make(FEW)()) == NUM_CALIBRATION_IMAGES
    assert bytes_per_item(make, few=FEW, many=MANY) < IMAGE_BYTES / 30
