"""The door of every public function: check what comes in, then run the compiled program.

A call returns at once, as a jitted function does. Values of host arrays are checked before they go to a
device; values on a device, and tracers inside a caller's `jit`, `vmap` or `grad`, are not:
`vizsynth.check` checks them. Shapes, dtypes and keys are always checked.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vizsynth.core.pytrees import pytree
from vizsynth.ops import Ops, accelerated, prepare
from vizsynth.scores import Class, labels_in
from vizsynth.types import Images, Key, Network, Tap, Target

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
    check_images: Callable[[Any], Any] | None = None,
    score: Callable[[Any], Any] = Class,
    many: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public function of a pure one: jitted at definition, its arguments checked.

    Arguments called `net`, `images`, `image`, `target`, `labels` and `key` are checked and brought to one
    form wherever they occur: `target` reaches the function as a score. A `key` that is annotated as `Key` is
    one; as `Keys`, one or one per image. A radius, `epsilon`, is never rounded up. The result is NaN for an
    image whose label on a device is outside the network's classes, or whose heatmap there is not finite.

    Args:
        static: the arguments that are structure (layer names, steps, sizes); another value of one of
            them compiles anew. All others are traced.
        check: raises for wrong arguments, before compilation; it is called with the arguments that it names.
        check_images: raises for wrong images on the host, before they go to a device.
        score: what a bare label means.
        many: whether `net` runs so often that transforming its kernels pays.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        needed = [name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty]
        annotation = getattr(signature.parameters.get("key"), "annotation", None)
        one_key = annotation in (Key, Key | None)
        checked = _named_by(check, signature) if check else []
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
            unseen = _check_common(given, score, check_images)
            for name in static:
                given[name] = hashable(given[name])
            if check is not None:
                check(**{name: given[name] for name in checked})
            if "epsilon" in given:
                given["epsilon"] = _rounded_down(given["epsilon"])
            result = compiled(*bound.args, **bound.kwargs)
            return _nan_where_wrong(result, given, unseen)

        call.compiled = compiled  # type: ignore[attr-defined]  # how a test counts its programs
        return call

    return decorate


def _named_by(check: Callable[..., None], signature: inspect.Signature) -> list[str]:
    """Return the arguments that a check names; all of them if it takes any keyword."""
    named = inspect.signature(check).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in named.values())
    return [name for name in signature.parameters if anything or name in named]


def _on_cpu(function: Callable[..., Any], choose: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return the function with the arithmetic of its networks chosen first, outside all loops."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*choose(args), **choose(kwargs))

    return call


def _check_common(
    given: dict[str, Any], score: Callable[[Any], Any], check_images: Callable[[Any], Any] | None
) -> list[Array]:
    """Bring the arguments to one form; return the labels that were not looked at."""
    if "net" in given:
        given["net"] = as_network(given["net"])
    unit_range = standardizes(given.get("net"))
    if "images" in given:
        images = _checked_images(given["images"], unit_range, "images")
        if check_images is not None and is_on_host(images):
            check_images(images)
        given["images"] = jnp.asarray(images)
    if "image" in given:
        given["image"] = as_image(given["image"], unit_range=unit_range)
    unseen: list[Array] = []
    for name in ("target", "labels"):
        if name in given and given[name] is not None:
            n = _count(given)
            given[name] = as_score(given[name], given.get("net"), n, given.get("images"), score)
            unseen += [label for label in labels_in(given[name]) if not is_on_host(label)]
            if name == "labels":
                given[name] = jnp.broadcast_to(given[name].label, (n,))
    if callable(transform := given.get("transform")):
        given["transform"] = as_pytree(transform)
    return unseen


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


def hashable(value: Any) -> Any:
    """Return a static argument as one that equals another of the same parts, so that it compiles once."""
    if isinstance(value, list):
        return tuple(hashable(v) for v in value)
    if isinstance(value, partial):
        return _Partial(value.func, value.args, tuple(sorted(value.keywords.items())))
    return value


def _rounded_down(radius: Any) -> Any:
    """Return a radius in the precision that JAX gives to numbers, but never one larger than it came."""
    if isinstance(radius, jax.Array):
        return radius
    exact = np.asarray(radius, np.float64)
    rounded = exact.astype(jax.dtypes.canonicalize_dtype(np.float64))
    return np.where(rounded > exact, np.nextafter(rounded, np.zeros_like(rounded)), rounded)


def is_on_host(value: Any) -> bool:
    """Tell whether the values are on the host: neither an array on a device nor a tracer."""
    return not isinstance(value, jax.Array)


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


def standardizes(net: Any) -> bool:
    """Tell whether the network takes images in [0, 1], and subtracts the mean itself."""
    return getattr(net, "standardize", None) is not None


def as_images(images: Any, *, unit_range: bool = True, name: str = "images") -> Array:
    """Return the batch of images as an array, or say what is wrong with it.

    Raises:
        TypeError: integers.
        ValueError: another shape than `[n, h, w, 3]`; no image. Of images on the host also: NaN or
            infinity; values that are not of the range [0, 1] (some slack is left for noise: they must
            lie in [-1, 2]).
    """
    return jnp.asarray(_checked_images(images, unit_range, name))


def as_image(image: Any, *, unit_range: bool = True, name: str = "image") -> Array:
    """Return one image `[h, w, 3]` as an array, or say what is wrong with it."""
    return jnp.asarray(_checked_image(image, unit_range, name))


def _checked_images(images: Any, unit_range: bool, name: str) -> Array | np.ndarray:
    images = np.asarray(images) if is_on_host(images) else images
    if images.ndim == 3 and images.shape[-1] == 3:
        raise ValueError(f"{name} must be [n, h, w, 3], not one image {images.shape}; give {name}[None]")
    if images.ndim != 4 or images.shape[-1] != 3:
        hint = ""
        if images.ndim == 4 and images.shape[1] == 3:
            hint = f"; they look like [n, 3, h, w]: give {name}.transpose(0, 2, 3, 1)"
        elif images.ndim == 4 and images.shape[-1] in (1, 4):
            hint = "; make them RGB first (vizsynth.read_image does)"
        raise ValueError(f"{name} must be [n, h, w, 3], not {tuple(images.shape)}{hint}")
    return _checked_pixels(images, unit_range, name)


def _checked_image(image: Any, unit_range: bool, name: str) -> Array | np.ndarray:
    image = np.asarray(image) if is_on_host(image) else image
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"{name} must be [h, w, 3], not {tuple(image.shape)}")
    return _checked_pixels(image, unit_range, name)


def _checked_pixels(images: Any, unit_range: bool, name: str) -> Array | np.ndarray:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be float in [0, 1], not {images.dtype}; give {name}.astype('float32') / 255"
        )
    if 0 in images.shape:
        raise ValueError(f"{name} {tuple(images.shape)} hold no pixel")
    if is_on_host(images):
        check_values(images, unit_range, name)
    return images


def check_values(images: Any, unit_range: bool, name: str) -> None:
    """Raise unless the pixels are finite and, for a network that standardizes, about in [0, 1].

    Arrays on a device are reduced there, and waited for.
    """
    low, high = float(images.min()), float(images.max())  # NaN if any pixel is
    if not np.isfinite([low, high]).all():
        broken = int((~(np if is_on_host(images) else jnp).isfinite(images)).sum())
        raise ValueError(f"{name} hold {broken} values that are NaN or infinite; mend them first")
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
        ValueError: a label on the host that the network has no class for; a number of labels other than n.
    """
    if not callable(target):
        target = score(_as_labels(target, n))
    for label in labels_in(target):
        if is_on_host(label):
            check_labels(label, net, images)
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


