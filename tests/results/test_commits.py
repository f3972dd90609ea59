"""Which commit a report names, and what it says that the commit does not hold."""

from distillation.results.commits import describe_code, newest_commit, setup_commands

# The later of the two in UTC has the earlier clock time.
OLD = {"commit": "a" * 40, "commit_date": "2026-03-02T09:00:00+02:00", "uncommitted_changes": False}
NEW = {"commit": "b" * 40, "commit_date": "2026-03-02T08:00:00+00:00", "uncommitted_changes": False}
CHANGED = {**NEW, "uncommitted_changes": True}


def test_one_commit_is_named():
    environments = {"teacher": OLD, "exp1": OLD}
    assert newest_commit(environments) == "a" * 40
    assert describe_code(environments) == ["The code is that of commit aaaaaaaaaa of 2026-03-02."]
    assert setup_commands("a" * 40)[0] == f"git checkout {'a' * 40}"


def test_of_several_commits_the_newest_is_named_with_what_was_trained_elsewhere():
    environments = {"teacher": OLD, "exp1": NEW, "exp2": {}}
    assert newest_commit(environments) == "b" * 40
    assert describe_code(environments) == [
        "Not all was trained by the code of one commit: bbbbbbbbbb of 2026-03-02 is the newest, "
        "and not that of teacher (aaaaaaaaaa), exp2 (not recorded)."
    ]


def test_changes_that_are_in_no_commit_are_said():
    *_, said = describe_code({"teacher": NEW, "control": CHANGED, "exp1": CHANGED})
    assert said == (
        "The code had changes that no commit holds when these were trained: control, exp1."
    )


def test_files_of_former_versions_name_no_commit():
    environments = {"teacher": {}, "exp1": {"torch": "2.11"}}
    assert newest_commit(environments) is None
    assert describe_code(environments) == ["The commit was not recorded."]
    assert setup_commands(None) == ["make setup", ". .venv/bin/activate"]
