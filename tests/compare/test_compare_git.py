"""Revisions and DVC experiments compared: real git, and one round trip through the real dvc."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.cli import main as run_dvc

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
pathlib.Path("metrics/methods").mkdir(exist_ok=True)
write(f"methods/{method}.json", {"after_acc": mean, "acc_over_control": None})
"""
PARAMS = {"dataset": "noise", "seed": 0, "seeds": [0, 1, 2], "alpha": 0.5, "methods": []}


def make_stage(method):
    return {
        "cmd": f"python stage.py {method}",
        "deps": ["stage.py"],
        "params": ["dataset", "seed", "seeds", *([] if method == "control" else ["alpha"])],
        "outs": [{f"metrics/seeds/{method}.json": {"cache": False}}],
        "metrics": [{f"metrics/methods/{method}.json": {"cache": False}}],
    }


class Project:
    def __init__(self, root):
        self.root = root

    def run(self, *command):
        done = subprocess.run(
            command,
            cwd=self.root,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def dvc(self, *arguments):
        """Run the real dvc, in this process: its import takes a second each time."""
        # It wraps both streams and leaves them so.
        streams = contextlib.redirect_stdout(sys.stdout), contextlib.redirect_stderr(sys.stderr)
        with contextlib.chdir(self.root), streams[0], streams[1]:
            assert run_dvc([*arguments]) == 0, f"dvc {' '.join(arguments)}"

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


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        patch.setenv("PATH", path)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        # The user's own settings are not for the tests.
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("no-config")))
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "test")
            patch.setenv(f"GIT_{role}_EMAIL", "test@localhost")
        yield


@pytest.fixture(scope="module")
def template(environment, tmp_path_factory):
    """Return a repository with a branch of another alpha."""
    made = Project(tmp_path_factory.mktemp("template"))
    made.run("git", "init", "-q", "-b", "main")
    made.write("stage.py", STAGE)
    made.train("control", "exp1", "teacher")
    made.commit()
    made.run("git", "checkout", "-q", "-b", "more")
    made.train("exp1", alpha=0.75)
    made.commit()
    made.run("git", "checkout", "-q", "main")
    return made


@pytest.fixture
def project(template, tmp_path, monkeypatch):
    """Return a copy of it, as the working directory."""
    root = shutil.copytree(template.root, tmp_path / "project")
    monkeypatch.chdir(root)
    return Project(root)


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
        "mare: no file or folder; unknown Git revision 'mare'; did you mean more? must be a "
        "results file (.json), "
    )
    message = run_error(capsys, "HEAD:metrics")
    assert message.startswith("HEAD:metrics: no file or folder; HEAD:metrics is no commit; must be")
    project.run("git", "rm", "-q", "-r", "metrics")
    commit = project.commit()
    assert run_error(capsys, commit) == (
        f"{commit}: no metrics/seeds/<method>.json; must be where the pipeline has run (dvc repro "
        "writes them)"
    )


def test_outside_a_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for asked in ("main", "--experiments"):
        assert run_error(capsys, asked) == (
            f"{asked}: git finds no repository here; must be run in one, or name files and folders"
        )


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
    message = run_error(capsys, "twin")
    assert message.startswith("twin: no file or folder; ambiguous Git revision 'twin'; must be ")


def test_two_experiments_with_one_name_are_told_apart(project, capsys):
    make_experiment(project, "twin", alpha=0.25)
    make_experiment(project, "twin", baseline="more", alpha=1.0)
    sources = [row["sources"] for row in run_json(capsys, "--experiments")[0].values()]
    twins = {source for named in sources for source in named if "twin" in source}
    commits = {
        project.run("git", "rev-parse", "--short=7", name).strip() for name in ("main", "more")
    }
    assert twins == {f"twin of {commit}" for commit in commits}


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
    assert run_error(capsys, "empty").startswith("empty: no metrics/seeds/<method>.json; must be ")


# dvc


@pytest.fixture(scope="module")
def dvc_project(environment, tmp_path_factory):
    """Return a repository with a committed run, two experiments and one that waits in the queue."""
    made = Project(tmp_path_factory.mktemp("dvc"))
    made.run("git", "init", "-q", "-b", "main")
    made.dvc("init", "-q")
    made.write("stage.py", STAGE)
    stages = {method: make_stage(method) for method in ("control", "exp1")}
    group = {"foreach": "${methods}", "do": make_stage("${item}")}
    made.write("dvc.yaml", {"stages": {**stages, "distill": group}})
    made.write("params.yaml", {**PARAMS, "methods": ["dkd"]})
    made.dvc("repro", "-q")
    made.write("params.yaml", PARAMS)
    made.commit()
    made.dvc("exp", "run", "-q", "--temp", "-n", "low", "-S", "alpha=0.25")
    made.dvc("exp", "run", "-q", "-n", "single", "-S", "seeds=[7]", "-S", "alpha=1.0")
    made.dvc("exp", "run", "-q", "--queue", "-n", "waiting", "-S", "alpha=0.1")
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


@pytest.mark.slow
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
    """Return exp show's output with some revisions alone, written into an empty folder."""
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


@pytest.mark.parametrize("name", ["main", "single", "workspace"])
def test_elsewhere_there_are_no_trainings(dvc_project, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    take(dvc_project, tmp_path, name)
    error = run_error(capsys, "show.json")
    assert error.startswith("nothing to compare: no source has trainings. Left out: show.json: ")
    assert error.endswith(
        f"{name} (its trainings one by one are not here; run this where dvc exp show was run, or "
        "get the revision by dvc exp pull or git fetch)."
    )


def test_a_work_tree_that_has_moved_on(dvc_project, tmp_path, monkeypatch, capsys):
    content = take(dvc_project, tmp_path, "workspace")
    content[0]["data"]["metrics"]["metrics/methods/exp1.json"]["data"]["after_acc"] = 12.0
    (tmp_path / "show.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(dvc_project.root)
    assert "workspace (its trainings one by one are not here; " in (
        run_error(capsys, str(tmp_path / "show.json"))
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
