"""A user's mistake ends the pipeline at its first stage, in one line, with nothing left behind."""

import pytest
import yaml

from stages import check_inputs, entry, prepare_data
from stages.entry import run_stage
from tests.helpers.work_tree import stages_in


def test_a_mistake_stops_an_experiment_at_its_first_stage(fresh_work_tree, tmp_path):
    """An ignored archive lies only in the main work tree; `--temp` must find it there."""
    work_tree = fresh_work_tree.copy(tmp_path / "work")
    archive = work_tree.root / "data" / "raw" / "mine.tar"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"not a tar archive")
    override = ("-S", "dataset=data/raw/mine.tar")
    output = work_tree.dvc("exp", "run", "--temp", *override, status=None)
    assert "error: " in output
    assert "mine.tar: the archive is damaged or cut short" in output
    assert "Traceback" not in output
    assert stages_in(output) == ["check_inputs"]
    assert work_tree.status() == ""


@pytest.fixture
def refusal(tiny_values, tmp_path, monkeypatch, capsys):
    """Return a function that runs a stage with a wrong value; returns what it says."""

    def run(stage, key, value):
        folder = tmp_path / "work"
        folder.mkdir()
        monkeypatch.chdir(folder)
        text = yaml.safe_dump({**tiny_values, key: value})
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit) as stop:
            run_stage(stage.main)
        assert stop.value.code == 1
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert [str(path) for path in files if path.parts[0] != ".scratch"] == ["params.yaml"]
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("alpha", -1, "alpha: got -1"),
        ("dataset", "no/such/folder", "dataset: got 'no/such/folder'"),
        ("teacher_checkpoint", "gone.pt", "teacher_checkpoint: got 'gone.pt'"),
        ("teacher", "efficientnet_b00", "did you mean efficientnet_b0"),
        ("student", "mobilenetv3_smal_100", "did you mean mobilenetv3_small_100"),
    ],
)
def test_wrong_values_end_a_stage_in_one_line(key, value, message, refusal):
    said = refusal(check_inputs, key, value)
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("key", ["teacher_checkpoint", "student_checkpoint"])
def test_weights_that_a_stage_writes_itself_are_refused(key, refusal, monkeypatch):
    monkeypatch.setattr(entry, "check_paths", lambda params: params)  # they are there
    said = refusal(check_inputs, key, "models/teacher.safetensors")
    assert said == (
        f"error: {key}: got models/teacher.safetensors, in which stages of the pipeline write, and "
        "remove what is there; allowed: a place outside, such as data/raw\n"
    )


def test_failed_preparation_leaves_no_output(refusal, tmp_path):
    for number in range(6):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    assert "a/0.png is not an image" in refusal(prepare_data, "dataset", str(tmp_path / "data"))
