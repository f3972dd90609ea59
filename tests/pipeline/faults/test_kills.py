"""Stages killed at random moments: the same command goes on, and ends with the same bits."""

import re
import signal
import time

import pytest

from tests.helpers.kills import Killer, left_by, litter

STAGES = {
    "check_inputs": "stages.check_inputs",
    "prepare_data": "stages.prepare_data",
    "train_teacher": "stages.train_teacher",
    "eval_baseline": "stages.eval_baseline",
    "teacher_targets": "stages.teacher_targets",
    "train_control": "stages.train_control",
    "distill_exp1": "stages.distill --method exp1",
    "distill_exp2": "stages.distill --method exp2",
    "distill_exp3": "stages.distill --method exp3",
    "distill@dkd": "stages.distill --method dkd",
    "export_student": "stages.export_student",
    "summarize": "stages.summarize",
}
WAYS = {
    "the group, SIGKILL": ("group", signal.SIGKILL),
    "the stage, SIGKILL": ("stage", signal.SIGKILL),
    "dvc, SIGKILL": ("dvc", signal.SIGKILL),
    "the group, SIGTERM": ("group", signal.SIGTERM),
    "the group, SIGINT": ("group", signal.SIGINT),
}
MOST_EVENTS, MOST_SECONDS = 60, 6.0
"""A stage of the tiny pipeline has about so many, or fewer."""
CARD = "models/student/README.md"
OF_SPEED = {CARD, "report/index.html", "metrics/summary.json"}
"""Files that show how fast an exported student is."""


def choose_moment(draw):
    """Return a moment, as `Killer.run` takes it; early events more often than late ones."""
    if draw.random() < 0.5:
        return f"{draw.uniform(0.1, MOST_SECONDS):.2f} seconds"
    return f"{round(MOST_EVENTS ** draw.random())} events"


@pytest.fixture(scope="session")
def undisturbed(pipeline):
    """Return what the run left that nobody disturbed."""
    return left_by(pipeline)


@pytest.fixture
def killer(work_tree, tmp_path):
    folder = tmp_path / "killer"
    folder.mkdir()
    return Killer(work_tree, folder)


def go_on(killer, command):
    """Type the same command again; once more when a stage without its dvc had first to end."""
    work_tree = killer.work_tree
    if killer.has_orphan():
        done = work_tree.start_and_wait(*command)
        assert "Traceback" not in done.stdout
        assert done.returncode == 0 or "is running here already, as process" in done.stdout
        killer.wait_for_orphan()
        killer.let_time_pass()
    output = work_tree.run(*command)
    assert "Traceback" not in output
    return output


def assert_as_undisturbed(work_tree, undisturbed, may_differ=()):
    left = left_by(work_tree)
    assert set(left) == set(undisturbed)
    differing = {name for name in left if left[name] != undisturbed[name]}
    assert differing <= set(may_differ)
    assert litter(work_tree) == []
    status = work_tree.status().splitlines()
    changed = {line[3:] for line in status if not line[3:].startswith("metrics/costs/")}
    assert changed <= {"dvc.lock", "metrics/deploy.json", *may_differ}  # times, and their hashes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage(stage, way, killer, undisturbed, attempt, draw):
    whom, number = WAYS[way]
    at = choose_moment(draw)
    attempt(f"kill {way}", f"{stage} at {at}")
    command = ("dvc", "repro", "--no-run-cache", "--force", "--single-item", stage)
    killer.run(command, stage=STAGES[stage], at=at, whom=whom, number=number)
    go_on(killer, command)
    assert_as_undisturbed(
        killer.work_tree, undisturbed, {CARD} if stage == "export_student" else ()
    )
    # The card of an exported student has its speed, and so the report of it.
    assert killer.work_tree.changed_stages() <= {"summarize"}


@pytest.mark.parametrize("number", range(4))
def test_a_whole_repro(number, killer, undisturbed, attempt, draw):
    stage, at = draw.choice(sorted(STAGES)), choose_moment(draw)
    attempt("kill dvc repro of everything", f"{stage} at {at}")
    command = ("dvc", "repro", "--no-run-cache", "--force")
    killer.run(command, stage=STAGES[stage], at=at, whom="group", number=signal.SIGKILL)
    killer.work_tree.run(*command)
    assert_as_undisturbed(killer.work_tree, undisturbed, OF_SPEED)
    assert killer.work_tree.changed_stages() == set()


@pytest.mark.parametrize("number", range(4))
def test_a_temporary_experiment(number, killer, undisturbed, attempt, draw):
    stage, at = draw.choice(("distill_exp2", "distill_exp3")), choose_moment(draw)
    attempt("kill dvc exp run --temp", f"{stage} at {at}")
    work_tree = killer.work_tree
    command = ("dvc", "exp", "run", "--temp", "-S", "feature_weight=0.3", "-n", "tried")
    killer.run(command, stage=STAGES[stage], at=at, whom="group", number=signal.SIGKILL)
    work_tree.run(*command)
    assert_as_undisturbed(work_tree, undisturbed)
    assert work_tree.changed_stages() == set()
    assert "tried" in work_tree.dvc("exp", "list", "--name-only")
    killer.note.unlink()
    # What another clone computes that nobody disturbed is the same.
    other = work_tree.copy(work_tree.root.parent / "other")
    other.dvc("exp", "remove", "tried")
    other.dvc("exp", "run", "--temp", "-f", "-S", "feature_weight=0.3", "-n", "tried")
    for method in ("exp2", "exp3"):
        name = f"metrics/seeds/{method}.json"
        one, two = (
            tree.run("git", "show", f"{exp_commit(tree)}:{name}") for tree in (work_tree, other)
        )
        assert one == two


@pytest.mark.parametrize("number", range(3))
def test_a_queues_worker(number, killer, undisturbed, attempt, draw):
    stage, at = draw.choice(("distill_exp2", "distill_exp3")), choose_moment(draw)
    attempt("kill a queue's worker", f"{stage} at {at}")
    work_tree = killer.work_tree
    queue = ("exp", "run", "--queue", "-S", "feature_weight=0.3", "-n", "tried")
    work_tree.dvc(*queue)
    command = ("dvc", "queue", "start", "-j", "1")
    killer.run(command, stage=STAGES[stage], at=at, whom="all", number=signal.SIGKILL)
    # The way out of docs/reliability.md.
    work_tree.dvc(*queue[:-1], "again")
    work_tree.dvc("queue", "start", "-j", "1")
    status = wait_for_the_queue(work_tree)
    assert "Success" in status, work_tree.start_and_wait("dvc", "queue", "logs", "tried").stdout
    assert_as_undisturbed(work_tree, undisturbed)
    assert work_tree.changed_stages() == set()


def wait_for_the_queue(work_tree):
    """Return what the queue says, as soon as its one experiment has ended."""
    for _ in range(240):
        if re.search("Success|Failed", status := work_tree.dvc("queue", "status")):
            break
        time.sleep(0.5)
    return status


def exp_commit(work_tree):
    (line,) = [
        line
        for line in work_tree.run("git", "for-each-ref", "refs/exps").splitlines()
        if line.endswith("/tried")
    ]
    return line.split()[0]
