import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from distillation.sources.decode import DataError, decode_image
from distillation.sources.files import FileSource, sha256_of
from tests.helpers.sources import load_source

ENDINGS = ["", ".tar.gz", ".tgz", ".tar", ".zip"]
ARCHIVES = ENDINGS[1:]


# --- a folder or an archive --------------------------------------------------------------------


@pytest.fixture
def one_level(noise):
    """Two classes, in an order that is neither that of the names nor that of the classes."""
    return {
        f"{name}/{number}.{ending}": noise(number, size=(9, 12), file_format=file_format)
        for number, name, ending, file_format in [
            (5, "dog", "png", "PNG"),
            (1, "cat", "webp", "WEBP"),
            (4, "dog", "JPG", "JPEG"),
            (2, "cat", "jpeg", "JPEG"),
            (3, "cat", "png", "PNG"),
        ]
    }


def check_one_level(tree, files):
    order = ["cat/1.webp", "cat/2.jpeg", "cat/3.png", "dog/4.JPG", "dog/5.png"]
    assert tree.class_names == ("cat", "dog")
    assert list(tree.splits) == ["train"]
    split = tree.splits["train"]
    assert split.labels.tolist() == [0, 0, 0, 1, 1]
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(
        split.images, np.stack([decode_image(files[name], 8, name=name) for name in order])
    )
    assert tree.endings == [".jpeg", ".jpg", ".png", ".webp"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_folder_and_archives_give_the_same_arrays(write, one_level, tmp_path, ending):
    tree = load_source(write(tmp_path / f"set{ending}", one_level))

    check_one_level(tree, one_level)


@pytest.mark.parametrize("name", ["SET.TAR.GZ", "Set.Zip"])
def test_the_endings_case_does_not_matter(write, one_level, tmp_path, name):
    written = write(tmp_path / f"set{name[3:].lower()}", one_level)

    check_one_level(load_source(written.rename(tmp_path / name)), one_level)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("wrapper", ["animals", "download/animals", "./animals"])
def test_a_wrapper_folder_is_stripped(write, one_level, tmp_path, ending, wrapper):
    wrapped = {f"{wrapper}/{name}": content for name, content in one_level.items()}
    tree = load_source(
        write(tmp_path / f"set{ending}", {wrapper: None, **wrapped, f"{wrapper}/cat": None})
    )

    check_one_level(tree, one_level)


@pytest.mark.parametrize("ending", ENDINGS)
def test_hidden_files_and_file_managers_droppings_are_ignored(write, one_level, tmp_path, ending):
    junk = {
        "__MACOSX/cat/._1.png": b"x",
        ".DS_Store": b"x",
        ".git/config": b"x",
        "cat/.hidden.png": b"x",
        "cat/Thumbs.db": b"x",
        "dog/desktop.ini": b"x",
        ".cache": None,
    }
    tree = load_source(write(tmp_path / f"set{ending}", {**junk, **one_level}))

    check_one_level(tree, one_level)


def test_a_hidden_parent_folder_hides_nothing(write, one_level, tmp_path):
    tree = load_source(write(tmp_path / ".cache" / "set", one_level))

    check_one_level(tree, one_level)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("wrapper", ["", "animals/"])
def test_split_folders(write, noise, tmp_path, ending, wrapper):
    files = {
        f"{wrapper}{name}": noise(seed)
        for seed, name in enumerate(
            ["train/a/0.png", "train/a/deep/1.png", "train/b/2.png", "val/b/3.png", "test/a/4.png"]
        )
    }
    tree = load_source(write(tmp_path / f"set{ending}", files))

    assert list(tree.splits) == ["train", "validation", "test"]
    assert tree.class_names == ("a", "b")
    images = [decode_image(content, 8, name="") for content in files.values()]
    for split, labels, first in (("train", [0, 0, 1], 0), ("validation", [1], 3), ("test", [0], 4)):
        found = tree.splits[split]
        assert found.labels.tolist() == labels
        np.testing.assert_array_equal(found.images, images[first : first + len(labels)])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fox": None}, "class folder fox holds no images"),
        ({"fox": None, "fox/.hidden": b"x"}, "class folder fox holds no images"),
        ({"notes.txt": b"x"}, "notes.txt lies outside any class folder; allowed: <class>/<image>"),
        ({"cat/notes.txt": b"x"}, "cat/notes.txt is not an image that can be read"),
        ({"test/cat/1.png": ...}, "class folders cat, dog stand beside test/, which mean splits"),
    ],
    ids=["empty class", "only hidden files", "outside", "not an image", "beside splits"],
)
def test_mistakes_in_one_level(write, noise, one_level, tmp_path, ending, changes, message):
    changes = {k: noise(0) if v is ... else v for k, v in changes.items()}
    source = write(tmp_path / f"set{ending}", {**one_level, **changes})
    with pytest.raises(DataError, match=f"^{re.escape(f'{source}: {message}')}"):
        load_source(source)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/0", "train/b/0", "test/c/0"], "class c is in test/ but not in train/"),
        (["train/a/0", "train/b/0", "val/c/0"], "class c is in val/ but not in train/"),
        (["train/a/0", "train/b/0", "test/b/"], "class folder test/b holds no images"),
        (["train/a/0", "train/b/0", "test/0"], "test/0 lies outside any class folder"),
        (["test/a/0", "val/a/0"], "there is no train/ folder beside ['test', 'val']"),
        (["a/0", "a/1"], "found one class (a); at least two are needed"),
        (["train/a/0", "test/a/0"], "found one class (a); at least two are needed"),
        ([".hidden"], "no images found"),
        (["a/0", "b/0", "train/"], "class folders a, b stand beside train/, which mean splits"),
        (["train/a/0", "train/b/0", "test/"], "split folder test holds no class folders"),
    ],
)
def test_mistakes_in_the_layout(write, noise, tmp_path, ending, names, message):
    files = {n.rstrip("/"): None if n.endswith("/") else noise(0) for n in names}
    source = write(tmp_path / f"set{ending}", files)
    with pytest.raises(DataError, match=f"^{re.escape(f'{source}: {message}')}"):
        load_source(source)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("number", "rest"), [(2, ""), (10, ""), (12, "; and 2 more")])
