"""What results files and metrics files hold, checked, and the errors of the command."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import ErrorDetails

from distillation.base.errors import DistillationError
from distillation.base.json_text import parse_json
from distillation.base.mistakes import shorten

METRICS = ("after_acc", "best_acc", "after_f1", "best_f1")
"""The test metrics of a training that can be compared."""

JSON_SOURCES = (
    "a results file of python -m distillation --results-path, or what dvc exp show --json prints"
)


class CompareError(DistillationError):
    """What was asked to be compared cannot be found, read or compared."""


class NoTrainingsError(CompareError):
    """A folder or revision holds no trainings."""


class _Record(BaseModel):
    """Reads the fields it names and leaves out the others."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def check(cls, source: str, content: Any) -> Self:
        """Check parsed JSON; raises `CompareError` for what is missing or of the wrong type."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            mistakes = [_describe(mistake) for mistake in error.errors()]
            more = [f"and {len(mistakes) - 3} more"] if len(mistakes) > 3 else []
            raise CompareError(f"{source}: {'; '.join([*mistakes[:3], *more])}") from error


class Training(_Record):
    """One training, measured on the test split; accuracy in percent, macro-F1 a fraction."""

    seed: int
    after_acc: FiniteFloat
    best_acc: FiniteFloat
    after_f1: FiniteFloat
    best_f1: FiniteFloat
    validation_acc: FiniteFloat | None

    def difference_to(self, other: Training) -> str | None:
        """Name a metric in which two trainings differ by more than metrics files are rounded."""
        for name, mine in self:
            yours, digits = getattr(other, name), 6 if name.endswith("f1") else 4
            if mine != yours and (None in (mine, yours) or abs(mine - yours) > 0.6 * 10**-digits):
                return f"{name} {mine} and {yours}"
        return None


class MethodRecord(_Record):
    """The trainings of one method."""

    seeds: list[Training] = Field(min_length=1)


class SeedsFile(MethodRecord):
    """`metrics/seeds/<method>.json`."""

    data: str
    """What the images are."""


class _Teacher(_Record):
    loss: FiniteFloat | None = None


class Baseline(_Record):
    """`metrics/baseline.json`."""

    teacher: _Teacher | None = None

    @property
    def signs(self) -> dict[str, str]:
        """What tells the teacher from others, by what that is; empty where it is not known."""
        loss = self.teacher and self.teacher.loss
        return {} if loss is None else {"test loss": str(loss)}


class ResultsFile(_Record):
    """The file of `python -m distillation --results-path`."""

    baseline: Baseline = Baseline()
    data: str
    methods: dict[str, MethodRecord]
    params: dict[str, Any]


def read_json(source: str, text: bytes) -> Any:
    """Read JSON; raises `CompareError`, which names the source, for anything else."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise CompareError(f"{source}: not JSON ({error}); must be {JSON_SOURCES}") from error


def teacher_of(text: bytes | None) -> dict[str, str]:
    """Return what tells the teacher of a `metrics/baseline.json` from others; empty: not known."""
    try:
        return Baseline.check("baseline.json", parse_json(text or b"{}")).signs
    except (CompareError, ValueError):
        return {}


def _describe(mistake: ErrorDetails) -> str:
    """Return a mistake as `key: got VALUE; must be ...`."""
    key = ".".join(map(str, mistake["loc"]))
    if mistake["type"] == "missing":
        return f"{key}: missing"
    is_no_mapping = mistake["type"] in ("model_type", "dict_type")
    must = "must be a mapping" if is_no_mapping else mistake["msg"].replace("Input should", "must")
    return f"{key}: got {shorten(mistake['input'])}; {must}".removeprefix(": ")
