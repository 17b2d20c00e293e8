"""Make the README's pictures: the sheets that `vizsynth explain` writes, as small JPEG files.

python docs/make_pictures.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
SHEETS = {
    "chelsea": [],
    "coffee": ["--method", "smooth-grad,guided-backprop,guided-grad-cam,score-cam"],
}
WIDTH = 1400  # pixels


def main() -> None:
    """Run the command for each picture."""
    for name, arguments in SHEETS.items():
        with tempfile.TemporaryDirectory() as out:
            photo = ROOT / "experiments" / "photos" / f"{name}.jpg"
            command = [sys.executable, "-m", "vizsynth", "explain", str(photo), "-o", out, *arguments]
            subprocess.run(command, check=True)
            with Image.open(f"{out}/sheet.png") as sheet:
                size = (WIDTH, round(sheet.height * WIDTH / sheet.width))
                small = sheet.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            small.save(ROOT / "docs" / "pictures" / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
