"""Make the small JPEG copies beside this file: `python experiments/photos/make_photos.py`.

They come out of the installed scikit-image and scikit-learn; nothing is downloaded. SOURCES.md says
where each is from.
"""

from importlib.resources import as_file, files
from pathlib import Path

from PIL import Image

from vizsynth.files import open_picture

LONGEST = 640  # pixels
QUALITY = 90

PHOTOS = {
    "skimage.data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}


def main() -> None:
    """Write all of them."""
    for package, names in PHOTOS.items():
        for name in names:
            with as_file(files(package).joinpath(name)) as path, open_picture(path) as photo:
                small = photo if photo.mode == "L" else photo.convert("RGB")
                small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)  # never enlarges
                target = Path(__file__).parent / f"{Path(name).stem}.jpg"
                small.save(target, "JPEG", quality=QUALITY, optimize=True)
            print(f"{target.name}: {small.width}x{small.height}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
