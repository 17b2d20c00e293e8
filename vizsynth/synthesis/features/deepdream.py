"""DeepDream: a network exaggerates what it sees in a picture.

Mordvintsev, Olah & Tyka, Inceptionism: Going Deeper into Neural Networks, 2015, and the code published with
it. The picture is shrunk to ever smaller octaves; from the smallest up, each is dreamt on, and what the dream
added to it (the detail) is enlarged and laid over the next.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count, keys_for
from vizsynth.core.entry import as_images, check_key, entry, is_on_host
from vizsynth.core.pytrees import pytree
from vizsynth.devices.rows import roll_of
from vizsynth.images import Pixels, transform_affine
from vizsynth.scores import LayerNorm, _Algebra
from vizsynth.taps import evaluate, features, run
from vizsynth.types import Activations, Images, Keys, Network, Synthesis, Target

Number = float | Float[Array, ""]
Guides = Float[Array, "m h2 w2 3"]
Size = tuple[int, int]
_AT_ONCE = 1024  # positions whose products with all of a guide's are in memory at one time


@pytree
@dataclass(frozen=True)
class Guided(_Algebra):
    """Σ_p max_q ⟨A_p, Y_q⟩: the gradient at each position p is the guide's Y_q of the largest product.

    `features` are Y: what the layer is for another picture, `[..., c]`, all their positions taken together.
    """

    layer: str = field(metadata={"static": True})
    features: Any

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer that is read."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Float[Array, " n"]:
        """Return the sum in each image."""
        A = activations[self.layer]
        Y = jnp.asarray(self.features, A.dtype)
        if Y.shape[-1] != A.shape[-1]:
            raise ValueError(f"{self.layer} has {A.shape[-1]} channels, and its guide {Y.shape[-1]}")
        Y = Y.reshape(-1, Y.shape[-1])

        def best(a: Float[Array, " c"]) -> Int[Array, ""]:
            return jnp.argmax(jnp.matmul(Y, a, precision="highest"))

        positions = jax.lax.stop_gradient(A).reshape(-1, A.shape[-1])
        q = jax.lax.map(best, positions, batch_size=_AT_ONCE)
        chosen = jax.lax.stop_gradient(Y[q]).reshape(A.shape)
        return (A * chosen).sum(axis=tuple(range(1, A.ndim)))


class Dream(NamedTuple):
    """Where a dream stands between two steps, a leaf an image. Its arrays do not change their shape."""

    canvas: Images
    """The picture at the size of its octave in the upper left corner; zeros beside it."""
    octave: Int[Array, " n"]
    """Whose picture it is, from the smallest, 0, on."""
    step: Int[Array, " n"]
    """How many steps were taken, in all octaves together."""
    key: Keys


def octave_sizes(size: Size, octaves: int, octave_scale: float) -> tuple[Size, ...]:
    """Return the (height, width) of the octaves, the smallest first; each is rounded from the next.

    >>> octave_sizes((100, 150), 3, 1.4)
    ((51, 76), (71, 107), (100, 150))
    """
    sizes = [size]
    for _ in range(octaves - 1):
        h, w = sizes[-1]
        sizes.append((round(h / octave_scale), round(w / octave_scale)))
    return tuple(reversed(sizes))


def interpolate(images: Pixels, size: Size) -> Float[Array, "*batch h2 w2 c"]:
    """Resize linearly, corner pixels to corner pixels, without smoothing: SciPy's `zoom(order=1)`.

    At sizes where rounding takes SciPy past the last pixel, it gives zeros there; here it is the last pixel.

    >>> interpolate(jnp.asarray([0.0, 2.0]).reshape(1, 2, 1), (1, 3))[0, :, 0].tolist()
    [0.0, 1.0, 2.0]
    """
    for axis, after in zip((images.ndim - 3, images.ndim - 2), size, strict=True):
        before = images.shape[axis]
        if before == after:
            continue
        at = np.linspace(0, before - 1, after)
        low = np.minimum(at.astype(int), max(before - 2, 0))
        high = np.minimum(low + 1, before - 1)
        shape = [1] * images.ndim
        shape[axis] = after
        part = jnp.asarray((at - low).reshape(shape), images.dtype)
        images = jnp.take(images, low, axis) * (1 - part) + jnp.take(images, high, axis) * part
    return images


def _objective(net: Network, target: Any, layer: str | None, guide: Guides | None) -> Any:
    if layer is None:
        return target
    return LayerNorm(layer) if guide is None else Guided(layer, features(net, guide, (layer,))[layer])


@jax.jit
def _tried(net: Network, images: Images, target: Any) -> Any:
    """Return the score and all it is made of: what is looked at before anything is compiled."""
    return evaluate(net, images, target), run(net, images, target.layers)[1]


def _try(net: Any, shape: tuple[int, ...], dtype: Any, target: Any) -> None:
    """Raise if the network does not take pictures of a shape, or cannot be scored so."""
    value, seen = _tried.eval_shape(net, jax.ShapeDtypeStruct(shape, dtype), target)
    if value.shape != shape[:1]:
        raise ValueError(f"the score must be one number an image, not an array {value.shape}")
    if empty := [name for name, a in seen.items() if 0 in a.shape]:
        raise ValueError(f"nothing is left of a picture of {shape[1]}x{shape[2]} at layer {empty[0]}")


def _check_octaves(net: Any, images: Any, target: Any, octaves: int, octave_scale: float) -> None:
    n, h, w, c = images.shape
    _try(net, (n, h, w, c), images.dtype, target)  # where even this is refused, it is not for the octaves
    for fit, size in enumerate(reversed(octave_sizes((h, w), octaves, octave_scale))):
        try:
            _try(net, (n, *size, c), images.dtype, target)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{octaves} octaves make {h}x{w} pixels too small for this network: of {size[0]}x{size[1]} "
                f"it says: {error}. {fit} octave{'s' if fit > 1 else ''} would fit: give octaves={fit}, "
                "larger images, or an octave_scale nearer to 1"
            ) from None


def _check(
    net: Any,
    images: Any,
    target: Any,
    key: Any,
    layer: Any,
    guide: Any,
    octaves: int,
    octave_scale: float,
    steps: int,
    step_size: Any,
    jitter: Any,
    take: int | None,
    state: Any,
) -> None:
    check_count(octaves, "octaves")
    check_count(steps, "steps")
    if take is not None and (isinstance(take, bool) or not isinstance(take, int) or take < 0):
        raise ValueError(f"take must be an integer of at least 0, not {take!r}")
    if not 1 < octave_scale < math.inf:
        raise ValueError(
            f"octave_scale must be above 1, not {octave_scale}: each octave is that much smaller"
        )
    if is_on_host(step_size) and not 0 < np.asarray(step_size) < np.inf:
        raise ValueError(f"step_size must be above 0, in units of intensity, not {step_size}")
    whole = not is_on_host(jitter) or np.issubdtype(np.asarray(jitter).dtype, np.integer)
    if not whole or (is_on_host(jitter) and np.asarray(jitter) < 0):
        raise ValueError(f"jitter must be a whole number of pixels, at least 0, not {jitter}")
    if (target is None) == (layer is None):
        given = "neither" if layer is None else "both"
        raise TypeError(f"say what to dream of, by a target or by layer=NAME: {given} came")
    if guide is not None and layer is None:
        raise TypeError("a guide needs the layer that it is compared at: layer=NAME")
    if state is None and key is None:
        raise TypeError("a dream that begins needs a key: key=jax.random.key(seed)")
    if state is None:
        keys_for(key, len(images))
    elif not isinstance(state, Dream) or state.canvas.shape != images.shape:
        found = state.canvas.shape if isinstance(state, Dream) else type(state).__name__
        raise ValueError(f"state must be of a dream of these images {images.shape}, not {found}")
    score = LayerNorm(layer) if layer is not None else target
    if guide is not None:
        guide = as_images(guide, name="guide")
        _try(net, guide.shape, guide.dtype, score)
    _check_octaves(net, images, score, octaves, octave_scale)


def _where(condition: Array, yes: Array, no: Array) -> Array:
    """Choose image by image."""
    return jnp.where(condition.reshape(-1, *(1,) * (yes.ndim - 1)), yes, no)


def ascend(
    net: Network, x: Images, target: Any, keys: Keys, step_size: Number, jitter: int | Int[Array, ""]
) -> tuple[Images, Float[Array, " n"]]:
    """Return roll, x ← x + step_size g / mean|g|, unroll, clip to [0, 1]; and the objective before it."""
    shift = jax.vmap(lambda key: jax.random.randint(key, (2,), -jitter, jitter + 1))(keys)
    roll = roll_of(net)
    rolled = jax.vmap(lambda x, s: roll(x, (s[0], s[1])))(x, shift)

    def total(rolled: Images) -> tuple[Array, Array]:
        values = evaluate(net, rolled, target)
        return values.sum(), values

    (_, values), g = jax.value_and_grad(total, has_aux=True)(rolled)
    mean = jnp.abs(g).mean(axis=(1, 2, 3), keepdims=True)
    length = jnp.asarray(step_size, x.dtype) / jnp.where(mean > 0, mean, jnp.ones_like(mean))
    moved = rolled + length * g
    unrolled = jax.vmap(lambda x, s: roll(x, (-s[0], -s[1])))(moved, shift)
    return jnp.clip(unrolled, 0, 1), values.astype(x.dtype)


@entry(static=("layer", "octaves", "octave_scale", "steps", "take"), check=_check, many=True)
def deepdream(
    net: Network,
    images: Images,
    target: Target | None = None,
    *,
    key: Keys | None = None,
    layer: str | None = None,
    guide: Guides | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    step_size: Number = 1.5 / 255,
    jitter: int | Int[Array, ""] = 32,
    take: int | None = None,
    state: Dream | None = None,
) -> Synthesis:
    """Dream: x ← clip(x + η g / mean|g|), g = ∇_x ½ Σ A(x)², on ever larger octaves of the picture.

    Octave k begins with x = b_k + up(x' − b_{k−1}): its own shrunk picture b_k and what the dream added to
    the one before. Before each step the picture is rolled by some pixels, and unrolled after it.

    Args:
        target: what is maximized, a score (`vizsynth.scores`): `LayerNorm("relu4_3")`, or a sum of several
            layers, channels, ...; a label means its logit.
        key: for the jitter: one for all images, or one an image. It may be left out where a state is given.
        layer: in the place of a target: ½ Σ A² of this layer, as in the paper.
        guide: pictures `[m, h', w', 3]` to dream of: the gradient at each position of `layer` is not A itself
            but, of all the guides' feature vectors, the one with the largest product with A (`Guided`).
        octaves: how many sizes, that of the images being the last.
        octave_scale: how much larger each is than the one before, above 1.
        steps: on each octave.
        step_size: η, how much a value changes on average, in units of intensity (its code has 1.5 of 255).
        jitter: up to how many pixels the picture is rolled, along each axis.
        take: how many steps to take now, of the octaves * steps in all; None means all.
        state: of an earlier result, to go on from, with the same images and settings. It holds its own keys.

    Returns:
        The pictures `[n, h, w, 3]` in [0, 1]; the objective at each of the `take` steps (NaN where none was
        left to take); and the state. Within a smaller octave, the picture is the image with the detail so far
        enlarged over it. Where a step gives NaN or infinity, its image stands still before it. A dream in
        parts equals one at once, bit for bit, and `vizsynth.ascent.chunks` takes it:
        `chunks(lambda state, take: deepdream(net, images, layer=layer, key=key, state=state, take=take),
        steps=40, every=10)` gives a picture after each octave. Departure: a gradient of zeros is no step; the
        paper's code divides by zero.

    Raises:
        TypeError, ValueError: images, a target, a layer or a guide that the network cannot take; octaves too
            many for its smallest picture (the message says how many fit); octave_scale not above 1; octaves
            or steps below 1; step_size not above 0; a negative jitter; no key; the state of other images.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 24, 24, 3))
        >>> dream = vizsynth.deepdream(net, images, layer="conv1", key=jax.random.key(2), octaves=2, steps=3)
        >>> dream.images.shape, dream.trace.shape
        ((1, 24, 24, 3), (1, 6))
    """
    n, h, w, _ = images.shape
    score = _objective(net, target, layer, guide)
    sizes = octave_sizes((h, w), octaves, octave_scale)
    bases = [images]
    for size in reversed(sizes[:-1]):
        bases.insert(0, interpolate(bases[0], size))
    if state is None:
        none = jnp.zeros_like(images, jnp.int32, shape=(n,))
        state = Dream(jnp.zeros_like(images), none, none, keys_for(cast(Keys, key), n))
    canvas, octave, step, keys = state
    take = octaves * steps if take is None else take
    start, end = step, jnp.minimum(step + take, octaves * steps)
    trace = jnp.full_like(images, jnp.nan, shape=(n, take))
    pictures = images

    for k, (size, base) in enumerate(zip(sizes, bases, strict=True)):
        begins = (step == k * steps) & (step < end)
        first = base
        if k > 0:
            begins &= octave == k - 1
            before = canvas[:, : sizes[k - 1][0], : sizes[k - 1][1]]
            first = base + interpolate(before - bases[k - 1], size)
        x = _where(begins, first, canvas[:, : size[0], : size[1]])
        octave = jnp.where(begins, k, octave)

        def one(t: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, step, trace = carry
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            after, values = ascend(net, x, score, step_keys, step_size, jitter)
            good = jnp.isfinite(values) & jnp.isfinite(after).all(axis=(1, 2, 3))
            good &= (step == t) & (t < end)  # not those that stand still
            place = jnp.where(good, t - start, take)
            trace = trace.at[jnp.arange(n), place].set(values, mode="drop")
            return _where(good, after, x), step + good.astype(step.dtype), trace

        low, high = (jnp.clip(t, k * steps, (k + 1) * steps) for t in (step.min(), end.max()))
        x, step, trace = jax.lax.fori_loop(low, high, one, (x, step, trace))

        padding = ((0, 0), (0, h - size[0]), (0, w - size[1]), (0, 0))
        canvas = _where(octave == k, jnp.pad(x, padding), canvas)
        # The last octave is the picture; an earlier one, its detail over the image.
        seen = x if size == (h, w) else images + interpolate(x - base, (h, w))
        pictures = _where((octave == k) & (step > 0), jnp.clip(seen, 0, 1), pictures)
    return Synthesis(pictures, trace, Dream(canvas, octave, step, keys))


# The endless zoom ---------------------------------------------------------------


@jax.jit
def zoomed(images: Images, zoom: Number) -> Images:
    """Return the middle 1 − zoom of each side, enlarged to the whole.

    >>> zoomed(jnp.ones((1, 8, 8, 3)), 0.05).shape
    (1, 8, 8, 3)
    """
    s = jnp.asarray(zoom, images.dtype)
    # The code's fixed point is (h/2, w/2) in pixel numbers, half a pixel past the middle.
    matrix = (1 - s) * jnp.eye(2, dtype=images.dtype)
    return transform_affine(images, matrix, offset=jnp.stack([s, s]) / 2)


def deepdream_zoom(
    net: Network,
    images: Images,
    target: Target | None = None,
    *,
    key: Keys,
    frames: int = 100,
    zoom: Number = 0.05,
    done: int = 0,
    layer: str | None = None,
    guide: Guides | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    step_size: Number = 1.5 / 255,
    jitter: int | Int[Array, ""] = 32,
) -> Iterator[Images]:
    """Give frame after frame: x_{i+1} = zoom(dream(x_i)), each dream of the one before, a little enlarged.

    A generator on the host: each frame is given out as soon as it is dreamt (all are one program), and
    `vizsynth.files.write_animation` makes a film of them.

    Args:
        images: float RGB in [0, 1], `[n, h, w, 3]`: what the first frame is dreamt of.
        target: as for `deepdream`, as are layer, guide, octaves, octave_scale, steps, step_size, jitter.
        key: for the jitter: one for all images, or one an image; each frame folds it anew.
        frames: how many in all.
        zoom: s, the share of each side that is cut off between two frames, in [0, 1).
        done: how many frames there are already; `images` are then the last of them, and it goes on from there
            as if it had never stopped.

    Returns:
        An iterator over frames `[n, h, w, 3]` in [0, 1], the first the dream of the images themselves.

    Raises:
        TypeError, ValueError: as from `deepdream`; frames below 1; zoom outside [0, 1); done negative.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 24, 24, 3))
        >>> film = vizsynth.deepdream_zoom(
        ...     net, images, layer="conv1", key=jax.random.key(2), frames=2, octaves=1, steps=1
        ... )
        >>> [frame.shape for frame in film]
        [(1, 24, 24, 3), (1, 24, 24, 3)]
    """
    check_count(frames, "frames")
    if isinstance(done, bool) or not isinstance(done, int) or done < 0:
        raise ValueError(f"done must be a number of frames, at least 0, not {done!r}")
    if is_on_host(zoom) and not 0 <= np.asarray(zoom) < 1:
        raise ValueError(f"zoom must be a share of each side, in [0, 1), not {zoom}")
    images = as_images(images)
    check_key(key, several=True)
    keys = keys_for(key, len(images))

    def dreamt() -> Iterator[Images]:
        x = images
        for i in range(done, frames):
            x = zoomed(x, zoom) if i > 0 else x
            x = deepdream(
                net,
                x,
                target,
                key=jax.vmap(jax.random.fold_in, (0, None))(keys, i),
                layer=layer,
                guide=guide,
                octaves=octaves,
                octave_scale=octave_scale,
                steps=steps,
                step_size=step_size,
                jitter=jitter,
            ).images
            yield x

    return dreamt()
