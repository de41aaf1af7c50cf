"""Folders of images: every file is read right or named. The odd files are made here."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from likely.data import from_folder, load, read_image
from likely.data.loading import SkippedFiles
from likely.data.pixels import Unreadable, read_header
from likely.errors import InvalidData, InvalidSetting

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG written by hand (PNG specification, section 5), so that Pillow did not make it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    parts = [chunk(c[:4], c[4:]) for c in chunks]
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + data + chunk(b"IEND", b"")


def scanlines(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def encoded(kind: str, mode: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(stream, kind)
    return stream.getvalue()


SEEDS = [
    encoded(*kind_and_mode.split())
    for kind_and_mode in (
        *("PNG RGB", "PNG P", "PNG 1", "PNG RGBA", "JPEG RGB", "JPEG CMYK", "GIF P", "BMP RGB"),
        *("TIFF RGB", "TIFF I;16", "TIFF F", "TIFF CMYK", "WEBP RGBA", "PPM RGB", "PPM L"),
        *("TGA RGBA", "PCX P", "ICO RGBA", "SGI RGB", "DDS RGBA", "QOI RGB"),
    )
]


# One file


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "tga"])
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, suffix: str):
    options = {"lossless": True} if suffix == "webp" else {}
    file = write(tmp_path / f"a.{suffix}", COLOUR, **options)
    assert (read_image(file) == COLOUR.transpose(2, 0, 1)).all()


def test_grey_and_colour_are_kept_or_converted(tmp_path: Path):
    grey, colour = write(tmp_path / "g.png", GREY), write(tmp_path / "c.png", COLOUR)
    assert (read_image(grey) == GREY[None]).all()
    assert (read_image(grey, channels=3) == np.stack([GREY] * 3)).all()
    luma = COLOUR @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert np.abs(read_image(colour, channels=1)[0] - luma).max() <= 1
    assert read_header(grey).grey
    assert not read_header(colour).grey


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path):
    deep = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
    deep[0, :3] = 0, 65535, 256
    wanted = np.rint(deep / 257).astype(np.uint8)  # 65535 / 255
    by_hand = tmp_path / "hand.png"
    by_hand.write_bytes(png(9, 6, 16, 0, scanlines(deep.astype(">u2"))))
    assert (read_image(by_hand)[0] == wanted).all()
    assert (read_image(write(tmp_path / "a.tif", deep))[0] == wanted).all()
    pgm = tmp_path / "a.pgm"
    pgm.write_bytes(b"P5\n9 6\n65535\n" + deep.astype(">u2").tobytes())
    assert (read_image(pgm)[0] == wanted).all()
    small = deep % 1024
    pgm.write_bytes(b"P5\n9 6\n1023\n" + small.astype(">u2").tobytes())  # ten bits
    assert np.abs(read_image(pgm)[0] - small / 1023 * 255).max() <= 0.51
    rgb = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
    by_hand.write_bytes(png(9, 6, 16, 2, scanlines(rgb.astype(">u2"))))
    assert np.abs(read_image(by_hand) - (rgb / 257).transpose(2, 0, 1)).max() <= 1


def test_white_is_zero_and_32_bits_are_understood(tmp_path: Path):
    deep = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
    file = write(tmp_path / "a.tif", deep, tiffinfo={262: 0})  # WhiteIsZero
    assert np.abs(read_image(file)[0] - (255 - deep / 257)).max() <= 0.51
    wide = RNG.integers(0, 2**31, (6, 9), dtype=np.int64).astype(np.int32)
    file = write(tmp_path / "b.tif", wide)
    assert np.abs(read_image(file)[0] - wide / (2**31 - 1) * 255).max() <= 0.51
    unsigned = RNG.integers(0, 2**32, (6, 9), dtype=np.uint32)
    file = write(tmp_path / "c.tif", unsigned.view(np.int32))
    sample_format = struct.Struct("<HHIHH")  # tag, SHORT, one value, that value
    signed = sample_format.pack(339, 3, 1, 2, 0)
    assert file.read_bytes().count(signed) == 1
    file.write_bytes(file.read_bytes().replace(signed, sample_format.pack(339, 3, 1, 1, 0)))
    assert np.abs(read_image(file)[0] - unsigned / (2**32 - 1) * 255).max() <= 0.51


def test_floating_point_pixels_are_intensities_or_refused(tmp_path: Path):
    shades = RNG.random((6, 9), dtype=np.float32)
    file = write(tmp_path / "a.tif", shades)
    assert np.abs(read_image(file)[0] - shades * 255).max() <= 0.51
    with pytest.raises(Unreadable, match=r"pixels from .* to 2"):
        read_image(write(tmp_path / "b.tif", np.full((3, 3), 2, np.float32)))
    with pytest.raises(Unreadable, match="not finite"):
        read_image(write(tmp_path / "c.tif", np.full((3, 3), np.nan, np.float32)))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_are_stretched_to_the_whole_range(tmp_path: Path, depth: int):
    shades = RNG.integers(0, 2**depth, (5, 8), dtype=np.uint8)
    bits = (shades[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint8)) & 1
    rows = np.packbits(bits.reshape(5, 8 * depth), axis=1)
    file = tmp_path / "a.png"
    file.write_bytes(png(8, 5, depth, 0, scanlines(rows)))
    assert (read_image(file)[0] == shades.astype(int) * 255 // (2**depth - 1)).all()


def test_transparency_lies_over_white(tmp_path: Path):
    alpha = RNG.integers(0, 256, (6, 9, 1), dtype=np.uint8)
    a = alpha / 255
    file = write(tmp_path / "rgba.png", np.concatenate([COLOUR, alpha], 2))
    wanted = COLOUR * a + 255 * (1 - a)
    assert np.abs(read_image(file) - wanted.transpose(2, 0, 1)).max() <= 1
    file = write(tmp_path / "la.png", np.concatenate([GREY[..., None], alpha], 2))
    assert read_header(file).grey
    assert np.abs(read_image(file) - (GREY * a[..., 0] + 255 * (1 - a[..., 0]))).max() <= 1


def test_a_transparent_colour_lies_over_white(tmp_path: Path):
    palette = RNG.integers(0, 255, (16, 3), dtype=np.uint8)
    index = RNG.integers(0, 16, (6, 9), dtype=np.uint8)
    opacity = bytes(range(0, 256, 17))
    body = scanlines(index), b"PLTE" + palette.tobytes(), b"tRNS" + opacity
    file = tmp_path / "p.png"
    file.write_bytes(png(9, 6, 8, 3, *body))
    a = (np.arange(16) * 17 / 255)[index][..., None]
    wanted = palette[index] * a + 255 * (1 - a)
    assert np.abs(read_image(file) - wanted.transpose(2, 0, 1)).max() <= 1
    deep = np.array([[0, 1000, 65535], [1000, 40000, 7]], ">u2")
    file.write_bytes(png(3, 2, 16, 0, scanlines(deep), b"tRNS" + struct.pack(">H", 1000)))
    assert read_image(file)[0].tolist() == [[0, 255, 255], [255, 156, 0]]


def test_a_palette_of_greys_is_grey(tmp_path: Path):
    index = np.arange(16, dtype=np.uint8).reshape(4, 4)
    greys = np.repeat(np.arange(0, 256, 17, dtype=np.uint8), 3)
    file = tmp_path / "p.png"
    file.write_bytes(png(4, 4, 8, 3, scanlines(index), b"PLTE" + greys.tobytes()))
    assert read_header(file).grey
    assert (read_image(file)[0] == index * 17).all()
    greys[5] ^= 1
    file.write_bytes(png(4, 4, 8, 3, scanlines(index), b"PLTE" + greys.tobytes()))
    assert not read_header(file).grey


def test_cmyk_is_the_product_of_the_inks(tmp_path: Path):
    inks = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    light = 1 - inks / 255
    wanted = 255 * light[..., :3] * light[..., 3:]
    assert np.abs(read_image(tmp_path / "a.tif") - wanted.transpose(2, 0, 1)).max() <= 1


def test_lab_is_neutral_where_a_and_b_are_zero(tmp_path: Path):
    lab = np.zeros((2, 3, 3), np.uint8)
    lab[..., 0] = [[0, 128, 255]] * 2
    Image.fromarray(lab, "LAB").save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif").astype(int)
    assert np.ptp(pixels, axis=0).max() <= 3
    assert pixels[0, 0, 0] <= 3
    assert pixels[0, 0, 2] >= 252


TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: x[::-1].T,
    7: lambda x: x[::-1, ::-1].T,
    8: lambda x: x[:, ::-1].T,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_the_orientation_of_the_metadata_is_applied(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = write(tmp_path / "a.png", GREY, exif=exif)
    # EXIF 2.3, tag 274: what row 0 and column 0 of the stored image are
    assert (read_image(file)[0] == TURNS[orientation](GREY)).all()


def test_damaged_metadata_does_not_cost_the_pixels(tmp_path: Path):
    file = write(tmp_path / "a.png", GREY, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert (read_image(file)[0] == GREY).all()


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path):
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200, 90)]
    for suffix in ("gif", "png", "webp"):
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
        assert (read_image(tmp_path / f"a.{suffix}") == 10).all()


def test_the_centre_is_cropped_and_whole_pixels_are_kept(tmp_path: Path):
    file = write(tmp_path / "a.png", COLOUR)  # 6 rows, 9 columns
    assert (read_image(file, (6, 6)) == COLOUR[:, 1:7].transpose(2, 0, 1)).all()
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (60, 1))
    halved = read_image(write(tmp_path / "b.png", ramp), (30, 30))[0]
    middle = ramp[0, 30:90].reshape(30, 2).mean(1)
    assert np.abs(halved[:, 2:-2] - middle[2:-2]).max() <= 1
    assert read_image(write(tmp_path / "c.png", GREY[:1, :1]), (4, 4)).tolist() == [
        [[int(GREY[0, 0])] * 4] * 4
    ]


def test_a_large_photograph_is_shrunk_as_an_independent_mean_says(tmp_path: Path):
    y, x = np.mgrid[0:800, 0:800] / 800
    smooth = np.stack([255 * x, 255 * y, 255 * (1 - x)], 2).astype(np.uint8)
    file = write(tmp_path / "a.jpg", smooth, quality=95)
    small = read_image(file, (16, 16))
    mean = smooth.reshape(16, 50, 16, 50, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(small[:, 1:-1, 1:-1] - mean[:, 1:-1, 1:-1]).max() <= 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"not an image", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (png(0, 5, 8, 0, b""), "not an image|0 x 5"),
        (png(5, 5, 8, 0, scanlines(np.zeros((5, 5), np.uint8)))[:-20], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    ],
)
def test_what_is_no_image_is_named_with_a_reason(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        read_image(file)


def test_a_file_that_is_no_regular_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


def bomb() -> bytes:
    """100 million pixels in 100 kB."""
    return png(10_000, 10_000, 8, 0, bytes(10_001) * 10_000)


def test_a_bomb_is_refused_before_memory_is_given_to_it(tmp_path: Path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(Unreadable, match="10000 x 10000 pixels, more than the limit of 67108864"):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(Unreadable, match="more than the limit of 10"):
        read_image(write(tmp_path / "a.png", GREY), max_pixels=10)


def test_where_memory_ends_the_file_is_named(tmp_path: Path):
    """A process that may take 300 MB more is offered 400 MB of pixels, limit lifted."""
    (tmp_path / "bomb.png").write_bytes(bomb())
    program = f"""
