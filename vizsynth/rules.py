"""Other backward rules for the same arithmetic.

Each is a table for the `ops` of a network. A rule sits on the arithmetic and not on a module, so a
re-used layer or a functional ReLU is treated like any other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth import ops


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    """Rectify; backward, pass R where both the input and R are positive: R · 1[x > 0] · 1[R > 0].

    Source: Springenberg, Dosovitskiy, Brox & Riedmiller, Striving for Simplicity: The All Convolutional
    Net, 2014, section 3.4, figure 1.
    """
    return jax.nn.relu(x)


guided_relu.defvjp(
    lambda x: (jax.nn.relu(x), x > 0),
    lambda positive, R: (jnp.where(positive, jax.nn.relu(R), jnp.zeros_like(R)),),
)


@jax.custom_vjp
def deconvnet_relu(x: Array) -> Array:
    """Rectify; backward, rectify R whatever the input was: R · 1[R > 0].

    Source: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, section 2.1.
    """
    return jax.nn.relu(x)


deconvnet_relu.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, R: (jax.nn.relu(R),))

guided = ops.default._replace(relu=guided_relu)
"""Guided backpropagation."""

deconvnet = ops.default._replace(relu=deconvnet_relu)
"""The deconvolutional network; max-pooling goes back through its switches."""
