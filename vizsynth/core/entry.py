"""The door of every public function: check what comes in, then run the compiled program.

Checks look at values only where there are values: inside a caller's own `jit`, `vmap` or `grad` the
arguments are tracers and pass unseen.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vizsynth.core.pytrees import pytree
from vizsynth.ops import Ops, accelerated, prepare
from vizsynth.scores import Class, labels_in
from vizsynth.types import Key, Network, Tap

P = ParamSpec("P")
R = TypeVar("R")

# Images lie in [0, 1]. Noise and optimization carry them a little outside; 0..255 and standardized
# images lie far outside.
_LOWEST, _HIGHEST = -1.0, 2.0

# What to give for an argument that has no default.
_PREDICTED = "net(images).argmax(axis=-1) are the labels that the network predicts"
_REMEDIES = {
    "net": "a network, vizsynth.load(NAME)",
    "images": "float RGB in [0, 1], [n, h, w, 3]",
    "image": "float RGB in [0, 1], [h, w, 3]",
    "target": f"a label, one label an image, or a score (vizsynth.scores); {_PREDICTED}",
    "labels": f"a label, or one label an image; {_PREDICTED}",
    "key": "jax.random.key(seed)",
    "layer": "the name of a layer, one of net.layers",
    "layers": "names of layers, of net.layers",
}


def entry(
    *,
    static: Sequence[str] = (),
    check: Callable[..., None] | None = None,
    verify: Callable[[Any], None] | None = None,
    score: Callable[[Any], Any] = Class,
    many: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public function of a pure one: jitted at definition, its arguments checked.

    Arguments called `net`, `images`, `image`, `target`, `labels` and `key` are checked and brought to one
    form wherever they occur: `target` reaches the function as a score. A `key` that is annotated as `Key` is
    one; as `Keys`, one or one an image. A radius, `epsilon`, is never rounded up.

    Args:
        static: the arguments that are structure (layer names, steps, sizes); another value of one of
            them compiles anew. All others are traced.
        check: called with the arguments by name before anything is compiled; it raises.
        verify: called with the result where it has values; it warns or raises.
        score: what a bare label means.
        many: whether so many passes of `net` are made that its kernels are worth a transformation.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        needed = [name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty]
        annotation = getattr(signature.parameters.get("key"), "annotation", None)
        one_key = annotation in (Key, Key | None)
        compiled = jax.jit(_on_cpu(function, prepare if many else accelerated), static_argnames=static)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            for name in needed:
                if given[name] is None and name in _REMEDIES:
                    raise TypeError(f"{name} must be given, not None: {_REMEDIES[name]}")
            if given.get("key") is not None:
                check_key(given["key"], several=not one_key)
            _check_common(given, score)
            for name in static:
                given[name] = _hashable(given[name])
            if check is not None:
                check(**given)
            if "epsilon" in given:
                given["epsilon"] = _rounded_down(given["epsilon"])
            result = compiled(*bound.args, **bound.kwargs)
            if verify is not None and all(is_concrete(leaf) for leaf in jax.tree.leaves(result)):
                verify(result)
            return result

        call.compiled = compiled  # type: ignore[attr-defined]  # how a test counts its programs
        return call

    return decorate


def _on_cpu(function: Callable[..., Any], choose: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return the function with the arithmetic of its networks chosen before, outside of all loops."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*choose(args), **choose(kwargs))

    return call


def _check_common(given: dict[str, Any], score: Callable[[Any], Any]) -> None:
    if "net" in given:
        given["net"] = as_network(given["net"])
    standardized = getattr(given.get("net"), "standardize", None) is not None
    if "images" in given:
        given["images"] = as_images(given["images"], unit_range=standardized)
    if "image" in given:
        given["image"] = as_image(given["image"], unit_range=standardized)
    for name in ("target", "labels"):
        if name in given and given[name] is not None:
            n = _count(given)
            given[name] = as_score(given[name], given.get("net"), n, given.get("images"), score)
            if name == "labels":
                given[name] = jnp.broadcast_to(given[name].label, (n,))
    if callable(transform := given.get("transform")):
        given["transform"] = as_pytree(transform)


def _count(given: dict[str, Any]) -> int | None:
    """Return how many images there are; None where they are yet to be made."""
    if "images" in given:
        return len(given["images"])
    return 1 if "image" in given else None


class _Partial(NamedTuple):
    """A partial application that equals another of the same parts, so it does not compile anew."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, *args: Any) -> Any:
        return self.func(*self.args, *args, **dict(self.keywords))


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, functools.partial):
        return _Partial(value.func, value.args, tuple(sorted(value.keywords.items())))
    return value


