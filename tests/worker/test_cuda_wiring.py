# SPDX-License-Identifier: Apache-2.0
"""The wiring around the models on a pretended CUDA machine: right card, right dtype, no mixed devices, and copies and waits
within stated budgets, over tiers, options and backends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oscar_golden import converted, golden_call, pipeline, pixels, text_pipeline
from pretend_cuda import GIB, machine

from retake.worker import memory
from retake.worker.backends.oscar import OscarBackend
from retake.worker.oscar import OscarPipeline
from retake.worker.oscar.tiers import TIERS

sys.path.insert(0, str(Path(__file__).parent.parent))
NAMES = [tier.name for tier in TIERS]
SMALL = {"num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 2}

WAITS_PER_STEP = 1
"""The host waits once per step, where the solver's 2 x 2 system is checked; a preview costs one more."""
COPIES_PER_STEP = 0


def small(**changes: Any) -> dict[str, Any]:
    return golden_call(**{**SMALL, "skeleton": pixels()["skeleton"][:5], **changes})


def weights(*modules: Any) -> int:
    return sum(p.numel() * p.element_size() for m in modules for p in (*m.parameters(), *m.buffers()))


def on_card(monkeypatch: Any, tier: str, device: str = "cuda", dtype: Any = torch.float32, **more: Any) -> Any:
    pipe = pipeline(torch_dtype=dtype)
    pipe.enable_memory_tier(tier, device)
    return pipe


@pytest.mark.parametrize("tier", NAMES)
def test_every_tier_stays_on_its_card_and_within_its_budget(monkeypatch, tier):
    expected = pipeline()
    expected.enable_memory_tier("group-offload" if "tiled" in tier or "offload" in tier else "resident", "cpu")
    frames = expected(**small(seed=[1, 2])).frames
    with machine(monkeypatch, cards=2) as world:
        pipe = on_card(monkeypatch, tier, "cuda:1")
        seen = []
        for steps in (2, 6):
            world.reset()
            out = pipe(**small(seed=[1, 2], num_inference_steps=steps))
            assert set(world.used) == {"cuda:1"}
            seen.append((sum(world.waits.values()), sum(world.copies.values()), sum(world.from_card.values())))
            if steps == 2:
                assert out.tier == tier
                # a batch of two rounds differently in the last bit
                assert np.abs(out.frames.astype(int) - frames).max() <= (1 if tier == "resident-batched" else 0)
        (waits, copies, back), (more_waits, more_copies, more_back) = seen
        steps = 2 * 4
        assert more_waits - waits <= WAITS_PER_STEP * steps
        assert more_back <= back  # the second run finds the control latents where the first left them
        # a step of the streamed tier copies every block once for each guidance branch, the others copy nothing
        blocks = len(list(pipe.transformer.transformer_blocks.parameters()))
        allowed = 2 * blocks * steps if tier == "group-offload" else COPIES_PER_STEP * steps
        assert more_copies - copies <= allowed
        assert world.races == []
        assert len(world.streams) == world.cards + (tier in NAMES[:2] or tier == "group-offload")
        # weights that visit are not written back: what comes back is frames and control latents
        assert back < 0.2 * weights(pipe.transformer, pipe.vae)
        pipe.release_memory()
        for cache in (pipe.transformer._rope_cache,):
            cache.clear()
        del out
        assert world.live[1] <= 4096
        assert world.live[0] == 0


@pytest.mark.parametrize("tier", ["resident", "staged", "group-offload"])
def test_weights_visit_once_per_stage(monkeypatch, tier):
    with machine(monkeypatch) as world:
        pipe = on_card(monkeypatch, tier)
        world.reset()
        pipe(**small(num_inference_steps=1))
        moved = world.to_card["tensors"] + world.to_card["scalars"]
        both, inputs = weights(pipe.transformer, pipe.vae), 100_000
        block = weights(pipe.transformer.transformer_blocks)
        allowed = {
            "resident": inputs,
            # the coder visits twice (encode, decode), the projection once per prompt
            "staged": both + weights(pipe.vae) + 2 * weights(pipe.transformer.crossattn_proj) + inputs,
            "group-offload": 2 * weights(pipe.vae) + 1.05 * 4 * block + inputs,  # 2 evaluations, 2 branches
        }[tier]
        assert moved <= allowed
        assert (moved > inputs) == (tier != "resident")


