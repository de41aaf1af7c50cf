"""Deep, planar, signed and keyed pixels: each file is read right or refused. All made by hand."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from likely.data import read_image
from likely.data.pixels import Unreadable, read_header

RNG = np.random.default_rng(11)
H, W = 5, 7


def tiff(planes: list[np.ndarray], tags: dict[int, tuple[int, ...]], order: str = "<") -> bytes:
    """A TIFF without compression (TIFF 6.0, section 2); each plane [H, W] or [H, W, samples]."""
    height, width = planes[0].shape[:2]
    strips = [plane.tobytes() for plane in planes]
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    fields = {
        256: (width,), 257: (height,), 259: (1,), 273: tuple(offsets), 278: (height,),
        279: tuple(map(len, strips)), **tags,
    }  # fmt: skip
    body = b"".join(strips)
    after = 8 + len(body) + 2 + 12 * len(fields) + 4
    entries, more = b"", b""
    for tag, values in sorted(fields.items()):
        kind, letter = (4, "I") if tag in (254, 273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", after + len(more))
            more += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    start = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(fields))
    return (
        start + struct.pack(f"{order}I", 8 + len(body)) + body + count + entries + bytes(4) + more
    )


def png(rows: np.ndarray, width: int, depth: int, kind: int, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of packed rows, uint8 [H, bytes] (PNG specification, section 5)."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))]
    if key:
        parts.append(chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def read(content: bytes, **options) -> np.ndarray:
    return read_image(io.BytesIO(content), **options).transpose(1, 2, 0).astype(float)


KINDS = [
    # photometric, colour samples, ExtraSamples
    *((photometric, 1, extra) for photometric in (0, 1) for extra in ((), (0,), (1,), (2,))),
    *((2, 3, extra) for extra in ((), (0,), (1,), (2,))),
    (5, 4, ()),
]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_every_kind_of_tiff_is_read_right_or_refused(bits: int, signed: bool, order: str):
    was_read = set()
    top = 2 ** (bits - signed) - 1
    for (photometric, colours, extra), planar in itertools.product(KINDS, (1, 2)):
        samples = colours + len(extra)
        shares = RNG.random((H, W, samples))
        if extra == (1,):  # premultiplied
            shares[..., :-1] *= shares[..., -1:]
        values = np.rint(shares * top)
        shares = values / top
        colour = shares[..., :colours]
        if photometric == 0:
            colour = 1 - colour
        if photometric == 5:
            colour = (1 - colour[..., :3]) * (1 - colour[..., 3:])
        if extra in ((1,), (2,)):
            alpha = shares[..., -1:]
            colour = (colour if extra == (1,) else colour * alpha) + 1 - alpha
        stored = values.astype(f"{order}{'iu'[not signed]}{bits // 8}")
        planes = [stored] if planar == 1 else [stored[..., i].copy() for i in range(samples)]
        tags = {258: (bits,) * samples, 262: (photometric,), 277: (samples,), 284: (planar,)}
        tags |= {339: (2,) * samples} if signed else {}
        content = tiff(planes, tags | ({338: extra} if extra else {}), order)
        try:
            pixels = read(content)
        except Unreadable:
            continue
        assert pixels.shape == colour.shape
        assert np.abs(pixels - 255 * colour).max() <= (1.01 if extra == (1,) else 0.51), tags
        was_read.add((photometric, extra, planar))
    interleaved = {(1, ()), (2, ()), (2, (0,)), (2, (1,)), (2, (2,)), (5, ())}
    if not signed and bits < 32:
        assert {(kind, extra) for kind, extra, planar in was_read if planar == 1} >= interleaved
        assert ((2, (), 2) in was_read) == (bits == 8)
    else:
        assert {kind for kind, _, _ in was_read} <= {0, 1}


def test_signed_pixels_below_zero_are_refused():
    for kind in ("<i1", "<i2", "<i4"):
        values = np.arange(-3, 9).reshape(3, 4).astype(kind)
        tags = {258: (8 * values.itemsize,), 262: (1,), 339: (2,)}
        with pytest.raises(Unreadable, match="pixels from -3 to 8"):
            read(tiff([values], tags))


def test_tiffs_that_would_be_read_silently_wrong_are_refused_by_name():
    values = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
    tags = {258: (8, 8, 8), 262: (6,), 277: (3,)}
    with pytest.raises(Unreadable, match="subsampled YCbCr"):
        read(tiff([values], tags))  # without the tag, chroma is subsampled by two
    with pytest.raises(Unreadable, match="subsampled YCbCr"):
        read(tiff([values], tags | {530: (2, 1)}))
    assert read(tiff([values], tags | {530: (1, 1)})).shape == (H, W, 3)
    with pytest.raises(Unreadable, match="reduced copy"):
        read(tiff([values], {258: (8, 8, 8), 262: (2,), 277: (3,), 254: (1,)}))
    deep = values.astype("<u2")
    with pytest.raises(Unreadable, match=r"separate plane\(s\) of 16 bits"):
        read(
            tiff(
                list(deep.transpose(2, 0, 1).copy()),
                {258: (16,) * 3, 262: (2,), 277: (3,), 284: (2,)},
            )
        )
    with pytest.raises(Unreadable, match="a TIFF with a type of pixels that is not read"):
        read(tiff([deep[..., 0].copy()], {258: (16,), 262: (1,), 339: (3,)}))  # half precision


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_white_at_every_depth(depth: int):
    shades = RNG.integers(0, min(2**depth, 20), (H, W))
    bits = (shades[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(H, W * depth).astype(np.uint8), axis=1)
    for key in {int(shades[2, 3]), int(shades[0, 0]), 2**depth - 1}:
        wanted = np.rint(shades * 255.0 / (2**depth - 1))
        wanted[shades == key] = 255
        pixels = read(png(rows, W, depth, 0, (key,)))
        assert (pixels[..., 0] == wanted).all(), key
        if 1 < depth < 16:  # further bits of a key do not count
            assert (read(png(rows, W, depth, 0, (key + 2**depth,))) == pixels).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_white_where_every_bit_agrees(depth: int):
    colours = RNG.integers(0, 2**depth, (H, W, 3))
    key = tuple(map(int, colours[1, 2]))
    colours[0, 0] = *key[:2], key[2] ^ 1
    rows = colours.astype(f">u{depth // 8}").reshape(H, -1)
    wanted = np.rint(colours * 255.0 / (2**depth - 1))
    wanted[(colours == key).all(2)] = 255
    assert (read(png(rows, W, depth, 2, key)) == wanted).all()


@pytest.mark.parametrize(("kind", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_rounded_in_colour_and_with_alpha(kind: int, samples: int):
    values = RNG.integers(0, 65536, (H, W, samples))
    shares = values / 65535
    wanted = shares[..., :3] if samples > 2 else shares[..., :1]
    if kind != 2:
        wanted = wanted * shares[..., -1:] + 1 - shares[..., -1:]
    content = png(values.astype(">u2").reshape(H, -1), W, 16, kind)
    assert np.abs(read(content) - 255 * wanted).max() <= 0.501
    assert read_header(io.BytesIO(content)).grey == (kind == 4)
    luma = (255 * wanted).mean(2) if kind == 4 else 255 * wanted @ [0.299, 0.587, 0.114]
    assert np.abs(read(content, channels=1)[..., 0] - luma).max() <= 0.51
    square = read(content, size=(H, H))  # cropped in the middle
    assert (square == read(content)[:, 1:6]).all()


def test_sixteen_bit_colour_is_turned_as_its_metadata_says():
    values = RNG.integers(0, 65536, (H, W, 3)).astype("<u2")
    tags = {258: (16,) * 3, 262: (2,), 277: (3,), 274: (6,)}
    wanted = np.rint(values[::-1].swapaxes(0, 1) / 257)  # row 0 of the file is the right side
    assert (read(tiff([values], tags)) == wanted).all()


@pytest.mark.parametrize("top", [1, 3, 100, 254, 255, 256, 1023, 65534, 65535])
def test_the_largest_value_that_a_pnm_announces_is_white(top: int):
    kind = np.uint8 if top < 256 else np.dtype(">u2")
    for letter, shape in (("5", (H, W, 1)), ("6", (H, W, 3))):
        values = RNG.integers(0, top + 1, shape).astype(kind)
        head = f"P{letter}\n{W} {H}\n{top}\n".encode()
        assert np.abs(read(head + values.tobytes()) - values / top * 255).max() <= 0.51


def test_physical_quantities_are_no_shades():
    cards = ("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 3", "END")
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    with pytest.raises(Unreadable, match="not an image"):
        read(header.encode() + bytes(2880))


def test_a_jpeg_2000_of_few_bits_is_refused():
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(stream, "JPEG2000")
    content = bytearray(stream.getvalue())
    assert read(bytes(content)).shape == (16, 16, 1)
    precision = content.index(b"\xff\x4f\xff\x51") + 2 + 40
    assert content[precision] == 7  # bits less one
    content[precision] = 3
    with pytest.raises(Unreadable, match="JPEG 2000 of 4 bits"):
        read(bytes(content))
