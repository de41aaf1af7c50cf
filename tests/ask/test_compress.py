"""Files that give examples back bit for bit, in the bits that the model says."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

import likely
from likely import models
from likely.ask import Guarantee, answers
from likely.ask.codec import container
from likely.ask.codec.codes import NEAR, pop_codes, push_codes, through_posterior
from likely.ask.codec.frequencies import TOTAL, Stack, frequencies, rows
from likely.cli import main
from likely.data.spec import DataSpec
from likely.density import DiagonalGaussian, Fittable, TractableDensity
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.files import atomic
from likely.jobs.compress import compress_file, decompress_file, mosaic, other_coders
from likely.noise import Noise
from likely.sampling.small_first import SmallFirst
from likely.verify import length
from test_conformance import SPECS, built, images

BINARY = DataSpec("bits", (1, 6, 6), 2)
COLOUR = DataSpec("colour", (3, 4, 4), 256)


@pytest.fixture(scope="module")
def nade() -> Fittable:
    return models.NADE(BINARY, hidden=4, seed=0).eval()


def drawn(spec: DataSpec, n: int, seed: int = 0) -> torch.Tensor:
    return (Noise(seed, "drawn").uniform(n, *spec.shape) * spec.levels).to(torch.int64)


# -- integers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 256, 700])
def test_frequencies_are_a_distribution_and_near_the_probabilities(levels: int) -> None:
    draw = np.random.default_rng(levels)
    p = draw.dirichlet(np.full(levels, 0.05), 200)
    p[0], p[1] = np.eye(levels)[1], 1.0 / levels
    with np.errstate(divide="ignore"):
        whole = frequencies(np.log(p))
    assert whole.min() >= 1
    assert (whole.sum(-1) == TOTAL).all()
    assert np.abs(whole / TOTAL - p).max() <= (levels + 1) / TOTAL
    assert np.array_equal(whole, frequencies(np.log(np.maximum(p, 1e-300)) + 7.0))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_distribution_is_refused(wrong: float) -> None:
    with pytest.raises(InvalidData, match="no distribution"):
        frequencies(np.array([wrong, wrong]))


def test_the_coder_uses_these_very_integers() -> None:
    """The state s shows the interval of each level: s becomes f (s >> 24) + s % 2^24 - c."""
    whole = frequencies(np.log(np.random.default_rng(0).dirichlet(np.full(7, 0.1))))[None]
    edges = np.concatenate([[0], np.cumsum(whole[0])])
    for level in range(7):
        for quantile in (edges[level], edges[level + 1] - 1):
            state = int(quantile) + (TOTAL << 20) * 12345
            stack = Stack(np.array([state & 0xFFFFFFFF, state >> 32], np.uint32))
            assert stack.pop(rows(whole)).tolist() == [level]
            left = sum(int(word) << (32 * place) for place, word in enumerate(stack.words))
            assert left == int(whole[0, level]) * (state >> 24) + int(quantile) - int(edges[level])


def test_tables_of_any_memory_order_are_read_right() -> None:
    table = np.asfortranarray(np.log(np.random.default_rng(1).dirichlet(np.ones(3), 50)))
    stack, values = Stack(np.zeros(0)), np.arange(50) % 3
    stack.push(values, rows(frequencies(table)))
    assert np.array_equal(stack.pop(rows(frequencies(table.copy("C")))), values)


def test_codes_follow_their_gaussian_and_cost_its_bits() -> None:
    draw = np.random.default_rng(0)
    words = draw.integers(0, 2**32, 8000, dtype=np.uint32) | np.uint32(1)
    for mean, scale in ((0.0, 1.0), (0.3, 0.05)):
        shape = torch.full((100, 40), mean), torch.full((100, 40), math.log(scale))
        through, stack = through_posterior(DiagonalGaussian(*shape)), Stack(words)
        before = stack.bits
        codes, log_q = pop_codes(stack, NEAR, through)
        bits = float(-log_q.sum() / math.log(2)) + 10 * 4000
        assert before - stack.bits == pytest.approx(bits, rel=2e-3)
        assert float(codes[0].mean()) == pytest.approx(mean, abs=0.05 * scale)
        assert float(codes[0].std()) == pytest.approx(scale, rel=0.05)
        nats = torch.distributions.Normal(mean, scale).log_prob(codes[0].double()).sum(1)
        assert torch.allclose(log_q, nats, rtol=1e-6)
        assert torch.equal(push_codes(stack, codes, NEAR, through), log_q)
        assert np.array_equal(stack.words, words)


def test_codes_cost_what_verify_grants_them() -> None:
    """Where cells are widest, an eighth of the scale: so much is lost, and not for nothing."""
    n, lost = 100 * 400, []
    through = through_posterior(DiagonalGaussian(torch.zeros(100, 400), torch.zeros(100, 400)))
    for seed in range(6):
        draw = np.random.default_rng(seed)
        stack = Stack(draw.integers(0, 2**32, 30_000, dtype=np.uint32) | np.uint32(1))
        before = stack.bits
        _, log_q = pop_codes(stack, NEAR, through)
        lost.append(float(-log_q.sum() / math.log(2)) + 10 * n - (before - stack.bits))
    deviation = length.UNEVEN * math.sqrt(n / 2)  # of reading alone; the state holds whole words
    assert max(lost) < length.EVEN * n + 4 * deviation + length.ENDS / 2
    assert np.mean(lost) > length.EVEN * n / 4


# -- models ----------------------------------------------------------------------------------------

KINDS = ["fvsbn", "made", "pixelcnn", "gated-pixelcnn", "parallel-multiscale", "product-mixture",
         "eonade", "vq-vae", "vae", "hierarchical-vae"]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_comes_back_in_the_bits_that_it_claims(name: str) -> None:
    model = built(name, SPECS["levels"], False)
    x = drawn(SPECS["levels"], 12 if name == "hierarchical-vae" else 60)
    compressed = likely.compress(model, x)
    assert torch.equal(likely.decompress(model, compressed.content).x.long(), x)
    # A block begins with a word, and ends with one that is not full.
    net = compressed.stream - compressed.initial
    assert 31 <= net - compressed.claimed <= 70
    if isinstance(model, TractableDensity):
        log_p = float(-model.log_prob(x).detach().double().sum() / math.log(2))
        assert compressed.claimed == pytest.approx(log_p, rel=1e-5)
    exact = answers(model)["compress"].guarantee is Guarantee.EXACT
    assert exact == isinstance(model, TractableDensity)
    assert (compressed.initial > 0) == (name in ("eonade", "vae", "hierarchical-vae"))


def test_colours_by_a_mixture_of_logistics_in_many_batches() -> None:
    model = models.PixelCNNPP(COLOUR, channels=6, blocks=1, scales=1, components=2, seed=0).eval()
    x = drawn(COLOUR, 7)
    compressed = likely.compress(model, x, block=3)
    assert compressed.blocks == 3
    assert torch.equal(likely.decompress(model, compressed.content).x.long(), x)
    assert compressed.over_claimed < 3 * 70 / compressed.claimed


@pytest.mark.parametrize("name", ["multiscale-pixelcnn", "luma-chroma"])
def test_a_small_image_and_then_the_others_are_coded_pixel_by_pixel(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pass of a whole network for each of them."""

    def whole(*_: object) -> NoReturn:
        raise AssertionError("a pass of the whole network")

    model, x = built(name, COLOUR), drawn(COLOUR, 5)
    log_p = float(-model.log_prob(x).detach().double().sum() / math.log(2))
    monkeypatch.setattr(SmallFirst, "conditionals", whole)
    compressed = likely.compress(model, x, block=2)
    assert torch.equal(likely.decompress(model, compressed.content).x.long(), x)
    assert compressed.claimed == pytest.approx(log_p, rel=1e-5)


