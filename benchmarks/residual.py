"""How fast is the gradient of a logit of a ResNet with respect to the image, beside PyTorch's?

ResNet-50 and ResNet-18 at 224 px, one image; random weights, the same on both sides. Ours has its batch
normalization folded into the convolutions (`vizsynth.models.fold_batch_norm`); PyTorch's is timed folded and
not, with its weights frozen, in the layout in which it is the faster.

    python -m benchmarks.residual [--turns 7] [--peers]

1.0 was wanted of one call and 1.1 of a step in a scan. By the profile, what helped: the convolutions of 512
channels at 7 x 7 as products of patches; the sub-pixel phases of strided convolutions' gradients one by one
where kernels are deep. What is left: products at half of the rate of large ones, as each kernel is read for
49 or 196 positions, and sums and ReLUs, which PyTorch does within its convolutions. Tried: maps of 14 x 14 as
products of patches, and kernels turned over, which are no faster but for those of 2,048 outputs.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

import vizsynth
from benchmarks.peers import faster_layout, nhwc, relative_error, torch_gradient, torch_images, torch_resnet
from benchmarks.timing import Row, alone, compare, forward_flops
from vizsynth.types import Images, Network

LABEL = 3
STEPS = 10  # of the scan
NETWORKS = {"ResNet-50": vizsynth.models.resnet50, "ResNet-18": vizsynth.models.resnet18}


def of_network(name: str, turns: int, peers: bool) -> list[Row]:
    """Return the gradient by itself, and a step of it in a scan."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = NETWORKS[name](key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    fast = vizsynth.prepare(vizsynth.models.fold_batch_norm(net))

    def logit(net: Network, images: Images) -> Array:
        return net(images)[0, LABEL]

    gradient = jax.jit(jax.grad(logit, argnums=1))

    @jax.jit
    def ascent(net: Network, images: Images) -> Images:
        def step(x: Images, _: None) -> tuple[Images, None]:
            return x + 1e-3 * jax.grad(logit, argnums=1)(net, x), None

        return jax.lax.scan(step, images, None, length=STEPS)[0]

    def of_peer(folded: bool) -> tuple[str, Callable[[], Any]]:
        def call(module: Any, images: Any) -> Any:
            return torch_gradient(module, images, LABEL)

        module, peer_images, layout = faster_layout(
            torch_resnet(net, folded=folded), torch_images(images), call
        )
        return f"PyTorch{', BatchNorm folded' * folded} ({layout})", lambda: call(module, peer_images)

    beside = dict(of_peer(folded) for folded in (True, False)) if peers else {}
    flops = 2 * forward_flops(vizsynth.models.fold_batch_norm(net), (224, 224))

    def ours() -> Images:
        return gradient(fast, images)

    def error(peer: str) -> Callable[[], float]:
        return lambda: relative_error(ours(), nhwc(beside[peer]()))

    work, errors = f"{name} image gradient, 224 px", {peer: error(peer) for peer in beside}
    found = compare(work, ours, beside, turns=turns, errors=errors, flops=flops)
    work = f"{work}, a step of {STEPS} in a scan"
    return found + compare(work, lambda: ascent(fast, images), beside, turns=turns, of=STEPS, flops=flops)


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return those of both networks."""
    return [found for name in NETWORKS for found in of_network(name, turns, peers)]


if __name__ == "__main__":
    alone(rows, "Image gradients of ResNets.")
