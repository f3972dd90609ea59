"""What the stages leave where every method trains with two seeds."""

import csv
import re

import pytest
from safetensors.torch import load_file

from distillation.results.intervals import paired_difference
from distillation.runs.predictions import load_predictions
from distillation.runs.seeds import combine_seeds

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
    assert re.search(r"\| exp3 \| .* ± .* \[.*, .*\] \| 2 \|", table)
    measures = two_seeds.metrics("measures")
    assert {measures[method]["accuracy"]["n"] for method in METHODS} == {2}
    assert measures["teacher"]["accuracy"]["n"] == 1