def test_cards_compute_in_bfloat16_except_where_the_reference_does_not(monkeypatch):
    with machine(monkeypatch) as world:
        made = OscarBackend(model=str(converted()), device="cuda:0")
        assert made.pipeline.transformer.dtype == made.pipeline.vae.dtype == torch.bfloat16
        made.use_tier("resident")
        made._place(32, 32, 5)
        world.reset()
        made.pipeline(**small())
        kinds = {dtype: count for (_, dtype), count in world.dtypes.items()}
        # timestep embedding, modulation and final layer: 2 + 6 per block + 3 products in float32, three evaluations, two
        # branches; and those of one first-frame map
        blocks = len(made.pipeline.transformer.transformer_blocks)
        assert kinds["float32"] <= 6 * (2 + 6 * blocks + 3)
        assert kinds["bfloat16"] >= 6 * 7 * blocks  # Q, K and V are one product: kernels "auto" are the fused ones here
        assert made.pipeline.kernels == "fused"


@pytest.mark.parametrize("options", [
    {}, {"attention": "native"}, {"attention": "_native_flash", "compile": False}, {"deterministic": True}, {"tier": "staged"},
    {"tier": "group-offload", "attention": "_native_flash"},
], ids=str)  # fmt: skip
def test_options_of_the_backend(monkeypatch, options):
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with machine(monkeypatch, cards=2) as world:
            made = OscarBackend(model=str(converted()), **options)
            made.use_card("GPU-1")
            made._place(32, 32, 5)
            assert made.device == "cuda:1"
            made.pipeline(**small())
            assert set(world.used) == {"cuda:1"}
            assert made.pipeline.tier.name == options.get("tier", "resident-batched")
            assert torch.backends.cudnn.deterministic is ("deterministic" in options or before[0])
            made.close()
            assert world.races == []
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@pytest.mark.parametrize("tier", ["resident", "group-offload"])
@pytest.mark.parametrize("mode", ["first-block-cache", "fp8"])
def test_approximate_modes_stay_on_the_card(monkeypatch, mode, tier):
    with machine(monkeypatch) as world:
        pipe = on_card(monkeypatch, "resident")
        pipe.enable_approximation(mode)
        pipe.enable_memory_tier(tier, "cuda")
        out = pipe(**small(num_inference_steps=3))
        assert out.approximations == ({"first-block-cache": "first-block-cache:0.05"}.get(mode, mode), "steps:3")
        assert set(world.used) == {"cuda:0"}


# -- the faults that were found, one by one -----------------------------------------------------------------------------


def text_call(**changes: Any) -> dict[str, Any]:
    call = small(prompt="a kitchen", negative_prompt="blur", **changes)
    return {name: value for name, value in call.items() if "embeds" not in name}


@pytest.mark.parametrize(("free", "where"), [(80.0, "cuda:0"), (None, "cpu")])
def test_a_lazy_text_encoder_is_placed_by_what_is_free(monkeypatch, free, where):
    """A new prompt on a card without room for the encoder runs it on the CPU, in every tier."""
    from retake.worker.oscar import prompting

    seen: list[str] = []
    embed = prompting.text_stage.embed
    monkeypatch.setattr(
        prompting.text_stage, "embed",
        lambda encoder, ids: seen.append(str(next(encoder.parameters()).device)) or embed(encoder, ids),
    )  # fmt: skip
    with machine(monkeypatch) as world:
        pipe = text_pipeline(lazy_text_encoder=True)
        pipe.enable_memory_tier("staged", "cuda")
        if free is None:  # what the encoder needs is not there; takes still are possible
            world.others[0] = world.capacity[0] - memory.CONTEXT_BYTES
        pipe(**text_call())
        assert seen == [where] * 2
        assert pipe._lazy_encoder is None


