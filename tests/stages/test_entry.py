"""Where stages look for files, from the user's work tree and from DVC's temporary ones."""

import pytest
import yaml

from distillation.base.params import ParamError, make_params
from stages.entry import (
    _load_params,
    _resolve_paths,
    find_workspace,
    load_stage_params,
    main_work_tree,
)


@pytest.fixture
def temporary(tmp_path):
    """A temporary work tree of DVC's in the user's, which is `tmp_path`."""
    folder = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    folder.mkdir(parents=True)
    return folder


def test_the_main_work_tree_is_found_from_a_temporary_one(tmp_path, temporary):
    assert main_work_tree(temporary) == tmp_path.resolve()
    assert main_work_tree(tmp_path) == tmp_path.resolve()


def test_states_are_kept_in_the_main_work_tree(tmp_path, temporary, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    expected = tmp_path.resolve() / ".scratch"
    for folder in (tmp_path, temporary):
        monkeypatch.chdir(folder)
        assert find_workspace().scratch == expected
    # DVC says where its work tree is, whatever folder a stage's command runs in.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (tmp_path, temporary):
        monkeypatch.setenv("DVC_ROOT", str(folder))
        assert find_workspace().scratch == expected


def test_paths_are_looked_for_here_then_in_the_main_work_tree(
    tmp_path, temporary, monkeypatch, tiny_values
):
    def resolve(**values):
        return _resolve_paths(make_params({**tiny_values, **values}))

    monkeypatch.chdir(temporary)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    with pytest.raises(ParamError, match=r"^student_checkpoint: got 'w\.pt'; must be the path"):
        resolve(student_checkpoint="w.pt")
    (tmp_path / "w.pt").touch()
    assert resolve(student_checkpoint="w.pt").student_checkpoint == str(tmp_path.resolve() / "w.pt")
    (temporary / "w.pt").touch()
    assert resolve(student_checkpoint="w.pt").student_checkpoint == "w.pt"
    (tmp_path / "home" / "w.pt").touch()
    found = resolve(student_checkpoint="~/w.pt", dataset="~")
    assert found.student_checkpoint == str(tmp_path / "home" / "w.pt")
    assert found.dataset == str(tmp_path / "home")
    assert resolve().dataset == "digits"


def test_a_loss_that_git_does_not_track_is_named_in_a_temporary_work_tree(
    tmp_path, temporary, monkeypatch, tiny_values
):
    for folder in (tmp_path, temporary):
        (folder / "distillation/losses").mkdir(parents=True)
        values = {**tiny_values, "methods": ["new"]}
        (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (tmp_path / "distillation/losses/new.py").touch()
    monkeypatch.chdir(temporary)
    hint = r"\ndvc exp run --temp and --queue see .*: git add distillation/losses/new\.py$"
    with pytest.raises(ParamError, match=rf"(?s)^methods: got \['new'\]; must be .*{hint}"):
        _load_params()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamError) as caught:
        _load_params()
    assert "git" not in str(caught.value)


def test_a_refusal_says_where_what_dvc_removed_is(tmp_path, monkeypatch, tiny_values):
    monkeypatch.chdir(tmp_path)
    text = yaml.safe_dump({**tiny_values, "alpha": -1})
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    refused = r"alpha: got -1; must be at least 0"
    with pytest.raises(ParamError, match=rf"^{refused}$"):
        load_stage_params("distill --method exp1")
    (tmp_path / "dvc.lock").touch()
    with pytest.raises(ParamError, match=rf"^{refused}\nDVC has removed .* `dvc checkout` and "):
        load_stage_params("distill --method exp1")
    with pytest.raises(ParamError, match=rf"^{refused}$"):
        load_stage_params("check_inputs")
