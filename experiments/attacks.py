"""How little changes the answer? `python -m experiments.attacks [--quick] [--out DIR] [--seed N]`.

Every attack on the classes that the network gives to the photos by itself. Written are

- `attacks.png`: one photo under each attack, the perturbation magnified, and the class before and after;
- `universal.png`: one perturbation for many photos, and some of them with it;
- `attacks.json`: success, L2, Linf and seconds of each attack; `caption.md`: what the pictures show.

Goodfellow et al., 2014 (FGSM); Kurakin et al., 2016 (BIM); Dong et al., 2017 (MI-FGSM); Madry et al., 2017
(PGD); Moosavi-Dezfooli et al., 2015 and 2016 (DeepFool, universal perturbation); Carlini & Wagner, 2016;
Croce & Hein, 2020 (APGD); Athalye et al., 2017 (expectation over transformations).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import attributions, figure
from experiments.attributions import NETWORK, probabilities
from experiments.figure import PHOTOS
from vizsynth import figures, transforms
from vizsynth.files import read_image, write_image
from vizsynth.images import center_crop

EPSILON = 2 / 255
RADIUS = 0.5
UNIVERSAL = 10 / 255
IMAGES = tuple(sorted(PHOTOS.glob("*.jpg"), key=lambda path: (path.stem != "chelsea", path)))
Attack = Callable[[Any, Array, Array], Array]


def attacks(key: Array, steps: int, searches: int) -> dict[str, Attack]:
    """Return every attack, by the paper's name; all but DeepFool, Carlini & Wagner and L2 within EPSILON."""
    ball: dict[str, Any] = {"epsilon": EPSILON}
    survived = transforms.Sequence((transforms.Jitter(4), transforms.Noise(0.02)))

    def bound(function: Any, **options: Any) -> Attack:
        return lambda net, x, labels: function(net, x, labels, **options)

    return {
        "FGSM": bound(vizsynth.fgsm, **ball),
        "BIM": bound(vizsynth.bim, **ball, step_size=EPSILON / 4, steps=steps),
        "MI-FGSM": bound(vizsynth.mi_fgsm, **ball, steps=steps),
        "PGD": bound(vizsynth.pgd, **ball, step_size=EPSILON / 4, steps=steps, key=key),
        "PGD, L2": bound(vizsynth.pgd_l2, epsilon=RADIUS, steps=steps, key=key),
        "PGD, shifted and noisy": bound(
            vizsynth.pgd, **ball, step_size=EPSILON / 4, steps=steps, key=key, transform=survived, samples=4
        ),
        "APGD, cross entropy": bound(vizsynth.apgd_ce, **ball, steps=10 * steps, key=key),
        "APGD, DLR": bound(vizsynth.apgd_dlr, **ball, steps=10 * steps, key=key),
        "DeepFool": bound(vizsynth.deepfool),
        "Carlini & Wagner": bound(vizsynth.carlini_wagner, steps=10 * steps, searches=searches),
    }


def run(out: Path, *, quick: bool = False, seed: int = 0, images: Sequence[Path] = IMAGES) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(NETWORK)
    side = 112 if quick else 224
    paths = images[:2] if quick else images
    photos = jnp.stack([center_crop(read_image(path, side), (side, side)) for path in paths])
    was = np.asarray(probabilities(net, photos))
    labels = jnp.asarray(was.argmax(axis=1).astype(np.int32))
    table = attacks(jax.random.key(seed), steps=10, searches=4)
    if quick:
        table = {name: table[name] for name in ("FGSM", "PGD", "DeepFool")}

    found: dict[str, dict[str, Any]] = {}
    cells, names, says = [], [], []
    for name, attack in table.items():
        began = time.perf_counter()
        made = jax.block_until_ready(attack(net, photos, labels))
        seconds = time.perf_counter() - began
        p = np.asarray(probabilities(net, made))
        away = np.asarray(made - photos)
        fooled = p.argmax(axis=1) != np.asarray(labels)
        found[name] = {
            "success": float(fooled.mean()),
            "l2": float(np.sqrt((away**2).sum(axis=(1, 2, 3))).mean()),
            "linf": float(np.abs(away).max(axis=(1, 2, 3)).mean()),
            "seconds": round(seconds, 1),
        }
        print(f"{name:26} " + "  ".join(f"{k} {v:.4g}" for k, v in found[name].items()), flush=True)
        factor = 0.5 / max(float(np.abs(away[0]).max()), 1e-6)
        difference = vizsynth.magnified(photos[:1], made[:1], factor=factor)[0]
        cells.append([np.asarray(photos[0]), np.asarray(made[0]), np.asarray(difference)])
        names.append(
            f"{name}\nL2 {np.sqrt((away[0] ** 2).sum()):.2g}\nLinf {255 * np.abs(away[0]).max():.1f}/255"
        )
        label = int(p[0].argmax())
        says.append(
            f"{net.labels[int(labels[0])]} {was[0].max():.0%}\n-> {net.labels[label]} {p[0, label]:.0%}"
        )
    heads = ["photo", "attacked", "difference, magnified"]
    write_image(
        out / "attacks.png", figures.sheet(cells, row_labels=names, column_labels=heads, captions=says)
    )

    v = vizsynth.universal_perturbation(net, photos, epsilon=UNIVERSAL, epochs=1 if quick else 5)
    with_it = jnp.clip(photos + v, 0, 1)
    rate = float(vizsynth.fooling_rate(net, photos, perturbation=v))
    after = np.asarray(probabilities(net, with_it)).argmax(axis=1)
    row = [np.asarray(0.5 + v / (2 * UNIVERSAL)), *(np.asarray(image) for image in with_it[:4])]
    heads = [
        f"one perturbation,\nLinf {255 * UNIVERSAL:.0f}/255",
        *(f"{net.labels[int(labels[i])]}\n-> {net.labels[int(after[i])]}" for i in range(len(row) - 1)),
    ]
    write_image(out / "universal.png", figures.sheet([row], column_labels=heads))
    print(f"universal perturbation: {rate:.0%} of {len(paths)}")
    record = {
        "network": NETWORK,
        "seed": seed,
        "size": side,
        "epsilon": EPSILON,
        "radius": RADIUS,
        "photos": [path.stem for path in paths],
        "attacks": found,
        "universal": {"epsilon": UNIVERSAL, "fooling_rate": rate},
    }
    caption = (
        f"Attacks on {NETWORK} for {len(paths)} photos of {side}x{side} px, seed {seed}: within Linf 2/255 "
        f"(L2 {RADIUS} where it says so; DeepFool and Carlini & Wagner seek the least L2, the latter in but "
        "4 searches of 100 steps where the paper has 9 of up to 10,000). Success: "
        + "; ".join(f"{name} {numbers['success']:.0%}" for name, numbers in found.items())
        + f". One perturbation of Linf 10/255 for all photos fools {rate:.0%} of them. "
        "Each difference is magnified until its largest value fills the scale; grey is none. Goodfellow et "
        "al., 2014; Moosavi-Dezfooli et al., 2015 and 2016; Kurakin et al., 2016; Carlini & Wagner, 2016; "
        "Madry et al., 2017; Athalye et al., 2017; Dong et al., 2017; Croce & Hein, 2020."
    )
    figure.tell(out, "attacks", record, caption, [path.stem for path in paths])


if __name__ == "__main__":
    attributions.main(run, __doc__, "attacks", IMAGES)
