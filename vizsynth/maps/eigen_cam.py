"""Eigen-CAM.

Muhammad & Yeasin, Eigen-CAM: Class Activation Map using Principal Components, 2020, section III.
"""

import jax.numpy as jnp

from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_maps
from vizsynth.types import Heatmaps, Images, Network, Target


@entry(static=("layer", "center"))
def eigen_cam(
    net: Network, images: Images, target: Target = None, *, layer: str, center: bool = False
) -> Heatmaps:
    """Return L = A v₁, the activations projected on their first principal direction: A = U Σ Vᵀ (eq. 3, 4).

    A is the layer as a matrix of positions by channels. A singular vector has no sign of its own: v₁ points
    towards the mean activation, v₁ · Ā ≥ 0, so that the map does not depend on the solver.

    Args:
        target: without influence: the map belongs to no class.
        center: first subtract each channel's mean over positions from A, as pytorch-grad-cam does.

    Returns:
        The signed maps at the layer's resolution `[n, h', w']`, unscaled.

    Raises:
        ValueError: a layer without spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.eigen_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    del target
    A = layer_maps(net, images, layer)
    n, h, w, k = A.shape
    precision = A.dtype if jnp.finfo(A.dtype).bits >= 32 else jnp.float32  # what eigh takes
    X = A.reshape(n, h * w, k).astype(precision)
    mean = X.mean(axis=1)
    if center:
        X = X - mean[:, None]
    # The smaller of the two Gram matrices has the same leading subspace as A.
    if h * w <= k:
        u = jnp.linalg.eigh(X @ X.transpose(0, 2, 1))[1][..., -1]
        v = jnp.einsum("npk,np->nk", X, u)
        v = v / jnp.maximum(jnp.linalg.norm(v, axis=1, keepdims=True), jnp.finfo(v.dtype).tiny)
    else:
        v = jnp.linalg.eigh(X.transpose(0, 2, 1) @ X)[1][..., -1]
    v = v * jnp.where((v * mean).sum(axis=1, keepdims=True) < 0, -1, 1)
    return jnp.einsum("npk,nk->np", X, v).reshape(n, h, w).astype(A.dtype)
