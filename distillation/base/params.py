"""Typed hyperparameters, checked before any work starts.

`params.yaml` is the one place where a hyperparameter has a value; this module says which keys
exist, what type and range each has, and turns mistakes into one `ParamError` that names key, value
and what is allowed, one mistake per line. It imports no torch, so a wrong value is reported at
once. Whether a timm model of a given name exists is checked by `distillation.models.names`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distillation.base import mistakes
from distillation.base.errors import DistillationError
from distillation.base.methods import DEFAULT_METHODS, further_methods
from distillation.base.param_types import (
    MAX_EPOCHS,
    MAX_NUM_VIEWS,
    AreaRange,
    AspectRange,
    Augmentation,
    BatchSize,
    BelowOne,
    Compile,
    Concentration,
    EpochCounts,
    Epochs,
    Fraction,
    Interpolation,
    Methods,
    MethodWeights,
    OptimizerOptions,
    Positive,
    Precision,
    Section,
    Seed,
    Seeds,
    Share,
    StemStride,
    Text,
    UpToHalf,
    Weight,
)
from distillation.base.yaml_text import YamlError, read_yaml

BUILT_IN_DATASETS = ("cifar10", "digits")
"""Values of `dataset` that are names; every other value is a path."""

PATH_KEYS = (
    "dataset",
    "teacher",
    "student",
    "teacher_checkpoint",
    "student_checkpoint",
    "teacher_class_names",
)
"""Parameters that are, or may be, paths."""

_HUB, _FOLDER = "hf-hub:", "local-dir:"


class ParamError(DistillationError):
    """A hyperparameter is missing, unknown, of the wrong type or out of range."""


class Params(BaseModel):
    """All hyperparameters of one run. Every field stands in `params.yaml` under the same name."""

    # Strict: true is no number, 1.0 no whole number, and "3" neither.
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    dataset: Annotated[Text, Section("data")]
    """`cifar10`, `digits`, or a path to an image folder or archive."""
    image_size: Annotated[int, Field(ge=8, le=1024)]
    """Height and width in pixels of every image a model is trained or measured on."""
    prepared_size: Annotated[int, Field(ge=8, le=2048)] | None
    """Height and width in pixels of the training images as prepared, for augmentations that cut
    regions out of larger images; null: image_size."""
    labeled_fraction: Fraction
    """Share of the training images whose labels may be used."""
    validation_fraction: UpToHalf
    """Share of the training images held out to choose the best epoch."""
    test_fraction: UpToHalf
    """Share held out for testing when the data set brings no test split of its own."""
    use_unlabeled: bool
    """Distil on every training image, the labelled and the others, and train the control on the
    labelled ones for as many steps; false: all train on the labelled images alone."""
    seed: Seed
    """Seed of the splits, the views and the teacher's training."""

    teacher: Annotated[Text, Section("models")]
    """timm name of the teacher, or hf-hub:USER/NAME, or local-dir:FOLDER."""
    student: Text
    """timm name of the student, or hf-hub:USER/NAME, or local-dir:FOLDER."""
    teacher_checkpoint: Text | None
    """Weights the teacher starts from: a file, a folder, hf-hub:USER/NAME or local-dir:FOLDER."""
    student_checkpoint: Text | None
    """Weights every student starts from, as for the teacher."""
    teacher_class_names: Text | None
    """File with the classes of the teacher's checkpoint, one name per line, in the order of its
    outputs; null: what the checkpoint says, or the data set's order."""
    pretrained: bool
    """Start teacher and student from the weights their names stand for, timm's published ones
    (needs the network or timm's local cache)."""
    teacher_pretrained: bool | None
    """The same for the teacher alone; null: as pretrained says."""
    student_pretrained: bool | None
    """The same for the student alone; null: as pretrained says."""
    teacher_stem_stride: StemStride | None
    """Stride of the teacher's first convolution; null: what its checkpoint says, else the
    architecture's own."""
    student_stem_stride: StemStride | None
    """Stride of the student's first convolution, as for the teacher."""
    allow_poor_teacher: bool
    """Go on with a teacher that is taken as it is and does hardly better than guessing."""

    teacher_epochs: Annotated[Epochs, Section("the teacher's training")]
    """Epochs the teacher is trained on the labelled images; 0 takes it as it is."""
    teacher_batch_size: BatchSize
    """Images per step while the teacher is trained."""
    teacher_learning_rate: Positive | None
    """Peak learning rate of the teacher's training; null: Muon's, by batch size and start."""
    teacher_weight_decay: Weight | None
    """Weight decay in the teacher's training, on weights of two or more dimensions; null: by
    learning rate, steps and start."""
    teacher_optimizer: Text
    """timm name of the optimizer that trains the teacher."""
    teacher_optimizer_options: OptimizerOptions | None
    """Keyword arguments of the teacher's optimizer, such as {betas: [0.9, 0.95]}; null: none."""

    epochs: Annotated[Epochs, Section("the students' training, the same for every method")]
    """Epochs every student is trained; 0 measures the untrained student."""
    batch_size: BatchSize
    """Images per step while a student is trained."""
    learning_rate: Positive | None
    """Peak learning rate of a student's training; null: Muon's, by batch size and start."""
    weight_decay: Weight | None
    """Weight decay in a student's training, on weights of two or more dimensions; null: by learning
    rate, steps and start."""
    optimizer: Text
    """timm name of the optimizer that trains the students."""
    optimizer_options: OptimizerOptions | None
    """Keyword arguments of the students' optimizer, such as {momentum: 0.9}; null: none."""
    seeds: Seeds
    """Seeds of the students' trainings; every method trains once for each: initialisation, order of
    the batches and order of the views."""
    patience_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None
    """Stop a student's training after so many epochs without a better validation accuracy."""
    control_epochs: EpochCounts
    """Further lengths, in epochs, that the control is trained for: what labels alone reach for the
    time that teacher and student take together."""
    ema_decay: BelowOne
    """Decay of the moving average of a student's weights, which is what is measured and saved;
    0: no average."""

    label_smoothing: BelowOne
    """Share of a label that a student's cross-entropy spreads evenly over all classes."""

    warmup_fraction: Annotated[BelowOne, Section("all trainings")]
    """Share of all steps in which the learning rate rises from zero to its peak."""
    augmentation: Augmentation
    """`crop` shifts a training image by up to `crop_padding` pixels; `resized_crop` cuts a random
    box out of it and brings that to `image_size`."""
    crop_padding: Annotated[int, Field(ge=0, le=1023)]
    """`crop` shifts a training image by up to this many pixels in each direction."""
    resized_crop_area: AreaRange
    """Smallest and largest share of the image that a box of `resized_crop` covers."""
    resized_crop_aspect: AspectRange
    """Smallest and largest width over height of a box of `resized_crop`."""
    interpolation: Interpolation
    """How `resized_crop` brings a box to `image_size`."""
    horizontal_flip: bool
    """Mirror half of the training views; switch it off where left and right differ."""
    color_jitter: Share
    """By how much brightness, contrast and saturation of a view may change; 0: not at all."""
    mixup: Concentration
    """Blend every view with another image's: the a of the Beta(a, a) that shares are drawn from;
    0: off. With `cutmix` on as well each view is either."""
    cutmix: Concentration
    """Replace a box of every view by another image's: the a of the Beta(a, a) that shares are drawn
    from; 0: off."""

    num_views: Annotated[int, Field(ge=1, le=MAX_NUM_VIEWS)]
    """Augmented views a training image has; epoch e shows the students view e modulo this."""

    teacher_cache_gb: Annotated[Weight, Section("how it is computed")]
    """Space in 10⁹ bytes for the teacher's stored outputs; features beyond it are computed live."""
    precision: Precision
    """Arithmetic of forward passes; auto: bf16 on CUDA devices that have it, fp32 elsewhere."""
    compile: Compile
    """Compile the training step with torch.compile; auto does so on CUDA alone."""

    export_method: Annotated[Text | None, Section("what is shipped")]
    """The method whose student `export_student` ships; null: the one that is best on validation."""

    label_weight: Annotated[Weight, Section("the distillation objective")]
    """Weight of the cross-entropy with the labels."""
    alpha: Weight
    """Weight of the logit distillation."""
    temperature: Positive
    """Temperature that softens both distributions in the logit distillation."""
    standardize_logits: bool
    """Give both models' logits mean 0 and deviation 1 for each image before any logit loss."""
    feature_weight: Weight
    """Weight of the feature term in experiments 2 and 3."""

    methods: Annotated[Methods, Section("further methods")]
    """Further methods to run beside the three experiments."""
    method_weights: MethodWeights
    """The weight of each further method's own term."""

    @model_validator(mode="after")
    def _fit_together(self) -> Params:
        """Check the rules between parameters, once each of them is right alone."""
        wrong = []
        methods = (*DEFAULT_METHODS, *self.methods)
        if self.export_method is not None and self.export_method not in methods:
            wrong.append(
                f"export_method: got {mistakes.shorten(self.export_method)}; must be "
                f"{', '.join(methods)}, a method that methods names, or null"
            )
        for method in self.methods:
            if method in further_methods() and method not in self.method_weights:
                wrong.append(f"method_weights: missing {method}; allowed: a number of at least 0")
        if self.prepared_size is not None and self.prepared_size < self.image_size:
            wrong.append(
                f"prepared_size: got {self.prepared_size}; must be at least image_size "
                f"({self.image_size}), or null"
            )
        if self.crop_padding >= self.image_size:
            wrong.append(
                f"crop_padding: got {self.crop_padding}; must be below image_size "
                f"({self.image_size})"
            )
        if self.augmentation == "crop" and (self.prepared_size or 0) > self.image_size:
            wrong.append(
                f"augmentation: got crop; must be resized_crop where prepared_size "
                f"({self.prepared_size}) is larger than image_size ({self.image_size})"
            )
        for role in ("teacher_", ""):
            optimizer = getattr(self, f"{role}optimizer")
            if getattr(self, f"{role}learning_rate") is None and not optimizer.endswith("muon"):
                wrong.append(
                    f"{role}learning_rate: got null; must be a number for {role}optimizer "
                    f"{optimizer}; null is the rate of muon, nmuon, adamuon and nadamuon"
                )
        if self.label_weight == 0 and self.alpha == 0:
            wrong.append(
                "label_weight, alpha: got 0 and 0; one of them must be above 0, or a student "
                "learns nothing about the classes"
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


PARAM_NAMES = tuple(Params.model_fields)


def to_dict(params: Params) -> dict[str, Any]:
    """Return all parameters by name, lists as lists: ready for JSON and YAML."""
    values = {name: getattr(params, name) for name in PARAM_NAMES}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def describe(name: str) -> str:
    """Return in words which values a parameter accepts."""
    return mistakes.describe(Params, name)


def make_params(values: Mapping[str, Any], *, source: str = "parameters") -> Params:
    """Check values by name and return them as `Params`.

    Raises:
        ParamError: a key is unknown or missing, or a value is wrong; it names all mistakes.
    """
    try:
        return Params.model_validate(dict(values))
    except ValidationError as error:
        raise ParamError(mistakes.explain(error, Params, values, source)) from error


def is_pretrained(params: Params, role: str) -> bool:
    """Return whether `teacher` or `student` starts from the weights its name stands for."""
    own: bool | None = getattr(params, f"{role}_pretrained")
    return params.pretrained if own is None else own


def replace(params: Params, **changes: Any) -> Params:
    """Return the parameters with some values changed, checked again; raises `ParamError`."""
    return make_params({**to_dict(params), **changes})


def load_params(path: Path | str = "params.yaml", **overrides: Any) -> Params:
    """Read and check a parameter file.

    Args:
        path: a YAML file with exactly the keys of `Params` at its top level.
        overrides: values that take the place of those in the file.

    Raises:
        ParamError: the file cannot be read or is not a mapping, a key is unknown or missing, or a
            value is wrong.
    """
    try:
        content = read_yaml(Path(path))
    except YamlError as error:
        raise ParamError(str(error)) from error
    if not isinstance(content, dict):
        raise ParamError(
            f"{path}: got {mistakes.shorten(content)}; must be parameters, as key: value"
        )
    return make_params({**content, **overrides}, source=str(path))


def check_paths(params: Params) -> Params:
    """Check that files and folders named by parameters exist.

    Returns:
        The parameters with `~` in paths spelled out.

    Raises:
        ParamError: one or several do not exist.
    """
    found: dict[str, str] = {}
    wrong = []
    for key, (prefix, path) in named_paths(params).items():
        if existing := find_path(path):
            found[key] = f"{prefix}{existing}"
        else:
            names = f"{', '.join(BUILT_IN_DATASETS)} or " if key == "dataset" else ""
            wrong.append(
                f"{key}: got {mistakes.shorten(prefix + path)}; must be {names}the path of "
                f"something that {_what_it_lacks(path)}"
            )
    if wrong:
        raise ParamError("\n".join(wrong))
    return replace(params, **found)


def named_paths(params: Params) -> dict[str, tuple[str, str]]:
    """Return the parameters that name a path here: by key, what stands before it, and the path."""
    paths = {}
    for key in PATH_KEYS:
        value: str | None = getattr(params, key)
        is_name = key == "dataset" and value in BUILT_IN_DATASETS
        if value is None or is_name or value.startswith(_HUB):
            continue
        prefix = _FOLDER if value.startswith(_FOLDER) and key != "dataset" else ""
        if prefix or key not in ("teacher", "student"):
            paths[key] = (prefix, value.removeprefix(prefix))
    return paths


def _what_it_lacks(path: str) -> str:
    """Say what a path must be that `find_path` does not find."""
    try:
        Path(path).expanduser().stat()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ESTALE, errno.EIO):
            return f"can be read here ({error.strerror})"
    except (RuntimeError, ValueError):  # a home folder of nobody, no path at all
        pass
    return "exists"


def find_path(path: str) -> Path | None:
    """Return the path with `~` spelled out, if something is there."""
    try:
        spelled_out = Path(path).expanduser()
        return spelled_out if spelled_out.exists() else None
    except (OSError, RuntimeError):  # too long, not allowed, or a home folder of nobody
        return None
