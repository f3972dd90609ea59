"""JSON that somebody else wrote."""

import pytest

from distillation.base.json_text import parse_json


@pytest.mark.parametrize("text", ["[" * 100_000, b"[" * 100_000, '{"a":' * 100_000])
def test_what_nests_too_deeply_is_a_value_error(text):
    with pytest.raises(ValueError, match="nests too deeply"):
        parse_json(text)


def test_options_are_passed_on():
    assert parse_json("[NaN, 1.5]", parse_constant=str, parse_float=str) == ["NaN", "1.5"]
