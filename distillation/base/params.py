"""Typed hyperparameters, checked before any work starts.

`params.yaml` is the one place where a hyperparameter has a value; this module says which keys
exist, what type and range each has, and turns every mistake into a `ParamError` that names key,
value and what is allowed. It imports no torch, so a wrong value is reported at once. Whether a
timm model of a given name exists is checked by `distillation.models.classifier`, which knows timm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from distillation.base.errors import DistillationError
from distillation.base.methods import DEFAULT_METHODS, further_methods

BUILT_IN_DATASETS = ("cifar10", "digits")
"""Values of `dataset` that are names; every other value is a path."""

PATH_KEYS = ("dataset", "teacher_checkpoint", "student_checkpoint")
"""Parameters that are, or may be, paths."""


_LARGEST_SEED = 2**31 - 1


class ParamError(DistillationError):
    """A hyperparameter is missing, unknown, of the wrong type or out of range."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which plain YAML readers silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _number(
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a required numeric field with the range of values it accepts."""
    limits = {"above": above, "at_least": at_least, "at_most": at_most, "below": below}
    return dataclasses.field(metadata={k: v for k, v in limits.items() if v is not None})


def _seeds() -> Any:
    """Declare a required list of seeds."""
    return dataclasses.field(metadata={"at_least": 0, "at_most": _LARGEST_SEED})


def _choice(*choices: str) -> Any:
    """Declare a required text field with the words it accepts; true and false count as words."""
    return dataclasses.field(metadata={"choices": choices})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """All hyperparameters of one run. Every field stands in `params.yaml` under the same name."""

    # Data
    dataset: str
    """`cifar10`, `digits`, or a path to an image folder or archive."""
    image_size: int = _number(at_least=8, at_most=1024)
    """Height and width in pixels of every image after preparation."""
    labeled_fraction: float = _number(above=0, at_most=1)
    """Share of the training images whose labels may be used."""
    validation_fraction: float = _number(above=0, at_most=0.5)
    """Share of the training images held out to choose the best epoch."""
    test_fraction: float = _number(above=0, at_most=0.5)
    """Share held out for testing when the data set brings no test split of its own."""
    use_unlabeled: bool
    """Distil on every training image, the labelled and the others, and train the control on the
    labelled ones for as many steps; false: all train on the labelled images alone."""
    seed: int = _number(at_least=0, at_most=_LARGEST_SEED)
    """Seed of the splits, the views and the teacher's training."""

    # Models
    teacher: str
    """timm name of the teacher."""
    student: str
    """timm name of the student."""
    teacher_checkpoint: str | None
    """Weights the teacher starts from (.safetensors, or a state dict saved by torch)."""
    student_checkpoint: str | None
    """Weights every student starts from."""
    pretrained: bool
    """Start from timm's published weights (needs the network or timm's local cache)."""
    stem_stride: int | None = _number(at_least=1, at_most=8)
    """Stride of the first convolution; null keeps the architecture's own."""

    # The teacher's training
    teacher_epochs: int = _number(at_least=0)
    """Epochs the teacher is trained on the labelled images; 0 takes it as it is."""
    teacher_batch_size: int = _number(at_least=1)
    """Images per step while the teacher is trained."""
    teacher_learning_rate: float = _number(above=0)
    """Peak learning rate of the teacher's training."""
    teacher_weight_decay: float = _number(at_least=0)
    """Weight decay in the teacher's training, on weights of two or more dimensions."""
    teacher_optimizer: str
    """timm name of the optimizer that trains the teacher."""
    teacher_optimizer_options: dict[str, Any] | None
    """Keyword arguments of the teacher's optimizer, such as {betas: [0.9, 0.95]}; null: none."""

    # The students' training, the same for every method
    epochs: int = _number(at_least=0)
    """Epochs every student is trained; 0 measures the untrained student."""
    batch_size: int = _number(at_least=1)
    """Images per step while a student is trained."""
    learning_rate: float = _number(above=0)
    """Peak learning rate of a student's training."""
    weight_decay: float = _number(at_least=0)
    """Weight decay in a student's training, on weights of two or more dimensions."""
    optimizer: str
    """timm name of the optimizer that trains the students."""
    optimizer_options: dict[str, Any] | None
    """Keyword arguments of the students' optimizer, such as {momentum: 0.9}; null: none."""
    seeds: tuple[int, ...] = _seeds()
    """Seeds of the students' trainings; every method trains once for each: initialisation, order of
    the batches and order of the views."""
    patience_epochs: int | None = _number(at_least=1)
    """Stop a student's training after so many epochs without a better validation accuracy."""
    ema_decay: float = _number(at_least=0, below=1)
    """Decay of the moving average of a student's weights, which is what is measured and saved;
    0: no average."""

    # All trainings
    warmup_fraction: float = _number(at_least=0, below=1)
    """Share of all steps in which the learning rate rises from zero to its peak."""
    crop_padding: int = _number(at_least=0)
    """A training image is shifted by up to this many pixels in each direction."""
    horizontal_flip: bool
    """Mirror half of the training views; switch it off where left and right differ."""

    num_views: int = _number(at_least=1)
    """Augmented views a training image has; epoch e shows the students view e modulo this."""

    # How it is computed
    teacher_cache_gb: float = _number(at_least=0)
    """Space in 10⁹ bytes for the teacher's stored outputs; features beyond it are computed live."""
    precision: str = _choice("auto", "fp32", "bf16")
    """Arithmetic of forward passes; auto: bf16 on CUDA devices that have it, fp32 elsewhere."""
    compile: str = _choice("auto", "true", "false")
    """Compile the training step with torch.compile; auto does so on CUDA alone."""

    # What is shipped
    export_method: str | None
    """The method whose student `export_student` ships; null: the one that is best on validation."""

    # The distillation objective
    label_weight: float = _number(at_least=0)
    """Weight of the cross-entropy with the labels."""
    alpha: float = _number(at_least=0)
    """Weight of the logit distillation."""
    temperature: float = _number(above=0)
    """Temperature that softens both distributions in the logit distillation."""
    standardize_logits: bool
    """Give both models' logits mean 0 and deviation 1 for each image before any logit loss."""
    feature_weight: float = _number(at_least=0)
    """Weight of the feature term in experiments 2 and 3."""

    # Further methods
    methods: tuple[str, ...]
    """Further methods to run beside the three experiments."""
    method_weights: dict[str, float] = dataclasses.field(metadata={"at_least": 0})
    """The weight of each further method's own term."""

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(Params).items():
            value = _coerce(name, getattr(self, name), annotation)
            object.__setattr__(self, name, value)
        for key in ("methods", "method_weights"):
            for name in getattr(self, key):
                if name not in further_methods():
                    raise ParamError(
                        f"{key}: got {name!r}; allowed: {', '.join(further_methods())}"
                    )
        methods = (*DEFAULT_METHODS, *self.methods)
        if self.export_method is not None and self.export_method not in methods:
            raise ParamError(
                f"export_method: got {self.export_method!r}; allowed: {', '.join(methods)}, a "
                "method that methods names, or null"
            )
        if self.crop_padding >= self.image_size:
            raise ParamError(
                f"crop_padding: got {self.crop_padding}; allowed: less than image_size "
                f"({self.image_size})"
            )
        if self.label_weight == 0 and self.alpha == 0:
            raise ParamError(
                "label_weight, alpha: got 0 and 0; allowed: at least one of them above 0, "
                "or a student would learn nothing about the classes"
            )