def _classes(net: Any, images: Any) -> int | None:
    """Return how many classes the network has; None where that cannot be told."""
    if net is None or hasattr(net, "num_classes"):
        return getattr(net, "num_classes", None)  # None for a trunk: the tap says that there are no logits
    return None if images is None else _outputs.eval_shape(net, images).shape[-1]


def check_labels(label: Any, net: Any, images: Any) -> None:
    """Raise if a label is outside of the network's classes. One on a device is waited for."""
    classes = _classes(net, images)
    if classes is None:
        return
    values = np.asarray(label)
    if values.min() < 0 or values.max() >= classes:
        wrong = sorted({int(v) for v in values.reshape(-1) if not 0 <= v < classes})
        raise ValueError(f"label {wrong} is outside the network's {classes} classes 0..{classes - 1}")


def _nan_where_wrong(result: R, given: dict[str, Any], labels: list[Array]) -> R:
    """Return the result, NaN for each image whose label or heatmap is wrong and was not seen at the door."""
    classes = _classes(given.get("net"), given.get("images")) if labels else None
    labels = [] if classes is None else labels
    heatmaps = [] if is_on_host(given.get("heatmaps")) else [given["heatmaps"]]
    return _nan_unless_sound(result, labels, heatmaps, classes or 0) if labels or heatmaps else result


@partial(jax.jit, static_argnames="classes")
def _nan_unless_sound(result: Any, labels: list[Array], heatmaps: list[Array], classes: int) -> Any:
    sound = [jnp.isfinite(maps).all(axis=(1, 2)) for maps in heatmaps]
    for label in labels:
        if label.dtype.itemsize < 4:  # a byte cannot hold 1000 classes
            label = label.astype(jnp.int32)
        sound.append((label >= 0) & (label < classes))

    def masked(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        for mask in sound:
            # The axis of images is the first or the second: both if both have their number; all if neither.
            axes = [i for i, size in enumerate(leaf.shape[:2]) if mask.shape == (size,)]
            for i in axes:
                mine = mask.reshape([-1 if i == k else 1 for k in range(leaf.ndim)])
                leaf = jnp.where(mine, leaf, jnp.nan)
            if not axes:
                leaf = jnp.where(mask.all(), leaf, jnp.nan)
        return leaf

    return jax.tree.map(masked, result)


def check(net: Network, images: Images, target: Target = None) -> None:
    """Raise where images or labels are not what the network takes, on a device too.

    Every function tells of NaN, of images in 0..255 and of labels outside of the classes where it gets them
    as NumPy arrays, lists or numbers. Arrays on a device pass unseen, as looking at them waits until they
    are computed: this function does wait. Call it once before a long run, or after a result that is NaN.

    Returns:
        Nothing.

    Raises:
        TypeError, ValueError: as any function does for host arrays.
        jax.errors.ConcretizationTypeError: inside a caller's own `jit`, where there are no values.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.check(net, images, net(images).argmax(-1))
        >>> vizsynth.check(net, 255 * images)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: images must lie in [0, 1]; these span [...]; they look like 0..255: give images / 255
    """
    net = as_network(net)
    unit_range = standardizes(net)
    images = as_images(images, unit_range=unit_range)
    check_values(images, unit_range, "images")
    if target is not None:
        for label in labels_in(as_score(target, net, len(images), images)):
            check_labels(label, net, images)


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
