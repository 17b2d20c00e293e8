"""Pictures that strangers made: read, or refused before they take memory or time, or run a program."""

import io
import os
import re
import signal
import socket
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from vizsynth import files
from vizsynth.cli import styling
from vizsynth.cli.commands.segment import _photos
from vizsynth.cli.common import BadInput
from vizsynth.cli.photos import Photo, digest
from vizsynth.core.paths import check_regular_file
from vizsynth.datasets.errors import DataError
from vizsynth.datasets.folders import read_batches
from vizsynth.datasets.labelled import read_labelled
from vizsynth.files import ImageFileError, list_images, read_image

ROOT = Path(__file__).parents[1]


def size_of(path: Path | str) -> tuple[int, int]:
    """Return a picture's size as the commands see it."""
    return Photo(path).size


# Formats ------------------------------------------------------------------------------


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # forget what was found before
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    dos = struct.pack("<IIIIIIIH", 0xC6D3D0C5, 30, len(postscript), 0, 0, 0, 0, 0xFFFF) + postscript
    for content, told in ((postscript, "is text, not a picture"), (dos, "is no picture of a known format")):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ImageFileError, match=told):
            read_image(tmp_path / "a.jpg")
    assert not (tmp_path / "ran").exists()


def test_formats_are_those_that_are_listed(tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 32), (255, 0, 0))
    for name in (*files.FORMATS, "MPO"):  # which is a JPEG with more behind it
        picture.save(tmp_path / "a.png", name)
        np.testing.assert_allclose(read_image(tmp_path / "a.png")[16, 16], [1, 0, 0], atol=0.05, err_msg=name)
    for name in ("EPS", "ICO", "ICNS", "PCX", "PDF", "SGI", "TGA"):
        picture.save(tmp_path / "a.png", name)
        with pytest.raises(ImageFileError):
            read_image(tmp_path / "a.png")


def test_pictures_are_opened_in_one_place() -> None:
    found = [
        str(path.relative_to(ROOT))
        for folder in ("vizsynth", "experiments")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if re.search(r"\b(Image|Pillow)\.open\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["vizsynth/files.py"]


# Damage ---------------------------------------------------------------------------------


def test_whatever_a_decoder_raises_is_told_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for error in (RuntimeError("bad\nitem"), AssertionError(), RecursionError("deep"), MemoryError()):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
        with pytest.raises(ImageFileError) as caught:
            read_image(tmp_path / "a.png")
        assert "\n" not in str(caught.value)
        told = {RuntimeError: "(bad item)", AssertionError: "(AssertionError)", MemoryError: "more memory"}
        assert told.get(type(error), "(deep)") in str(caught.value)


def test_a_damaged_picture_does_not_stop_a_folder(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "AVIF")
    good = buffer.getvalue()
    places = range(60, 300, 3)  # headers, and where its blocks begin
    for place in places:
        (tmp_path / f"{place:03}.jpg").write_bytes(
            good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :]
        )
    (tmp_path / "good.jpg").write_bytes(good)
    os.mkfifo(tmp_path / "pipe.jpg")  # is no file, and not listed
    paths = list_images(tmp_path)
    skipped: list = []
    read = [i for places, _ in read_batches(paths, 8, batch_size=4, skipped=skipped) for i in places]
    assert len(paths) - 1 in read
    assert len(read) + len(skipped) == len(paths) == len(places) + 1
    assert any("(Failed to decode" in bad.reason for bad in skipped)  # AVIF's decoder raises RuntimeError


def test_segment_leaves_out_what_of_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "all" / "good.png")
    Image.new("RGB", (99, 8)).save(tmp_path / "all" / "long.png")
    (tmp_path / "all" / "bad.png").write_text("no picture")
    found, skipped = _photos([Photo(tmp_path / "all")])
    assert [path.name for path in found] == ["good.png"]
    assert [bad.path.name for bad in skipped] == ["bad.png", "long.png"]
    with pytest.raises(ImageFileError, match="is text"):  # what is named is wanted
        _photos([Photo(tmp_path / "all" / "bad.png")])
    (tmp_path / "all" / "good.png").unlink()
    with pytest.raises(BadInput, match="none of the 2 photos can be read"):
        _photos([Photo(tmp_path / "all")])


# Size -----------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body