import resource
from pathlib import Path
from PIL import Image
from likely.data.pixels import Unreadable, read_image
Image.init()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, -1))
try:
    read_image(Path({str(tmp_path / "bomb.png")!r}), channels=3, max_pixels=10**9)
except Unreadable as error:
    print(error)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "memory" in out.stdout


# Folders


def folder_of(path: Path, values: dict[str, int], side: int = 8) -> Path:
    for name, value in values.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        write(path / name, np.full((side, side), value, np.uint8))
    return path


def values_of(*parts) -> list[int]:
    return sorted(int(v) for part in parts for v in part.values[:, 0, 0, 0])


def test_a_folder_is_read_with_labels_from_its_sub_folders(tmp_path: Path):
    names = {
        f"{kind}/deep/{i}.png": 10 * i + (kind == "dog")
        for i in range(9)
        for kind in ("cat", "dog")
    }
    folder = folder_of(tmp_path / "pets", names)
    train, test, report = from_folder(folder)
    assert train.spec.name == "pets"
    assert train.spec.classes == ("cat", "dog")
    assert train.spec.shape == (1, 8, 8)
    assert train.spec.levels == 256
    assert isinstance(train.values, np.memmap)
    assert values_of(train, train.validation, test) == sorted(names.values())
    for part in (train, train.validation, test):
        assert (part.labels == part.values[:, 0, 0, 0] % 10).all()
        assert [names[path.decode()] for path in part.origins] == part.values[:, 0, 0, 0].tolist()
        assert part.take(slice(1, 2)).origins.tolist() == part.origins[1:2].tolist()
    assert report.read == 18
    assert report.skipped == ()


