"""A name in `methods` that is none runs nothing, removes nothing, and is refused in a sentence."""

import pytest
import yaml

from tests.helpers.work_tree import stages_in


@pytest.fixture(scope="module")
def hostile_tree(fresh_work_tree, tmp_path_factory):
    work_tree = fresh_work_tree.copy(tmp_path_factory.mktemp("hostile") / "work")
    (work_tree.root / "data/raw").mkdir(exist_ok=True)
    (work_tree.root / "data/raw/kept").write_text("kept", encoding="utf-8")
    return work_tree


def set_methods(work_tree, *names, lengths=()):
    path = work_tree.root / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    text = yaml.safe_dump({**values, "methods": list(names), "control_epochs": list(lengths)})
    path.write_text(text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dkd; touch X", "is ignored by .dvcignore:"),
        ("$(touch X)", "is ignored by .dvcignore:"),
        ("../../data/raw", "is ignored by .dvcignore:"),
        ("x/../../../data/raw", "is ignored by .dvcignore:"),
        # Its outputs are those of dkd: the command gets it as one word, and refuses it.
        ("$(touch X)/../dkd", "argument --method: invalid choice: '$(touch X)/../dkd'"),
    ],
)
def test_a_stage_of_a_hostile_name_does_nothing(name, message, hostile_tree):
    set_methods(hostile_tree, name)
    (hostile_tree.root / "models/students").mkdir(parents=True, exist_ok=True)
    command = ("repro", "--force", "--single-item", f"distill@{name}")
    output = hostile_tree.dvc(*command, status=None)
    assert message in output
    assert "Traceback" not in output
    assert not (hostile_tree.root / "X").exists()
    assert (hostile_tree.root / "data/raw/kept").exists()


@pytest.mark.slow
def test_a_stage_of_a_hostile_length_does_nothing(hostile_tree):
    length = "$(touch X)/../40"
    set_methods(hostile_tree, lengths=[length])
    command = ("repro", "--force", "--single-item", f"train_control_for@{length}")
    output = hostile_tree.dvc(*command, status=None)
    assert f"argument --epochs: invalid int value: '{length}'" in output
    assert not (hostile_tree.root / "X").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (["40"], "error: control_epochs: got ['40']; must be a list of different whole numbers"),
        pytest.param(
            [0],
            "error: control_epochs: got [0]; must be a list of different whole numbers",
            marks=pytest.mark.full,
        ),
        pytest.param(
            [2, 3],
            "error: control_epochs: got 2, which is epochs; must name other lengths",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_length_that_is_none_is_refused_before_anything_runs(lengths, message, hostile_tree):
    set_methods(hostile_tree, lengths=lengths)
    output = hostile_tree.dvc("repro", status=None)
    assert stages_in(output) == ["check_inputs"]
    assert message in output


@pytest.mark.slow
def test_a_misspelt_method_gets_the_names_before_anything_runs(hostile_tree):
    set_methods(hostile_tree, "dkdd")
    before = hostile_tree.status()
    output = hostile_tree.dvc("repro", status=None)
    assert stages_in(output) == ["check_inputs"]
    assert "error: methods: got ['dkdd']; must be a list, empty or of different names" in output
    assert "dist, dkd," in output
    assert "Errno" not in output
    assert hostile_tree.status() == before
