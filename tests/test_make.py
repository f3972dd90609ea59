"""Targets of the Makefile: what `make setup` installs, and what stops before its work."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

WORKS = "from types import SimpleNamespace\nops = SimpleNamespace(nms=lambda *given: None)\n"
BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"
TORCH = "tensor = ones = lambda *given: None\n"


def own_environment():
    """Return the environment without what a `make test`, or an image, says to make and pip."""
    given = ("PIP_", "MAKE", "MFLAGS", "CPU", "GPU", "VENV")
    return {name: text for name, text in os.environ.items() if not name.startswith(given)}


@pytest.fixture
def make_demo(repository):
    """Run `make demo` in a folder where all is installed, as far as make can see."""

    def run(folder):
        (folder / ".venv").mkdir(parents=True, exist_ok=True)
        for name in ("Makefile", "requirements.txt", "requirements-cuda.txt"):
            shutil.copy2(repository / name, folder)
        (folder / ".venv" / ".installed").touch()
        # No repository above the folder counts.
        environment = {
            **own_environment(),
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
            "LC_ALL": "C",
        }
        return subprocess.run(
            ["make", "demo"], cwd=folder, env=environment, capture_output=True, text=True
        )

    return run


def test_a_demo_without_a_repository_says_what_is_missing(make_demo, tmp_path):
    done = make_demo(tmp_path / "unpacked")
    assert done.returncode != 0
    assert "needs a git repository with a commit: clone the project" in done.stderr
    assert "dvc exp" not in done.stdout


def test_a_demo_below_a_path_that_dvc_cannot_take_says_so(make_demo, tmp_path):
    folder = tmp_path / "Übung"
    folder.mkdir()
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "start"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    done = make_demo(folder)
    assert done.returncode != 0
    assert "needs a path of ASCII letters alone: move the project" in done.stderr
    assert "dvc exp" not in done.stdout


def test_a_demo_in_a_shallow_clone_says_what_to_do(make_demo, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "shallow"
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "-q", whole], check=True)
    for _ in range(2):
        command = ["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"]
        subprocess.run(command, cwd=whole, check=True)
    command = ["git", "clone", "-q", "--depth", "1", whole.as_uri(), folder]
    subprocess.run(command, check=True)
    done = make_demo(folder)
    assert done.returncode != 0
    assert "cannot fetch into a shallow clone: git fetch --unshallow" in done.stderr
    assert "dvc exp run --temp --name" not in done.stdout


def write_wheel(index, name, version, code):
    """Write a package of one module into a folder that pip takes for an index."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory):
    """Return a folder with a virtual environment in it, which takes seconds to make."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    return root


@pytest.fixture
def setup(repository, empty_environment, tmp_path):
    """Run `make setup` where two packages are all there is, and an index for each build of them."""
    folder, pypi, cpu = tmp_path / "project", tmp_path / "pypi", tmp_path / "cpu"
    shutil.copytree(empty_environment, folder, symlinks=True)
    shutil.copy2(repository / "Makefile", folder)
    (folder / "requirements.txt").write_text("torch==2.0\ntorchvision==2.0\n")
    (folder / "requirements-cuda.txt").write_text("")
    for name, code in (("torch", TORCH), ("torchvision", WORKS)):
        write_wheel(pypi, name, "2.0", code)
        write_wheel(cpu, name, "2.0+cpu", code)
    environment = own_environment() | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": pypi.as_uri(),
        "LC_ALL": "C",
    }

    def run(*arguments, index=cpu, status=0, torchvision=WORKS):
        write_wheel(pypi, "torchvision", "2.0", torchvision)
        done = subprocess.run(
            ["make", "setup", "PYTHON=true", f"CPU_INDEX={index.as_uri()}", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == (status != 0), done.stderr
        listed = [path.name for path in (folder / ".venv").rglob("torch*.dist-info")]
        return sorted(listed), done.stdout + done.stderr

    return run


FOR_CPU = ["torch-2.0+cpu.dist-info", "torchvision-2.0+cpu.dist-info"]
FOR_CUDA = ["torch-2.0.dist-info", "torchvision-2.0.dist-info"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected", "size"),
    [
        (["HAS_GPU="], FOR_CPU, "1.8 GB"),
        (["HAS_GPU=yes"], FOR_CUDA, "6.6 GB"),
        (["HAS_GPU=yes", "CPU=1"], FOR_CPU, "1.8 GB"),
        (["HAS_GPU=", "GPU=1"], FOR_CUDA, "6.6 GB"),
    ],
)
def test_setup_takes_the_build_that_fits_the_machine(setup, options, expected, size):
    installed, printed = setup(*options)
    assert installed == expected
    assert f"{size} on disk" in printed


@pytest.mark.slow
def test_setup_says_that_there_is_no_build_for_the_cpu(setup, tmp_path):
    installed, printed = setup("CPU=1", index=tmp_path / "nowhere")
    assert installed == FOR_CUDA
    assert "has no torch==2.0+cpu for this Python, or cannot be reached" in printed
    assert "6.6 GB on disk" in printed


@pytest.mark.slow
def test_setup_stops_where_torch_and_torchvision_do_not_fit(setup):
    _, printed = setup("GPU=1", torchvision=BROKEN, status=2)
    assert "torch and torchvision in .venv do not work together" in printed
