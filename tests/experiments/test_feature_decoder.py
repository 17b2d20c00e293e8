"""The decoder of SqueezeNet's features: small, and it gives back photos that it was not trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vizsynth
from experiments.feature_decoder import (
    HELD_OUT,
    MADE,
    PHOTOS,
    SEEN,
    TRAINED_ON,
    WEIGHTS,
    _opened,
    crop,
    encode,
    generator,
    kept,
)

WRITTEN = (PHOTOS / "SOURCES.md").read_text()


def test_it_is_small_and_trained_on_free_photos() -> None:
    assert WEIGHTS.stat().st_size < 1_500_000
    assert not set(TRAINED_ON) & set(HELD_OUT)
    for name in TRAINED_ON:
        row = next(line for line in WRITTEN.splitlines() if line.startswith(f"| `{name}.jpg`"))
        assert row.split("|")[-2].strip() in ("CC0", "public domain")


@pytest.mark.parametrize(("name", "error"), [("chelsea", 0.12), ("flower", 0.18)])
def test_it_gives_photos_back(name: str, error: float) -> None:
    net, weights = vizsynth.load("squeezenet1_1"), kept()
    image = vizsynth.files.read_image(PHOTOS / f"{name}.jpg", size=(SEEN, SEEN))
    code = encode(net, weights, image[None])[0]
    assert code.shape == (MADE // 16, MADE // 16, 256)
    found = jax.jit(lambda generator, code: generator(code))(generator(), code)
    edge = (SEEN - MADE) // 2
    away = np.sqrt(np.square(np.asarray(found) - image[edge:-edge, edge:-edge]).mean())
    assert away < error
    grey = jnp.broadcast_to(image.mean(axis=(0, 1)), found.shape)
    assert away < 0.85 * np.sqrt(np.square(np.asarray(grey) - image[edge:-edge, edge:-edge]).mean())


def test_crops_are_of_one_size_and_in_range() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        found = crop(rng, _opened("rocket"))
        assert found.shape == (SEEN, SEEN, 3)
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
