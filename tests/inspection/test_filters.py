"""Filters are the weights, and their pictures have 0 at grey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, tiny

import vizsynth
from vizsynth.inspection.filters import kernels

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", TINY)
def test_every_convolution_has_its_kernel(name: str) -> None:
    """All weights of rank 4 there are, each under the name of its layer."""
    subject = tiny(name)
    found = kernels(subject.net)
    assert set(found) <= set(subject.net.layers)
    assert list(found) == sorted(found, key=subject.net.layers.index)
    weights = [leaf for leaf in jax.tree.leaves(subject.net) if leaf.ndim == 4]
    assert sorted(id(leaf) for leaf in weights) == sorted(id(leaf) for leaf in found.values())
    first = next(iter(found))
    filters = vizsynth.filters(subject.net, first)
    np.testing.assert_array_equal(filters[2], np.asarray(found[first])[..., 2])


def test_a_kernel_is_its_layers() -> None:
    net = tiny("squeezenet").net
    np.testing.assert_array_equal(kernels(net)["fire3.expand3x3"], net.fire3.expand3x3.kernel[...])


def test_what_has_no_filters_is_said() -> None:
    net = tiny("vgg").net
    listed = "the convolutions are: conv1_1, conv2_1, conv2_2"
    with pytest.raises(ValueError, match=f"relu1_1 is no convolution.*{listed}"):
        vizsynth.filters(net, "relu1_1")
    with pytest.raises(ValueError, match=f"no layer 'conv9'.*{listed}"):
        vizsynth.filters(net, "conv9")
    with pytest.raises(ValueError, match="6 channels have no colours"):
        vizsynth.filter_colors(vizsynth.filters(net, "conv2_1"))


@pytest.mark.parametrize("shared", [False, True])
def test_pictures_have_zero_at_grey_and_the_largest_weight_at_the_end(shared: bool) -> None:
    weights = RNG.normal(size=(5, 3, 4, 3)) * np.array([1, 10, 0.1, 0, 3]).reshape(-1, 1, 1, 1)
    expected = np.empty_like(weights)
    for k, one in enumerate(weights):
        largest = np.abs(weights).max() if shared else np.abs(one).max()
        expected[k] = 0.5 if largest == 0 else 0.5 + one / largest / 2
    given = jnp.asarray(weights, jnp.float32)
    colors = vizsynth.filter_colors(given, shared=shared)
    np.testing.assert_allclose(colors, expected, atol=1e-6)
    assert (np.asarray(colors[3]) == 0.5).all()
    greys = vizsynth.filter_greys(given, shared=shared)
    np.testing.assert_array_equal(np.asarray(greys).transpose(0, 2, 3, 1), colors)
