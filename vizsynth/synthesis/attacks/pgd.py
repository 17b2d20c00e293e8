"""Projected gradient descent on the loss of an adversary.

Madry, Makelov, Schmidt, Tsipras & Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks,
2017, sections 2.1 and 5 (L∞) and appendix D (L2).
"""

from functools import partial
from typing import Any

from jaxtyping import Array

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry
from vizsynth.synthesis.attacks.adversarial import (
    STARTS,
    TRANSFORMS,
    Ball,
    Radius,
    Transform,
    check_attack,
    check_range,
    check_start,
    check_transform,
    climb,
    expected_gradient,
    l2_ball,
    linf_ball,
    random_start,
    stream,
    within,
)
from vizsynth.types import Images, Keys, Labels, Network


def _check(
    net: Any,
    images: Array,
    epsilon: Any,
    step_size: Any,
    steps: int,
    start: Any,
    transform: Any,
    samples: int,
    batch_size: int,
    key: Any,
    ball: Ball,
) -> None:
    check_count(steps, "steps")
    check_transform(transform, samples, batch_size, key)
    check_start(start, images)
    numbers = {"epsilon": epsilon} | ({} if step_size is None else {"step_size": step_size})
    check_attack(net, images, numbers, ball=ball, key=key)


def _pgd(
    net: Network,
    images: Images,
    labels: Labels,
    ball: Ball,
    epsilon: Radius,
    step_size: Radius,
    steps: int,
    targeted: bool,
    start: Images | None,
    transform: Transform | None,
    samples: int,
    key: Keys | None,
    batch_size: int,
) -> Images:
    n = len(images)
    if start is not None:
        x = within(ball, start.astype(images.dtype), images, epsilon)
    elif (keys := stream(key, n, STARTS)) is not None:
        x = random_start(ball, images, epsilon, keys)
    else:
        x = images
    g = expected_gradient(
        net,
        labels,
        targeted=targeted,
        transform=transform,
        keys=stream(key, n, TRANSFORMS),
        samples=samples,
        batch_size=batch_size,
    )
    return climb(g, images, x, ball=ball, epsilon=epsilon, step_size=step_size, steps=steps)


_STATIC = ("steps", "targeted", "samples", "batch_size")


@entry(static=_STATIC, check=partial(_check, ball=linf_ball), check_images=check_range, many=True)
def pgd(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    step_size: Radius = 2 / 255,
    steps: int = 10,
    targeted: bool = False,
    key: Keys | None = None,
    start: Images | None = None,
    transform: Transform | None = None,
    samples: int = 1,
    batch_size: int = 4,
) -> Images:
    """Return x^N of x^{t+1} = Π_{x+S}(x^t + α sign(∇_x L(θ, x^t, y))) (section 2.1).

    S is the L∞ ball of radius ε; Π projects on the ball, then on [0, 1]; L is the cross entropy.

    Args:
        epsilon: ε ≥ 0, the radius in units of intensity, such as 8/255; one for all, or one an image.
        step_size: α; the paper's for CIFAR-10 is 2/255.
        steps: N.
        targeted: the labels are those to reach; the loss goes down.
        key: for the random start, uniform in the ball, and for τ: one for all images, which then share their
            draws, or one an image. None starts at the images.
        start: images `[n, h, w, 3]` to start from in place of the random point, such as `images`.
        transform: a function τ(key, image) whose expected loss E_τ[L(τ(x), y)] is climbed in place of L
            (Athalye et al., 2017). A pytree (a frozen dataclass, a `jax.tree_util.Partial`) is one program
            for all its numbers; another plain function is another program.
        samples: how many τ are drawn at each step; their gradients are averaged.

    Returns:
        The adversarial images, in [0, 1]: the last iterate, as in the paper. torchattacks' `PGD` and
        Foolbox's `LinfPGD` are the same from the same start. torchattacks' `EOTPGD` sums the gradients of
        `samples` (the same sign); Foolbox averages logits in place of losses.

    Raises:
        TypeError, ValueError: images outside [0, 1], labels or a key that cannot be taken; epsilon
            below 0; step_size not above 0; steps or samples below 1; a transform without a key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.pgd(net, images, 3, epsilon=8 / 255, steps=2, key=jax.random.key(2)).shape
        (2, 16, 16, 3)
    """
    return _pgd(
        net,
        images,
        labels,
        linf_ball,
        epsilon,
        step_size,
        steps,
        targeted,
        start,
        transform,
        samples,
        key,
        batch_size,
    )


@entry(static=_STATIC, check=partial(_check, ball=l2_ball), check_images=check_range, many=True)
def pgd_l2(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    step_size: Radius | None = None,
    steps: int = 10,
    targeted: bool = False,
    key: Keys | None = None,
    start: Images | None = None,
    transform: Transform | None = None,
    samples: int = 1,
    batch_size: int = 4,
) -> Images:
    """Return x^N of x^{t+1} = Π_{x+S}(x^t + α g / ‖g‖₂), g = ∇_x L(θ, x^t, y), S the L2 ball of radius ε.

    Args:
        epsilon: ε ≥ 0, the L2 norm over all values of the image, in units of intensity.
        step_size: α; None is 2.5 ε / steps, which reaches the ball's border from anywhere within it.
            All else is as for `pgd`.

    Returns:
        The adversarial images, in [0, 1]. torchattacks' `PGDL2` and Foolbox's `L2PGD` are the same from the
        same start, but for what they add to ‖g‖ against division by zero (1e-10 to the norm of the mean loss;
        at least 1e-12): where the gradient is tiny their steps are shorter. Here a gradient of any size gives
        a full step, and only one of zero none. torchattacks' random start has a uniform radius, and so
        is not uniform in the ball.

    Raises:
        TypeError, ValueError: as for `pgd`.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.pgd_l2(net, images, 3, epsilon=0.5, steps=2, key=jax.random.key(2)).shape
        (2, 16, 16, 3)
    """
    alpha = epsilon * (2.5 / steps) if step_size is None else step_size
    return _pgd(
        net,
        images,
        labels,
        l2_ball,
        epsilon,
        alpha,
        steps,
        targeted,
        start,
        transform,
        samples,
        key,
        batch_size,
    )
