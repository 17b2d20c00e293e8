"""What would a generator draw of a class? `python -m experiments.latent [--quick] [--out DIR] [--seed N]`.

Pictures of the same classes of SqueezeNet are made in three ways: as codes of a decoder that was trained to
invert the network's features (`experiments/feature_decoder.py`), as Fourier coefficients, and as pixels.
Written are, after Nguyen, Dosovitskiy, Yosinski, Brox & Clune, Synthesizing the preferred inputs for neurons
in neural networks via deep generator networks, 2016,

- `latent.png`: a row a way, a column a class;
- `decoder.png`: photos and what the decoder makes of their features, two of them not trained on;
- `latent.json`: settings, probabilities, seconds; `caption.md`: what the pictures show.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import feature_decoder, figure
from vizsynth import figures
from vizsynth.files import write_image
from vizsynth.parametrizations import Pixels
from vizsynth.transforms import Jitter, none
from vizsynth.transforms import Sequence as Chain
from vizsynth.types import Synthesis

# espresso, tabby, bell pepper, goldfish, daisy
CLASSES = (967, 281, 945, 1, 985)
CELLS = 9  # the side of a code: 144 pixels


def ways(seed: int, *, steps: int) -> dict[str, Callable[[Any, Any], Synthesis]]:
    """Return how the pictures are made."""
    key = jax.random.key(seed)
    generator = feature_decoder.generator()
    weights = generator.args[0]
    side = CELLS * feature_decoder.CELL

    def of_codes(net: Any, labels: Any) -> Synthesis:
        return vizsynth.visualize_latent(
            net,
            labels,
            generator,
            shape=(CELLS, CELLS, feature_decoder.UNITS),
            key=key,
            steps=steps,
            over=steps,
            high=weights["high"],
            learning_rate=0.3,
            transform=Chain((Jitter(16),)),
        )

    def of(optimization: vizsynth.Optimization) -> Callable[[Any, Any], Synthesis]:
        return lambda net, labels: vizsynth.visualize_class(
            net,
            labels,
            key=key,
            steps=steps,
            size=side,
            optimization=optimization,
        )

    return {
        "codes of the decoder": of_codes,
        "Fourier, transformed": of(vizsynth.Optimization()),
        "pixels alone": of(vizsynth.Optimization(Pixels(clip=True), none, learning_rate=0.01)),
    }


def run(out: Path, *, quick: bool = False, seed: int = 0, classes: Sequence[int] = CLASSES) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load("squeezenet1_1")
    classes = classes[:2] if quick else classes
    labels, steps = jnp.asarray(classes), 2 if quick else 60
    look = jax.jit(lambda net, images: jax.nn.softmax(net(images)))
    rows, found = [], {}
    for name, way in ways(seed, steps=steps).items():
        began = time.perf_counter()
        made = jax.block_until_ready(way(net, labels))
        chance = np.asarray(look(net, made.images))[np.arange(len(classes)), np.asarray(classes)]
        found[name] = {
            "probability": chance.astype(float).round(4).tolist(),
            "first_logit": np.asarray(made.trace[:, 0], float).round(2).tolist(),
            "last_logit": np.asarray(made.trace[:, -1], float).round(2).tolist(),
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(f"{name:24}" + "  ".join(f"{k} {v}" for k, v in found[name].items()), flush=True)
        rows.append(list(made.images))
    names = [net.labels[label].split(",")[0] for label in classes]
    write_image(out / "latent.png", figures.sheet(rows, row_labels=list(found), column_labels=names))
    weights = feature_decoder.kept()
    feature_decoder.draw(out / "decoder.png", weights)
    record = {"seed": seed, "steps": steps, "classes": dict(zip(names, classes, strict=True)), "ways": found}
    told = "; ".join(f"{name} {', '.join(f'{p:.2f}' for p in v['probability'])}" for name, v in found.items())
    numbers = sum(int(value.size) for value in weights.values())
    caption = (
        f"Classes of SqueezeNet 1.1, {', '.join(names)}: {steps} steps on the logit, {CELLS * 16} pixels, "
        f"seed {seed}. Probabilities at the end: {told}. The classes and number of steps were chosen "
        "after looking at a few others. First row: DGN-AM (Nguyen et al., 2016) in the code space of a small "
        "decoder of "
        f"{feature_decoder.LAYER}, {CELLS}x{CELLS}x{feature_decoder.UNITS} codes, rate 0.3 falling to 0, "
        "decay 0.99, each unit held within [0, mean + 3 standard deviations]; second: Fourier coefficients "
        "under random transforms (Olah et al., 2017); third: pixels, no prior at all. The paper's generator "
        "inverts a fully connected layer, was trained on all of ImageNet with an adversarial loss and draws "
        f"whole objects at 227 pixels. Ours has {numbers:,} numbers, was trained for some minutes on crops "
        "of ten photos without an adversarial loss, and inverts a layer of local features: what it knows of "
        "photos is soft edges, smooth surfaces and shading, and it cannot draw fine texture. A cup and a cat "
        "were among the ten photos; no pepper, goldfish or daisy was. The flower and the temple in "
        "`decoder.png` (CC BY 2.0, see experiments/photos/SOURCES.md) were not trained on."
    )
    figure.tell(out, "latent", record, caption)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "latent", quick="two classes, few steps")
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, classes=given.classes)


if __name__ == "__main__":
    main()