def test_all_files_that_cannot_be_used_are_named_at_once(
    write, one_level, tmp_path, ending, number, rest
):
    bad = {f"cat/bad {i:02}.jpg": b"x" for i in range(number)}
    source = write(tmp_path / f"set{ending}", {**one_level, **bad})
    with pytest.raises(DataError) as caught:
        load_source(source)
    message = str(caught.value)
    assert message.startswith(f"{number} files cannot be used: {source}: cat/bad 00.jpg is not an")
    assert f"; {source}: cat/bad 01.jpg is not an image that can be read; allowed: JPEG" in message
    assert message.count("cat/bad") == min(number, 10)
    assert message.endswith(rest or "PPM")


def test_links_are_followed(write, one_level, tmp_path):
    """To files, to folders and to whole splits, as those make them who keep their disks small."""
    store = write(tmp_path / "store", one_level)
    source = tmp_path / "set"
    (source / "dog").mkdir(parents=True)
    (source / "cat").symlink_to(store / "cat")
    for name in ("4.JPG", "5.png"):
        (source / "dog" / name).symlink_to(store / "dog" / name)

    check_one_level(load_source(source), one_level)
    assert sha256_of(source) == sha256_of(store)
    (source / "train").symlink_to(source)
    with pytest.raises(DataError, match=rf"^{source}/train is a link to a folder that it lies in"):
        load_source(source)


def test_a_link_to_nothing_is_named(write, one_level, tmp_path):
    source = write(tmp_path / "set", one_level)
    (source / "cat" / "gone.png").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"^{source}/cat/gone\.png cannot be read: No such file"):
        load_source(source)


@pytest.mark.parametrize("ending", ENDINGS)
def test_class_names_are_taken_as_they_are(write, noise, tmp_path, ending):
    names = ["Bär & Söhne", "<b>bold", "a 'quoted' \"name\"", "{{ 7 * 7 }}", "犬", "100 %"]
    files = {f"{name}/1.png": noise(i) for i, name in enumerate(names)}
    tree = load_source(write(tmp_path / f"set{ending}", files))

    assert tree.class_names == tuple(sorted(names))


@pytest.mark.parametrize("ending", ARCHIVES)
@pytest.mark.parametrize("name", ["../cat/evil.png", "cat/../../evil.png", "/evil", "..\\evil.png"])
def test_a_member_that_climbs_out_is_refused(write, one_level, noise, tmp_path, ending, name):
    source = write(tmp_path / f"set{ending}", {**one_level, name: noise(0)})
    with pytest.raises(DataError, match=rf"{re.escape(name)} climbs out of the archive's folder"):
        load_source(source)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(e, k) for e in ARCHIVES for k in ("symlink", "hardlink") if (e, k) != (".zip", "hardlink")],
)
def test_a_link_in_an_archive_is_refused(write, one_level, tmp_path, ending, kind):
    source = write(tmp_path / f"set{ending}", {**one_level, "cat/link.png": (kind, "cat/3.png")})
    with pytest.raises(DataError, match=r"cat/link\.png is a link or a device; allowed: files and"):
        load_source(source)


@pytest.mark.parametrize("name", ["set.rar", "set", "set.gz"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        DataError,
        match=rf"/{name}: not a folder and not an archive; allowed endings: "
        r"\.tar\.gz, \.tgz, \.tar, \.zip$",
    ):
        load_source(tmp_path / name)


@pytest.mark.parametrize("ending", ARCHIVES)
@pytest.mark.parametrize("kept", [0.8, 0.5, 0.05, 0])
def test_an_archive_cut_short_is_an_error(write, one_level, tmp_path, ending, kept):
    source = write(tmp_path / f"set{ending}", one_level)
    content = source.read_bytes().rstrip(b"\0")  # a tar ends in up to 10 KiB of padding
    source.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=rf"{source}: the archive is damaged or cut short: "):
        load_source(source)


