"""How long stages took, and may still take."""

import json

import pytest

from distillation.base.durations import describe_duration, duration_of_rest, keep_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (112.4, "1 min 52 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min"),
    ],
)  # fmt: skip
def test_a_time_is_put_into_words(seconds, words):
    assert describe_duration(seconds) == words


@pytest.fixture
def ended(tmp_path):
    """A file in which three stages ended one after another, at 10, 20 and 30 s."""
    path = tmp_path / "durations.json"
    kept = {
        name: {"seconds": seconds, "ended": 10.0 * number}
        for number, (name, seconds) in enumerate((("a", 1.0), ("b", 2.0), ("c", 4.0)), start=1)
    }
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path


def test_what_followed_the_last_time_is_still_to_come(ended):
    assert duration_of_rest(ended, "a", since=100.0) == 6.0
    assert duration_of_rest(ended, "b", since=100.0) == 4.0
    assert duration_of_rest(ended, "c", since=100.0) == 0.0
    assert duration_of_rest(ended, "new", since=100.0) == 0.0


def test_what_this_command_has_run_already_is_not_to_come(ended):
    assert duration_of_rest(ended, "a", since=25.0) == 2.0


def test_a_stage_that_has_run_is_the_last(ended):
    keep_duration(ended, "a", 8.0)
    assert duration_of_rest(ended, "b", since=float("inf")) == 12.0


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"a": 1}', b"\xff", b'{"a": {"seconds": {}}}']
)
def test_a_damaged_file_holds_nothing(text, tmp_path):
    path = tmp_path / "durations.json"
    path.write_bytes(text)
    assert duration_of_rest(path, "a", since=1.0) == 0.0
    keep_duration(path, "b", 1.0)
    assert set(json.loads(path.read_text(encoding="utf-8"))) == {"b"}
