"""Random damage to everything a run leaves: refused with the way out, or not used at all.

What is neither is lost: a damaged file that took part in a result.
"""

import dataclasses
import json
import os
import re
import shutil
import stat
import subprocess
from functools import partial

import numpy as np
import pytest
import yaml

from distillation.base.errors import DistillationError
from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.cli.train import main as train
from distillation.export.sessions import load_exported
from distillation.models.reading import read_checkpoint
from stages import distill, eval_baseline, export_student, summarize, teacher_targets, train_control
from stages.entry import do_stage
from tests.helpers.damage import DAMAGES, damage, differences, remove, restore
from tests.helpers.stage_runs import options_without_dvc

WAY_OUT = re.compile(r"`dvc (checkout|repro) |`git checkout |write it again|run .* again|allowed: ")
DISTILL = partial(distill.main, method="exp1")
OF_DATA = (eval_baseline.main, train_control.main, teacher_targets.main, DISTILL,
           export_student.main, summarize.main)  # fmt: skip


def predict(params, workspace, *, name):
    images = np.load(workspace.prepared / "test_images.npy")
    load_exported(workspace.student / name).predict_logits(images)


def take_as_checkpoint(params, workspace, *, name):
    read_checkpoint(str(workspace.student / name), key="student_checkpoint")


KINDS = {
    "prepared images and labels": ("data/prepared/*.npy", OF_DATA),
    "prepared set's meta.json": ("data/prepared/meta.json", OF_DATA),
    "teacher's weights": (
        "models/teacher.safetensors",
        (eval_baseline.main, teacher_targets.main, DISTILL, export_student.main),
    ),
    "students' weights": ("models/students/*.safetensors", (export_student.main,)),
    "stored outputs": ("data/targets/*", (DISTILL, teacher_targets.main)),
    "predictions": ("data/predictions/*.npz", (summarize.main,)),
    "values per seed": ("metrics/seeds/*.json", (summarize.main, export_student.main)),
    "costs": ("metrics/costs/*.json", (summarize.main,)),
    "baseline": ("metrics/baseline.json", (summarize.main, export_student.main)),
    "deploy": ("metrics/deploy.json", (summarize.main,)),
    "student for ONNX Runtime": (
        "models/student/student.onnx",
        (partial(predict, name="student.onnx"),),
    ),
    "student in int8": (
        "models/student/student-int8.onnx",
        (partial(predict, name="student-int8.onnx"),),
    ),
    "student for timm": (
        "models/student/model.safetensors",
        (partial(take_as_checkpoint, name="model.safetensors"),),
    ),
}
"""What is damaged, and what reads it."""


@pytest.fixture(scope="module")
def run(pipeline, tmp_path_factory):
    """Return the root of a run that tests damage and put back."""
    return pipeline.copy(tmp_path_factory.mktemp("damage") / "work").root


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_not_used(kind, how, run, pipeline, attempt, draw):
    pattern, readers = KINDS[kind]
    path = draw.choice([p for p in sorted(run.glob(pattern)) if not p.name.startswith(".")])
    reader = draw.choice(readers)
    name = str(path.relative_to(run))
    attempt(f"damage: {kind}", f"{name} {how}, read by {reader}")
    params = load_params(run / "params.yaml")
    workspace = Workspace(root=run, scratch=None, device_name="cpu")
    damage(path, how, draw)
    try:
        reader(params, workspace)
    except DistillationError as error:
        message = str(error)
        assert "\n" not in message, message
        assert str(path) in message or str(path.parent) in message, message
        assert WAY_OUT.search(message), message
    else:
        remove(path)
        if path.parent.is_dir() and (pipeline.root / name).exists():
            shutil.copy2(pipeline.root / name, path)
        assert differences(run, pipeline.root) == [], f"{name} was used"
    finally:
        restore(run, pipeline.root)