def _rounded_down(radius: Any) -> Any:
    """Return a radius in the precision that JAX gives to numbers, but never one larger than it came."""
    if isinstance(radius, jax.Array):
        return radius
    exact = np.asarray(radius, np.float64)
    rounded = exact.astype(jax.dtypes.canonicalize_dtype(np.float64))
    return np.where(rounded > exact, np.nextafter(rounded, np.zeros_like(rounded)), rounded)


def is_concrete(value: Any) -> bool:
    """Tell whether there are values to look at."""
    return not isinstance(value, Tracer)


@pytree
@dataclass(frozen=True)
class Function:
    """A user's own function as a network: a pytree without leaves."""

    function: Callable[..., Any] = field(metadata={"static": True})
    arithmetic: Ops | None = field(metadata={"static": True})
    """The table that it computes with, its default for `ops`; None where it has none."""

    def __call__(self, images: Any, *, tap: Tap | None = None, ops: Ops | None = None) -> Any:
        """Return what the function returns."""
        given = {"tap": tap, "ops": self.arithmetic if ops is None else ops}
        return self.function(images, **{name: value for name, value in given.items() if value is not None})


def as_network(net: Any) -> Network:
    """Return the network as a pytree; a plain function becomes one without leaves."""
    if not callable(net):
        raise TypeError(f"net must be a network (vizsynth.load, vizsynth.models), not {_describe(net)}")
    if as_pytree(net) is net:
        return net
    table = inspect.signature(net).parameters.get("ops")
    return Function(net, table.default if table is not None and isinstance(table.default, Ops) else None)


def as_pytree(function: Any) -> Any:
    """Return a function as a pytree: one that is none of its own becomes one without leaves."""
    leaves = jax.tree.leaves(function)
    return jax.tree_util.Partial(function) if len(leaves) == 1 and leaves[0] is function else function


def as_images(images: Any, *, unit_range: bool = True, name: str = "images") -> Array:
    """Return the batch of images as an array, or say what is wrong with it.

    Raises:
        TypeError: integers.
        ValueError: another shape than `[n, h, w, 3]`; no image; NaN or infinity; values that are
            not of the range [0, 1] (some slack is left for noise: they must lie in [-1, 2]).
    """
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        images = np.asarray(images)
    if images.ndim == 3 and images.shape[-1] == 3:
        raise ValueError(f"{name} must be [n, h, w, 3], not one image {images.shape}; give {name}[None]")
    if images.ndim != 4 or images.shape[-1] != 3:
        hint = ""
        if images.ndim == 4 and images.shape[1] == 3:
            hint = f"; they look like [n, 3, h, w]: give {name}.transpose(0, 2, 3, 1)"
        elif images.ndim == 4 and images.shape[-1] in (1, 4):
            hint = "; make them RGB first (vizsynth.read_image does)"
        raise ValueError(f"{name} must be [n, h, w, 3], not {tuple(images.shape)}{hint}")
    _check_values(images, unit_range, name)
    return jnp.asarray(images)


def as_image(image: Any, *, unit_range: bool = True, name: str = "image") -> Array:
    """Return one image `[h, w, 3]` as an array, or say what is wrong with it."""
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"{name} must be [h, w, 3], not {tuple(image.shape)}")
    _check_values(image, unit_range, name)
    return jnp.asarray(image)


@jax.jit
def _extremes(values: Array) -> tuple[Array, Array, Array]:
    return values.min(), values.max(), (~jnp.isfinite(values)).sum()


