"""How fast are the insertion and deletion curves of a batch, beside torch-cam's?

224 px, both curves from and to grey: SqueezeNet 1.1 with its ImageNet weights, 16 images, 16 steps; and
VGG-16 with random weights, 4 images, 7 steps; both sides run 16 pictures at once. torch-cam computes the
ends that the two curves have in common once; ours are two calls. Of the turns asked for, a third are taken
with VGG-16.

    python -m benchmarks.curves [--turns 7]

Needs the `parity` extra.
"""

import argparse
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import relative_error, torch_images, torch_squeezenet, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side

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


def curves_row(name: str, net: Any, module: Any, count: int, steps: int, turns: int) -> Row:
    """Return both curves of a batch; the steps divide the pixels, so that both sides take as many."""
    import torch
    from torchcam.metrics import DeletionInsertionMetric

    image_key, map_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (count, SIZE, SIZE, 3))
    maps = jax.random.uniform(map_key, (count, SIZE, SIZE))
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(net, images)
    fast, peer_images = vizsynth.prepare(net), torch_images(images)
    given: Any = Maps(module, torch.from_numpy(np.array(maps)))
    metric = DeletionInsertionMetric(
        given,
        lambda logits: logits.softmax(-1),
        steps=steps,
        baseline=torch.full((1, 3, 1, 1), BASELINE),
        batch_size=AT_ONCE,
    )
    peer_labels = np.asarray(labels).tolist()
    options: dict[str, Any] = {"steps": steps, "baseline": BASELINE, "batch_size": AT_ONCE // count}

    def ours() -> list[jax.Array]:
        curves = (vizsynth.deletion, vizsynth.insertion)
        return [curve(fast, images, labels, maps, **options).area for curve in curves]

    def theirs() -> list[float]:
        metric.reset()
        metric.update(peer_images, peer_labels)
        found = metric.summary()
        return [found["deletion_auc"], found["insertion_auc"]]

    times = side_by_side({"ours": ours, "torch-cam": theirs}, turns=turns)
    error = relative_error([float(area.mean()) for area in ours()], theirs())
    work = f"insertion and deletion, {name}, {count} images, {SIZE} px, {steps} steps"
    return row(work, "torch-cam", times, "ours", "torch-cam", error=error)


def rows(turns: int = 7) -> list[Row]:
    """Return those of both networks."""
    small = vizsynth.load("squeezenet1_1")
    large = vizsynth.models.vgg16(key=jax.random.key(1))
    return [
        curves_row("SqueezeNet", small, torch_squeezenet(small), 16, 16, turns),
        curves_row("VGG-16", large, torch_vgg16(large), 4, 7, max(1, turns // 3)),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Insertion and deletion beside torch-cam's.")
    parser.add_argument("--turns", type=int, default=7)
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns))


if __name__ == "__main__":
    main()
