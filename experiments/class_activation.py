"""Which places speak for the class? `python -m experiments.class_activation [--quick] [--out DIR]`.

Written are

- `class_activation.png`: photos, and every class activation map of their likeliest class;
- `layers.png`: one photo's Grad-CAM and LayerCAM at layers from shallow to deep, and LayerCAM's fused;
- `class_activation.json`: classes, ranges, seconds; `caption.md`: what the pictures show.

Zhou et al., 2015 (CAM); Selvaraju et al., 2016 (Grad-CAM, guided Grad-CAM); Chattopadhyay et al., 2017
(Grad-CAM++); Wang et al., 2019 (Score-CAM); Desai & Ramaswamy, 2020 (Ablation-CAM); Fu et al., 2020
(XGrad-CAM); Muhammad & Yeasin, 2020 (Eigen-CAM); Draelos & Carin, 2020 (HiResCAM); Jiang et al.,
2021 (LayerCAM).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import attributions, figure
from experiments.attributions import NETWORK, Method, bright, over_photo
from vizsynth import figures
from vizsynth.files import read_image, write_image

DEEP, POOLED = "fire9", "relu10"  # CAM is of the layer that the mean is taken of
SHALLOW_TO_DEEP = ("fire3", "fire5", "fire7", "fire9")


def methods(layer: str, pooled: str) -> dict[str, Method]:
    """Return every class activation map."""

    def at(function: Any, layer: str = layer) -> Method:
        return Method(partial(function, layer=layer), over_photo)

    return {
        "CAM": at(vizsynth.cam, pooled),
        "Grad-CAM": at(vizsynth.grad_cam),
        "Grad-CAM++": at(vizsynth.grad_cam_pp),
        "XGrad-CAM": at(vizsynth.xgrad_cam),
        "LayerCAM": at(vizsynth.layer_cam),
        "HiResCAM": at(vizsynth.hires_cam),
        "Eigen-CAM": at(vizsynth.eigen_cam),
        "Score-CAM": at(vizsynth.score_cam),
        "Ablation-CAM": at(vizsynth.ablation_cam),
        "guided Grad-CAM": Method(
            lambda net, x, labels: jnp.abs(vizsynth.guided_grad_cam(net, x, labels, layer=layer)).max(
                axis=-1
            ),
            bright,
        ),
    }


def by_layer(net: Any, path: Path, label: int, layers: Sequence[str], side: int) -> np.ndarray:
    """Return a sheet of two methods at several layers, and of what the layers say together."""
    photo = read_image(path, (side, side))
    x, labels = photo[None], jnp.asarray([label])
    rows = []
    for function in (vizsynth.grad_cam, vizsynth.layer_cam):
        found = [function(net, x, labels, layer=layer) for layer in layers]
        together = vizsynth.fuse(found, (side, side))
        rows.append([over_photo(np.asarray(photo), np.asarray(m[0])) for m in [*found, together]])
    heads = [*layers, "together"]
    return figures.sheet(rows, row_labels=["Grad-CAM", "LayerCAM"], column_labels=heads)


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    images: Sequence[Path] = attributions.DEFAULT,
) -> None:
    """Make all pictures. Nothing is drawn at random: the seed is recorded alone."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(NETWORK)
    side = 128 if quick else 227
    paths = images[:1] if quick else images
    table = methods(DEEP, POOLED)
    numbers = attributions.explain(out, "class_activation", net, paths, table, side=side, rows=2)
    label = numbers[paths[0].stem]["label"]
    write_image(out / "layers.png", by_layer(net, paths[0], label, SHALLOW_TO_DEEP, side))
    record = {
        "network": NETWORK,
        "seed": seed,
        "size": side,
        "layer": DEEP,
        "pooled": POOLED,
        "photos": numbers,
    }
    caption = (
        f"Class activation maps of the likeliest class, {NETWORK} at {DEEP} (CAM at {POOLED}, whose mean is "
        f"the logit), {side}x{side} px, laid over the photos with weight 0.4. Below, {paths[0].stem} at "
        "layers from shallow to deep: Grad-CAM's means over positions lose the class in shallow layers; "
        "LayerCAM keeps its edges, and several layers together are sharper than the last alone. Zhou et "
        "al., 2015; Selvaraju et al., 2016; Chattopadhyay et al., 2017; Wang et al., 2019; Desai & "
        "Ramaswamy, 2020; Fu et al., 2020; Muhammad & Yeasin, 2020; Draelos & Carin, 2020; Jiang et al., "
        "2021."
    )
    figure.tell(out, "class_activation", record, caption, [path.stem for path in paths])


if __name__ == "__main__":
    attributions.main(run, __doc__, "class_activation")
