# SPDX-License-Identifier: Apache-2.0
"""`retake bench oscar`: what a take costs, measured where the machine can and computed where it cannot.

Three parts. `computed`: FLOPs per take at full size, on the meta device, ours against a baseline that does what the
reference does. `measured`: a tiny random model on the CPU, seconds per stage and counts per take. `cuda`: the
full-size model with random bfloat16 weights, where there is a CUDA device; None elsewhere.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from . import backends
from .approximate import read_mode
from .costs import FULL_TRANSFORMER, FULL_VAE, forward_traffic, meta_transformer, stage_costs
from .fused import KERNELS, set_kernels
from .meter import Cost, measure
from .pipeline import OscarPipeline
from .prompts import ProjectedPrompt
from .schedule import make_scheduler
from .text import PROMPT_LENGTH

TINY_TRANSFORMER: dict[str, Any] = {
    **FULL_TRANSFORMER, "num_attention_heads": 2, "attention_head_dim": 64, "num_layers": 2, "adaln_lora_dim": 16,
    "text_embed_dim": 64, "crossattn_proj_in_channels": 96,
}  # fmt: skip
TINY_VAE: dict[str, Any] = {"base_dim": 8}
REFERENCE_FRAMES, REFERENCE_STEPS = 81, 35


def random_pipeline(
    transformer: Mapping[str, Any], vae: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str, seed: int = 0
) -> OscarPipeline:  # fmt: skip
    """A pipeline of any size with random weights, made where it will run; for timing and tests, not for pictures."""
    from .costs import meta_transformer, meta_vae

    generator = torch.Generator(device).manual_seed(seed)
    parts = []
    for module in (meta_transformer(transformer, dtype), meta_vae(vae, dtype)):
        module = torch.nn.Module.to_empty(module, device=device)
        for name, parameter in module.named_parameters():
            with torch.no_grad():
                if ("norm" in name and parameter.ndim == 1) or name.endswith("gamma"):
                    parameter.fill_(1.0)
                elif parameter.ndim == 1:
                    parameter.zero_()
                else:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0.0, fan_in**-0.5, generator=generator)
        parts.append(module.eval())
    pipe = OscarPipeline(parts[0], parts[1], make_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def random_prompt(pipe: OscarPipeline, length: int = PROMPT_LENGTH, seed: int = 0) -> ProjectedPrompt:
    """A projected prompt of random values: what a warm prompt cache hands over."""
    values = torch.randn(
        1, length, pipe.transformer.config["text_embed_dim"], generator=torch.Generator().manual_seed(seed)
    )
    return ProjectedPrompt(values.to(pipe.transformer.dtype), pipe.model_revision)


def random_input(frames: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """First frame (H, W, 3) and skeleton (T, H, W, 3), uint8 noise."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8),
    )


def computed(steps: int = REFERENCE_STEPS, frames: int = REFERENCE_FRAMES) -> dict[str, Any]:
    """TFLOP per take at full size: the reference-like baseline, ours cold and warm, and the stock forward."""
    costs = stage_costs(frames=frames)
    forwards = 2 * (steps + 1)
    baseline = {
        "text (2 prompts)": 2 * costs.text.flops,
        "text projection (every forward)": forwards * costs.project.flops,
        f"first frame as {frames}-frame video": costs.skeleton.flops,
        "skeleton": costs.skeleton.flops,
        "denoise": forwards * costs.forward.flops,
        "decode": costs.decode.flops,
    }
    stock = stock_forward_cost(frames)
    reference = float(sum(baseline.values()))
    takes = {
        "baseline, as the reference": reference,
        "ours, one take, unknown prompts": costs.take_flops(steps, 1, cold_prompts=2),
        "ours, one take, prompts cached": costs.take_flops(steps, 1),
        "ours, one of 10 takes, prompts cached": costs.take_flops(steps, 10),
    }
    moved = elementwise_traffic(frames)
    return {
        "frames": frames,
        "steps": steps,
        "elementwise_gb_per_forward": {name: value / 1e9 for name, value in moved.items()},
        "forwards_per_take": forwards,
        "baseline_parts_tflop": {name: value / 1e12 for name, value in baseline.items()},
        "take_tflop": {name: value / 1e12 for name, value in takes.items()},
        "share_of_baseline": {name: value / reference for name, value in takes.items()},
        "outside_denoise_tflop": {
            name: (value - forwards * costs.forward.flops) / 1e12 for name, value in takes.items()
        },
        "forward_tflop": {"ours (per-frame modulation)": costs.forward.flops / 1e12, "stock diffusers": stock.flops / 1e12},
        "forward_peak_gib": {
            "ours (per-frame modulation)": costs.forward.peak_bytes / 2**30,
            "stock diffusers": stock.peak_bytes / 2**30,
        },
    }  # fmt: skip


