"""Objects cut out by what a network sees: `python -m experiments.segmentation [--quick] [--out DIR]`.

After Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, 2013, section 3.2 and figure 4:
the saliency map of a photo's class says where GrabCut begins. Written are `photos.png`, photos with their
maps and masks; `planted.png`, digits on textures with the true masks beside; `segmentation.json`, with the
masks' intersection over union with the truth; `caption.md`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS
from experiments.planted_network import trained
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.planted import planted

SHOWN = ("coffee", "flower", "camera", "chelsea", "astronaut", "china")
SAMPLES, NOISE = 16, 0.1
BLUR = 1 / 38  # of the side: saliency comes in specks
OBJECT, GROUND = 0.98, 0.85
"""Quantiles for the digits: they are a twentieth of an image, where the paper's objects fill much of it."""


def heatmaps(net: Any, images: Array, labels: np.ndarray, *, seed: int) -> Float[np.ndarray, "n h w"]:
    """Return SmoothGrad's saliency maps, a little blurred."""
    maps = vizsynth.smooth_grad(
        net,
        images,
        labels,
        key=jax.random.key(seed),
        samples=SAMPLES,
        noise=NOISE,
        of=vizsynth.saliency,
    )
    return np.stack([gaussian_filter(one, BLUR * min(one.shape)) for one in np.asarray(maps)])


def cut_photos(
    names: tuple[str, ...], *, seed: int, side: int
) -> tuple[list[list[np.ndarray]], dict[str, Any]]:
    """Return a row for each photo, and what was found in it."""
    net = vizsynth.load("squeezenet1_1")
    assert net.labels is not None
    rows, found = [], {}
    for name in names:
        photo = read_image(PHOTOS / f"{name}.jpg", side)
        label = np.asarray(net(photo[None])).argmax(axis=-1)
        heatmap = heatmaps(net, photo[None], label, seed=seed)[0]
        mask = vizsynth.segment(photo, heatmap)
        image = np.asarray(photo)
        rows.append([image, figures.heat(heatmap, colormap="inferno"), np.where(mask[..., None], image, 1.0)])
        found[name] = {"class": net.labels[int(label[0])], "share_of_pixels": float(mask.mean())}
    return rows, found


def run(out: Path, *, quick: bool = False, seed: int = 0) -> None:
    """Cut, measure and draw."""
    out.mkdir(parents=True, exist_ok=True)
    names = SHOWN[:1] if quick else SHOWN
    rows, found = cut_photos(names, seed=seed, side=100 if quick else 227)
    labels = [f"{name}: {found[name]['class']}" for name in names]
    sheet = figures.sheet(rows, row_labels=labels, column_labels=["photo", "saliency", "object"])
    write_image(out / "photos.png", sheet)

    data = planted(seed + 1, 8 if quick else 200, split="test")
    maps = heatmaps(trained(), jnp.asarray(data.images), data.labels, seed=seed)
    masks = [
        vizsynth.segment(image, heatmap, foreground=OBJECT, background=GROUND)
        for image, heatmap in zip(data.images, maps, strict=True)
    ]
    tops = [heatmap >= np.quantile(heatmap, 1 - data.masks.mean()) for heatmap in maps]
    overlap = {
        name: [vizsynth.intersection_over_union(m, t) for m, t in zip(made, data.masks, strict=True)]
        for name, made in {"GrabCut": masks, "threshold": tops}.items()
    }
    shown = [
        [image, figures.heat(heatmap, colormap="inferno"), mask.astype(float), true.astype(float)]
        for image, heatmap, mask, true in zip(data.images[:8], maps, masks, data.masks, strict=False)
    ]
    heads = ["image", "saliency", "mask", "truth"]
    write_image(out / "planted.png", figures.sheet(shown, column_labels=heads))
    means = {name: float(np.mean(values)) for name, values in overlap.items()}
    print(f"intersection over union with the digits' strokes: {means}", flush=True)
    caption = (
        "Objects cut out by GrabCut, which the class's saliency map tells where to begin (Simonyan, Vedaldi "
        f"& Zisserman, 2013). On {len(masks)} digits on textures the masks' mean intersection over union "
        f"with the strokes is {means['GrabCut']:.2f}; that of as many of the map's highest pixels as "
        f"digits have, {means['threshold']:.2f}."
    )
    record = {"photos": found, "planted": {"images": len(masks), "intersection_over_union": means}}
    figure.tell(out, "segmentation", record, caption, names)


def main() -> None:
    """Read the command line."""
    given = figure.options(__doc__, "segmentation", quick="one photo, few digits").parse_args()
    run(given.out, quick=given.quick, seed=given.seed)


if __name__ == "__main__":
    main()
