"""Names for the arrays, and the three protocols that everything else is written in.

Images are float RGB in [0, 1], laid out `[n, h, w, 3]`. A network standardizes them inside.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from jaxtyping import Key as KeyArray

Image = Float[Array, "h w 3"]
Images = Float[Array, "n h w 3"]
Labels = Int[Array, " n"]
Logits = Float[Array, "n classes"]
Heatmaps = Float[Array, "n rows columns"]
Maps = Float[Array, "n rows columns k"]  # the activations A^k of a layer
Key = PRNGKeyArray
Keys = KeyArray[Array, "..."]  # one for all images, or one an image
Activations = Mapping[str, Float[Array, "..."]]


@runtime_checkable
class Tap(Protocol):
    """Reads, and may replace, the value of one named layer."""

    def __call__(self, name: str, value: Any, /) -> Any: ...  # noqa: D102


@runtime_checkable
class Network(Protocol):
    """A function of images that taps its named layers and does its arithmetic through `ops`.

    `net(images, tap=..., ops=...)` returns the logits (a trunk: its last features). The networks of
    `vizsynth.models` also have `layers`, `labels` and `num_classes`.
    """

    def __call__(self, images: Any, *, tap: Tap = ..., ops: Any = ...) -> Any: ...  # noqa: D102


@runtime_checkable
class Score(Protocol):
    """What is explained or maximized: one number an image, from the activations it names.

    A score is a pytree: its numbers (a label, a channel) are leaves, its layer names are not.
    """

    @property
    def layers(self) -> tuple[str, ...]: ...  # noqa: D102

    def __call__(self, activations: Activations, /) -> Shaped[Array, " n"]: ...  # noqa: D102


Value = Any
"""What flows through a network: an array, or what a table of `ops` computes in its place."""

Target = Any
"""A label, one label an image, or a score. Public functions take any; their bodies see a score."""


class Synthesis(NamedTuple):
    """What a method that optimizes pictures returns."""

    images: Images
    """The pictures, in [0, 1]."""
    trace: Float[Array, "n steps"]
    """The objective at the beginning of each step. If a step gives NaN or infinity, the trace is NaN from
    there on, and the picture is that of the step before: give a smaller learning rate or penalty."""
    state: Any
    """Where the run stands (`vizsynth.ascent.State`, one a picture): given back, it goes on from there."""