def test_a_compiled_program_codes_as_it_draws() -> None:
    """The images of a program that runs compiled, one in the last block."""
    spec = DataSpec("bits", (1, 16, 16), 2)
    model = models.MADE(spec, hidden=20, seed=0).eval()
    x = model.sample(9, seed=1)
    compressed = likely.compress(model, x, block=4)
    assert [e.examples for e in container.read_container(compressed.content, "")[0].blocks] == [
        4,
        4,
        1,
    ]
    assert torch.equal(likely.decompress(model, compressed.content).x.long(), x)


def test_lowest_levels_cost_their_bits_too(nade: Fittable) -> None:
    """To an empty stack they could be pushed without a trace."""
    compressed = likely.compress(nade, torch.zeros(20, *BINARY.shape, dtype=torch.int64))
    assert compressed.stream > compressed.claimed


def test_labels_are_kept() -> None:
    model = built("nade", SPECS["levels"], True)
    x = images(SPECS["levels"])
    with pytest.raises(InvalidSetting, match="conditional on"):
        likely.compress(model, x)
    labels = torch.arange(4) % model.classes
    content = likely.compress(model, x, labels).content
    assert torch.equal(likely.decompress(model, content).x.long(), x)
    other = likely.compress(model, x, labels.flip(0))
    assert other.claimed != likely.compress(model, x, labels).claimed


