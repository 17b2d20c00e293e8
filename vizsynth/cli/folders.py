"""Folders of images that commands are given, and what is kept of each image."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vizsynth.cli import common, making, options
from vizsynth.cli.options import Seeded, Written
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.settings import argument

PIXELS = 32  # the side at which pixels are compared
BATCH = 16


class Described(NamedTuple):
    """The images of a folder that could be read."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """Their paths in the folder."""
    labels: np.ndarray | None
    classes: tuple[str, ...]
    descriptors: np.ndarray
    pixels: np.ndarray
    """`[n, 3072]`: each image as 32 x 32 pixels."""
    skipped: list[dict[str, str]]


def described_folder(folder: Path) -> dict[str, Any]:
    """Return what tells a folder of images from others: its name and the names of its files."""
    from vizsynth.datasets.folders import list_folder

    paths = list_folder(folder).paths
    names = "\n".join(str(path.relative_to(folder)) for path in paths)
    return {
        "name": folder.resolve().name,
        "files": len(paths),
        "sha256": hashlib.sha256(os.fsencode(names)).hexdigest(),
    }


def open_for(
    settings: Written, folder: Path, resolved: Mapping[str, Any] = MappingProxyType({})
) -> OutputFolder:
    """Return the folder for the files that come of a folder of images."""
    known = {"folder": described_folder(folder), **resolved}
    return settings.open(folder.resolve().name, resolved=known)


def descriptor_layer(net: Any, typed: str | None) -> str:
    """Return the layer that was typed, or the last before the classes: `relu7`, or of maps."""
    if typed is not None:
        return common.pick_layer(net, typed)
    return "relu7" if "relu7" in net.layers else common.roles(net).cam


@dataclass(frozen=True, kw_only=True)
class OfFolder(Seeded):
    """The settings of a command that describes each image of a folder by a layer."""

    folder: Path = argument()
    network: str = options.network()
    weights: str | None = options.weights()
    layer: str | None = options.layer()
    size: int | None = options.size()

    def seen_at(self, net: Any) -> int:
        """Return the side of what the network sees."""
        return self.size or min(common.input_size(net))

    def described(self, net: Any, layer: str, *, least: int) -> Described:
        """Read the folder, of class folders or not, and describe each image.

        Raises:
            BadInput: there are fewer images than needed.
        """
        from vizsynth.datasets.folders import list_folder

        folder, listing = self.folder, list_folder(self.folder)
        if len(listing.paths) < least:
            raise common.BadInput(f"{folder} holds {len(listing.paths)} images; at least {least} are needed")
        names = [str(path.relative_to(folder)) for path in listing.paths]
        kept, values, pixels, skipped = describe(
            listing.paths, net, layer, size=self.seen_at(net), what=folder.resolve().name, quiet=self.quiet
        )
        if len(kept) < least:
            raise common.BadInput(
                f"of the images in {folder} only {len(kept)} can be read; at least {least} are needed"
            )
        return Described(
            tuple(listing.paths[i] for i in kept),
            tuple(names[i] for i in kept),
            None if listing.labels is None else listing.labels[kept],
            listing.classes,
            values,
            pixels,
            skipped,
        )


def describe(
    paths: tuple[Path, ...], net: Any, layer: str, *, size: int, what: str, quiet: bool
) -> tuple[list[int], np.ndarray, np.ndarray, list[dict[str, str]]]:
    """Return which images can be read, their descriptors and small pixels, and what was skipped and why."""
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.datasets.folders import Skipped, read_batches
    from vizsynth.images import resize

    kept: list[int] = []
    values, pixels = [np.zeros((0, 1))], [np.zeros((0, 1))]
    skipped: list[Skipped] = []
    with making.bar(f"{what}: {layer}", len(paths), quiet, "images") as advance:
        for places, images in read_batches(paths, size, batch_size=BATCH, skipped=skipped):
            full = jnp.asarray(
                np.resize(images, (BATCH, *images.shape[1:]))
            )  # the last batch, too: one program
            values.append(np.asarray(vizsynth.descriptors(net, full, layer=layer))[: len(images)])
            pixels.append(np.asarray(resize(full, (PIXELS, PIXELS))).reshape(BATCH, -1)[: len(images)])
            kept += places.tolist()
            advance(len(kept) + len(skipped), np.zeros((1, 0)))
    tell_skipped(skipped, quiet)
    first = slice(1 if kept else 0, None)
    return kept, np.concatenate(values[first]), np.concatenate(pixels[first]), as_record(skipped)


def as_record(skipped: Sequence[Any]) -> list[dict[str, str]]:
    """Return the files that could not be read, and why, for numbers.json."""
    return [{"file": str(one.path), "reason": one.reason} for one in skipped]


def tell_skipped(skipped: list[Any], quiet: bool) -> None:
    """Say on stderr which files could not be read; a few by name."""
    for one in skipped[:3]:
        common.say(f"skipped: {one.reason}", quiet)
    if len(skipped) > 3:
        common.say(f"skipped: {len(skipped) - 3} more; numbers.json lists them", quiet)


def thumbnails(paths: list[Path], side: int) -> list[np.ndarray]:
    """Read images again, as small squares."""
    from vizsynth.files import read_pixels

    return [read_pixels(path, (side, side)) for path in paths]
