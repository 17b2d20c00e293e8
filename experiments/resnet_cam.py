"""ResNet-18 is fine-tuned on two classes; CAM shows where it sees them. `python -m experiments.resnet_cam`.

ResNet-18 (He et al., 2015) first learns ten digits, planted at known places on textures
(`vizsynth.planted`), from squares around them: that is the checkpoint. Then it gets a head for two classes
and learns those from whole pictures: two of the digits, or, by `--data`, two folders of your own. CAM (Zhou
et al., Learning Deep Features for Discriminative Localization, 2016) is exact for it: its last maps enter
the logits by their mean.

- `predictions.png`: CAM of every held-out picture for the class it was told to be, wrong ones framed red;
- `stages.png`: what the class weighs after each of the four stages (Grad-CAM; after the last it is CAM);
- `elsewhere.png`: CAM on photos that show neither class;
- `pretrained.safetensors`, `two_classes.safetensors`, and the history of each as JSON and PNG;
- `resnet_cam.json`: accuracies, the pointing game, seconds; `caption.md`.
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS
from experiments.training import as_floats, train
from vizsynth import figures, models, training
from vizsynth.datasets.folders import Skipped
from vizsynth.datasets.labelled import as_bytes, read_labelled
from vizsynth.files import read_image, write_image
from vizsynth.images import Standardize
from vizsynth.models.resnet import DEPTHS, STAGE_WIDTHS, ResNet, ResNetConfig
from vizsynth.planted import Planted, planted
from vizsynth.training import Examples, Parts
from vizsynth.transforms import Jitter, Mirror, Pad, Sequence, none

STAGES = ("layer1.1", "layer2.1", "layer3.1", "layer4.1")
STANDARDIZE = Standardize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
DIGITS = (2, 6)
SQUARE = 64  # pixels of a side, of what it first learns from
RED, WHITE = (0.9, 0.0, 0.0), 1.0
ELSEWHERE = ("chelsea", "coffee", "rocket", "brick")


def squares(data: Planted, side: int, seed: int) -> np.ndarray:
    """Return a square of each picture that holds its digit, at a random place around it, as uint8."""
    rng = np.random.default_rng(seed)
    parts = []
    for image, (top, left, bottom, right) in zip(data.images, data.boxes, strict=True):
        size = image.shape[0]
        y, x = (
            rng.integers(max(0, end - side), min(first, size - side) + 1)
            for end, first in ((bottom, top), (right, left))
        )
        parts.append(as_bytes(image[y : y + side, x : x + side]))
    return np.stack(parts)


def digits(n: int, side: int, seed: int) -> Parts:
    """Return squares around planted digits, to learn ten classes from, and held-out ones."""
    classes = tuple(str(digit) for digit in range(10))
    parts = []
    for split, count in (("train", n), ("test", max(20, n // 10))):
        data = planted(seed, count, split="train" if split == "train" else "test", size=2 * side)
        parts.append(Examples(squares(data, side, seed), data.labels.astype(np.int32), classes))
    return Parts(*parts)


def two_digits(n: int, held_out: int, size: int, seed: int) -> tuple[Parts, np.ndarray]:
    """Return whole pictures with one of two digits, and held-out ones with the boxes of their digits."""
    classes = tuple(f"digit {digit}" for digit in DIGITS)
    parts, boxes = [], np.zeros((0, 4), int)
    for split, count in (("train", n), ("test", held_out)):
        data = planted(seed + 1, 6 * count + 50, split="train" if split == "train" else "test", size=size)
        chosen = np.flatnonzero(np.isin(data.labels, DIGITS))[:count]
        labels = (data.labels[chosen] == DIGITS[1]).astype(np.int32)
        parts.append(Examples(as_bytes(data.images[chosen]), labels, classes))
        boxes = data.boxes[chosen]
    return Parts(*parts), boxes


def cams(net: Any, data: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the label that each picture is told, and its CAM."""
    told, maps = [], []
    for start in range(0, len(data.labels), 20):
        images = jnp.asarray(as_floats(data.images[start : start + 20]))
        told.append(np.asarray(net(images).argmax(-1)))
        maps.append(np.asarray(vizsynth.cam(net, images, told[-1], layer=STAGES[-1])))
    return np.concatenate(told), np.concatenate(maps)


