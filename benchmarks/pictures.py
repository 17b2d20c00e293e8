"""How fast are steps of a dream and of a feature visualization, beside loops as Lucent's users write them?

VGG-16's trunk, relu4_3; random weights, the same on both sides. A dream is one octave of 512 px, rolled
before each step, along the gradient over its mean length. A visualization is a picture of 224 px in
Fourier coordinates with decorrelated colours, cut at a random place, one channel, Adam. PyTorch runs in
its fastest layout (channels last), to the same layer, with its weights frozen.

    python -m benchmarks.pictures [--turns 7] [--steps 8]

Needs the `parity` extra. What is compared in the column of errors was neither rolled nor cut, as each
side draws the places for itself, and is one step away: more steps part where ReLUs are all but 0.
"""

import argparse
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_features, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from vizsynth.scores import Channel
from vizsynth.transforms import Jitter, Sequence

LAYER, CHANNEL = "relu4_3", 7
DREAM_SIZE, SIZE = 512, 224
STEP_SIZE, RATE, ROLL, CUT = 1.5 / 255, 0.05, 32, 8
# Of Lucid: the root of the colours' covariance, over the largest norm of its columns.
COLOR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
COLOR_ROOT = COLOR_ROOT / np.linalg.norm(COLOR_ROOT, axis=0).max()


def dream_row(net: Any, module: Any, turns: int, steps: int) -> Row:
    """Return a step of a dream."""
    import torch

    images = jax.random.uniform(jax.random.key(1), (1, DREAM_SIZE, DREAM_SIZE, 3))

    def ours(steps: int, jitter: int = ROLL) -> jax.Array:
        made = vizsynth.deepdream(
            net,
            images,
            key=jax.random.key(2),
            layer=LAYER,
            octaves=1,
            steps=steps,
            step_size=STEP_SIZE,
            jitter=jitter,
        )
        return made.images

    def step(x: Any, jitter: int = ROLL) -> Any:
        shift = tuple(int(s) for s in torch.randint(-jitter, jitter + 1, (2,)))
        rolled = torch.roll(x, shift, (2, 3)).requires_grad_()
        (torch_features(module, rolled, (LAYER,))[LAYER].square().sum() / 2).backward()
        with torch.no_grad():
            g: Any = rolled.grad
            moved = rolled + STEP_SIZE / g.abs().mean() * g
            return torch.roll(moved, tuple(-s for s in shift), (2, 3)).clamp(0, 1)

    start = torch_images(images)
    peer = "PyTorch loop, as Lucent's users"
    times = side_by_side({"ours": lambda: ours(steps), peer: lambda: step(start)}, turns=max(1, turns // 2))
    error = relative_error(ours(1, 0), nhwc(step(start, 0)))
    work = f"DeepDream, VGG-16 {LAYER}, {DREAM_SIZE} px, a step of {steps}"
    return row(work, peer, times, "ours", peer, of=steps, error=error)


def feature_row(net: Any, module: Any, turns: int, steps: int) -> Row:
    """Return a step of a feature visualization."""
    import torch

    target = Channel(LAYER, CHANNEL)
    options: dict[str, Any] = {"size": SIZE, "learning_rate": RATE}
    begun = vizsynth.visualize_feature(net, target, key=jax.random.key(3), steps=0, **options)

    def ours(steps: int, pixels: int = CUT) -> jax.Array:
        cut = Sequence((Jitter(pixels),)) if pixels else None
        return vizsynth.visualize_feature(
            net, target, state=begun.state, steps=steps, transform=cut, **options
        ).images

    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
    scale = torch.from_numpy((SIZE / f.clip(1 / SIZE)).astype(np.float32))
    colors = torch.from_numpy(COLOR_ROOT.astype(np.float32))
    first = torch.from_numpy(np.array(begun.state.params)[0].transpose(2, 0, 1, 3).copy())

    def picture(spectrum: Any) -> Any:
        values = torch.fft.irfft2(scale * torch.view_as_complex(spectrum), s=(SIZE, SIZE)) / 4
        return torch.einsum("dc,chw->dhw", colors, values).sigmoid()[None]

    spectrum = first.clone().requires_grad_()
    ascent = torch.optim.Adam([spectrum], lr=RATE)

    def step(pixels: int = CUT) -> None:
        ascent.zero_grad()
        top, left = (int(s) for s in torch.randint(0, pixels + 1, (2,)))
        side = SIZE - pixels
        seen = picture(spectrum)[..., top : top + side, left : left + side]
        seen = seen.contiguous(memory_format=torch.channels_last)
        (-torch_features(module, seen, (LAYER,))[LAYER][0, CHANNEL].mean()).backward()
        ascent.step()

    step(pixels=0)
    error = relative_error(ours(1, 0), nhwc(picture(spectrum)))

    peer = "PyTorch loop, as Lucent's"
    times = side_by_side({"ours": lambda: ours(steps), peer: step}, turns=turns)
    work = f"feature visualization, VGG-16 {LAYER}, {SIZE} px, a step of {steps}"
    return row(work, peer, times, "ours", peer, of=steps, error=error)


def rows(turns: int = 7, steps: int = 8) -> list[Row]:
    """Return both."""
    net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    module, fast = torch_vgg16(net), vizsynth.prepare(net)
    return [dream_row(fast, module, turns, steps), feature_row(fast, module, turns, steps)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Steps of pictures beside PyTorch loops.")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="a call of ours")
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns, chosen.steps))


if __name__ == "__main__":
    main()
