# SPDX-License-Identifier: Apache-2.0
"""Which attention runs and over which pairs, and products in float8: by counting, on a clock that a test turns. Of
retake.worker.oscar.backends, .sparse and .fp8."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from retake.core.errors import InputError
from retake.worker.oscar import fp8, sparse
from retake.worker.oscar.sparse import ROWS_PER_TILE, Pattern

torch.set_num_threads(1)
CPU = torch.device("cpu")


# -- pairs ------------------------------------------------------------------------------------------------------------------


def sees(kind: str, reach: int, grid: tuple[int, int, int], query: int, key: int) -> bool:
    """The pattern in words: the given frame is seen by all; then by frames apart and by places or tiles of rows."""
    _, h, w = grid
    (a, p), (b, q) = divmod(query, h * w), divmod(key, h * w)
    if b == 0:
        return True
    if kind == "tile":
        return abs(a - b) <= reach and abs(p // w // ROWS_PER_TILE - q // w // ROWS_PER_TILE) <= reach
    if abs(a - b) <= reach:
        return True
    return abs(p - q) <= h * w / 2 ** (math.floor(math.log2(abs(a - b) / reach)) + 1)


@pytest.mark.parametrize(("kind", "reach", "grid"), [
    ("radial", 1, (9, 4, 4)), ("radial", 2, (9, 2, 8)), ("radial", 3, (7, 3, 5)), ("tile", 1, (4, 20, 2)),
    ("tile", 2, (5, 20, 1)),    ("tile", 1, (1, 13, 3)), ("radial", 1, (2, 3, 3)),
])  # fmt: skip
def test_a_pattern_is_what_its_words_say(kind, reach, grid):
    pattern = Pattern(kind, reach, grid)
    tokens = grid[0] * grid[1] * grid[2]
    places = torch.arange(tokens)
    found = pattern.allowed(places[:, None], places[None, :])
    assert found.tolist() == [[sees(kind, reach, grid, q, k) for k in range(tokens)] for q in range(tokens)]
    assert pattern.density() == pytest.approx(float(found.double().mean()), abs=1e-9)


@pytest.mark.parametrize("kind", sparse.KINDS)
def test_attention_is_over_the_pairs_of_the_pattern(kind):
    pattern = Pattern(kind, 1, (4, 14, 1))
    q, k, v = (torch.randn(2, 56, 3, 4, generator=torch.Generator().manual_seed(n)) for n in range(3))
    found = sparse.attention(q, k, v, pattern)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2
    mask = torch.tensor([[sees(kind, 1, (4, 14, 1), a, b) for b in range(56)] for a in range(56)])
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    assert torch.allclose(found, torch.einsum("bhqk,bkhd->bqhd", weights, v), atol=1e-5)


def test_a_dense_mask_has_a_limit(monkeypatch):
    monkeypatch.setattr(sparse, "DENSE_LIMIT", 8)
    for frames, fine in ((2, True), (3, False)):
        tokens = torch.zeros(1, 4 * frames, 1, 4)
        if fine:
            sparse.attention(tokens, tokens, tokens, Pattern("radial", 1, (frames, 2, 2)))
        else:
            with pytest.raises(InputError, match="of 12 tokens needs a CUDA device; elsewhere up to 8"):
                sparse.attention(tokens, tokens, tokens, Pattern("radial", 1, (frames, 2, 2)))


@pytest.mark.parametrize(("kind", "reach", "fine"), [
    ("radial", 1, True), ("tile", 5, True), ("radial", 0, False), ("radial", True, False), ("tile", 1.0, False),
    ("ring", 1, False),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(kind, reach, fine):
    if fine:
        sparse.check(kind, reach)
    else:
        with pytest.raises(InputError, match="reach is" if kind in sparse.KINDS else "sparse pattern"):
            sparse.check(kind, reach)


@pytest.mark.parametrize("chosen", [None, ("tile", 2)])
def test_the_chosen_pattern_follows_the_size(chosen):
    blocks = [SimpleNamespace(attn1=SimpleNamespace(processor=SimpleNamespace(pattern="old"))) for _ in range(3)]
    sparse.fit(SimpleNamespace(sparse=chosen, transformer_blocks=blocks), (4, 5, 6))
    wanted = None if chosen is None else Pattern("tile", 2, (4, 5, 6))
    assert [block.attn1.processor.pattern for block in blocks] == [wanted] * 3


# -- float8 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-3, 1.0, 500.0])
def test_float8_keeps_every_row_at_its_own_scale(size):
    values = size * torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    values[2] *= 1000
    values[4] = 0
    kept, scale = fp8.quantise(values)
    assert (kept.dtype, scale.shape, scale.dtype) == (torch.float8_e4m3fn, (6, 1), torch.float32)
    back = kept.float() * scale
    assert bool(((back - values).abs() <= values.abs() / 16 + scale / 256).all()), "three bits, or the smallest step"
    largest = kept.float().abs().amax(-1)
    assert largest.tolist() == [fp8.LARGEST] * 4 + [0.0, fp8.LARGEST]
    assert not back[4].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_in_float8_is_nearly_the_layer(dtype):
    layer = nn.Linear(32, 16, bias=False).to(dtype)
    made = fp8.Float8Linear(layer)
    given = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.no_grad():
        found, exact = made(given), layer(given)
    assert (found.shape, found.dtype, made.in_features, made.out_features) == ((2, 5, 16), dtype, 32, 16)
    assert float((found - exact).norm() / exact.norm()) < 0.06
    assert not any(parameter.requires_grad for parameter in made.parameters())


def network(**sizes: int) -> Any:
    """Two blocks of three layers, one of which has a bias, and a layer outside them."""
    width = sizes.get("width", 32)
    blocks = [nn.ModuleDict({"a": nn.Linear(32, width, bias=False), "b": nn.Linear(32, 7), "deep": nn.Sequential(
        nn.Linear(sizes.get("deep", 16), 16, bias=False)
    )}) for _ in range(2)]  # fmt: skip
    model = nn.Module()
    model.transformer_blocks, model.out = nn.ModuleList(blocks), nn.Linear(16, 16, bias=False)
    return model


def test_products_of_the_blocks_are_in_float8_and_no_others():
    model = network()
    assert fp8.multiply_in_float8(model, CPU) == 4
    for block in model.transformer_blocks:
        assert (type(block["a"]), type(block["b"])) == (fp8.Float8Linear, nn.Linear)
        assert type(block["deep"][0]) is fp8.Float8Linear
    assert type(model.out) is nn.Linear
    assert fp8.multiply_in_float8(model, CPU) == 0, "once"


@pytest.mark.parametrize(("sizes", "words"), [({"width": 24}, "a is 32 x 24"), ({"deep": 40}, "0 is 40 x 16")])
def test_widths_that_no_card_multiplies_are_refused(sizes, words):
    with pytest.raises(InputError, match=words):
        fp8.multiply_in_float8(network(**sizes), CPU)


@pytest.mark.parametrize(
    ("found", "fine"), [((8, 9), True), ((9, 0), True), ((12, 0), True), ((8, 8), False), ((7, 9), False)]
)
def test_old_cards_do_not_multiply_in_float8(monkeypatch, found, fine):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found)
    assert fp8.obstacle(CPU) == ""
    told = fp8.obstacle(torch.device("cuda"))
    assert (told == "") == fine
    assert (
        fine or f"compute capability 8.9 or more (Ada, Hopper, Blackwell); this one has {found[0]}.{found[1]}" in told
    )


def test_the_pairs_of_small_grids_are_symmetric_beyond_the_given_frame():
    for kind, reach, grid in itertools.product(sparse.KINDS, (1, 2), ((3, 2, 2), (4, 7, 1))):
        places = torch.arange(grid[1] * grid[2], grid[0] * grid[1] * grid[2])
        found = Pattern(kind, reach, grid).allowed(places[:, None], places[None, :])
        assert torch.equal(found, found.T)
        assert bool(found.diagonal().all())
