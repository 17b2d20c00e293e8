"""`vizsynth segment`: the object of a photo, cut out."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest, distinct_names, look_at, read_photo

SHEET = "sheet.png"
SAMPLES, NOISE = 16, 0.1
BLUR = 1 / 38  # of the shorter side: saliency comes in specks


@click.command("segment")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option(
    "--foreground", type=click.FloatRange(0, 1, True, True), default=0.95, metavar="SHARE",
    help="Pixels above this quantile of the map are the object [0.95].",
)  # fmt: skip
@click.option(
    "--background", type=click.FloatRange(0, 1, True, True), default=0.30, metavar="SHARE",
    help="Pixels under this quantile are not [0.30].",
)  # fmt: skip
@common.network
@common.weights
@common.target
@common.size
@common.seed
@common.out("out/NAME-segment")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photos: tuple[Path, ...],
    foreground: float,
    background: float,
    network: str,
    weights: str | None,
    target: str,
    size: int | None,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Cut out of each PHOTO, or of each photo in a folder, what a class is.

    SmoothGrad's saliency map of the class tells GrabCut where to begin. Writes
    each mask and what it keeps, a sheet and numbers.json into DIR.
    """
    import jax

    from vizsynth.figures import heat, sheet

    common.need_extra("cv2", "inspection")
    common.need_extra("matplotlib")
    if background >= foreground:
        raise common.BadInput(f"--background {background} must be under --foreground {foreground}")
    paths, skipped = _photos(photos)
    folders.tell_skipped(skipped, quiet)
    origin = {
        "command": "segment", "photos": [{"name": p.name, "sha256": digest(p)} for p in paths],
        "network": network, "weights": weights, "target": target, "size": size, "seed": seed,
        "foreground": foreground, "background": background,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(photos[0].absolute().stem, "-segment"), origin, overwrite=overwrite
    )
    names = distinct_names(paths)
    folder.check([file for name in names for file in _files(name)] + [SHEET], inputs=paths)
    net = common.load_network(network, weights)
    common.need_classes(net, network)
    label = None if target == "top" else common.pick_class(net, target)
    images = [np.asarray(read_photo(path, size or min(common.input_size(net)))) for path in paths]

    pictures: dict[str, Any] = {}
    rows, found = [], []
    with common.progress("segment", names, quiet) as begin:
        for name, image in zip(names, images, strict=True):
            begin(name)
            heatmap, of, mask = _segmented(net, image, label, seed, (foreground, background))
            cut = np.where(mask[..., None], image, 1.0)
            pictures |= dict(zip(_files(name), (mask.astype(np.float32), cut), strict=True))
            rows.append([image, heat(heatmap, colormap="inferno"), mask.astype(np.float32), cut])
            share = round(float(mask.mean()), 4)
            class_name = common.class_name(net, of)
            found.append({"photo": name, "label": of, "name": class_name, "share_of_pixels": share})
    heads = ["photo", "saliency", "mask", "object"]
    labels = [f"{one['photo']}: {one['name']}" for one in found]
    pictures[SHEET] = sheet(rows, row_labels=labels, column_labels=heads)
    numbers = {
        "masks": found,
        "skipped": [{"file": str(one.path), "reason": one.reason} for one in skipped],
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    files = folder.write(pictures, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
        return
    for one in found:
        common.tell(f"{one['photo']}: {one['name']}, {one['share_of_pixels']:.1%} of the photo")
    common.tell("", f"wrote into {folder.path}: {', '.join(files)}")


def _photos(given: tuple[Path, ...]) -> tuple[list[Path], list[Any]]:
    """Return the photos, and those of folders that cannot be read."""
    from vizsynth.datasets.folders import Skipped
    from vizsynth.files import ImageFileError, list_images

    found: list[Path] = []
    skipped: list[Skipped] = []
    for path in given:
        if not path.is_dir():
            look_at(path)
            found.append(path)
            continue
        for photo in list_images(path):
            try:
                look_at(photo)
                found.append(photo)
            except (common.BadInput, ImageFileError, OSError) as error:
                skipped.append(Skipped(photo, str(error)))
    if not found:
        raise common.BadInput(f"none of the {len(skipped)} photos can be read: {skipped[0].reason}")
    return found, skipped


def _files(name: str) -> tuple[str, str]:
    return f"{name}-mask.png", f"{name}-object.png"


def _segmented(
    net: Any, image: np.ndarray, label: int | None, seed: int, quantiles: tuple[float, float]
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
        key=jax.random.key(seed),
        samples=SAMPLES,
        noise=NOISE,
        of=vizsynth.saliency,
    )
    heatmap = gaussian_filter(np.asarray(heatmaps[0]), BLUR * min(image.shape[:2]))
    mask = vizsynth.segment(image, heatmap, foreground=quantiles[0], background=quantiles[1])
    return heatmap, label, mask
