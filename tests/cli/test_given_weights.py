"""What users bring: a teacher they keep, an ImageNet checkpoint, other pairs of models."""

import dataclasses
import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import yaml
from PIL import Image

from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.cli import train as cli
from distillation.cli.pipeline import run_pipeline, write_summary
from distillation.models.creation import _log_once
from distillation.models.info import ModelInfo
from stages import export_student

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path, tiny_values, monkeypatch, caplog):
    """Give a tiny parameter file, in a working directory that holds nothing else."""
    _log_once.cache_clear()
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    text = yaml.safe_dump({**tiny_values, "epochs": 1})
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def run(*arguments):
    """Run on the CPU, whatever the machine has."""
    return cli.main([*arguments, "--device", "cpu"])


def teacher_acc(name="results.json"):
    return json.loads(Path(name).read_text(encoding="utf-8"))["baseline"]["teacher"]["acc"]


# A teacher that was kept


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_values):
    """Return the weights of a teacher that this project trained, and its test accuracy."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        text = yaml.safe_dump({**tiny_values, "epochs": 0, "teacher_epochs": 2})
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        options = ["--save-teacher", "teacher.safetensors", "--results-path", "results.json"]
        assert run("--experiment", "control", *options) == 0
        return folder / "teacher.safetensors", teacher_acc()


def test_a_kept_teacher_is_as_good_when_it_is_used(kept):
    path, acc = kept
    options = ["--teacher-checkpoint", str(path), "--results-path", "results.json"]
    assert run("--experiment", "1", "--teacher-stem-stride", "null", *options) == 0
    assert teacher_acc() == acc > 40


def test_a_kept_teacher_under_another_stem_or_size_is_refused_before_any_work(kept, capsys):
    path, _ = kept
    assert run("--teacher-checkpoint", str(path), "--teacher-stem-stride", "2") == 1
    message = capsys.readouterr().err
    assert f"teacher_checkpoint {path}: was trained with a stem stride of 1, but " in message
    assert "teacher_stem_stride is 2; allowed: teacher_stem_stride=1" in message
    assert run("--teacher-checkpoint", str(path), "--image-size", "16") == 1
    message = capsys.readouterr().err
    assert "was trained on images of 8 pixels, but image_size is 16" in message


def turn_classes(path, folder):
    """Write weights whose rows are turned by one class, with nothing said of it."""
    state = safetensors.torch.load_file(path)
    head = {key: state[key].roll(1, dims=0) for key in ("classifier.weight", "classifier.bias")}
    safetensors.torch.save_file({**state, **head}, folder / "turned.safetensors")
    return folder / "turned.safetensors"


def test_a_teacher_that_guesses_stops_the_run_unless_that_is_wanted(kept, folder, capsys, caplog):
    path = turn_classes(kept[0], folder)
    options = ["--experiment", "1", "--teacher-checkpoint", str(path)]
    assert run(*options) == 1
    message = capsys.readouterr().err
    assert "teacher: test_efficientnet with the given weights is right on " in message
    assert (
        "(mean over the classes), where guessing gives 10.0 %; likely causes: another " in message
    )
    for cause in ("teacher_stem_stride", "teacher_class_names", "normalisation", "image_size"):
        assert cause in message
    assert message.rstrip().endswith("or allow_poor_teacher=true")
    assert "exp1 epoch" not in caplog.text
    assert run(*options, "--allow-poor-teacher", "true") == 0
    assert "WARNING: teacher: test_efficientnet with the given weights is right" in caplog.text


def test_the_order_of_a_checkpoints_classes_can_be_given(kept, folder):
    path, names = turn_classes(kept[0], folder), folder / "names.txt"
    names.write_text("".join(f"{digit}\n" for digit in (9, *range(9))))
    options = ["--teacher-checkpoint", str(path), "--teacher-class-names", str(names)]
    assert run("--experiment", "1", *options, "--results-path", "results.json") == 0
    assert teacher_acc() == kept[1]


# An ImageNet checkpoint on a folder of photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Return a folder of pictures larger than thumbnails, of every class some."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for index, name in enumerate(("cat", "dog", "owl")):
        (folder / name).mkdir()
        for number in range(12):
            pixels = generator.integers(80 * index, 80 * index + 90, (6, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize((120 + number, 90), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Return a file and a folder of weights for 1,000 classes, as timm writes them."""
    folder = tmp_path_factory.mktemp("imagenet")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=1000)
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, folder / "resnet.pth.tar")
    timm.models.save_for_hf(net, folder / "resnet", safe_serialization=True)
    return folder