def _check_values(images: Any, unit_range: bool, name: str) -> None:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be float in [0, 1], not {images.dtype}; give {name}.astype('float32') / 255"
        )
    if 0 in images.shape:
        raise ValueError(f"{name} {tuple(images.shape)} hold no pixel")
    if not is_concrete(images):
        return
    with jax.ensure_compile_time_eval():  # also where a caller traces around a constant
        low, high, broken = (float(v) for v in _extremes(images))
    if broken:
        raise ValueError(f"{name} hold {broken:.0f} values that are NaN or infinite; mend them first")
    if unit_range and (low < _LOWEST or high > _HIGHEST):
        remedy = (
            f"they look like 0..255: give {name} / 255"
            if low >= 0
            else "give them as they were before their mean was subtracted: the network standardizes "
            "inside (standardize=None makes one that does not)"
        )
        raise ValueError(f"{name} must lie in [0, 1]; these span [{low:.4g}, {high:.4g}]; {remedy}")


def as_score(
    target: Any, net: Any, n: int | None, images: Any = None, score: Callable[[Any], Any] = Class
) -> Any:
    """Return the target as a score: a label, or one label an image, becomes a `Class`, or `score`.

    Raises:
        TypeError: neither labels nor a score.
        ValueError: a label that the network has no class for; a number of labels other than n.
    """
    if not callable(target):
        target = score(_as_labels(target, n))
    for label in labels_in(target):
        _check_labels(label, net, images)
    return target


def _as_labels(target: Any, n: int | None) -> Array | np.ndarray:
    if isinstance(target, str):
        raise TypeError(
            f"a target is a label (an int), not {target!r}; "
            "vizsynth.models.find_class(net.labels, name) gives the label of a name"
        )
    try:
        # NumPy's, where they are no array of JAX's yet: they can be looked at within a caller's jit.
        labels = target if isinstance(target, jax.Array) else np.asarray(target)
    except (TypeError, ValueError):
        labels = None
    if labels is None or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"a target is one label, one label an image, or a score, not {_describe(target)}")
    if labels.ndim > 1 or (labels.ndim == 1 and n is not None and labels.shape[0] not in (1, n)):
        raise ValueError(
            f"{n} images take one label or {n} labels, not an array {labels.shape}; for several "
            "classes of the same images use jax.vmap over the labels"
        )
    return labels.reshape(()) if labels.ndim == 1 and labels.shape[0] == 1 else labels


@jax.jit
def _outputs(net: Any, images: Any) -> Any:
    """Return what the network returns: traced once for each kind, to look at its shape."""
    return net(images)


def _check_labels(label: Any, net: Any, images: Any) -> None:
    if not is_concrete(label):
        return
    classes = getattr(net, "num_classes", None)
    if classes is None:
        if net is None or images is None or hasattr(net, "num_classes"):
            return  # a trunk: the tap says that there are no logits
        classes = _outputs.eval_shape(net, images).shape[-1]
    values = np.asarray(label)
    if values.min() < 0 or values.max() >= classes:
        wrong = sorted({int(v) for v in values.reshape(-1) if not 0 <= v < classes})
        raise ValueError(f"label {wrong} is outside the network's {classes} classes 0..{classes - 1}")


def check_key(key: Any, *, several: bool = False) -> None:
    """Raise unless it is a key, and one where not several are taken.

    Raises:
        TypeError: no key, or one of the old style.
        ValueError: an array of keys where one is wanted, or one of several axes.
    """
    if not jnp.issubdtype(getattr(key, "dtype", np.dtype("O")), jax.dtypes.prng_key):
        raise TypeError(f"key must be a new-style key, jax.random.key(seed), not {_describe(key)}")
    if several and key.ndim > 1:
        raise ValueError(f"key must be one key, or one an image [n], not an array of keys {key.shape}")
    if not several and key.ndim:
        raise ValueError(
            f"key must be one key, not an array of keys {key.shape}: give one of them, or use jax.vmap over "
            "the keys for a result of each"
        )


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" {tuple(shape)}")