def pointing(
    net: Any, data: Examples, told: np.ndarray, maps: np.ndarray, boxes: np.ndarray
) -> dict[str, float]:
    """Return how often a map is highest in the digit's box, of CAM and of Grad-CAM after stage 3."""
    size = (data.images.shape[1], data.images.shape[2])
    finer = [
        np.asarray(
            vizsynth.grad_cam(
                net, jnp.asarray(as_floats(data.images[i : i + 20])), told[i : i + 20], layer=STAGES[2]
            )
        )
        for i in range(0, len(told), 20)
    ]

    def won(found: np.ndarray, tolerance: float) -> float:
        game = vizsynth.pointing_game(jnp.asarray(found), jnp.asarray(boxes), size=size, tolerance=tolerance)
        return float(np.asarray(game.hits).mean())

    return {
        "cam": won(maps, 0.0),
        "cam_within_15_pixels": won(maps, 15.0),  # as the paper counts (section 4.1)
        "stage_3": won(np.concatenate(finer), 0.0),
    }


def laid_over(image: Any, cam: np.ndarray) -> np.ndarray:
    """Return CAM over its picture, from its least value to its greatest, as the lesson has it."""
    low, high = float(cam.min()), float(cam.max())
    return figures.overlay(image, cam, alpha=0.5, low=low, high=max(high, low + 1e-6))


def show_predictions(held_out: Examples, told: np.ndarray, maps: np.ndarray, out: Path) -> None:
    """Draw the CAM of all held-out pictures, the wrong ones in red frames; they come first."""
    order = np.argsort(told == held_out.labels, kind="stable")
    pictures = [
        figures.frame(
            laid_over(as_floats(held_out.images[i]), maps[i]),
            WHITE if told[i] == held_out.labels[i] else RED,
            width=4,
        )
        for i in order
    ]
    write_image(out / "predictions.png", figures.grid(pictures, columns=min(20, len(pictures))))


def show_stages(net: Any, held_out: Examples, told: np.ndarray, out: Path, count: int) -> None:
    """Draw what the class that is told weighs after each stage, a row a picture."""
    places = np.linspace(0, len(told) - 1, count).astype(int)
    images = as_floats(held_out.images[places])
    rows = [[image] for image in images]
    for layer in STAGES:
        found = np.asarray(vizsynth.grad_cam(net, jnp.asarray(images), told[places], layer=layer))
        for row, image, heatmap in zip(rows, images, found, strict=True):
            row.append(figures.overlay(image, heatmap, alpha=0.5, high=max(float(heatmap.max()), 1e-9)))
    labels = [
        f"{held_out.classes[told[i]]}" + ("" if told[i] == held_out.labels[i] else "\n(wrong)")
        for i in places
    ]
    heads = ["", *(f"stage {i}" for i in range(1, 5))]
    write_image(out / "stages.png", figures.sheet(rows, row_labels=labels, column_labels=heads))