PARAM_NAMES = tuple(field.name for field in dataclasses.fields(Params))


def to_dict(params: Params) -> dict[str, Any]:
    """Return all parameters by name, lists as lists: ready for JSON and YAML."""
    values = {name: getattr(params, name) for name in PARAM_NAMES}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def load_params(path: Path | str = "params.yaml", **overrides: Any) -> Params:
    """Read and check a parameter file.

    Args:
        path: a YAML file with exactly the keys of `Params` at its top level.
        overrides: values that take the place of those in the file.

    Raises:
        ParamError: the file is missing or not a mapping, or a key is unknown, missing, of the
            wrong type or out of range.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ParamError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ParamError(f"{path}: got {type(content).__name__}; allowed: a mapping of parameters")
    return make_params({**content, **overrides}, source=str(path))


def check_paths(params: Params) -> Params:
    """Check that files and folders named by parameters exist.

    Returns:
        The parameters with `~` in paths spelled out.

    Raises:
        ParamError: one does not exist.
    """
    found: dict[str, Any] = {}
    for key in PATH_KEYS:
        path = getattr(params, key)
        if path is None or (key == "dataset" and path in BUILT_IN_DATASETS):
            continue
        found[key] = str(Path(path).expanduser())
        if not Path(found[key]).exists():
            names = f"{', '.join(BUILT_IN_DATASETS)} or " if key == "dataset" else ""
            raise ParamError(
                f"{key}: got {path!r}; allowed: {names}the path of something that exists"
            )
    return dataclasses.replace(params, **found)


def make_params(values: Mapping[str, Any], *, source: str = "parameters") -> Params:
    """Build `Params` from a mapping; raises `ParamError` for unknown or missing keys."""
    for key in values:
        if key not in PARAM_NAMES:
            near = difflib.get_close_matches(str(key), PARAM_NAMES, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {_listed()}"
            raise ParamError(f"{source}: unknown parameter {key!r} = {values[key]!r}; {hint}")
    missing = [name for name in PARAM_NAMES if name not in values]
    if missing:
        raise ParamError(f"{source}: missing parameter {', '.join(missing)}")
    return Params(**values)


def _listed() -> str:
    return ", ".join(PARAM_NAMES)


def _coerce(name: str, value: Any, annotation: Any) -> Any:
    """Check one value against its annotation and range; returns it in its declared type."""
    kind, optional = _kind(annotation)
    if value is None:
        if optional:
            return None
        raise ParamError(f"{name}: got null; allowed: {describe(name)}")
    if name == "seeds":
        return _coerce_seeds(name, value)
    if kind is tuple:
        return _coerce_names(name, value)
    if kind is dict:
        return _coerce_options(name, value) if optional else _coerce_weights(name, value)
    return _coerce_scalar(name, value, kind)


def _coerce_seeds(name: str, value: Any) -> tuple[int, ...]:
    seeds = list(value) if isinstance(value, (list, tuple)) else [value]
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not _in_range(name, seed):
            raise ParamError(f"{name}: got {value!r}; allowed: {describe(name)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ParamError(f"{name}: got {value!r}; allowed: {describe(name)}")
    return tuple(seeds)


def _coerce_names(name: str, value: Any) -> tuple[str, ...]:
    names = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(one, str) for one in names) or len(set(names)) < len(names):
        raise ParamError(f"{name}: got {value!r}; allowed: {describe(name)}")
    return tuple(names)


def _coerce_weights(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ParamError(f"{name}: got {value!r}; allowed: {describe(name)}")
    weights = {}
    for method, weight in value.items():
        try:
            weights[str(method)] = _coerce_scalar(name, weight, float)
        except ParamError as error:
            raise ParamError(
                f"{name}.{method}: got {weight!r}; allowed: a number at least 0"
            ) from error
    return weights


def _coerce_options(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ParamError(f"{name}: got {value!r}; allowed: {describe(name)}")
    return {key: _coerce_option(f"{name}.{key}", option) for key, option in value.items()}


def _coerce_option(name: str, value: Any) -> Any:
    """Check an optimizer's option; 1e-3 is a number here too."""
    if isinstance(value, list):
        return [_coerce_option(name, one) for one in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, (str, int, float, type(None))) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise ParamError(
            f"{name}: got {value!r}; allowed: a finite number, a text, true, false, null or a list"
        )
    return value


