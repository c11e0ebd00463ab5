# SPDX-License-Identifier: Apache-2.0
"""What one job leaves in a loaded model must not decide the next: features, adapters, another device, memory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oscar_golden import pipeline, tensors
from test_first_frame_backend import GIB, Own, card  # noqa: F401 - a fixture
from test_oscar_streaming import CPU, forward
from torch import nn

from retake.core.progress import never, silent
from retake.worker import memory
from retake.worker.backends.cosmos_sim import CosmosSimBackend
from retake.worker.first_frame import memory as tiers
from retake.worker.oscar.few_step import Student
from retake.worker.oscar.sampler import Conditions, denoise_few
from retake.worker.oscar.streaming import is_streamed, stream_blocks, unstream_blocks
from retake.worker.tune.config import LoraSettings
from retake.worker.tune.lora import add_adapter, save_adapter


def test_a_student_s_take_begins_with_empty_caches():
    pipe = pipeline()
    pipe.enable_approximation("first-block-cache", threshold=0.999)
    body, golden, calls = pipe.transformer, tensors("dit_forward"), []
    body.transformer_blocks[-1].ff.register_forward_hook(lambda *_: calls.append(1))
    noise = golden["x_B_C_T_H_W"].float()
    with torch.no_grad():
        control = body.embed_control(golden["i2v_WAN2PT1_cond_latents"])
        text = body.project_text(golden["crossattn_emb"])
    given = Conditions(noise[:1], noise[:1, :, :1], control[:1], text[:1], None)
    for takes in (1, 2, 3):
        denoise_few(body, given, Student(1), seed=takes)
        assert len(calls) == takes, "every block of a first step is computed"


def test_adapters_come_and_go_where_blocks_are_streamed(tmp_path: Path) -> None:
    plain, streamed = pipeline(), pipeline()
    streamed.enable_memory_tier("group-offload", "cpu")
    bare = forward(streamed.transformer)
    add_adapter(plain.transformer, LoraSettings(rank=2))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in plain.transformer.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    save_adapter(plain.transformer, tmp_path)
    adapted = forward(plain.transformer)
    assert not torch.allclose(adapted, bare, atol=1e-4)
    changes: list[Any] = [
        lambda: streamed.load_lora_weights(tmp_path), lambda: streamed.fuse_lora(), lambda: streamed.unload_lora_weights(),
    ]  # fmt: skip
    for change in changes:
        change()
        assert is_streamed(streamed.transformer)
        assert torch.allclose(forward(streamed.transformer), adapted, atol=1e-5)


def test_streamed_blocks_go_along_to_another_device() -> None:
    body = nn.Module()
    body.transformer_blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
    weights = [block.weight.detach().clone() for block in body.transformer_blocks]
    stream_blocks(body, CPU)
    first: Any = body._retake_streamer
    stream_blocks(body, CPU)
    assert body._retake_streamer is first
    stream_blocks(body, torch.device("meta"))
    second: Any = body._retake_streamer
    assert second is not first
    assert {value.device.type for place in second._places for value in place.values()} == {"meta"}
    unstream_blocks(body)
    assert all(torch.equal(block.weight, kept) for block, kept in zip(body.transformer_blocks, weights, strict=True))


@pytest.mark.parametrize("free", [20, 12])
def test_a_model_that_plans_for_itself_does_not_count_its_own_memory_against_itself(card, monkeypatch, free):  # noqa: F811
    held = 0
    monkeypatch.setattr(memory, "held_device_bytes", lambda: held)
    card.free = free * GIB
    backend = Own(device="cuda")
    backend.margin_bytes = GIB
    pipe = backend.ready_pipeline()
    card.free, held = (free - 10) * GIB, 10 * GIB  # the model is on the card now
    for _ in range(3):
        backend.use_tier("auto")
        assert backend.ready_pipeline() is pipe
    assert card.applied == [("resident", "cuda")]


@pytest.mark.parametrize("kind", ["picture", "video"])
def test_a_card_that_fills_up_while_a_model_comes_leads_one_tier_down(card, monkeypatch, kind):  # noqa: F811
    def apply(pipe: Any, tier: str, device: str) -> None:
        if tier == "resident":
            raise torch.OutOfMemoryError("somebody took it since the plan")
        card.applied.append((tier, device))

    monkeypatch.setattr(tiers, "apply", apply)
    backend: Any = Own(device="cuda")
    monkeypatch.setattr(backend, "_paint", lambda pipe, *rest: "painted")
    monkeypatch.setattr(backend, "_film", lambda pipe, *rest: "filmed", raising=False)
    for _ in range(2):
        made = backend._paint_in_memory(None, None, 0, never) if kind == "picture" else CosmosSimBackend._in_memory(
            backend, None, {}, [], None, (0, 0), silent, never  # type: ignore[arg-type]
        )  # fmt: skip
        assert made == ("painted" if kind == "picture" else "filmed")
    assert (card.applied, backend.tier) == ([("model-offload", "cuda")], "model-offload")
