"""Ctrl-C ends a stage, DVC's run of it and the command line at once, in one line each."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

EXIT_SECONDS = 5
"""More than ending takes on a busy machine, and less than any epoch count below."""


@pytest.fixture(scope="module")
def prepared(fresh_workspace, tmp_path_factory):
    """Give a copy of the work tree with prepared data, in which a training takes minutes."""
    root = tmp_path_factory.mktemp("interrupt") / "work"
    shutil.copytree(fresh_workspace.root, root, symlinks=True)
    # Other tests may have run the pipeline there: nothing of a student may be left.
    shutil.rmtree(root / "models" / "methods", ignore_errors=True)
    workspace = type(fresh_workspace)(root, fresh_workspace.traces, root / "no hook")
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    content = yaml.safe_dump({**params, "epochs": 2000, "seeds": [3, 4]})
    (root / "params.yaml").write_text(content, encoding="utf-8")
    workspace.dvc("repro", "prepare_data")
    return workspace


def heed_ctrl_c():
    """Undo, in a new process, that pytest itself may run where Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(workspace, *command, at, number=signal.SIGINT):
    """Send a signal to the whole process group, as a terminal does, once a line was printed.

    Returns:
        (exit status, standard output, standard error).
    """
    process = subprocess.Popen(
        command,
        cwd=workspace.root,
        env={**workspace.environment, "PYTHONUNBUFFERED": "1"},
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


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stage_says_how_to_go_on(prepared, number, status, word):
    """And it does go on there, whatever it was ended by before."""
    command = (sys.executable, "-m", "stages.train_control")
    code, out, err = interrupt(prepared, *command, at=r"control seed 3 epoch \d+", number=number)
    assert code == status
    said = re.fullmatch(
        rf"{word}: the same command goes on with control seed 3 after epoch (\d+) of 2000\n", err
    )
    assert said, err
    assert list((prepared.root / "models").rglob("control.safetensors")) == []
    code, out, err = interrupt(prepared, *command, at=r"control seed 3 epoch \d+", number=number)
    assert f"control seed 3: going on after epoch {said[1]} of 2000\n" in out
    assert f"control seed 3 epoch {int(said[1]) + 1}/2000: " in out
    assert code == status


def test_dvc_is_interrupted_with_its_stage(prepared):
    code, _, err = interrupt(
        prepared, "dvc", "repro", "--single-item", "train_control", at=r"control seed 3 epoch \d+"
    )
    assert code not in (0, None)
    assert "Traceback" not in err
    (said,) = re.findall(r"^interrupted: .*", err, re.MULTILINE)
    assert re.fullmatch(r".* goes on with control seed 3 after epoch \d+ of 2000", said)
    # DVC runs a stage in a shell, which Ctrl-C reaches as well: some shells pass on the stage's
    # status, others die of the signal themselves.
    assert re.search(r"exited with (130|-2)$", err, re.MULTILINE), err


def test_a_stage_that_keeps_nothing_says_so(prepared):
    """Data preparation is stopped in the middle: at a picture that never ends."""
    images = prepared.root / "images" / "train" / "a"
    images.mkdir(parents=True)
    os.mkfifo(images / "0.png")
    params = (prepared.root / "params.yaml").read_text(encoding="utf-8")
    elsewhere = prepared.root / "elsewhere"
    elsewhere.mkdir()
    content = params.replace("dataset: digits", f"dataset: {prepared.root / 'images'}")
    (elsewhere / "params.yaml").write_text(content, encoding="utf-8")
    workspace = type(prepared)(elsewhere, prepared.traces, prepared.root)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.prepare_data"],
        cwd=elsewhere,
        env=workspace.environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    # Opening the other end waits until the stage reads its own.
    with (images / "0.png").open("wb"):
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (
        130,
        "interrupted: the same command starts prepare_data again\n",
    )
    assert not (elsewhere / "data").exists()


@pytest.mark.parametrize(
    ("module", "number", "said"),
    [
        ("stages.train_control", signal.SIGINT, (130, "interrupted: nothing was changed\n")),
        ("stages.train_control", signal.SIGTERM, (143, "terminated: nothing was changed\n")),
        ("distillation", signal.SIGINT, (130, "interrupted: nothing was changed\n")),
    ],
)
def test_while_torch_is_loading_there_is_no_traceback(prepared, tmp_path, module, number, said):
    (tmp_path / "torch.py").write_text(
        "import time; print('loading', flush=True); time.sleep(60)", encoding="utf-8"
    )
    slow = type(prepared)(prepared.root, prepared.traces, tmp_path)
    code, _, err = interrupt(slow, sys.executable, "-m", module, at="loading", number=number)
    if module == "distillation":  # its options were read, and its work begun, before
        said = (130, "interrupted: nothing was kept; with --results-path every finished method is, "
                "with --save-teacher the teacher\n")  # fmt: skip
    assert (code, err) == said


def test_the_command_line_says_what_is_kept(prepared, tmp_path):
    code, out, err = interrupt(
        prepared, sys.executable, "-m", "distillation", "--epochs", "300", "--device", "cpu",
        "--seeds", "0", "--patience-epochs", "1", "--experiment", "control", "1",
        "--results-path", str(tmp_path / "results.json"), at=r"exp1 epoch 1/",
    )  # fmt: skip
    assert (code, err) == (130, f"interrupted: {tmp_path}/results.json holds control\n")
    assert "control final: " in out


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
