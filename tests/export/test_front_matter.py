"""What the Hugging Face Hub reads of a card, read back by its own library."""

import dataclasses

import pytest
import yaml
from huggingface_hub import ModelCard

from distillation.export.front_matter import add_front_matter, hub_datasets


@pytest.fixture
def read(exported, digits, tmp_path):
    def build(**changes):
        data = dataclasses.replace(digits, **changes)
        path = tmp_path / "README.md"
        text = add_front_matter("# A card\n\n---\n\nend\n", exported.deploy, data=data)
        path.write_text(text, encoding="utf-8")
        return ModelCard.load(path)

    return build


def test_the_hubs_library_reads_what_was_measured(read, exported):
    card, student = read(), exported.deploy["models"]["student"]
    data = card.data
    assert (data.library_name, data.pipeline_tag) == ("timm", "image-classification")
    assert (data.license, data.datasets) == ("unknown", None)
    assert {"image-classification", "timm", "onnx"} <= set(data.tags)
    accuracy, f1 = data.eval_results
    assert data.model_name == "test_resnet"
    assert (accuracy.metric_type, accuracy.metric_name) == ("accuracy", "Accuracy (n = 359)")
    assert accuracy.metric_value == pytest.approx(student["acc"] / 100, abs=1e-6)
    assert (f1.metric_type, f1.metric_value) == ("f1", student["f1"])
    assert f1.metric_args == {"average": "macro"}
    for result in (accuracy, f1):
        assert (result.dataset_name, result.dataset_split) == ("digits (scikit-learn)", "test")
        assert (result.task_type, result.dataset_type) == ("image-classification", "image-folder")
    assert card.text == "\n# A card\n\n---\n\nend\n"
    # Written again, it is the same card.
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()


@pytest.mark.parametrize(
    "source",
    [
        'image folder "a: b" # c',
        "image folder - x: [1, {2}]",
        "image folder 'q'\n---\nlicense: mit",
        "image folder \u2028 \x85 äöü 日本 🦊 \\n %YAML",
        "image folder {{ card_data }} & *anchor !tag",
    ],
)
def test_names_from_users_stay_names(read, source):
    card = read(source=source)
    expected = " ".join(source.split())
    assert [result.dataset_name for result in card.data.eval_results] == [expected] * 2
    assert (card.data.license, card.data.datasets) == ("unknown", None)
    front = str(card).split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(front)["library_name"] == "timm"


def test_a_data_set_of_the_hub_is_named(read):
    # A copy has other pixels, or fewer images: it is derived from that set, and no result on it.
    for source, measured in (
        ("CIFAR-10", "uoft-cs/cifar10"),
        ("CIFAR-10 (JPEG copy)", "image-folder"),
    ):
        card = read(source=source)
        assert card.data.datasets == ["uoft-cs/cifar10"]
        assert {result.dataset_type for result in card.data.eval_results} == {measured}
    assert hub_datasets("CIFAR-10") == ["uoft-cs/cifar10"]
    assert hub_datasets("image folder CIFAR-10") == hub_datasets("CIFAR-100") == []
