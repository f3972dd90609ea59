"""Ship the best arm's student: ONNX, int8, safetensors, a card; measured beside the teacher."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from distillation.data.packed import PackedData, load_packed
from distillation.export.card import make_card
from distillation.export.choice import choose_arm
from distillation.export.student import Teacher, export_student
from distillation.files import new_directory, write_json, write_text
from distillation.methods import ARMS, sort_arms
from distillation.models import Classifier, create_classifier
from distillation.params import Params
from stages.workspace import METRICS, PREPARED, SEEDS, STUDENT, run_stage, weights_path

logger = logging.getLogger(__name__)


def main(params: Params) -> list[Path]:
    """Write `models/student` and `metrics/deploy.json`, whole or not at all.

    Everything runs on the CPU in float32, whatever the training ran on.
    """
    data = load_packed(PREPARED)
    arms = {
        name: _read(SEEDS / f"{name}.json")["seeds"] for name in sort_arms([*ARMS, *params.methods])
    }
    choice = choose_arm(arms, wanted=params.export_arm)
    logger.info("%s", choice.reason)
    baseline = _read(METRICS / "baseline.json")
    with new_directory(STUDENT) as new:
        deploy = export_student(
            _load(params.student, choice.arm, params, data),
            new,
            choice=choice,
            teacher=Teacher(
                model=_load(params.teacher, "teacher", params, data),
                acc=baseline["teacher"]["acc"],
            ),
            data=data,
            num_threads=torch.get_num_threads(),
        )
        card = make_card(deploy, choice=choice, arms=arms, teacher=baseline["teacher"], data=data)
        write_text(new / "README.md", card)
    write_json(METRICS / "deploy.json", deploy)
    student = deploy["models"]["student"]
    logger.info(
        "%s of %s: test accuracy %.2f %% (int8: %.2f %%); ONNX Runtime says what PyTorch says "
        "on all %d test images, logits at most %.2g apart",
        student["model"],
        choice.arm,
        student["acc"],
        deploy["models"]["student_int8"]["acc"],
        deploy["agreement"]["num_images"],
        deploy["agreement"]["largest_logit_difference"],
    )
    return [STUDENT, METRICS / "deploy.json"]


def _load(name: str, arm: str, params: Params, data: PackedData) -> Classifier:
    return create_classifier(
        name,
        num_classes=data.num_classes,
        image_size=data.image_size,
        seed=0,  # every weight comes from the file
        stem_stride=params.stem_stride,
        checkpoint=weights_path(arm),
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage(main)
