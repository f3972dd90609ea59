"""Synthetic runs of any number of classes, methods and seeds, written as the stages write them."""

import json
import zlib

import numpy as np
import pytest
from matplotlib.figure import Figure

from distillation.base.methods import sort_methods
from distillation.base.workspace import Workspace
from distillation.data.balance import measure_balance
from distillation.data.prepared import PreparedData, Split, save_prepared
from distillation.report.inputs import read_inputs
from distillation.results.outcome import read_outcome
from distillation.runs.predictions import Predictions, top5_accuracy

ENVIRONMENT = {
    "commit": "c0ffee" + 34 * "0",
    "commit_date": "2026-03-01T12:00:00+00:00",
    "uncommitted_changes": False,
    "python": "3.11.9",
    "torch": "2.11.0",
    "device": "cpu",
    "cpu": "A CPU",
    "threads": 2,
}
PARAMETERS = {
    "dataset": "/data/my pictures",
    "seeds": (0, 1),
    "control_epochs": (),
    "alpha": 0.9,
    "compile": "auto",
    "pretrained": False,
    "teacher_pretrained": None,
    "teacher_stem_stride": None,
    "student_stem_stride": None,
    "method_weights": {"dkd": 8.0},
}


class Project:
    """A folder as a finished run leaves it."""

    def __init__(self, root):
        self.root = root
        self.metrics, self.predictions = root / "metrics", root / "data" / "predictions"
        self.prepared = root / "data" / "prepared"

    def read(self, *methods, parameters=PARAMETERS, is_whole=False):
        workspace = Workspace(root=self.root)
        outcome = read_outcome(workspace, sort_methods(methods))
        return read_inputs(workspace, outcome, parameters, is_whole=is_whole)

    def write(self, name, content):
        path = self.metrics / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")

    def add_method(self, name, *, skill, seeds=(0, 1), epochs=3, terms=("loss",), labels, classes):
        """Write metrics and predictions of a method whose logits favour the label by `skill`."""
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        shape = (len(seeds), len(labels), len(classes))
        logits = generator.normal(size=shape).astype(np.float32)
        logits[:, np.arange(len(labels)), labels] += skill
        Predictions(
            logits=logits,
            seeds=np.array(seeds),
            labels=labels,
            class_names=tuple(classes),
        ).save(self.predictions / f"{name}.npz")
        records = []
        for place, seed in enumerate(seeds):
            acc = 100.0 * float((logits[place].argmax(axis=1) == labels).mean())
            history = [
                {
                    "epoch": epoch,
                    "terms": {
                        term: 2.0 / epoch + 0.1 * number for number, term in enumerate(terms)
                    },
                    "validation": {"loss": 1.5 / epoch, "acc": acc - 9.0 / epoch, "f1": 0.5},
                    "learning_rate": 0.01,
                }
                for epoch in range(1, epochs + 1)
            ]
            validation_acc = history[-1]["validation"]["acc"] if history else None
            record = make_record(seed, acc, epochs, validation_acc) | {"history": history}
            if (top5 := top5_accuracy(logits[place], labels)) is not None:
                record["best_top5"] = top5
            records.append(record)
        self.write(
            f"seeds/{name}.json", {"data": "shapes", "environment": ENVIRONMENT, "seeds": records}
        )
        for name_of_cost in (name, "targets"):
            self.write(f"costs/{name_of_cost}.json", {"unit": "core", "seconds": [60.0 * epochs]})


def make_record(seed, acc, epochs=3, validation_acc=80.0):
    return {
        "seed": seed,
        "before_acc": 10.0,
        "after_acc": acc,
        "before_f1": 0.05,
        "after_f1": acc / 100,
        "before_loss": 2.3,
        "after_loss": 0.6,
        "best_acc": acc,
        "best_f1": acc / 100,
        "best_ece": 0.05,
        "best_epoch": epochs,
        "epochs": epochs,
        "validation_acc": validation_acc,
        "teacher_outputs": "stored",
    }


def make_deploy(method):
    def model(scale, acc):
        return {
            "parameters": int(4e6 * scale),
            "multiply_adds": int(3e7 * scale),
            "file_bytes": int(1.6e7 * scale),
            "acc": acc,
            "latency_ms_p50": 9.0 * scale,
            "latency_ms_p95": 11.0 * scale,
            "throughput_images_per_second": 900.0 / scale,
            "throughput_batch_size": 128,
            "runtime": "onnxruntime",
        }

    return {
        "device": "cpu",
        "num_threads": 2,
        "models": {
            "teacher": model(1.0, 93.0),
            "student": model(0.4, 88.0),
            "student_int8": model(0.1, 87.5),
        },
        "method": method,
        "seed": 0,
        "agreement": {},
        "data": "shapes",
    }


def _make_project(
    root,
    *,
    methods=("control", "exp1", "exp2", "exp3"),
    classes=("circle", "square", "star"),
    seeds=(0, 1),
    num_test=240,
    image_size=8,
    epochs=3,
    deploy=True,
    test_labels=None,
):
    """Write a finished run; later methods are better."""
    project = Project(root)
    generator = np.random.default_rng(0)

    def split(num, labels=None):
        labels = np.arange(num, dtype=np.int64) % len(classes) if labels is None else labels
        tones = np.linspace(40, 215, len(classes))[labels][:, None, None, None]
        noise = generator.normal(0, 25, (num, image_size, image_size, 3))
        return Split(images=np.clip(tones + noise, 0, 255).astype(np.uint8), labels=labels)

    data = PreparedData(
        train=split(4 * len(classes)),
        validation=split(2 * len(classes)),
        test=split(num_test) if test_labels is None else split(len(test_labels), test_labels),
        labeled=np.arange(2 * len(classes)),
        class_names=tuple(classes),
        source="shapes",
        view_seed=0,
        provenance={"source": "shapes", "file": "shapes.zip", "sha256": "ab" * 32},
    )
    save_prepared(data, project.prepared)
    common = {"labels": data.test.labels, "classes": classes, "epochs": epochs}
    project.add_method("teacher", skill=4.0, seeds=(0,), **common)
    for place, method in enumerate(methods):
        terms = ("loss",) if method == "control" else ("loss", "label", "logit", "feature")
        project.add_method(method, skill=1.8 + 0.25 * place, seeds=seeds, terms=terms, **common)
    teacher = {"model": "big", "loss": 0.2, "acc": 93.0, "f1": 0.93}
    project.write(
        "baseline.json",
        {
            "teacher": teacher | {"trained": True, "checkpoint": None},
            "student": {"model": "small", "loss": 2.3, "acc": 10.0, "f1": 0.05},
            "balance": {
                name: measure_balance(getattr(data, name).labels, data.class_names).summary()
                for name in ("validation", "test")
            },
            "data": "shapes",
        },
    )
    if deploy:
        project.write("deploy.json", make_deploy(methods[-1]))
    return project


@pytest.fixture(scope="session")
def make_project(tmp_path_factory):
    """Give a function that writes a finished run into a folder of its own."""
    return lambda **settings: _make_project(tmp_path_factory.mktemp("run"), **settings)


@pytest.fixture
def project(make_project):
    """Give a run of four methods, three classes and two seeds."""
    return make_project()


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures of a page empty, which take most of its time, where its text is read."""
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write("<svg></svg>"))
