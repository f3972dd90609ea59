"""Names of models."""

import pytest

from distillation.models.names import ModelError, check_model_name, has_source, names_weights
from tests.helpers.tiny_models import create


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("efficientnet_b00", "did you mean efficientnet_b0 or"),
        ("mobilnetv3_small_100", "mobilenetv3_small_100"),
        ("resnet5O", "did you mean resnet50 or"),
        ("qqqqzzzz", "timm.list_models() lists them"),
        ("", "timm.list_models() lists them"),
    ],
)
def test_unknown_names_bring_the_nearest(name, hint):
    with pytest.raises(ModelError) as caught:
        check_model_name(name, key="student")
    message = str(caught.value)
    assert message.startswith(f"student: got {name!r}; allowed: the name of a timm model; ")
    assert hint in message
    with pytest.raises(ModelError, match=r"did you mean|list_models"):
        create(name)


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k", "efficientnet_b0"])
def test_known_names_pass_with_and_without_a_tag(name):
    check_model_name(name)


def test_an_unknown_tag_is_an_error_of_the_user():
    with pytest.raises(ModelError, match=r"test_resnet\.bogus"):
        create("test_resnet.bogus")


# Folders and repositories


@pytest.mark.parametrize("name", ["user/model", "models/student", "gs-hub:a/b", "hf-hub:", "a:b:c"])
def test_what_looks_like_a_path_or_repository_gets_the_two_ways_to_name_one(name):
    message = r"^student: got '.*'; allowed: a timm name, or hf-hub:USER/NAME .* local-dir:FOLDER"
    with pytest.raises(ModelError, match=message):
        has_source(name, key="student")


@pytest.mark.parametrize(
    ("name", "is_source", "is_weights"),
    [
        ("resnet18", False, False),
        ("resnet18.a1_in1k", False, True),
        ("hf-hub:timm/resnet18", True, True),
        ("local-dir:/a b/c", True, True),
    ],
)
def test_names_that_stand_for_weights(name, is_source, is_weights):
    assert has_source(name) is is_source
    assert names_weights(name) is is_weights
