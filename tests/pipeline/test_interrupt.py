"""Ctrl-C ends a stage, DVC's run of it and the command line at once, in one line each."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from PIL import Image

from distillation.base.locks import one_at_a_time
from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.cli.train import _NOTHING_KEPT as NOTHING_KEPT
from stages import prepare_data

EXIT_SECONDS = 5
"""More than ending takes on a busy machine, and less than any epoch count below."""


@pytest.fixture(scope="module")
def prepared(fresh_work_tree, tmp_path_factory):
    """Return a work tree with prepared data, in which a training takes minutes."""
    work_tree = fresh_work_tree.copy(tmp_path_factory.mktemp("interrupt") / "work")
    params = work_tree.root / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    params.write_text(yaml.safe_dump({**values, "epochs": 2000, "seeds": [3, 4]}), encoding="utf-8")
    prepare_data.main(load_params(params), Workspace(root=work_tree.root))
    return work_tree


def heed_ctrl_c():
    """Undo, in a new process, that pytest itself may run where Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(work_tree, *command, at, number=signal.SIGINT, **environment):
    """Send a signal to the whole process group, as a terminal does, once a line was printed.

    Returns:
        (exit status, standard output, standard error).
    """
    process = subprocess.Popen(
        command,
        cwd=work_tree.root,
        env={**work_tree.environment, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    printed = []
    for line in process.stdout:
        printed.append(line)
        if re.search(at, line):
            break
    else:
        pytest.fail(f"never printed {at}: {''.join(printed)}{process.stderr.read()}")
    start = time.monotonic()
    os.killpg(process.pid, number)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert time.monotonic() - start < EXIT_SECONDS
    return process.returncode, "".join(printed) + out, err


def test_a_stage_and_dvc_are_interrupted_and_go_on_where_they_were(prepared):
    line = r"control seed 3 epoch \d+"
    said = r"interrupted: the same command goes on with control seed 3 after epoch (\d+) of 2000"
    code, _, err = interrupt(prepared, sys.executable, "-m", "stages.train_control", at=line)
    assert code == 130
    (epoch,) = re.fullmatch(f"{said}\n", err).groups()
    assert list((prepared.root / "models").rglob("control.safetensors")) == []

    command = ("dvc", "repro", "--single-item", "train_control")
    code, out, err = interrupt(prepared, *command, at=line)
    assert code not in (0, None)
    assert f"control seed 3: going on after epoch {epoch} of 2000\n" in out
    assert f"control seed 3 epoch {int(epoch) + 1}/2000: " in out
    assert "Traceback" not in err
    assert len(re.findall(f"^{said}$", err, re.MULTILINE)) == 1
    # DVC runs a stage in a shell, which Ctrl-C reaches as well: some shells pass on the stage's
    # status, others die of the signal themselves.
    assert re.search(r"exited with (130|-2)$", err, re.MULTILINE), err


def test_a_stage_that_outlives_its_dvc_keeps_a_second_one_away(prepared):
    """Here it is this process, which holds the stage's lock as the stage does."""
    with one_at_a_time("train_control", Workspace(root=prepared.root).locks):
        printed = prepared.dvc("repro", "--single-item", "train_control", status=None)
    assert (
        f"error: train_control is running here already, as process {os.getpid()}; allowed: one at "
        f"a time: wait until it has ended or end it (kill {os.getpid()}), then type the same "
    ) in printed
    assert "Traceback" not in printed


def test_a_stage_that_keeps_nothing_says_so(prepared):
    """Data preparation is stopped in the middle, while it decodes."""
    picture = prepared.root / "picture.png"
    Image.effect_noise((1500, 1500), 90).save(picture)
    images = prepared.root / "images"
    for name in ("a", "b"):
        (images / name).mkdir(parents=True)
        for number in range(200):
            (images / name / f"{number}.png").symlink_to(picture)
    params = (prepared.root / "params.yaml").read_text(encoding="utf-8")
    elsewhere = prepared.root / "elsewhere"
    elsewhere.mkdir()
    content = params.replace("dataset: digits", f"dataset: {images}")
    (elsewhere / "params.yaml").write_text(content, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.prepare_data"],
        cwd=elsewhere,
        env={**prepared.environment, "PYTHONPATH": str(prepared.root)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    while not list(elsewhere.glob("data/.prepared-*/new/test_images.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (
        130,
        "interrupted: the same command starts prepare_data again\n",
    )
    assert list((elsewhere / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("module", "number", "said"),
    [
        ("stages.train_control", signal.SIGINT, (130, "interrupted: nothing was changed\n")),
        ("stages.train_control", signal.SIGTERM, (143, "terminated: nothing was changed\n")),
        # Its options were read, and its work begun, before.
        ("distillation", signal.SIGINT, (130, f"interrupted: {NOTHING_KEPT}\n")),
    ],
)
def test_while_torch_is_loading_there_is_no_traceback(prepared, tmp_path, module, number, said):
    (tmp_path / "torch.py").write_text(
        "import time; print('loading', flush=True); time.sleep(60)", encoding="utf-8"
    )
    command = (sys.executable, "-m", module)
    code, _, err = interrupt(
        prepared, *command, at="loading", number=number, PYTHONPATH=str(tmp_path)
    )
    assert (code, err) == said


@pytest.mark.full
def test_the_command_line_says_what_is_kept(prepared, tmp_path):
    code, out, err = interrupt(
        prepared, sys.executable, "-m", "distillation", "--epochs", "300", "--device", "cpu",
        "--seeds", "0", "--patience-epochs", "1", "--experiment", "control", "1",
        "--results-path", str(tmp_path / "results.json"), at=r"exp1 epoch 1/",
    )  # fmt: skip
    assert (code, err) == (130, f"interrupted: {tmp_path}/results.json holds control\n")
    assert "control epoch 1/300: " in out


def test_a_stage_in_a_background_that_ignores_ctrl_c_does_too(prepared):
    """As scripts start programs with `&`: only SIGTERM ends it."""
    script = "trap '' INT; exec python -m stages.train_control"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=prepared.root,
        env={**prepared.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = (line for line in process.stdout if re.search(r"epoch \d+/", line))
    next(lines)
    process.send_signal(signal.SIGINT)
    assert next(lines)
    assert next(lines)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.startswith("terminated: the same command goes on with control seed 3 after epoch ")
