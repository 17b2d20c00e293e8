"""What the commands of style and texture share: which layers are read, pictures by their longer side."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vizsynth.cli import common
from vizsynth.cli.options import WEIGHT
from vizsynth.cli.settings import option

Size = tuple[int, int]


CUT_FROM = 512  # pixels: the longer side of pictures from which networks are cut


def cut() -> Any:
    """Return the option for cutting the network."""
    help = f"Less memory, more time [from {CUT_FROM} pixels on]"
    return option(None, help, "--cut/--no-cut", hidden=True, record=None)


def content_layers() -> Any:
    """Return the option for the layers of the content."""
    help = "Whose features are kept; may be repeated"
    return option((), help, "--content-layer", metavar="NAME", hidden=True)


def style_layers() -> Any:
    """Return the option for the layers of the style."""
    help = "Where the style is read; may be repeated"
    return option((), help, "--style-layer", metavar="NAME", hidden=True)


def weight(usual: float | None, help: str, *, hidden: bool = False) -> Any:
    """Return the option for how much a part of the loss counts."""
    return option(usual, help, type=WEIGHT, metavar="WEIGHT", hidden=hidden)


def pick_layers(net: Any, typed: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that were typed, each once, or the usual ones."""
    return tuple(dict.fromkeys(common.pick_layer(net, name) for name in typed)) or tuple(usual)


def pick_cuts(net: Any, cut: bool | None, size: Size) -> tuple[str, ...]:
    """Return where the network is cut for pictures of a size."""
    wanted = max(size) >= CUT_FROM if cut is None else cut
    cuts = common.roles(net).cuts if wanted else ()
    if cut and not cuts:
        raise common.BadInput(f"it is not known where a {type(net).__name__} can be cut; leave out --cut")
    return cuts


# Pictures ---------------------------------------------------------------------------


def scaled(size: Size, side: int) -> Size:
    """Return a size in proportion whose longer side is `side`."""
    return tuple(max(1, round(n * side / max(size))) for n in size)  # type: ignore[return-value]


def sizes(last: Size, count: int) -> list[Size]:
    """Return the sizes from coarse to fine, each √2 times that before it.

    >>> sizes((64, 96), 3)
    [(32, 48), (45, 68), (64, 96)]
    """
    return [scaled(last, max(1, round(max(last) / 2 ** (i / 2)))) for i in reversed(range(count))]


# What the library says --------------------------------------------------------------


def warn_of_small_styles(net: Any, styles: Sequence[tuple[str, Size]], layers: Sequence[str]) -> None:
    """Say it once where a neuron sees more than there is of a style."""
    from vizsynth.replay.fields import field_size

    for name, size in styles:
        for layer in layers:
            field = field_size(net, layer)
            if max(field) == math.inf:  # no map: that is no style's layer, as the library will say
                continue
            if size[0] < field[0] or size[1] < field[1]:
                warnings.warn(
                    f"{name} is {size[0]}x{size[1]} pixels here, less than the {field[0]:.0f}x"
                    f"{field[1]:.0f} that a neuron of {layer} sees: give it larger, or fewer layers",
                    stacklevel=2,
                )
                return


@contextmanager
def said_before() -> Iterator[None]:
    """Keep the library from saying it at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"style \d+ is ", category=UserWarning)
        yield


def numbers_between_commas(typed: str) -> list[float]:
    """Return the numbers of an option: 3,1."""
    try:
        return [float(part) for part in typed.split(",")]
    except ValueError:
        message = f"{typed!r} is no list of numbers; give one for each style, between commas: 3,1"
        raise ValueError(message) from None


def loss_summary(trace: Any) -> dict[str, float]:
    """Return the first, least and last loss of a run, for numbers.json."""
    import numpy as np

    found = np.asarray(trace)[0]
    found = found[np.isfinite(found)]
    if not found.size:
        return {}
    return {"first": float(found[0]), "least": float(found.min()), "last": float(found[-1])}
