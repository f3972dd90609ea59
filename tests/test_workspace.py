from stages.workspace import main_workspace


def test_the_main_work_tree_is_found_from_a_temporary_one(tmp_path):
    temporary = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    temporary.mkdir(parents=True)
    assert main_workspace(temporary) == tmp_path.resolve()
    assert main_workspace(tmp_path) == tmp_path.resolve()
