"""docs/cluster.md: its scripts can be read, and its commands have options that exist."""

import re
import shlex
import subprocess

import pytest
import yaml

from distillation.cluster.command import build_parser
from distillation.cluster.variants import make_variants


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_the_scripts_can_be_read(page):
    task = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    (job,) = re.findall(r"```sh\n(#!/bin/bash.*?)```", page, re.DOTALL)
    for script in (task["setup"], task["run"], job):
        subprocess.run(["bash", "-n", "-c", script], check=True)


def test_the_commands_have_options_that_exist(page):
    lines = page.replace("\\\n", " ").splitlines()
    commands = [line.split(" sweep ")[1] for line in lines if "distillation sweep -" in line]
    assert len(commands) >= 5
    for command in commands:
        arguments = shlex.split(command, comments=True)
        assert make_variants(build_parser().parse_args(arguments).grid)
