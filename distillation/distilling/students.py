"""Make the trainings of the distilled students; how methods differ is in their objectives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.distilling.objective import build_objective
from distillation.distilling.teacher_outputs import StoredOutputs, open_teacher_outputs
from distillation.models.classifier import Classifier
from distillation.training.recipes import check_trainable, student_recipe
from distillation.training.setup import (
    Setup,
    create_student,
    distillation_set,
    load_setup,
    load_teacher,
)
from distillation.training.values import CODE, Training


def open_distillations(
    params: Params, workspace: Workspace, *, method: str
) -> tuple[Setup, Callable[[int], Training]]:
    """Read the data, the teacher and its stored outputs; returns what makes a seed's training too.

    Raises:
        DistillationError: data, teacher or outputs are missing or damaged, or do not fit.
    """
    setup = load_setup(params, workspace)
    teacher = load_teacher(setup, workspace.teacher_weights)
    has_targets = workspace.targets.exists()
    directory = workspace.targets if has_targets else workspace.own_targets
    stored = open_teacher_outputs(setup, teacher, directory)
    return setup, partial(distillation_training, method, setup, teacher=teacher, stored=stored)


def distillation_training(
    method: str, setup: Setup, seed: int, *, teacher: Classifier, stored: StoredOutputs | None
) -> Training:
    """Make the training of a student under a teacher, for a seed.

    Args:
        method: an experiment or a further method.
        setup: parameters, data, runtime.
        seed: of the training.
        teacher: the teacher, on the runtime's device; it is frozen.
        stored: its outputs for every view; without them it runs in every step.

    Raises:
        MethodError: there is no such method.
        ModelError: the student cannot be trained on such images and batches, or a model has no
            features of the kind that the method compares.
        ParamError: the method has no weight in `method_weights`.
    """
    params = setup.params
    train = distillation_set(setup)
    student, recipe = create_student(setup, seed=seed), student_recipe(setup, train, seed=seed)
    check_trainable(student, train, recipe, setup, key="batch_size")
    objective = build_objective(
        method,
        params,
        student=student,
        teacher=teacher,
        train=train,
        image_size=setup.data.image_size,
        seed=seed,
        teacher_shape=None if stored is None else stored.plan.feature_shape,
    )
    looked_up = None if stored is None else stored.select(objective.features)
    is_stored = stored is not None and stored.has_features(objective.features)
    return Training(
        name=method,
        model=student,
        objective=objective,
        train=dataclasses.replace(train, teacher_outputs=looked_up),
        validation=setup.sets.validation,
        recipe=recipe,
        code=(*CODE, "distilling", "losses/logits.py", f"losses/{method}.py"),
        settings={
            "objective": objective.settings(),
            "teacher_outputs": None if stored is None else stored.fingerprint,
            "stored": None if stored is None else stored.plan.summary(),
            "use_unlabeled": params.use_unlabeled,
        },
        teacher_outputs="stored" if is_stored else "live",
        couples_samples=objective.couples_samples,
    )
