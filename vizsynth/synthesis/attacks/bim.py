"""The basic iterative method, also called I-FGSM.

Kurakin, Goodfellow & Bengio, Adversarial Examples in the Physical World, 2016, sections 2.2 and 2.3.
"""

from typing import Any

from jaxtyping import Array

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry
from vizsynth.synthesis.attacks.adversarial import (
    TRANSFORMS,
    Radius,
    Transform,
    check_attack,
    check_range,
    check_transform,
    climb,
    expected_gradient,
    linf_ball,
    stream,
)
from vizsynth.types import Images, Keys, Labels, Network


def _check(
    net: Any,
    images: Array,
    epsilon: Any,
    step_size: Any,
    steps: int,
    transform: Any,
    samples: int,
    batch_size: int,
    key: Any,
) -> None:
    check_count(steps, "steps")
    check_transform(transform, samples, batch_size, key)
    check_attack(net, images, {"epsilon": epsilon, "step_size": step_size}, ball=linf_ball, key=key)


@entry(
    static=("steps", "targeted", "samples", "batch_size"), check=_check, check_images=check_range, many=True
)
def bim(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    step_size: Radius = 1 / 255,
    steps: int = 10,
    targeted: bool = False,
    transform: Transform | None = None,
    samples: int = 1,
    key: Keys | None = None,
    batch_size: int = 4,
) -> Images:
    """Return X_N of X_{t+1} = Clip_{X,ε}(X_t + α sign(∇_X J(X_t, y))), X_0 = X (section 2.2).

    Clip_{X,ε} keeps each value within ε of the image's and in [0, 1].

    Args:
        epsilon: ε ≥ 0, the radius in units of intensity; one for all, or one an image.
        step_size: α; the paper's is 1/255.
        steps: N; the paper takes min(ε + 4, 1.25 ε) with ε in grey values, 10 for ε = 8/255.
        targeted: the labels are those to reach: X_t − α sign(∇_X J) (section 2.3).
        transform: a function τ(key, image) whose expected loss E_τ[J(τ(X), y)] is climbed in place of J
            (Athalye et al., 2017). A pytree (a frozen dataclass, a `jax.tree_util.Partial`) is one program
            for all its numbers; another plain function is another program.
        samples: how many τ are drawn at each step; their gradients are averaged.
        key: for τ: one for all images, which then share their draws, or one an image.

    Returns:
        The adversarial images, in [0, 1]. torchattacks' `BIM` (whose steps=0 means the paper's number) and
        Foolbox's `LinfBasicIterativeAttack(random_start=False)` are the same.

    Raises:
        TypeError, ValueError: images outside [0, 1], labels or a key that cannot be taken; epsilon
            below 0; step_size not above 0; steps or samples below 1; a transform without a key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.bim(net, images, 3, epsilon=8 / 255, steps=2).shape
        (2, 16, 16, 3)
    """
    g = expected_gradient(
        net,
        labels,
        targeted=targeted,
        transform=transform,
        keys=stream(key, len(images), TRANSFORMS),
        samples=samples,
        batch_size=batch_size,
    )
    return climb(g, images, images, ball=linf_ball, epsilon=epsilon, step_size=step_size, steps=steps)
