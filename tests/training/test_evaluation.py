"""Metrics against predictions made by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from distillation.data.rows import ResidentRows, StreamedRows
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.training import evaluation
from distillation.training.runtime import CPU, Runtime

BF16 = Runtime(device=torch.device("cpu"), precision="bf16")


def evaluate(model, images, labels, *, runtime=CPU, **options):
    return evaluation.evaluate(model, ResidentRows(images), labels, runtime=runtime, **options)


def predict_logits(model, images, *, runtime=CPU, **options):
    return evaluation.predict_logits(model, ResidentRows(images), runtime=runtime, **options)


class Oracle(Classifier):
    """Says of an image the row of a table that its first pixel names."""

    def __init__(self, table):
        nn.Module.__init__(self)
        self.table = torch.tensor(table)
        self.num_classes = self.table.shape[1]
        self.batch_sizes = []
        self.modes = []

    def forward(self, images):
        assert images.shape[1:] == (3, 2, 2)
        self.batch_sizes.append(len(images))
        self.modes.append(self.training)
        return self.table[images[:, 0, 0, 0].long()]


def make_images(count):
    """Image i has i in its red channel and 255 elsewhere."""
    images = torch.full((count, 2, 2, 3), 255, dtype=torch.uint8)
    images[..., 0] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    return images


def certain(predictions, num_classes, height=1.0):
    return [[height * (k == p) for k in range(num_classes)] for p in predictions]


@pytest.mark.parametrize(
    ("num_classes", "truth", "predictions", "acc", "f1"),
    [
        (2, [0, 1, 1, 0], [0, 1, 1, 0], 100.0, 1.0),
        (2, [0, 1], [1, 0], 0.0, 0.0),
        # F1 per class: 2·2/(2·2+2), 2·1/(2·1+1+1), and 0 as class 2 is never predicted.
        (3, [0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 0, 1], 50.0, (2 / 3 + 1 / 2 + 0) / 3),
        # A class that is neither there nor predicted does not count.
        (4, [0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 0, 1], 50.0, (2 / 3 + 1 / 2 + 0) / 3),
        # Nor does one that is predicted and not there, but class 1 misses an image by it.
        (3, [0, 0, 1, 1], [0, 0, 1, 2], 75.0, (1 + 2 / 3) / 2),
        (5, [4, 4], [4, 4], 100.0, 1.0),
        # Not the micro average, which would be the accuracy of 0.8.
        (2, [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], 80.0, (8 / 9 + 0) / 2),
    ],
)
def test_accuracy_and_f1_by_hand(num_classes, truth, predictions, acc, f1):
    model = Oracle(certain(predictions, num_classes))
    found = evaluate(model, make_images(len(truth)), torch.tensor(truth))
    assert found.acc == pytest.approx(acc)
    assert found.f1 == pytest.approx(f1)
    assert all(type(value) is float for value in (found.loss, found.acc, found.f1))


@pytest.mark.parametrize("num_classes", [2, 3, 11])
@pytest.mark.parametrize("count", [1, 200])
def test_macro_f1_is_scikit_learns(num_classes, count):
    generator = np.random.default_rng(num_classes)
    labels, predictions = generator.integers(0, max(2, num_classes - 1), (2, count))
    present = np.unique(labels)
    expected = f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    found = evaluation.macro_f1(labels, predictions, num_classes=num_classes)
    assert found == pytest.approx(expected, abs=1e-15)


def test_loss_by_hand():
    table = [[1.0, 2.0, -1.0], [0.0, 0.5, 3.0], [2.0, 2.0, 2.0]]
    truth = [1, 0, 2]
    losses = [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(table, truth, strict=True)
    ]
    found = evaluate(Oracle(table), make_images(3), torch.tensor(truth))
    assert found.loss == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_confident_mistakes_have_a_finite_loss():
    found = evaluate(Oracle(certain([0, 1], 2, height=1e3)), make_images(2), torch.tensor([1, 1]))
    assert found.loss == pytest.approx(500.0)
    assert found.acc == 50.0


@pytest.mark.parametrize(
    ("batch_size", "batches"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (500, [7])]
)
def test_batch_size_does_not_change_the_result(batch_size, batches):
    table = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).tolist()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    model = Oracle(table)
    assert evaluate(model, make_images(7), labels, batch_size=batch_size) == evaluate(
        Oracle(table), make_images(7), labels, batch_size=2
    )
    assert model.batch_sizes == batches


@pytest.mark.parametrize(
    ("size", "expected"), [(32, 500), (64, 500), (128, 125), (224, 40), (2048, 1)]
)
def test_large_images_come_in_smaller_batches(size, expected):
    assert evaluation.batch_without_gradients(500, size) == expected
    assert evaluation.batch_without_gradients(1, size) == 1


@pytest.fixture
def real():
    model = create_classifier("test_resnet", num_classes=4, image_size=16, seed=0, stem_stride=1)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (10, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return model, images, torch.arange(10) % 4


def test_a_real_model_is_measured_in_evaluation_mode_whatever_the_batch_size(real):
    model, images, labels = real
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = model.eval()(images.permute(0, 3, 1, 2))
    model.train()
    results = [evaluate(model, images, labels, batch_size=size) for size in (1, 4, 500)]
    for result in results:
        assert result.loss == pytest.approx(results[0].loss, rel=1e-5)
        assert (result.acc, result.f1) == (results[0].acc, results[0].f1)
    assert torch.allclose(predict_logits(model, images, batch_size=3), expected, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_logits_are_float32_without_gradients(real):
    model, images, _ = real
    logits = predict_logits(model, images)
    assert logits.shape == (10, 4)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_logits_are_widened():
    model = Oracle(certain([0, 1], 2))
    model.table = model.table.half()
    assert predict_logits(model, make_images(2)).dtype == torch.float32


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_restored(mode):
    model = Oracle(certain([0, 1], 2)).train(mode)
    evaluate(model, make_images(2), torch.tensor([0, 1]))
    assert model.modes == [False]
    assert model.training is mode


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_restored_after_an_error(mode):
    model = Oracle(certain([0], 2)).train(mode)
    with pytest.raises(IndexError):
        predict_logits(model, make_images(2))
    assert model.training is mode


def test_bf16_logits_are_widened_and_near_those_of_float32(real):
    model, images, labels = real
    expected = predict_logits(model, images)
    found = predict_logits(model, images, runtime=BF16)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert torch.equal(found, found.bfloat16().float())  # they were computed in bf16
    # bf16 has 8 bits of precision; an untrained model's logits are of the order of 1.
    assert torch.allclose(found, expected, atol=0.03 * expected.abs().max().item())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    loss = evaluate(model, images, labels, runtime=BF16).loss
    assert loss == pytest.approx(evaluate(model, images, labels).loss, rel=0.02)


@pytest.mark.parametrize("runtime", [CPU, BF16], ids=lambda runtime: runtime.precision)
def test_images_streamed_from_a_file_give_the_same_logits(real, tmp_path, runtime):
    model, images, labels = real
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = StreamedRows(mapped, torch.device("cpu"))
    found = evaluation.predict_logits(model, rows, runtime=runtime, batch_size=4)
    assert torch.equal(found, predict_logits(model, images, runtime=runtime, batch_size=4))
    assert evaluation.evaluate(model, rows, labels, runtime=runtime) == evaluate(
        model, images, labels, runtime=runtime
    )