def photograph_options(photographs, **others):
    options = {
        "dataset": photographs, "image_size": 64, "teacher": "test_resnet",
        "student": "test_efficientnet", "teacher_stem_stride": "null",
        "student_stem_stride": "null", "teacher_epochs": 1, "experiment": 1,
        "results_path": "results.json", **others,
    }  # fmt: skip
    return [part for k, v in options.items() for part in (f"--{k.replace('_', '-')}", str(v))]


def test_an_imagenet_checkpoint_starts_a_teacher_on_photographs(photographs, imagenet, caplog):
    path = imagenet / "resnet.pth.tar"
    assert run(*photograph_options(photographs, teacher_checkpoint=path)) == 0
    message = (
        "fc.weight is for 1000 classes, the data set has 3; the body is taken, the head is new"
    )
    assert f"teacher_checkpoint {path}: {message}" in caplog.text


def test_and_so_does_a_local_folder(photographs, imagenet, caplog):
    name = f"local-dir:{imagenet / 'resnet'}"
    options = photograph_options(photographs, teacher=name, teacher_pretrained="true")
    assert run(*options) == 0
    assert "the data set has 3; the body is taken, the head is new" in caplog.text
    results = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert results["baseline"]["teacher"]["model"] == "test_resnet"


def test_a_head_for_other_classes_is_refused_before_images_are_read(
    photographs, imagenet, capsys, caplog
):
    path = imagenet / "resnet.pth.tar"
    options = photograph_options(photographs, teacher_checkpoint=path, teacher_epochs=0)
    assert run(*options) == 1
    assert (
        f"teacher_checkpoint {path}: fc.weight is for 1000 classes, the data set has 3; allowed: a "
        "checkpoint trained on the data set's classes, or teacher_epochs above 0, which trains a "
        "new head"
    ) in capsys.readouterr().err
    assert "training images" not in caplog.text


def test_a_student_that_cannot_be_had_is_named_before_the_teacher_is_trained(
    monkeypatch, tmp_path, capsys, caplog
):
    # The Hub's client reads its environment when it is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    options = ["--student-pretrained", "true", "--student", "test_vit", "--image-size", "32"]
    assert run(*options, "--student-stem-stride", "null") == 1
    assert "student_pretrained: the published weights of test_vit cannot be had" in (
        capsys.readouterr().err
    )
    assert "teacher epoch" not in caplog.text


# Other pairs of models


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("test_vit", "test_efficientnet"),
        pytest.param("test_efficientnet", "test_vit", marks=pytest.mark.full),
    ],
)
def test_a_transformer_and_a_convolutional_network_through_the_whole_pipeline(
    folder, teacher, student
):
    strides = {
        f"{role}_stem_stride": None if name == "test_vit" else 1
        for role, name in (("teacher", teacher), ("student", student))
    }
    params = load_params(image_size=32, teacher=teacher, student=student, crop_padding=2, **strides)
    workspace = Workspace(root=folder, scratch=None, device_name="cpu")
    methods = ["control", "exp1", "exp2", "exp3"]
    run_pipeline(params, workspace, methods)
    export_student.main(params, workspace)
    write_summary(params, workspace, methods)
    deploy = json.loads((folder / "metrics/deploy.json").read_text(encoding="utf-8"))
    models = {name: values["model"] for name, values in deploy["models"].items()}
    assert models == {"teacher": teacher, "student": student, "student_int8": student}
    assert deploy["agreement"]["num_images"] == 359
    rows = json.loads((folder / "metrics/summary.json").read_text(encoding="utf-8"))
    assert [row["exp"] for row in rows["summary"]] == methods
    with safetensors.safe_open(workspace.weights("exp1"), framework="pt") as file:
        info = ModelInfo.from_metadata(file.metadata())
    stride = strides["student_stem_stride"] or "own"
    assert dataclasses.replace(info, mean=None, std=None, class_names=None) == ModelInfo(
        architecture=student, stem_stride=stride, image_size=32
    )
