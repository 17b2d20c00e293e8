"""`vizsynth explain`: what a network sees in a photo, and where."""

import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vizsynth.cli import common, options
from vizsynth.cli.comparison import comparison
from vizsynth.cli.methods import METHODS, Method, methods, pick_layer
from vizsynth.cli.options import Seeded
from vizsynth.cli.photos import Photo
from vizsynth.cli.settings import argument, command_of

SHEET = "sheet.png"
SHEET_SIDE = 360  # pixels: the longer side of each picture in the sheet
COLUMNS = 5  # of the sheet
COMPARED = 6  # from so many methods on, the sheet has a row for each, on one scale

EPILOG = "\b\nMethods, beside `all`:\n" + textwrap.fill(", ".join(METHODS), 76, break_on_hyphens=False)


@dataclass(frozen=True, kw_only=True)
class Settings(Seeded):
    """Of `vizsynth explain`."""

    photo: Photo = argument()
    network: str = options.network(record="numbers")
    weights: str | None = options.weights(record=None)
    target: str = options.target(record=None)
    methods: tuple[Method, ...] = methods("Methods")
    layer: str | None = options.layer(record=None)
    size: int | None = options.size(record=None)
    seed: int = options.seed(record="numbers")
    out: Path | None = options.out("NAME")


@command_of(Settings, epilog=EPILOG)
def command(settings: Settings) -> None:
    """Name what a network sees in PHOTO, and show which pixels count.

    Prints the five likeliest classes; writes the methods' pictures, a sheet of
    them and numbers.json (settings, classes, ranges) into DIR.
    """
    common.need_extra("matplotlib")
    photo, methods = settings.photo, settings.methods
    net = common.load_network(settings.network, settings.weights)
    common.need_classes(net, settings.network)
    image = photo.pixels(settings.size or min(common.input_size(net)))
    picture = photo.shown()
    layer = pick_layer(net, methods, settings.layer)
    if common.pooled_layer(net) is None and any(m.pooled for m in methods):
        if len(methods) < len(METHODS):
            raise common.BadInput("cam needs a network with global average pooling; grad-cam is for any")
        methods = tuple(m for m in methods if not m.pooled)
    label = common.pick_target(net, settings.target)
    folder = settings.open(photo.stem)
    folder.check([*(file for m in methods for file in _files(m)), SHEET], inputs=[photo])

    with common.progress(photo.name, ["classes", *(m.name for m in methods)], settings.quiet) as begin:
        begin("classes")
        probabilities = probabilities_of(net, image)
        order = np.argsort(-probabilities, kind="stable").tolist()
        label = order[0] if label is None else label
        labels = [label]
        if len(methods) >= COMPARED:  # the sheet sets the likeliest other class beside the target
            labels.append(next(i for i in order if i != label))

        @cache
        def map_of(name: str, label: int) -> np.ndarray:
            method = METHODS[name]
            if method.flattens and METHODS[method.flattens] in methods:
                return np.asarray(METHODS[method.flattens].flat(map_of(method.flattens, label)[None])[0])
            return np.asarray(method.maps(net, image[None], label, layer, settings.seed)[0])

        all_maps: dict[str, list[np.ndarray]] = {}
        for method in methods:
            begin(method.name)
            all_maps[method.name] = [map_of(method.name, c) for c in labels]
    maps = {name: found[0] for name, found in all_maps.items()}
    ranges = {
        name: {"shape": list(m.shape), "min": float(m.min()), "max": float(m.max())} | METHODS[name].options
        for name, m in maps.items()
    }
    classes = [common.likely(net, probabilities, i) for i in order[:5]]
    target = common.likely(net, probabilities, label)
    numbers = {
        **common.seen(net, settings.weights, image), "classes": classes, "target": target, "layer": layer,
        "maps": ranges,
    }  # fmt: skip
    pictures = {name: p for m in methods for name, p in _pictures(m, picture, maps[m.name]).items()}
    title = f"{net.record.network}: {target['name']}, p = {probabilities[label]:.2f}"
    if len(labels) > 1:
        names = [common.class_name(net, c) for c in labels]
        pictures[SHEET] = comparison(picture, methods, all_maps, names, title)
    else:
        pictures[SHEET] = _sheet(photo.stem, picture, pictures, title)
    settings.write(folder, pictures, numbers, *told(classes, target), "")


def told(classes: list[dict[str, Any]], target: dict[str, Any]) -> list[str]:
    """Return the lines that name the likeliest classes and the one that is explained."""
    lines = [f"{found['probability']:6.1%}  {found['name']} ({found['label']})" for found in classes]
    return [*lines, "", f"explained: {target['name']} ({target['label']}), p = {target['probability']:.3f}"]


def probabilities_of(net: Any, image: np.ndarray) -> np.ndarray:
    """Return the probability of each class."""
    return np.asarray(_softmax()(net, image[None])[0], np.float64)


@cache
def _softmax() -> Any:
    import jax

    return jax.jit(lambda net, images: jax.nn.softmax(net(images)))


def _files(method: Method) -> list[str]:
    files = [f"{method.name}.png"]
    return [*files, f"{method.name}-overlay.png"] if method.figure.endswith("cam") else files


def _pictures(method: Method, photo: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Return the figures of a method's map by their files' names, at the size of the photo."""
    import jax.numpy as jnp

    from vizsynth.figures import clip_percentile, heat, overlay, signed
    from vizsynth.images import upsample

    flat = values.sum(axis=-1) if values.ndim == 3 else values
    large = np.asarray(upsample(jnp.asarray(flat), photo.shape[:2]))
    match method.figure:
        case "heat":
            figures = [heat(clip_percentile(large), colormap="inferno")]
        case "relief":
            figures = [heat(large - large.min(), colormap="inferno")]
        case "signed":
            figures = [signed(clip_percentile(large))]
        case "cam":
            figures = [heat(large, colormap="jet"), overlay(photo, flat, alpha=0.4, colormap="jet")]
        case "signed-cam":  # what speaks for the target is laid over the photo
            figures = [signed(large), overlay(photo, flat, alpha=0.4, colormap="jet")]
    return dict(zip(_files(method), figures, strict=True))


def _sheet(name: str, photo: np.ndarray, pictures: dict[str, Any], title: str) -> np.ndarray:
    """Return the photo beside the pictures, each above what it is."""
    import jax.numpy as jnp

    from vizsynth.figures import caption, sheet
    from vizsynth.images import resize

    scale = min(1.0, SHEET_SIDE / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[0] * scale)), max(1, round(photo.shape[1] * scale)))
    if 1 + len(pictures) > COLUMNS:  # of a class activation map the overlay is enough
        pictures = {
            f: p for f, p in pictures.items() if f"{f.removesuffix('.png')}-overlay.png" not in pictures
        }
    named = {name: photo} | {file.removesuffix(".png"): picture for file, picture in pictures.items()}
    cells = [caption(np.asarray(resize(jnp.asarray(p), size)), text) for text, p in named.items()]
    columns = min(len(cells), COLUMNS)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return sheet(rows, title=title)
