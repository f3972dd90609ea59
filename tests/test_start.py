"""A stage is started dozens of times a day: it loads what it needs, and not what others need."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

TRAINING = (
    "check_inputs",
    "train_teacher",
    "eval_baseline",
    "teacher_targets",
    "train_control",
    "distill",
)
SLOW = ("sklearn", "scipy.stats", "matplotlib", "onnx", "onnxruntime")


@pytest.mark.parametrize(
    ("stages", "unwanted"),
    [
        (("prepare_data", *TRAINING), SLOW),
        (("summarize",), ("torch", "timm", "onnxruntime")),
    ],
)
def test_a_stage_does_not_load_what_others_need(stages, unwanted, repository):
    imports = ", ".join(f"stages.{name}" for name in stages)
    code = f"import sys, {imports}; print(sorted(set({unwanted!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
