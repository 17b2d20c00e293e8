"""The fast gradient sign method.

Goodfellow, Shlens & Szegedy, Explaining and Harnessing Adversarial Examples, 2014, section 4.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vizsynth.core.entry import entry
from vizsynth.synthesis.attacks.adversarial import (
    Radius,
    along,
    check_attack,
    check_range,
    expected_gradient,
    linf_ball,
    one_an_image,
    within,
)
from vizsynth.types import Images, Labels, Network


def _check(net: Any, images: Array, epsilon: Any) -> None:
    check_attack(net, images, {"epsilon": epsilon}, ball=linf_ball)


@entry(static=("targeted",), check=_check, check_images=check_range)
def fgsm(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    targeted: bool = False,
) -> Images:
    """Return x + ε sign(∇_x J(θ, x, y)), J the cross entropy (section 4), clipped to [0, 1].

    Args:
        epsilon: ε ≥ 0, the radius in units of intensity, such as 8/255; one for all, or one an image.
        targeted: the labels are those to reach: x − ε sign(∇_x J).

    Returns:
        The adversarial images, in [0, 1]. torchattacks' and Foolbox's are the same; Foolbox refuses a
        target. For an expectation over transformations use `vizsynth.bim` with one step of size ε.

    Raises:
        TypeError, ValueError: images outside [0, 1] or labels that the network cannot take; epsilon not in
            [0, 1].

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.fgsm(net, images, 3, epsilon=8 / 255).shape
        (2, 16, 16, 3)
    """
    g = expected_gradient(net, labels, targeted=targeted)
    direction = jnp.sign(g(images, jnp.zeros((), int)))
    return within(linf_ball, along(images, one_an_image(epsilon, images), direction), images, epsilon)
