"""Text that users chose, within Markdown: never read as Markdown or HTML itself."""

from __future__ import annotations

import re

_ANY_MARK = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
_MARK_IN_SENTENCE = re.compile(r"([\\`<]|\](?=\()|&(?=#?\w+;))")


def escape(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    return _ANY_MARK.sub(r"\\\1", _on_one_line(text))


def escape_sentence(text: str) -> str:
    """Keep tags, code, links and entities in a sentence from being read as such.

    Other marks stay, so that `gain_*` and `-S 'seeds=[0,1]'` can be read in the file as it stands.
    """
    return _MARK_IN_SENTENCE.sub(r"\\\1", _on_one_line(text))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
