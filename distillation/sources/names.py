"""Names in a user's folder or archive: which are left out, which are refused, which are one class.

It imports nothing heavy: training and prediction go by the same list.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from distillation.sources.decode import DataError

LEFT_OUT_NAMES = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "__macosx", "icon\r"),
        *("@eadir", "#recycle", "#snapshot", "lost+found", "$recycle.bin", "found.000"),
        *("system volume information", "network trash folder", "temporary items"),
        *("picasa.ini", "__pycache__"),
    }
)
"""What file managers, storage boxes and systems leave in folders, in lower case. Names that begin
with a dot (`.DS_Store`, `.ipynb_checkpoints`) are left out too."""

_REFUSED_CATEGORIES = {
    "Cc": "a control character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def is_left_out(path: str) -> bool:
    """Tell hidden files and what systems leave behind from a user's own, by any part of a path."""
    return any(
        part.startswith(".") or part.casefold() in LEFT_OUT_NAMES for part in path.split("/")
    )


def problem_with_name(name: str) -> str | None:
    """Say what forbids the use of a name, or of a path; None where nothing does."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "has a name that is not UTF-8; rename it"
    for letter in name:
        if kind := _REFUSED_CATEGORIES.get(unicodedata.category(letter)):
            return f"has {kind} in its name; rename it"
    return None


def merge_class_names(names: Iterable[str], *, source: str) -> dict[str, str]:
    """Map folder names to class names: the composed and the decomposed form are one class.

    Raises:
        DataError: two names differ in case, blanks or invisible characters alone.
    """
    merged = {name: unicodedata.normalize("NFC", name) for name in names}
    alike: dict[str, set[str]] = defaultdict(set)
    for name in merged.values():
        alike[_to_key(name)].add(name)
    for group in alike.values():
        if len(group) > 1:
            listed = ", ".join(repr(name) for name in sorted(group))
            raise DataError(
                f"{source}: class folders {listed} differ in case, blanks or the form of their "
                "letters alone; allowed: one name per class, the same in every split"
            )
    return merged


def _to_key(name: str) -> str:
    """Return what names that a reader takes for the same have in common."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    visible = (letter for letter in folded if unicodedata.category(letter) != "Cf")
    return " ".join("".join(visible).split())
