"""Multifaceted feature visualization: a picture for each kind of thing that a unit responds to.

Nguyen, Yosinski & Clune, Multifaceted Feature Visualization: Uncovering the Different Types of Features
Learned By Each Neuron in Deep Neural Networks, 2016. Algorithm 1: the images of a class are laid out by
their features (PCA to 50 dimensions, t-SNE to 2), the plane is divided by k-means, and activation
maximization begins at the mean of the 15 images nearest to the middle of each part. Section 2.4 has the
center-biased regularization: more steps near the middle of the picture than at its edges, so that one object
comes of it and not many pieces.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from vizsynth.core import chunks
from vizsynth.core.entry import as_images, as_network, entry
from vizsynth.core.pytrees import pytree
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.features.pictures import (
    Size,
    as_size,
    check_pictures,
    count,
    maximize,
)
from vizsynth.taps import features
from vizsynth.types import Image, Images, Key, Keys, Network, Synthesis, Target
from vizsynth.updates import Counted

Number = Any  # an int, a float or an array: a leaf

# Facets ------------------------------------------------------------------------------


class Facets(NamedTuple):
    """The kinds of images of a class, that of the most images first."""

    images: Float[np.ndarray, "k h w 3"]
    """Of each kind, the mean of the images nearest to its middle: where to begin."""
    nearest: Int[np.ndarray, "k m"]
    """Which images these are, the nearest first; -1 where a kind has fewer."""
    labels: Int[np.ndarray, " n"]
    """The kind of each image."""
    layout: Float[np.ndarray, "n 2"]
    """Where each image lies on the plane."""


def _check_clustering(n: int, count: int, nearest: int, components: int, perplexity: int | float) -> None:
    for value, name in ((count, "count"), (nearest, "nearest"), (components, "components")):
        chunks.check_count(value, name)
    if n < max(count, 3):
        raise ValueError(f"{n} images do not fall into {count} facets; give more images, or a smaller count")
    if not 0 < perplexity < n:
        raise ValueError(
            f"perplexity must be above 0 and below the number of images, {n}, not {perplexity}: it is about "
            "how many neighbours an image has"
        )


def _without_positions(values: Any) -> Float[np.ndarray, "n c"]:
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(f"values must be [n, c] or [n, h, w, c], not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinity")
    return values.mean(axis=tuple(range(1, values.ndim - 1)))


def facets_of(
    images: ArrayLike,
    values: ArrayLike,
    *,
    count: int = 10,
    nearest: int = 15,
    components: int = 50,
    perplexity: int | float = 30.0,
    seed: int = 0,
) -> Facets:
    """Divide images into facets by features that are there: as `facets`, whose arguments these are.

    `values` are one vector an image, `[n, c]`, or maps `[n, h, w, c]`, of which the mean over positions is
    taken.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> images = rng.uniform(size=(12, 4, 4, 3))
    >>> values = np.repeat([[0.0, 0.0], [9.0, 9.0]], 6, axis=0) + rng.normal(size=(12, 2))
    >>> found = facets_of(images, values, count=2, nearest=3, perplexity=4)
    >>> found.images.shape, found.nearest.shape, sorted(np.bincount(found.labels).tolist())
    ((2, 4, 4, 3), (2, 3), [6, 6])
    """
    pictures = np.asarray(as_images(images))
    vectors = _without_positions(values)
    n = len(pictures)
    if len(vectors) != n:
        raise ValueError(f"values must be of the images, {n} of them, not {len(vectors)}")
    _check_clustering(n, count, nearest, components, perplexity)
    try:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ModuleNotFoundError(
            'facets need scikit-learn: pip install "vizsynth[inspection]"', name="sklearn"
        ) from error
    if not vectors.std(axis=0).any():
        raise ValueError("the features of all images are the same; take another layer")
    reduced = PCA(min(components, *vectors.shape), svd_solver="full").fit_transform(vectors)
    # t-SNE begins at the two widest directions, and its random part is seeded.
    first = np.pad(reduced[:, :2], ((0, 0), (0, 2 - min(2, reduced.shape[1]))))
    first = (first / first[:, 0].std() * 1e-4).astype(np.float32)
    layout = TSNE(2, perplexity=perplexity, init=first, random_state=seed).fit_transform(reduced)
    found: Any = KMeans(count, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    means = found.fit(layout.astype(np.float64))
    order = np.argsort(-np.bincount(means.labels_, minlength=count), kind="stable")
    labels = np.argsort(order)[means.labels_]
    near = np.full((count, nearest), -1)
    starts = np.empty((count, *pictures.shape[1:]), pictures.dtype)
    for k, middle in enumerate(means.cluster_centers_[order]):
        members = np.flatnonzero(labels == k)
        away = np.linalg.norm(layout[members] - middle, axis=1)
        chosen = members[np.argsort(away, kind="stable")[:nearest]]
        near[k, : len(chosen)] = chosen
        starts[k] = pictures[chosen].mean(axis=0)
    return Facets(starts, near, labels, layout)


def facets(
    net: Network,
    images: ArrayLike,
    layer: str,
    *,
    count: int = 10,
    nearest: int = 15,
    components: int = 50,
    perplexity: int | float = 30.0,
    seed: int = 0,
    batch_size: int = 32,
) -> Facets:
    """Divide images into facets: Φ → PCA → t-SNE → k-means, and average the nearest of each (algorithm 1).

    It runs on the host, by scikit-learn (`pip install "vizsynth[inspection]"`).

    Args:
        images: of the class, or those that excite the unit most, `[n, h, w, 3]` in [0, 1].
        layer: whose features say how alike two images are, Φ. Of maps, the mean over positions is taken. The
            paper has fc7; of a network without it, the last maps (`fire9`).
        count: k, how many facets. The paper has 10 of 1300 images.
        nearest: of how many images the mean is taken.
        components: to how many dimensions PCA goes; fewer, where there are fewer images or features.
        perplexity: of t-SNE, below the number of images.
        seed: of t-SNE and k-means: the same seed gives the same facets.
        batch_size: how many images the network sees at once.

    Returns:
        The mean images to give to `vizsynth.visualize_facets`, which images they are of, the facet of each
        image, and the plane. The facet of the most images is the first.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: a layer that the network does not have; fewer images than facets; a perplexity that is not
            below the number of images; features that are all the same.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (8, 24, 24, 3))
        >>> found = vizsynth.facets(net, images, "conv1", count=2, nearest=3, perplexity=3)
        >>> found.images.shape
        (2, 24, 24, 3)
    """
    net, pictures = as_network(net), as_images(images)
    chunks.check_count(batch_size, "batch_size")
    _check_clustering(len(pictures), count, nearest, components, perplexity)
    parts = []
    for first in range(0, len(pictures), batch_size):
        # The last images are seen twice rather than in a batch of another size, which compiles anew.
        begin = max(0, min(first, len(pictures) - batch_size))
        maps = features(net, pictures[begin : begin + batch_size], (layer,))[layer]
        parts.append(_without_positions(maps)[first - begin :])
    return facets_of(
        pictures,
        np.concatenate(parts),
        count=count,
        nearest=nearest,
        components=components,
        perplexity=perplexity,
        seed=seed,
    )


# Pictures ----------------------------------------------------------------------------


@pytree
@dataclass(frozen=True)
class Phase:
    """Some steps of a run, and how its numbers change over them, from the first to the last."""

    steps: Number
    step_size: tuple[Number, Number]
    """How much a pixel of what the network sees changes on average, in units of intensity."""
    fidelity: tuple[Number, Number]
    """μ of the denoising: argmin_u Σ |∇u| + μ/2 ‖u − x‖² takes the place of x. The smaller, the smoother."""
    margin: Number = 0.0
    """The share of the picture's sides, at each edge, where nothing is drawn."""


