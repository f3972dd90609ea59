"""The Hub out of reach is a sentence within seconds, and its cache is used."""

import json
import time

import huggingface_hub.constants
import pytest
import timm

from distillation.models.hub import quick_hub_errors
from distillation.models.names import ModelError
from tests.helpers.checkpoints import read, refused, same


def test_the_hub_out_of_reach_is_a_sentence_within_seconds(no_cache):
    start = time.monotonic()
    message = refused("hf-hub:timm/test_resnet.r160_in1k", "whose weights cannot be had")
    assert "http://127.0.0.1:9 does not answer: " in message
    assert message.endswith(
        "allowed: a local file given by teacher_checkpoint or student_checkpoint"
    )
    with (
        pytest.raises(ModelError, match=r"^pretrained: the weights of x cannot be had \(.*answer"),
        quick_hub_errors("pretrained: the weights of x", way_out="set pretrained to false"),
    ):
        timm.create_model("test_resnet", pretrained=True)
    assert time.monotonic() - start < 8
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


class Answer:
    """What the Hub answers with, at once or late."""

    def __init__(self, status_code, seconds=0.0):
        self.status_code, self.seconds = status_code, seconds

    def head(self, *_, **__):
        time.sleep(self.seconds)
        return self


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (Answer(503), "answers with status 503"),
        (Answer(200, seconds=3.0), "does not answer within 0 s"),
    ],
)
def test_a_hub_that_is_slow_or_broken_is_not_waited_for(no_cache, monkeypatch, answer, match):
    monkeypatch.setattr("distillation.models.hub.get_session", lambda: answer)
    monkeypatch.setattr("distillation.models.hub.ATTEMPT_SECONDS", 0.1)
    start = time.monotonic()
    refused("hf-hub:timm/test_resnet.r160_in1k", f"cannot be had .*{match}")
    assert time.monotonic() - start < 2


def test_names_that_are_none_of_the_hubs(no_cache):
    refused("hf-hub:a/b/c", r"cannot be had \(HFValidationError: .*; allowed: a local file")
    refused("hf-hub:a/b@c@d", r"cannot be had \(AssertionError: .*one @")
    refused("hf-hub:", "cannot be had")


def test_what_the_hub_said_of_another_mistake_is_kept(no_cache):
    with (
        pytest.raises(ModelError, match=r"^x cannot be had \(RuntimeError: no such thing\); y$"),
        quick_hub_errors("x", way_out="y"),
    ):
        raise RuntimeError("no such thing.\nmore lines")
    with pytest.raises(ModelError, match=r"^as it is$"), quick_hub_errors("x"):
        raise ModelError("as it is")


def test_a_model_in_the_cache_needs_no_network(no_cache, weights, folder, tmp_path):
    snapshot = tmp_path / "cache" / "models--user--small" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    reference = tmp_path / "cache" / "models--user--small" / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("0" * 40)
    for name in ("hf-hub:user/small", "hf-hub:user/small@main", f"hf-hub:user/small@{'0' * 40}"):
        checkpoint = read(name)
        assert same(checkpoint.state, weights)
        assert checkpoint.info.class_names == ("a", "b", "c", "d")
    config = json.loads((snapshot / "config.json").read_text())
    assert config["architecture"] == "test_resnet"
