"""Does each way of convolution pay where `vizsynth.cpu.thresholds` takes it, and not where it does not?

Each threshold is a line that sizes lie on both sides of. For each size the way behind the threshold is forced
and forbidden, and both are timed in turn in one process, inside a compiled loop: above 1 the way pays. A
threshold is right if the ratios of the sizes that it takes are above 1, and the others' below.

    python -m benchmarks.thresholds [NAME ...] [--turns 15]
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax

import vizsynth
from benchmarks.timing import side_by_side
from vizsynth import ops
from vizsynth.cpu import convolution, thresholds
from vizsynth.cpu.winograd import Kernel

NEVER = 2**40
STEPS = 3


class Size(NamedTuple):
    """The sizes of a convolution."""

    side: int
    """Height and width of the maps."""
    c: int
    k: int
    window: int = 3
    n: int = 1
    stride: int = 1
    padded: bool = True


def _conv(x: Any, kernel: Any, size: Size) -> Any:
    pad = size.window // 2 if size.padded else 0
    return ops.fast.conv(
        x, kernel, None, strides=(size.stride, size.stride), padding=((pad, pad), (pad, pad))
    )


def forward(x: Any, kernel: Any, size: Size) -> Any:
    """Return the convolution."""
    return _conv(x, kernel, size)


def of_images(x: Any, kernel: Any, size: Size) -> Any:
    """Return the gradient of its squared sum with respect to the images."""
    return jax.grad(lambda x: (_conv(x, kernel, size) ** 2).sum())(x)


def of_kernel(x: Any, kernel: Any, size: Size) -> Any:
    """Return the gradient of its squared sum with respect to the kernel."""
    return jax.grad(lambda kernel: (_conv(x, kernel, size) ** 2).sum())(kernel)


Work = Callable[[Any, Any, Size], Any]
least, most = (
    (0, NEVER),
    (NEVER, 0),
)  # what forces and what forbids the way: its sizes are at least, or at most

CASES: dict[str, tuple[Work, tuple[int, int], list[Size]]] = {
    "product_channels": (forward, least, [Size(7, c, c) for c in (64, 96, 128, 256)]),
    "product_positions": (forward, most, [Size(side, 256, 256) for side in (7, 8, 10, 14)]),
    "tap_outputs": (forward, most, [Size(112, 64, k) for k in (3, 4, 6, 8)]),
    "tap_growth": (forward, most, [Size(112, c, 3) for c in (8, 12, 16, 32)]),
    "filled_outputs": (forward, most, [Size(128, 16, k, 5) for k in (8, 12, 16, 24)]),
    "filled_from": (forward, least, [Size(128, c, 3, 9) for c in (6, 8, 10, 16)]),
    "column_channels": (forward, least, [Size(160, 8, k, 5, padded=False) for k in (8, 12, 16, 32)]),
    "many_taps": (forward, least, [Size(256, c, 32, padded=False) for c in (4, 8, 12, 16)]),
    "many_numbers": (forward, least, [Size(side, 32, 32, padded=False) for side in (32, 64, 112, 160)]),
    "apart_pairs": (of_images, least, [Size(28, c, c, stride=2) for c in (64, 128, 192, 256)]),
    "apart_taps": (of_images, most, [Size(28, 192, 192, window, stride=2) for window in (3, 5, 7)]),
    "single_images": (of_kernel, most, [Size(32, 32, 32, n=n) for n in (2, 8, 16)]),
    "single_positions": (of_kernel, least, [Size(side, 32, 32, n=4) for side in (8, 12, 16, 32)]),
    "window_taps": (of_kernel, most, [Size(56, 16, 32, window, stride=2, n=2) for window in (3, 5, 7)]),
    "tiled_channels": (forward, least, [Size(56, c, c) for c in (32, 48, 64, 128)]),
    "tiled_least": (forward, least, [Size(side, 512, 512) for side in (8, 12, 16, 20)]),
    "tiled_few": (forward, least, [Size(side, 256, 256) for side in (16, 20, 28, 40)]),
    "tiled_few_pairs": (forward, least, [Size(20, 256, k) for k in (128, 256, 512, 1024)]),
    "tiled_many": (forward, most, [Size(side, 64, 64) for side in (224, 256, 288, 384)]),
    "tiled_many_pairs": (forward, least, [Size(288, 64, k) for k in (64, 96, 128, 256)]),
}
"""For each threshold what is computed, what forces and forbids the way behind it, and the sizes."""


def loop(work: Work, x: Any, kernel: Any, size: Size) -> Any:
    """Do the work some times, each time on what the last one gave."""
    return jax.lax.fori_loop(0, STEPS, lambda _, x: x + 1e-6 * work(x, kernel, size).mean(), x)


def compiled(work: Work, size: Size, at: thresholds.Thresholds, prepared: bool) -> Callable[[], Any]:
    """Return a call of the program that other thresholds give."""
    shapes = (size.n, size.side, size.side, size.c), (size.window, size.window, size.c, size.k)
    x, kernel = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    measured, thresholds.MEASURED = thresholds.MEASURED, at
    try:
        pad = size.window // 2
        if prepared:
            kernel = Kernel(kernel, *convolution.transforms(kernel, (1, 1), ((pad, pad), (pad, pad))))

        program = jax.jit(lambda x, kernel: loop(work, x, kernel, size)).lower(x, kernel).compile()
    finally:
        thresholds.MEASURED = measured
        jax.clear_caches()  # what was traced knows nothing of thresholds
    return lambda: program(x, kernel)


def ratios(name: str, size: Size, turns: int) -> list[float]:
    """Return how many times as long it takes without the way, as it does with it: three medians."""
    work, (force, forbid), _ = CASES[name]
    prepared = name.startswith("tiled")
    calls = {
        way: compiled(work, size, replace(thresholds.MEASURED, **{name: value}), prepared)
        for way, value in (("with", force), ("without", forbid))
    }
    times = [side_by_side(calls, turns=turns).seconds for _ in range(3)]
    return sorted(min(seconds["without"]) / min(seconds["with"]) for seconds in times)


def main() -> None:
    """Print for each threshold the ratios on both of its sides."""
    parser = argparse.ArgumentParser(description="The ways of convolution on both sides of each threshold.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="some thresholds; by default all")
    parser.add_argument("--turns", type=int, default=15)
    chosen = parser.parse_args()
    vizsynth.keep_memory()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}: time without the way / with it")
    for name in chosen.names or CASES:
        print(f"{name} = {getattr(thresholds.MEASURED, name)}")
        for size in CASES[name][2]:
            low, median, high = ratios(name, size, chosen.turns)
            print(f"  {median:6.2f} ({low:.2f} to {high:.2f})  {_told(size)}", flush=True)


def _told(size: Size) -> str:
    return ", ".join(f"{field} {value}" for field, value in size._asdict().items())


if __name__ == "__main__":
    main()
