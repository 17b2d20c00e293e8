"""`vizsynth explain`: what a network sees in a photo, and where."""

import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common
from vizsynth.cli.comparison import comparison
from vizsynth.cli.methods import METHODS, Method, parse_methods
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest, read_photo

SHEET = "sheet.png"
LARGEST = 1024  # pixels: the longer side of the pictures that are written
SHEET_SIDE = 360  # pixels: the longer side of each picture in the sheet
COLUMNS = 5  # of the sheet
COMPARED = 6  # from so many methods on, the sheet has a row for each, on one scale

EPILOG = "\b\nMethods, beside `all`:\n" + textwrap.fill(", ".join(METHODS), 76, break_on_hyphens=False)


@click.command("explain", epilog=EPILOG)
@click.argument("photo", type=click.Path(path_type=Path))
@common.network
@common.weights
@common.target
@click.option(
    "--method", "-m", "methods", multiple=True, metavar="NAME,...", callback=parse_methods,
    help=f"Methods [{','.join(m.name for m in METHODS.values() if m.usual)}].",
)  # fmt: skip
@common.layer
@common.size
@common.seed
@common.out("out/NAME")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photo: Path,
    network: str,
    weights: str | None,
    target: str,
    methods: list[Method],
    layer: str | None,
    size: int | None,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Name what a network sees in PHOTO, and show which pixels count.

    Prints the five likeliest classes; writes the methods' pictures, a sheet of
    them and numbers.json (settings, classes, ranges) into DIR.
    """
    import jax

    from vizsynth.files import read_image

    common.need_extra("matplotlib")
    net = common.load_network(network, weights)
    common.need_classes(net, network)
    image = np.asarray(read_photo(photo, size or min(common.input_size(net))))
    picture = np.asarray(read_image(photo, shown_side(photo)))
    if layer is not None or any(m.needs_layer and not m.pooled for m in methods):
        layer = common.pick_layer(net, layer)
    pooled = common.pooled_layer(net)
    if pooled is None and any(m.pooled for m in methods):
        if len(methods) < len(METHODS):
            raise common.BadInput("cam needs a network with global average pooling; grad-cam is for any")
        methods = [m for m in methods if not m.pooled]
    label = None if target == "top" else common.pick_class(net, target)

    origin = {"command": "explain", "photo": {"name": photo.name, "sha256": digest(photo)}}
    folder = OutputFolder(out or common.usual_folder(photo.stem), origin, overwrite=overwrite)
    folder.check([*(file for m in methods for file in _files(m)), SHEET], inputs=[photo])

    with common.progress(photo.name, ["classes", *(m.name for m in methods)], quiet) as begin:
        begin("classes")
        probabilities = probabilities_of(net, image)
        if label is None:
            label = int(probabilities.argmax())
        labels = [label]
        if len(methods) >= COMPARED:  # the sheet sets the likeliest other class beside the target
            labels.append(next(int(i) for i in np.argsort(-probabilities, kind="stable") if i != label))

        @cache
        def map_of(name: str, label: int) -> np.ndarray:
            method = METHODS[name]
            if method.flattens and METHODS[method.flattens] in methods:
                return np.asarray(METHODS[method.flattens].flat(map_of(method.flattens, label)[None])[0])
            where = pooled if method.pooled else layer
            return np.asarray(method.maps(net, image[None], label, where, seed)[0])

        all_maps: dict[str, list[np.ndarray]] = {}
        for method in methods:
            begin(method.name)
            all_maps[method.name] = [map_of(method.name, c) for c in labels]
    maps = {name: found[0] for name, found in all_maps.items()}

    def described(label: int) -> dict[str, Any]:
        p = round(float(probabilities[label]), 6)
        return {"label": label, "name": common.class_name(net, label), "probability": p}

    numbers = {
        "network": network,
        "weights": {"given": weights, "origin": net.record.origin},
        "seen_at": {"height": image.shape[0], "width": image.shape[1]},
        "classes": [described(int(i)) for i in np.argsort(-probabilities, kind="stable")[:5]],
        "target": described(label),
        "layer": layer,
        "seed": seed,
        "maps": {
            name: {"shape": list(m.shape), "min": float(m.min()), "max": float(m.max())}
            | METHODS[name].options
            for name, m in maps.items()
        },
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    pictures = {name: p for m in methods for name, p in _pictures(m, picture, maps[m.name]).items()}
    title = f"{net.record.network}: {common.class_name(net, label)}, p = {probabilities[label]:.2f}"
    if len(labels) > 1:
        names = [common.class_name(net, c) for c in labels]
        pictures[SHEET] = comparison(picture, methods, all_maps, names, title)
    else:
        pictures[SHEET] = _sheet(photo.stem, picture, pictures, title)
    files = folder.write(pictures, numbers)

    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
    else:
        _print(numbers)
        common.tell("", f"wrote into {folder.path}: {', '.join(files)}")


def probabilities_of(net: Any, image: np.ndarray) -> np.ndarray:
    """Return the probability of each class."""
    return np.asarray(_softmax()(net, image[None])[0], np.float64)


@cache
def _softmax() -> Any:
    import jax

    return jax.jit(lambda net, images: jax.nn.softmax(net(images)))


def shown_side(photo: Path) -> int | None:
    """Return the shorter side at which the photo is shown; None is its own."""
    from vizsynth.files import image_sides

    shorter, longer = image_sides(photo)
    return None if longer <= LARGEST else max(1, round(shorter * LARGEST / longer))


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


def _print(numbers: dict[str, Any]) -> None:
    for found in numbers["classes"]:
        common.tell(f"{found['probability']:6.1%}  {found['name']} ({found['label']})")
    target = numbers["target"]
    common.tell("", f"explained: {target['name']} ({target['label']}), p = {target['probability']:.3f}")
