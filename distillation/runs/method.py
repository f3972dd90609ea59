"""All trainings of a method: run them, side by side where it is quicker, write what they leave."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from distillation.base.checksums import seal
from distillation.base.command import saying_on_interrupt
from distillation.base.files import new_file, write_json
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.runs.predictions import Predictions
from distillation.runs.processes import plan_processes, use_threads
from distillation.runs.seed import OpenTrainings, SeedRun, run_seed
from distillation.runs.seeds import best_by_validation, combine_seeds
from distillation.runs.side_by_side import run_side_by_side
from distillation.runs.stage_progress import StageProgress
from distillation.runs.trackers import chosen_trackers
from distillation.training.checkpoints import remove_states
from distillation.training.costs import write_cost

_PARENT = os.getppid()
"""Who started this process, DVC for a stage; when it is gone another takes its place."""


def run_method(
    method: str,
    open_trainings: OpenTrainings,
    params: Params,
    workspace: Workspace,
    *,
    seeds: Sequence[int],
) -> list[Path]:
    """Run the trainings of one method, or of the teacher, as many at once as the machine can do.

    Writes the weights (the best epoch's of the seed with the best validation accuracy),
    `metrics/<method>.json` (means and deviations), `metrics/seeds/<method>.json` (every seed's
    values and history, and what they ran on), `metrics/costs/<method>.json`,
    `data/predictions/<method>.npz` and `metrics/live/<method>/`.

    Args:
        method: the method's name in file names and in the summary, or `teacher`.
        open_trainings: reads what its trainings share, in every process that runs some.
        params: the parameters.
        workspace: where to read and write.
        seeds: the seeds, in the order they are begun.

    Returns:
        What was written.
    """
    chosen_trackers()  # what is wrong with them is said before any work
    plan = plan_processes(
        len(seeds), device_name=workspace.device_name, num_processes=workspace.num_processes
    )
    names = {seed: method if len(seeds) == 1 else f"{method} seed {seed}" for seed in seeds}
    with (
        StageProgress(method, len(seeds)) as progress,
        saying_on_interrupt(progress.describe_rest if workspace.scratch else lambda: ""),
    ):
        if plan.num_processes > 1 or plan.num_devices > 1:
            runs = run_side_by_side(
                method, open_trainings, params, workspace, names, plan=plan, progress=progress
            )
        else:
            with use_threads(plan.num_threads):
                setup, make_training = open_trainings(params, workspace)
                runs = [
                    run_seed(
                        method,
                        dataclasses.replace(make_training(seed), name=name),
                        setup,
                        workspace,
                        listener=progress.listen(name, seed),
                    )
                    for seed, name in names.items()
                ]
            if setup.runtime.compiles:
                torch.compiler.reset()  # its memory too; the next method's step is another
    made = _write(method, runs, workspace)
    # Until here the states of finished seeds stay: a run that is killed at a later seed takes them
    # up, and has nothing left to train. So does the run after a DVC that was killed alone: nobody
    # noted then that this stage has ended.
    if not workspace.keeps_states and os.getppid() == _PARENT:
        for run in runs:
            if run.states is not None:
                remove_states(run.states)
    return [*made, workspace.live(method)]


def _write(method: str, runs: Sequence[SeedRun], workspace: Workspace) -> list[Path]:
    weights, predictions = workspace.weights(method), workspace.predictions(method)
    means, values = workspace.metrics / f"{method}.json", workspace.seeds(method)
    records = [run.result.record() for run in runs]
    saved_seed = best_by_validation(records)["seed"]
    first, results = runs[0], [run.result for run in runs]
    with new_file(weights) as new:
        new.write_bytes(next(run.weights for run in runs if run.result.seed == saved_seed))
    Predictions(
        logits=np.stack([result.logits.numpy() for result in results]),
        seeds=np.array([result.seed for result in results]),
        labels=results[0].labels,
        class_names=first.class_names,
        temperatures=np.array([result.temperature for result in results]),
    ).save(predictions)
    trainings = [
        {**record, "history": [epoch.without_times() for epoch in result.history]}
        for record, result in zip(records, results, strict=True)
    ]
    content = {"data": first.data_source, "environment": first.environment, "seeds": trainings}
    write_json(values, seal(content))
    write_json(means, {**combine_seeds(records), "data": first.data_source})
    seconds = [result.compute_seconds for result in results]
    cost = write_cost(workspace.costs(method), seconds, unit=first.compute_unit)
    return [weights, predictions, means, values, cost]
