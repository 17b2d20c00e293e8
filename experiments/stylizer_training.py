"""How the stylizer of `experiments.fast_style` is trained: its begin, the optimizer, the settings."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import gt
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import vizsynth
from experiments.figure import WEIGHTS
from experiments.style_pictures import STYLES, pictures
from experiments.stylizer_photos import TRAINED_ON, photographs
from vizsynth import ascent
from vizsynth.files import write_image
from vizsynth.models import Picture, load_stylizer, stylizer
from vizsynth.models.io.weights import fit, paths
from vizsynth.models.stylizers import StylizerConfig

LAYERS = {
    "vgg16": {"content_layers": ("relu2_2",), "style_layers": ("relu1_2", "relu2_2", "relu3_3")},
    "squeezenet1_1": {"content_layers": ("fire3",), "style_layers": ("relu1", "fire2", "fire3", "fire5")},
}
LOSS = {"content_weight": 1.0, "style_weight": 4.0, "tv_weight": 1.0}


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
        adam_learning_rate=learning_rate,
        muon_weight_dimension_numbers=matrices,
    )


def begun(begin: Path | None, settings: dict[str, Any], key: Any) -> Any:
    """Return the stylizer that is trained: a fresh one, or one that was written before.

    The one of before may be given skips, and more channels. What there was takes nothing from what is new, by
    kernels of zeros, so that it computes the same. A network that has skips from the start keeps the photo
    and puts all style in a few places; one that learned to paint everywhere before does so still, and gets
    the photo's details back.
    """
    kind = {name: settings[name] for name in ("widths", "blocks", "skips")}
    fresh = stylizer(list(STYLES), **kind, key=key)
    if begin is None:
        return fresh
    earlier, wanted = load_stylizer(begin), paths(fresh)
    _, *before = earlier.config.widths
    _, *after = kind["widths"]
    joins = earlier.config.skips
    # Where what is joined begins: behind the maps of half and quarter size.
    joined = {"out1.kernel": (before[1], after[1]), "out2.kernel": (before[0], after[0])} if joins else {}
    grown = {}
    for name, leaf in paths(earlier).items():
        values, outputs = np.array(wanted[name]), leaf.shape[-1]
        if leaf.ndim == 4:
            values[..., :outputs] = 0
            old, new = joined.get(name, (leaf.shape[2],) * 2)
            values[:, :, :old, :outputs] = leaf[:, :, :old]
            values[:, :, new : new + leaf.shape[2] - old, :outputs] = leaf[:, :, old:]
        else:
            values[..., :outputs] = leaf
        grown[name] = values
    return fit(fresh, grown)


def halfway(one: Any, other: Any) -> Any:
    """Return the stylizer whose weights are the means of two that were trained from each other.

    Wortsman et al., Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy Without
    Increasing Inference Time, 2022.
    """
    weights = {name: np.asarray(leaf) for name, leaf in paths(other).items()}
    return fit(one, {name: (np.asarray(leaf) + weights[name]) / 2 for name, leaf in paths(one).items()})


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
    photos = photographs(seed, settings["photos"], size * 4 // 3, pasted=settings["pasted"])
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
        parts=settings["parts"],
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
    origin = {name: value for name, value in settings.items() if name not in ("steps", "mean")}
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
    made = halfway(state.params, fresh) if settings["mean"] else state.params
    return made, losses, float(np.median(seconds))


@dataclass(frozen=True)
class Training:
    """What may be asked of a training."""

    steps: int | None = None
    """How many; None is enough for a fresh network."""
    begin: Path | None = None
    """What it goes on from: a file of `vizsynth.models.save_stylizer`."""
    widths: Sequence[int] | None = None
    """Channels at the full, half and quarter size; None leaves those of what it begins with."""
    skips: bool = False
    """Whether they are joined to what it begins with."""
    parts: int = 1
    """Of a crop, along an axis, that have the style one by one."""
    pasted: float = 0.6
    """The share of squares that are pasted of several."""
    mean: bool = False
    """Whether the mean of what comes of it and of what it began with is made."""


def settings_of(asked: Training, *, quick: bool, network: str, seed: int) -> dict[str, Any]:
    """Return what makes a training what it is.

    The kind of the network is that of what it begins with, which can only be given more.
    """
    begin, widths = asked.begin, asked.widths
    kind = StylizerConfig(tuple(STYLES), (4, 6, 8) if quick else (16, 32, 64), 1 if quick else 5)
    before = None
    if not 0 <= asked.pasted <= 1:
        raise SystemExit(f"--pasted is a share, from 0 to 1, not {asked.pasted}")
    if asked.mean and begin is None:
        raise SystemExit("--mean is of what came of a training and of what it began with: give --begin FILE")
    if begin is not None:
        earlier = load_stylizer(begin)
        kind, before = earlier.config, getattr(earlier.record, "origin", None)
        if earlier.styles != tuple(STYLES):
            raise SystemExit(f"{begin} has the styles {', '.join(earlier.styles)}, not {', '.join(STYLES)}")
        if widths is not None and any(map(gt, kind.widths, widths)):
            raise SystemExit(f"{begin} has the widths {kind.widths}: it can grow, not shrink to {widths}")
    return {
        "network": network,
        "weights": WEIGHTS[network],
        **{name: list(layers) for name, layers in LAYERS[network].items()},
        **LOSS,
        "styles": list(STYLES),
        "widths": list(widths or kind.widths),
        "blocks": kind.blocks,
        "skips": kind.skips or asked.skips,
        "photos": 6 if quick else 2000,
        "pasted": asked.pasted,
        "size": 48 if quick else 96,
        "batch": 3,
        "parts": asked.parts,
        "steps": asked.steps or (4 if quick else 8000),
        "optimizer": "Muon",
        "learning_rate": 3e-2 if begin is None else 2e-2,
        "seed": seed,
        "begun with": before,
        "mean": asked.mean,
    }


def provenance(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is written beside the weights."""
    parts, skips = settings["parts"], ", with skips" if settings["skips"] else ""
    widths = ", ".join(map(str, settings["widths"]))
    each = f" in {parts}x{parts} parts" if parts > 1 else ""
    each += f", {settings['pasted']:.0%} of them pasted"
    origin = (
        f"Trained by python -m experiments.fast_style, widths {widths}{skips}: {settings['steps']} steps of "
        f"{settings['batch']} crops of {settings['size']} px{each}, seed {settings['seed']}, seen by "
        f"{settings['network']} ({settings['weights']}); on photos in the public domain or CC0: "
        f"{', '.join(TRAINED_ON)}."
    )
    made = "Made by a program and a seed: experiments/style_pictures.py, function "
    if settings["mean"]:
        origin += " Its weights are the means of what came of it and of what it began with."
    if settings["begun with"]:
        origin += f" Before that: {settings['begun with']}"
    return {
        "pictures": [Picture(name, "Apache-2.0", made + name) for name in STYLES],
        "license": "Apache-2.0",
        "origin": origin,
    }