PHASES = (
    Phase(190, (1 / 255, 2 / 255), (255 * 0.4, 255 * 0.8)),
    Phase(150, (1 / 255, 1 / 255), (255 * 0.01, 255 * 2.01)),
    Phase(20, (2 / 255, 2 / 255), (255 * 0.1, 255 * 2.1), margin=0.27),
    Phase(10, (2 / 255, 2 / 255), (255 * 0.4, 255 * 2.4)),
)
"""Those of the authors' code for runs that begin with mean images, on pixels of 0..1."""


def shortened(phases: tuple[Phase, ...], share: float) -> tuple[Phase, ...]:
    """Return the phases with a share of their steps, at least one each.

    >>> [phase.steps for phase in shortened(PHASES, 0.1)]
    [19, 15, 2, 1]
    """
    return tuple(
        Phase(max(1, round(float(p.steps) * share)), p.step_size, p.fidelity, p.margin) for p in phases
    )


def _numbers(phases: tuple[Phase, ...], step: Int[Array, ""], dtype: Any) -> tuple[Array, ...]:
    """Return step size, fidelity and margin of a step; past the last phase its last."""
    begins = [jnp.asarray(0, dtype)]
    for phase in phases:
        begins.append(begins[-1] + jnp.asarray(phase.steps, dtype))
    at, found = step.astype(dtype), ()
    for phase, begin, end in reversed(list(zip(phases, begins[:-1], begins[1:], strict=True))):
        length = jnp.where(end > begin, end - begin, jnp.ones_like(end))
        share = jnp.clip((at - begin) / length, 0, 1)
        size, fidelity = (
            jnp.asarray(a, dtype) + (jnp.asarray(b, dtype) - jnp.asarray(a, dtype)) * share
            for a, b in (phase.step_size, phase.fidelity)
        )
        mine = (size, fidelity, jnp.asarray(phase.margin, dtype))
        found = tuple(jnp.where(at < end, m, f) for m, f in zip(mine, found or mine, strict=True))
    return found


