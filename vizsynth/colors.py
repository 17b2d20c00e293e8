"""Keep a photo's colours when its style changes.

Gatys, Bethge, Hertzmann & Shechtman, Preserving Color in Neural Artistic Style Transfer, 2016: either the
style image gets the photo's colours before the transfer (`match_colors`, `match_histogram`), or the result
gets them after it (`keep_luminance`).

Pictures are float RGB `[h, w, 3]` in [0, 1]; results are not clipped.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.types import Image

Other = Float[Array, "h2 w2 3"]

# Y, I, Q of the NTSC standard: luminance and two differences of colour.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def keep_luminance(image: Image, *, colors: Other) -> Image:
    """Return the luminance of one picture with the colour channels, I and Q, of another.

    >>> grey, red = jnp.full((1, 1, 3), 0.5), jnp.asarray([[[1.0, 0.0, 0.0]]])
    >>> [round(float(v), 3) for v in keep_luminance(grey, colors=red)[0, 0]]
    [1.201, 0.201, 0.201]
    """
    if image.shape != colors.shape:
        raise ValueError(f"the pictures must be of one size, not {image.shape} and {colors.shape}")
    to = jnp.asarray(_YIQ, image.dtype)
    luminance = image @ to[0]
    change = luminance - colors @ to[0]
    # One unit of Y is one unit of each of R, G and B.
    return colors + change[..., None] * jnp.asarray(np.linalg.inv(_YIQ)[:, 0], image.dtype)[None, None]


def match_colors(image: Image, *, to: Other, eps: float = 1e-5) -> Image:
    """Return A (x − μ) + ν, a picture whose colours have the mean and covariance of another picture.

    With covariances C of the picture and D of the other, A = D^½ (D^½ C D^½)^−½ D^½, which moves colours the
    least. CORAL (Sun, Feng & Saenko, Return of Frustratingly Easy Domain Adaptation, 2015) has A = D^½ C^−½,
    and the paper proposes two other matrices: all differ by a rotation of the whitened colours.

    >>> x = jax.random.uniform(jax.random.key(0), (8, 8, 3))
    >>> y = match_colors(x, to=x)
    >>> bool(jnp.allclose(x, y, atol=1e-4))
    True
    """
    mean, covariance = _moments(image, eps)
    wanted_mean, wanted = _moments(to, eps)
    root = _power(wanted, 0.5)
    A = root @ _power(root @ covariance @ root, -0.5) @ root
    return (image - mean[None, None]) @ A.T + wanted_mean[None, None]


def _moments(image: Other, eps: float) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
    pixels = image.reshape(-1, 3)
    mean = pixels.mean(axis=0)
    away = pixels - mean[None]
    covariance = jnp.matmul(away.T, away, precision="highest") / len(pixels)
    return mean, covariance + jnp.asarray(eps, image.dtype) * jnp.eye(3, dtype=image.dtype)


def _power(matrix: Float[Array, "3 3"], power: float) -> Float[Array, "3 3"]:
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * (values**power)[None]) @ vectors.T


def match_histogram(image: Image, *, to: Other) -> Image:
    """Return the picture with the histogram of another, channel by channel.

    The value of each rank becomes the other picture's value of that rank, linearly interpolated.

    >>> x = jnp.asarray([0.1, 0.2, 0.3, 0.4]).reshape(2, 2, 1) * jnp.ones(3).reshape(1, 1, 3)
    >>> match_histogram(x, to=2 * x)[..., 0].tolist() == (2 * x)[..., 0].tolist()
    True
    """

    def one(values: Float[Array, " n"], wanted: Float[Array, " m"]) -> Float[Array, " n"]:
        n, m = len(values), len(wanted)
        order = jnp.argsort(values)
        rank = jnp.zeros(n, order.dtype).at[order].set(jnp.arange(n, dtype=order.dtype))
        place = rank.astype(values.dtype) * jnp.asarray((m - 1) / max(n - 1, 1), values.dtype)
        return jnp.interp(place, jnp.arange(m, dtype=values.dtype), jnp.sort(wanted))

    matched = jax.vmap(one, in_axes=1, out_axes=1)(image.reshape(-1, 3), to.reshape(-1, 3))
    return matched.reshape(image.shape)
