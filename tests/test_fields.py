"""What a neuron sees, against where its gradient is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Subject

from vizsynth.fields import field_size
from vizsynth.ops import average_pooling


def test_it_is_where_the_gradient_is(subject: Subject) -> None:
    """Of positive weights, means for maxima and pixels of 1, the gradient has no zero inside a field."""
    net = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.01, subject.net)
    layer = subject.middle
    size = subject.size if subject.name == "sequential" else (96, 96)  # its head takes no other
    images = jnp.ones((1, *size, 3))

    def neuron(images: jax.Array) -> jax.Array:
        seen: list[jax.Array] = []

        def tap(name: str, value: jax.Array) -> jax.Array:
            if name == layer:
                seen.append(value)
            return value

        net(images, tap=tap, ops=average_pooling)
        A = seen[0]
        return A[0, A.shape[1] // 2, A.shape[2] // 2].sum()

    g = np.asarray(jax.grad(neuron)(images))[0]
    rows, columns = np.nonzero(np.abs(g).sum(-1))
    assert field_size(net, layer) == (np.ptp(rows) + 1, np.ptp(columns) + 1)


def test_an_unknown_layer_is_named(subject: Subject) -> None:
    with pytest.raises(ValueError, match="no layer 'no_such'"):
        field_size(subject.net, "no_such")
