"""Reading and writing pictures."""

import difflib
import io
import os
import secrets
import struct
import warnings
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from PIL import Image, ImageOps, UnidentifiedImageError

from vizsynth.figures import as_picture

# What list_images takes for a picture; read_image goes by content, whatever the name.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_ENCODERS = {
    ".png": ("PNG", {"compress_level": 4}),  # in two thirds of the time, one part in a hundred larger
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # colours at full resolution too
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
}

_ANIMATIONS = {
    ".gif": ("GIF", {}),
    ".webp": ("WEBP", {"quality": 90}),
    ".png": ("PNG", {"compress_level": 4}),  # in two thirds of the time, one part in a hundred larger
    ".apng": ("PNG", {}),
}

# What Pillow's decoders raise on bytes that are not as they should be.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    struct.error,
    zlib.error,
)


class ImageFileError(ValueError):
    """A file that cannot be read or written as a picture."""


def read_image(
    path: str | os.PathLike[str], size: int | tuple[int, int] | None = None
) -> Float[Array, "h w 3"]:
    """Read a picture as float32 RGB in [0, 1].

    It stands as its EXIF orientation says. Grey becomes three equal channels (16-bit grey keeps its
    depth), transparency is laid over white, CMYK and palettes are converted, an animation gives its
    first frame. Colour profiles are not applied.

    Args:
        path: a file in any format Pillow reads.
        size: in pixels. An int: the shorter side becomes that, the aspect ratio stays. `(h, w)`:
            resized to cover it, aspect ratio kept, then cut to it around the centre. Resizing is
            bicubic, smoothed where it shrinks. `None` keeps the size.

    Raises:
        FileNotFoundError: there is no such file; the message has near names.
        ImageFileError: a folder; no picture; a picture that is damaged, cut short, or of more
            pixels than Pillow takes for safe (twice `PIL.Image.MAX_IMAGE_PIXELS`: 178,956,970
            unless changed).
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
    """Read a picture as `read_image` does, into the host's memory: what threads that read ahead call."""
    path = Path(path)
    size = _checked_size(size)
    if path.is_dir():
        raise ImageFileError(f"{path} is a folder, not a picture; list_images names what is in it")
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(_missing(path)) from error
    with file:
        picture = _fit(_decode(file, path), size)
    pixels = np.asarray(picture, np.float32)
    grey = picture.mode == "F"
    pixels = np.repeat(np.clip(pixels, 0, 1)[..., None], 3, axis=-1) if grey else pixels / 255
    return pixels


def write_image(path: str | os.PathLike[str], image: ArrayLike) -> None:
    """Write a picture as PNG, JPEG (quality 95) or WebP (quality 95), by the name's suffix.

    The file appears whole or not at all: it is written beside its place and then moved there.
    Missing folders are made.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp; a file that is there is replaced.
        image: `[h, w, 3]` or grey `[h, w]`; float in [0, 1] (what lies outside is clipped), or
            uint8.

    Raises:
        ImageFileError: another suffix; a picture that the format has no room for.
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
    _write(path, _encode(path, image))  # encoded before anything is written


def write_animation(
    path: str | os.PathLike[str],
    frames: Iterable[ArrayLike],
    *,
    seconds_per_frame: float = 0.1,
    loop: bool = True,
) -> None:
    """Write an animated picture as GIF (256 colours), WebP (quality 90) or PNG (APNG), by the name's suffix.

    The file appears whole or not at all. Missing folders are made.

    Args:
        path: ends in .gif, .webp, .png or .apng; a file that is there is replaced.
        frames: pictures as `write_image` takes them, all of one size; an iterator is read to its end.
        seconds_per_frame: how long each is shown. GIF counts in hundredths of a second; many viewers slow
            down what is shorter than 0.02.
        loop: whether it begins again for ever.

    Raises:
        ImageFileError: another suffix; no frame; a picture that the format has no room for.
        TypeError, ValueError: a frame that `write_image` would not take; frames of different sizes; a time
            that is not from 0.001 to 60 seconds.
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
    if path.suffix.lower() not in _ANIMATIONS:
        raise ImageFileError(
            f"cannot write {path}: the suffix {path.suffix!r} is none of {', '.join(_ANIMATIONS)}"
        )
    if not 0.001 <= seconds_per_frame <= 60:
        raise ValueError(f"seconds_per_frame must be from 0.001 to 60, not {seconds_per_frame}")
    pictures = [Image.fromarray(_bytes(frame)).convert("RGB") for frame in frames]
    if not pictures:
        raise ImageFileError(f"cannot write {path}: there is no frame")
    if len(sizes := {picture.size for picture in pictures}) > 1:
        found = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise ValueError(f"all frames must be of one size, not {found} pixels; resize them")
    name, options = _ANIMATIONS[path.suffix.lower()]
    milliseconds = round(seconds_per_frame * 1000)
    if name == "GIF":
        milliseconds = max(10, round(seconds_per_frame * 100) * 10)
    # A GIF without the number of rounds is played once; WebP and APNG want 1 for that.
    rounds = {"loop": 0} if loop else ({} if name == "GIF" else {"loop": 1})
    buffer = io.BytesIO()
    try:
        pictures[0].save(
            buffer,
            name,
            save_all=True,
            append_images=pictures[1:],
            duration=milliseconds,
            **rounds,
            **options,
        )
    except (OSError, ValueError) as error:
        width, height = pictures[0].size
        raise ImageFileError(
            f"cannot write {path}: {len(pictures)} frames of {width}x{height} pixels do not fit {name} "
            f"({error})"
        ) from error
    _write(path, buffer.getvalue())


