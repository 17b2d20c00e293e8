"""Texts that come from files: their names, the classes and layers that they name."""

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, but Persian is written with the one, and emoji with the other


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text without what would steer a terminal, break its line, or turn the order of its letters.

    Controls, invisible marks, separators of lines, and the bytes of a file name that is not UTF-8 are spelled
    out. Letters of every script stay, and so do spaces.

    Args:
        text: what may come from a file.
        keep: characters that stay as they are, such as `"\n"`.

    >>> print(printable("caf\udce9\x1b[31m\nvizsynth: error: naïve 猫"))
    caf\xe9\x1b[31m\nvizsynth: error: naïve 猫
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep else _spelled(letter) for letter in text)


def literal(text: str) -> str:
    r"""Return a text of which Markdown makes nothing else, neither code nor a link.

    >>> print(literal("`a` of [mine](https://example.org)"))
    \`a\` of \[mine\](https://example.org)
    """
    return re.sub(r"([\\`\[\]])", r"\\\1", printable(text))


def _spelled(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
