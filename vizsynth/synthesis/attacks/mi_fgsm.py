"""The momentum iterative fast gradient sign method.

Dong, Liao, Pang, Su, Zhu, Hu & Li, Boosting Adversarial Attacks with Momentum, 2017, section 3.1.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry, is_on_host
from vizsynth.synthesis.attacks.adversarial import (
    TRANSFORMS,
    Radius,
    Transform,
    along,
    check_attack,
    check_range,
    check_transform,
    expected_gradient,
    linf_ball,
    one_an_image,
    stream,
    times,
    within,
)
from vizsynth.types import Images, Keys, Labels, Network


def _check(
    net: Any,
    images: Array,
    epsilon: Any,
    step_size: Any,
    steps: int,
    decay: Any,
    transform: Any,
    samples: int,
    batch_size: int,
    key: Any,
) -> None:
    check_count(steps, "steps")
    check_transform(transform, samples, batch_size, key)
    numbers = {"epsilon": epsilon} | ({} if step_size is None else {"step_size": step_size})
    check_attack(net, images, numbers, ball=linf_ball, key=key)
    if is_on_host(decay) and not np.all(np.asarray(decay) >= 0):
        raise ValueError(f"decay must not be negative, not {decay}; 0 is bim, 1 the paper's")


@entry(
    static=("steps", "targeted", "samples", "batch_size"), check=_check, check_images=check_range, many=True
)
def mi_fgsm(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    step_size: Radius | None = None,
    steps: int = 10,
    decay: float | Array = 1.0,
    targeted: bool = False,
    transform: Transform | None = None,
    samples: int = 1,
    key: Keys | None = None,
    batch_size: int = 4,
) -> Images:
    """Return x*_T of g_{t+1} = μ g_t + ∇_x J / ‖∇_x J‖₁, x*_{t+1} = x*_t + α sign(g_{t+1}) (algorithm 1).

    Each x* is projected on the L∞ ball of radius ε, then on [0, 1].

    Args:
        epsilon: ε ≥ 0, the radius in units of intensity; one for all, or one an image.
        step_size: α; None is the paper's ε / T, with which no projection on the ball is needed.
        steps: T.
        decay: μ, at least 0; the paper's is 1, and 0 makes it `vizsynth.bim`.
        targeted: the labels are those to reach (section 3.3).
        transform, samples, key, batch_size: as for `vizsynth.bim`.

    Returns:
        The adversarial images, in [0, 1]. torchattacks' `MIFGSM` divides by the mean of |∇J| in place of
        its sum, and the images are the same. Foolbox's accumulates sign(∇J), which is not the paper's.

    Raises:
        TypeError, ValueError: images outside [0, 1], labels or a key that cannot be taken; epsilon or
            decay below 0; step_size not above 0; steps or samples below 1; a transform without a key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.mi_fgsm(net, images, 3, epsilon=8 / 255, steps=2).shape
        (2, 16, 16, 3)
    """
    gradient = expected_gradient(
        net,
        labels,
        targeted=targeted,
        transform=transform,
        keys=stream(key, len(images), TRANSFORMS),
        samples=samples,
        batch_size=batch_size,
    )
    alpha = one_an_image(epsilon / steps if step_size is None else step_size, images)
    mu = one_an_image(decay, images)

    def step(t: Int[Array, ""], state: tuple[Images, Images]) -> tuple[Images, Images]:
        x, g = state
        now = gradient(x, t).astype(mu.dtype)
        size = jnp.abs(now).sum(axis=(1, 2, 3))
        g = times(mu, g) + times(1 / jnp.where(size > 0, size, jnp.ones_like(size)), now)
        return within(linf_ball, along(x, alpha, jnp.sign(g)), images, epsilon), g

    return lax.fori_loop(0, steps, step, (images, jnp.zeros_like(images, mu.dtype)))[0]
