"""Rows of an array: resident and streamed ones give the same, and memory stays small."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from distillation.data import rows as rows_module
from distillation.data.rows import Indices, ResidentRows, StreamedRows, make_rows

CPU = torch.device("cpu")
NUM_ROWS = 11
SHAPES = {
    "images": ((NUM_ROWS, 5, 4, 3), np.uint8, torch.uint8),
    "logits": ((NUM_ROWS, 7), np.float16, torch.float16),
    "maps": ((NUM_ROWS, 2, 3, 4), np.float32, torch.float32),
    "labels": ((NUM_ROWS,), np.int64, torch.int64),
}


def make_array(kind):
    shape, dtype, _ = SHAPES[kind]
    values = np.random.default_rng(0).integers(0, 256, shape)
    return (values / 8 if np.issubdtype(dtype, np.floating) else values).astype(dtype)


def save(array, path):
    """Write an array and give it mapped, as the pipeline's files are read."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def at(*indices):
    host = torch.tensor(indices, dtype=torch.int64)
    return Indices(host, host)


@pytest.fixture(params=SHAPES)
def kind(request):
    return request.param


@pytest.mark.parametrize(
    "indices",
    [
        range(NUM_ROWS),
        range(NUM_ROWS - 1, -1, -1),
        [3],
        [0, NUM_ROWS - 1],
        [5, 5, 2, 5, 2],
        [7, 1, 9, 0, 10, 4],
    ],
    ids=str,
)
def test_streamed_rows_are_the_resident_ones(kind, indices, tmp_path):
    array = make_array(kind)
    streamed = StreamedRows(save(array, tmp_path / "rows.npy"), CPU)
    resident = ResidentRows(torch.from_numpy(array))
    assert len(streamed) == len(resident) == NUM_ROWS
    found, expected = streamed.take(at(*indices)), resident.take(at(*indices))
    assert found.dtype == expected.dtype == SHAPES[kind][2]
    assert torch.equal(found, expected)
    assert np.array_equal(found.numpy(), array[list(indices)])


def test_what_is_taken_is_a_copy(kind, tmp_path):
    array = make_array(kind)
    mapped = save(array, tmp_path / "rows.npy")
    for rows in (StreamedRows(mapped, CPU), make_rows(mapped, CPU), make_rows(array, CPU)):
        rows.take(at(2)).zero_()
        assert np.array_equal(rows.take(at(2))[0].numpy(), array[2])
    assert np.array_equal(np.load(tmp_path / "rows.npy"), array)


def test_where_the_rows_begin_is_read_from_the_file(tmp_path):
    """A long header moves them."""
    array = make_array("logits")
    path = tmp_path / "rows.npy"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + (310).to_bytes(2, "little"))
        header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {array.shape}, }}"
        file.write(header.ljust(309).encode() + b"\n" + array.tobytes())
    found = StreamedRows(np.load(path, mmap_mode="r"), CPU).take(at(0, 10, 6))
    assert np.array_equal(found.numpy(), array[[0, 10, 6]])


def test_a_file_that_was_cut_short_is_an_error_from_the_cut_on(kind, tmp_path):
    array = make_array(kind)
    path = tmp_path / "rows.npy"
    rows = StreamedRows(save(array, path), CPU)
    os.truncate(path, path.stat().st_size - 3 * array[0].nbytes - 1)  # within row 7
    assert np.array_equal(rows.take(at(6, 0)).numpy(), array[[6, 0]])
    for index in (7, 8, 10):
        with pytest.raises(EOFError, match=rf"{path}: row {index} cannot be read"):
            rows.take(at(0, index))


def test_rows_that_are_not_there_are_an_error(tmp_path):
    array = make_array("images")
    streamed = StreamedRows(save(array, tmp_path / "rows.npy"), CPU)
    for rows, error in ((streamed, IndexError), (make_rows(array, CPU), IndexError)):
        for index in (NUM_ROWS, 10**6):
            with pytest.raises(error):
                rows.take(at(0, index))


def test_negative_rows_are_an_error_of_resident_rows(kind):
    with pytest.raises(IndexError):
        make_rows(make_array(kind), CPU).take(at(0, -1))


