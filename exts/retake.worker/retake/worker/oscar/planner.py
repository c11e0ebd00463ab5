# SPDX-License-Identifier: Apache-2.0
"""Which memory tier fits, what each stage will need, and how long N takes will take.

Basis of the estimates. Weights: parameters times bytes. Stage peaks: the stage's own code run on shapes (see `costs`),
plus the weights that are on the device in that tier. On top, two stated assumptions: 10 % for the allocator's
fragmentation and 0.75 GiB for the CUDA context and library workspaces. None of it is a measurement on a GPU;
`retake bench oscar` on a CUDA machine measures, and its figures go before these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from retake.worker.memory import CONTEXT_BYTES, FRAGMENTATION, GIB, fitting_or_smallest

from .costs import StageCosts, stage_costs
from .tiers import TIERS, Tier

PROMPT_CACHE_BYTES = 2**20  # one projected prompt, 512 x 1024 bfloat16
# The paper's 2.214 frames/s on a GH200 (secondary source)
PUBLISHED_SECONDS_PER_TAKE = 81 / 2.214
PUBLISHED_TAKE_FLOPS = 17.0168e15  # that take, 35 steps, by our own count: stage_costs().take_flops(35)
VIDEO_BITS_PER_PIXEL = 0.2  # a generous H.264 rate; the raw upper bound is 24


@dataclass(frozen=True)
class TierPlan:
    """Expected peak device bytes of each stage in one tier. `needed` covers encode, denoise and decode."""

    tier: str
    stages: dict[str, int]

    @property
    def needed(self) -> int:
        return max(value for name, value in self.stages.items() if name != "text")

    def fits(self, free_bytes: int) -> bool:
        return self.needed <= free_bytes


def plan_tiers(costs: StageCosts) -> tuple[TierPlan, ...]:
    """Peaks of every tier, fastest first. "text" is the peak of encoding one unknown prompt."""
    return tuple(TierPlan(tier.name, _stages(tier, costs)) for tier in TIERS)


def _stages(tier: Tier, costs: StageCosts) -> dict[str, int]:
    both = costs.transformer_bytes + costs.vae_bytes
    network = costs.streamed_bytes if tier.group_offload else costs.transformer_bytes
    # streamed blocks keep their two places, and what is outside the blocks, through every stage
    coder_here = costs.vae_bytes + (network if tier.group_offload else 0) if tier.staged else both
    network_here = network if tier.staged else both
    skeleton = costs.skeleton_tiled if tier.tiled_decode else costs.skeleton
    decode = costs.decode_tiled if tier.tiled_decode else costs.decode
    forward = costs.forward_batched if tier.batched_guidance else costs.forward
    denoise = network_here + forward.peak_bytes
    raw = {
        "text": (0 if tier.staged else both) + costs.text_bytes + costs.text.peak_bytes,
        "encode": coder_here + max(skeleton.peak_bytes, costs.first_frame.peak_bytes),
        "denoise": denoise + (decode.peak_bytes if tier.overlap_decode else 0),
        "decode": coder_here + decode.peak_bytes,
    }
    return {name: int(value * FRAGMENTATION) + CONTEXT_BYTES for name, value in raw.items()}


def choose_tier(plans: Sequence[TierPlan], free_bytes: int, margin_bytes: int = 0) -> TierPlan:
    """The fastest tier that fits beside the margin; the smallest one if none does (it may run, and says so if it cannot)."""
    by_name = {plan.tier: plan for plan in plans}
    return by_name[fitting_or_smallest({name: p.needed for name, p in by_name.items()}, free_bytes, margin_bytes)]


def plan_for_modules(transformer: Any, vae: Any, *, num_frames: int, height: int, width: int) -> tuple[TierPlan, ...]:
    """Tier plans for the models at hand."""
    from .windows import window_length

    settings = {name: transformer.config[name] for name in _TRANSFORMER_SETTINGS}
    coder = {name: vae.config[name] for name in ("base_dim", "decoder_base_dim", "z_dim", "dim_mult")}
    costs = stage_costs(
        settings, coder, frames=window_length(num_frames), height=height, width=width, dtype=transformer.dtype, with_text=False
    )  # fmt: skip
    return plan_tiers(costs)


_TRANSFORMER_SETTINGS = (
    "in_channels", "control_channels", "out_channels", "num_attention_heads", "attention_head_dim", "num_layers",
    "mlp_ratio", "text_embed_dim", "crossattn_proj_in_channels", "adaln_lora_dim",
)  # fmt: skip


def measured_matmul_flops(device: torch.device, size: int = 8192, seconds: float = 0.5) -> float:
    """Dense bfloat16 matrix-product rate of a CUDA device, FLOP/s, by a short measurement."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    done, elapsed = 0, 0.0
    start.record()
    while elapsed < seconds * 1e3:
        for _ in range(10):
            torch.mm(a, b)
        done += 10
        end.record()
        end.synchronize()
        elapsed = start.elapsed_time(end)
    return 2 * size**3 * done / (elapsed / 1e3)


