"""How far do copies get? `python -m experiments.classical_textures [--quick] [--out DIR] [--seed N]`.

Three syntheses without a network make more of four textures. Written are

- `textures.png`: a row a texture: the source, then Efros & Leung's pixels (1999), Wei & Levoy's pixels (2000)
  and Efros & Freeman's quilt (2001);
- `transfer.png`: photos quilted of one of the textures, once and three times over;
- `classical_textures.json`: settings, seconds, and how much of each picture stands like that in its source;
  `caption.md`: what the pictures show.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.images import center_crop

CONTENTS = ("chelsea", "astronaut")
ITERATIONS = (1, 3)
ENLARGED = 2
PIECE = 12
"""The side of the pieces that are looked for in the source."""


class Texture(NamedTuple):
    """A piece from the middle of a photo, and what suits it."""

    photo_size: int
    """To which the photo's shorter side is brought before the piece is cut out."""
    window: int
    """Of Efros & Leung's neighbourhoods."""
    block: int


TEXTURES = {
    "brick": Texture(96, 15, 24),
    "gravel": Texture(128, 9, 18),
    "grass": Texture(200, 11, 18),
    "ihc": Texture(128, 11, 18),
}


def copied(picture: np.ndarray, source: np.ndarray) -> float:
    """Return the share of the picture's pieces that stand like that in the source."""

    def pieces(image: np.ndarray) -> list[bytes]:
        found = np.lib.stride_tricks.sliding_window_view(image, (PIECE, PIECE, 3)).reshape(-1, 3 * PIECE**2)
        return [piece.tobytes() for piece in found]

    there = set(pieces(source))
    return float(np.mean([piece in there for piece in pieces(picture)]))


def methods(texture: Texture) -> dict[str, Callable[..., Array]]:
    """Return the three syntheses as they suit a texture, by what stands above their pictures."""
    return {
        "Efros & Leung": partial(vizsynth.efros_leung, window=texture.window),
        "Wei & Levoy": vizsynth.wei_levoy,
        "quilting": partial(vizsynth.quilt_texture, block=texture.block),
    }


def enlarged(image: Any) -> np.ndarray:
    """Return the picture with pixels that can be seen."""
    return np.kron(np.asarray(image, np.float32), np.ones((ENLARGED, ENLARGED, 1), np.float32))


def draw_transfer(path: Path, texture: Array, *, size: int, seed: int) -> None:
    """Draw photos, and the quilts that show them."""
    rows = []
    for name in CONTENTS:
        content = read_image(PHOTOS / f"{name}.jpg", size=(size, size))
        made = [
            vizsynth.quilt_transfer(texture, content, key=jax.random.key(seed), iterations=iterations)
            for iterations in ITERATIONS
        ]
        rows.append([enlarged(image) for image in (content, *made)])
    heads = ["photo", "quilted once", f"{ITERATIONS[-1]} times"]
    write_image(path, figures.sheet(rows, row_labels=CONTENTS, column_labels=heads))


def run(out: Path, *, quick: bool = False, seed: int = 0, side: int | None = None) -> None:
    """Make all pictures, twice as large as their sources of `side` pixels."""
    out.mkdir(parents=True, exist_ok=True)
    side = side or (32 if quick else 64)
    names = list(TEXTURES)[:2] if quick else list(TEXTURES)
    rows, found = [], {}
    for name in names:
        texture = TEXTURES[name]
        photo = read_image(PHOTOS / f"{name}.jpg", size=texture.photo_size)
        source = center_crop(photo, (side, side))
        row, found[name] = [enlarged(source)], {}
        for method, synthesize in methods(texture).items():
            began = time.perf_counter()
            picture = np.asarray(synthesize(source, key=jax.random.key(seed), size=2 * side))
            seconds = time.perf_counter() - began
            share = copied(picture, np.asarray(source))
            print(f"{name:8} {method:14} {100 * share:5.1f} % copied  {seconds:.1f} s", flush=True)
            write_image(out / f"{name}_{method.split()[0].lower()}.png", enlarged(picture))
            found[name][method] = {"copied": round(share, 4), "seconds": round(seconds, 1)}
            row.append(enlarged(picture))
        rows.append(row)
    heads = ["source", *methods(TEXTURES[names[0]])]
    write_image(out / "textures.png", figures.sheet(rows, row_labels=names, column_labels=heads))
    last = TEXTURES[names[-1]]
    texture = center_crop(read_image(PHOTOS / f"{names[-1]}.jpg", size=last.photo_size), (side, side))
    draw_transfer(out / "transfer.png", texture, size=3 * side, seed=seed)
    record = {
        "seed": seed,
        "source": [side, side],
        "size": [2 * side, 2 * side],
        "piece": PIECE,
        "textures": {name: TEXTURES[name]._asdict() for name in names},
        "results": found,
    }
    caption = (
        f"Textures of {side}x{side} px ({', '.join(names)}) made {2 * side}x{2 * side} px without a network: "
        "pixel by pixel from the middle (Efros & Leung, 1999), row by row and from coarse to fine (Wei & "
        f"Levoy, 2000), and of blocks with least cuts between them (Efros & Freeman, 2001); seed {seed}. "
        f"Transfer: {' and '.join(CONTENTS)} quilted of {names[-1]}."
    )
    figure.tell(out, "classical_textures", record, caption, [*names, *CONTENTS])


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "classical_textures", quick="two textures, small pictures")
    parser.add_argument("--side", type=int, help="pixels of a source's side")
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, side=given.side)


if __name__ == "__main__":
    main()
