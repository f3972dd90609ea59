"""Revisions and DVC experiments compared: real git, and one round trip through the real dvc."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillation import compare

# A pipeline whose stages write metrics at once: seed s of a method ends with 60 + s + 10 · alpha,
# the control with 60 + s. `dkd` has a stage of its own file, as in the real pipeline.
STAGE = """
import json, pathlib, sys, yaml
method, params = sys.argv[1], yaml.safe_load(open("params.yaml"))
gain = 0 if method == "control" else 10 * params["alpha"]
records = [
    {"seed": seed, "after_acc": 60 + seed + gain, "best_acc": 61 + seed + gain, "after_f1": 0.5,
     "best_f1": 0.5, "validation_acc": 59.0}
    for seed in params["seeds"]
]
pathlib.Path("metrics/seeds").mkdir(parents=True, exist_ok=True)
def write(path, content):
    pathlib.Path("metrics", path).write_text(json.dumps(content))
write(f"seeds/{method}.json", {"data": "noise", "seeds": records})
mean = sum(record["after_acc"] for record in records) / len(records)
flat = {**records[0], "n": len(records), "saved_seed": records[0]["seed"], "after_acc": mean}
del flat["seed"]
write(f"{method}.json", {**flat, "data": "noise"})
"""
PARAMS = {"dataset": "noise", "seed": 0, "seeds": [0, 1, 2], "alpha": 0.5, "methods": []}


def make_stage(method):
    return {
        "cmd": f"python stage.py {method}",
        "deps": ["stage.py"],
        "params": ["dataset", "seed", "seeds", *([] if method == "control" else ["alpha"])],
        "outs": [{f"metrics/seeds/{method}.json": {"cache": False}}],
        "metrics": [{f"metrics/{method}.json": {"cache": False}}],
    }


class Project:
    def __init__(self, root):
        self.root = root
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "DVC_NO_ANALYTICS": "1",
            **{
                f"GIT_{role}_{key}": value
                for role in ("AUTHOR", "COMMITTER")
                for key, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
            },
        }

    def run(self, *command):
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path, content):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (self.root / path).write_text(text, encoding="utf-8")

    def train(self, *methods, **params):
        """Run stages by hand."""
        self.write("params.yaml", {**PARAMS, **params})
        for method in methods:
            self.run(sys.executable, "stage.py", method)

    def commit(self):
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "x")
        return self.run("git", "rev-parse", "HEAD").strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Give a repository, as the working directory, with a branch of another alpha."""
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    made.run("git", "init", "-q", "-b", "main")
    made.write("stage.py", STAGE)
    made.train("control", "exp1", "teacher")
    made.commit()
    made.run("git", "checkout", "-q", "-b", "more")
    made.train("exp1", alpha=0.75)
    made.commit()
    made.run("git", "checkout", "-q", "main")
    return made


