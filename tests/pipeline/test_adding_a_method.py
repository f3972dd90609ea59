"""The page that says how to add a method is followed, in copies of the pipeline."""

import json
import re
import shutil

import pytest
import yaml

from tests.helpers.stages import ResolvedPipeline, changed, with_value
from tests.helpers.work_tree import stages_in


@pytest.fixture(scope="module")
def page(repository):
    """Return the page's two parts: on further methods, and on experiments."""
    text = (repository / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    return text.split("\n## An experiment 4\n")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def add_experiment(root, text):
    """Write the loss of the page's experiment 4, and its stage where the page wants it."""
    (code,), (lines,) = blocks(text, "python"), blocks(text, "yaml")
    (root / "distillation/losses/exp4.py").write_text(code, encoding="utf-8")
    pipeline = (root / "dvc.yaml").read_text(encoding="utf-8")
    above, stage, below = re.split(r"(  distill_exp3:\n(?: {4}.*\n)+)", pipeline)
    (root / "dvc.yaml").write_text(f"{above}{stage}\n{lines}{below}", encoding="utf-8")


@pytest.mark.full
def test_the_page_works_as_it_stands(work_tree, page):
    """A further method and an experiment 4, which then run together."""
    further, experiment = page
    (code,) = blocks(further, "python")
    path = work_tree.root / "distillation/losses/logit_mse.py"
    path.write_text(code, encoding="utf-8")
    add_number, run = blocks(further, "sh")
    work_tree.run("bash", "-ec", add_number)
    add_experiment(work_tree.root, experiment)
    assert work_tree.changed_stages() == {"distill_exp4", "summarize"}
    output = work_tree.run("bash", "-ec", run)
    assert stages_in(output)[0] == "check_inputs"
    assert sorted(stages_in(output)[1:3]) == ["distill@logit_mse", "distill_exp4"]
    assert stages_in(output)[3:] == ["export_student", "summarize"]
    repro, command_line, compare = blocks(experiment, "sh")[0].splitlines()
    assert "up to date" in work_tree.run("bash", "-ec", repro)
    for name in ("logit_mse", "exp4"):
        assert work_tree.metrics(name)["teacher_outputs"] == "stored"
    (training,) = work_tree.metrics("seeds/exp4")["seeds"]
    assert training["history"][0]["terms"]["feature"] > 0
    rows = work_tree.metrics("summary")["summary"]
    names = ["control", "exp1", "exp2", "exp3", "exp4", "logit_mse"]
    assert [row["exp"] for row in rows] == names
    report = (work_tree.root / "report/index.html").read_text(encoding="utf-8")
    assert all(f"{name}</span>" in report for name in names)
    table = work_tree.run("python", "-m", "distillation", "compare")
    assert re.findall(r"^ *(logit_mse|exp4) ", table, re.MULTILINE) == ["exp4", "logit_mse"]

    # The command line takes number and name.
    options = "control 4 exp4 --device cpu --teacher-epochs 0 --epochs 1"
    work_tree.run("bash", "-ec", command_line.replace("control 4", options))
    results = json.loads((work_tree.root / "results.json").read_text(encoding="utf-8"))
    assert list(results["methods"]) == ["control", "exp4"]
    assert re.search(r"^ *exp4 ", work_tree.run("bash", "-ec", compare), re.MULTILINE)

    # The work tree is left for another commit, and the experiment taken up again. DVC's checkout
    # asks for the outputs of every stage: one that never ran must not be there.
    work_tree.restore()
    work_tree.run("git", "clean", "-q", "-f", "metrics")
    assert work_tree.changed_stages() == set()
    assert "exp4</span>" not in (work_tree.root / "report/index.html").read_text(encoding="utf-8")
    (name,) = work_tree.dvc("exp", "list", "--name-only").split()
    work_tree.dvc("exp", "apply", name)
    assert (work_tree.root / "report/index.html").read_text(encoding="utf-8") == report
    assert (work_tree.root / "models/students/logit_mse.safetensors").exists()


def test_an_experiment_4_has_the_experiments_weight(work_tree, page, tmp_path):
    """For the stage, and for `compare`, which sets runs apart by what matters to their methods."""
    add_experiment(work_tree.root, page[1])
    (tmp_path / "resolved").mkdir()
    resolved = ResolvedPipeline(tmp_path / "resolved", work_tree.root)
    params = work_tree.root / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    other = with_value(values, "feature_weight", 2.5)
    rerun = changed(resolved.stages(values), resolved.stages(other))
    assert rerun == {"distill_exp2", "distill_exp3", "distill_exp4", "summarize"}

    trainings = work_tree.metrics("seeds/exp3")
    for name, written in (("first", values), ("second", other)):
        folder = work_tree.root / name
        (folder / "metrics/seeds").mkdir(parents=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
        shutil.copy(work_tree.root / "dvc.yaml", folder)
        for method in ("exp1", "exp4"):
            text = json.dumps(trainings)
            (folder / f"metrics/seeds/{method}.json").write_text(text, encoding="utf-8")
    command = ("compare", "first/metrics", "second/metrics", "--format", "json")
    printed = work_tree.run("python", "-m", "distillation", *command)
    rows = [row for table in json.loads(printed)["tables"] for row in table["rows"]]
    # Experiment 1 is one row: it is the same training twice.
    assert sorted(row["method"] for row in rows) == ["exp1", "exp4", "exp4"]
