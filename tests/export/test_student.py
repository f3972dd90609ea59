"""The files of a student, and the numbers that stand beside them."""

import json
import re
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from distillation.export import student as student_module
from distillation.export.agreement import compare_logits
from distillation.export.errors import ExportError
from distillation.export.onnx_file import export_onnx, set_metadata
from distillation.export.quantization import quantize
from distillation.export.sessions import load_exported
from distillation.export.student import Teacher, export_student, measure, torch_logits
from distillation.models.classifier import save_weights

FILES = {"student.onnx", "student-int8.onnx", "model.safetensors", "config.json"}


def test_numbers_are_those_of_the_files(exported, digits):
    test = digits.test
    for name, file in (("student", "student.onnx"), ("student_int8", "student-int8.onnx")):
        path = exported.directory / file
        values = exported.deploy["models"][name]
        logits = load_exported(path).predict_logits(test.images)
        accuracy = 100 * (logits.argmax(axis=1) == test.labels).mean()
        assert values["acc"] == pytest.approx(accuracy, abs=1e-4)
        assert values["acc_low"] < values["acc"] < values["acc_high"]
        assert values["file_bytes"] == path.stat().st_size
        metadata = load_exported(path).metadata
        assert float(metadata["test_accuracy_percent"]) == values["acc"]
        if name == "student":
            found = compare_logits(torch_logits(exported.student, test.images), logits)
            assert exported.deploy["agreement"] == found.summary()
            assert found.num_images == len(test) == 359


def test_deploy_has_what_the_report_reads(exported):
    deploy = exported.deploy
    assert json.loads(json.dumps(deploy, allow_nan=False)) == deploy
    assert (deploy["device"], deploy["num_threads"]) == ("cpu", 1)
    assert (deploy["method"], deploy["seed"]) == ("exp1", 1)
    assert deploy["data"] == "digits (scikit-learn)"
    assert list(deploy["models"]) == ["teacher", "student", "student_int8"]
    for values in deploy["models"].values():
        for key in ("parameters", "multiply_adds", "file_bytes", "throughput_batch_size"):
            assert values[key] > 0
            assert isinstance(values[key], int)
        assert 0 < values["latency_ms_p50"] <= values["latency_ms_p95"]
        assert values["throughput_images_per_second"] > 0
        assert values["runtime"] == "onnxruntime"
    assert deploy["models"]["teacher"]["acc"] == 90.0
    assert deploy["agreement"]["same_predictions"] + deploy["agreement"]["ties"] == 359


def test_metadata_say_what_it_is_and_where_it_comes_from(exported, digits):
    metadata = load_exported(exported.directory / "student.onnx").metadata
    assert json.loads(metadata["class_names"]) == list(digits.class_names)
    assert metadata["architecture"] == "test_resnet"
    assert (metadata["method"], metadata["seed"]) == ("exp1", "1")
    assert (metadata["best_epoch"], metadata["epochs"]) == ("2", "3")
    assert metadata["image_size"] == "16"
    assert metadata["input"] == "images: uint8 (batch, 3, 16, 16), RGB, 0 to 255, not normalised"
    assert metadata["data"] == "digits (scikit-learn)"
    assert metadata["data_sha256"] == "none: the set comes with a library"
    assert metadata["prepared_data_fingerprint"] == digits.fingerprint
    assert set(json.loads(metadata["versions"])) >= {"torch", "timm", "onnx", "onnxruntime"}
    kinds = [
        load_exported(exported.directory / name).metadata["precision"]
        for name in ("student-int8.onnx", "student.onnx")
    ]
    assert [kind.partition(",")[0] for kind in kinds] == ["int8", "float32"]


def test_weights_are_the_students_alone_in_the_format_of_an_method(exported, make_model, tmp_path):
    path = exported.directory / "model.safetensors"
    save_weights(exported.student, tmp_path / "w.safetensors", class_names=tuple("0123456789"))
    assert (tmp_path / "w.safetensors").read_bytes() == path.read_bytes()
    own = exported.student.net.state_dict()
    again = make_model(seed=9, checkpoint=path).net.state_dict()
    assert again.keys() == own.keys()
    assert all(torch.equal(again[key], value) for key, value in own.items())


def test_nothing_else_is_written(exported):
    assert {path.name for path in exported.directory.iterdir()} == FILES


def call(exported, digits, directory, teacher):
    return export_student(
        exported.student,
        directory,
        selection=exported.selection,
        teacher=Teacher(model=teacher, acc=90.0),
        data=digits,
        num_threads=1,
    )


