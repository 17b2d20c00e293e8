"""Write scikit-learn's 8x8 digits as the package keeps them: `python tools/make_digits.py`."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUT = Path(__file__).parent.parent / "vizsynth" / "data" / "planted" / "digits.npz"


def main() -> None:
    """Write the digits, 0 to 16, and their labels."""
    digits, labels = load_digits(return_X_y=True)
    np.savez_compressed(OUT, digits=digits.reshape(-1, 8, 8).astype(np.uint8), labels=labels.astype(np.uint8))
    print(f"{OUT}: {len(labels)} digits, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