@dataclass(frozen=True)
class Forecast:
    """An estimate for N takes. Seconds per take are None when no rate is known. Disk in bytes.

    published_seconds: all N takes at the model's published rate on a GH200, scaled by FLOPs.
    """

    takes: int
    flops_per_take: float
    seconds_per_take: float | None
    published_seconds: float
    basis: str
    disk_video_bytes: int
    disk_raw_bytes: int
    disk_prompts_bytes: int


def forecast(costs: StageCosts, takes: int, steps: int, flops_per_second: float | None, cold_prompts: int) -> Forecast:
    """Minutes and disk for N takes that share one skeleton."""
    per_take = costs.take_flops(steps, takes, cold_prompts)
    pixels = costs.frames * costs.height * costs.width
    if flops_per_second is None:
        basis = "no rate known: run `retake bench oscar` on the GPU, or give --tflops (sustained)"
    else:
        basis = f"{per_take / 1e15:.1f} PFLOP a take at {flops_per_second / 1e12:.0f} TFLOP/s sustained"
    return Forecast(
        takes=takes,
        flops_per_take=per_take,
        seconds_per_take=None if flops_per_second is None else per_take / flops_per_second,
        published_seconds=takes * PUBLISHED_SECONDS_PER_TAKE * per_take / PUBLISHED_TAKE_FLOPS,
        basis=basis,
        disk_video_bytes=int(takes * pixels * VIDEO_BITS_PER_PIXEL / 8),
        disk_raw_bytes=takes * pixels * 3,
        disk_prompts_bytes=(takes + 1) * PROMPT_CACHE_BYTES,
    )


def plan_report(
    costs: StageCosts, takes: int, steps: int, free_bytes: int, flops_per_second: float | None, cold_prompts: int
) -> dict[str, Any]:
    """Everything `retake oscar plan` prints, as plain JSON values."""
    plans = plan_tiers(costs)
    chosen = choose_tier(plans, free_bytes)
    return {
        "size": {"frames": costs.frames, "height": costs.height, "width": costs.width, "dtype": costs.dtype},
        "free_bytes": free_bytes,
        "tier": chosen.tier,
        "fits": chosen.fits(free_bytes),
        "text_encoder_on_cpu": chosen.stages["text"] > free_bytes,
        "tiers": [{"tier": p.tier, "needed": p.needed, "fits": p.fits(free_bytes), "stages": p.stages} for p in plans],
        "forecast": asdict(forecast(costs, takes, steps, flops_per_second, cold_prompts)),
        "basis": "computed from shapes; +10 % fragmentation and 0.75 GiB context assumed; not measured on a GPU",
    }


def plan_lines(report: Mapping[str, Any]) -> list[str]:
    """The report as text."""
    size, free = report["size"], report["free_bytes"]
    lines = [
        f"{size['frames']} frames of {size['width']}x{size['height']}, {size['dtype']}; {free / GIB:.1f} GiB free",
        "",
        f"{'tier':<18}{'text':>8}{'encode':>8}{'denoise':>9}{'decode':>8}{'needed':>8}  GiB, expected peaks",
    ]
    for row in report["tiers"]:
        s = {name: value / GIB for name, value in row["stages"].items()}
        verdict = "fits" if row["fits"] else "does not fit"
        mark = " <- this tier" if row["tier"] == report["tier"] else ""
        lines.append(
            f"{row['tier']:<18}{s['text']:>8.1f}{s['encode']:>8.1f}{s['denoise']:>9.1f}{s['decode']:>8.1f}"
            f"{row['needed'] / GIB:>8.1f}  {verdict}{mark}"
        )
    if not report["fits"]:
        lines.append("no tier is expected to fit; the smallest is tried, and an error says so if it does not")
    if report["text_encoder_on_cpu"]:
        lines.append(
            "the text encoder does not fit: unknown prompts are encoded on the CPU, cached ones need no encoder"
        )
    f = report["forecast"]
    seconds = f["seconds_per_take"]
    lines += ["", f"{f['takes']} takes: " + (
        f"about {seconds * f['takes'] / 60:.1f} minutes ({seconds:.0f} s a take)" if seconds else "minutes unknown"
    ) + f"; {f['basis']}"]  # fmt: skip
    lines.append(f"at the model's published rate on a GH200: {f['published_seconds'] / 60:.1f} minutes")
    lines.append(
        f"disk: about {f['disk_video_bytes'] / 1e6:.0f} MB of H.264 video (raw frames {f['disk_raw_bytes'] / 1e6:.0f} MB), "
        f"{f['disk_prompts_bytes'] / 1e6:.1f} MB prompt cache"
    )
    lines.append(f"basis: {report['basis']}")
    return lines