def tampered(model, path, **options):
    """Export, and exchange the biases of two classes in the file."""
    export_onnx(model, path, **options)
    proto = onnx.load(path)
    bias = next(one for one in proto.graph.initializer if list(one.dims) == [10])
    values = onnx.numpy_helper.to_array(bias) + np.linspace(0, 5, 10, dtype=np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(proto, path)
    set_metadata(path, options["metadata"])


def test_what_onnx_makes_something_else_of_is_not_shipped_and_the_rest_is(
    exported, digits, make_model, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(student_module, "export_onnx", tampered)
    deploy = call(exported, digits, tmp_path, make_model("test_efficientnet"))
    teacher, why = sorted(deploy["remarks"])
    assert teacher.startswith("The teacher is not measured: test_efficientnet: ONNX Runtime and")
    start = "There is no student.onnx and no student-int8.onnx: "
    reason = why.removeprefix(start)
    assert reason.startswith("test_resnet: ONNX Runtime and PyTorch disagree on ")
    assert why in caplog.text
    for name in ("student.onnx", "student-int8.onnx"):
        with pytest.raises(ExportError, match=re.escape(f"{name}: no ONNX file: {reason}")):
            load_exported(tmp_path / name)
    weights = (exported.directory / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert list(deploy["files"]) == ["model.safetensors"]
    assert deploy["agreement"] is None
    (student,) = deploy["models"].values()
    known = exported.deploy["models"]["student"]
    for key in ("model", "parameters", "multiply_adds", "acc", "acc_low", "acc_high", "f1"):
        assert student[key] == known[key]
    assert student["file_bytes"] == len(weights)
    assert "latency_ms_p50" not in student
    assert json.loads(json.dumps(deploy, allow_nan=False)) == deploy


def not_finite(source, target, *, images):
    """Quantise, and make every scale no number."""
    quantize(source, target, images=images)
    proto = onnx.load(target)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    for one in proto.graph.initializer:
        if one.data_type == onnx.TensorProto.FLOAT:
            values = np.full_like(onnx.numpy_helper.to_array(one), np.nan)
            one.CopyFrom(onnx.numpy_helper.from_array(values, one.name))
    onnx.save(proto, target)
    set_metadata(target, metadata)


def refused(source, target, *, images):
    raise ExportError("test_resnet cannot be brought to 8 bits: no")


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (refused, "test_resnet cannot be brought to 8 bits: no"),
        (not_finite, "test_resnet in 8 bits has logits that are not finite"),
    ],
)
def test_a_student_that_8_bits_cannot_hold_is_shipped_without(
    exported, digits, make_model, tmp_path, monkeypatch, quantizer, reason
):
    monkeypatch.setattr(student_module, "quantize", quantizer)
    deploy = call(exported, digits, tmp_path, make_model("test_efficientnet"))
    assert deploy["remarks"] == [f"There is no student-int8.onnx: {reason}"]
    assert list(deploy["models"]) == ["teacher", "student"]
    assert list(deploy["files"]) == ["student.onnx", "model.safetensors"]
    assert (tmp_path / "student-int8.onnx").read_text() == f"no ONNX file: {reason}\n"
    whole = (exported.directory / "student.onnx").read_bytes()
    assert (tmp_path / "student.onnx").read_bytes() == whole


def test_a_teacher_that_cannot_be_exported_is_left_out_and_that_is_said(
    exported, digits, make_model, tmp_path, monkeypatch, caplog
):
    def refuse_teacher(model, path, **options):
        if model.name == "test_efficientnet":
            raise ExportError("test_efficientnet cannot be expressed in ONNX: no")
        export_onnx(model, path, **options)

    monkeypatch.setattr(student_module, "export_onnx", refuse_teacher)
    deploy = call(exported, digits, tmp_path, make_model("test_efficientnet"))
    assert list(deploy["models"]) == ["student", "student_int8"]
    assert deploy["remarks"][0] == (
        "The teacher is not measured: test_efficientnet cannot be expressed in ONNX: no"
    )
    assert deploy["remarks"][0] in caplog.text
    # The same student makes the same files, whatever is measured.
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (exported.directory / name).read_bytes()


def raising(error):
    def fail(*given, **options):
        raise error

    return fail


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("place", ["export_onnx", "load_exported", "quantize"])
@pytest.mark.parametrize("cause", [MemoryError(), OSError(5, "Input/output error")])
def test_what_the_machine_lacks_is_no_reason_to_ship_without(
    exported, digits, make_model, tmp_path, monkeypatch, place, cause
):
    error = chained(ExportError("damaged"), cause) if place == "load_exported" else cause
    monkeypatch.setattr(student_module, place, raising(error))
    with pytest.raises(type(cause)) as caught:
        call(exported, digits, tmp_path, make_model("test_efficientnet"))
    assert caught.value is cause


def test_a_graph_that_onnx_runtime_does_not_load_is_the_models_fault_and_no_damage(
    exported, digits, make_model, tmp_path, monkeypatch
):
    error = chained(ExportError(f"{tmp_path}: damaged, git checkout"), ValueError("no kernel"))
    monkeypatch.setattr(student_module, "load_exported", raising(error))
    deploy = call(exported, digits, tmp_path, make_model("test_efficientnet"))
    assert deploy["remarks"] == [
        "There is no student.onnx and no student-int8.onnx: ONNX Runtime cannot load "
        "student.onnx: no kernel",
        "The teacher is not measured: ONNX Runtime cannot load teacher.onnx: no kernel",
    ]


def test_a_teacher_too_large_to_be_exported_is_left_out(
    exported, digits, make_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(student_module, "_export_teacher", raising(MemoryError()))
    deploy = call(exported, digits, tmp_path, make_model("test_efficientnet"))
    assert deploy["remarks"] == ["The teacher is not measured: memory ran out."]
    assert list(deploy["models"]) == ["student", "student_int8"]


def test_measures_of_logits():
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    found = measure(logits, labels)
    assert found["acc"] == 87.5
    # Wilson's interval for 7 of 8.
    assert found["acc_low"] == pytest.approx(52.91, abs=0.01)
    assert found["acc_high"] == pytest.approx(97.76, abs=0.01)
    assert Counter(map(type, found.values())) == {float: 4}