@pytest.mark.parametrize(
    ("name", "reason"),
    [("dcgan", "no density"), ("rbm", "sum over all other pixels"), ("flow", "real numbers"),
     ("autoencoder", "not a generative model")],
)  # fmt: skip
def test_what_cannot_be_coded_says_why(name: str, reason: str) -> None:
    model = built(name, SPECS["binary"], False)
    with pytest.raises(Unanswerable, match=reason):
        likely.compress(model, images(SPECS["binary"]))
    assert answers(model)["compress"].guarantee is Guarantee.NONE


# -- files -----------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed_and_costs_a_block(nade: Fittable) -> None:
    x = drawn(BINARY, 30)
    content = likely.compress(nade, x, block=10).content
    draw = np.random.default_rng(0)
    header, _ = container.read_container(content, "")
    begin = len(content) - 4 * sum(entry.words for entry in header.blocks)
    for place in [8 * begin + 1, 8 * len(content) - 1, *draw.choice(8 * len(content), 98)]:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        if place // 8 < begin:
            with pytest.raises(InvalidData, match=r"the file, header: .*(damaged|no file|format)"):
                likely.decompress(nade, bytes(flipped))
        else:
            _, blocks = container.read_container(bytes(flipped), "")
            assert [words is None for words in blocks].count(True) == 1
    with pytest.raises(InvalidData, match=r"file: block 3 of 3 \(examples 21 to 30\) is damaged"):
        likely.decompress(nade, content[:-1] + bytes([content[-1] ^ 1]))
    saved = likely.decompress(nade, content[:-1] + bytes([content[-1] ^ 1]), salvage=True)
    assert [(first, last) for _, first, last in saved.damaged] == [(20, 30)]
    assert torch.equal(saved.x[:20].long(), x[:20])
    for cut in (0, 5, 20, begin, len(content) - 1):
        with pytest.raises(InvalidData):
            likely.decompress(nade, content[:cut])


def test_other_weights_and_other_machines_are_refused(
    nade: Fittable, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = likely.compress(nade, drawn(BINARY, 4)).content
    other = models.NADE(BINARY, hidden=4, seed=1).eval()
    with pytest.raises(InvalidSetting, match=r"the file: it was written by NADE with weights \w+,"):
        likely.decompress(other, content)
    facts = container.machine_of(nade)
    monkeypatch.setattr(container, "machine_of", lambda model: {**facts, "torch": "9.9"})
    with pytest.raises(InvalidSetting, match=r"written with torch .* \(here 9.9\), where sums"):
        likely.decompress(nade, content)
    assert torch.equal(likely.decompress(nade, content, anyway=True).x.long(), drawn(BINARY, 4))


def test_examples_that_come_out_otherwise_are_never_given(nade: Fittable) -> None:
    content = likely.compress(nade, drawn(BINARY, 4)).content
    header, words = container.read_container(content, "")
    entry = dataclasses.replace(header.blocks[0], examples_crc=1)
    forged = container.write_container(dataclasses.replace(header, blocks=(entry,)), words)  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match="come out otherwise"):
        likely.decompress(nade, forged)
    entry = dataclasses.replace(header.blocks[0], batches=(3,))
    forged = container.write_container(dataclasses.replace(header, blocks=(entry,)), words)  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match=r"cannot be decoded|come out otherwise"):
        likely.decompress(nade, forged)


def test_a_header_may_not_ask_for_the_machine_s_memory(nade: Fittable) -> None:
    content = likely.compress(nade, drawn(BINARY, 4)).content
    record = json.loads(zlib.decompress(content[16 : 16 + struct.unpack("<I", content[8:12])[0]]))
    record["blocks"][0]["batches"] = [2**30]
    deflated = zlib.compress(json.dumps(record).encode())
    forged = struct.pack("<8sII", content[:8], len(deflated), zlib.crc32(deflated)) + deflated
    with pytest.raises(InvalidData, match="may take"):
        likely.decompress(nade, forged + content[-4 * record["blocks"][0]["words"] :])


def test_no_examples_or_others_are_refused(nade: Fittable) -> None:
    with pytest.raises(InvalidData, match="an empty batch"):
        likely.compress(nade, drawn(BINARY, 1)[:0])
    with pytest.raises(InvalidData, match="shape"):
        likely.compress(nade, torch.zeros(2, 1, 5, 5, dtype=torch.int64))


# -- folders and arrays ----------------------------------------------------------------------------


