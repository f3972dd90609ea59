"""A clone of the work tree with tiny parameters, and the real dvc in it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

# Loaded by every python a stage starts: leaves the repository's modules it imported behind.
TRACER = """
import atexit, json, os, sys

def _write():
    root = os.getcwd() + os.sep
    files = {getattr(m, "__file__", None) for m in list(sys.modules.values())}
    files.add(os.path.abspath(sys.argv[0]))
    files = sorted(f[len(root):] for f in files if f and f.startswith(root))
    if any(f.startswith("stages") for f in files):
        name = "-".join([os.path.basename(sys.argv[0]).removesuffix(".py"), *sys.argv[1:]])
        with open(os.path.join(os.environ["TRACE_DIRECTORY"], name + ".json"), "w") as file:
            json.dump(files, file)

atexit.register(_write)
"""

# Ends a run as the kernel would, dvc and stage at once: KILL_AT=step:N in the N-th optimizer step,
# KILL_AT=save:N with the N-th state written but not yet in its place.
KILLER = """
import os, signal

def _kill_at(wanted, function, matters=lambda *_: True):
    calls = 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += matters(*args)
        if calls == wanted:
            os.killpg(0, signal.SIGKILL)
        return function(*args, **kwargs)

    return counted

_what, _, _number = os.environ.get("KILL_AT", "").partition(":")
if _what == "step":
    import torch

    torch.optim.AdamW.step = _kill_at(int(_number), torch.optim.AdamW.step)
if _what == "save":
    _is_state = lambda fd: os.readlink(f"/proc/self/fd/{fd}").endswith("/state.tmp")
    os.fsync = _kill_at(int(_number), os.fsync, _is_state)
"""


class Workspace:
    """A git and DVC work tree to run commands in."""

    def __init__(self, root: Path, traces: Path, hook: Path):
        self.root = root
        self.traces = traces
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(hook),
            "TRACE_DIRECTORY": str(traces),
            "DVC_NO_ANALYTICS": "1",
            "HF_HUB_OFFLINE": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command and give what it printed, standard error included."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        else:
            assert done.returncode != 0, f"{' '.join(command)} succeeded\n{done.stdout}"
        return done.stdout

    def dvc_killed(self, *arguments: str, at: str) -> str:
        """Run dvc in a process group of its own that kills itself; give what it printed."""
        done = subprocess.run(
            ["dvc", *arguments],
            cwd=self.root,
            env={**self.environment, "KILL_AT": at},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout
        return done.stdout

    def dvc(self, *arguments: str, check: bool = True) -> str:
        return self.run("dvc", *arguments, check=check)

    def metrics(self, name: str) -> dict:
        return json.loads((self.root / "metrics" / f"{name}.json").read_text(encoding="utf-8"))

    def changed_stages(self) -> set[str]:
        """Give the stages whose own dependencies or parameters differ from dvc.lock."""
        return set(json.loads(self.dvc("status", "--json")))

    def restore(self) -> None:
        """Go back to the committed parameters and results."""
        self.run("git", "checkout", "-q", "--", ".")
        self.dvc("checkout", "-q", "--force")

    def status(self) -> str:
        return self.run("git", "status", "--porcelain")


@pytest.fixture(scope="session")
def fresh_workspace(tmp_path_factory, repository, tiny_values):
    """Copy what git tracks or would track, set tiny parameters, commit."""
    base = tmp_path_factory.mktemp("pipeline")
    hook, traces, root = base / "hook", base / "traces", base / "work"
    for directory in (hook, traces, root):
        directory.mkdir()
    (hook / "sitecustomize.py").write_text(TRACER + KILLER, encoding="utf-8")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(dict(tiny_values)), encoding="utf-8")
    workspace = Workspace(root, traces, hook)
    workspace.run("git", "init", "-q", "-b", "main")
    workspace.run("git", "add", "-A")
    workspace.run("git", "commit", "-q", "-m", "start")
    return workspace


@pytest.fixture(scope="session")
def pipeline(fresh_workspace):
    """Give the workspace after one `dvc repro` and a further method, its results committed."""
    fresh_workspace.repro_output = fresh_workspace.dvc("repro")
    fresh_workspace.run("git", "add", "-A")
    fresh_workspace.run("git", "commit", "-q", "-m", "results")
    fresh_workspace.method_output = fresh_workspace.dvc("exp", "run", "-S", "methods=[dkd]")
    fresh_workspace.run("git", "add", "-A")
    fresh_workspace.run("git", "commit", "-q", "-m", "a further method")
    return fresh_workspace


@pytest.fixture(scope="session")
def two_seeds_output(pipeline):
    """Give what the experiment `two` printed, which trains every method with the seeds 0 and 1."""
    return pipeline.dvc("exp", "run", "--temp", "-n", "two", "-S", "seeds=[0,1]")


@pytest.fixture
def two_seeds(pipeline, two_seeds_output):
    """Give the workspace with parameters and results of the experiment `two`, for one test."""
    assert pipeline.status() == ""
    pipeline.dvc("exp", "apply", "-q", "two")
    yield pipeline
    pipeline.restore()
