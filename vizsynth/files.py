"""Reading and writing pictures."""

import difflib
import io
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from PIL import Image, ImageOps, UnidentifiedImageError

from vizsynth.core.atomic import write_atomic
from vizsynth.core.paths import check_regular_file
from vizsynth.figures import as_picture

# The suffixes of pictures for list_images; read_image goes by content, whatever the name.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# The formats that are read, by Pillow's names. Others run a program (EPS), hold pictures of other sizes than
# declared (ICO, ICNS), or are documents.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_LEAST_PIXELS = 256  # that a row or column counts for: each takes memory of its own
_LARGEST_FILE = 1 << 30  # bytes: some decoders hold all of it
_LARGEST_TILE = 1 << 24  # pixels of a TIFF's tile that is larger than the picture
_LARGE = 1 << 25  # pixels: threads open larger pictures one at a time
_BAND = 1 << 22  # pixels laid over white at once
_lock = threading.RLock()

_PNG = ("PNG", {"compress_level": 4})  # 1 % larger in two thirds of the time

_ENCODERS = {
    ".png": _PNG,
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # colours at full resolution
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
}

_ANIMATIONS = {
    ".gif": ("GIF", {}),
    ".webp": ("WEBP", {"quality": 90}),
    ".png": _PNG,
    ".apng": ("PNG", {}),
}

_SMALLER = "Shrink it first, or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"


class ImageFileError(ValueError):
    """A file that cannot be read or written as a picture."""


def read_image(
    path: str | os.PathLike[str], size: int | tuple[int, int] | None = None
) -> Float[Array, "h w 3"]:
    """Read a picture as float32 RGB in [0, 1].

    EXIF orientation is applied. Grey becomes three equal channels (16-bit grey keeps its depth), transparency
    is laid over white, CMYK and palettes are converted, an animation gives its first frame. Colour profiles
    are not applied.

    Args:
        path: a file in one of `FORMATS`, whatever its name.
        size: in pixels. An int is the shorter side; the aspect ratio stays. `(h, w)` is covered with the
            aspect ratio kept, then cropped around the centre. Resizing is bicubic with antialiasing. `None`
            keeps the size.

    Raises:
        FileNotFoundError: no such file; the message has similar names.
        ImageFileError: a folder, a pipe or a device; no picture; a picture that is damaged, cut short, or of
            more pixels, itself or at `size`, than Pillow considers safe (twice
            `PIL.Image.MAX_IMAGE_PIXELS`: 178,956,970 unless changed; half of it for a WebP).
        ValueError: a size that is not one or two positive ints.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/grey.png", np.full((40, 60), 0.2))
    ...     image = read_image(f"{folder}/grey.png", size=20)
    >>> image.shape, round(float(image[0, 0, 0]), 3)
    ((20, 30, 3), 0.2)
    """
    return jnp.asarray(read_pixels(path, size))


def read_pixels(
    path: str | os.PathLike[str], size: int | tuple[int, int] | None = None
) -> Float[np.ndarray, "h w 3"]:
    """Read a picture like `read_image`, into host memory, for threads that read ahead."""
    path = Path(path)
    size = _checked_size(size)
    with open_picture(path) as image:
        _check_result(image, size, path)
        return _pixels(_fit(_decoded(image, path), size))


class Look(NamedTuple):
    """The properties of a picture beside its pixels."""

    size: tuple[int, int]
    """Height and width, with the orientation applied."""
    transparent: bool
    """Whether it may have transparent pixels, which are laid over white."""
    grey: bool


class Decoded:
    """A picture that is decoded once and given at any size."""

    look: Look
    """The properties of the picture."""

    def __init__(self, image: Image.Image, path: Path) -> None:
        """Decode a picture that `open_picture` has opened."""
        self._path = path
        mode, transparent = image.mode, image.has_transparency_data
        self._picture = _decoded(image, path)
        grey = mode in ("1", "L", "LA", "F") or mode.startswith("I")
        self.look = Look((self._picture.height, self._picture.width), transparent, grey)

    def pixels(self, size: int | tuple[int, int] | None = None) -> Float[np.ndarray, "h w 3"]:
        """Return the picture as `read_pixels` does."""
        size = _checked_size(size)
        _check_result(self._picture, size, self._path)
        return _pixels(_fit(self._picture, size))


