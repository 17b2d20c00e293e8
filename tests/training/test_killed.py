"""A training that is killed goes on from its checkpoint to the history it would have had."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vizsynth import training

SCRIPT = """
import sys
import jax, numpy as np, vizsynth
from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
from vizsynth.transforms import Mirror

def main(folder, slowly):
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = (rng.integers(0, 120, (48, 8, 8, 3)) + 40 * labels.reshape(-1, 1, 1, 1)).astype(np.uint8)
    data = vizsynth.Examples(images, labels, ("a", "b", "c"))
    stack = (Conv(4, batch_norm=True), ReLU(), GlobalMean(), Dense(3))
    net = vizsynth.models.sequential(stack, (8, 8, 3), key=jax.random.key(0))
    def watch(now):
        if slowly:
            print(now.step, flush=True)
    fitted = vizsynth.fit(net, data, validation=data, key=jax.random.key(1), epochs=3, batch_size=8,
                          learning_rate=0.01, augment=Mirror(), folder=folder, save_every=0.0, watch=watch)
    np.savez(f"{folder}/end.npz", *map(np.asarray, jax.tree.leaves(fitted.net)))

slowly = sys.argv[-1] == "slowly"
for folder in sys.argv[1 : len(sys.argv) - slowly]:
    main(folder, slowly)
"""


STEPS = 10  # in the second epoch


@pytest.mark.slow
def test_killed_and_taken_up_again_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with subprocess.Popen(
        [sys.executable, script, killed, "slowly"], env=environment, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        while int(run.stdout.readline()) < STEPS:
            pass
        os.kill(run.pid, signal.SIGKILL)  # while it saves, as it does after each step
    assert run.returncode == -signal.SIGKILL and not (killed / "end.npz").exists()
    subprocess.run([sys.executable, script, killed, whole], env=environment, check=True)
    assert training.read_history(killed / "history.json") == training.read_history(whole / "history.json")
    with np.load(whole / "end.npz") as ours, np.load(killed / "end.npz") as theirs:
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name])
