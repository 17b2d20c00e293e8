"""What the reference pages need that griffe and Markdown do not read in our docstrings by themselves."""

import re
from typing import Any

import griffe

DOCTEST = r"^ *>>> .*(?:\n(?!\n).+)*"  # a run of lines that begins at `>>>` and ends at an empty line
CODE = re.compile(rf"({DOCTEST}|`[^`]*`)", re.MULTILINE)
OUTSIDE = re.compile(r"^(>>> .*(?:\n(?!\n).+)*)", re.MULTILINE)  # of any section
# In g_{t+1} and x*_T Markdown would see emphasis. Identifiers stay as they are: sections are told by them.
SIGNS = re.compile(r"(?<!\w)_|_(?!\w)|(?<=\S)\*|\*(?=\S)")


class Docstrings(griffe.Extension):
    """Make sections of our examples, and leave the papers' symbols as they are written."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring as griffe has it, before it is parsed."""
        if obj.docstring is None:
            return
        parts = CODE.split(obj.docstring.value)  # every other one is code
        parts[::2] = [SIGNS.sub(r"\\\g<0>", prose) for prose in parts[::2]]
        text = re.sub(r"^Example:$", "Examples:", "".join(parts), flags=re.MULTILINE)
        obj.docstring.value = OUTSIDE.sub(r"```pycon\n\1\n```", text)
