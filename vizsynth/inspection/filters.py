"""Filters: the kernels of convolutions as pictures.

Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012, figure
3, shows the first layer of AlexNet. A filter of the first layer is a colour picture. A deeper filter has the
channels of the layer before it: each is a grey picture.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import ops
from vizsynth.core.entry import as_network, entry
from vizsynth.ops import Ops
from vizsynth.types import Network


def kernels(net: Network) -> dict[str, Float[Array, "h w c k"]]:
    """Return the kernel of each convolution by layer name, in the order of computation.

    >>> import jax, vizsynth
    >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
    >>> net = vizsynth.models.sequential([Conv(4), ReLU(), Conv(5), GlobalMean()], key=jax.random.key(0))
    >>> list(kernels(net))
    ['conv1', 'conv2']
    """
    found: dict[str, Array] = {}

    def conv(x: Array, kernel: Array, bias: Any, *, strides: Any, padding: Any, name: str) -> Array:
        del bias, strides, padding
        found[name] = kernel
        return jnp.zeros((1, 1, 1, kernel.shape[-1]), x.dtype)

    def shaped(x: Array, kernel: Array, bias: Any, *, strides: Any, padding: Any, name: str) -> Array:
        found[name] = kernel
        convolved = partial(ops.plain.conv, strides=strides, padding=padding, name=name)
        shape = jax.eval_shape(convolved, x, kernel, bias)
        return jnp.zeros(shape.shape, shape.dtype)

    def linear(x: Array, kernel: Array, bias: Any, *, name: str) -> Array:
        del bias, name
        return jnp.zeros((1, kernel.shape[-1]), x.dtype)

    def _unchanged(x: Array, *_: Any, **__: Any) -> Array:
        return x

    # A pass over one pixel, without arithmetic: each convolution records its kernel.
    listing = Ops(
        standardize=_unchanged,
        conv=conv,
        linear=linear,
        batch_norm=_unchanged,
        relu=_unchanged,
        max_pool=_unchanged,
        mean_pool=_unchanged,
        adaptive_mean_pool=_unchanged,
        add=_unchanged,
        concatenate=lambda xs: jnp.concatenate(xs, axis=-1),
    )
    size = getattr(net, "example_size", None)
    if size is None:
        as_network(net)(jnp.zeros((1, 1, 1, 3)), ops=listing)
    else:  # an adapted network takes only images of its example's size
        net(jnp.zeros((1, *size, 3)), ops=ops.plain._replace(conv=shaped))
    return found


def filters(net: Network, layer: str) -> Float[Array, "k h w c"]:
    """Return the filters W_k of a convolution.

    Args:
        layer: a convolution, such as `conv1_1`.

    Returns:
        The weights, `[k, h, w, c]`: k filters over c channels. The first layer's apply to standardized
        pixels; for pixels in [0, 1], divide them by the standard deviation of each color.

    Raises:
        ValueError: the layer is not a convolution; the message lists the convolutions.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> vizsynth.filters(net, "conv1").shape
        (64, 3, 3, 3)
    """
    found = kernels(net)
    if layer not in found:
        known = layer in getattr(net, "layers", ())
        what = f"{layer} is no convolution, so it has no filters" if known else f"there is no layer {layer!r}"
        raise ValueError(f"{what}; the convolutions are: {', '.join(found)}")
    return found[layer].transpose(3, 0, 1, 2)


def _check_colors(values: Array, shared: bool) -> None:
    if values.shape[-1] != 3:
        raise ValueError(
            f"filters over {values.shape[-1]} channels have no colours; filter_greys shows each channel"
        )


@entry(static=("shared",), check=_check_colors)
def filter_colors(values: Float[Array, "k h w 3"], *, shared: bool = False) -> Float[Array, "k h w 3"]:
    """Return filters of the first layer as RGB in [0, 1]: ½ + ½ W / max |W|, so that 0 is grey.

    Courses stretch each filter between its extremes, (W − min) / (max − min), which moves the grey.
    A departure: here the colours of a filter are those that excite it.

    Args:
        values: the filters, `[k, h, w, 3]`.
        shared: scale all filters by their common maximum, so that weak filters look weak, and not each by its
            own.

    Returns:
        As many pictures, in [0, 1]. A filter of zeros is grey.

    Raises:
        ValueError: the filters have another number of channels.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> edge = jnp.asarray([[[1.0] * 3], [[-1.0] * 3]])
        >>> vizsynth.filter_colors(edge[None])[0, :, 0, 0].tolist()
        [1.0, 0.0]
    """
    return _scaled(values, shared)


@entry(static=("shared",))
def filter_greys(values: Float[Array, "k h w c"], *, shared: bool = False) -> Float[Array, "k c h w"]:
    """Return filters of any layer as grey tiles, one per channel: ½ + ½ W / max |W|.

    Args:
        values: the filters, `[k, h, w, c]`.
        shared: scale all filters by their common maximum, not each by its own. The tiles of one filter always
            have the same scale.

    Returns:
        The tiles `[k, c, h, w]` in [0, 1]; a weight of 0 is grey, a larger one brighter.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> vizsynth.filter_greys(jnp.ones((4, 3, 3, 16))).shape
        (4, 16, 3, 3)
    """
    return _scaled(values, shared).transpose(0, 3, 1, 2)


def _scaled(values: Array, shared: bool) -> Array:
    largest = jnp.abs(values).max(axis=None if shared else (1, 2, 3), keepdims=True)
    largest = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return (1 + values / jnp.broadcast_to(largest, values.shape)) / 2
