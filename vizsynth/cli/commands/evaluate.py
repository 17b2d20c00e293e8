"""`vizsynth evaluate`: which maps are faithful, on photos or where the answer is known."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from vizsynth.cli import common, options
from vizsynth.cli.methods import Method, methods, pick_layer
from vizsynth.cli.options import Seeded
from vizsynth.cli.settings import argument, command_of, option

PLANTED = "planted"
PLANTED_LAYER = "relu4"
TABLE, CURVES = "table.csv", "curves.png"
BATCH = 8  # photos a batch

# What each column says, and which end of it is good.
COLUMNS = {
    "deletion": "the probability left as the pixels go that the map ranks first: low is good",
    "insertion": "the probability reached as they come: high is good",
    "average_drop": "the share of probability lost by the explained part alone: low is good",
    "increase": "the share of images whose explained part alone is surer: high is good",
    "average_gain": "the share of missing probability that it gains: high is good",
    "pointing_game": "how often the largest value lies in the box: high is good",
    "energy_in_box": "how much of the positive map does: high is good",
}


class Subjects(NamedTuple):
    """What is explained."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None
    names: list[str]


@dataclass(frozen=True, kw_only=True)
class Settings(Seeded):
    """Of `vizsynth evaluate`."""

    what: str = argument(metavar="FOLDER|planted")
    network: str = options.network(record=None)
    weights: str | None = options.weights(record=None)
    methods: tuple[Method, ...] = methods("Methods, or `all`")
    layer: str | None = options.layer(record=None)
    count: int = option(
        64, "At most so many images", type=click.IntRange(2, 10_000), metavar="N", record=None
    )
    steps: int = option(25, "Of deletion and insertion", type=click.IntRange(2, 1000), record="numbers")
    seed: int = options.seed(record="numbers")
    out: Path | None = options.out("evaluate")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Score how faithful methods are, on the photos of FOLDER or on planted digits.

    `planted` takes images with a digit at a known place and a small network
    that reads them, so that a map can be right or wrong. Prints a table (means
    and 95 % intervals) and writes it, the curves and numbers.json into DIR.
    """
    common.need_extra("matplotlib")
    what, methods, seed = settings.what, settings.methods, settings.seed
    if what == PLANTED:
        net, subjects = _planted(settings.count, seed)
        layer = common.pick_layer(net, settings.layer or PLANTED_LAYER)
    else:
        net = common.load_network(settings.network, settings.weights)
        common.need_classes(net, settings.network)
        subjects = _photos(Path(what), net, settings.count, settings.quiet)
        layer = pick_layer(net, methods, settings.layer)
    if common.pooled_layer(net) is None:
        methods = tuple(m for m in methods if not m.pooled)
    folder = settings.open(resolved={"what": what if what == PLANTED else Path(what).name})
    folder.check([TABLE, CURVES])

    scores: dict[str, dict[str, np.ndarray]] = {}
    curves: dict[str, Any] = {}
    names = [m.name for m in methods]
    with common.progress(f"{len(subjects.images)} images", names, settings.quiet) as begin:
        for method in methods:
            begin(method.name)
            found = _score(method, net, subjects, layer, settings.steps, seed)
            scores[method.name], curves[method.name] = found

    table = {name: {c: _interval(v, seed) for c, v in found.items()} for name, found in scores.items()}
    numbers = {
        "network": PLANTED if what == PLANTED else settings.network,
        "images": subjects.names,
        "layer": layer,
        "columns": {c: COLUMNS[c] for c in next(iter(table.values()))},
        "table": table,
    }
    settings.write(folder, {TABLE: _csv(table), CURVES: _draw(curves)}, numbers, *_told(table), "")


def _planted(count: int, seed: int) -> tuple[Any, Subjects]:
    from vizsynth.models import load
    from vizsynth.planted import WEIGHTS, planted

    net = load(str(WEIGHTS))
    found = planted(seed, count, split="test", size=net.record.input_size[0])
    names = [f"planted {i}" for i in range(count)]
    return net, Subjects(found.images, found.labels, found.boxes, names)


def _photos(folder: Path, net: Any, count: int, quiet: bool) -> Subjects:
    """Return the photos, cut to what the network was trained on, and their likeliest classes."""
    import jax

    from vizsynth.files import ImageFileError, list_images, read_image

    size = common.input_size(net)
    images, names, broken = [], [], []
    for path in list_images(folder):
        if len(images) == count:
            break
        try:
            images.append(np.asarray(read_image(path, size)))
            names.append(path.name)
        except (ImageFileError, OSError) as error:
            broken.append(str(error))
    for complaint in broken:
        common.say(f"left out: {complaint}", quiet)
    if len(images) < 2:
        raise common.BadInput(f"{folder} holds {len(images)} photos that can be read; give at least 2")
    classify = jax.jit(lambda net, images: net(images).argmax(axis=-1))
    batch = np.stack(images)
    labels = [classify(net, batch[i : i + BATCH]) for i in range(0, len(batch), BATCH)]
    return Subjects(batch, np.concatenate(labels), None, names)


def _score(
    method: Method, net: Any, subjects: Subjects, layer: str | None, steps: int, seed: int
) -> tuple[dict[str, np.ndarray], Any]:
    """Return each measure's value for each image, and the mean curves."""
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.images import upsample

    found: dict[str, list[np.ndarray]] = {}
    gone, come, fractions = [], [], np.zeros(0)
    for start in range(0, len(subjects.images), BATCH):
        here = slice(start, start + BATCH)
        x, labels = jnp.asarray(subjects.images[here]), jnp.asarray(subjects.labels[here])
        maps = upsample(method.flat(method.maps(net, x, labels, layer, seed)), (x.shape[1], x.shape[2]))
        values, deleted, inserted = measured(net, x, labels, maps, steps)
        if subjects.boxes is not None:
            boxes = jnp.asarray(subjects.boxes[here])
            values["pointing_game"] = vizsynth.pointing_game(maps, boxes).hits
            values["energy_in_box"] = vizsynth.energy_in_box(maps, boxes)
        for name, value in values.items():
            found.setdefault(name, []).append(np.asarray(value, np.float64))
        gone.append(np.asarray(deleted.scores))
        come.append(np.asarray(inserted.scores))
        fractions = np.asarray(deleted.fractions)
    curves = (fractions, np.concatenate(gone).mean(axis=0), np.concatenate(come).mean(axis=0))
    return {name: np.concatenate(values) for name, values in found.items()}, curves


