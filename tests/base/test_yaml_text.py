import os
import re

import pytest
import yaml

from distillation.base.yaml_text import MAX_FILE_BYTES, YamlError, parse_yaml, read_yaml


def test_plain_values_are_read():
    values = {
        "1e-3": 0.001, "2E5": 2e5, "+1.5": 1.5, ".5": 0.5, "5.": 5.0, "0": 0, "-7": -7, "'1'": "1",
        "yes": True, "off": False, "null": None, "~": None, "": None, "text": "text",
        "[1, a]": [1, "a"], "a: {b: 1}": {"a": {"b": 1}}, "9" * 30: int("9" * 30),
    }  # fmt: skip
    for text, value in values.items():
        found = parse_yaml(text)
        assert found == value
        assert type(found) is type(value)


def test_what_is_no_plain_decimal_is_a_text():
    """YAML 1.1 makes 8, 16, 3, 1000, 90 and a date of them."""
    for text in (
        "010", "-010", "00.5", "0x10", "0b11", "1_000", "1:30", "1:30.5", "2024-01-01", "=",
    ):  # fmt: skip
        assert parse_yaml(text) == text


def test_a_number_of_thousands_of_digits_is_no_crash():
    assert parse_yaml("9" * 5000) == float("inf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: anchors, aliases and tags"),
        ("a: !foo 1", "line 1, column 4: anchors, aliases and tags (&, *, !) are not read"),
        ("a: !!int b", "line 1, column 4: anchors, aliases and tags"),
        ("a: 1\nb: &x [1]\nc: *x", "line 2, column 4: anchors, aliases and tags"),
        ("a: 1\na: 1", "line 2, column 1: 'a' is given twice; keep one of them"),
        ("a: [{b: 1, c: 2, b: 3}]", "line 1, column 18: 'b' is given twice"),
        ("? [a]\n: 1", "line 1, column 3: found unhashable key"),
        ("a: [1, 2", "line 1, column 9: expected ',' or ']'"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: 1\n--- b", "line 2, column 1: but found another document"),
        ("a: \0", "unacceptable character #x0000"),
        (b"a: \xff", "unacceptable character #x00ff"),
        ("- " * 3000, "lists or mappings are nested too deep"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_in_one_line(text, message):
    with pytest.raises(YamlError, match=rf"^not valid YAML: {re.escape(message)}.*\Z"):
        parse_yaml(text)


def test_a_bomb_of_aliases_is_refused_before_it_goes_off():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{b}'] * 9)}]" for b, n in zip("abcdefgh", "bcdefghi")]  # noqa: B905
    with pytest.raises(YamlError, match="anchors, aliases and tags"):
        parse_yaml("\n".join(lines))


def test_a_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\n#".ljust(MAX_FILE_BYTES, "x"), encoding="utf-8")
    assert read_yaml(path) == {"a": 1}
    path.write_text("a: 1\n#".ljust(MAX_FILE_BYTES + 1, "x"), encoding="utf-8")
    with pytest.raises(YamlError, match=rf"^{path}: is too large; must have at most 100,000 bytes"):
        read_yaml(path)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(
            YamlError, match=rf"^{path}: is a (pipe|folder|device); must be a file$"
        ):
            read_yaml(path)
    with pytest.raises(YamlError, match=r"gone: cannot be read \(No such file or directory\)$"):
        read_yaml(tmp_path / "gone")


def test_a_mistake_in_a_file_names_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(YamlError, match=rf"^{tmp_path / 'a.yaml'}: not valid YAML: line 1, column"):
        read_yaml(tmp_path / "a.yaml")


def test_the_loader_of_pyyaml_stays_as_it_was():
    assert yaml.safe_load("[010, 1e-3, &a 1]") == [8, "1e-3", 1]
