"""Which maps are faithful? `python -m experiments.faithfulness [--quick] [--out DIR]`.

Every method of the library explains a network that reads digits planted at known places. Written are

- `localization.csv`: how often the maximum of a map lies in the digit's box, and how much of its energy does,
  with bootstrap intervals; on images with a second digit also how often it prefers the right one;
- `randomization.csv`, `randomization.png`: how alike maps stay as layers are drawn anew from the logits down;
- `curves.csv`, `curves.png`: deletion and insertion;
- `maps.png`: some of the maps;
- `faithfulness.json`: settings and the best by each measure; `caption.md`: what the pictures show.
"""

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import vizsynth
from experiments import figure
from experiments.planted_network import LAST_MAPS, SIZE, trained
from vizsynth import figures, images
from vizsynth.files import write_image
from vizsynth.planted import planted

Heat = Float[Array, "n h w"]
QUICK = ("gradient", "guided_backprop", "integrated_gradients", "grad_cam", "edges")
"""The methods whose curves are drawn where it must be quick."""


class Method(NamedTuple):
    """How a method is called, and how its map becomes one number a pixel."""

    function: Callable[..., Any]
    reduce: Callable[[Array], Array]


def magnitude(maps: Float[Array, "n h w 3"]) -> Heat:
    """Return the largest channel's absolute value: for maps of sensitivity, whose sign says little."""
    return jnp.abs(maps).max(axis=-1)


def evidence(maps: Float[Array, "n h w 3"]) -> Heat:
    """Return the sum of the channels: for contributions, which add up."""
    return maps.sum(axis=-1)


def as_is(maps: Array) -> Array:
    """Return a map that has no channels."""
    return maps


def methods(*, quick: bool = False) -> dict[str, Method]:
    """Return every method of the library, by the name of its function."""
    draws = {"samples": 10 if quick else 25}
    table = {
        "gradient": ({}, magnitude),
        "saliency": ({}, as_is),
        "smooth_grad": (draws, magnitude),
        "smooth_grad_squared": (draws, magnitude),
        "var_grad": (draws, magnitude),
        "guided_backprop": ({}, magnitude),
        "deconvnet": ({}, magnitude),
        "input_x_gradient": ({}, evidence),
        "integrated_gradients": ({"steps": 10 if quick else 32, "baseline": 0.5}, evidence),
        "lrp": ({}, evidence),
        "cam": ({"layer": LAST_MAPS}, as_is),
        "grad_cam": ({"layer": LAST_MAPS}, as_is),
        "guided_grad_cam": ({"layer": LAST_MAPS}, magnitude),
        "grad_cam_pp": ({"layer": LAST_MAPS}, as_is),
        "xgrad_cam": ({"layer": LAST_MAPS}, as_is),
        "layer_cam": ({"layer": LAST_MAPS}, as_is),
        "hires_cam": ({"layer": LAST_MAPS}, as_is),
        "eigen_cam": ({"layer": LAST_MAPS}, as_is),
        "score_cam": ({"layer": LAST_MAPS}, as_is),
        "ablation_cam": ({"layer": LAST_MAPS}, as_is),
        "occlusion": ({"window": 16, "stride": 8 if quick else 4}, as_is),
        "rise": ({"samples": 200 if quick else 500, "cells": 8}, as_is),
    }
    return {
        name: Method(
            partial(keyed, getattr(vizsynth, name), **options)
            if "samples" in options
            else partial(getattr(vizsynth, name), **options),
            reduce,
        )
        for name, (options, reduce) in table.items()
    }


def keyed(function: Callable[..., Array], net: Any, x: Array, target: Any, **options: Any) -> Array:
    """Return a map that needs a key: the same one always, so that two maps share their draws."""
    return function(net, x, target, key=jax.random.key(0), **options)


def explain(method: Method, net: Any, x: Array, labels: Array) -> Heat:
    """Return the method's maps at the size of the images."""
    return images.upsample(method.reduce(method.function(net, x, labels)), (SIZE, SIZE))


def uninformed(net: Any, x: Array, labels: Array) -> Heat:
    """Return what knows nothing of the network: noise."""
    del net, labels
    return jax.random.uniform(jax.random.key(9), x.shape[:3])


def edges(net: Any, x: Array, labels: Array) -> Heat:
    """Return what knows nothing of the network but sees: the image's own edges."""
    del net, labels
    grey = images.luminance(x)
    rows = jnp.diff(grey, axis=1, append=grey[:, -1:])
    return jnp.hypot(rows, jnp.diff(grey, axis=2, append=grey[:, :, -1:]))


