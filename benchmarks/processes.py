"""Does every process that calls maps back to back end well?

Each process makes a ResNet-18 of random weights, calls ten maps of two images of 224 px one after another,
looks at the results only then, and ends; nothing that was compiled before helps it. One in forty that crashes
or stands still is a fault that no single run shows.

    python -m benchmarks.processes [--processes 40] [--timeout 300]
"""

import argparse
import os
import subprocess
import sys
import time

PROGRAM = """
import jax, vizsynth
net = vizsynth.models.resnet18(key=jax.random.key(0))
images = jax.random.uniform(jax.random.key(1), (2, 224, 224, 3))
labels, layer, key = jax.numpy.asarray([3, 7]), "layer4.1", jax.random.key(2)
found = [
    vizsynth.gradient(net, images, labels),
    vizsynth.saliency(net, images, labels),
    vizsynth.input_x_gradient(net, images, labels),
    vizsynth.guided_backprop(net, images, labels),
    vizsynth.deconvnet(net, images, labels),
    vizsynth.grad_cam(net, images, labels, layer=layer),
    vizsynth.grad_cam_pp(net, images, labels, layer=layer),
    vizsynth.layer_cam(net, images, labels, layer=layer),
    vizsynth.integrated_gradients(net, images, labels, steps=20),
    vizsynth.smooth_grad(net, images, labels, key=key, samples=5),
]
assert all(jax.numpy.isfinite(one).all() for one in found)
"""


def main() -> None:
    """Run the processes one after another; stop at the first that does not end well."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--processes", type=int, default=40)
    parser.add_argument("--timeout", type=float, default=300, help="seconds after which one stands still")
    chosen = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    for number in range(1, chosen.processes + 1):
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM], env=environment, timeout=chosen.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"process {number} stands still") from None
        if done.returncode:
            raise SystemExit(f"process {number} ended with {done.returncode}")
        print(f"{number} of {chosen.processes}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