def gif(width: int, height: int) -> bytes:
    """An animation whose canvas is small and whose first frame is not."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0" * 6
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02L\x01\0"
    return screen + frame + frame + b";"


def tiff(width: int, height: int, tile: int) -> bytes:
    """A TIFF of tiles that declare a size of their own."""
    packed = zlib.compress(b"\0" * 1024)
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, len(packed)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return (
        b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(entries)) + table
        + bytes(4)
    )  # fmt: skip


def webp(width: int, height: int) -> bytes:
    """A lossless WebP that claims a size."""
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + b"\0" * 5
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(
    ("content", "size", "told"),
    [
        (png(1, 170_000_000), None, "is 1x170000000: a side may have at most 699051 pixels"),
        (png(170_000_000, 1), (32, 32), "is 170000000x1: a side may have at most"),
        (png(10, 10_000_000), None, "is 10x10000000: a side"),
        (png(1, 600_000), 224, "is 1x600000: with a shorter side of 224 it would be 224x134400000"),
        (png(20_000, 20_000), None, "too many pixels: Image size (400000000 pixels)"),
        (webp(13_000, 13_000), None, "too many pixels: 13000x13000, and a WebP"),
        (gif(60_000, 60_000), None, "too many pixels"),
        (tiff(16, 16, 32768), None, "its tiles are of 32768x32768"),
        (b"P6 0 5 255\n", None, "is "),
    ],
    ids=str,
)
def test_what_a_file_declares_is_checked_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, size: int | None, told: str
) -> None:
    def decoded(*_: object) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageFileError, match=re.escape(told)):
        read_image(tmp_path / "a.png", size)
    with pytest.raises((ImageFileError, BadInput)):
        Photo(tmp_path / "a.png").pixels(224)
    if size is None:
        for look in (files.look_at, files.image_sides, size_of):
            with pytest.raises(ImageFileError):
                look(tmp_path / "a.png")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(webp(8, 8))
    os.truncate(path, 3 << 30)  # takes no room on the disk
    with pytest.raises(ImageFileError, match=r"holds 3\.0 GiB, and pictures are read up to 1"):
        read_image(path)


def test_a_long_picture_that_is_small_is_read(tmp_path: Path) -> None:
    Image.new("L", (2, 100_000), 51).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (100_000, 2, 3)
    np.testing.assert_allclose(read_image(tmp_path / "a.png", (8, 8)), 0.2)
    with pytest.raises(BadInput, match="more than 8 times as long"):
        Photo(tmp_path / "a.png").pixels(8)


def test_of_large_pictures_one_is_decoded_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LARGE", 64)
    inside, most = 0, 0
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> object:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.01)
        try:
            return load(image)
        finally:
            inside -= 1

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    for i in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.bmp")
    found = list(read_batches(list_images(tmp_path), 4, batch_size=6, skipped=[]))
    assert len(found[0][0]) == 6
    assert most == 1


def test_bands_over_white_are_the_whole_over_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 11, 4), np.uint8)
    for name, picture in {
        "rgba": Image.fromarray(pixels),
        "la": Image.fromarray(pixels).convert("LA"),
        "p": Image.fromarray(pixels).quantize(16),
    }.items():
        picture.save(tmp_path / f"{name}.png")
        whole = np.asarray(read_image(tmp_path / f"{name}.png"))
        monkeypatch.setattr(files, "_BAND", 50)
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), whole)
        monkeypatch.undo()


# Orientation ------------------------------------------------------------------------------

# How a picture that stands is laid down for each orientation: the inverse of what reading does.
LAID = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "packed.tif", "webp", "avif"])
def test_every_way_of_reading_agrees_on_what_is_up(tmp_path: Path, suffix: str, orientation: int) -> None:
    standing = np.zeros((64, 48, 3), np.uint8)  # of blocks: a corner red, another blue
    standing[:16, :16], standing[48:, :16], standing[:16, 32:] = (255, 0, 0), (0, 0, 255), 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    laid = Image.fromarray(standing)
    if orientation in LAID:
        laid = laid.transpose(LAID[orientation])
    options = {"packed.tif": {"compression": "tiff_lzw"}, "jpg": {"quality": 95, "subsampling": 0}}
    path = tmp_path / f"photo.{suffix}"
    laid.save(path, exif=exif, **options.get(suffix, {}))

    image = np.asarray(read_image(path))
    assert image.shape == (64, 48, 3)
    inner = np.s_[4:-4:8, 4:-4:8]
    np.testing.assert_allclose(image[inner], standing[inner] / 255, atol=0.12)
    assert files.look_at(path).size == (64, 48)
    assert files.image_sides(path) == (48, 64)
    photo = Photo(path)  # what every command reads
    assert (photo.size, photo.note) == ((64, 48), "")
    assert photo.read(24).shape == (32, 24, 3)
    small = photo.pixels(styling.scaled(photo.size, 32))
    assert small.shape == (32, 24, 3)
    np.testing.assert_allclose(small, np.asarray(read_image(path, 24)), atol=1e-6)


# What is no file --------------------------------------------------------------------------


@contextmanager
def soon(seconds: float = 5.0) -> Iterator[None]:
    """Fail instead of waiting."""

    def late(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        Path("link.jpg").symlink_to("/dev/zero")
        kinds = {
            "pipe.jpg": "a pipe",
            "socket.jpg": "a socket",
            "link.jpg": "a device",
            "/dev/null": "a device",
        }
        for name, kind in kinds.items():
            for read in (read_image, files.look_at, files.image_sides, size_of, digest):
                with (
                    soon(),
                    pytest.raises(ValueError, match=f"{name} is {kind}, not a file; save its content"),
                ):
                    read(Path(name))
        with soon(), pytest.raises(DataError, match="is a pipe, not a file"):
            read_labelled("pipe.jpg", 8, skipped=[])
        with pytest.raises(ImageFileError, match="holds no picture"):  # and none is read of a folder
            list_images(".")
    check_regular_file("nothing there")
    Path("file").touch()
    check_regular_file("file")
    assert stat.S_ISFIFO(os.stat("pipe.jpg").st_mode)
    with pytest.raises(RuntimeError, match=r"is a folder, not a file$"):
        check_regular_file(tmp_path, RuntimeError)


def test_a_digest_takes_no_memory(tmp_path: Path) -> None:
    import hashlib
    import tracemalloc

    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 32 << 20)
    tracemalloc.start()
    assert digest(path) == hashlib.sha256(bytes(32 << 20)).hexdigest()
    tracemalloc.reset_peak()
    digest(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
