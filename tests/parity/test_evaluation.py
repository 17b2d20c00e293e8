"""Infidelity and sensitivity as Captum has them, from the same perturbations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from captum.attr import Saliency
from captum.metrics import infidelity, sensitivity_max

import vizsynth

N, SIZE, CLASSES, SAMPLES = 2, (8, 9), 4, 5


@pytest.fixture(scope="module")
def pair():
    """Return the same small network in JAX and in PyTorch, images and labels."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.4, (3, 3, 3, 6)).astype(np.float32)
    last = rng.normal(0, 0.5, (6, CLASSES)).astype(np.float32)

    def net(images, tap=lambda name, value: value, ops=vizsynth.ops.plain):
        h = ops.conv(images, jnp.asarray(first), None, strides=(1, 1), padding=((1, 1), (1, 1)), name="conv")
        h = ops.relu(h).mean((1, 2)) ** 2
        return tap("logits", ops.linear(h, jnp.asarray(last), jnp.zeros(CLASSES), name="logits"))

    class Torch(torch.nn.Module):
        def forward(self, x):
            kernel = torch.from_numpy(first).permute(3, 2, 0, 1)
            h = torch.nn.functional.conv2d(x, kernel, padding=1)
            return torch.relu(h).mean((2, 3)) ** 2 @ torch.from_numpy(last)

    images = rng.random((N, *SIZE, 3)).astype(np.float32)
    return net, Torch(), images, np.asarray([1, 3], np.int32)


def _channels_first(values):
    return torch.from_numpy(np.moveaxis(np.asarray(values), -1, -3).copy())


@pytest.mark.filterwarnings("ignore:Input Tensor 0")
@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity(pair, normalize):
    net, model, images, labels = pair
    maps = vizsynth.gradient(net, jnp.asarray(images), labels)
    noise = np.random.default_rng(1).normal(0, 0.2, (SAMPLES, N, *SIZE, 3)).astype(np.float32)
    # Captum asks for all samples of the first image, then of the second.
    mine = _channels_first(noise.transpose(1, 0, 2, 3, 4).reshape(-1, *SIZE, 3))
    theirs = infidelity(
        model,
        lambda x: (mine, x - mine),
        _channels_first(images),
        _channels_first(maps),
        target=torch.from_numpy(labels).long(),
        n_perturb_samples=SAMPLES,
        normalize=normalize,
    )
    ours = vizsynth.infidelity(net, jnp.asarray(images), labels, maps, perturbations=jnp.asarray(noise))
    np.testing.assert_allclose(ours.scaled if normalize else ours.values, theirs, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:Input Tensor 0")
def test_max_sensitivity(pair):
    net, model, images, labels = pair
    keys, radius = jax.random.split(jax.random.key(5), N), 0.1
    draws = [
        [
            jax.random.uniform(jax.random.fold_in(key, s), (*SIZE, 3), minval=-1, maxval=1)
            for s in range(SAMPLES)
        ]
        for key in keys
    ]
    moved = _channels_first(radius * np.asarray(draws).reshape(-1, *SIZE, 3))
    theirs = sensitivity_max(
        Saliency(model).attribute,
        _channels_first(images).requires_grad_(),
        perturb_func=lambda x: x + moved,
        n_perturb_samples=SAMPLES,
        target=torch.from_numpy(labels).long(),
        abs=False,
    )
    ours = vizsynth.max_sensitivity(
        net, jnp.asarray(images), labels, of=vizsynth.gradient, key=keys, radius=radius, samples=SAMPLES
    )
    np.testing.assert_allclose(ours.relative, theirs, rtol=1e-4)