@lru_cache(maxsize=4)
def elementwise_traffic(frames: int = REFERENCE_FRAMES, height: int = 480, width: int = 640) -> dict[str, int]:
    """Bytes that elementwise work of one full-size forward moves in an eager run, by kernels (see `meter.Traffic`)."""
    model = meta_transformer(FULL_TRANSFORMER, torch.bfloat16)
    found = {}
    for kernels in KERNELS:
        set_kernels(model, kernels)
        found[kernels] = sum(forward_traffic(model, (frames - 1) // 4 + 1, height // 8, width // 8).values())
    return found


@lru_cache(maxsize=4)
def stock_forward_cost(frames: int = REFERENCE_FRAMES, height: int = 480, width: int = 640) -> Cost:
    """One forward of diffusers' own Cosmos transformer at OSCAR's size: modulation expanded to every token.

    The padding mask enters as one more input channel, because the stock resize needs torchvision; same FLOPs.
    """
    from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel

    full = FULL_TRANSFORMER
    with torch.device("meta"):
        model: Any = CosmosTransformer3DModel(
            in_channels=34, out_channels=16, num_attention_heads=full["num_attention_heads"],
            attention_head_dim=full["attention_head_dim"], num_layers=full["num_layers"], mlp_ratio=4.0,
            text_embed_dim=full["text_embed_dim"], adaln_lora_dim=full["adaln_lora_dim"], max_size=(128, 240, 240),
            patch_size=(1, 2, 2), rope_scale=(1.0, 3.0, 3.0), concat_padding_mask=False, extra_pos_embed_type=None,
            use_crossattn_projection=False,
        )  # fmt: skip
    model = torch.nn.Module.to(model, torch.bfloat16)
    for module in model.modules():
        if hasattr(module, "processor"):
            module.processor = _StockOnMeta()
    t = (frames - 1) // 4 + 1
    h, w = height // 8, width // 8
    video = torch.empty(1, 33, t, h, w, device="meta", dtype=torch.bfloat16)
    mask = torch.empty(1, 1, t, h, w, device="meta", dtype=torch.bfloat16)
    times = torch.empty(1, 1, t, 1, 1, device="meta")
    text = torch.empty(1, PROMPT_LENGTH, full["text_embed_dim"], device="meta", dtype=torch.bfloat16)
    return measure(lambda: model(video, times, text, condition_mask=mask, return_dict=False))


class _StockOnMeta:
    """The stock processor's steps, with shape-only attention (see layers)."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, attention_mask: Any = None,
                 image_rotary_emb: Any = None) -> Any:  # fmt: skip
        from diffusers.models.embeddings import apply_rotary_emb

        from .layers import _meta_attention

        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        parts = [attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)]
        query, key, value = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in parts)
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            query = apply_rotary_emb(query, image_rotary_emb, use_real=True, use_real_unbind_dim=-2)
            key = apply_rotary_emb(key, image_rotary_emb, use_real=True, use_real_unbind_dim=-2)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # pyright: ignore
        return attn.to_out[0](_meta_attention(query, key, value).flatten(2, 3))


def measured(takes: int = 3, frames: int = 17, size: int = 64, steps: int = 5) -> dict[str, Any]:
    """Seconds per stage and counts of a tiny random model, float32, CPU; a record of the code's shape, not its speed."""
    pipe = random_pipeline(TINY_TRANSFORMER, TINY_VAE, torch.float32, "cpu")
    first, skeleton = random_input(frames, size, size)
    prompt = random_prompt(pipe, 12)
    started = time.perf_counter()
    result = pipe(
        [first] * takes, skeleton, prompt_embeds=prompt, negative_prompt_embeds=random_prompt(pipe, 12, seed=1),
        num_frames=frames, height=size, width=size, num_inference_steps=steps, seed=list(range(takes)),
    )  # fmt: skip
    assert not isinstance(result, tuple)
    stats = result.stats
    return {
        "device": f"CPU, {platform.machine()}, {torch.get_num_threads()} threads",
        "model": "tiny random (2 blocks, width 128; VAE base width 8), float32",
        "takes": takes, "frames": frames, "size": size, "steps": steps,
        "seconds": time.perf_counter() - started,
        "seconds_by_stage": dict(stats.seconds),
        "per_take": {
            "evaluations": stats.evaluations / takes,
            "skeleton_frames_encoded": stats.skeleton_frames / takes,
            "first_frame_frames_encoded": stats.first_frame_frames / takes,
            "text_encodes": stats.text_encodes / takes,
            "latent_frames_decoded": stats.decoded_latent_frames / takes,
        },
        "peak_tensor_mib": _peak_tensor_mib(pipe, first, skeleton, prompt),
    }  # fmt: skip


def _peak_tensor_mib(pipe: OscarPipeline, first: np.ndarray, skeleton: np.ndarray, prompt: ProjectedPrompt) -> float:
    """Weights plus the peak of live tensors in one take of one step, followed while it runs (and so not timed)."""
    frames, height, width, _ = skeleton.shape
    arguments: dict[str, Any] = {"num_frames": frames, "height": height, "width": width, "num_inference_steps": 1}
    peak = measure(
        lambda: pipe(first, skeleton, prompt_embeds=prompt, negative_prompt_embeds=prompt, **arguments),
    ).peak_bytes
    weights = sum(p.numel() * p.element_size() for m in (pipe.transformer, pipe.vae) for p in m.parameters())
    return (weights + peak) / 2**20


def cuda(
    device: str = "cuda", steps: int = REFERENCE_STEPS, frames: int = REFERENCE_FRAMES, height: int = 480,
    width: int = 640, tier: str = "resident", compile_blocks: bool = False, approximate: tuple[str, ...] = (),
    kernels: str = "auto", transformer: Mapping[str, Any] | None = None, vae: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Seconds per take and peak GiB of the full-size model with random bfloat16 weights and a warm prompt cache.

    One short warm-up, then one timed take. `transformer` and `vae` settings can be made smaller to try the code
    elsewhere than on a GPU.
    """
    target = torch.device(device)
    on_gpu = target.type == "cuda"
    pipe = random_pipeline(transformer or FULL_TRANSFORMER, vae or FULL_VAE, torch.bfloat16, target)
    pipe.enable_memory_tier(tier, target)
    tokens = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)
    note = pipe.use_kernels(kernels)
    backend, timings = backends.select_backend(pipe.transformer, tokens, target)
    for text in approximate:
        name, options = read_mode(text)
        pipe.enable_approximation(name, **options)
    if compile_blocks:
        pipe.enable_compile()
    first, skeleton = random_input(frames, height, width)
    arguments: dict[str, Any] = {
        "first_frame": first, "skeleton": skeleton, "prompt_embeds": random_prompt(pipe),
        "negative_prompt_embeds": random_prompt(pipe, seed=1), "num_frames": frames, "height": height, "width": width,
    }  # fmt: skip
    pipe(**arguments, num_inference_steps=1)
    gc.collect()
    started = time.perf_counter()
    result = pipe(**arguments, num_inference_steps=steps)
    seconds = time.perf_counter() - started
    assert not isinstance(result, tuple)
    return {
        "device": torch.cuda.get_device_name(target) if on_gpu else str(target),
        "torch": torch.__version__,
        "frames": frames, "height": height, "width": width, "steps": steps,
        "tier": result.tier,
        "attention_backend": backend,
        "attention_seconds": timings,
        "compiled": compile_blocks,
        "kernels": pipe.kernels, "kernels_note": note,
        "approximations": list(result.approximations),
        "seconds_per_take": seconds,
        "seconds_by_stage": dict(result.stats.seconds),
        "peak_gib": result.stats.peak_device_bytes / 2**30 if on_gpu else None,
        "evaluations": result.stats.evaluations,
    }  # fmt: skip


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report as a table."""
    c, m, g = report["computed"], report.get("measured"), report.get("cuda")
    out = [
        f"Full size, {c['frames']} frames 480x640, {c['steps']} steps ({c['forwards_per_take']} forwards), computed:",
        f"  {'':<40}{'TFLOP/take':>12}{'of baseline':>13}{'outside denoise':>17}",
    ]
    for name, value in c["take_tflop"].items():
        share, outside = c["share_of_baseline"][name], c["outside_denoise_tflop"][name]
        out.append(f"  {name:<40}{value:>12.1f}{share:>12.1%}{outside:>17.1f}")
    for name, value in c["forward_tflop"].items():
        out.append(f"  one forward, {name:<27}{value:>12.2f}  peak {c['forward_peak_gib'][name]:.2f} GiB of tensors")
    for name, value in c["elementwise_gb_per_forward"].items():
        out.append(f"  elementwise work of a forward, kernels {name:<12}{value:>8.0f} GB read and written")
    if m is not None:
        per = m["per_take"]
        out += [
            "",
            f"Measured: {m['model']}; {m['device']}; {m['takes']} takes of {m['frames']} frames {m['size']}x{m['size']}, "
            f"{m['steps']} steps: {m['seconds']:.2f} s, peak tensors {m['peak_tensor_mib']:.0f} MiB",
            "  seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in m["seconds_by_stage"].items()),
            f"  per take: {per['evaluations']:.0f} evaluations, {per['skeleton_frames_encoded']:.1f} skeleton frames and "
            f"{per['first_frame_frames_encoded']:.1f} first-frame frames encoded, {per['text_encodes']:.0f} text encodes",
        ]
    out.append("")
    if g is None:
        out.append("CUDA: not yet measured (no CUDA device here)")
    for run in g or ():
        peak = "" if run["peak_gib"] is None else f", peak {run['peak_gib']:.2f} GiB"
        label = ", ".join(run["approximations"]) or "exact"
        out.append(
            f"{run['device']}: {run['seconds_per_take']:.1f} s per take of {run['frames']} frames "
            f"{run['width']}x{run['height']} at {run['steps']} steps{peak} (tier {run['tier']}, {run['attention_backend']}"
            f"{', compiled' if run['compiled'] else ''}, kernels {run.get('kernels', 'reference')}; {label})"
        )
    return out
