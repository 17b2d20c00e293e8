"""What the commands of style and texture share: which layers are read, pictures by their longer side."""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from vizsynth.cli import common

Size = tuple[int, int]


CUT_FROM = 512  # pixels: the longer side of pictures from which networks are cut

cut = click.option(
    "--cut/--no-cut", default=None, hidden=True,
    help=f"Less memory, more time [from {CUT_FROM} pixels on].",
)  # fmt: skip

content_layer = click.option(
    "--content-layer", "content_layers", multiple=True, metavar="NAME", hidden=True,
    help="Whose features are kept; may be repeated.",
)  # fmt: skip
style_layer = click.option(
    "--style-layer", "style_layers", multiple=True, metavar="NAME", hidden=True,
    help="Where the style is read; may be repeated.",
)  # fmt: skip


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


class Given(NamedTuple):
    """A picture that the command was given, before it is brought to a size."""

    path: Path
    size: Size
    """As the file has it."""

    def read(self, size: Size) -> Any:
        """Return the picture at (height, width)."""
        from vizsynth.files import read_image

        return read_image(self.path, size)

    @property
    def described(self) -> dict[str, str]:
        """Return what the numbers say of it."""
        from vizsynth.cli.photos import digest

        return {"name": self.path.name, "sha256": digest(self.path)}


def given(paths: Iterable[Path], quiet: bool) -> list[Given]:
    """Check that pictures can be read; say what is converted, once for each."""
    from vizsynth.cli.photos import look_at

    found: dict[Path, Given] = {}
    listed = list(paths)
    for path in listed:
        if path not in found:
            size, note = look_at(path)
            found[path] = Given(path, size)
            if note:
                common.say(f"{path}: {note}", quiet)
    return [found[path] for path in listed]


def names(pictures: Sequence[Given]) -> list[str]:
    """Return a name for each picture, each another: its file's, without the suffix."""
    from vizsynth.cli.photos import distinct_names

    return distinct_names(picture.path for picture in pictures)


# What the library says --------------------------------------------------------------


def warn_of_small_styles(net: Any, styles: Sequence[tuple[Path, Size]], layers: Sequence[str]) -> None:
    """Say it once where a neuron sees more than there is of a style."""
    from vizsynth.replay.fields import field_size

    for path, size in styles:
        for layer in layers:
            field = field_size(net, layer)
            if max(field) == math.inf:  # no map: that is no style's layer, as the library will say
                continue
            if size[0] < field[0] or size[1] < field[1]:
                warnings.warn(
                    f"{path.name} is {size[0]}x{size[1]} pixels here, less than the {field[0]:.0f}x"
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


def numbers_between_commas(
    context: click.Context, parameter: click.Parameter, typed: str | None
) -> list[float] | None:
    """Return the numbers of an option: 3,1."""
    try:
        return None if typed is None else [float(part) for part in typed.split(",")]
    except ValueError:
        message = f"{typed!r} is no list of numbers; give one for each style, between commas: 3,1"
        raise click.BadParameter(message, context, parameter) from None


def loss_summary(trace: Any) -> dict[str, float]:
    """Return the first, least and last loss of a run, for numbers.json."""
    import numpy as np

    found = np.asarray(trace)[0]
    found = found[np.isfinite(found)]
    if not found.size:
        return {}
    return {"first": float(found[0]), "least": float(found.min()), "last": float(found[-1])}
