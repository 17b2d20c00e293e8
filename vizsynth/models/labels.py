"""The names of the classes."""

import difflib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files


@cache
def _imagenet() -> dict[str, tuple[str, ...]]:
    text = files("vizsynth").joinpath("data/imagenet_labels.json").read_text(encoding="utf-8")
    record = json.loads(text)
    return {key: tuple(record[key]) for key in ("labels", "synonyms")}


def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, in the order of the logits.

    >>> imagenet_labels()[281]
    'tabby cat'
    """
    return _imagenet()["labels"]


def find_class(labels: Sequence[str] | None, name: str) -> int:
    """Return the label of the class that a name means.

    A name means the class of just that name, in whatever case; else, of ImageNet's classes, the one
    that WordNet calls so; else the only class whose name has it as a whole word; else the only class
    whose name contains it. A number is the label itself.

    Args:
        labels: the names of the classes, `net.labels`.
        name: a name, a part of one, or a number.

    Raises:
        ValueError: no class of that name, several, or a number beyond the last class; the message
            names the nearest, or all of the several.

    Example:
        >>> find_class(imagenet_labels(), "Tabby"), find_class(("cat", "dog"), "1")
        (281, 1)
    """
    wanted = " ".join(name.split()).casefold()
    if not wanted:
        raise ValueError("the name of a class must not be empty")
    if wanted.isdecimal():
        return _number(int(wanted), labels)
    if labels is None:
        raise ValueError(f"the network has no class names to find {name!r} in: give the label's number")
    folded = [label.casefold() for label in labels]
    synonyms = _synonyms() if tuple(labels) == imagenet_labels() else ()
    word = f" {_words(wanted)} "
    for found in (
        [i for i, label in enumerate(folded) if label == wanted],
        [i for i, names in enumerate(synonyms) if wanted in names],
        [i for i, label in enumerate(folded) if word in f" {_words(label)} "],
        [i for i, label in enumerate(folded) if wanted in label],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            candidates = ", ".join(f"{labels[i]} ({i})" for i in found[:20])
            more = f" and {len(found) - 20} more" if len(found) > 20 else ""
            raise ValueError(
                f"{name!r} may be any of {candidates}{more}: give more of the name, or its number"
            )
    near = difflib.get_close_matches(wanted, folded, n=5, cutoff=0.5)
    meant = ", ".join(f"{labels[i]} ({i})" for i in dict.fromkeys(folded.index(n) for n in near))
    raise ValueError(f"no class is called {name!r}" + (f"; the nearest are: {meant}" if meant else ""))


def _number(label: int, labels: Sequence[str] | None) -> int:
    if labels is not None and label >= len(labels):
        raise ValueError(f"label {label} is outside the {len(labels)} classes 0..{len(labels) - 1}")
    return label


@cache
def _synonyms() -> tuple[frozenset[str], ...]:
    return tuple(
        frozenset(name.strip() for name in names.casefold().split(",")) for names in _imagenet()["synonyms"]
    )


@cache
def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text).split())
