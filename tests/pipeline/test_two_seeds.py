"""What the stages leave where every method trains with two seeds."""

import csv
import re

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.results.intervals import paired_difference
from distillation.runs.predictions import load_predictions
from distillation.runs.seeds import combine_seeds
from stages import train_control

METHODS = ["control", "exp3"]


def test_metrics_of_two_seeds_hold_both(two_seeds, pipeline):
    for method in METHODS:
        metrics, trainings = (
            two_seeds.metrics(method),
            two_seeds.metrics(f"seeds/{method}")["seeds"],
        )
        assert [training["seed"] for training in trainings] == [0, 1]
        assert metrics["n"] == 2
        assert metrics == {**combine_seeds(trainings), "data": "digits (scikit-learn)"}
        assert metrics["after_acc_std"] > 0
        assert trainings[0]["after_loss"] != trainings[1]["after_loss"]
        predictions = load_predictions(two_seeds.root / f"data/predictions/{method}.npz")
        assert predictions.seeds.tolist() == [0, 1]
        assert predictions.logits.shape == (2, 359, 10)
        best = 100 * (predictions.logits.argmax(axis=2) == predictions.labels).mean(axis=1)
        assert best == pytest.approx([training["best_acc"] for training in trainings])
        weights = load_file(two_seeds.root / f"models/students/{method}.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
        for seed in (0, 1):
            path = f"metrics/live/{method}/seed{seed}/plots/metrics/validation/acc.tsv"
            with (two_seeds.root / path).open(encoding="utf-8") as file:
                assert len(list(csv.DictReader(file, delimiter="\t"))) == 2
        # The first seed's training is the one it is alone.
        assert trainings[0] == pipeline.metrics(f"seeds/{method}")["seeds"][0]


def test_the_summary_of_two_seeds_pairs_them(two_seeds):
    summary = two_seeds.metrics("summary")
    by_method = {
        method: {
            run["seed"]: run["after_acc"] for run in two_seeds.metrics(f"seeds/{method}")["seeds"]
        }
        for method in METHODS
    }
    control, exp3 = summary["summary"]
    assert control["n"] == exp3["n"] == 2
    assert (control["over_control_low"], control["over_control_high"]) == (None, None)
    over = paired_difference(by_method["exp3"], by_method["control"])
    found = [exp3[key] for key in ("acc_over_control", "over_control_low", "over_control_high")]
    assert found == pytest.approx([over.mean, over.low, over.high], abs=1e-4)
    assert not [remark for remark in summary["remarks"] if remark.startswith("One seed")]
    assert [remark for remark in summary["remarks"] if "n = 2" in remark]
    table = (two_seeds.root / "metrics" / "summary.md").read_text(encoding="utf-8")
    assert re.search(r"\| exp3 \| .* ± .* \[.*, .*\], p = .* \| 2 \|", table)
    measures = two_seeds.metrics("measures")
    assert {measures[method]["accuracy"]["n"] for method in METHODS} == {2}
    assert measures["teacher"]["accuracy"]["n"] == 1


def test_a_stage_says_what_is_left_of_all_its_seeds_and_tells_a_tracker(
    work_tree, caplog, monkeypatch
):
    caplog.set_level("INFO")
    monkeypatch.setattr("distillation.base.progress.LINE_SECONDS", 0.0)
    monkeypatch.setenv("DISTILLATION_TRACKERS", "tensorboard")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    root = work_tree.root
    workspace = Workspace(root=root, scratch=root / ".scratch", device_name="cpu")
    train_control.main(load_params(root / "params.yaml", seeds=[0, 1]), workspace)
    lines = re.findall(
        r"control seed (\d) epoch (\d)/2: (\d+) of (\d+) steps \((\d+) %\), about (\S+) s left",
        caplog.text,
    )
    seeds, epochs, done, total, percent, left = zip(*lines, strict=True)
    assert len(lines) == int(total[0]) == 44
    assert list(map(int, done)) == list(range(1, 45))
    assert "".join(seeds) == "0" * 22 + "1" * 22
    assert "".join(epochs) == ("1" * 11 + "2" * 11) * 2
    assert (percent[-1], left[-1]) == ("100", "0.0")

    for seed in (0, 1):
        folder = root / "trackers" / "tensorboard" / "workspace" / f"control-seed{seed}"
        events = EventAccumulator(str(folder))
        events.Reload()
        live = workspace.live("control") / f"seed{seed}" / "plots" / "metrics"
        for name in events.Tags()["scalars"]:
            with (live / f"{name}.tsv").open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
            curve = {int(row["step"]): float(row[name.split("/")[-1]]) for row in rows}
            found = {event.step: event.value for event in events.Scalars(name)}
            assert found == pytest.approx(curve, rel=1e-6)
        assert len(events.Tags()["scalars"]) == len(list(live.rglob("*.tsv"))) == 6
    assert work_tree.status().count("trackers") == 0
