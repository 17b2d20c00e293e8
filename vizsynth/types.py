"""Names for the arrays, and the three protocols of the library: network, tap and score.

Images are float RGB in [0, 1], `[n, h, w, 3]`. A network standardizes them inside.
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
Keys = KeyArray[Array, "..."]  # one for all images, or one per image
Activations = Mapping[str, Float[Array, "..."]]


@runtime_checkable
class Tap(Protocol):
    """Reads, and may replace, the value of a named layer."""

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
    """The number per image that is explained or maximized, computed from the activations it names.

    A score is a pytree: its numbers (a label, a channel) are leaves, its layer names are not.
    """

    @property
    def layers(self) -> tuple[str, ...]: ...  # noqa: D102

    def __call__(self, activations: Activations, /) -> Shaped[Array, " n"]: ...  # noqa: D102


Value = Any
"""A value inside a network: an array, or its substitute in another table of `ops`."""

Target = Any
"""One label, one label per image, or a score. Public functions take any; their bodies get a score."""


class Synthesis(NamedTuple):
    """The result of a method that optimizes pictures."""

    images: Images
    """The pictures, in [0, 1]."""
    trace: Float[Array, "n steps"]
    """The objective at the beginning of each step. If a step gives NaN or infinity, the trace is NaN from
    there on, and the picture is that of the step before: give a smaller learning rate or penalty."""
    state: Any
    """The state of the run (`vizsynth.ascent.State`, one per picture), to continue from it."""