@pytest.mark.parametrize("tier", ["resident", "staged", "group-offload"])
def test_the_encoder_visits_once_for_all_prompts(monkeypatch, tier):
    """A negative prompt and three prompts, in one visit of the encoder and one of the projection; the same embeddings."""
    prompts = ["a kitchen", "a garage", "a kitchen", "a bakery"]
    alone = {text: text_pipeline().encode_prompt(text).embeds for text in {*prompts, "blur"}}
    with machine(monkeypatch) as world:
        pipe = text_pipeline()
        pipe.enable_memory_tier(tier, "cuda")
        world.reset()
        found = pipe.encode_prompts(["blur", *prompts])
        moved = world.to_card["tensors"]
        raw = 4 * 512 * pipe.transformer.config["crossattn_proj_in_channels"] * 4
        visit = weights(pipe.text_encoder) + (0 if tier == "resident" else weights(pipe.transformer.crossattn_proj))
        assert moved <= visit + raw + 50_000
        assert pipe.stats.text_encodes == 4
        assert list(found) == ["blur", "a kitchen", "a garage", "a bakery"]
        assert all(torch.equal(found[text].embeds, embeds) for text, embeds in alone.items())
        pipe.encode_prompts(prompts)
        assert (pipe.stats.text_encodes, pipe.stats.prompts_from_cache) == (4, 3)
        assert set(world.used) == {"cuda:0"}


def test_an_encoder_that_runs_out_of_memory_loses_nothing(monkeypatch):
    with machine(monkeypatch) as world:
        pipe = text_pipeline()
        expected = pipe.encode_prompt("a kitchen").embeds
        pipe.prompt_cache = type(pipe.prompt_cache)(None)
        pipe.enable_memory_tier("staged", "cuda")
        pipe.text_device = torch.device("cuda:0")
        world.others[0] = world.capacity[0] - weights(pipe.text_encoder) // 2  # half of it arrives
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(weights(pipe.text_encoder), device="cuda", dtype=torch.uint8)
        world.others[0] = world.capacity[0] - weights(pipe.text_encoder) // 2
        pipe.text_device = torch.device("cuda:0")
        monkeypatch.setattr(type(pipe), "run_device", torch.device("cpu"))
        assert torch.equal(pipe.encode_prompt("a kitchen").embeds, expected)
        assert {p.device.type for p in pipe.text_encoder.parameters()} == {"cpu"}
        assert world.live[0] == 0


def test_without_a_word_the_card_is_used(monkeypatch):
    """`retake takes` and the local runner name no tier, and NVML may show nothing ("auto")."""
    for tier in (None, "auto"):
        with machine(monkeypatch) as world:
            made = OscarBackend(model=str(converted()))
            if tier:
                made.use_tier(tier)
            made._place(32, 32, 5)
            made.pipeline(**small())
            assert set(world.used) == {"cuda:0"}


def test_a_plan_is_for_the_jobs_own_size_and_leaves_the_margin(monkeypatch):
    from retake.worker.oscar.planner import plan_for_modules

    golden = pipeline()
    plans, _ = (
        plan_for_modules(golden.transformer.bfloat16(), golden.vae.bfloat16(), num_frames=5, height=h, width=w)
        for h, w in ((32, 32), (64, 64))
    )  # costs are kept for the process, and cheaper to count outside
    with machine(monkeypatch) as world:
        made = OscarBackend(model=str(converted()))
        staged = next(p for p in plans if p.tier == "staged")
        world.others[0] = world.capacity[0] - staged.needed - memory.MARGIN_BYTES
        made._place(32, 32, 5)
        assert made.pipeline.tier.name == "staged"
        made._place(64, 64, 5)  # more than is there
        assert made.pipeline.tier.name == NAMES[-1]


@pytest.mark.parametrize("planned", [False, True])
def test_a_card_that_filled_up_since_the_plan_costs_a_tier_and_no_job(monkeypatch, planned):
    """The weights do not fit any more when they are brought: the take is made in a lower tier."""
    with machine(monkeypatch) as world:
        made = OscarBackend(model=str(converted()))
        made.use_tier("auto" if planned else "resident-overlap")
        taken = world.capacity[0] - weights(made.pipeline.transformer) // 2

        def take(name: str) -> None:
            world.others[0] = taken

        enable = OscarPipeline.enable_memory_tier
        monkeypatch.setattr(OscarPipeline, "enable_memory_tier", lambda *a, **k: [take(""), enable(*a, **k)][1])
        made._place(32, 32, 5)
        assert made.pipeline.tier.name in NAMES[3:]
        assert world.live[0] < weights(made.pipeline.transformer) // 2
        monkeypatch.setattr(OscarPipeline, "enable_memory_tier", enable)
        world.others[0] = 0
        assert made.pipeline(**small()).frames.any()
        assert world.races == []


def test_an_error_that_is_not_about_memory_is_raised_when_weights_are_brought(monkeypatch):
    with machine(monkeypatch):
        made = OscarBackend(model=str(converted()), tier="resident")
        calls = []

        def broken(*_: Any, **__: Any) -> None:
            calls.append(1)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(OscarPipeline, "enable_memory_tier", broken)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            made._place(32, 32, 5)
        assert calls == [1]


