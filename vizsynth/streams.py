"""Apply a function to a stream of images, batch by batch, over all devices.

The result of an image does not depend on the other images of its batch: batches are sharded over the devices
of a mesh along their first axis, and no device waits for another. While one batch is computed, a thread reads
the next and the results of the previous are fetched: memory holds three batches.

A result does not depend on its place in a batch. With another number of images per device, by `batch_size` or
by `mesh`, the program is another and may round the last bits differently.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vizsynth.core.chunks import check_count


def device_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh of devices with one axis, `images`.

    Args:
        devices: of this process; by default all.

    >>> device_mesh().axis_names
    ('images',)
    """
    chosen = jax.local_devices() if devices is None else devices
    return Mesh(np.asarray(chosen), ("images",), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Return a network, or any pytree, with its arrays on every device of the mesh.

    Otherwise each batch copies them to the devices again.

    >>> import jax.numpy as jnp
    >>> replicate(jnp.ones(3), device_mesh()).is_fully_replicated
    True
    """
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def check_mesh(batch_size: int, mesh: Mesh | None) -> None:
    """Raise if batches cannot be sharded over a mesh.

    Raises:
        ValueError: the first axis of the mesh does not divide the batch size, its devices belong to another
            process, or its axes are explicit.
    """
    check_count(batch_size, "batch_size")
    if mesh is None:
        return
    axis = mesh.axis_names[0]
    count = mesh.shape[axis]
    if batch_size % count:
        lower = batch_size // count * count
        near = f"{lower} or {lower + count}" if lower else f"{count}"
        raise ValueError(
            f"batch_size must be a multiple of the {count} devices along the mesh's axis {axis!r}, "
            f"not {batch_size}; give {near}"
        )
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            f"the axes of the mesh must be AxisType.Auto, not {mesh.axis_types}; "
            "vizsynth.streams.device_mesh() makes such a mesh"
        )
    if strangers := {d.process_index for d in mesh.devices.flat} - {jax.process_index()}:
        raise ValueError(
            f"the mesh has devices of the processes {sorted(strangers)}; each process streams its own images "
            "over its own devices: give device_mesh()"
        )


def stream(
    function: Callable[[Any], Any], images: Iterable[Any], *, batch_size: int, mesh: Mesh | None = None
) -> Iterator[Any]:
    """Yield function(images)_i for each image of a stream, in order, `batch_size` at a time.

    The last batch is padded with its last image, so that it does not recompile; the padding's results are
    dropped.

    Args:
        function: from a batch `[batch_size, h, w, 3]` to an array, or a pytree of arrays, with a result per
            image along the first axis: a map, `features`, a measure. If the images of the stream are pytrees
            (an image and its label), it takes the pytree of batches.
        images: all of one shape; a thread reads them one batch ahead.
        batch_size: images per batch, a multiple of the number of devices.
        mesh: the devices, such as `vizsynth.streams.device_mesh()`: batches are sharded along its first axis.
            None leaves the choice to `function`.

    Yields:
        The result of each image, as NumPy arrays without the batch axis. If the stream or the function fails,
        the results before the failure are yielded first.

    Raises:
        ValueError: at once, if the mesh does not divide the batches; later, if the images differ in shape or
            the function does not give one result per image.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (3, 64, 64, 3))
        >>> maps = vizsynth.stream(lambda x: vizsynth.saliency(net, x, 281), images, batch_size=2)
        >>> [one.shape for one in maps]
        [(64, 64), (64, 64), (64, 64)]
    """
    check_mesh(batch_size, mesh)
    return _streamed(function, iter(images), batch_size, mesh)


class _Batch(NamedTuple):
    values: Any
    real: int
    """The number of images without padding."""


def _streamed(
    function: Callable[[Any], Any], images: Iterator[Any], batch_size: int, mesh: Mesh | None
) -> Iterator[Any]:
    sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    running: _Batch | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as reader:
        upcoming = reader.submit(_read, images, batch_size)
        while True:
            try:
                batch = upcoming.result()
                if batch is None:
                    break
                upcoming = reader.submit(_read, images, batch_size)
                given = jax.device_put(batch.values, sharding)
                computed = _Batch(function(given), batch.real)  # computed while the previous is fetched
            except Exception:
                if running is not None:
                    yield from _fetched(running, batch_size)
                raise
            before, running = running, computed
            if before is not None:
                yield from _fetched(before, batch_size)
        if running is not None:
            yield from _fetched(running, batch_size)


def _read(images: Iterator[Any], batch_size: int) -> _Batch | None:
    """Return the next batch, padded; None at the end of the stream."""
    found = list(islice(images, batch_size))
    if not found:
        return None
    filled = [*found, *[found[-1]] * (batch_size - len(found))]
    try:
        return _Batch(jax.tree.map(lambda *leaves: np.stack(leaves), *filled), len(found))
    except ValueError as error:
        shapes = sorted({str(jax.tree.map(np.shape, one)) for one in found})
        raise ValueError(
            f"the images of a stream must be alike, not of the shapes {', '.join(shapes)}; "
            "vizsynth.read_image(path, (h, w)) resizes all to one size"
        ) from error


def _fetched(batch: _Batch, batch_size: int) -> Iterator[Any]:
    """Yield the results of a batch one by one."""
    values = jax.tree.map(np.asarray, batch.values)
    if wrong := [v.shape for v in jax.tree.leaves(values) if v.shape[:1] != (batch_size,)]:
        raise ValueError(
            f"the function must give a result for each of the {batch_size} images along the first axis; "
            f"it gave an array {wrong[0]}"
        )
    for i in range(batch.real):
        yield jax.tree.map(lambda v, i=i: v[i], values)