def interval(values: Array) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % interval."""
    mean, low, high = vizsynth.bootstrap_mean(values, key=jax.random.key(1))
    return float(mean), float(low), float(high)


def localization(
    net: Any,
    table: dict[str, Method],
    one: Sequence[Array],
    two: Sequence[Array],
) -> list[dict[str, Any]]:
    """Return a row a method: pointing game, energy in the box, and the right one of two digits.

    Args:
        net: the network.
        table: the methods.
        one: images with a digit, labels and boxes.
        two: images with two digits, the label of the first, the boxes of both.
    """
    rows = []
    for name, method in table.items():
        maps = explain(method, net, *one[:2])
        pair = explain(method, net, *two[:2])
        mine, other = (vizsynth.energy_in_box(pair, boxes) for boxes in two[2:])
        row: dict[str, Any] = {"method": name}
        for measure, values in (
            ("pointing", vizsynth.pointing_game(maps, one[2]).hits),
            ("energy", vizsynth.energy_in_box(maps, one[2])),
            ("right_digit", (mine > other).astype(jnp.float32)),
        ):
            row |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), interval(values), strict=True))
        rows.append(row)
        print(
            f"{name:22}"
            + "  ".join(
                f"{m} {row[m]:.3f} [{row[f'{m}_low']:.3f}, {row[f'{m}_high']:.3f}]"
                for m in ("pointing", "energy", "right_digit")
            ),
            flush=True,
        )
    return rows


def randomization(
    net: Any, table: dict[str, Method], x: Array, labels: Array, draws: int
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the layers, and after each the rank correlation of every method's |map|: the mean of draws."""
    layers = vizsynth.parameter_layers(net, x)
    found = {}
    for name, method in table.items():
        similar = [
            vizsynth.cascading_randomization(
                net, x, labels, of=method.function, key=jax.random.key(10 + draw), layers=layers
            ).absolute.mean(axis=1)
            for draw in range(draws)
        ]
        found[name] = np.mean(similar, axis=0)
        print(f"{name:22}" + " ".join(f"{value:6.3f}" for value in found[name]), flush=True)
    return layers, found


def curves(net: Any, table: dict[str, Method], x: Array, labels: Array, steps: int) -> dict[str, Any]:
    """Return each method's deletion and insertion curves."""
    grey, blurred = jnp.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape), vizsynth.blurred(x)
    found = {}
    for name, method in table.items():
        maps = explain(method, net, x, labels)
        found[name] = vizsynth.deletion_and_insertion(
            net, x, labels, maps, steps=steps, baseline=grey, start=blurred
        )
        gone, come = (float(curve.area.mean()) for curve in found[name])
        print(f"{name:22}deletion {gone:.3f}  insertion {come:.3f}", flush=True)
    return found


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def _boxed(picture: np.ndarray, box: Int[np.ndarray, " 4"], scale: int) -> np.ndarray:
    picture = np.kron(picture, np.ones((scale, scale, 1), np.float32))
    top, left, bottom, right = (int(v) * scale for v in box)
    for part in (np.s_[top, left:right], np.s_[bottom - 1, left:right], np.s_[top:bottom, left]):
        picture[part] = (1, 1, 1)
    picture[top:bottom, right - 1] = (1, 1, 1)
    return picture


def draw_maps(
    path: Path, net: Any, table: dict[str, Method], x: Array, labels: Array, boxes: np.ndarray
) -> None:
    """Draw the maps of some images, each scaled by itself, the digit's box around."""
    rows = [[_boxed(np.asarray(image), box, 2) for image, box in zip(x, boxes, strict=True)]]
    for method in table.values():
        maps = np.maximum(np.asarray(explain(method, net, x, labels)), 0)
        rows.append([_boxed(figures.heat(m), box, 2) for m, box in zip(maps, boxes, strict=True)])
    names = ["image", *(name.replace("_", " ") for name in table)]
    write_image(path, figures.sheet(rows, row_labels=names, pad=3, font_size=13))


