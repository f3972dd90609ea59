"""What `python -m distillation sweep` refuses before it starts Ray."""

import sys

import pytest

from distillation.cluster import main
from distillation.cluster.command import build_parser


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
    [[], ["-S", "alpha=1", "--gpus-per-run", "-1"], ["-S", "alpha=1", "--retries", "many"]],
)
def test_wrong_usage_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_an_address_in_the_environment_is_taken(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert build_parser().parse_args(["-S", "alpha=1"]).address == "10.0.0.1:6379"