def test_sub_folders_called_train_and_test_are_the_splits(tmp_path: Path):
    names = {f"train/{k}/{i}.png": i for i in range(6) for k in "ab"}
    names |= {f"test/{k}/{i}.png": 100 + i for i in range(2) for k in "ab"}
    train, test, _ = from_folder(folder_of(tmp_path / "set", names))
    assert values_of(test) == [100, 100, 101, 101]
    assert values_of(train, train.validation) == sorted(list(range(6)) * 2)
    assert train.spec.classes == test.spec.classes == ("a", "b")
    assert test.labels.tolist() == [0, 0, 1, 1]
    folder_of(tmp_path / "set", {"valid/a/1.png": 70, "valid/b/1.png": 71})
    train, test, _ = from_folder(tmp_path / "set")
    assert values_of(train.validation) == [70, 71]
    assert values_of(train) == sorted(list(range(6)) * 2)


def test_a_name_that_is_no_utf_8_can_be_read_and_printed(tmp_path: Path):
    folder = folder_of(tmp_path / "f", {f"{i}.png": i for i in range(4)})
    try:
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "3.png").read_bytes())
        (folder / os.fsdecode(b"th\xe9.png")).write_text("text")
    except OSError:
        pytest.skip("this file system allows no such names")
    report = from_folder(folder).report
    assert report.read == 5
    assert str(report).encode("utf-8").count(b"th\\xe9.png") == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_give_an_image_or_a_reason(choices):
    """Whatever bytes are changed, cut or put in, nothing else ever leaves."""
    content = bytearray(choices.draw(st.sampled_from(SEEDS)))
    for _ in range(choices.draw(st.integers(1, 4))):
        position = choices.draw(st.integers(0, len(content) - 1))
        content[position] = choices.draw(st.integers(0, 255))
    content = content[: choices.draw(st.integers(1, len(content)))]
    try:
        pixels = read_image(io.BytesIO(bytes(content)), (8, 8), 3)
    except Unreadable as error:
        outcome = str(error)
    else:
        outcome = f"{pixels.dtype}{pixels.shape}"
    assert outcome
    assert not outcome.startswith("uint8") or outcome == "uint8(3, 8, 8)"