def look_at(path: str | os.PathLike[str]) -> Look:
    """Return the properties of a picture, decoding it as a check.

    Raises:
        FileNotFoundError, ImageFileError: as `read_image`.
    """
    with open_picture(path) as image:
        return Decoded(image, Path(path)).look


def image_sides(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the shorter and the longer side that a picture's file declares; nothing is decoded.

    Raises:
        FileNotFoundError, ImageFileError: as `read_image`, except for faults in the pixels.
    """
    with open_picture(path) as image:
        shorter, longer = sorted(image.size)
    return shorter, longer


@contextmanager
def open_picture(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a picture as a Pillow image, not yet decoded. No other function opens pictures.

    It has the orientation of the file. An exception inside of `with` is raised as a fault of the file.

    Raises:
        FileNotFoundError, ImageFileError: as `read_image`.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageFileError(f"{path} is a folder, not a picture; list_images lists the pictures in it")
    check_regular_file(path, ImageFileError)
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(_missing(path)) from error
    with file:
        try:
            if (count := os.fstat(file.fileno()).st_size) > _LARGEST_FILE:
                raise ImageFileError(
                    f"{path} holds {count / 2**30:.1f} GiB, and pictures are read up to "
                    f"{_LARGEST_FILE / 2**30:.0f}; save it smaller"
                )
            with _alone():
                image = Image.open(file, formats=_formats())
            with image:
                _check_declared(image, path)
                with _alone() if image.width * image.height >= _LARGE else nullcontext():
                    yield image
        except ImageFileError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageFileError(f"{path} has too many pixels: {error} {_SMALLER}") from error
        except UnidentifiedImageError as error:
            raise ImageFileError(_unknown(file, path)) from error
        except MemoryError as error:
            raise ImageFileError(f"{path} takes more memory than there is; shrink it first") from error
        except Exception as error:  # on damaged bytes, decoders raise anything
            what = " ".join(str(error).split()) or type(error).__name__
            cut = "truncated" in what.lower() or isinstance(error, EOFError)
            fault = "is cut short" if cut else f"is damaged ({what})"
            raise ImageFileError(f"{path} {fault}; get a whole copy of it") from error


def write_image(path: str | os.PathLike[str], image: ArrayLike) -> None:
    """Write a picture as PNG, JPEG (quality 95) or WebP (quality 95), by the name's suffix.

    The file is written whole or not at all. Missing folders are made.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp; an existing file is replaced.
        image: `[h, w, 3]` or grey `[h, w]`; float in [0, 1] (clipped to it), or uint8.

    Raises:
        ImageFileError: another suffix; a picture too large for the format.
        TypeError: a picture that is neither float nor uint8.
        ValueError: a picture of another shape, with NaN or infinity, or of floats 0..255.
        OSError: the folder cannot be made or written to.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/new/white.png", jnp.ones((4, 6, 3)))
    ...     read_image(f"{folder}/new/white.png").shape
    (4, 6, 3)
    """
    path = Path(path)
    name, options = _encoder(path, _ENCODERS)
    _write(path, _encoded(Image.fromarray(_bytes(image)), path, name, options))


def write_animation(
    path: str | os.PathLike[str],
    frames: Iterable[ArrayLike],
    *,
    seconds_per_frame: float = 0.1,
    loop: bool = True,
) -> None:
    """Write an animated picture as GIF (256 colours), WebP (quality 90) or PNG (APNG), by the name's suffix.

    The file is written whole or not at all. Missing folders are made.

    Args:
        path: ends in .gif, .webp, .png or .apng; an existing file is replaced.
        frames: pictures as for `write_image`, of one size; an iterator is read to its end.
        seconds_per_frame: from 0.001 to 60. GIF counts in hundredths of a second; many viewers slow down
            frames shorter than 0.02.
        loop: whether to repeat for ever.

    Raises:
        ImageFileError: another suffix; no frame; a picture too large for the format.
        TypeError, ValueError: as `write_image`; frames of different sizes; a time outside the range.
        OSError: the folder cannot be made or written to.

    >>> import tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_animation(f"{folder}/film.gif", [np.zeros((4, 6)), np.ones((4, 6))])
    ...     with Image.open(f"{folder}/film.gif") as film:
    ...         film.n_frames, film.size
    (2, (6, 4))
    """
    path = Path(path)
    name, options = _encoder(path, _ANIMATIONS)
    if not 0.001 <= seconds_per_frame <= 60:
        raise ValueError(f"seconds_per_frame must be from 0.001 to 60, not {seconds_per_frame}")
    pictures = [Image.fromarray(_bytes(frame)).convert("RGB") for frame in frames]
    if not pictures:
        raise ImageFileError(f"cannot write {path}: there is no frame")
    if len(sizes := {picture.size for picture in pictures}) > 1:
        found = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise ValueError(f"all frames must be of one size, not {found} pixels; resize them")
    milliseconds = round(seconds_per_frame * 1000)
    if name == "GIF":
        milliseconds = max(10, round(seconds_per_frame * 100) * 10)
    # For one round, GIF needs no number, WebP and APNG need 1.
    rounds = {"loop": 0} if loop else ({} if name == "GIF" else {"loop": 1})
    options = {**options, **rounds, "duration": milliseconds, "append_images": pictures[1:]}
    _write(path, _encoded(pictures[0], path, name, {"save_all": True, **options}))


def _write(path: Path, encoded: bytes) -> None:
    """Write a file whole or not at all."""
    folder = path.parent
    if path.is_dir():
        raise ImageFileError(f"cannot write {path}: it is a folder; give the name of a file in it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, encoded)
    except OSError as error:
        reason = error.strerror or str(error)
        for parent in (folder, *folder.parents):
            if parent.exists():
                if not parent.is_dir():
                    reason = f"{parent} is a file, not a folder"
                break
        message = f"cannot write {path}: {reason}; choose a folder that can be written to"
        raise OSError(error.errno, message) from error  # the subclass that fits the number


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the pictures of a folder by their suffix, sorted by name, without those of its subfolders.

    Args:
        folder: suffixes are `SUFFIXES` in any case; hidden files are skipped.

    Raises:
        FileNotFoundError: no such folder.
        ImageFileError: a file, or a folder without pictures.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/b.png", np.zeros((2, 2)))
    ...     write_image(f"{folder}/a.jpg", np.zeros((2, 2)))
    ...     [path.name for path in list_images(folder)]
    ['a.jpg', 'b.png']
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(_missing(folder))
    if not folder.is_dir():
        raise ImageFileError(f"{folder} is a file, not a folder; read_image reads a single picture")
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    images = [p for p in entries if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not images:
        inside = "is empty" if not entries else f"holds {len(entries)} other entries"
        if folders := [p.name for p in entries if p.is_dir()]:
            inside += f", among them the folder {folders[0]}"
        raise ImageFileError(f"{folder} holds no picture ({', '.join(SUFFIXES)}): it {inside}")
    return images


def _checked_size(size: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    if size is None:
        return None
    sides = size if isinstance(size, tuple) else (size,)
    whole = all(isinstance(side, int | np.integer) and side >= 1 for side in sides)
    if not whole or (isinstance(size, tuple) and len(size) != 2):
        raise ValueError(f"size must be pixels, a positive int or (height, width), not {size}")
    return size


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no file {path}: there is no folder {folder}; check the path"
    try:
        names = {entry.name.lower(): entry.name for entry in islice(folder.iterdir(), 10_000)}
    except OSError:
        names = {}
    near = [names[name] for name in difflib.get_close_matches(path.name.lower(), names, n=3)]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"check the path, or look into {folder}"
    return f"there is no {path.name} in the folder {folder}; {remedy}"


@cache
def _formats() -> tuple[str, ...]:
    """Return the `FORMATS` of the installed Pillow."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one thread in at a time, and silence Pillow's warning at half of its limit: photos reach that.

    All threads share the filters of warnings.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _most_pixels() -> float:
    """Return Pillow's largest number of pixels."""
    return float("inf") if Image.MAX_IMAGE_PIXELS is None else 2.0 * Image.MAX_IMAGE_PIXELS


def _check_declared(image: Image.Image, path: Path) -> None:
    """Check the declared sizes of a file before allocation; Pillow has checked the number of pixels."""
    width, height = image.size
    if min(width, height) < 1:
        raise ImageFileError(f"{path} has no pixels: it declares {width}x{height}; get a whole copy of it")
    if image.format == "WEBP" and width * height > (most := _most_pixels() / 2):
        raise ImageFileError(
            f"{path} has too many pixels: {width}x{height}, and a WebP, which takes four times its memory "
            f"while it is decoded, may have at most {most:.0f}. {_SMALLER}"
        )
    if max(width, height) > (longest := _most_pixels() / _LEAST_PIXELS):
        raise ImageFileError(
            f"{path} is {width}x{height}: a side may have at most {longest:.0f} pixels. {_SMALLER}"
        )
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    tile = [side for tag in (322, 323) if isinstance(side := tags.get(tag), int)]
    if len(tile) == 2 and tile[0] * tile[1] > max(width * height, _LARGEST_TILE):
        raise ImageFileError(
            f"{path} is damaged (its tiles are of {tile[0]}x{tile[1]}); get a whole copy of it"
        )


def _check_result(image: Image.Image, size: int | tuple[int, int] | None, path: Path) -> None:
    """Check the size of the result: a long, thin picture may become very large."""
    if not isinstance(size, int | np.integer):
        return
    width, height = _scaled(image.size, size)
    if width * height > _most_pixels():
        raise ImageFileError(
            f"{path} is {image.width}x{image.height}: with a shorter side of {size} it would be "
            f"{width}x{height}, too many pixels; crop it first"
        )


def _decoded(image: Image.Image, path: Path) -> Image.Image:
    """Return an oriented picture of mode RGB, or of mode F (grey in [0, 1]) if it has more than 8 bits."""
    image.load()  # applies the orientation of a TIFF, and clears it
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.array(image, np.float32)
        if image.mode != "F":
            values /= 65535
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):  # NaN comes here too
            limit = "[0, 1]" if image.mode == "F" else "0..65535"
            raise ImageFileError(
                f"{path} holds raw numbers outside {limit}: its scale is unknown; "
                "read it with a library of its field and scale it to [0, 1]"
            )
        return image if image.mode == "F" else Image.fromarray(values)
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Lay a picture over white in bands: as a whole it would take five times its memory."""
    width, height = image.size
    laid = Image.new("RGB", image.size)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(height, top + rows))
        band = image.crop(box).convert("RGBA")
        laid.paste(Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB"), box)
    return laid


def _unknown(file: BinaryIO, path: Path) -> str:
    file.seek(0)
    head = file.read(256)
    if not head:
        return f"{path} is empty (zero bytes); get a whole copy of it"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        start = " ".join(head.decode("utf-8", "replace").split())[:40]
        return f"{path} is text, not a picture (it begins {start!r}); get the picture itself"
    return (
        f"{path} is no picture of a known format ({', '.join(FORMATS)}), or its beginning is damaged; "
        "if another program opens it, save it from there as PNG or JPEG"
    )


def _fit(image: Image.Image, size: int | tuple[int, int] | None) -> Image.Image:
    if size is None:
        return image
    if isinstance(size, tuple):
        return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    return image.resize(_scaled(image.size, size), Image.Resampling.BICUBIC)


def _pixels(picture: Image.Image) -> np.ndarray:
    pixels = np.array(picture, np.float32)
    if picture.mode == "F":
        return np.repeat(np.clip(pixels, 0, 1)[..., None], 3, axis=-1)
    pixels /= 255
    return pixels


def _scaled(sides: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return the sides in proportion, for a given shorter side."""
    scale = shorter / min(sides)
    first, second = (max(shorter, round(side * scale)) for side in sides)
    return first, second


def _bytes(image: ArrayLike) -> np.ndarray:
    """Return uint8, `[h, w, 3]` or grey `[h, w]`."""
    pixels = np.rint(as_picture(image) * 255).astype(np.uint8)
    return pixels[..., 0] if np.ndim(image) == 2 else pixels


def _encoder(
    path: Path, encoders: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> tuple[str, Mapping[str, Any]]:
    """Return Pillow's name and options for a suffix."""
    if path.suffix.lower() not in encoders:
        raise ImageFileError(
            f"cannot write {path}: the suffix {path.suffix!r} is none of {', '.join(encoders)}"
        )
    return encoders[path.suffix.lower()]


def _encoded(picture: Image.Image, path: Path, name: str, options: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, name, **options)
    except (OSError, ValueError) as error:  # WebP ends at 16,383 pixels a side, JPEG and GIF at 65,500
        width, height = picture.size
        raise ImageFileError(
            f"cannot write {path}: {width}x{height} pixels do not fit {name} ({error}); use .png"
        ) from error
    return buffer.getvalue()