def _coerce_scalar(name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, (str, int)) and not isinstance(value, bool):
        # PyYAML follows YAML 1.1, where 1e-3 (no dot, unsigned exponent) is a string. What is
        # no number, or too large to be one, is refused below.
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    right_type = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    choices = _limits(name).get("choices")
    if choices and isinstance(value, bool):
        # YAML reads the words true and false as booleans.
        value, right_type = str(value).lower(), True
    if kind is str and right_type and not value.strip():
        right_type = False
    if choices and value not in choices:
        right_type = False
    if not right_type or not _in_range(name, value):
        raise ParamError(f"{name}: got {value!r}; allowed: {describe(name)}")
    return value


def _kind(annotation: Any) -> tuple[type, bool]:
    """Take an annotation apart: its type, and whether null is allowed too."""
    if (origin := get_origin(annotation)) in (tuple, dict):
        return origin, False
    kinds = getattr(annotation, "__args__", (annotation,))
    kind = next(kind for kind in kinds if kind is not type(None))
    return get_origin(kind) or kind, type(None) in kinds


def _limits(name: str) -> Mapping[str, Any]:
    return Params.__dataclass_fields__[name].metadata


def _in_range(name: str, value: Any) -> bool:
    limits = _limits(name)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return not (
        ("above" in limits and value <= limits["above"])
        or ("at_least" in limits and value < limits["at_least"])
        or ("at_most" in limits and value > limits["at_most"])
        or ("below" in limits and value >= limits["below"])
    )


def describe(name: str) -> str:
    """Say in words which values a parameter accepts."""
    kind, optional = _kind(get_type_hints(Params)[name])
    if name == "seeds":
        return "a list of different whole numbers of at least 0, at least one of them"
    if kind is tuple:
        return f"a list, empty or of different names among {', '.join(further_methods())}"
    if kind is dict and optional:
        return "a mapping of keyword arguments to values, or null"
    if kind is dict:
        return "a mapping of methods to numbers of at least 0"
    limits = dict(_limits(name))
    if choices := limits.pop("choices", None):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    phrases = {"above": "above", "at_least": "at least", "at_most": "at most", "below": "below"}
    bounds = [f"{phrases[key]} {limit}" for key, limit in limits.items()]
    text = " ".join([words, " and ".join(bounds)]).strip()
    return f"{text}, or null" if optional else text