def show_elsewhere(net: Any, size: int, out: Path) -> dict[str, dict[str, object]]:
    """Draw CAM on photos of neither class; return what is told of them, and how surely."""
    photos = jnp.stack([read_image(PHOTOS / f"{name}.jpg", (size, size)) for name in ELSEWHERE])
    chances = np.asarray(jax.nn.softmax(net(photos)))
    told = chances.argmax(-1)
    maps = np.asarray(vizsynth.cam(net, photos, told, layer=STAGES[-1]))
    rows = [
        [np.asarray(photo) for photo in photos],
        [laid_over(photo, m) for photo, m in zip(photos, maps, strict=True)],
    ]
    heads = [f"{net.labels[k]}\n{p[k]:.2f}" for k, p in zip(told, chances, strict=True)]
    write_image(out / "elsewhere.png", figures.sheet(rows, column_labels=heads))
    return {
        name: {"told": net.labels[k], "probability": float(p[k])}
        for name, k, p in zip(ELSEWHERE, told, chances, strict=True)
    }


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    data: Path | None = None,
    weights: Path | None = None,
    size: int = 192,
    pretraining: tuple[int, int] = (6000, 5),
    fine_tuning: tuple[int, int] = (750, 4),
) -> None:
    """Train, fine-tune, and make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    record: dict[str, Any] = {"seed": seed, "size": size}
    steps = 1 if quick else None
    if quick:
        size, pretraining, fine_tuning = 64, (32, 1), (32, 1)
    if weights is None:
        parts = digits(pretraining[0], 32 if quick else SQUARE, seed)
        widths = (8, 8, 16, 16) if quick else STAGE_WIDTHS
        config = ResNetConfig(DEPTHS[18], False, 10, widths)
        fresh = ResNet(config, standardize=STANDARDIZE, key=jax.random.key(seed))
        options: dict[str, Any] = {"epochs": pretraining[1], "batch_size": 32, "learning_rate": 1e-3}
        _, record["pretraining"] = train(
            fresh, parts.training, parts.held_out, out, name="pretrained", seed=seed, steps=steps,
            folded=False, **options,
        )  # fmt: skip
        weights = out / "pretrained.safetensors"
    boxes, skipped = None, list[Skipped]()
    if data is None:
        parts, boxes = two_digits(fine_tuning[0], 20 if quick else 200, size, seed)
        augment = none
    else:
        parts = read_labelled(data, size, skipped=skipped)
        if parts.held_out is None:
            parts = training.split(parts.training, 0.2, key=jax.random.key(seed))
        augment = Sequence((Mirror(), Pad(size // 16), Jitter(size // 8)))
    ours = weights.name == "pretrained.safetensors"  # it says which network it is
    loaded = models.load(*([weights] if ours else ["resnet18", weights]), folded=False)
    net = models.with_classes(loaded, parts.training.classes, key=jax.random.key(seed + 1))
    net, record["fine_tuning"] = train(
        net, parts.training, parts.held_out, out, name="two_classes", seed=seed + 1, steps=steps,
        epochs=fine_tuning[1], batch_size=32, learning_rate=5e-4, augment=augment,
    )  # fmt: skip
    told, maps = cams(net, parts.held_out)
    right = told == parts.held_out.labels
    record["accuracy"] = float(right.mean())
    if boxes is not None:
        record["pointing_game"] = pointing(net, parts.held_out, told, maps, boxes)
    show_predictions(parts.held_out, told, maps, out)
    show_stages(net, parts.held_out, told, out, 2 if quick else 6)
    record["elsewhere"] = show_elsewhere(net, size, out)
    record["seconds"] = round(time.perf_counter() - began, 1)
    record["skipped"] = [str(bad.path) for bad in skipped]
    pointed = ""
    if boxes is not None:
        game = record["pointing_game"]
        pointed = (
            f"; the pointing game on their boxes is won {game['cam_within_15_pixels']:.1%} within the 15 "
            f"pixels that its paper allows, {game['cam']:.1%} to the pixel by CAM, whose cells are "
            f"{size // maps.shape[1]} pixels wide, and {game['stage_3']:.1%} after the third stage"
        )
    print(f"accuracy {record['accuracy']:.4f}{pointed}; {record['seconds']} s", flush=True)
    caption = (
        f"CAM (Zhou et al., 2016) of ResNet-18, fine-tuned on {len(parts.training.labels)} pictures of "
        f"{' and '.join(parts.training.classes)} at {size} px; {record['accuracy']:.1%} of {len(told)} "
        f"held-out ones are told right{pointed}. Each map from its least value to its greatest. After stages "
        "1 to 3, where no CAM is defined, Grad-CAM stands for it."
    )
    figure.tell(out, "resnet_cam", record, caption, ELSEWHERE)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "resnet_cam", quick="one step each, small pictures")
    parser.add_argument("--data", type=Path, help="a folder of two class folders, in place of two digits")
    parser.add_argument("--weights", type=Path, help="a ResNet-18 to fine-tune, in place of pretraining")
    parser.add_argument("--size", type=int, default=192, help="pixels of a side")
    parser.add_argument("--pretraining", type=int, nargs=2, default=(6000, 5), metavar=("PICTURES", "EPOCHS"))
    parser.add_argument("--fine-tuning", type=int, nargs=2, default=(750, 4), metavar=("PICTURES", "EPOCHS"))
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        data=given.data,
        weights=given.weights,
        size=given.size,
        pretraining=tuple(given.pretraining),
        fine_tuning=tuple(given.fine_tuning),
    )


if __name__ == "__main__":
    main()
