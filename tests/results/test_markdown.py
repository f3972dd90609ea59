"""What a user chose is shown as it is, by a real reader of Markdown."""

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from distillation.results.markdown import escape, escape_sentence

HOSTILE = [
    "<unknown>",
    "<b>x|y",
    "`c`",
    "[a](https://x)",
    "&lt;",
    "a\\b",
    "\\<i>",
    "<!-- x",
    "{{x}}",
]
NAMES = ["*d*", "__init__", "~~old~~", "# x", "[x]", "a_b", "$x$"]


def read(markdown):
    """Return what a reader sees."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"- before {markdown} after")
    return unescape(re.sub(r"</?(ul|li|p)>", "", html)).strip()


@pytest.mark.parametrize("name", [*HOSTILE, *NAMES, "two words"])
def test_a_name_is_seen_as_it_is(name):
    assert read(escape(name)) == f"before {name} after"


@pytest.mark.parametrize("name", HOSTILE)
def test_so_it_is_in_a_sentence(name):
    sentence = f"The test split has no image of {name}: run -S 'seeds=[0,1]'; gain_* is below 5 %."
    escaped = escape_sentence(sentence)
    assert read(escaped) == f"before {sentence} after"
    assert "-S 'seeds=[0,1]'; gain_* is" in escaped


def test_lines_are_one():
    assert escape("two\nlines") == escape_sentence("two\nlines") == "two lines"
