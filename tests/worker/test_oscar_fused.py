# SPDX-License-Identifier: Apache-2.0
"""The fused operations against their definition, through both bodies: plain torch, and the Triton kernels of
retake.worker.oscar.triton_kernels, program by program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pretend_triton
import pytest
import torch
from torch.nn import functional

from retake.core.errors import InputError
from retake.worker.oscar import fused
from retake.worker.oscar.costs import meta_transformer

CPU = torch.device("cpu")
torch.set_num_threads(1)
SHAPES = [(1, 1, 1, 2), (2, 3, 4, 12), (2, 2, 3, 33), (1, 5, 2, 64)]
"""Batch, latent frames, tokens of one, width."""
HEADS = [(1, 1, 1, 2), (2, 3, 2, 6), (1, 4, 3, 10), (2, 5, 1, 16)]
"""Batch, tokens, heads, dimension of one."""
KINDS = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(params=["plain", "triton"])
def body(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the operations run on here."""
    monkeypatch.setitem(fused._chosen, "cpu", "plain")
    if request.param == "triton":
        pretend_triton.install(monkeypatch)
    fused.use_bodies("cpu", request.param)
    assert fused.bodies("cpu") == request.param
    return request.param


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def by_frame(vectors: torch.Tensor, each: int) -> torch.Tensor:
    return vectors.repeat_interleave(each, dim=1).double()


def normed(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, each: int) -> torch.Tensor:
    wide = functional.layer_norm(x.double(), x.shape[-1:], eps=fused.NORM_EPS)
    return wide * (1 + by_frame(scale, each)) + by_frame(shift, each)


def close(found: torch.Tensor, wanted: torch.Tensor, kind: torch.dtype) -> None:
    assert found.dtype == kind
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), wanted, atol=KINDS[kind] * 4, rtol=KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gate_and_norm_by_frames_are_their_definitions(body, shape, kind):
    batch, frames, each, width = shape
    x, update = (drawn(batch, frames * each, width, seed=k).to(kind) for k in (1, 2))
    # as the model hands them over: parts of one tensor, so that rows lie further apart than they are wide
    gate, shift, scale = drawn(batch, frames, 3 * width).chunk(3, dim=-1)
    before = [one.clone() for one in (x, update, gate, shift, scale)]
    wanted = x.double() + by_frame(gate, each) * update.double()
    close(fused.gate(x, update, gate), wanted, kind)
    close(fused.norm_modulate(x, shift, scale), normed(x, shift, scale, each), kind)
    total, out = fused.gate_norm_modulate(x, update, gate, shift, scale)
    close(total, wanted, kind)
    close(out, normed(total, shift, scale, each), kind)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, update, gate, shift, scale), strict=True)), "inputs stay"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("rotated", [True, False])
def test_heads_are_normed_and_turned(body, shape, kind, rotated):
    batch, tokens, heads, dim = shape
    # queries are a part of Q, K and V beside each other
    x = drawn(batch, tokens, 3 * heads * dim).to(kind)[..., : heads * dim].unflatten(-1, (heads, dim))
    weight = 1 + drawn(dim).to(kind) / 4
    cos, sin = (drawn(tokens, 1, dim, seed=k) for k in (3, 4))
    wide = x.double()
    wanted = wide / (wide.square().mean(-1, keepdim=True) + fused.NORM_EPS).sqrt() * weight.double()
    if rotated:
        wanted = wanted.to(kind).double()
        first, second = wanted.chunk(2, dim=-1)
        wanted = wanted * cos.double() + torch.cat([-second, first], -1) * sin.double()
    close(fused.norm_rope(x, weight, cos if rotated else None, sin if rotated else None), wanted, kind)


def test_all_operations_agree_with_their_formulas(body):
    for kind in KINDS:
        assert fused.disagreement(CPU, kind) == ""


