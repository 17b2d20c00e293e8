"""A small decoder of SqueezeNet's features: `python -m experiments.feature_decoder [--quick] [--out FILE]`.

It is trained to make a picture of what the layer `pool5` says of it, as do Dosovitskiy & Brox, Inverting
Visual Representations with Convolutional Networks, 2016, on crops of the photos in `experiments/photos` that
are in the public domain or CC0: the loss is the squared error of the pixels and that of the features. The
two photos that ask for attribution are not trained on; how well they are decoded is told at the end.

Each unit of `pool5` becomes 16x16 pixels, and all is convolution, so a map of any size decodes to a picture
of 16 times that size. `python -m experiments.latent` makes pictures in the space of its codes.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float
from PIL import Image as Pillow
from safetensors.numpy import load_file, save_file

import vizsynth
from vizsynth import figures
from vizsynth.files import open_picture, write_image
from vizsynth.taps import run

PHOTOS = Path(__file__).parent / "photos"
WEIGHTS = Path(__file__).parent / "data" / "feature_decoder.safetensors"
LAYER = "pool5"
CELL = 16  # pixels that a unit of the layer decodes to
SEEN, MADE = 112, 96  # the encoder sees 8 pixels more on each side: its convolutions are not padded
UNITS = 256
WIDTHS = (96, 64, 48, 32)
FEATURES = ("fire3", "fire5")
# What is trained on, and how often: the grey textures less.
TRAINED_ON = {
    "astronaut": 1.0,
    "chelsea": 1.0,
    "coffee": 1.0,
    "rocket": 1.0,
    "retina": 0.5,
    "hubble_deep_field": 0.5,
    "camera": 0.5,
    "brick": 0.2,
    "grass": 0.2,
    "gravel": 0.2,
}
HELD_OUT = ("flower", "china")

Weights = dict[str, Array]
Code = Float[Array, "rows columns units"]


def fresh(seed: int) -> Weights:
    """Return weights before training: He's initialization; the picture is grey at first."""
    keys = jax.random.split(jax.random.key(seed), len(WIDTHS) + 1)
    shapes = [*zip((UNITS, *WIDTHS), (*WIDTHS, 12), strict=True)]
    weights = {"scale": jnp.ones(UNITS), "high": jnp.ones(UNITS)}
    for i, (key, (before, after)) in enumerate(zip(keys, shapes, strict=True)):
        std = (2 / (9 * before)) ** 0.5 * (0.1 if after == 12 else 1)
        weights[f"{i}.kernel"] = std * jax.random.normal(key, (3, 3, before, after))
        weights[f"{i}.bias"] = jnp.zeros(after)
    return weights


def _convolved(weights: Weights, i: int, x: Array) -> Array:
    kernel = weights[f"{i}.kernel"].astype(x.dtype)
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + jnp.broadcast_to(weights[f"{i}.bias"].astype(x.dtype), y.shape)


def _doubled(x: Array) -> Array:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def decoded(
    weights: Weights, codes: Float[Array, "n rows columns units"]
) -> Float[Array, "n height width 3"]:
    """Return the pictures of some codes: maps of pool5, in standard deviations."""
    x = codes
    for i in range(len(WIDTHS)):
        x = x if i == 0 else _doubled(x)
        x = jax.nn.leaky_relu(_convolved(weights, i, x), 0.1)
    x = _convolved(weights, len(WIDTHS), x)
    n, h, w, _ = x.shape
    x = x.reshape(n, h, w, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, 3)
    return jax.nn.sigmoid(x)


def decode(weights: Weights, code: Code) -> Float[Array, "height width 3"]:
    """Return the picture of one code, smoothed by (1, 2, 1) / 4: the last layer leaves a fine grid."""
    picture = decoded(weights, code[None])[0]
    for axis in (0, 1):
        sides = [(int(axis == k), int(axis == k)) for k in range(3)]
        padded, size = jnp.pad(picture, sides, mode="edge"), picture.shape[axis]
        before, after = (jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in (0, 2))
        picture = picture / 2 + (before + after) / 4
    return picture


def encode(
    net: Any, weights: Weights, images: Float[Array, "n h w 3"]
) -> Float[Array, "n rows columns units"]:
    """Return the codes of pictures."""
    maps = run(net, images, (LAYER,))[1][LAYER]
    return maps / jnp.broadcast_to(weights["scale"].astype(maps.dtype), maps.shape)


def generator(weights: Weights | None = None) -> Partial:
    """Return `code -> picture` for `vizsynth.visualize_latent`: the trained decoder."""
    return Partial(decode, kept() if weights is None else weights)


def kept(path: Path = WEIGHTS) -> Weights:
    """Return the weights that lie in the repository."""
    return {name: jnp.asarray(value, jnp.float32) for name, value in load_file(path).items()}


# Photos ---------------------------------------------------------------------------


def _opened(name: str) -> Pillow.Image:
    with open_picture(PHOTOS / f"{name}.jpg") as photo:
        return photo.convert("RGB")


def crop(rng: np.random.Generator, photo: Pillow.Image) -> Float[np.ndarray, "SEEN SEEN 3"]:
    """Return a square of any size and place, mirrored or not, its colours exchanged half of the time."""
    side = int(np.exp(rng.uniform(np.log(SEEN * 0.8), np.log(min(photo.size)))))
    left, top = (int(rng.integers(extent - side + 1)) for extent in photo.size)
    part = photo.resize((SEEN, SEEN), Pillow.Resampling.BILINEAR, (left, top, left + side, top + side))
    x = np.asarray(part, np.float32) / 255
    x = x[:, ::-1] if rng.random() < 0.5 else x
    if rng.random() < 0.5:
        x = x[..., rng.permutation(3)] * rng.uniform(0.7, 1.2, 3) + rng.uniform(-0.1, 0.1, 3)
    return np.clip(x, 0, 1).astype(np.float32)


