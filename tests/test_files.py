import os
import re
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from vizsynth.files import ImageFileError, list_images, read_image, write_animation, write_image

RED = (255, 0, 0)


def photo(height=48, width=64):
    """A smooth picture that JPEG keeps well."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y / height, x / width, (x + y) / (height + width)], -1).astype(np.float32)


def png(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
)
@settings(max_examples=30, deadline=None)
def test_png_returns_bytes_exactly(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_image(path, pixels)
    np.testing.assert_array_equal(np.asarray(read_image(path)), pixels.astype(np.float32) / 255)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
        elements=st.floats(0, 1, width=32),
    )
)
@settings(max_examples=30, deadline=None)
def test_png_returns_floats_to_half_a_step(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_image(path, pixels)
    np.testing.assert_allclose(read_image(path), pixels, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_every_suffix_round_trips(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(path, jnp.asarray(photo()))
    image = read_image(path)
    assert isinstance(image, jax.Array) and image.dtype == jnp.float32
    np.testing.assert_allclose(image, photo(), atol=0.05)


def test_grey_stays_grey_in_the_file(tmp_path):
    write_image(tmp_path / "a.png", photo()[..., 0])
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[..., 2], photo()[..., 0], atol=0.003)


def test_values_outside_are_clipped(tmp_path):
    write_image(tmp_path / "a.png", np.asarray([[-0.5, 0.5, 1.5]]))
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0, :, 0], [0, 0.5, 1], atol=0.003)


def test_bfloat16_is_written(tmp_path):
    write_image(tmp_path / "a.png", jnp.full((4, 4, 3), 0.5, jnp.bfloat16))
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), 0.5, atol=0.003)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    picture = Image.new("RGB", (32, 16))
    picture.paste(RED, (0, 0, 16, 16))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = np.asarray(read_image(tmp_path / "a.jpg"))
    assert image.shape == (32, 16, 3)
    np.testing.assert_allclose(image[4, 8], [1, 0, 0], atol=0.05)
    np.testing.assert_allclose(image[28, 8], 0, atol=0.05)


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "rgba.png")
    Image.new("RGBA", (2, 2), (0, 0, 0, 51)).save(tmp_path / "part.png")
    Image.new("LA", (2, 2), (0, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png", transparency=1)
    Image.new("RGB", (2, 2), RED).save(tmp_path / "key.png", transparency=RED)
    for name, value in {"rgba": 1, "part": 0.8, "la": 1, "p": 1, "key": 1}.items():
        np.testing.assert_allclose(read_image(tmp_path / f"{name}.png"), value, err_msg=name)


def test_palette_and_bilevel_and_cmyk(tmp_path):
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png")
    np.testing.assert_allclose(read_image(tmp_path / "p.png")[0, 0], [0, 0, 1])
    Image.new("1", (2, 2), 1).save(tmp_path / "1.png")
    np.testing.assert_allclose(read_image(tmp_path / "1.png"), 1)
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "cmyk.jpg")[8, 8], [1, 0, 0], atol=0.05)


def test_16_bit_grey_keeps_its_depth(tmp_path):
    levels = np.asarray([[0, 1, 32768, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(levels).save(tmp_path / name)
        image = read_image(tmp_path / name)
        np.testing.assert_allclose(image[..., 1], levels / 65535, rtol=1e-6)
    assert read_image(tmp_path / "a.png", size=(8, 8)).shape == (8, 8, 3)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_allclose(read_image(tmp_path / name)[0, 0], [1, 0, 0], err_msg=name)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (None, (48, 64)),
        (24, (24, 32)),
        (96, (96, 128)),
        (7, (7, 9)),
        ((30, 30), (30, 30)),
        ((100, 10), (100, 10)),
    ],
)
def test_sizes(tmp_path, size, shape):
    write_image(tmp_path / "a.png", photo())
    image = read_image(tmp_path / "a.png", size)
    assert image.shape == (*shape, 3)
    assert float(image.min()) >= 0 and float(image.max()) <= 1


def test_an_extreme_shape_keeps_a_pixel(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((1, 500, 3)))
    assert read_image(tmp_path / "a.png", 2).shape == (2, 1000, 3)


def test_a_pair_cuts_around_the_centre(tmp_path):
    picture = np.zeros((20, 60, 3), np.float32)
    picture[:, 20:40] = 1
    write_image(tmp_path / "a.png", picture)
    np.testing.assert_allclose(read_image(tmp_path / "a.png", (20, 20)), 1)


def test_shrinking_does_not_alias(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)
    write_image(tmp_path / "a.png", board)
    np.testing.assert_allclose(read_image(tmp_path / "a.png", 16), 0.5, atol=0.05)


@pytest.mark.parametrize("size", [0, -3, (0, 5)])
def test_sizes_that_are_none(tmp_path, size):
    with pytest.raises(ValueError, match="size must be pixels"):
        read_image(tmp_path / "a.png", size)


def test_a_missing_file_names_its_neighbours(tmp_path):
    write_image(tmp_path / "Chelsea.PNG", photo())
    with pytest.raises(FileNotFoundError, match=r"no chelsea\.jpg in .*did you mean Chelsea\.PNG\?"):
        read_image(tmp_path / "chelsea.jpg")
    with pytest.raises(FileNotFoundError, match=r"no zzz .*check the path"):
        read_image(tmp_path / "zzz")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_image(tmp_path / "nowhere" / "a.jpg")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_image(tmp_path / "Chelsea.PNG" / "a.jpg")


def jpeg(path):
    rng = np.random.default_rng(0)
    write_image(path, rng.random((64, 64, 3)))
    return path.read_bytes()


def broken(tmp_path):
    """Every kind of file that is no whole picture, with what the message says of it."""
    path = tmp_path / "whole.jpg"
    whole = jpeg(path)
    write_image(tmp_path / "whole.png", np.random.default_rng(0).random((64, 64, 3)))
    whole_png = (tmp_path / "whole.png").read_bytes()
    damaged = bytearray(whole_png)
    damaged[len(damaged) // 2] ^= 255
    return {
        "empty.jpg": (b"", "empty (zero bytes)"),
        "text.jpg": (
            b"<!doctype html>\n<p>Not found",
            "is text, not a picture (it begins '<!doctype",
        ),
        "noise.jpg": (
            bytes(range(256)),
            "no picture of a known format (AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)",
        ),
        "short.jpg": (whole[: len(whole) // 2], "is cut short"),
        "short.png": (whole_png[: len(whole_png) // 2], "is cut short"),
        "damaged.png": (bytes(damaged), "is damaged"),
        "bomb.png": (png(20_000, 20_000), "too many pixels: Image size (400000000 pixels)"),
    }


def test_broken_files_are_told_apart(tmp_path):
    for name, (content, message) in broken(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ImageFileError, match=re.escape(message)) as caught:
            read_image(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_an_error_of_ours(tmp_path):
    whole = jpeg(tmp_path / "whole.jpg")
    path = tmp_path / "cut.jpg"
    for end in range(1, len(whole) - 2, 97):
        path.write_bytes(whole[:end])
        with pytest.raises(ImageFileError):
            read_image(path)


def test_a_large_camera_picture_is_no_bomb(tmp_path):
    # Pillow warns from 89 million pixels on; the pixels are missing, and that is what it says.
    (tmp_path / "a.png").write_bytes(png(10_000, 10_000))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageFileError, match=r"cut short|damaged"):
        read_image(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_raw_numbers_without_a_scale(tmp_path):
    Image.fromarray(np.asarray([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "unit.tif")
    np.testing.assert_allclose(read_image(tmp_path / "unit.tif")[0, :, 0], [0, 0.5, 1])
    Image.fromarray(np.asarray([[-3.0, 900.0]], np.float32)).save(tmp_path / "raw.tif")
    with pytest.raises(ImageFileError, match="raw numbers outside"):
        read_image(tmp_path / "raw.tif")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ImageFileError, match="is a folder, not a picture"):
        read_image(tmp_path)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageFileError, match="it is a folder"):
        write_image(tmp_path / "a.png", photo())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_writing_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "new" / "deep" / "a.png"
    write_image(path, np.zeros((4, 4)))
    write_image(path, np.ones((4, 4)))
    np.testing.assert_array_equal(read_image(path), 1)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    write_image(tmp_path / "a.png", photo())
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "a.png", tmp_path / "file" / "deep" / "a.png"):
        with pytest.raises(OSError, match=r"cannot write .*a\.png: .*file is a file, not a folder"):
            write_image(path, photo())
    assert (tmp_path / "file").read_text() == "in the way"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, np.ones((4, 4)))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_image(path, np.zeros((4, 4)))
    assert caught.value.errno == 28
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(read_image(path), 1)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.gif", photo(), "suffix '.gif' is none of .png"),
        ("a", photo(), "suffix '' is none of"),
        ("a.webp", np.zeros((2, 20_000, 3)), "20000x2 pixels do not fit WEBP"),
        ("a.png", np.ones((1, 4, 4, 3)), r"image\[0\]"),
        ("a.png", np.ones((4, 4, 4)), r"\[h, w, 3\] or \[h, w\]"),
        ("a.png", np.ones((4, 4, 1)), r"image\[\.\.\., 0\]"),
        ("a.png", np.ones((0, 4, 3)), r"\[h, w, 3\] or \[h, w\]"),
        ("a.png", photo() * 255, r"image / 255"),
        ("a.png", photo() * np.nan, "NaN or infinite"),
    ],
)
def test_nothing_is_written_of_a_wrong_picture(tmp_path, name, image, message):
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / "new" / name, image)
    assert not list(tmp_path.iterdir())


def test_integers_are_refused(tmp_path):
    with pytest.raises(TypeError, match="not int32"):
        write_image(tmp_path / "a.png", np.ones((4, 4, 3), np.int32))


def test_list_images_sorts_and_leaves_out_what_is_none(tmp_path):
    for name in ("b.png", "a.JPG", "c.webp"):
        write_image(tmp_path / name, photo())
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "._a.jpg").write_text("")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png", "c.webp"]


def test_list_images_of_nothing(tmp_path):
    with pytest.raises(ImageFileError, match=r"holds no picture .*it is empty"):
        list_images(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ImageFileError, match="2 other entries, among them the folder train"):
        list_images(tmp_path)
    with pytest.raises(ImageFileError, match="is a file, not a folder"):
        list_images(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="did you mean train"):
        list_images(tmp_path / "trian")


# Animations ---------------------------------------------------------------------------


def film(count=3, height=12, width=16):
    return [np.full((height, width, 3), (i + 1) / (count + 1), np.float32) for i in range(count)]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".apng"])
def test_an_animation_has_its_frames_times_and_rounds(tmp_path, suffix):
    path = tmp_path / "new" / f"film{suffix}"
    write_animation(path, iter(film()), seconds_per_frame=0.25)
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.size == (16, 12)
        assert image.info["loop"] == 0
        for i, frame in enumerate(film()):
            image.seek(i)
            np.testing.assert_allclose(np.asarray(image.convert("RGB")) / 255, frame, atol=0.02)
            assert image.info["duration"] == 250
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_gif_that_does_not_loop_says_nothing_of_rounds(tmp_path):
    write_animation(tmp_path / "once.gif", film(), loop=False)
    with Image.open(tmp_path / "once.gif") as image:
        assert "loop" not in image.info
    write_animation(tmp_path / "once.webp", film(), loop=False)
    with Image.open(tmp_path / "once.webp") as image:
        assert image.info["loop"] == 1


@pytest.mark.parametrize(
    ("name", "frames", "options", "says"),
    [
        ("a.mp4", film(), {}, "the suffix '.mp4' is none of .gif"),
        ("a.gif", [], {}, "there is no frame"),
        ("a.gif", [*film(1), *film(1, 5, 5)], {}, "of one size, not 5x5, 16x12"),
        ("a.gif", film(), {"seconds_per_frame": 0.0}, "seconds_per_frame must be"),
        ("a.gif", [np.full((4, 4, 3), np.nan)], {}, "NaN"),
    ],
)
def test_a_film_that_cannot_be_written_leaves_the_old_one(tmp_path, name, frames, options, says):
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=says):
        write_animation(path, frames, **options)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
