"""Refuse a method where its loss would be a constant, or the models lack what it compares.

The losses' files say with how many classes and images that is so, and which features they compare.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

from distillation.base.methods import CONTROL, EXPERIMENTS, module_name
from distillation.base.params import ParamError, Params
from distillation.models.features import MAP, describe_features, has_features
from distillation.models.names import ModelError
from distillation.training.model_check import ModelFeatures

_MIN_STANDARDIZED_CLASSES = 3


def check_methods(
    methods: Sequence[str], params: Params, *, num_classes: int, features: ModelFeatures
) -> None:
    """Check before any training that methods can be run; `build_objective` checks each once more.

    Args:
        methods: the control may be among them.
        params: the parameters.
        num_classes: K.
        features: of both models.

    Raises:
        ModelError: a method compares features that a model does not have.
        ParamError: a further method has no weight, or a loss would be a constant with so few
            classes or images.
    """
    for method in methods:
        if method == CONTROL:
            continue
        module = importlib.import_module(module_name(method))
        if method not in EXPERIMENTS:
            method_weight(params, method)
        check_limits(
            method,
            module,
            num_classes=num_classes,
            batch_size=params.batch_size,
            standardize_logits=params.standardize_logits,
        )
        check_features(method, module, features)


def method_weight(params: Params, method: str) -> float:
    """Return the weight of a further method's own term.

    Raises:
        ParamError: the parameters have none.
    """
    if method not in params.method_weights:
        raise ParamError(f"method_weights: missing {method}; allowed: a number of at least 0")
    return params.method_weights[method]


def check_features(method: str, module: ModuleType, features: ModelFeatures) -> None:
    """Raise `ModelError` if a model has not the features that a method compares, if it does."""
    kind = getattr(module, "FEATURES", None)
    for role, (name, shape) in features.items():
        if kind is not None and not has_features(shape, kind):
            raise ModelError(
                f"{role}: got {name}, which has {describe_features(shape)}, but {method} compares "
                f"feature {'maps' if kind == MAP else 'vectors'}; allowed: another {role}, or a "
                "method of logits alone such as exp1"
            )


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