@pytest.mark.parametrize("how", [*DAMAGES[1:], "of another training"])
def test_a_training_begins_anew_where_its_state_is_damaged(
    how, run, pipeline, attempt, draw, tmp_path
):
    attempt("damage: states of trainings", how)
    params = load_params(run / "params.yaml")
    workspace = Workspace(root=run, scratch=tmp_path, device_name="cpu", keeps_states=True)
    do_stage("distill --method exp1", DISTILL, params, workspace)
    (state,) = tmp_path.glob("exp1/*/state")
    if how == "of another training":
        do_stage("train_control", train_control.main, params, workspace)
        (other,) = tmp_path.glob("control/*/state")
        shutil.copyfile(other, state)
    else:
        damage(state, how, draw)
    remove(run / "models" / "students" / "exp1.safetensors")
    try:
        do_stage("distill --method exp1", DISTILL, params, workspace)
        assert differences(run, pipeline.root) == []
    finally:
        restore(run, pipeline.root)


STANDS_THERE = ("a folder", "a dangling link", "a link to a device", "a pipe", "rubbish")
PLACES = (
    ".scratch",
    ".scratch/locks",
    ".scratch/locks/eval_baseline.lock",
    ".scratch/locks/eval_baseline.pid",
    ".scratch/exp1",
    ".scratch/exp1/set-aside",
)


def put(path, what):
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "a folder":
        (path / "inside").mkdir(parents=True)
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "rubbish":
        path.write_bytes(b"\xff\x00rubbish")
    else:
        path.symlink_to("/dev/full" if what == "a link to a device" else "nowhere")


@pytest.mark.parametrize("what", STANDS_THERE)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_stands_in_scratch_gets_a_sentence_or_none(
    place, what, run, pipeline, attempt, tmp_path
):
    attempt("damage: .scratch", f"{what} in the place of {place}")
    params = load_params(run / "params.yaml")
    path = run / place
    workspace = Workspace(root=run, scratch=run / ".scratch", device_name="cpu")
    name, stage = ("eval_baseline", eval_baseline.main) if "lock" in place else ("x", DISTILL)
    try:
        remove(run / ".scratch")
        if place.endswith("set-aside"):  # it is needed where a state is damaged
            kept = dataclasses.replace(workspace, keeps_states=True)
            do_stage(name, stage, params, kept)
            (state,) = (run / ".scratch" / "exp1").glob("*/state")
            os.truncate(state, 10)
        put(path, what)
        try:
            do_stage(name, stage, params, workspace)
        except DistillationError as error:
            message = str(error)
            assert "\n" not in message
            assert str(path) in message
            remove(path)
            do_stage(name, stage, params, workspace)
        assert differences(run, pipeline.root) == []
    finally:
        remove(run / ".scratch")
        restore(run, pipeline.root)


UNREAD = (
    "data/checked.txt",
    "metrics/live/*/seed0/plots/metrics/*/*.tsv",
    "metrics/summary.*",
    "metrics/measures.json",
    "metrics/exp?.json",
    "report/index.html",
    "models/student/README.md",
    "models/student/config.json",
)
"""What no stage reads."""
SWAPS = (
    ("models/students/*.safetensors", "another method's students"),
    ("data/predictions/*.npz", "another method's predictions"),
    ("metrics/seeds/exp*.json", "another method's values"),
    ("data/targets/*.npy", "other outputs of the teacher"),
)


def cache_of(root, md5):
    return root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def choose(root, pattern, draw):
    return draw.choice(sorted(path for path in root.glob(pattern) if path.is_file()))


