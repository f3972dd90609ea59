"""The workflows' own commands, run where a pipeline and a remote are at hand."""

import json
import re
import shutil

import pytest
import yaml

from tests.helpers.work_tree import WorkTree, stages_in


@pytest.fixture(scope="module")
def scripts(repository):
    """Return what every step of every workflow runs, by workflow, job and the step's name."""
    found = {}
    for path in (repository / ".github" / "workflows").glob("*.yml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for job, settings in content["jobs"].items():
            for step in settings["steps"]:
                if "run" in step:
                    found[path.stem, job, step.get("name", step["run"])] = step["run"]
    return found


def run_step(work_tree, script, **variables):
    """Run a step as the runner does: bash stops at the first command that fails."""
    work_tree.environment.update(variables)
    return work_tree.run("bash", "-e", "-c", script)


def test_make_targets_exist(scripts, repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([\w-]+)", "\n".join(scripts.values())))
    assert targets >= {"setup", "demo", "faults"}
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()


def test_the_summary_has_the_table_and_the_gain(scripts, work_tree, tmp_path):
    work_tree.run("git", "tag", "baseline")
    path = work_tree.root / "metrics" / "methods" / "exp1.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**metrics, "after_acc": 99.25}), encoding="utf-8")
    summary = tmp_path / "summary.md"
    run_step(work_tree, scripts["ci", "demo", "Summary"], GITHUB_STEP_SUMMARY=str(summary))
    written = summary.read_text(encoding="utf-8")
    assert (work_tree.root / "metrics" / "summary.md").read_text(encoding="utf-8") in written
    assert re.search(
        r"^\| metrics/methods/exp1.json +\| after_acc +\|.*99\.25", written, re.MULTILINE
    )


@pytest.mark.full
def test_a_pull_request_is_run_with_what_the_team_has(scripts, work_tree, tmp_path):
    shared, base = tmp_path / "shared", work_tree.run("git", "rev-parse", "HEAD").strip()
    work_tree.dvc("remote", "add", "--default", "shared", str(shared))
    work_tree.commit("a remote")
    work_tree.dvc("push", "-q")
    work_tree.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = WorkTree(tmp_path / "clone")
    params = clone.root / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    params.write_text(yaml.safe_dump({**values, "feature_weight": 0.2}), encoding="utf-8")
    clone.commit("another weight")

    printed = run_step(clone, scripts["team", "results", "Pull, run what changed, push"])
    ran = {"distill_exp2", "distill_exp3", "export_student", "summarize"}
    assert set(stages_in(printed)) == ran
    script = scripts["team", "results", "Compare with the branch it goes to"]
    run_step(clone, script, BASE=base, RUNNER_TEMP=str(tmp_path), GITHUB_RUN_ID="7")
    comment = (tmp_path / "results" / "comment.md").read_text(encoding="utf-8")
    assert "| metrics/methods/exp3.json" in comment
    assert "| metrics/methods/control.json" not in comment

    # A colleague takes the results as the comment says.
    work_tree.run("git", "pull", "-q", str(clone.root), "main")
    (fetched, apply, pull) = re.findall(r"`(.*?)`", comment)
    assert "download 7 --name results --dir .scratch/ci" in fetched
    shutil.copytree(tmp_path / "results", work_tree.root / ".scratch" / "ci")
    work_tree.run("bash", "-e", "-c", f"{apply}; {pull}")
    assert work_tree.ran("repro") == []
    assert work_tree.metrics("exp3") == clone.metrics("exp3")