def _write(path: Path, encoded: bytes) -> None:
    """Write a file whole or not at all."""
    folder = path.parent
    if path.is_dir():
        raise ImageFileError(f"cannot write {path}: it is a folder; give the name of a file in it")
    temporary = folder / f".{secrets.token_hex(8)}.tmp"  # the same folder, so the same file system
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(encoded)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
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
    """Return the pictures that lie in a folder, sorted by name; folders inside are left alone.

    Args:
        folder: pictures are known by their suffix (`SUFFIXES`, in small or capital letters); hidden
            files are left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ImageFileError: it is a file, or holds no picture.

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
        raise ValueError(f"size must be pixels, an int or (height, width) from 1 up, not {size}")
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


def _decode(file: BinaryIO, path: Path) -> Image.Image:
    """Return a picture of mode RGB, or of mode F (grey in [0, 1]) where 8 bits are too few."""
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of its limit; camera pictures reach that.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.load()
                return _converted(ImageOps.exif_transpose(image), path)
    except ImageFileError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageFileError(
            f"{path} has too many pixels: {error} Shrink it first, or, if you trust it, raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageFileError(_unknown(file, path)) from error
    except _DECODING_ERRORS as error:
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            what = "is cut short"
        else:
            what = f"is damaged ({error})"
        raise ImageFileError(f"{path} {what}; get a whole copy of it") from error


def _converted(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        values = values if image.mode == "F" else values / 65535
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):  # NaN comes here too
            limit = "[0, 1]" if image.mode == "F" else "0..65535"
            raise ImageFileError(
                f"{path} holds raw numbers outside {limit}: its scale is unknown; "
                "read it with a library of its field and scale it to [0, 1]"
            )
        return Image.fromarray(values)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _unknown(file: BinaryIO, path: Path) -> str:
    file.seek(0)
    head = file.read(256)
    if not head:
        return f"{path} is empty (zero bytes); get a whole copy of it"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        start = " ".join(head.decode("utf-8", "replace").split())[:40]
        return f"{path} is text, not a picture (it begins {start!r}); get the picture itself"
    return (
        f"{path} is not a picture that Pillow can read, or its beginning is damaged; "
        "if another program opens it, save it from there as PNG or JPEG"
    )


def _fit(image: Image.Image, size: int | tuple[int, int] | None) -> Image.Image:
    if size is None:
        return image
    if isinstance(size, tuple):
        return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _bytes(image: ArrayLike) -> np.ndarray:
    """Return 0..255, `[h, w, 3]` or grey `[h, w]`."""
    pixels = np.rint(as_picture(image) * 255).astype(np.uint8)
    return pixels[..., 0] if np.ndim(image) == 2 else pixels


def _encode(path: Path, image: ArrayLike) -> bytes:
    if path.suffix.lower() not in _ENCODERS:
        raise ImageFileError(
            f"cannot write {path}: the suffix {path.suffix!r} is none of {', '.join(_ENCODERS)}"
        )
    pixels = _bytes(image)
    name, options = _ENCODERS[path.suffix.lower()]
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, name, **options)
    except (OSError, ValueError) as error:  # WebP ends at 16,383 pixels a side, JPEG at 65,500
        height, width = pixels.shape[:2]
        raise ImageFileError(
            f"cannot write {path}: {width}x{height} pixels do not fit {name} ({error}); use .png"
        ) from error
    return buffer.getvalue()