def test_files_beside_the_classes_mean_no_labels(tmp_path: Path):
    folder = folder_of(tmp_path / "f", {"a/1.png": 1, "b/2.png": 2, "3.png": 3})
    assert from_folder(folder).train.labels is None


def test_what_cannot_be_read_is_skipped_and_named_or_refused(tmp_path: Path):
    folder = folder_of(tmp_path / "f", {f"{i}.png": i for i in range(5)})
    (folder / "notes.txt").write_text("about these")
    (folder / ".hidden.png").write_text("not looked at")
    (folder / "odd.png").write_text("text")
    whole = (folder / "4.png").read_bytes()
    (folder / "x.png").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InvalidData, match=r"1 file\(s\) cannot be read: odd\.png: not an image"):
        from_folder(folder, strict=True)  # stops at the headers, before any pixel is decoded
    report = from_folder(folder).report
    assert [s.path for s in report.skipped] == ["odd.png", "x.png"]
    assert (report.read, report.ignored) == (5, 1)
    assert "skipped odd.png: not an image" in str(report)
    assert from_folder(folder).report == report  # from the cache too
    with pytest.raises(InvalidData, match=r"2 file\(s\) cannot be read: odd\.png: .*; x\.png: "):
        from_folder(folder, strict=True)
    (folder / "odd.png").unlink()
    with pytest.raises(InvalidData, match=r"1 file\(s\) cannot be read: x\.png: "):
        from_folder(folder, strict=True)
    write(folder / "odd.png", GREY)
    (folder / "x.png").unlink()
    assert len(from_folder(folder, strict=True).report.skipped) == 0
    (folder / "odd.png").write_text("text")
    with pytest.warns(SkippedFiles, match="odd.png"):
        load(folder)


