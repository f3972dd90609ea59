"""Measure a classifier on a split: loss, accuracy, macro-F1.

Shapes: N samples, K classes, H = W image size.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distillation.data.rows import Indices, Rows
from distillation.models.classifier import Classifier
from distillation.training.runtime import Runtime

_SIZE_OF_FULL_BATCHES = 64


def batch_without_gradients(batch_size: int, image_size: int) -> int:
    """Return how many images at a time are to be run where no gradients are kept.

    Args:
        batch_size: for images of up to 64 pixels. Of larger ones as many pixels: memory goes with
            them, and whoever lowers the training's batches should not run out of it here.
        image_size: H = W in pixels.
    """
    share = min(1.0, (_SIZE_OF_FULL_BATCHES / image_size) ** 2)
    return max(1, int(batch_size * share))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """How well a classifier does on one split."""

    loss: float
    """Mean cross-entropy in nats."""
    acc: float
    """Accuracy in percent."""
    f1: float
    """Macro-averaged F1, a fraction, over the classes that have an image; one that is never
    predicted counts as 0."""

    def to_text(self) -> str:
        """Return all of it in a few words for a log."""
        return f"loss {self.loss:.4f}, accuracy {self.acc:.2f} %, macro-F1 {self.f1:.4f}"


def evaluate(
    model: Classifier, images: Rows, labels: Tensor, *, runtime: Runtime, batch_size: int = 500
) -> Metrics:
    """Measure a classifier in evaluation mode; its training mode is restored afterwards.

    Args:
        model: the classifier, on the runtime's device.
        images: (N, H, W, 3) uint8.
        labels: (N,) int64 on the device.
        runtime: device and precision.
        batch_size: images per forward pass, fewer where they are large; it does not change the
            result beyond rounding.
    """
    logits = predict_logits(model, images, runtime=runtime, batch_size=batch_size)
    return measure_logits(logits, labels)


def measure_logits(logits: Tensor, labels: Tensor) -> Metrics:
    """Return loss, accuracy and macro-F1 of logits (N, K) float32 for labels (N,) int64."""
    predictions = logits.argmax(dim=1).cpu().numpy()
    truth = labels.cpu().numpy()
    return Metrics(
        loss=float(F.cross_entropy(logits, labels)),
        acc=100.0 * float((predictions == truth).mean()),
        f1=macro_f1(truth, predictions, num_classes=logits.shape[1]),
    )


def macro_f1(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], *, num_classes: int
) -> float:
    """Compute the mean of F1 = 2 TP / (labelled + predicted) over the classes that have a label.

    A class without any label cannot be found, so it has no F1. Predicting it is a mistake all the
    same: the class that the image belongs to misses it. That is scikit-learn's `f1_score` with
    `average="macro"` and the labels that are there as `labels`, without the two seconds it takes to
    import, which every stage would pay.

    Args:
        labels: (N,) in 0 … num_classes - 1, at least one.
        predictions: (N,) likewise.
        num_classes: K.
    """
    hits = np.bincount(labels[labels == predictions], minlength=num_classes)
    labelled = np.bincount(labels, minlength=num_classes)
    totals = labelled + np.bincount(predictions, minlength=num_classes)
    return float((2.0 * hits / np.maximum(totals, 1))[labelled > 0].mean())


def predict_logits(
    model: Classifier, images: Rows, *, runtime: Runtime, batch_size: int = 500
) -> Tensor:
    """Return the logits (N, K) float32 of images (N, H, W, 3) uint8, without gradients."""
    was_training = model.training
    model.eval()
    logits = torch.empty((len(images), model.num_classes), device=runtime.device)
    size = batch_without_gradients(batch_size, images.row_shape[0])
    try:
        with torch.inference_mode(), runtime.autocast():
            for host in torch.arange(len(images)).split(size):
                chunk = images.take(Indices(host, host.to(runtime.device, non_blocking=True)))
                start = int(host[0]) if len(host) else 0
                logits[start : start + len(host)] = model(chunk.permute(0, 3, 1, 2))
    finally:
        model.train(was_training)
    return logits
