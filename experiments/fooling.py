"""Can every photo be taken for anything? `python -m experiments.fooling [--quick] [--out DIR]`.

Each photo of the repository is changed until the network takes it for each of ten other classes, drawn at
random. Written are

- `fooling.png`: some photos, what they became, and the difference ten times as large;
- `fooling.csv`: steps, L2 and Linf of all of them;
- `fooling.json`: settings and medians; `caption.md`: what the pictures show.

Szegedy et al., Intriguing properties of neural networks, 2013.
"""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.images import center_crop

SIDE = 224


def main() -> None:
    """Fool the network with every photo, and write down what it took."""
    parser = figure.options(__doc__, "fooling", quick="three photos, two classes")
    parser.add_argument("--network", default="squeezenet1_1")
    parser.add_argument("--images", type=Path, default=PHOTOS, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--step-size", type=float, default=0.5)
    chosen = parser.parse_args()

    net = vizsynth.load(chosen.network)
    paths = sorted(p for p in chosen.images.iterdir() if p.suffix in (".jpg", ".jpeg", ".png"))
    paths, classes = (paths[:3], 2) if chosen.quick else (paths, 10)
    photos = jnp.stack([center_crop(read_image(p, SIDE), (SIDE, SIDE)) for p in paths])
    softmax = jax.jit(lambda net, x: jax.nn.softmax(net(x)))
    was = np.asarray(softmax(net, photos).argmax(axis=1))

    rng = np.random.default_rng(chosen.seed)
    others = np.stack([rng.permutation(np.delete(np.arange(net.num_classes), w))[:classes] for w in was])
    rows, shown = [], []
    for i, (path, photo) in enumerate(zip(paths, photos, strict=True)):
        images = jnp.broadcast_to(photo, (classes, *photo.shape))
        made = vizsynth.fool(
            net, images, others[i], steps=chosen.steps, step_size=chosen.step_size, margin=1.0
        )
        kept = jnp.round(made.images * 255) / 255  # as a file holds it
        says = np.asarray(softmax(net, kept).argmax(axis=1))
        away = np.asarray(kept - images)
        l2, linf = np.sqrt((away**2).sum(axis=(1, 2, 3))), np.abs(away).max(axis=(1, 2, 3))
        steps = np.asarray(made.state.step)
        for c in range(classes):
            wanted = int(others[i, c])
            rows.append(
                [path.stem, int(was[i]), wanted, int(says[c]) == wanted, int(steps[c]), l2[c], linf[c]]
            )
        if len(shown) < 4:
            shown.append([photo, kept[0], vizsynth.magnified(images[:1], kept[:1])[0]])
        print(
            f"{path.stem}: {sum(says == others[i])} of {classes}, {np.median(steps):.0f} steps in the middle"
        )

    median = {
        name: float(np.median([row[k] for row in rows])) for name, k in (("steps", 4), ("l2", 5), ("linf", 6))
    }
    success = float(np.mean([row[3] for row in rows]))
    labels = [net.labels[int(w)] for w in was[: len(shown)]]
    became = [f"taken for {net.labels[int(others[i, 0])]}" for i in range(len(shown))]
    made_sheet = figures.sheet(
        shown, row_labels=labels, captions=became, column_labels=["photo", "changed", "difference x 10"]
    )
    write_image(chosen.out / "fooling.png", made_sheet)
    with (chosen.out / "fooling.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["photo", "label", "wanted", "fooled", "steps", "l2", "linf"])
        written.writerows(rows)
    numbers = {
        "network": chosen.network,
        "seed": chosen.seed,
        "step_size": chosen.step_size,
        "photos": len(paths),
        "classes_each": classes,
        "success": success,
        "median": median,
    }
    text = (
        f"Szegedy et al., 2013: {len(paths)} photos, each to {classes} classes drawn at random (seed "
        f"{chosen.seed}), "
        f"{chosen.network}: "
        f"{success:.0%} are taken for that class, rounded to eight bits as they are; medians: "
        f"{median['steps']:.0f} steps of length {chosen.step_size}, L2 {median['l2']:.2f}, "
        f"Linf {median['linf']:.3f}."
    )
    figure.tell(chosen.out, "fooling", numbers, text, [path.stem for path in paths])
    print(text)


if __name__ == "__main__":
    main()
