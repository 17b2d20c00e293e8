"""How fast are the insertion and deletion curves of a batch, beside torch-cam's?

224 px, both curves from and to grey: SqueezeNet 1.1 with its ImageNet weights, 16 images, 16 steps; and
VGG-16 with random weights, 4 images, 8 steps; both sides run 16 pictures at once, and compute the ends that
the two curves have in common once.

    python -m benchmarks.curves [--turns 7] [--peers]

2 was wanted. Both sides do nothing but forward passes of 16 pictures. All of ours are one program, which
takes its memory once; where freed memory is kept, PyTorch gains the more (`benchmarks.kept_memory`). One sort
of integers gives the order of the pixels for all passes. Tried: products in three parts of bfloat16, which a
processor has a unit for and which are as exact as Winograd's, take four fifths of the last layer's time,
before the parts are made: 12.0 ms for 14.8.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import relative_error, torch_images, torch_squeezenet, torch_vgg16
from benchmarks.timing import Row, alone, compare

SIZE, AT_ONCE, BASELINE = 224, 16, 0.5


class Maps:
    """Maps that are given, in the place of one of torch-cam's extractors."""

    def __init__(self, model: Any, maps: Any) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [self.maps]

    def fuse_cams(self, cams: list[Any]) -> Any:
        return cams[0]

    def _hooks_off(self) -> Any:
        return nullcontext()


def beside(module: Any, images: Any, labels: Any, maps: Any, steps: int) -> Callable[[], list[float]]:
    """Return torch-cam's areas under both curves."""
    import torch
    from torchcam.metrics import DeletionInsertionMetric

    given: Any = Maps(module, torch.from_numpy(np.array(maps)))
    metric = DeletionInsertionMetric(
        given,
        lambda logits: logits.softmax(-1),
        steps=steps,
        baseline=torch.full((1, 3, 1, 1), BASELINE),
        batch_size=AT_ONCE,
    )
    peer_images, peer_labels = torch_images(images), np.asarray(labels).tolist()

    def theirs() -> list[float]:
        metric.reset()
        metric.update(peer_images, peer_labels)
        found = metric.summary()
        return [found["deletion_auc"], found["insertion_auc"]]

    return theirs


def curves_rows(name: str, net: Any, module: Any, count: int, steps: int, turns: int) -> list[Row]:
    """Return both curves of a batch; the steps divide the pixels, so that both sides take as many."""
    image_key, map_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (count, SIZE, SIZE, 3))
    maps = jax.random.uniform(map_key, (count, SIZE, SIZE))
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(net, images)
    fast = vizsynth.prepare(net)
    theirs = None if module is None else beside(module, images, labels, maps, steps)
    options: dict[str, Any] = {"steps": steps, "baseline": BASELINE, "batch_size": AT_ONCE // count}

    def ours() -> list[jax.Array]:
        return [
            curve.area for curve in vizsynth.deletion_and_insertion(fast, images, labels, maps, **options)
        ]

    def error() -> float:
        assert theirs is not None
        return relative_error([float(area.mean()) for area in ours()], theirs())

    work = f"insertion and deletion, {name}, {count} images, {SIZE} px, {steps} steps"
    peers = {} if theirs is None else {"torch-cam": theirs}
    return compare(work, ours, peers, turns=turns, errors={"torch-cam": error})


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return those of both networks."""
    small = vizsynth.load("squeezenet1_1")
    large = vizsynth.models.vgg16(key=jax.random.key(1))
    module = torch_squeezenet(small) if peers else None
    found = curves_rows("SqueezeNet", small, module, 16, 16, turns)
    module = torch_vgg16(large) if peers else None
    return found + curves_rows("VGG-16", large, module, 4, 8, turns)


if __name__ == "__main__":
    alone(rows, "Insertion and deletion.")