def run_json(capsys, *arguments):
    assert compare.main([*arguments, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = {row["label"]: row for table in content["tables"] for row in table["rows"]}
    return rows, content["notes"]


def run_error(capsys, *arguments):
    assert compare.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


# Revisions


def test_branches_and_commits(project, capsys):
    rows, notes = run_json(capsys, "main", "more")
    assert notes == []
    assert list(rows) == ["control", "exp1 alpha=0.5", "exp1 alpha=0.75"]
    assert rows["exp1 alpha=0.75"]["difference"] == 7.5
    assert rows["exp1 alpha=0.75"]["sources"] == ["more"]
    project.run("git", "checkout", "-q", "more")
    again, _ = run_json(capsys, "metrics", "HEAD~1")
    assert {label: row["difference"] for label, row in again.items()} == {
        label: row["difference"] for label, row in rows.items()
    }


def test_a_file_goes_before_a_branch_of_its_name(project, capsys):
    project.run("git", "branch", "metrics", "more")
    assert list(run_json(capsys, "metrics")[0]) == ["control", "exp1"]
    rows, _ = run_json(capsys, "metrics", "refs/heads/metrics")
    assert "exp1 alpha=0.75" in rows


def test_a_project_in_a_folder_of_the_repository(project, monkeypatch, capsys):
    project.write("inner/metrics/seeds/exp1.json", (Path("metrics/seeds/exp1.json")).read_text())
    project.write("inner/params.yaml", {**PARAMS, "seed": 5})
    project.commit()
    monkeypatch.chdir("inner")
    rows, _ = run_json(capsys, "HEAD")
    assert list(rows) == ["exp1"]


def test_a_revision_without_parameters(project, capsys):
    project.run("git", "rm", "-q", "params.yaml")
    project.commit()
    assert list(run_json(capsys, "main")[0]) == [
        "control (parameters unknown: main)",
        "exp1 (parameters unknown: main)",
    ]


def test_revisions_that_cannot_be_used(project, capsys):
    message = run_error(capsys, "mare")
    assert message.startswith(
        "mare: no file or folder, no git revision and no DVC experiment; did you mean more? "
        "allowed: a results file (.json), "
    )
    project.run("git", "rm", "-q", "-r", "metrics")
    commit = project.commit()
    assert run_error(capsys, commit) == (
        f"{commit}: no metrics/seeds/<method>.json; allowed: where the pipeline has run (dvc repro "
        "writes them)"
    )


def test_outside_a_repository_and_without_git(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = run_error(capsys, "main")
    assert found.startswith("main: no file or folder, and git finds no repository here; allowed: a")
    found = run_error(capsys, "--experiments")
    assert found == "--experiments: git finds no repository here; allowed: in one"
    monkeypatch.setenv("PATH", "")
    assert run_error(capsys, "main").startswith("git is not installed; allowed without it: results")


# Experiments, their refs made by hand


def make_experiment(project, name, *, baseline="main", **params):
    """Commit an experiment and put it where DVC does."""
    project.run("git", "checkout", "-q", "--detach", baseline)
    parent = project.run("git", "rev-parse", "HEAD").strip()
    project.train("exp1", **params)
    commit = project.commit()
    project.run("git", "update-ref", f"refs/exps/{parent[:2]}/{parent[2:]}/{name}", commit)
    project.run("git", "checkout", "-q", "main")
    return commit


def test_experiments_by_name_and_all_of_them(project, capsys):
    make_experiment(project, "eager-elk", alpha=0.25)
    make_experiment(project, "zany-zebu", alpha=1.0)
    for internal in ("stash", "celery/stash", "celery/failed", "exec/EXEC_HEAD", "apply/stash"):
        project.run("git", "update-ref", f"refs/exps/{internal}", "more")
    rows, _ = run_json(capsys, "zany-zebu")
    assert rows["exp1"]["difference"] == 10.0
    rows, notes = run_json(capsys, "--experiments")
    assert list(rows) == ["control", "exp1 alpha=0.25", "exp1 alpha=0.5", "exp1 alpha=1"]
    assert rows["exp1 alpha=1"]["sources"] == ["zany-zebu"]
    assert notes == []
    rows, _ = run_json(capsys, "--experiments", "more")
    assert list(rows) == ["control", "exp1 alpha=0.25", "exp1 alpha=0.75", "exp1 alpha=1"]
    assert "did you mean zany-zebu? " in run_error(capsys, "zany-zebra")


def test_of_two_experiments_with_one_name_that_from_here_is_meant(project, capsys):
    make_experiment(project, "twin", alpha=0.25)
    make_experiment(project, "twin", baseline="more", alpha=1.0)
    assert run_json(capsys, "twin")[0]["exp1"]["difference"] == 2.5
    project.run("git", "commit", "-q", "--allow-empty", "-m", "x")
    assert run_error(capsys, "twin").startswith("twin: 2 experiments have this name; allowed: ")


def test_what_has_no_trainings_is_noted_where_nobody_asked_for_it(project, capsys):
    make_experiment(project, "good", alpha=0.25)
    project.run("git", "rm", "-q", "-r", "metrics")
    empty = project.commit()
    project.run("git", "update-ref", f"refs/exps/{empty[:2]}/{empty[2:]}/empty", empty)
    rows, notes = run_json(capsys, "--experiments")
    assert list(rows) == ["control", "exp1"]
    assert rows["exp1"]["difference"] == 2.5
    assert notes == [
        "Left out: metrics (no metrics/seeds).",
        "Left out: empty (no metrics/seeds).",
    ]
    assert run_error(capsys, "empty").startswith("empty: no metrics/seeds/<method>.json; allowed: ")


# dvc


@pytest.fixture(scope="module")
def dvc_project(tmp_path_factory):
    """Give a repository with a committed run, two experiments and one that waits in the queue."""
    made = Project(tmp_path_factory.mktemp("dvc"))
    made.run("git", "init", "-q", "-b", "main")
    made.run("dvc", "init", "-q")
    made.write("stage.py", STAGE)
    stages = {method: make_stage(method) for method in ("control", "exp1")}
    group = {"foreach": "${methods}", "do": make_stage("${item}")}
    made.write("dvc.yaml", {"stages": {**stages, "distill": group}})
    for methods in (["dkd"], []):
        made.write("params.yaml", {**PARAMS, "methods": methods})
        made.run("dvc", "repro", "-q")
    made.commit()
    made.run("dvc", "exp", "run", "-q", "--temp", "-n", "low", "-S", "alpha=0.25")
    made.run("dvc", "exp", "run", "-q", "-n", "single", "-S", "seeds=[7]", "-S", "alpha=1.0")
    made.run("dvc", "exp", "run", "-q", "--queue", "-n", "waiting", "-S", "alpha=0.1")
    made.write("show.json", made.run("dvc", "exp", "show", "--json"))
    return made


STALE = "(distill@dkd ran with alpha=0.5, params.yaml has alpha="
ROWS = {
    "control": (4, None),
    "exp1 alpha=0.25": (3, 2.5),
    "exp1 alpha=0.5": (3, 5.0),
    "exp1 alpha=1": (1, 10.0),
    "dkd": (3, 5.0),
}


def test_experiments_of_the_real_dvc(dvc_project, monkeypatch, capsys):
    monkeypatch.chdir(dvc_project.root)
    rows, notes = run_json(capsys, "main", "low", "single")
    assert {label: (row["n"], row["difference"]) for label, row in rows.items()} == ROWS
    # dkd is no longer listed in methods: what the experiments hold of it is of the old alpha.
    assert notes == [f"Left out: dkd of low {STALE}0.25).", f"Left out: dkd of single {STALE}1)."]
    rows, notes = run_json(capsys, "--experiments", "main")
    assert {label: (row["n"], row["difference"]) for label, row in rows.items()} == ROWS


@pytest.mark.parametrize("source", ["show.json", "-"])
def test_what_exp_show_prints(dvc_project, monkeypatch, capsys, source):
    monkeypatch.chdir(dvc_project.root)
    with Path("show.json").open(encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdin", file)
        rows, notes = run_json(capsys, source)
    assert {label: (row["n"], row["difference"]) for label, row in rows.items()} == ROWS
    name = "standard input" if source == "-" else source
    assert sorted(notes) == [
        f"Left out: dkd of {name}: low {STALE}0.25).",
        f"Left out: dkd of {name}: single {STALE}1).",
        f"Left out: dkd of {name}: workspace {STALE}1).",
        f"Left out: {name}: waiting (queued).",
    ]


def take(project, folder, *names):
    """Give the path of exp show's output with some revisions alone, in an empty folder."""
    content = json.loads((project.root / "show.json").read_text(encoding="utf-8"))
    for revision in content:
        revision["experiments"] = [
            experiment
            for experiment in revision["experiments"] or []
            if experiment["name"] in names
        ]
    content = [
        revision
        for revision in content
        if revision["name"] in names or revision["rev"] in names or revision["experiments"]
    ]
    (folder / "show.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def test_elsewhere_one_seed_is_known_from_its_metrics(dvc_project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    content = take(dvc_project, tmp_path, "single")
    content[0]["data"]["metrics"] = {}
    (single,) = content[0]["experiments"][0]["revs"]
    (tmp_path / "show.json").write_text(json.dumps(content))
    rows, notes = run_json(capsys, "show.json")
    assert (rows["exp1"]["n"], rows["exp1"]["difference"]) == (1, 10.0)
    assert notes == [
        "Left out: show.json: main (no metrics of a method).",
        "show.json: single: its revision cannot be read here, so that its metrics files cannot be "
        "checked to be made with its parameters.",
    ]
    del single["data"]["metrics"]["metrics/exp1.json"]["data"]["n"]
    (tmp_path / "show.json").write_text(json.dumps(content))
    assert "Left out: show.json: single (its metrics do not say of how many trainings: exp1)" in (
        run_error(capsys, "show.json")
    )


def test_elsewhere_several_seeds_are_an_error(dvc_project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    take(dvc_project, tmp_path, "main")
    message = run_error(capsys, "show.json")
    assert message.startswith(
        "show.json: main: control was trained 3 times, and its revision, which has the trainings "
        "one by one, cannot be read here; allowed: to run this in the repository dvc exp show was "
    )
    content = take(dvc_project, tmp_path, "workspace")
    content[0]["data"]["metrics"]["metrics/exp1.json"]["data"]["n"] = 3
    (tmp_path / "show.json").write_text(json.dumps(content))
    assert run_error(capsys, "show.json").endswith(
        "Left out: show.json: workspace (metrics/ of this folder has other trainings)."
    )


def test_a_failed_experiment_is_left_out(dvc_project, tmp_path, monkeypatch, capsys):
    content = take(dvc_project, tmp_path, "single", "low")
    for experiment in content[0]["experiments"]:
        if experiment["name"] == "low":  # as DVC 3.67 writes it, with the metrics it found
            experiment["executor"] = {"state": "failed", "name": None, "local": None}
            experiment["revs"][0]["error"] = {"msg": "Experiment run failed", "type": ""}
    (tmp_path / "show.json").write_text(json.dumps(content))
    monkeypatch.chdir(dvc_project.root)
    rows, notes = run_json(capsys, str(tmp_path / "show.json"))
    assert "exp1 alpha=0.25" not in rows
    assert any(note.endswith("low (failed).") for note in notes)
