"""Refuse a method where its loss would be a constant, and the student would learn nothing of it.

The losses' files say with how many classes and images that is so. No torch.
"""

from __future__ import annotations

from types import ModuleType

from distillation.base.params import ParamError

_MIN_STANDARDIZED_CLASSES = 3


def check_limits(
    method: str,
    module: ModuleType,
    *,
    num_classes: int,
    batch_size: int,
    standardize_logits: bool,
) -> None:
    """Check that the terms of a method can differ from one student to another.

    Args:
        method: an experiment or a further method.
        module: the file of its loss; `MIN_CLASSES` and `MIN_BATCH_SIZE` are what it needs, and
            `WHY_MIN_CLASSES` and `WHY_MIN_BATCH_SIZE` say why.
        num_classes: K.
        batch_size: images in a batch, B: of an epoch's, which are all of a size.
        standardize_logits: whether logits are standardised before the loss.

    Raises:
        ParamError: there are too few classes or images.
    """
    if standardize_logits and num_classes < _MIN_STANDARDIZED_CLASSES:
        raise ParamError(
            f"standardize_logits: got true, but of {num_classes} classes one has the standardised "
            "logit 1 and the other −1 whatever a model predicts, so that nothing can be learned "
            "from them; allowed with 2 classes: false"
        )
    min_classes = getattr(module, "MIN_CLASSES", 2)
    if num_classes < min_classes:
        raise ParamError(
            f"methods: got {method}, but the data set has {num_classes} classes, and there "
            f"{module.WHY_MIN_CLASSES}; allowed: methods that bear it, or at least {min_classes} "
            "classes"
        )
    min_batch_size = getattr(module, "MIN_BATCH_SIZE", 1)
    if batch_size < min_batch_size:
        raise ParamError(
            f"batch_size: {method} got batches of {batch_size}, and there "
            f"{module.WHY_MIN_BATCH_SIZE}; allowed for it: batches of at least {min_batch_size} "
            "images"
        )