@pytest.mark.parametrize("number", range(2))
def test_dvc_repro_makes_good_what_no_stage_reads(number, work_tree, pipeline, attempt, draw):
    hows = [how for how in DAMAGES if not how.endswith("kept")]
    damaged = {choose(work_tree.root, pattern, draw): draw.choice(hows) for pattern in UNREAD}
    told = [f"{path.relative_to(work_tree.root)} {how}" for path, how in damaged.items()]
    attempt("damage: what no stage reads, dvc repro", ", ".join(told))
    for path, how in damaged.items():
        damage(path, how, draw)
    for _ in damaged:
        done = work_tree.start_and_wait("dvc", "repro")
        if done.returncode == 0:
            break
        # DVC names a dangling link in a folder, and goes on without it.
        error = done.stdout.splitlines()[-1]
        (named,) = [path for path in damaged if error.endswith(f"directory: '{path}'")]
        assert damaged[named] == "a dangling link instead"
        remove(named)
    work_tree.dvc("repro")
    assert differences(work_tree.root, pipeline.root) == []
    assert work_tree.changed_stages() == set()


@pytest.mark.parametrize(("pattern", "what"), SWAPS)
def test_dvc_repro_takes_no_other_file_of_the_same_kind(
    pattern, what, work_tree, pipeline, attempt, draw
):
    path = choose(work_tree.root, pattern, draw)
    others = [p for p in path.parent.glob(f"*{path.suffix}") if p.read_bytes() != path.read_bytes()]
    other = draw.choice(sorted(others))
    attempt("damage: another file's bytes, dvc repro", f"{what}: {other.name} in {path.name}")
    shutil.copyfile(other, path)
    work_tree.dvc("repro")
    assert differences(work_tree.root, pipeline.root) == []


@pytest.mark.parametrize("number", range(4))
def test_the_way_out_of_a_damaged_cache(number, work_tree, pipeline, repository, attempt, draw):
    root = work_tree.root
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    cached = {out["path"]: out["md5"] for out in outs if cache_of(root, out["md5"]).exists()}
    name = draw.choice(sorted(cached))
    objects = [cache_of(root, cached[name])]
    if cached[name].endswith(".dir"):
        objects += [cache_of(root, e["md5"]) for e in json.loads(objects[0].read_bytes())]
    path, how = draw.choice(objects), draw.choice([*DAMAGES[:4], "emptied"])
    kind = "list of a folder" if path.suffix == ".dir" else "file"
    attempt("damage: DVC's cache, its way out", f"{kind} of {name} {how}")
    mode = stat.S_IMODE(path.stat().st_mode)
    damage(path, how, draw)
    path.chmod(mode)
    remove(root / name)
    subprocess.run(
        ["dvc", "checkout", "--force"], cwd=root, env=work_tree.environment, capture_output=True
    )

    page = (repository / "docs" / "damaged-files.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    found = subprocess.run(
        ["sh", "-c", command], cwd=root, env=work_tree.environment, capture_output=True, text=True
    )
    failed = [line.partition(": ")[0] for line in found.stdout.splitlines()]
    assert len(failed) <= 1
    for line in failed:
        (root / ".dvc/cache/files/md5" / line).unlink()
    remove(root / name)
    work_tree.dvc("repro")
    assert differences(root, pipeline.root) == []
    assert work_tree.changed_stages() == set()


@pytest.fixture(scope="module")
def own_run(run, tmp_path_factory):
    """Return the folder of a run without DVC, and the options that made it."""
    folder = tmp_path_factory.mktemp("own") / "run"
    options = options_without_dvc(run)
    assert train([*options, "--run-dir", str(folder)]) == 0
    return folder, options


@pytest.mark.parametrize("how", DAMAGES)
def test_a_run_without_dvc_goes_on(how, own_run, tmp_path, attempt, draw, capsys):
    whole, options = own_run
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = choose(folder, "**/*", draw)
    name = path.relative_to(folder)
    attempt("damage: a run without DVC", f"{name} {how}")
    damage(path, how, draw)
    capsys.readouterr()
    if train([*options, "--run-dir", str(folder)]):
        (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert str(path) in error or str(path.parent) in error
        remove(path)
        assert train([*options, "--run-dir", str(folder)]) == 0
    assert differences(folder, whole) == []
