"""Find the patches of images that excite each channel most.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, section 4: the strongest
activation of a channel in each image, the strongest nine of all images, each shown as its receptive field.
(With several per image, a sheet would show neighbours of one patch.)

The images come as a stream of batches and are read once. The result does not depend on the order or the size
of the
batches: ties go to the lower index of the image, and within an image to the first position, row by row.
    (Rounding depends on the batch size and may swap activations that are equal up to it.)
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import as_network, entry, is_concrete
from vizsynth.replay.fields import fields
from vizsynth.taps import run, shapes
from vizsynth.types import Images, Network

NO_IMAGE = -1
_LARGEST = np.iinfo(np.int32).max


class Patches(NamedTuple):
    """The strongest activations of each channel, strongest first: the whole state of a search."""

    values: Float[Array, "channels k"]
    """Minus infinity if there were fewer images."""
    images: Int[Array, "channels k"]
    """Their indices; -1 if there were fewer images."""
    rows: Int[Array, "channels k"]
    columns: Int[Array, "channels k"]
    """The positions in the layer are `rows` and `columns`."""


def map_layers(net: Network, image_size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
    """Return the layers with positions: their height, width and channels for an image size."""
    image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    names: list[str] = []

    def listed(net: Any, images: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def tap(name: str, value: Any) -> Any:
            seen[name] = value
            names.append(name)
            return value

        net(images, tap=tap)
        return seen

    found = jax.eval_shape(listed, as_network(net), image)
    return {name: found[name].shape[1:] for name in names if found[name].ndim == 4}


def _channels(
    net: Network, layer: str, image_size: tuple[int, int], dtype: Any = jnp.float32
) -> jax.ShapeDtypeStruct:
    image = jax.ShapeDtypeStruct((1, *image_size, 3), dtype)
    found = shapes(as_network(net), image, (layer,))[layer]
    if len(found.shape) != 4:
        names = tuple(map_layers(net, image_size))
        raise ValueError(f"{layer} has no maps, so no patches; the layers with maps are: {', '.join(names)}")
    return found


def no_patches(
    net: Network, layer: str, image_size: tuple[int, int], *, k: int = 9, dtype: Any = jnp.float32
) -> Patches:
    """Return the patches before the first image.

    Args:
        image_size: the height and width of the images, in pixels.
        k: the number of patches per channel.
        dtype: the precision of the images.

    Returns:
        `Patches` of no image.

    Raises:
        ValueError: the layer has no positions, the images are too small for the network, or k is below 1.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> vizsynth.no_patches(net, "relu1", (64, 64)).images.shape
        (64, 9)
    """
    check_count(k, "k")
    found = _channels(net, layer, image_size, dtype)
    shape = (found.shape[-1], k)
    nowhere = jnp.zeros(shape, jnp.int32)
    return Patches(
        jnp.full(shape, -jnp.inf, found.dtype), jnp.full(shape, NO_IMAGE, jnp.int32), nowhere, nowhere
    )


def merged(patches: Patches, activations: Float[Array, "n h w c"], indices: Int[Array, " n"]) -> Patches:
    """Merge a batch's activations into the patches; images of index -1 are left out."""
    activations = activations.astype(patches.values.dtype)
    n, _, width, channels = activations.shape
    positions = activations.reshape(n, -1, channels)
    where = jnp.argmax(positions, axis=1).astype(jnp.int32).T  # the first of ties
    there = jnp.broadcast_to(indices >= 0, (channels, n))
    best = jnp.where(there, positions.max(axis=1).T, jnp.asarray(-jnp.inf, activations.dtype))
    numbers = jnp.broadcast_to(indices.astype(jnp.int32), (channels, n))
    new = Patches(best, numbers, where // width, where % width)
    both = [jnp.concatenate(pair, axis=1) for pair in zip(patches, new, strict=True)]
    ordered = jax.lax.sort([-both[0], *both[1:]], dimension=1, num_keys=2)  # NaN is sorted last
    k = patches.values.shape[1]
    return Patches(-ordered[0][:, :k], *(values[:, :k] for values in ordered[1:]))


def _check(net: Network, images: Array, patches: Patches, layer: str, indices: Any) -> None:
    found = _channels(net, layer, (images.shape[1], images.shape[2]))
    if patches.values.shape[0] != found.shape[-1]:
        raise ValueError(
            f"the patches are of {patches.values.shape[0]} channels, but {layer} has {found.shape[-1]}; "
            "begin with no_patches of this layer"
        )
    if np.shape(indices) != (len(images),) or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices must be {len(images)} whole numbers, one per image, not {np.shape(indices)} of "
            f"{getattr(indices, 'dtype', type(indices).__name__)}"
        )
    if is_concrete(indices) and (np.min(indices) < NO_IMAGE or np.max(indices) > _LARGEST):
        raise ValueError(f"indices lie in 0..{_LARGEST}, or are -1 for what is no image")


