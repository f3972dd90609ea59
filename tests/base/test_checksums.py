"""Checksums of files and of JSON objects."""

import hashlib
import json

import pytest

from distillation.base.checksums import (
    ChecksumError,
    check_files,
    hash_file,
    hash_json,
    read_sealed,
    seal,
)


def test_a_files_checksum_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than is read at a time
    (tmp_path / "a").write_bytes(content)
    assert hash_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    check_files(tmp_path, {"a": hashlib.sha256(content).hexdigest()})
    with pytest.raises(ChecksumError, match=r"^a does not fit its checksum$"):
        check_files(tmp_path, {"a": hashlib.sha256(content[:-1]).hexdigest()})
    with pytest.raises(FileNotFoundError):
        check_files(tmp_path, {"b": ""})
    with pytest.raises(ChecksumError, match=r"is no regular file$"):
        hash_file(tmp_path)


def test_an_objects_checksum_is_of_what_it_says():
    assert hash_json({"a": 1, "b": [2.5, "ü"]}) == hash_json({"b": [2.5, "ü"], "a": 1})
    others = [{"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": True}, {"a": 1, "b": None}, {}]
    assert len({hash_json(other) for other in others}) == len(others)
    with pytest.raises(ValueError, match="not JSON compliant"):
        hash_json({"a": float("nan")})


@pytest.mark.parametrize(
    "content", [{}, {"a": (1, 2), "ü": {"b": 0.1}}, {"a": "\ud800"}], ids=ascii
)
def test_what_is_sealed_is_read_back(content, tmp_path):
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(seal(content)))
    assert read_sealed(path) == json.loads(json.dumps(content))
    path.write_text(json.dumps({**seal(content), "c": 1}))
    with pytest.raises(ChecksumError, match=r"^meta\.json does not fit its checksum$"):
        read_sealed(path)
    path.write_text(json.dumps(content))
    with pytest.raises(ChecksumError, match=r"^meta\.json has no checksum$"):
        read_sealed(path)
