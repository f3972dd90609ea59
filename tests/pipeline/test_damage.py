"""Damaged artefacts of a run are never used, whichever stage reads them; dvc brings whole ones."""

import os
import re
import stat
import subprocess

import pytest
import yaml

from distillation.base.errors import DistillationError
from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.export.sessions import load_exported
from distillation.models.reading import read_checkpoint
from stages import distill, eval_baseline, export_student, summarize, teacher_targets, train_control
from tests.helpers.sealed import flip_bit

TEACHER = "models/teacher.safetensors"
PREPARED = ("data/prepared/train_images.npy", "data/prepared/test_labels.npy")
READERS = {
    **dict.fromkeys(PREPARED, (eval_baseline, train_control, summarize)),
    "data/prepared/meta.json": (export_student,),
    TEACHER: (eval_baseline, teacher_targets, distill, export_student),
    "data/targets/logits.npy": (distill,),
    "data/targets/features.npy": (distill,),
    "data/targets/meta.json": (distill,),
    "data/predictions/exp2.npz": (summarize,),
    "metrics/seeds/exp2.json": (export_student, summarize),
    "metrics/baseline.json": (export_student, summarize),
    "metrics/deploy.json": (summarize,),
    "metrics/costs/exp2.json": (summarize,),
    "models/student/student.onnx": (load_exported,),
    "models/student/student-int8.onnx": (load_exported,),
    "models/student/model.safetensors": (read_checkpoint,),
}
"""What a stage leaves for others, and who reads it."""
CASES = [(name, reader) for name, readers in READERS.items() for reader in readers]


def call(reader, root, name):
    """Let a stage, or a function that takes a file, read the run in `root`."""
    if reader is load_exported:
        return load_exported(root / name)
    if reader is read_checkpoint:
        return read_checkpoint(str(root / name), key="student_checkpoint")
    params = load_params(root / "params.yaml")
    workspace = Workspace(root=root, scratch=None, device_name="cpu")
    more = {"method": "exp2"} if reader is distill else {}
    return reader.main(params, workspace, **more)


@pytest.fixture(scope="module")
def run(pipeline, tmp_path_factory):
    """Return a copy of the run whose files a test damages and puts back."""
    return pipeline.copy(tmp_path_factory.mktemp("damage") / "work").root


@pytest.mark.parametrize(
    ("name", "reader"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_damaged_file_is_named_with_the_way_out(name, reader, run):
    path = run / name
    content, times = path.read_bytes(), path.stat()
    damaged = [content[: len(content) // 2], b"", None]
    for bit, position in enumerate((len(content) // 3, len(content) // 2)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit
        damaged.append(bytes(flipped))
    for other in damaged:
        if other is None:
            path.unlink()
        else:
            path.write_bytes(other)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(DistillationError) as caught:
            call(reader, run, name)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message or str(path.parent) in message
        assert re.search(r"(`(dvc|git) (checkout|repro) |write it again|allowed: a f)", message), (
            message
        )
        path.write_bytes(content)


def test_a_damaged_student_is_not_shipped(run):
    deploy = yaml.safe_load((run / "metrics" / "deploy.json").read_text())
    path = run / "models" / "students" / f"{deploy['method']}.safetensors"
    shipped = (run / "models" / "student" / "student.onnx").read_bytes()
    flip_bit(path, path.stat().st_size - 100, 2)
    with pytest.raises(DistillationError, match=r"students/.* does not fit its checksum; .*"):
        call(export_student, run, "")
    flip_bit(path, path.stat().st_size - 100, 2)
    assert (run / "models" / "student" / "student.onnx").read_bytes() == shipped


@pytest.mark.full
def test_a_flipped_bit_in_dvcs_cache_is_refused_and_the_way_out_works(work_tree, repository):
    root, weights = work_tree.root, work_tree.root / TEACHER
    before, metrics = weights.read_bytes(), work_tree.metrics("teacher")
    lock = yaml.safe_load((root / "dvc.lock").read_text())["stages"]["train_teacher"]["outs"]
    (md5,) = [out["md5"] for out in lock if out["path"] == TEACHER]
    cached = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    times = cached.stat()
    cached.chmod(0o644)
    flip_bit(cached, len(before) - 100, 0)
    os.utime(cached, ns=(times.st_atime_ns, times.st_mtime_ns))
    cached.chmod(stat.S_IMODE(times.st_mode))

    # dvc brings the damaged file and notices nothing; the stage that reads it refuses it.
    weights.unlink()
    work_tree.dvc("checkout", "--force")
    assert weights.read_bytes() != before
    assert "up to date" in work_tree.dvc("status")
    output = work_tree.dvc("repro", "--force", "--single-item", "eval_baseline", status=None)
    assert f"{TEACHER}', which is damaged: it does not fit its checksum; fetch or" in output
    assert f"delete {TEACHER} and run `dvc checkout {TEACHER}`; if DVC's cache is damaged" in output
    assert "(docs/damaged-files.md), delete both and run that stage again" in output

    # That page's command finds the object.
    page = (repository / "docs" / "damaged-files.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    found = subprocess.run(
        ["sh", "-c", command], cwd=root, env=work_tree.environment, capture_output=True, text=True
    )
    assert found.stdout.splitlines() == [f"./{md5[:2]}/{md5[2:]}: FAILED"]
    cached.unlink()
    weights.unlink()
    assert "train_teacher" in work_tree.ran("repro", "eval_baseline")
    assert weights.read_bytes() == cached.read_bytes() == before
    assert work_tree.metrics("teacher") == metrics
    assert work_tree.changed_stages() <= {"summarize"}  # it shows what the training cost this time
