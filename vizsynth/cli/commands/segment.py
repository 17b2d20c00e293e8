"""`vizsynth segment`: the object of a photo, cut out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders, options
from vizsynth.cli.options import Seeded
from vizsynth.cli.photos import Photo, distinct_names, look_at
from vizsynth.cli.settings import argument, command_of, option

SHEET = "sheet.png"
SAMPLES, NOISE = 16, 0.1
BLUR = 1 / 38  # of the shorter side: saliency comes in specks


BETWEEN = click.FloatRange(0, 1, min_open=True, max_open=True)


@dataclass(frozen=True, kw_only=True)
class Settings(Seeded):
    """Of `vizsynth segment`."""

    photos: tuple[Photo, ...] = argument(metavar="PHOTO...", many=True)
    foreground: float = option(
        0.95, "Pixels above this quantile of the map are the object", type=BETWEEN, metavar="SHARE"
    )
    background: float = option(
        0.30, "Pixels under this quantile are not [0.30]", type=BETWEEN, metavar="SHARE"
    )
    network: str = options.network()
    weights: str | None = options.weights()
    target: str = options.target()
    size: int | None = options.size()
    out: Path | None = options.out("NAME-segment")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Cut out of each PHOTO, or of each photo in a folder, what a class is.

    SmoothGrad's saliency map of the class tells GrabCut where to begin. Writes
    each mask and what it keeps, a sheet and numbers.json into DIR.
    """
    from vizsynth.figures import heat, sheet

    common.need_extra("cv2", "inspection")
    common.need_extra("matplotlib")
    background, foreground = settings.background, settings.foreground
    if background >= foreground:
        raise common.BadInput(f"--background {background} must be under --foreground {foreground}")
    photos, skipped = _photos(settings.photos)
    folders.tell_skipped(skipped, settings.quiet)
    described = [photo.described for photo in photos]
    folder = settings.open(settings.photos[0].path.absolute().stem, resolved={"photos": described})
    names = distinct_names(photos)
    folder.check([file for name in names for file in _files(name)] + [SHEET], inputs=photos)
    net = common.load_network(settings.network, settings.weights)
    common.need_classes(net, settings.network)
    label = common.pick_target(net, settings.target)
    images = [photo.pixels(settings.size or min(common.input_size(net))) for photo in photos]

    pictures: dict[str, Any] = {}
    rows, found = [], []
    with common.progress("segment", names, settings.quiet) as begin:
        for name, image in zip(names, images, strict=True):
            begin(name)
            heatmap, of, mask = _segmented(net, image, label, settings)
            cut = np.where(mask[..., None], image, 1.0)
            pictures |= dict(zip(_files(name), (mask.astype(np.float32), cut), strict=True))
            rows.append([image, heat(heatmap, colormap="inferno"), mask.astype(np.float32), cut])
            share = round(float(mask.mean()), 4)
            class_name = common.class_name(net, of)
            found.append({"photo": name, "label": of, "name": class_name, "share_of_pixels": share})
    heads = ["photo", "saliency", "mask", "object"]
    labels = [f"{one['photo']}: {one['name']}" for one in found]
    pictures[SHEET] = sheet(rows, row_labels=labels, column_labels=heads)
    lines = [f"{one['photo']}: {one['name']}, {one['share_of_pixels']:.1%} of the photo" for one in found]
    numbers = {"masks": found, "skipped": folders.as_record(skipped)}
    settings.write(folder, pictures, numbers, *lines, "")


def _photos(given: Sequence[Photo]) -> tuple[list[Photo], list[Any]]:
    """Return the photos, and those of folders that cannot be read."""
    from vizsynth.datasets.folders import Skipped
    from vizsynth.files import ImageFileError, list_images

    found: list[Photo] = []
    skipped: list[Skipped] = []
    for photo in given:
        if not photo.path.is_dir():
            look_at([photo], quiet=True)
            found.append(photo)
            continue
        for one in map(Photo, list_images(photo)):
            try:
                look_at([one], quiet=True)
                found.append(one)
            except (common.BadInput, ImageFileError, OSError) as error:
                skipped.append(Skipped(one.path, str(error)))
    if not found:
        raise common.BadInput(f"none of the {len(skipped)} photos can be read: {skipped[0].reason}")
    return found, skipped


def _files(name: str) -> tuple[str, str]:
    return f"{name}-mask.png", f"{name}-object.png"


def _segmented(
    net: Any, image: np.ndarray, label: int | None, settings: Settings
) -> tuple[np.ndarray, int, np.ndarray]:
    """Return the map, the class that it is of, and the mask."""
    import jax
    import jax.numpy as jnp
    from scipy.ndimage import gaussian_filter

    import vizsynth

    if label is None:
        label = int(np.asarray(jax.jit(lambda net, images: net(images))(net, image[None]))[0].argmax())
    heatmaps = vizsynth.smooth_grad(
        net,
        jnp.asarray(image[None]),
        np.array([label]),
        key=jax.random.key(settings.seed),
        samples=SAMPLES,
        noise=NOISE,
        of=vizsynth.saliency,
    )
    heatmap = gaussian_filter(np.asarray(heatmaps[0]), BLUR * min(image.shape[:2]))
    mask = vizsynth.segment(image, heatmap, foreground=settings.foreground, background=settings.background)
    return heatmap, label, mask