@pytest.mark.parametrize("name", ["gate_norm_modulate", "norm_rope"])
def test_a_kernel_that_is_off_or_does_not_run_is_found_out(monkeypatch, name):
    pretend_triton.install(monkeypatch)
    monkeypatch.setitem(fused._chosen, "cpu", "triton")
    from retake.worker.oscar import triton_kernels

    kernel: Callable[..., Any] = getattr(triton_kernels, name)

    def off(*given: Any) -> Any:
        found = kernel(*given)
        return found + 1e-3 if name == "norm_rope" else tuple(part + 1e-3 for part in found)

    monkeypatch.setattr(triton_kernels, name, off)
    assert "is off by" in fused.disagreement(CPU, torch.float32)
    assert fused.disagreement(CPU, torch.bfloat16) == "", "that much is less than what bfloat16 tells apart"

    def nan(*given: Any) -> Any:
        found = kernel(*given)
        return found * float("nan") if name == "norm_rope" else tuple(part * float("nan") for part in found)

    monkeypatch.setattr(triton_kernels, name, nan)
    assert "is off by nan" in fused.disagreement(CPU, torch.float32)

    def broken(*given: Any) -> Any:
        raise RuntimeError("no driver\nand more of it")

    monkeypatch.setattr(triton_kernels, name, broken)
    assert fused.disagreement(CPU, torch.float32).endswith("does not run on cpu: RuntimeError: no driver")


def test_what_runs_where_nothing_was_chosen(monkeypatch):
    monkeypatch.setattr(fused, "_chosen", {})
    assert fused.bodies("cpu") == "plain"
    with monkeypatch.context() as installed:
        pretend_triton.install(installed)
        assert (fused.bodies("cuda"), fused.bodies("cpu")) == ("triton", "plain")
    monkeypatch.setattr(fused.importlib.util, "find_spec", lambda name: None)
    assert fused.bodies("cuda") == "compiled"
    with pytest.raises(InputError, match="need the package triton"):
        fused.use_bodies("cuda", "triton")
    fused.use_bodies("cuda", "plain")
    assert (fused.bodies("cuda"), fused.bodies("cpu")) == ("plain", "plain")


def small() -> torch.nn.Module:
    config = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32, "text_embed_dim": 32,
              "crossattn_proj_in_channels": 48, "adaln_lora_dim": 8}  # fmt: skip
    model = meta_transformer(config, torch.float32).to_empty(device="cpu")
    for k, parameter in enumerate(model.parameters()):
        parameter.data = drawn(*parameter.shape, seed=k)
    return model


def test_projections_are_joined_in_order_and_come_back_as_they_were():
    model = small()
    model.transformer_blocks[0].attn1.requires_grad_(False)
    for part in ("to_k", "to_v"):
        getattr(model.transformer_blocks[1].attn1, part).requires_grad_(False)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    assert fused.unjoinable(model) == ""
    for _ in range(2):  # twice is once
        fused.set_kernels(model, "fused")
        for number, block in enumerate(model.transformer_blocks):
            own = f"transformer_blocks.{number}."
            for attention, joined, parts in (("attn1", "to_qkv", "qkv"), ("attn2", "to_kv", "kv")):
                layer = getattr(getattr(block, attention), joined)
                wanted = torch.cat([before[f"{own}{attention}.to_{part}.weight"] for part in parts])
                assert torch.equal(layer.weight, wanted)
                assert (layer.in_features, layer.out_features, layer.bias) == (wanted.shape[1], wanted.shape[0], None)
                assert not any(hasattr(getattr(block, attention), f"to_{part}") for part in parts)
            assert block.fused
    assert [block.attn1.to_qkv.weight.requires_grad for block in model.transformer_blocks] == [False, True]
    assert fused.unjoinable(model) == ""
    for _ in range(2):
        fused.set_kernels(model, "reference")
        after = dict(model.named_parameters())
        assert set(after) == set(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert not any(block.fused for block in model.transformer_blocks)
    assert not model.transformer_blocks[0].attn1.to_q.weight.requires_grad


def test_layers_that_are_no_plain_ones_are_not_joined_and_changed_ones_not_split():
    class Changed(torch.nn.Linear):
        """What an adapter or a quantiser puts in a layer's place."""

    model = small()
    last = model.transformer_blocks[1].attn2
    last.to_v = Changed(16, 16, bias=False)
    with pytest.raises(InputError, match="which are Changed layers here"):
        fused.set_kernels(model, "fused")
    assert not any(hasattr(block.attn1, "to_qkv") for block in model.transformer_blocks), "nothing was begun"
    with pytest.raises(InputError, match="valid: fused, reference"):
        fused.set_kernels(model, "quick")
    model = small()
    fused.set_kernels(model, "fused")
    whole = model.transformer_blocks[1].attn2.to_kv
    model.transformer_blocks[1].attn2.to_kv = Changed(whole.in_features, whole.out_features, bias=False)
    with pytest.raises(InputError, match="changed by an approximate mode"):
        fused.set_kernels(model, "reference")
