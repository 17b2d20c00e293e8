"""What the reference pages need that griffe does not read in our docstrings by itself."""

import re
from typing import Any

import griffe

# A run of lines that begins at `>>>` and ends at an empty line, outside of any section.
DOCTEST = re.compile(r"^(>>> .*(?:\n(?!\n).+)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Make sections of our examples: `Example:` is one, where griffe knows `Examples:` alone."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring as griffe has it, before it is parsed."""
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        text = re.sub(r"(?<=\w)\*(?=_)", r"\\*", text)  # x*_T is the papers' star, and no emphasis
        obj.docstring.value = DOCTEST.sub(r"```pycon\n\1\n```", text)
