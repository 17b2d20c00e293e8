"""Texts from files: their names, and the names of classes and layers in them."""

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, but part of Persian and of emoji


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text that cannot control a terminal, break its line, or reverse its letters.

    Control characters, invisible marks, line separators, and the bytes of a file name that is not UTF-8 are
    escaped. Letters of every script and spaces stay.

    Args:
        text: possibly from a file.
        keep: characters that stay, such as `"\n"`.

    >>> print(printable("caf\udce9\x1b[31m\nvizsynth: error: naïve 猫"))
    caf\xe9\x1b[31m\nvizsynth: error: naïve 猫
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep else _spelled(letter) for letter in text)


def literal(text: str) -> str:
    r"""Return a text escaped for Markdown: neither code nor a link.

    >>> print(literal("`a` of [mine](https://example.org)"))
    \`a\` of \[mine\](https://example.org)
    """
    return re.sub(r"([\\`\[\]])", r"\\\1", printable(text))


def _spelled(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    if "\udc80" <= letter <= "\udcff":  # Python's surrogate for a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