_DENOISING = 10
_DUAL_STEP = 0.125


def denoised(image: Image, fidelity: Number, *, iterations: int = _DENOISING) -> Image:
    """Return about argmin_u Σ_c Σ_ij |∇u_ijc| + μ/2 ‖u − x‖², by the dual iteration.

    Chambolle, An Algorithm for Total Variation Minimization and Applications, 2004: u = x − div p / μ, where
    p ← (p + τ ∇(div p − μ x)) / (1 + τ |∇(div p − μ x)|).

    >>> denoised(jnp.ones((4, 4, 3)), 2.0)[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    mu = jnp.asarray(fidelity, image.dtype)
    tau = jnp.asarray(_DUAL_STEP, image.dtype)

    def gradient(u: Array) -> tuple[Array, Array]:
        return jnp.pad(jnp.diff(u, axis=0), ((0, 1), (0, 0), (0, 0))), jnp.pad(
            jnp.diff(u, axis=1), ((0, 0), (0, 1), (0, 0))
        )

    def divergence(p: tuple[Array, Array]) -> Array:
        down = jnp.diff(jnp.pad(p[0][:-1], ((1, 1), (0, 0), (0, 0))), axis=0)
        right = jnp.diff(jnp.pad(p[1][:, :-1], ((0, 0), (1, 1), (0, 0))), axis=1)
        return down + right

    def iterate(p: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        down, right = gradient(divergence(p) - mu * image)
        damped = 1 + tau * jnp.sqrt(down * down + right * right)
        return ((p[0] + tau * down) / damped, (p[1] + tau * right) / damped), None

    p, _ = jax.lax.scan(iterate, (jnp.zeros_like(image), jnp.zeros_like(image)), None, length=iterations)
    return image - divergence(p) / mu


def _inside(shape: tuple[int, ...], margin: Array) -> Array:
    """Return 1 where a picture may be drawn on, 0 nearer to its edges than the margin: `[h, w, 1]`."""
    sides = []
    for side in shape[:2]:
        middle = (jnp.arange(side, dtype=margin.dtype) + 0.5) / side
        sides.append((jnp.minimum(middle, 1 - middle) >= margin).astype(margin.dtype))
    return (sides[0][:, None] * sides[1][None, :])[..., None]


def drawing(phases: tuple[Phase, ...], seen: float = 1.0) -> optax.GradientTransformation:
    """Return the step: x ← denoise(clip(x + η m g / mean |m g|)), m the mask of the margin.

    `seen` is the share of the picture that the network sees: the mean is of that part alone.

    >>> step = drawing(PHASES)
    >>> x = jnp.full((4, 4, 3), 0.5)
    >>> u, _ = step.update(-jnp.ones_like(x), step.init(x), x)
    >>> round(float(u[0, 0, 0]) * 255, 3)
    1.0
    """

    def init(params: Any) -> Counted:
        del params
        return Counted(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Counted]:
        size, fidelity, margin = _numbers(phases, state.updates, params.dtype)
        g = -updates * _inside(params.shape, margin)
        mean = jnp.abs(g).mean() / seen
        moved = params + size * g / jnp.where(mean > 0, mean, jnp.ones_like(mean))
        after = denoised(jnp.clip(moved, 0, 1), fidelity)
        return after - params, Counted(state.updates + 1)

    return optax.GradientTransformation(init, update)


@pytree
@dataclass(frozen=True)
class Window:
    """Cut a window out of the picture, at a place drawn normally around the middle.

    `spread` is the standard deviation, as a share of the room that the window has.
    """

    size: tuple[int, int] = field(metadata={"static": True})
    spread: Number = 0.3

    def __call__(self, key: Key, image: Image) -> Float[Array, "h2 w2 3"]:
        """Return the window."""
        room = jnp.asarray([a - b for a, b in zip(image.shape[:2], self.size, strict=True)], image.dtype)
        away = jax.random.normal(key, (2,), image.dtype) * jnp.asarray(self.spread, image.dtype)
        top, left = jnp.clip((0.5 + away) * room, 0, room).astype(jnp.int32)
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (*self.size, 3))


def _window(starts: Any, window: Size | None) -> tuple[int, int]:
    """Return what the network sees: by default all but a sixth of each side."""
    h, w = starts.shape[1:3]
    return (round(h / 1.2), round(w / 1.2)) if window is None else as_size(window)


def _check(
    net: Any,
    target: Any,
    starts: Any,
    key: Any,
    phases: tuple[Phase, ...],
    steps: int,
    window: Size | None,
    state: Any,
    batch_size: int | None,
) -> None:
    starts = as_images(starts, name="starts")
    n, (h, w) = len(starts), starts.shape[1:3]
    if not isinstance(phases, tuple) or not phases or not all(isinstance(p, Phase) for p in phases):
        raise TypeError("phases must be a tuple of vizsynth.synthesis.features.multifaceted.Phase")
    seen = _window(starts, window)
    if seen[0] > h or seen[1] > w:
        raise ValueError(f"a window of {seen[0]}x{seen[1]} does not fit in starts of {h}x{w}")
    if batch_size is not None:
        chunks.check_count(batch_size, "batch_size")
    check_pictures(net, target, (h, w), Window(seen), steps, state, key)
    made = count(target, key) if state is None else state.step.shape[0]
    if made not in (1, n) or (state is not None and made != n):
        raise ValueError(f"{n} starts make {n} pictures: give one target and one key, or {n}, not {made}")


@entry(static=("steps", "window", "batch_size"), check=_check, many=True)
def visualize_facets(
    net: Network,
    target: Target,
    starts: Images,
    *,
    key: Keys | None = None,
    phases: tuple[Phase, ...] = PHASES,
    steps: int = 370,
    window: Size | None = None,
    spread: float | Array = 0.3,
    state: Any = None,
    batch_size: int | None = None,
) -> Synthesis:
    """Take steps x ← denoise(clip(x + η g / mean |g|)) from each start, g the gradient in a window of it.

    Args:
        starts: pictures to begin with, `[n, h, w, 3]` in [0, 1]: the mean images of `vizsynth.facets`,
            resized to the size of the pictures that are wanted.
        phases: step sizes, denoising and margin over the steps; after the last phase its last values stay.
            `vizsynth.synthesis.features.multifaceted.shortened` makes shorter ones.
        steps: how many to take (from the state on, if one is given). All of the default phases are 370.
        window: what the network sees of the picture in a step, a side or (height, width). None: 1/1.2 of it.
        spread: of the window's place around the middle, as a share of the room that it has: 0 is always the
            middle. The less, the more steps the middle is given, beside the edges.
        state: of an earlier result, to go on from, with starts of the same number and size.

    Returns:
        The pictures `[n, h, w, 3]` in [0, 1], the score of the window at each step and the state. Departures
        from the authors' code: its first phase has the network see the whole of a smaller picture, which is
        enlarged 1.2 times then; here all steps are on the last size. It denoises the window, by split
        Bregman iterations to convergence; here it is the picture, by ten of Chambolle's. Its margin is of
        the window, here of the picture; its spread is 0.2 in the steps of the margin.

    Raises:
        TypeError, ValueError: starts that are not `[n, h, w, 3]` in [0, 1]; a window that does not fit in
            them, or is too small for the network; a target that the network does not have; another number of
            targets or keys than starts; no key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> starts = jax.random.uniform(jax.random.key(1), (2, 24, 24, 3))
        >>> made = vizsynth.visualize_facets(net, 3, starts, key=jax.random.key(2), steps=2)
        >>> made.images.shape, made.trace.shape
        ((2, 24, 24, 3), (2, 2))
    """
    n, (h, w) = len(starts), starts.shape[1:3]
    seen = _window(starts, window)
    return maximize(
        net,
        target,
        key=None if key is None else chunks.keys_for(key, n),
        steps=steps,
        size=(h, w),
        parametrization=Pixels(),
        transform=Window(seen, spread),
        optimizer=drawing(phases, seen[0] * seen[1] / (h * w)),
        start=starts,
        state=state,
        batch_size=batch_size,
    )