def test_negative_rows_are_an_error_of_streamed_rows(tmp_path):
    streamed = StreamedRows(save(make_array("logits"), tmp_path / "rows.npy"), CPU)
    with pytest.raises((EOFError, IndexError)):
        streamed.take(at(0, -1))


def test_a_replaced_file_does_not_disturb_rows_in_use(tmp_path):
    array = make_array("images")
    rows = StreamedRows(save(array, tmp_path / "rows.npy"), CPU)
    np.save(tmp_path / "new.npy", array[::-1])
    (tmp_path / "new.npy").replace(tmp_path / "rows.npy")
    assert np.array_equal(rows.take(at(*range(NUM_ROWS))).numpy(), array)


# Where an array is put


def test_the_size_decides_whether_a_mapped_file_is_streamed(kind, tmp_path, monkeypatch):
    array = make_array(kind)
    for limit, is_streamed in ((array.nbytes, False), (array.nbytes - 1, True)):
        monkeypatch.setattr(rows_module, "_CPU_RESIDENT_BYTES", limit)
        rows = make_rows(save(array, tmp_path / "rows.npy"), CPU)
        assert rows.is_streamed is is_streamed
        assert type(rows) is (StreamedRows if is_streamed else ResidentRows)
        assert np.array_equal(rows.take(at(4, 1)).numpy(), array[[4, 1]])


def test_cifar10_is_resident_and_imagenet_is_not():
    assert 50_000 * 32 * 32 * 3 < rows_module._resident_bytes(CPU) < 1_281_167 * 224 * 224 * 3


def test_an_array_in_memory_is_never_streamed(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_CPU_RESIDENT_BYTES", 0)
    array = make_array(kind)
    mapped = save(array, tmp_path / "rows.npy")
    assert make_rows(mapped, CPU).is_streamed
    for in_memory in (array, np.array(mapped), array.copy()[::2]):
        rows = make_rows(in_memory, CPU)
        assert not rows.is_streamed
        assert np.array_equal(rows.take(at(1)).numpy(), in_memory[[1]])


def test_a_copy_of_a_mapped_file_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_CPU_RESIDENT_BYTES", 0)
    copy = save(make_array("images"), tmp_path / "rows.npy").copy()
    assert not make_rows(copy, CPU).is_streamed


@pytest.mark.parametrize(
    "part",
    [
        lambda mapped: mapped[3:],
        lambda mapped: mapped[::2],
        lambda mapped: mapped[2:8][1:],
        lambda mapped: mapped[[4, 0]],
    ],
    ids=["from 3", "every second", "part of a part", "gathered"],
)
def test_a_part_of_a_mapped_file_gives_its_own_rows(kind, part, tmp_path, monkeypatch):
    """A part still calls itself a map and names the whole file's beginning."""
    monkeypatch.setattr(rows_module, "_CPU_RESIDENT_BYTES", 0)
    array = make_array(kind)
    rows = make_rows(part(save(array, tmp_path / "rows.npy")), CPU)
    expected = part(array)
    assert len(rows) == len(expected)
    assert np.array_equal(rows.take(at(1, 0)).numpy(), expected[[1, 0]])


def test_resident_rows_do_not_follow_their_array(tmp_path):
    array = make_array("images")
    rows = make_rows(array, CPU)
    expected = array.copy()
    array[:] = 0
    assert np.array_equal(rows.take(at(3)).numpy(), expected[[3]])


# Memory


def file_pages_bytes():
    """Give the size of the file pages mapped into this process."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_streaming_leaves_no_page_of_the_file_in_the_process(tmp_path):
    size = 32 * 2**20
    mapped = save(np.ones((size // 2**14, 2**14), dtype=np.uint8), tmp_path / "rows.npy")
    rows = StreamedRows(mapped, CPU)
    rows.take(at(0)).sum()  # loads what code there is to load
    before = file_pages_bytes()
    total = sum(int(rows.take(at(i, i + 1)).sum()) for i in range(0, len(rows), 2))
    assert total == size
    assert file_pages_bytes() - before < size / 8
    assert int(mapped.sum()) == size  # through the map they do stay
    assert file_pages_bytes() - before > size / 2
