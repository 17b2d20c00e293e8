"""What does a network take for its classes? `python -m experiments.class_visualization [--quick]`.

A picture of each of twenty classes of ImageNet is made by gradient ascent, and looked at again: as it is, and
after it was saved as JPEG, read, and shifted by 8 pixels, which a picture that merely tricks the network does
not survive. Three classes are made with Yosinski's four settings besides. Written are

- `classes.png`, `classes.csv`: the pictures, and their probabilities before and after;
- `regularizers.png`: the four settings;
- `class_visualization.json`: settings and numbers; `caption.md`: what the pictures show.

Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, 2013, section 2; Yosinski et al.,
Understanding Neural Networks Through Deep Visualization, 2015, figure 4.
"""

import csv
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import vizsynth
from experiments import figure
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.scores import Class, LogProbability
from vizsynth.synthesis.features import yosinski

CLASSES = (
    *(1, 9, 22, 76, 84, 94, 100, 130, 145, 207),
    *(281, 323, 340, 417, 604, 817, 847, 920, 949, 963),
)
SHIFT = 8  # pixels
RATE = 10.0  # SqueezeNet's logits change less with a pixel than CaffeNet's


def target(labels: Array) -> Any:
    """Return what is maximized: the logit, and some of what sets the class apart from its like."""
    return Class(labels) + 5.0 * LogProbability(labels)


def probabilities(net: Any, images: Array, labels: Array) -> Float[np.ndarray, " n"]:
    """Return the probability of each picture's own class."""
    p = jax.jit(lambda net, x: jax.nn.softmax(net(x)))(net, images)
    return np.asarray(jnp.take_along_axis(p, labels[:, None], axis=1)[:, 0], np.float64)


def disturbed(images: Array) -> Array:
    """Return the pictures after JPEG, and shifted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        again = []
        for image in images:
            write_image(path, image)
            again.append(read_image(path))
    return jnp.roll(jnp.stack(again), (SHIFT, SHIFT), axis=(1, 2))


def main() -> None:
    """Make the pictures, look at them again, and write all down."""
    parser = figure.options(__doc__, "class_visualization", quick="two classes, small, and fewer steps")
    parser.add_argument("--network", default="squeezenet1_1")
    chosen = parser.parse_args()

    net = vizsynth.load(chosen.network)
    classes = (130, 949) if chosen.quick else CLASSES  # a flamingo, a strawberry
    steps, at_once, size = (48, 2, 128) if chosen.quick else (256, 5, 224)
    key = jax.random.key(chosen.seed)
    pictures, before, after = [], [], []
    for first in range(0, len(classes), at_once):
        labels = jnp.asarray(classes[first : first + at_once])
        made = vizsynth.visualize_class(net, target(labels), key=key, steps=steps, size=size).images
        pictures += list(np.asarray(made))
        before += list(probabilities(net, made, labels))
        after += list(probabilities(net, disturbed(made), labels))
        sure, still = np.round(before[first:], 3), np.round(after[first:], 3)
        print(f"{len(pictures)} of {len(classes)}: p = {sure}, after JPEG and shift {still}", flush=True)

    names = [net.labels[label] for label in classes]
    tiles = [
        figures.caption(picture, f"{name}\n{p:.3f}, {q:.3f}")
        for picture, name, p, q in zip(pictures, names, before, after, strict=True)
    ]
    title = f"{chosen.network}, {steps} steps: probability of the picture, and after JPEG and {SHIFT} pixels"
    rows = [tiles[i : i + 5] for i in range(0, len(tiles), 5)]
    write_image(chosen.out / "classes.png", figures.sheet(rows, title=title))
    with (chosen.out / "classes.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["label", "name", "probability", "after_jpeg_and_shift"])
        written.writerows(zip(classes, names, before, after, strict=True))

    some = jnp.asarray([130, 949] if chosen.quick else [130, 949, 281])
    rows = []
    for settings, count in yosinski.TABLE.values():
        made = vizsynth.visualize_regularized(
            net, some, key=key, settings=settings, rate=RATE, steps=16 if chosen.quick else count, size=size
        )
        rows.append([figures.stretch(image) for image in made.images])
    labels_of = [net.labels[int(label)] for label in some]
    regularizers = figures.sheet(rows, row_labels=list(yosinski.TABLE), column_labels=labels_of)
    write_image(chosen.out / "regularizers.png", regularizers)

    numbers = {
        "network": chosen.network,
        "seed": chosen.seed,
        "steps": steps,
        "size": size,
        "classes": list(classes),
        "probability": before,
        "after_jpeg_and_shift": after,
        "objective": "logit + 5 log probability",
        "rate": RATE,
    }
    caption = (
        f"Pictures of {len(classes)} classes (Simonyan, Vedaldi & Zisserman, 2013) by {chosen.network}, seed "
        f"{chosen.seed}: Adam, {steps} steps of 0.05 on a Fourier parametrization with decorrelated colours, "
        "under padding, jitter, scaling and turning; and with the four settings of Yosinski et al., 2015. "
        f"Least probability {min(before):.4f}; after JPEG and a shift by {SHIFT} pixels {min(after):.4f}."
    )
    figure.tell(chosen.out, "class_visualization", numbers, caption)
    print(f"least probability {min(before):.4f}, after JPEG and shift {min(after):.4f}; wrote {chosen.out}")


if __name__ == "__main__":
    main()