def draw_randomization(path: Path, layers: Sequence[str], found: dict[str, np.ndarray]) -> None:
    """Draw how alike the maps stay, one line a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    styles = ("-", "--", ":", "-.")
    for i, (name, values) in enumerate(found.items()):
        axes.plot(["trained", *layers], [1, *values], styles[i // 10], marker="o", ms=3, label=name)
    axes.set(xlabel="drawn anew, from the logits down to", ylabel="rank correlation of |map|")
    axes.axhline(0, color="0.7", lw=0.8)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)


def draw_curves(path: Path, found: dict[str, Any]) -> None:
    """Draw the mean curves, the areas in the legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    titles = ("deletion (low is good)", "insertion (high is good)")
    for k, (axes, title) in enumerate(zip(figure.subplots(1, 2, sharey=True), titles, strict=True)):
        order = sorted(found, key=lambda name: float(found[name][k].area.mean()), reverse=bool(k))
        for i, name in enumerate(order):
            curve = found[name][k]
            label = f"{name} {float(curve.area.mean()):.3f}"
            axes.plot(curve.fractions, curve.scores.mean(axis=0), ("-", "--", ":")[i // 10], label=label)
        axes.set(title=title, xlabel="share of pixels", ylabel="probability of the class")
        axes.legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=120)


def run(out: Path, *, quick: bool = False, seed: int = 0) -> None:
    """Make all tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    net = trained()
    n = 8 if quick else 100
    single = planted(seed + 5, n, split="test", size=SIZE)
    double = planted(seed + 6, n, split="test", size=SIZE, distractor=True)
    one = tuple(jnp.asarray(v) for v in (single.images, single.labels.astype(np.int32), single.boxes))
    two = tuple(
        jnp.asarray(v)
        for v in (double.images, double.labels.astype(np.int32), double.boxes, double.other_boxes)
    )
    table = methods(quick=quick)
    baselines = {"edges": Method(edges, as_is), "noise": Method(uninformed, as_is)}
    table_and_baselines = table | baselines

    share = np.prod(single.boxes[:, 2:] - single.boxes[:, :2], axis=1).mean() / SIZE**2
    print(f"{n} images; the box is {share:.3f} of the image")
    found_at = localization(net, table_and_baselines, one, two)
    _write(out / "localization.csv", found_at)

    few = n if quick else 24
    x, labels = one[0][:few], one[1][:few]
    # The perturbation methods cost most and depend on the network by construction: they are left out here.
    slow = ("occlusion", "rise", "score_cam", "ablation_cam", "cam", "noise")
    chosen = {name: method for name, method in table_and_baselines.items() if name not in slow}
    if quick:
        chosen = {name: chosen[name] for name in QUICK}
    layers, similar = randomization(net, chosen, x, labels, draws=1 if quick else 3)
    rows = [{"method": k, **dict(zip(layers, map(float, v), strict=True))} for k, v in similar.items()]
    _write(out / "randomization.csv", rows)
    draw_randomization(out / "randomization.png", layers, similar)

    asked = {name: table_and_baselines[name] for name in (*QUICK, "noise")} if quick else table_and_baselines
    found = curves(net, asked, x, labels, steps=8 if quick else 32)
    rows = [
        {"method": k, "deletion": float(d.area.mean()), "insertion": float(i.area.mean())}
        for k, (d, i) in found.items()
    ]
    _write(out / "curves.csv", rows)
    draw_curves(out / "curves.png", found)
    draw_maps(out / "maps.png", net, table_and_baselines, one[0][:8], one[1][:8], single.boxes[:8])

    best = {
        "pointing": max(found_at, key=lambda row: row["pointing"])["method"],
        "energy": max(found_at, key=lambda row: row["energy"])["method"],
        "right_digit": max(found_at, key=lambda row: row["right_digit"])["method"],
        "deletion": min(rows, key=lambda row: row["deletion"])["method"],
        "insertion": max(rows, key=lambda row: row["insertion"])["method"],
    }
    record = {"seed": seed, "images": n, "size": SIZE, "share_of_box": float(share), "best": best}
    caption = (
        f"How faithful each method is to a network that reads planted digits: {n} images of {SIZE}x{SIZE} "
        f"px, seed {seed}. Best at pointing to the digit: {best['pointing']}; with most energy in its box: "
        f"{best['energy']}; at telling the right one of two digits: {best['right_digit']}; by deletion: "
        f"{best['deletion']}; by insertion: {best['insertion']}. As layers are drawn anew, a map that "
        "depends on the network changes; edges of the image do not (Adebayo et al., Sanity Checks, 2018)."
    )
    figure.tell(out, "faithfulness", record, caption)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "faithfulness", quick="few images, few samples")
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed)


if __name__ == "__main__":
    main()