def batches(seed: int, names: Sequence[str], size: int) -> Any:
    """Give batches of crops without end."""
    photos = [_opened(name) for name in names]
    chances = np.array([TRAINED_ON.get(name, 1.0) for name in names])
    rng = np.random.default_rng(seed)
    while True:
        chosen = rng.choice(len(photos), size, p=chances / chances.sum())
        yield np.stack([crop(rng, photos[i]) for i in chosen])


# Training -------------------------------------------------------------------------


def _middle(images: Array) -> Array:
    edge = (SEEN - MADE) // 2
    return images[:, edge:-edge, edge:-edge]


def loss(weights: Weights, net: Any, images: Array) -> tuple[Array, Array]:
    """Return 20 · mean (x̂ − x)² + 0.3 Σ_l ‖Φ_l(x̂) − Φ_l(x)‖² / ‖Φ_l(x)‖², and the first mean alone."""
    codes = jax.lax.stop_gradient(encode(net, weights, images))
    wanted, made = _middle(images), decoded(weights, codes)
    pixels = jnp.square(made - wanted).mean()
    theirs, ours = (run(net, x, FEATURES)[1] for x in (wanted, made))
    away = [
        jnp.square(ours[layer] - theirs[layer]).sum() / jnp.square(theirs[layer]).sum() for layer in FEATURES
    ]
    return 20 * pixels + 0.3 * sum(away), pixels


_told = jax.jit(loss)


def scaled(weights: Weights, net: Any, images: Array) -> Weights:
    """Return the weights with each unit's scale, and in it how large a unit may be: mean + 3 deviations."""
    maps = run(net, images, (LAYER,))[1][LAYER].reshape(-1, UNITS)
    std = maps.std(axis=0)
    std = jnp.maximum(std, 0.05 * std.mean())
    return weights | {"scale": std, "high": maps.mean(axis=0) / std + 3}


def train(*, steps: int, batch: int, learning_rate: float, seed: int) -> Weights:
    """Return the weights after training: Adam, the learning rate falls along a cosine."""
    net = vizsynth.load("squeezenet1_1")
    source = batches(seed, tuple(TRAINED_ON), batch)
    many = jnp.asarray(np.concatenate([next(source) for _ in range(8)]))
    weights = scaled(fresh(seed), net, many)
    fixed = {"scale": weights.pop("scale"), "high": weights.pop("high")}
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 20 + 1, steps)
    optimizer = optax.adam(schedule)
    state = optimizer.init(weights)

    @jax.jit
    def step(weights: Weights, fixed: Weights, state: Any, net: Any, images: Array) -> tuple:
        (value, pixels), gradient = jax.value_and_grad(
            lambda weights: loss(weights | fixed, net, images), has_aux=True
        )(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, value, pixels

    began, values = time.perf_counter(), []
    for i in range(1, steps + 1):
        weights, state, *told = step(weights, fixed, state, net, jnp.asarray(next(source)))
        values.append(np.asarray(told))
        if i % 50 == 0 or i == steps:
            mean, pixels = np.mean(values, axis=0)
            seconds = time.perf_counter() - began
            print(f"step {i}/{steps}: loss {mean:.3f}, pixels {pixels:.4f}, {seconds:.0f} s", flush=True)
            values = []
    return weights | fixed


def told(weights: Weights, seed: int) -> dict[str, float]:
    """Return the root mean squared error of pixels on new crops: of photos trained on, and held out."""
    net = vizsynth.load("squeezenet1_1")
    found = {}
    for what, names in (("trained on", tuple(TRAINED_ON)), ("held out", HELD_OUT)):
        source = batches(seed + 1, names, 32)
        found[what] = float(_told(weights, net, jnp.asarray(next(source)))[1]) ** 0.5
    return found


def draw(path: Path, weights: Weights) -> None:
    """Draw photos and what is decoded of them."""
    net = vizsynth.load("squeezenet1_1")
    rows: list[list[Array]] = [[], []]
    names = ("chelsea", "coffee", "astronaut", "rocket", *HELD_OUT)
    for name in names:
        image = vizsynth.files.read_image(PHOTOS / f"{name}.jpg", size=(SEEN * 2, SEEN * 2))
        rows[0].append(image)
        rows[1].append(decode(weights, encode(net, weights, image[None])[0]))
    labels = [f"{name}\n(held out)" if name in HELD_OUT else name for name in names]
    write_image(path, figures.sheet(rows, row_labels=["photo", "decoded from pool5"], column_labels=labels))


def main() -> None:
    """Train, tell the error, and write the weights in half precision and a picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few steps: it only shows that all works")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    steps = 4 if given.quick else given.steps
    weights = train(steps=steps, batch=given.batch, learning_rate=given.learning_rate, seed=given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.asarray(v, np.float16) for k, v in weights.items()}, given.out, {"format": "pt"})
    weights = kept(given.out)
    errors = ", ".join(f"{what} {error:.4f}" for what, error in told(weights, given.seed).items())
    print(f"error of a pixel: {errors}; {given.out}: {given.out.stat().st_size:,} bytes")
    draw(given.out.with_suffix(".png"), weights)


if __name__ == "__main__":
    main()
