"""Which file belongs to which split and class, by its path alone: `[split/]class/…/picture.jpg`.

Nothing is opened here. How a missing split is made is `plan`'s business.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from distillation.sources.decode import DataError
from distillation.sources.names import merge_class_names
from distillation.sources.walk import by_parts

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What folders of a split are called, in any case: also `train_set`, `seg_train`, `train2017`."""

_DEVELOPMENT = "dev"  # validation beside a folder of training images, else a word like any other
_SPLIT_OF = {word: split for split, words in SPLIT_NAMES.items() for word in words}
_SUGGESTIVE_WORDS = {*_SPLIT_OF, _DEVELOPMENT, "trn", "eval", "evaluation", "holdout"}
_FILLERS = {"set", "data", "dataset", "images", "imgs", "img", "seg", "split"}
_WORDS = ", ".join("/".join(words) for words in SPLIT_NAMES.values())
_SHOWN = 5

# Split ("" where a source has none) and class folder, or class.
Group = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of every split and class, each group in the order of its paths."""

    class_names: tuple[str, ...]
    """Ordered as strings: "10" comes before "2"."""
    groups: dict[Group, list[str]]
    nested: tuple[str, ...]
    """Subfolders that every class has; their images are taken for the class's."""


def make_layout(files: Sequence[str], folders: Iterable[str], *, source: str) -> Layout:
    """Sort files by split and class.

    Args:
        files: paths relative to the source.
        folders: the folders among them, empty ones too.
        source: what to call the source in an error.

    Raises:
        DataError: the folders are neither classes nor splits of classes, or a class is empty.
    """
    prefix = _wrapper_folders(files)

    def parts_of(path: str) -> tuple[str, ...]:
        return tuple(path.split("/")[len(prefix) :])

    inner_folders = [
        parts_of(folder)
        for folder in folders
        if tuple(folder.split("/")[: len(prefix)]) == prefix and folder.count("/") >= len(prefix)
    ]
    tops = {parts[0] for path in files if len(parts := parts_of(path)) > 1}
    splits = _find_splits(tops | {parts[0] for parts in inner_folders}, source=source)
    doubled = _find_doubled(splits, map(parts_of, files))

    def place(parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        if parts[0] not in splits:
            return "", parts
        return parts[0], parts[2 if parts[0] in doubled else 1 :]

    groups: dict[Group, list[str]] = defaultdict(list)
    subfolders: dict[Group, set[str]] = defaultdict(set)
    for parts in inner_folders:
        folder, inner = place(parts)
        if len(inner) == 1:
            groups[folder, inner[0]] = []
    for path in files:
        folder, inner = place(parts_of(path))
        if len(inner) < 2:
            raise DataError(
                f"{source}: {path} lies outside any class folder; allowed: <class>/<image>, or "
                "train/<class>/<image> with test/ or val/ beside it"
            )
        groups[folder, inner[0]].append(path)
        subfolders[folder, inner[0]].add(inner[1] if len(inner) > 2 else "")
    _check_groups(groups, splits, source=source)
    nested = _find_nested(subfolders, source=source)
    named = merge_class_names({name for _, name in groups}, source=source)
    merged: dict[Group, list[str]] = defaultdict(list)
    for (folder, name), members in groups.items():
        merged[splits.get(folder, ""), named[name]] += members
    _check_classes(merged, splits, source=source)
    return Layout(
        class_names=tuple(sorted({name for _, name in merged})),
        groups={group: sorted(members, key=by_parts) for group, members in merged.items()},
        nested=nested,
    )


def split_of(name: str) -> str | None:
    """Return the split that a folder's name means: train, validation, test, or none."""
    words = _words(name)
    return _SPLIT_OF.get(words[0]) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    """Return the words of a folder's name, without years and what only says that it is data."""
    text = re.sub(r"(?<!\d)(?:19|20)\d\d$", "", name.casefold())
    words = [re.sub(r"^(\w+?)(set|data|images)$", r"\1", w) for w in re.split(r"[\s_.\-]+", text)]
    return [word for word in words if word and word not in _FILLERS]


def _resembles_a_split(name: str) -> bool:
    """Tell `train_1`, `test-b` and `eval` from names of things."""
    words = [word for word in _words(name) if len(word) > 1 and not word.isdigit()]
    return bool(words) and set(words) <= _SUGGESTIVE_WORDS


_MOST_WRAPPERS = 20
"""Every path is looked at for each."""


def _wrapper_folders(files: Sequence[str]) -> tuple[str, ...]:
    """Return the folders wrapped around the whole set, as most archives of a folder have one."""
    prefix: tuple[str, ...] = ()
    while files and len(prefix) < _MOST_WRAPPERS:
        depth = len(prefix)
        if min(path.count("/") + 1 for path in files) - depth < 3:
            break
        heads = {tuple(path.split("/", depth + 2)[depth : depth + 2]) for path in files}
        if len({head for head, _ in heads}) != 1:
            break
        (head,) = {head for head, _ in heads}
        if split_of(head) and "train" not in {split_of(inner) for _, inner in heads}:
            break
        prefix += (head,)
    return prefix


def _find_splits(tops: Collection[str], *, source: str) -> dict[str, str]:
    """Return the split of every folder at the top that is one."""
    splits = {name: split for name in sorted(tops) if (split := split_of(name))}
    if "train" in splits.values():
        splits |= {name: "validation" for name in sorted(tops) if _words(name) == [_DEVELOPMENT]}
    for split in SPLIT_NAMES:
        same = [name for name in splits if splits[name] == split]
        if len(same) > 1:
            raise DataError(
                f"{source}: the folders {' and '.join(same)} both mean the split {split}; "
                "allowed: one folder per split"
            )
    if splits and (stray := sorted(set(tops) - set(splits))):
        raise DataError(
            f"{source}: class folders {_shorten(stray)} stand beside {'/, '.join(splits)}/, which "
            "mean splits; allowed: either split folders or class folders at the top; splits are "
            f"called {_WORDS}"
        )
    if not splits and tops and all(map(_resembles_a_split, tops)):
        raise DataError(
            f"{source}: the folders {_shorten(sorted(tops))} look like splits and are not called "
            f"so; allowed: {_WORDS}"
        )
    if splits and "train" not in splits.values():
        raise DataError(f"{source}: there is no train/ folder beside {sorted(splits)}")
    return splits


def _find_doubled(splits: Mapping[str, str], paths: Iterable[tuple[str, ...]]) -> frozenset[str]:
    """Return the split folders that hold one folder of the same split: `seg_train/seg_train/…`."""
    inside: dict[str, set[str | None]] = {folder: set() for folder in splits}
    for parts in paths:
        if parts[0] in inside:
            inside[parts[0]].add(parts[1] if len(parts) > 3 else None)
    return frozenset(
        folder
        for folder, names in inside.items()
        if len(names) == 1 and all(name and split_of(name) == splits[folder] for name in names)
    )


def _check_groups(
    groups: Mapping[Group, Sequence[object]], splits: Mapping[str, str], *, source: str
) -> None:
    if not groups and not splits:
        raise DataError(f"{source}: no images found")
    for folder in sorted(splits.keys() - {folder for folder, _ in groups}):
        raise DataError(f"{source}: split folder {folder} holds no class folders")
    for (folder, name), members in sorted(groups.items()):
        if not members:
            path = "/".join(part for part in (folder, name) if part)
            raise DataError(f"{source}: class folder {path} holds no images")


def _find_nested(subfolders: Mapping[Group, set[str]], *, source: str) -> tuple[str, ...]:
    """Return the subfolders that all classes of a split have, where they can be a class's own.

    Args:
        subfolders: names of the folders in every class that hold images, "" for the class itself.
        source: what to call the source in an error.

    Raises:
        DataError: they rather are what should be the classes, or splits.
    """
    nested: tuple[str, ...] = ()
    for split in sorted({folder for folder, _ in subfolders}):
        below = {name: found for (folder, name), found in subfolders.items() if folder == split}
        every = [found - {""} for found in below.values()]
        common = set.intersection(*every)
        if len(below) < 2 or not common:
            continue
        no_direct_images = not any("" in found for found in below.values())
        are_the_same = all(found == common for found in every)
        if any(map(split_of, common)) or (no_direct_images and (are_the_same or len(common) > 1)):
            folders = [f"{split}/{name}" if split else name for name in sorted(below)]
            raise DataError(
                f"{source}: the folders {_shorten(folders)} all hold the same subfolders "
                f"({_shorten(sorted(common))}), so it is open which are the classes; allowed: "
                "<class>/<image>, or <split>/<class>/<image>"
            )
        nested = (*nested, *(name for name in sorted(common) if name not in nested))
    return nested


def _check_classes(
    merged: Mapping[Group, object], splits: Mapping[str, str], *, source: str
) -> None:
    base = {name for split, name in merged if split in ("", "train")}
    folder_of = {split: folder for folder, split in splits.items()}
    for split, name in sorted(merged):
        if name not in base:
            raise DataError(
                f"{source}: class {name} is in {folder_of[split]}/ but not in {folder_of['train']}/"
            )
    if len(base) < 2:
        raise DataError(f"{source}: found one class ({', '.join(base)}); at least two are needed")


def _shorten(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