@entry(static=("layer",), check=_check)
def update_patches(
    net: Network, images: Images, *, patches: Patches, layer: str, indices: Int[Array | np.ndarray, " n"]
) -> Patches:
    """Update the strongest activations of each channel by a batch of images.

    m_n = max_yx A_n(y, x), the k largest over all n; ties go to the lower n and the first (y, x).

    Args:
        images: of the same size in all calls.
        patches: of the batches before, at first `no_patches`.
        indices: of the images, each given once; -1 for padding.

    Returns:
        The patches. Activations that are NaN are left out.

    Raises:
        ValueError: as for `no_patches`; or the patches are of another layer, or there is not one index per
            image.

    Example:
        >>> import jax, jax.numpy as jnp, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 33, 33, 3))
        >>> patches = vizsynth.no_patches(net, "relu1", (33, 33), k=1)
        >>> found = vizsynth.update_patches(
        ...     net, images, patches=patches, layer="relu1", indices=jnp.arange(2)
        ... )
        >>> found.values.shape
        (64, 1)
    """
    return merged(patches, run(net, images, (layer,))[1][layer], jnp.asarray(indices))


def top_patches(
    net: Network,
    batches: Iterable[tuple[Any, Any]],
    *,
    layer: str,
    k: int = 9,
    patches: Patches | None = None,
) -> Patches:
    """Return the k strongest activations of each channel over a stream of images, one per image.

    The stream is read once; memory does not grow with it. To save the patches on the way, loop over
    `update_patches`.

    Args:
        batches: pairs of indices `[b]` and images `[b, h, w, 3]`, as from
            `vizsynth.datasets.folders.read_batches`; batches may differ in their number of images, not in
            size.
        k: the number of patches per channel.
        patches: of an earlier stream, to continue from.

    Returns:
        `Patches(values, images, rows, columns)`, `[channels, k]` each. With fewer than k images, the rest has
        the image -1.

    Raises:
        ValueError: as for `update_patches`; or the stream is empty.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (6, 33, 33, 3))
        >>> batches = [(jax.numpy.arange(i, i + 3), images[i : i + 3]) for i in (0, 3)]
        >>> vizsynth.top_patches(net, batches, layer="relu1", k=4).images.shape
        (64, 4)
    """
    largest = 0
    for indices, images in batches:
        if patches is None:
            size = (images.shape[1], images.shape[2])
            patches = no_patches(net, layer, size, k=k, dtype=images.dtype)
        largest = max(largest, len(images))
        indices, images = filled(indices, images, largest)
        patches = update_patches(net, images, patches=patches, layer=layer, indices=indices)
        jax.block_until_ready(patches)  # batches that wait for the device would fill the memory
    if patches is None:
        raise ValueError("there is no image in the stream")
    return patches


def filled(indices: Any, images: Any, size: int) -> tuple[Any, Any]:
    """Pad a batch to a size with images of index -1, so that it does not recompile."""
    missing = size - len(images)
    if missing <= 0:
        return np.asarray(indices), images
    nothing = np.full(missing, NO_IMAGE, np.asarray(indices).dtype)
    last = np.repeat(np.asarray(images[-1:]), missing, axis=0)
    return np.concatenate([indices, nothing]), np.concatenate([np.asarray(images), last])


def patch_boxes(
    net: Network, patches: Patches, *, layer: str, image_size: tuple[int, int]
) -> Int[np.ndarray, "channels k 4"]:
    """Return the `receptive_field` of each patch.

    Args:
        patches: of this layer.
        image_size: the height and width of the images, in pixels.

    Returns:
        `(top, left, bottom, right)` of each patch, half open, clipped to the image; zeros if there is no
        patch.

    Raises:
        ValueError: as for `no_patches`; or the patches are of another layer.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> patches = vizsynth.no_patches(net, "relu1", (33, 33), k=1)
        >>> vizsynth.patch_boxes(net, patches, layer="relu1", image_size=(33, 33)).shape
        (64, 1, 4)
    """
    found = _channels(net, layer, image_size)
    seen = fields(net, layer, image_size)
    images, rows, columns = (np.asarray(a) for a in patches[1:])
    if images.shape[0] != found.shape[-1] or rows.max() >= found.shape[1] or columns.max() >= found.shape[2]:
        raise ValueError(f"the patches are not of {layer} in images of {image_size[0]}x{image_size[1]}")
    channel = np.arange(images.shape[0])[:, None]
    top, bottom = seen.rows.low[rows, channel], seen.rows.high[rows, channel]
    left, right = seen.columns.low[columns, channel], seen.columns.high[columns, channel]
    boxes = np.stack([top, left, bottom, right], axis=-1)
    nothing = (images < 0) | (top >= bottom) | (left >= right)
    return np.where(nothing[..., None], 0, boxes)
