"""ONNX files say what PyTorch says, hold what is promised and nothing of the machine."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from distillation.export import onnx_file
from distillation.export.agreement import check_agreement, compare_logits
from distillation.export.errors import ExportError
from distillation.export.onnx_file import export_onnx, plain_copy, set_metadata
from distillation.export.sessions import load_exported
from distillation.export.student import torch_logits
from distillation.models.layers import SmallMapConv2d

pytestmark = pytest.mark.slow

METADATA = {"class_names": json.dumps([str(k) for k in range(10)]), "image_size": "16"}


def noise(count, size=16):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write(model, path, *, size=16, **options):
    metadata = {**METADATA, "image_size": str(size)}
    export_onnx(model, path, image_size=size, metadata=metadata, **options)
    return path


@pytest.fixture(scope="module")
def written(make_model, tmp_path_factory):
    """Return the file of a model that tests do not change."""
    return write(make_model(), tmp_path_factory.mktemp("written") / "m.onnx")


@pytest.mark.parametrize("is_shipped", [True, False])
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("test_efficientnet", 16, {}),
        ("test_vit", 32, {}),
        ("mobilenetv3_small_100", 32, {"stem_stride": 1}),
    ],
)
def test_onnx_runtime_says_what_pytorch_says(name, size, options, is_shipped, make_model, tmp_path):
    model = make_model(name, size=size, **options)
    images = noise(40, size)
    path = write(model, tmp_path / "m.onnx", size=size, is_shipped=is_shipped)
    found = load_exported(path).predict_logits(images)
    agreement = compare_logits(torch_logits(model, images), found)
    check_agreement(agreement, name=name)
    assert agreement.num_images == 40
    assert 0 < agreement.largest_logit_difference < agreement.tolerance


def test_a_batch_may_have_any_size(written):
    exported = load_exported(written)
    images = noise(7)
    together = exported.predict_logits(images)
    assert together.shape == (7, 10)
    for size in (1, 3):
        parts = exported.predict_logits(images, batch_size=size)
        np.testing.assert_allclose(parts, together, atol=1e-5)
    assert exported.predict_logits(images[:0]).shape == (0, 10)


def test_equal_weights_give_equal_bytes_and_nothing_of_the_machine(written, make_model, tmp_path):
    first = written.read_bytes()
    assert write(make_model(), tmp_path / "again").read_bytes() == first
    assert write(make_model(seed=1), tmp_path / "other").read_bytes() != first
    for trace in (b"models.py", b"site-packages", b"stack_trace", b"forward"):
        assert trace not in first


def test_a_changed_weight_is_noticed(written, make_model, tmp_path):
    model, images = make_model(), noise(40)
    path = tmp_path / "m.onnx"
    proto = onnx.load(written)
    weight = next(one for one in proto.graph.initializer if one.name.endswith("fc.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, path)
    set_metadata(path, METADATA)
    agreement = compare_logits(
        torch_logits(model, images), load_exported(path).predict_logits(images)
    )
    assert not agreement.agrees
    with pytest.raises(ExportError, match=r"^test_resnet: ONNX Runtime and PyTorch disagree on "):
        check_agreement(agreement, name="test_resnet")


def test_the_model_stays_as_it_is(make_model, tmp_path):
    model = make_model("test_efficientnet").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    write(model, tmp_path / "m.onnx")
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any(isinstance(module, SmallMapConv2d) for module in model.modules())
    plain = plain_copy(model)
    assert not any(isinstance(module, SmallMapConv2d) for module in plain.modules())
    assert not plain.training


def test_the_shipped_file_is_the_present_exporters_and_exporting_is_quiet(
    make_model, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.setattr(onnx_file, "_trace", lambda *_: pytest.fail("the former exporter"))
    with caplog.at_level("INFO"):
        write(make_model(), tmp_path / "m.onnx")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_metadata_is_replaced_and_the_graph_is_not(written, tmp_path):
    path = tmp_path / "m.onnx"
    shutil.copy(written, path)
    images = noise(3)
    before = load_exported(path).predict_logits(images)
    set_metadata(path, {**METADATA, "accuracy": "12.5"})
    metadata = dict(load_exported(path).metadata)
    assert metadata.pop("sha256") != load_exported(written).metadata["sha256"]
    assert metadata == {**METADATA, "accuracy": "12.5"}
    assert np.array_equal(load_exported(path).predict_logits(images), before)


def test_a_model_too_large_for_one_file_is_refused(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_LARGEST_BYTES", 1000)
    with pytest.raises(ExportError, match=r"^test_resnet: its weights have [\d,]+ bytes; allowed:"):
        write(make_model(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_the_former_exporter_cannot_express_is_left_to_the_present(
    make_model, tmp_path, monkeypatch
):
    export, asked = torch.onnx.export, []

    def refuse_former(*arguments, dynamo, **options):
        asked.append(dynamo)
        if not dynamo:
            raise torch.onnx.errors.UnsupportedOperatorError("aten::new", 18, None)
        return export(*arguments, dynamo=True, **options)

    monkeypatch.setattr(torch.onnx, "export", refuse_former)
    path = write(make_model(), tmp_path / "m.onnx", is_shipped=False)
    assert asked == [False, True]
    assert load_exported(path).predict_logits(noise(3)).shape == (3, 10)


def test_a_model_that_onnx_cannot_express_is_named(make_model, tmp_path):
    class Branching(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) if images.sum() > 0 else images.sum((2, 3))

    model = make_model()
    model.net = Branching()
    start = "test_resnet cannot be expressed in ONNX: "
    with pytest.raises(ExportError, match=f"^{start}") as caught:
        write(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    # torch's own words are those of a guide in colours; what is said is what it could not do.
    reason = str(caught.value).removeprefix(start)
    assert "data-dependent" in reason
    assert reason.isprintable()


def test_nothing_of_the_machine_stays_within_a_loop():
    empty = onnx.helper.make_graph([], "body", [], [])
    node = onnx.helper.make_node("If", ["c"], ["d"], then_branch=empty, else_branch=empty)
    body = node.attribute[0].g
    body.node.append(onnx.helper.make_node("Abs", ["a"], ["b"], doc_string="/home/me/model.py"))
    body.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/model.py")
    graph = onnx.helper.make_graph([node], "graph", [], [])
    function = onnx.helper.make_function("d", "f", ["a"], ["b"], [*body.node], [])
    proto = onnx.helper.make_model(graph, functions=[function])
    assert proto.SerializeToString().count(b"/home/me") == 4
    assert b"/home/me" not in onnx_file._without_traces(proto).SerializeToString()