@pytest.mark.parametrize("beyond", [0, 200], ids=["between members", "in a header"])
def test_a_tar_cut_where_a_member_begins_is_an_error(write, one_level, tmp_path, beyond):
    source = write(tmp_path / "set.tar", one_level)
    content = source.read_bytes()
    source.write_bytes(content[: content.index(b"dog/4.JPG\0") + beyond])  # all of cat is whole
    with pytest.raises(DataError, match=rf"{source}: the archive is damaged or cut short"):
        load_source(source)


def test_a_tar_with_a_damaged_header_is_an_error(write, one_level, tmp_path):
    source = write(tmp_path / "set.tar", one_level)
    content = source.read_bytes()
    source.write_bytes(content.replace(b"cat/3.png\0", b"cat/X.png\0"))
    with pytest.raises(DataError, match=rf"{source}: the archive is damaged or cut short"):
        load_source(source)


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_an_archive_that_changes_while_it_is_read_is_refused(write, noise, tmp_path, change):
    names = ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    source = write(tmp_path / "set.tar", {name: noise(0) for name in names})
    listed = FileSource(source)
    others = {
        "shorter": names[:-1],
        "longer": [*names, "b/2.png"],
        "other": [*names[:3], "b/9.png"],
    }
    source.unlink()
    write(source, {name: noise(0) for name in others[change]})
    with pytest.raises(DataError, match=f"^{source} was changed while it was read$"):
        list(listed.samples())


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_a_changed_byte_in_an_archive_is_our_error_or_does_no_harm(write, noise, tmp_path, ending):
    files = {f"{name}/{i}.png": noise(i, size=(12, 12)) for name in "ab" for i in range(2)}
    source = write(tmp_path / f"set{ending}", files)
    whole, content = load_source(source).splits["train"].images, source.read_bytes()
    messages = []
    for position in range(0, len(content), 9):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        source.write_bytes(damaged)
        try:
            images = load_source(source).splits["train"].images
        except DataError as error:
            messages.append(str(error))
        else:  # a file's date, say
            np.testing.assert_array_equal(images, whole)
    assert len(messages) > 0.8 * len(content) / 9
    assert all(message.startswith(f"{source}: ") for message in messages)


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.75])
def test_a_tar_gz_overwritten_in_its_middle_is_an_error(write, encode, tmp_path, kept):
    # Compressible, and longer than a read buffer: zlib finds the damage while a member is skipped.
    bits = np.random.default_rng(0).integers(0, 2, (4, 100, 100, 3), dtype=np.uint8)
    files = {
        f"{name}/0.bmp": encode(255 * picture) for name, picture in zip("abcd", bits, strict=True)
    }
    source = write(tmp_path / "set.tar.gz", files)
    content = bytearray(source.read_bytes())
    start = int(kept * len(content))
    content[start : start + 400] = b"\xff" * 400
    source.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{source}: the archive is damaged or cut short: "):
        load_source(source)


def test_an_encrypted_zip_is_an_error(write, one_level, tmp_path):
    source = write(tmp_path / "set.zip", one_level)
    content = bytearray(source.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := content.find(signature, position + 1)) >= 0:
            content[position + flags] |= 1
    source.write_bytes(content)
    with pytest.raises(DataError, match=rf"{source}: .*encrypted"):
        load_source(source)


def test_a_broken_link_in_a_folder_is_named(write, one_level, tmp_path):
    source = write(tmp_path / "set", one_level)
    (source / "cat" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"cat/9\.png cannot be read: No such file"):
        load_source(source)


# --- the digest --------------------------------------------------------------------------------


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({".hidden": b"x"}, True),
        ({"empty": None}, True),
        ({"a/0.png": b"other"}, False),
        ({"a/2.png": b"x"}, False),
    ],
)
def test_the_digest_of_a_folder_tells_names_and_contents(write, tmp_path, change, same):
    files = {"a/0.png": b"zero", "b/1.png": b"one"}
    first = write(tmp_path / "first", files)
    second = write(tmp_path / "second", {**files, **change})

    assert (sha256_of(first) == sha256_of(second)) is same


def test_the_digest_of_a_folder_tells_a_renamed_file(write, tmp_path):
    first = write(tmp_path / "first", {"a/0.png": b"zero"})
    second = write(tmp_path / "second", {"b/0.png": b"zero"})

    assert sha256_of(first) != sha256_of(second)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_a_channel_are_refused_rather_than_clipped(mode):
    content = io.BytesIO()
    Image.new(mode, (8, 8), 1).save(content, format="TIFF")
    with pytest.raises(
        DataError, match=r"^deep\.tif has signed or 32-bit values; allowed: 8 or 16 bits, unsigned$"
    ):
        decode_image(content.getvalue(), 8, name="deep.tif")
