"""The page that says how to add a method is followed, in a copy of the pipeline."""

import re
import shutil

import pytest

NEW = "logit_mse"


@pytest.fixture
def page(repository):
    return (repository / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_page_works_as_it_stands(pipeline, page, tmp_path):
    root = tmp_path / "work"
    shutil.copytree(pipeline.root, root, symlinks=True)
    workspace = type(pipeline)(root, pipeline.traces, pipeline.traces.parent / "hook")
    (code,) = blocks(page, "python")
    (root / "distillation" / "losses" / f"{NEW}.py").write_text(code, encoding="utf-8")
    add_number, run = blocks(page, "sh")
    workspace.run("bash", "-ec", add_number)
    output = workspace.run("bash", "-ec", run)
    assert re.findall(r"Running stage '([^']+)'", output) == [
        f"distill@{NEW}",
        "export_student",
        "summarize",
    ]
    assert workspace.metrics(NEW)["teacher_outputs"] == "stored"
    rows = workspace.metrics("summary")["summary"]
    assert [row["exp"] for row in rows] == ["control", "exp1", "exp2", "exp3", NEW]
    assert re.search(rf"^ *{NEW} ", workspace.run("python", "-m", "distillation", "compare"), re.M)
    assert "up to date" in workspace.dvc("repro")
    assert workspace.changed_stages() == set()
