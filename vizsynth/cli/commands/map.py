"""`vizsynth map`: maps of every image of a folder, in a store that several processes fill."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from vizsynth.cli import common, folders, making, options
from vizsynth.cli.methods import Method, methods, pick_layer
from vizsynth.cli.options import Written
from vizsynth.cli.output import NUMBERS, OutputFolder
from vizsynth.cli.settings import argument, command_of, option
from vizsynth.core.atomic import full_disk, told
from vizsynth.core.signals import exit_code

LABELS = "labels"  # the array of the classes that were explained
BATCH = 16
PATIENCE = 600.0  # seconds that a process waits for process 0 to begin the store


# The processes share the work by their number and the journals on the disk, and exchange nothing. They do not
# join by `jax.distributed`: there is nothing to add up over processes, and its service ends all of them when
# one dies, where here the others do what it leaves.
@dataclass(frozen=True, kw_only=True)
class Settings(Written):
    """Of `vizsynth map`."""

    folder: Path = argument(record=None)
    network: str = options.network()
    weights: str | None = options.weights()
    target: str = options.target()
    methods: tuple[Method, ...] = methods("Methods, as of `vizsynth explain`", ["grad-cam"])
    layer: str | None = options.layer()
    size: int | None = options.size()
    seed: int = options.seed()
    batch: int | None = options.batch(
        None, f"How many at a time, on all devices [{BATCH}]", 65536, record=None
    )
    processes: int = option(
        1, "How many share the work", type=click.IntRange(1, 65536), metavar="N", record=None
    )
    process: int = option(
        0, "Which of them this is, from 0", type=click.IntRange(0), metavar="I", record=None
    )
    resume: bool = options.resume()
    out: Path | None = options.out("FOLDER-map")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Map every image of FOLDER into a store: one array a method.

    Any process may be killed: the others, or --resume, do what it left. DIR
    gets Zarr arrays, manifest.json, journals, and at last numbers.json.
    """
    import jax

    from vizsynth import stores, streams
    from vizsynth.datasets.folders import Skipped, list_folder

    folder, methods, quiet = settings.folder, settings.methods, settings.quiet
    processes, process, resume = settings.processes, settings.process, settings.resume
    common.need_extra("tensorstore", "store")
    if process >= processes:
        raise common.BadInput(f"--process must be one of 0..{processes - 1} of --processes {processes}")
    if settings.overwrite and (processes > 1 or resume):
        other = "--resume" if resume else "several processes, as the others may be writing"
        raise common.BadInput(f"--overwrite does not go with {other}; remove the folder to begin anew")
    listed = {path.relative_to(folder).as_posix(): path for path in list_folder(folder).paths}
    names = sorted(listed)
    paths = [listed[name] for name in names]
    net = common.load_network(settings.network, settings.weights)
    common.need_classes(net, settings.network)
    side = settings.size or min(common.input_size(net))
    layer = pick_layer(net, methods, settings.layer)
    if any(m.pooled for m in methods) and common.pooled_layer(net) is None:
        raise common.BadInput("cam needs a network with global average pooling; grad-cam is for any")
    label = common.pick_target(net, settings.target)
    mesh = streams.device_mesh() if jax.local_device_count() > 1 else None
    batch = settings.batch or -(-BATCH // jax.local_device_count()) * jax.local_device_count()
    streams.check_mesh(batch, mesh)
    resolved = {
        "methods": {m.name: m.options for m in methods},
        "target": "top" if label is None else label,
        "layer": layer,
        "size": side,
        "seed": settings.seed if any(m.needs_key for m in methods) else None,
        "weights": stores.digest(net),
        "vizsynth": common.versions()["vizsynth"],
    }
    origin = settings.origin(resolved)
    net = streams.replicate(net, mesh)
    function = _explained(net, methods, label, layer, settings.seed)
    results = _results(function, batch, side)

    path = settings.path(folder.resolve().name)
    there = stores.has_store(path)
    chosen = OutputFolder(path, origin, overwrite=settings.overwrite)
    begins = process == 0 and not resume
    if resume and not there:
        raise common.BadInput(f"{path} holds no run that was stopped; leave out --resume to begin one")
    if begins and there and not settings.overwrite:
        raise common.BadInput(f"{path} holds a store: --resume goes on with it, --overwrite begins anew")
    if there and not begins:
        stores.check_store(path, origin=origin, names=names, results=results)
    chosen.check(sorted(set(results) - set(stores.arrays_of(path))) if begins else (), inputs=paths)
    made = not path.exists()
    if begins:
        stores.remove_store(path)
        if settings.overwrite:
            (path / NUMBERS).unlink(missing_ok=True)  # it tells of the store that was there
        stores.create_store(path, origin=origin, names=names, results=results)
    else:
        if not there:
            common.say(f"waiting for process 0 to begin the store in {path} ...", quiet)
            stores.wait_for_store(path, seconds=PATIENCE)
            stores.check_store(path, origin=origin, names=names, results=results)

    try:
        with stores.Writer(path, process=process, processes=processes) as writer:
            done, seconds = _fill(
                writer, function, paths, side=side, batch=batch, mesh=mesh, what=folder.resolve().name,
                quiet=quiet,
            )  # fmt: skip
    except OSError as error:
        if full_disk(error) is None:
            raise
        raise making.Stopped(f"{told(error)}; --resume goes on", 1) from error
    stored = stores.open_store(path)
    skipped = [Skipped(listed[name], reason) for name, reason in stored.broken.items()]
    folders.tell_skipped(skipped, quiet)
    if skipped and len(skipped) == len(names):
        if processes == 1:
            stores.remove_store(path)
            if made:
                with contextlib.suppress(OSError):
                    path.rmdir()
        reason = skipped[0].reason
        raise common.BadInput(f"none of the {len(names)} images in {folder} can be read: {reason}")
    numbers = {
        "folder": folders.described_folder(folder),
        "images": int(stored.done.sum()),
        "skipped": folders.as_record(skipped),
        "arrays": {
            name: {"shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in stored.arrays.items()
        },
    }
    here = f"; {done} of them here, {done / seconds:.1f} a second" if done else ""
    lines = [f"{numbers['images']} images, {len(skipped)} that cannot be read{here}"]
    lines += [f"{name}: {array.dtype.name} {list(array.shape)}" for name, array in stored.arrays.items()]
    reads = f"wrote into {path}; vizsynth.stores.open_store({str(path)!r}) reads it"
    there = [stores.MANIFEST, *stored.arrays]
    settings.write(chosen, {}, numbers, *lines, beside=there, wrote=reads)


def _explained(
    net: Any, methods: Sequence[Method], label: int | None, layer: str | None, seed: int
) -> Callable[[Any], dict[str, Any]]:
    """Return the function of a batch: the maps by method, and the classes that they explain."""
    import jax
    import jax.numpy as jnp

    likeliest = jax.jit(lambda net, images: net(images).argmax(axis=-1).astype(jnp.int32))

    def explained(images: Any) -> dict[str, Any]:
        labels = likeliest(net, images) if label is None else jnp.full(len(images), label, jnp.int32)
        maps = {m.name: m.maps(net, images, labels, layer, seed) for m in methods}
        return {**maps, LABELS: labels}

    return explained


def _results(function: Callable[[Any], Any], batch: int, side: int) -> dict[str, Any]:
    """Return the shape and dtype of what one image gives; nothing is computed."""
    import jax
    import jax.numpy as jnp

    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    found = jax.eval_shape(function, images)
    return {name: jax.ShapeDtypeStruct(one.shape[1:], one.dtype) for name, one in found.items()}


def _fill(
    writer: Any,
    function: Callable[[Any], Any],
    paths: Sequence[Path],
    *,
    side: int,
    batch: int,
    mesh: Any,
    what: str,
    quiet: bool,
) -> tuple[int, float]:
    """Do what is missing; return how many images were done here, and in how many seconds."""
    from vizsynth.datasets.folders import read_ahead
    from vizsynth.files import ImageFileError
    from vizsynth.streams import stream

    waiting: deque[int] = deque()  # the images that are read and have no result yet
    broken: deque[tuple[int, str]] = deque()

    def read() -> Iterator[np.ndarray]:  # in a thread
        asked: deque[int] = deque()

        def missing() -> Iterator[Path]:
            for i in writer.missing():
                asked.append(i)
                yield paths[i]

        with closing(cast(Any, read_ahead(missing(), (side, side), batch))) as upcoming:
            for pixels in upcoming:
                i = asked.popleft()
                try:
                    image = pixels.result()
                except (ImageFileError, OSError) as error:
                    broken.append((i, str(error)))
                    continue
                waiting.append(i)
                yield image

    def note() -> None:
        while broken:
            writer.broken(*broken.popleft())

    done, began, total = 0, time.monotonic(), len(paths)
    found: list[dict[str, Any]] = []

    def write() -> int:
        if found:
            indices = [waiting.popleft() for _ in found]
            writer.write(indices, {name: [one[name] for one in found] for name in found[0]})
        count = len(found)
        found.clear()
        note()
        advance(writer.finished, np.zeros((1, 0)))
        return count

    with (
        making.bar(what, total, quiet, "images", begun=writer.finished, rate=True) as advance,
        making.patient() as asked_to_stop,
        closing(cast(Any, read())) as images,
        closing(cast(Any, stream(function, images, batch_size=batch, mesh=mesh))) as results,
    ):
        for result in results:
            found.append(result)
            if len(found) == batch:
                done += write()
                if asked := asked_to_stop():
                    raise making.Stopped(
                        f"interrupted after {writer.finished} of {total} images; --resume goes on",
                        exit_code(asked),
                    )
        done += write()
    return done, time.monotonic() - began
