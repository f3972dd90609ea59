"""What `python -m distillation sweep` refuses before it starts Ray."""

import sys

import pytest

from distillation.cluster import main
from distillation.cluster.command import build_parser
from distillation.cluster.tasks import Resources, environment_of


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["-S", "alpha=0.3,0.5"]) == 1
    message = capsys.readouterr().err
    assert "Ray is not installed; pip install -c requirements-extras.txt ray" in message
    assert len(message.splitlines()) == 1


def test_a_variable_that_is_not_set_is_named(monkeypatch, capsys):
    monkeypatch.delenv("NOT_SET", raising=False)
    assert main(["-S", "alpha=0.3", "--env", "NOT_SET"]) == 1
    assert capsys.readouterr().err == "error: --env NOT_SET: is not set here\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-S", "alpha=1", "--gpus-per-run", "-1"],
        ["-S", "alpha=1", "--gpus-per-run", "1.5"],
        ["-S", "alpha=1", "--cpus-per-run", "0.00001"],
        ["-S", "alpha=1", "--retries", "many"],
    ],
)
def test_wrong_usage_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"),
    [
        (1, 0, {"OMP_NUM_THREADS": "1", "DISTILLATION_DEVICE": "cpu"}),
        (0.5, 0, {"OMP_NUM_THREADS": "1", "DISTILLATION_DEVICE": "cpu"}),
        (8, 0.5, {"OMP_NUM_THREADS": "8"}),
    ],
)
def test_a_variant_keeps_to_what_it_reserved(cpus, gpus, expected):
    found = environment_of(resources_of(cpus, gpus, {"AWS_REGION": "x"}), gpus)
    assert found == {"DISTILLATION_PROCESSES": "1", "AWS_REGION": "x", **expected}
    given = environment_of(resources_of(cpus, gpus, {"DISTILLATION_DEVICE": "mps"}), gpus)
    assert given["DISTILLATION_DEVICE"] == "mps"


def resources_of(cpus, gpus, environment):
    return Resources(cpus=cpus, gpus=gpus, retries=0, work_dir=None, environment=environment)


def test_an_address_in_the_environment_is_taken(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert build_parser().parse_args(["-S", "alpha=1"]).address == "10.0.0.1:6379"
