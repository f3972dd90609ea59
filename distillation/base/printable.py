"""Text of a stranger as it can be printed: file names, class names, what a file says of itself."""

from __future__ import annotations

import unicodedata

_REFUSED_CATEGORIES = ("Cc", "Zl", "Zp", "Cs")
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Return a text as it can be printed on one line, what cannot be printed as an escape.

    Bytes that are not UTF-8 are escaped, and what steers a terminal or turns the direction of text.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of them as `printable` does."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # what python makes of a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if unicodedata.category(letter) in _REFUSED_CATEGORIES or letter in _DIRECTIONS:
        return repr(letter)[1:-1]
    return letter
