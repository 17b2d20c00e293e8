"""How fast are steps of a dream and of a feature visualization, beside loops as Lucent's users write them?

VGG-16's trunk, relu4_3; random weights, the same on both sides. A dream is one octave of 512 px, rolled
before each step, along the gradient over its mean length. A visualization is a picture of 224 px in
Fourier coordinates with decorrelated colours, cut at a random place, one channel, Adam. PyTorch runs in
its fastest layout (channels last), to the same layer, with its weights frozen.

    python -m benchmarks.pictures [--turns 7] [--peers]

What is compared in the column of errors was neither rolled nor cut, as each
side draws the places for itself, and is one step away: more steps part where ReLUs are all but 0.

1.3 was wanted. A step is the gradient of VGG-16's trunk up to relu4_3 (`benchmarks.trunk`), but for a few
hundredths.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_features, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare, forward_flops
from vizsynth.scores import Channel
from vizsynth.transforms import Jitter, Sequence

LAYER, CHANNEL = "relu4_3", 7
DREAM_SIZE, SIZE = 512, 224
STEPS = 8  # a call of ours
STEP_SIZE, RATE, ROLL, CUT = 1.5 / 255, 0.05, 32, 8
# Of Lucid: the root of the colours' covariance, over the largest norm of its columns.
COLOR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
COLOR_ROOT = COLOR_ROOT / np.linalg.norm(COLOR_ROOT, axis=0).max()


def dream_beside(module: Any, images: Any) -> Callable[..., Any]:
    """Return a step of PyTorch's, by how many pixels the picture is rolled."""
    import torch

    start = torch_images(images)

    def step(jitter: int = ROLL) -> Any:
        shift = tuple(int(s) for s in torch.randint(-jitter, jitter + 1, (2,)))
        rolled = torch.roll(start, shift, (2, 3)).requires_grad_()
        (torch_features(module, rolled, (LAYER,))[LAYER].square().sum() / 2).backward()
        with torch.no_grad():
            g: Any = rolled.grad
            moved = rolled + STEP_SIZE / g.abs().mean() * g
            return torch.roll(moved, tuple(-s for s in shift), (2, 3)).clamp(0, 1)

    return step


def dream_rows(net: Any, module: Any, turns: int, flops: float) -> list[Row]:
    """Return a step of a dream."""
    images = jax.random.uniform(jax.random.key(1), (1, DREAM_SIZE, DREAM_SIZE, 3))
    step = None if module is None else dream_beside(module, images)

    def ours(steps: int = STEPS, jitter: int = ROLL) -> jax.Array:
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

    peer = "PyTorch loop, as Lucent's users"
    return compare(
        f"DeepDream, VGG-16 {LAYER}, {DREAM_SIZE} px, a step of {STEPS}",
        ours,
        {peer: step} if step else {},
        turns=turns,
        of=STEPS,
        errors={peer: lambda: relative_error(ours(1, 0), nhwc(step(0)))} if step else None,
        flops=flops,
    )


class FeatureBeside:
    """PyTorch's feature visualization, from the spectrum that ours begins with."""

    def __init__(self, module: Any, spectrum: np.ndarray) -> None:
        import torch

        f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
        self.module = module
        self.scale = torch.from_numpy((SIZE / f.clip(1 / SIZE)).astype(np.float32))
        self.colors = torch.from_numpy(COLOR_ROOT.astype(np.float32))
        self.spectrum = torch.from_numpy(spectrum.transpose(2, 0, 1, 3).copy()).requires_grad_()
        self.ascent = torch.optim.Adam([self.spectrum], lr=RATE)

    def picture(self) -> Any:
        """Return the picture as it is."""
        import torch

        values = torch.fft.irfft2(self.scale * torch.view_as_complex(self.spectrum), s=(SIZE, SIZE)) / 4
        return torch.einsum("dc,chw->dhw", self.colors, values).sigmoid()[None]

    def step(self, pixels: int = CUT) -> None:
        """Take a step, on a picture that is cut by some pixels."""
        import torch

        self.ascent.zero_grad()
        top, left = (int(s) for s in torch.randint(0, pixels + 1, (2,)))
        side = SIZE - pixels
        seen = self.picture()[..., top : top + side, left : left + side]
        seen = seen.contiguous(memory_format=torch.channels_last)
        (-torch_features(self.module, seen, (LAYER,))[LAYER][0, CHANNEL].mean()).backward()
        self.ascent.step()


def feature_rows(net: Any, module: Any, turns: int, flops: float) -> list[Row]:
    """Return a step of a feature visualization."""
    target = Channel(LAYER, CHANNEL)
    begun = vizsynth.visualize_feature(net, target, key=jax.random.key(3), steps=0, size=SIZE)

    def ours(steps: int = STEPS, pixels: int = CUT) -> jax.Array:
        cut = Sequence((Jitter(pixels),)) if pixels else None
        how = vizsynth.Optimization(transform=cut, learning_rate=RATE)
        return vizsynth.visualize_feature(
            net, target, state=begun.state, steps=steps, size=SIZE, optimization=how
        ).images

    peer, error = "PyTorch loop, as Lucent's", 0.0
    peers: dict[str, Callable[[], Any]] = {}
    if module is not None:
        theirs = FeatureBeside(module, np.array(begun.state.params)[0])
        theirs.step(pixels=0)
        error = relative_error(ours(1, 0), nhwc(theirs.picture()))
        peers[peer] = theirs.step
    work = f"feature visualization, VGG-16 {LAYER}, {SIZE} px, a step of {STEPS}"
    return compare(work, ours, peers, turns=turns, of=STEPS, errors={peer: lambda: error}, flops=flops)


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return both."""
    net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    module, fast = torch_vgg16(net) if peers else None, vizsynth.prepare(net)
    dream, feature = (2 * forward_flops(net, (side, side), until=LAYER) for side in (DREAM_SIZE, SIZE))
    return [*dream_rows(fast, module, turns, dream), *feature_rows(fast, module, turns, feature)]


if __name__ == "__main__":
    alone(rows, "Steps of pictures.")