def measured(net: Any, x: Any, labels: Any, maps: Any, steps: int) -> tuple[dict[str, Any], Any, Any]:
    """Return what each measure says of maps of the images' size, and the curves of deletion and insertion."""
    import jax.numpy as jnp

    import vizsynth

    grey = jnp.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    deleted, inserted = vizsynth.deletion_and_insertion(
        net, x, labels, maps, steps=steps, baseline=grey, start=vizsynth.blurred(x)
    )
    values = {
        "deletion": deleted.area,
        "insertion": inserted.area,
        "average_drop": vizsynth.average_drop(net, x, labels, maps).values,
        "increase": vizsynth.increase_in_confidence(net, x, labels, maps).values,
        "average_gain": vizsynth.average_gain(net, x, labels, maps).values,
    }
    return values, deleted, inserted


def _interval(values: np.ndarray, seed: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    import vizsynth

    found = vizsynth.bootstrap_mean(jnp.asarray(values, jnp.float32), key=jax.random.key(seed))
    return {"mean": float(found.mean), "low": float(found.low), "high": float(found.high)}


def _csv(table: dict[str, dict[str, dict[str, float]]]) -> str:
    text = io.StringIO()
    columns = list(next(iter(table.values())))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", *(f"{c}{end}" for c in columns for end in ("", "_low", "_high"))])
    for name, found in table.items():
        cells = [found[c][end] for c in columns for end in ("mean", "low", "high")]
        writer.writerow([name, *(f"{value:.6g}" for value in cells)])
    return text.getvalue()


def _draw(curves: dict[str, Any]) -> np.ndarray:
    """Return the mean curves as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (name, (fractions, gone, come)) in enumerate(curves.items()):
        style = ("-", "--", ":")[i // 10 % 3]
        left.plot(fractions, gone, style, label=name)
        right.plot(fractions, come, style, label=name)
    left.set(title="deletion: low is good", xlabel="share of pixels taken", ylabel="probability of the class")
    right.set(title="insertion: high is good", xlabel="share of pixels given")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _told(table: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    columns = list(next(iter(table.values())))
    width = max(len(name) for name in table)
    yield " " * width + "".join(f"  {column:>13}" for column in columns)
    for name, found in table.items():
        cells = (f"{found[c]['mean']:6.3f} ±{(found[c]['high'] - found[c]['low']) / 2:5.3f}" for c in columns)
        yield f"{name:>{width}}" + "".join(f"  {cell:>13}" for cell in cells)
