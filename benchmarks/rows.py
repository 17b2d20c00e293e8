"""What does each of several devices compute, send and hold, that share the rows of one image?

The program of a step of style transfer (VGG-16's trunk, Gatys' layers, Adam on pixels) is compiled for 1, 2,
4, ... virtual devices with as many rows each, and read: the floating-point operations and the bytes of memory
that XLA counts for a device, what its collectives send, what it holds. Nothing is run, so that these are
numbers of the program and not of a machine. From them follows, for stated rates of a device and of the links
between them, how long a step would take on more:

    t(D) = max(F / f, B / b) + P / l + 2 (D − 1) / D · A / l + (n_P + n_A 2 ⌈log₂ D⌉) λ

with F operations and B bytes of memory a device, P bytes that it sends to its neighbours in n_P permutations,
A bytes in n_A all-reduces (by recursive halving and doubling), and f, b, l, λ the device's operations and
bytes a second, a link's bytes a second and its latency. Nothing is taken to overlap: an upper bound by this
model, no measurement.

    python -m benchmarks.rows [--devices 1 2 4 8] [--rows 256] [--width 512] [--cuts]
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from typing import Any, NamedTuple

MB = 1e6
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8}
COLLECTIVES = ("collective-permute", "all-reduce", "all-gather", "all-to-all", "reduce-scatter")


class Program(NamedTuple):
    """What one device does in one step."""

    devices: int
    flops: float
    accessed: float
    """Bytes read and written."""
    held: float
    """Bytes of temporary memory."""
    permuted: float
    """Bytes sent to neighbours."""
    permutations: int
    reduced: float
    """Bytes of sums over all devices."""
    reductions: int
    gathered: float
    """Bytes of any other collective."""


def collectives(text: str) -> list[tuple[str, int]]:
    """Return each collective of a compiled program, and the bytes of its result."""
    found = []
    for result, kind in re.findall(rf"^.*? = (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", text, re.M):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
        size = sum(BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n) for kind, shape in arrays)
        found.append((kind, size))
    return found


def compiled(devices: int, rows: int, width: int, cuts: bool) -> Program:
    """Read the program of a step, in a process that has so many devices."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax.sharding import AxisType

    import vizsynth
    from vizsynth import priors
    from vizsynth.replay import parts
    from vizsynth.synthesis.style.gatys import content_loss
    from vizsynth.synthesis.texture.gatys import VGG_CUTS, VGG_LAYERS, gram

    mesh = jax.make_mesh((devices,), ("rows",), axis_types=(AxisType.Auto,))
    weights = jax.eval_shape(lambda: vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0)))
    net = vizsynth.over_rows(weights, mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    net = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), net)
    image = jax.ShapeDtypeStruct((rows * devices, width, 3), jnp.float32, sharding=net.sharding)
    adam = optax.adam(0.02)
    content_layer = "relu4_2"

    def read(net: Any, x: Any, of: Any) -> Any:
        return parts.read(net, x[None], (*VGG_LAYERS, content_layer), of, cuts=VGG_CUTS if cuts else ())

    def step(net: Any, x: Any, memory: Any, wanted: Any) -> Any:
        def of(layer: str, A: Any) -> Any:
            if layer == content_layer:
                return content_loss(A, wanted[layer])
            return ((gram(A[0]) - wanted[layer]) ** 2).sum()

        def energy(x: Any) -> Any:
            return sum(read(net, x, of).values(), start=jnp.zeros(())) + priors.total_variation(x)

        value, g = jax.value_and_grad(energy)(x)
        updates, memory = adam.update(g, memory)
        return optax.apply_updates(x, updates), memory, value

    def targets(net: Any, x: Any) -> Any:
        return read(net, x, lambda layer, A: A if layer == content_layer else gram(A[0]))

    wanted = jax.eval_shape(targets, net, image)
    wanted = {
        layer: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=net.batch_sharding if layer == content_layer else everywhere
        )
        for layer, a in wanted.items()
    }
    memory = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=net.sharding if a.shape == image.shape else everywhere
        ),
        jax.eval_shape(adam.init, image),
    )
    program = jax.jit(step).lower(net, image, memory, wanted).compile()
    cost: Any = program.cost_analysis()
    held: Any = program.memory_analysis()
    moved = collectives(program.as_text() or "")
    permuted = [size for kind, size in moved if kind == "collective-permute"]
    reduced = [size for kind, size in moved if kind == "all-reduce"]
    return Program(
        devices,
        cost["flops"],
        cost["bytes accessed"],
        held.temp_size_in_bytes,
        sum(permuted),
        len(permuted),
        sum(reduced),
        len(reduced),
        sum(size for kind, size in moved if kind not in ("collective-permute", "all-reduce")),
    )


def apart(devices: int, rows: int, width: int, cuts: bool) -> Program:
    """Read a program in another process: the number of devices is fixed when one begins."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.rows", "--one", str(devices), "--rows", str(rows)]
    command += ["--width", str(width), *(["--cuts"] if cuts else [])]
    environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Program(**json.loads(done.stdout.splitlines()[-1]))


def seconds(program: Program, devices: int, rates: Any) -> float:
    """Return how long a step takes by the model, on so many devices of a program's rows each."""
    own = max(program.flops / rates.flops, program.accessed / rates.memory)
    if devices == 1:
        return own
    sent = program.permuted + 2 * (devices - 1) / devices * program.reduced
    messages = program.permutations + program.reductions * 2 * math.ceil(math.log2(devices))
    return own + sent / rates.link + messages * rates.latency


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description="One image, many devices.")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, default=256, help="of each device [256]")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--cuts", action="store_true", help="with activations computed again")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--flops", type=float, default=50e12, help="of a device, a second [50e12]")
    parser.add_argument("--memory", type=float, default=3e12, help="bytes a second that it reads [3e12]")
    parser.add_argument("--link", type=float, default=50e9, help="bytes a second between neighbours [50e9]")
    parser.add_argument("--latency", type=float, default=5e-6, help="seconds a message [5e-6]")
    parser.add_argument("--meshes", type=int, nargs="+", default=[1, 2, 8, 64, 512], help="to estimate for")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(compiled(chosen.one, chosen.rows, chosen.width, chosen.cuts)._asdict()))
        return
    print(f"style transfer, VGG-16, {chosen.rows} rows of {chosen.width} pixels a device, float32, one step:")
    print("devices   GFLOP   GB accessed   MB held   MB permuted (times)   MB reduced (times)   MB gathered")
    programs = []
    for devices in chosen.devices:
        p = apart(devices, chosen.rows, chosen.width, chosen.cuts)
        programs.append(p)
        print(
            f"{devices:7d} {p.flops / 1e9:7.1f} {p.accessed / 1e9:13.2f} {p.held / MB:9.0f} "
            f"{p.permuted / MB:13.3f} ({p.permutations:3d}) {p.reduced / MB:14.3f} ({p.reductions:2d}) "
            f"{p.gathered / MB:15.3f}",
            flush=True,
        )
    print(
        f"\nby the model, with {chosen.flops:.3g} FLOP/s, {chosen.memory:.3g} B/s of memory, links of "
        f"{chosen.link:.3g} B/s and {chosen.latency:.3g} s:"
    )
    most = max(programs)
    alone = seconds(most, 1, chosen)
    for mesh in chosen.meshes:
        t = seconds(most, mesh, chosen)
        image = f"{mesh * chosen.rows}x{chosen.width}"
        print(f"{mesh:7d} devices, {image:>12} px: {t * 1e3:8.2f} ms a step, efficiency {alone / t:.3f}")


if __name__ == "__main__":
    main()
