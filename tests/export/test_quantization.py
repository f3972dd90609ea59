"""The int8 file: what it holds, and that the same images make the same file."""

import io
import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from distillation.export import quantization
from distillation.export.errors import ExportError
from distillation.export.onnx_file import export_onnx
from distillation.export.quantization import choose_calibration_images, quantize
from distillation.export.sessions import load_exported
from distillation.sources.decode import decode_image

pytestmark = pytest.mark.slow

METADATA = {"class_names": json.dumps([str(k) for k in range(10)]), "image_size": "32"}


@pytest.fixture(scope="module")
def files(make_model, tmp_path_factory):
    """Give a MobileNetV3 and two int8 files of it by the same images."""
    folder = tmp_path_factory.mktemp("int8")
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    model = make_model("mobilenetv3_small_100", size=32, stem_stride=1)
    export_onnx(model, folder / "m.onnx", image_size=32, metadata=METADATA)
    for name in ("a.onnx", "b.onnx"):
        quantize(folder / "m.onnx", folder / name, images=images)
    return folder, images


def test_equal_images_give_equal_bytes(files):
    folder, _ = files
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_it_is_smaller_and_keeps_contract_and_metadata(files):
    folder, images = files
    small = load_exported(folder / "a.onnx")
    assert (folder / "a.onnx").stat().st_size < 0.35 * (folder / "m.onnx").stat().st_size
    assert {**small.metadata, "sha256": ""} == {**METADATA, "sha256": ""}
    for count in (1, 5):
        logits = small.predict_logits(images[:count])
        assert logits.shape == (count, 10)
        assert np.isfinite(logits).all()


def test_weights_have_a_scale_a_channel_and_seven_bits(files):
    folder, _ = files
    graph = onnx.load(folder / "a.onnx").graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 40
    for node in convolutions:
        weight = producers[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        quantized, scales = values[weight.input[0]], values[weight.input[1]]
        assert quantized.dtype == np.int8
        assert len(scales) == len(quantized)
        assert -64 <= quantized.min() <= quantized.max() <= 64


def test_calibration_images_are_chosen_by_seed_and_lie_in_the_training_split(digits):
    chosen = choose_calibration_images(digits.train.images, image_size=16)
    assert len(chosen) == 512
    assert np.array_equal(chosen, choose_calibration_images(digits.train.images, image_size=16))
    known = {image.tobytes() for image in digits.train.images}
    assert {image.tobytes() for image in chosen} <= known
    assert not np.array_equal(chosen, digits.train.images[:512])
    assert len(choose_calibration_images(digits.train.images[:40], image_size=16)) == 40


def test_larger_training_images_are_scaled_as_images_to_classify_are(digits):
    larger = np.repeat(np.repeat(digits.train.images[:5], 2, axis=1), 2, axis=2)
    chosen = choose_calibration_images(larger, image_size=16)
    assert chosen.shape == (5, 16, 16, 3)
    expected = set()
    for image in larger:
        content = io.BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        expected.add(decode_image(content.getvalue(), 16, name="").tobytes())
    assert {image.tobytes() for image in chosen} == expected


def test_calibration_images_of_a_set_that_is_sorted_come_in_another_order():
    """Sets lie in the order of their classes, and a batch should hold many of them."""
    images = np.arange(200, dtype=np.uint8).repeat(8 * 8 * 3).reshape(200, 8, 8, 3)
    values = choose_calibration_images(images, image_size=8)[:, 0, 0, 0]
    assert sorted(values) == list(range(200))
    assert len({value // 20 for value in values[:64]}) == 10


def test_what_the_quantiser_cannot_do_is_one_sentence(files, tmp_path, monkeypatch):
    def fail(*given, **options):
        raise ValueError("scale issue\nat node 5")

    monkeypatch.setattr(quantization, "quantize_static", fail)
    with pytest.raises(ExportError, match=r"^m\.onnx cannot be brought to 8 bits: scale issue$"):
        quantize(files[0] / "m.onnx", tmp_path / "q.onnx", images=files[1][:4])


def test_a_pooling_that_pads_with_infinity_stays_as_it_is(make_model, tmp_path):
    model = make_model(size=32)
    torch.manual_seed(0)
    model.net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        MaxPool2dSame(3, 2),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    images[:20] //= 2
    export_onnx(model, tmp_path / "m.onnx", image_size=32, metadata=METADATA)
    assert "Pad" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", images=images)
    whole, small = (
        load_exported(tmp_path / name).predict_logits(images) for name in ("m.onnx", "q.onnx")
    )
    assert np.abs(whole - small).max() < 0.1 * np.ptp(whole)