def test_a_folder_comes_back_with_names_modes_and_pixels(nade: Fittable, tmp_path: Path) -> None:
    x = drawn(BINARY, 5).numpy()[:, 0].astype(np.uint8) * 255
    names = ["b/2.png", "a.png", "b/10.bmp", "c.webp", "d.png"]
    for name, pixels in zip(names, x, strict=True):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        image.convert("1").save(path) if name == "d.png" else image.save(path, lossless=True)
    with pytest.raises(InvalidData, match="mode RGB"):  # WebP has no grey images
        compress_file(nade, tmp_path / "in", tmp_path / "x.likely")
    assert not (tmp_path / "x.likely").exists()
    (tmp_path / "in" / "c.webp").unlink()
    compressed, _ = compress_file(nade, tmp_path / "in", tmp_path / "x.likely")
    assert compressed.examples == 4
    decompress_file(nade, tmp_path / "x.likely", tmp_path / "out")
    for name, pixels in zip(names, x, strict=True):
        if name != "c.webp":
            with Image.open(tmp_path / "out" / name) as image:
                assert image.mode == ("1" if name == "d.png" else "L")
                assert np.array_equal(np.asarray(image.convert("L")), pixels)
    with pytest.raises(InvalidSetting, match="is there already"):
        decompress_file(nade, tmp_path / "x.likely", tmp_path / "out")


def test_folders_that_do_not_fit_are_refused(nade: Fittable, tmp_path: Path) -> None:
    out, folder = tmp_path / "x.likely", tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InvalidData, match="no images"):
        compress_file(nade, folder, out)
    Image.fromarray(np.full((6, 6), 128, np.uint8)).save(folder / "grey.png")
    with pytest.raises(InvalidData, match=r"grey.png: holds a value of 128; .* \[0, 255\]"):
        compress_file(nade, folder, out)
    Image.fromarray(np.zeros((7, 6), np.uint8)).save(folder / "grey.png")
    with pytest.raises(InvalidData, match=r"grey.png: is 6 x 7 of mode L"):
        compress_file(nade, folder, out)
    assert not out.exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_an_array_comes_back_with_type_and_shape(
    nade: Fittable, tmp_path: Path, dtype: type
) -> None:
    array = drawn(BINARY, 3).numpy()[:, 0].astype(dtype)  # [N, H, W]
    np.save(tmp_path / "in.npy", array)
    compress_file(nade, tmp_path / "in.npy", tmp_path / "x.likely")
    decompress_file(nade, tmp_path / "x.likely", tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "in.npy").read_bytes()


def test_a_split_of_the_run_s_data_comes_back_as_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = likely.data.load("digits")
    model = models.NADE(train.spec, hidden=4)
    likely.fit(model, train, settings=likely.FitSettings(steps=1, batch_size=8), out="nade")
    assert main(["compress", "nade", "test", "-o", "x.likely", "--alone"]) == 0
    assert main(["decompress", "x.likely", "-o", "out.npy"]) == 0
    out = np.load("out.npy")
    assert out.dtype == np.uint8
    assert np.array_equal(out, test.batch(slice(0, len(test))).x)
    Path("test").mkdir()  # what lies there comes first
    assert main(["compress", "nade", "test", "-o", "y.likely"]) == 2


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "a\\x.png", ""])
def test_names_stay_in_their_folder(nade: Fittable, tmp_path: Path, name: str) -> None:
    about = {"kind": "folder", "names": [name], "mode": "L", "run": ""}
    content = likely.compress(nade, drawn(BINARY, 1), about=about).content
    (tmp_path / "x.likely").write_bytes(content)
    with pytest.raises(InvalidData, match=r"x.likely, header: .* is no name"):
        decompress_file(nade, tmp_path / "x.likely", tmp_path / "out")
    assert not list(tmp_path.rglob("*.png"))


def test_what_is_stopped_in_the_middle_leaves_what_was_there(
    nade: Fittable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "in.npy", drawn(BINARY, 3).numpy())
    out = tmp_path / "x.likely"
    compress_file(nade, tmp_path / "in.npy", out)
    before = out.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(likely.LikelyError, match="No space left"):
        compress_file(nade, tmp_path / "in.npy", out)
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", "x.likely"}


def test_other_coders_are_measured_on_the_same_images() -> None:
    x = drawn(BINARY, 10).numpy()
    sizes = other_coders(x, 2)
    assert {"xz", "bz2", "PNG", "WebP"} <= set(sizes)
    whole = mosaic((x * 255).astype(np.uint8))
    assert whole.shape == (24, 18, 1)
    assert np.array_equal(whole[6:12, 12:18, 0], x[5, 0] * 255)
