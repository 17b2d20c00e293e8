"""What may be covered, and what must be seen? `python -m experiments.occlusion [--quick] [--out DIR]`.

Written are

- `occlusion.png`: photos, how far the class's probability falls where squares are laid, and RISE;
- `covered.png`: the photos with the square that costs most, and what the network then says;
- `occlusion.json`: classes, ranges, seconds; `caption.md`: what the pictures show.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, section 4.2; Petsiuk, Das &
Saenko, RISE, 2018.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import attributions, figure
from experiments.attributions import NETWORK, Method, over_photo, probabilities, red_and_blue
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.maps.occlusion import window_starts

WINDOWS = (16, 32, 64)
GREY = 0.5


def methods(key: Any, windows: Sequence[int], samples: int) -> dict[str, Method]:
    """Return occlusion by squares of several sizes, and RISE."""
    squares = {
        f"a square of {w}": Method(partial(vizsynth.occlusion, window=w, stride=w // 4), red_and_blue)
        for w in windows
    }
    return squares | {f"RISE, {samples} masks": Method(partial(rise, key=key, samples=samples), over_photo)}


def rise(net: Any, x: Any, labels: Any, *, key: Any, samples: int) -> Any:
    """Return RISE's map less its least value, as only its differences mean something."""
    found = vizsynth.rise(net, x, labels, key=key, samples=samples)
    return found - found.min(axis=(1, 2), keepdims=True)


def costliest(net: Any, photo: Any, label: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo with the one square that costs the class most, and what the network then says."""
    side = photo.shape[0]
    starts = [s for s in window_starts(side, window, window // 2) if s + window <= side]
    boxes = [(y, x) for y in starts for x in starts]
    covered = jnp.stack([photo.at[y : y + window, x : x + window].set(GREY) for y, x in boxes])
    p = np.concatenate([probabilities(net, one[None]) for one in covered])
    worst = int(p[:, label].argmin())
    return np.asarray(covered[worst]), p[worst]


def run(
    out: Path, *, quick: bool = False, seed: int = 0, images: Sequence[Path] = attributions.DEFAULT
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(NETWORK)
    side, windows, samples = (128, WINDOWS[1:2], 200) if quick else (227, WINDOWS, 4000)
    paths = images[:1] if quick else images
    table = methods(jax.random.key(seed), windows, samples)
    numbers = attributions.explain(out, "occlusion", net, paths, table, side=side)

    row, heads = [], []
    for path in paths:
        label = numbers[path.stem]["label"]
        picture, p = costliest(net, read_image(path, (side, side)), label, windows[-1])
        says = int(p.argmax())
        numbers[path.stem] |= {
            "covered": {"p": float(p[label]), "says": net.labels[says], "p_of_it": float(p[says])}
        }
        was = numbers[path.stem]
        row.append(picture)
        heads.append(f"{was['class']} {was['p']:.0%} -> {p[label]:.0%}\nnow {net.labels[says]} {p[says]:.0%}")
        print(f"{path.stem:12} {heads[-1]}".replace("\n", ", "))
    write_image(out / "covered.png", figures.sheet([row], column_labels=heads))
    record = {
        "network": NETWORK,
        "seed": seed,
        "size": side,
        "windows": list(windows),
        "samples": samples,
        "fill": GREY,
        "photos": numbers,
    }
    caption = (
        "How far the probability of the likeliest class falls where a grey square is laid (Zeiler & Fergus, "
        f"2013), {NETWORK}, {side}x{side} px, squares of {', '.join(map(str, windows))} px, a quarter of one "
        f"apart: red must be seen, blue is better covered. RISE (Petsiuk et al., 2018; seed {seed}) asks the "
        f"same by {samples} random masks. Below, the photos with the square that costs the class most."
    )
    figure.tell(out, "occlusion", record, caption, [path.stem for path in paths])


if __name__ == "__main__":
    attributions.main(run, __doc__, "occlusion")
