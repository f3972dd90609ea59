"""Which parameters matter to a method: what `dvc.yaml` says, and no list of our own."""

import json
import re
import shutil
import subprocess
import sys

import networkx as nx
import pytest
import yaml
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from distillation import compare
from distillation.base.methods import DEFAULT_METHODS, EXPERIMENTS, further_methods
from distillation.compare.parameters import flatten
from distillation.compare.pipeline import select
from distillation.compare.records import CompareError


@pytest.fixture(scope="module")
def resolved(repository, tmp_path_factory):
    """Return the parameters by stage of the pipeline as DVC resolves it, with all it builds on."""
    root = tmp_path_factory.mktemp("resolved")
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "methods": further_methods()}))
    shutil.copy(repository / "dvc.yaml", root)
    with Repo.init(str(root), no_scm=True) as repo:
        return {
            stage.name: {
                param
                for name in [stage, *nx.descendants(repo.index.graph, stage)]
                if name.name != "check_inputs" or stage is name  # it writes always the same
                for dep in name.deps
                if isinstance(dep, ParamsDependency)
                for param in dep.params
            }
            for stage in repo.index.stages
        }


@pytest.mark.parametrize("method", [*DEFAULT_METHODS, *further_methods()])
def test_what_matters_is_what_dvc_would_run_it_again_for(resolved, repository, method):
    stage = f"distill_{method}" if method in EXPERIMENTS else f"distill@{method}"
    expected = resolved["train_control" if method == "control" else stage] - {"seed", "seeds"}
    params = flatten(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    pipeline = (repository / "dvc.yaml").read_bytes()
    assert set(select(method, params, pipeline, source="x")) == expected


@pytest.fixture(scope="module")
def with_exp4(repository):
    """Return the pipeline with an experiment 4 added as docs/adding-a-method.md does."""
    text = (repository / "dvc.yaml").read_text(encoding="utf-8")
    (exp3,) = re.findall(r"^  distill_exp3:\n(?:    .*\n)+", text, re.MULTILINE)
    assert len(exp3.splitlines()) == 4
    return text.replace(exp3, exp3 + "\n" + exp3.replace("exp3", "exp4"))


def test_experiment_4_is_set_apart_by_its_feature_weight(
    repository, with_exp4, tmp_path, monkeypatch, capsys
):
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    measured = {"before_acc": 10, "best_acc": 60, "after_f1": 0.5, "best_f1": 0.5}
    record = {"seed": 0, "after_acc": 60, "validation_acc": 60, **measured}
    for name, weight, shipped in (("a", 0.1, "exp1"), ("b", 0.2, "exp2")):
        (tmp_path / name / "metrics/seeds").mkdir(parents=True)
        (tmp_path / name / "dvc.yaml").write_text(with_exp4)
        text = yaml.safe_dump({**params, "feature_weight": weight, "export_method": shipped})
        (tmp_path / name / "params.yaml").write_text(text)
        for method in ("control", "exp1", "exp4"):
            content = json.dumps({"data": "noise", "seeds": [record]})
            (tmp_path / name / f"metrics/seeds/{method}.json").write_text(content)
    monkeypatch.chdir(tmp_path)
    assert compare.main(["a/metrics", "b/metrics", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    labels = {row["label"]: row["reference"] for row in content["tables"][0]["rows"]}
    assert labels == dict.fromkeys(
        ["control", "exp1", "exp4 feature_weight=0.1", "exp4 feature_weight=0.2"], "control"
    )
    assert content["notes"] == []


def test_a_results_file_of_an_experiment_this_project_lacks(repository):
    """The stage of the further methods would take its name, but the run has no number for it."""
    params = flatten(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    pipeline = (repository / "dvc.yaml").read_bytes()
    assert set(select("exp4", params, pipeline, source="x")) == set(params) - {"seed", "seeds"}


TWO_STAGES = """
stages:
  prepare: {params: [size, seed], outs: [data/prepared]}
  train: {deps: [PLACE, code], params: PARAMS, outs: [metrics/seeds/m.json: {cache: false}]}
  other: {params: [rate, unused, group.b], outs: [metrics/seeds/n.json]}
  table: {params: [params.yaml: ], outs: [table.md]}
"""
PARAMS = dict.fromkeys(
    ["size", "rate", "group.a", "group.b", "unused", "unheard_of", "seed", "seeds"], 1
)


@pytest.mark.parametrize(
    ("place", "params", "matter"),
    [
        ("data/prepared", "[rate]", {"size", "rate"}),
        ("data/prepared/labels.npy", "[rate]", {"size", "rate"}),
        ("data", "[rate]", {"size", "rate"}),
        ("./data/prepared/", "[rate, params.yaml: [group.a]]", {"size", "rate", "group.a"}),
        ("data/prepare", "[rate]", {"rate"}),
        ("x", "[group]", {"group.a", "group.b"}),
        ("x", "[other.yaml: [unused]]", set()),
        ("x", "[params.yaml: ]", {"size", "rate", "group.a", "group.b", "unused"}),
    ],
)
def test_every_form_of_deps_and_params(place, params, matter):
    text = TWO_STAGES.replace("PLACE", place).replace("PARAMS", params).encode()
    # A parameter that no stage names may be another version's: it is not left out silently.
    assert set(select("m", PARAMS, text, source="x")) == matter | {"unheard_of"}


FOREACH = b"""
stages:
  each:
    foreach: ${methods}
    do: {params: ["weights.${item}", b], outs: ["metrics/seeds/${item}.json"]}
  own:
    vars: [{item: mine}]
    params: [a]
    outs: ["metrics/seeds/${item}.json"]
"""
MATRIX = b"""
stages:
  each:
    matrix: {method: '${methods}'}
    params: ["weights.${item.method}", b]
    outs: ["metrics/seeds/${item.method}.json"]
  own:
    vars: [{item: {method: mine}}]
    params: [a]
    outs: ["metrics/seeds/${item.method}.json"]
"""


@pytest.mark.parametrize("text", [FOREACH, MATRIX])
def test_a_method_with_a_stage_of_its_own_is_not_that_of_the_list(text):
    params = {"a": 1, "b": 1, "weights.mine": 1, "weights.other": 1}
    assert set(select("mine", params, text, source="x")) == {"a"}
    assert set(select("other", params, text, source="x")) == {"b", "weights.other"}


@pytest.mark.parametrize(
    "text", [b"stages: [", b"[]", b"stages: {a: 1}", b"stages: {a: {deps: 1}}"]
)
def test_a_damaged_pipeline(text):
    with pytest.raises(CompareError, match=r"^here: dvc\.yaml: .*; must be as DVC writes it$"):
        select("exp1", {}, text, source="here")


def test_without_any_pipeline_every_parameter_matters(repository, tmp_path):
    """The package alone, as it is installed from a wheel."""
    for folder in ("base", "compare", "losses", "results"):
        shutil.copytree(repository / "distillation" / folder, tmp_path / "distillation" / folder)
    shutil.copy(repository / "distillation/__init__.py", tmp_path / "distillation")
    record = {"after_acc": 60, "best_acc": 60, "after_f1": 0.5, "best_f1": 0.5}
    for seed in (0, 1):
        results = {
            "data": "noise",
            "methods": {"exp1": {"seeds": [{"seed": seed, "validation_acc": 60, **record}]}},
            "params": {"seed": 0, "seeds": [seed], "export_method": seed},
        }
        (tmp_path / f"{seed}.json").write_text(json.dumps(results))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from distillation import compare; compare.main()",
            "0.json",
            "1.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "exp1 export_method=0 " in done.stdout
    assert "1.json: no dvc.yaml: every parameter is taken to matter to every method." in done.stdout