def test_folders_without_enough_images_are_refused(tmp_path: Path):
    with pytest.raises(InvalidData, match="is not a folder"):
        from_folder(tmp_path / "none")
    (tmp_path / "f").mkdir()
    with pytest.raises(InvalidData, match="holds no image"):
        load(tmp_path / "f")
    (tmp_path / "f" / "a.png").write_text("text")
    with pytest.raises(InvalidData, match=r"none of 1 files .*a\.png: not an image"):
        from_folder(tmp_path / "f")
    folder_of(tmp_path / "f", {"1.png": 1, "2.png": 2})
    with pytest.raises(InvalidData, match=r"2 readable example\(s\); at least 3"):
        from_folder(tmp_path / "f")
    folder_of(tmp_path / "f", {"3.png": 3})
    train, test, _ = from_folder(tmp_path / "f")
    assert values_of(train, train.validation, test) == [1, 2, 3]


@pytest.mark.parametrize(("sides", "wanted"), [((5, 9, 70), 8), ((28, 30), 28), ((50, 90), 64)])
def test_the_default_size_is_the_preset_nearest_to_the_median(tmp_path: Path, sides, wanted: int):
    for i, side in enumerate(sides):
        folder_of(tmp_path, {f"{i}/{j}.png": j for j in range(2)}, side)
    assert from_folder(tmp_path).train.spec.shape == (1, wanted, wanted)


def test_the_shorter_side_counts_for_the_default_size(tmp_path: Path):
    for i in range(3):
        write(tmp_path / f"{i}.png", np.zeros((200, 29), np.uint8))
    assert from_folder(tmp_path).train.spec.shape == (1, 28, 28)


def test_one_colour_image_makes_the_set_colour(tmp_path: Path):
    folder = folder_of(tmp_path / "f", {f"{i}.png": i for i in range(4)})
    assert from_folder(folder).train.spec.shape[0] == 1
    write(folder / "c.png", COLOUR)
    assert from_folder(folder).train.spec.shape[0] == 3
    assert from_folder(folder, channels=1, size=(4, 5)).train.spec.shape == (1, 4, 5)


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"size": 0}, {"size": (3, 9999)}])
def test_impossible_shapes_are_refused(tmp_path: Path, wrong):
    with pytest.raises(InvalidSetting):
        from_folder(folder_of(tmp_path / "f", {"1.png": 1}), **wrong)


def test_a_changed_file_or_setting_is_noticed_and_otherwise_nothing_is_decoded(
    tmp_path: Path, monkeypatch
):
    folder = folder_of(tmp_path / "f", {f"{i}.png": i for i in range(6)})
    first = from_folder(folder)
    calls = []
    assert (
        from_folder(folder, progress=lambda *call: calls.append(call)).train.spec
        == first.train.spec
    )
    assert calls == []
    folder_of(folder, {"3.png": 33})
    changed = from_folder(folder, progress=lambda *call: calls.append(call))
    assert values_of(changed.train, changed.train.validation, changed.test) == [0, 1, 2, 4, 5, 33]
    assert calls == [("decode", 6, 6)]
    assert from_folder(folder, size=9).train.spec.fingerprint != changed.train.spec.fingerprint


def test_settings_of_load_apply_to_folders(tmp_path: Path):
    folder = folder_of(tmp_path / "f", {f"{i}.png": 40 * i for i in range(6)})
    train, test = load(folder, levels=4, size=5)
    assert train.spec.shape == (1, 5, 5)
    parts = (train, train.validation, test)
    assert values_of(*parts) == [40 * i * 4 // 256 for i in range(6)]
    train, _ = load(folder, binarize="dynamic")
    assert set(np.unique(train.batch(slice(None)).x)) <= {0, 1}


def test_an_image_in_memory_is_read_too():
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "PNG")
    assert (read_image(stream) == GREY[None]).all()