@pytest.mark.parametrize("tier", ["resident-overlap", "staged", "group-offload"])
def test_another_card_leaves_nothing_on_the_first(monkeypatch, tier):
    """Cards of a machine in turn, as the service chooses them."""
    with machine(monkeypatch, cards=2) as world:
        made = OscarBackend(model=str(converted()))
        made.use_tier(tier)
        frames = []
        for card in ("GPU-0", "GPU-1", "GPU-0"):
            world.reset()
            made.use_card(card)
            made._place(32, 32, 5)
            frames.append(np.array(made.pipeline(**small(seed=[1, 2])).frames))
            here = int(card[-1])
            assert set(world.used) == {f"cuda:{here}"}
            made.pipeline.transformer._rope_cache.clear()
            assert world.live[1 - here] <= 4096
        assert np.array_equal(frames[0], frames[1])
        assert np.array_equal(frames[0], frames[2])
        assert world.races == []


def test_what_the_bench_selects_is_what_runs(monkeypatch):
    from retake.worker.oscar import backends

    monkeypatch.setattr(backends, "time_backends", lambda *_: {"native": 2.0, "_native_flash": 1.0})
    with machine(monkeypatch):
        compiled: list[int] = []
        monkeypatch.setattr(OscarPipeline, "enable_compile", lambda pipe: compiled.append(1))
        made = OscarBackend(model=str(converted()), tier="resident", compile=True)
        made._place(32, 32, 5)
        made._place(64, 64, 5)
        assert compiled == [1]
        assert made._ran()["attention"] == "_native_flash"
        kinds = {
            str(module.processor._attention_backend.value)
            for module in made.pipeline.transformer.modules() if hasattr(module, "processor")
        }  # fmt: skip
        assert kinds == {"_native_flash"}


def test_one_decode_stream_for_all_windows(monkeypatch):
    with machine(monkeypatch) as world:
        pipe = on_card(monkeypatch, "resident-overlap")
        pipe(**small(seed=[1, 2], skeleton=pixels()["skeleton"][:13], num_inference_steps=1))
        assert len(world.streams) == 2
        assert world.races == []


def test_the_harness_finds_what_it_is_for(monkeypatch):
    """Mixed devices, a full card, a race between streams, and what a wait is."""
    with machine(monkeypatch, gib=1.0) as world:
        card, host = torch.ones(100, device="cuda"), torch.ones(100)
        with pytest.raises(RuntimeError, match="same device"):
            card + host
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(GIB, device="cuda")
        with pytest.raises(TypeError, match="numpy"):
            card.numpy()
        assert (card.device, card.is_cuda, (card * 2).sum().cpu().item()) == (torch.device("cuda:0"), True, 200.0)
        world.reset()
        assert float(card.sum()) == 100.0
        assert sum(world.waits.values()) == 1
        other = torch.cuda.Stream()
        card.add_(1)
        with torch.cuda.stream(other):
            card.add_(1)
        assert len(world.races) == 1  # the stream never heard of what made the tensor
        ready = other.record_event()
        torch.cuda.current_stream().wait_event(ready)
        card.add_(1)
        assert len(world.races) == 1
        del card
        assert world.live[0] == 0


# -- first frames --------------------------------------------------------------------------------------------------------


FIRST_FRAMES = [
    (name, tier)
    for name in ("z-image", "flux2-klein", "qwen-edit", "sdxl", "cosmos-transfer")
    for tier in ("resident", "model-offload", "group-offload")
]


@pytest.mark.parametrize(("name", "tier"), FIRST_FRAMES)
def test_first_frame_backends_stay_on_their_card(monkeypatch, name, tier):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus
    from first_frame_support import PIXELS, make, source, world

    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", PIXELS)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", 112 * 112)
    with machine(monkeypatch, cards=2) as found:
        made = make(name, device="cuda:1", tier=tier, dtype="float32", steps=2)
        frame = made.render(source(), world(), 1)
        assert frame.any()
        assert made.tier == tier
        assert set(found.used) <= {"cuda:1"}
        assert found.used["cuda:1"] > 100
        assert np.array_equal(made.render(source(), world(), 1), frame)  # offloaded, and brought once more
        made.close()
