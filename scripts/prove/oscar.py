# SPDX-License-Identifier: Apache-2.0
"""Proof of OSCAR-2B: parity with the reference's tensors, controls that must fail, laws, refusals, cost of a take.

Runs in .venv-worker. Writes oscar.json and oscar.md; finished parts are kept in oscar.partial.json, so an interrupted
proof goes on where it stopped (and starts anew when the code changed).
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "worker")]

import convert_support as refusals  # noqa: E402
import oscar_golden as golden  # noqa: E402
import test_oscar_parity as parity_tests  # noqa: E402
import test_oscar_pipeline as laws  # noqa: E402
from in_parts import Part, prove_in_parts  # noqa: E402

from retake.core.errors import RetakeError  # noqa: E402
from retake.core.files import sha256_bytes  # noqa: E402
from retake.worker.oscar import bench, keymap, sampler, schedule, sources  # noqa: E402
from retake.worker.oscar import vae as vae_stage  # noqa: E402
from retake.worker.oscar.convert import convert  # noqa: E402

difference = golden.difference


def parity(quick: bool) -> dict[str, Any]:
    """Largest absolute differences from the reference's tensors, and the tolerance of each."""
    del quick
    pipe, run, forward = golden.pipeline(), golden.tensors("sampling_run"), golden.tensors("dit_forward")
    model, vae = pipe.transformer, golden.tensors("vae")
    with np.load(golden.GOLDEN / "vae_pixels33.npz") as data:
        video = data["video"]
    zero = torch.cat([forward["x_B_C_T_H_W"], torch.zeros(1, 16, 5, 8, 8)], dim=1)
    shown = pipe(**golden.golden_call(output_type="pt")).frames.transpose(1, 2) * 2 - 1
    latents = pipe(**golden.golden_call(output_type="latent")).frames
    rows = {
        "transformer forward": (difference(parity_tests.forward(model), forward["output"]), 1e-5),
        "forward, other padding mask": (
            difference(
                parity_tests.forward(model, padding_mask=forward["padding_mask_b"]), forward["output_padding_mask_b"]
            ),
            1e-5,
        ),
        "forward, zero control": (
            difference(parity_tests.forward(model, hidden_states=zero), forward["output_zero_control"]),
            1e-5,
        ),
        "guided loop, final latents": (difference(latents, run["latents_final"]), 1e-4),
        "guided loop, decoded frames": (difference(shown, run["video_out"].clamp(-1, 1)), 1e-4),
        "VAE encode, 33 frames": (difference(vae_stage.encode(pipe.vae, video), vae["latents_t33"]), 1e-5),
        "VAE decode, 9 latents": (
            difference(vae_stage.decode(pipe.vae, vae["latents_t33"]), vae["decoded_t33"].clamp(-1, 1)),
            1e-5,
        ),
        "one-frame encode against the video encode": (
            difference(
                vae_stage.encode(pipe.vae, golden.pixels()["first_frame"][None]), vae["latents_tiled"][:, :, :1]
            ),
            1e-5,
        ),
        "text embeddings": (
            difference(parity_tests.text_embeddings(), golden.tensors("text_encoder")["embeddings"]),
            1e-5,
        ),
        "schedules, N = 1, 4, 5, 10, 20, 35, 50": (schedule_difference(), 0.0),
        "UniPC on the reference's velocities": (solver_difference({}), 0.0),
    }
    return {
        "rows": {name: {"difference": value, "hold": limit} for name, (value, limit) in rows.items()},
        "holds": all(value <= limit for value, limit in rows.values()),
    }


def schedule_difference() -> float:
    """Largest difference of any sigma or timestep of any stored schedule."""
    worst = 0.0
    for steps, stored in json.loads((golden.GOLDEN / "schedules.json").read_text()).items():
        scheduler = schedule.make_scheduler()
        timesteps = schedule.start_schedule(scheduler, int(steps), "cpu")
        worst = max(worst, difference(scheduler.sigmas, stored["sigmas"]), difference(timesteps, stored["timesteps"]))
    return worst


def solver_difference(change: dict[str, Any], steps: int = 6) -> float:
    """Largest difference from the reference's states over the first steps, with a changed solver setting."""
    run = golden.tensors("sampling_run")
    scheduler = type(schedule.make_scheduler())(**{**schedule.SCHEDULER_CONFIG, **change})
    state, worst = run["noise"], 0.0
    for index, timestep in enumerate(schedule.start_schedule(scheduler, 5, "cpu")[:steps]):
        state = scheduler.step(run["velocity_cfg"][index], timestep, state, return_dict=False)[0]
        worst = max(worst, difference(state, run["sample_out"][index]))
    return worst


def controls(quick: bool) -> dict[str, Any]:
    """Wrong rules; each must leave the golden run by more than ten times the tolerance."""
    del quick
    final = golden.tensors("sampling_run")["latents_final"]

    def loop(patch: tuple[str, Any] | None = None, scheduler: dict[str, Any] | None = None, **call: Any) -> float:
        pipe = golden.pipeline()
        if scheduler:
            pipe.scheduler.register_to_config(**scheduler)
        before = None if patch is None else getattr(sampler, patch[0])
        try:
            if patch is not None:
                setattr(sampler, *patch)
            return difference(pipe(**golden.golden_call(output_type="latent", **call)).frames, final)
        finally:
            if patch is not None:
                setattr(sampler, patch[0], before)

    rows = {
        "solver order 1": loop(scheduler={"solver_order": 1}),
        "no corrector": loop(scheduler={"disable_corrector": list(range(10))}),
        "solver bh1, one step": solver_difference({"solver_type": "bh1"}, 2),
        "shift 5 instead of Karras": loop(scheduler={"use_karras_sigmas": False, "flow_shift": 5.0}),
        "first frame: running latents shown": loop(("evaluate", parity_tests.overwritten_state)),
        "first frame: noisy frames' timestep": loop(("net_timesteps", parity_tests.uniform_timesteps)),
        "guidance u + g (c - u)": loop(("guide", lambda c, u, g: u + g * (c - u))),
        "seed 43": loop(seed=43),
        "one step more": loop(num_inference_steps=6),
        "skeleton reversed": loop(skeleton=golden.pixels()["skeleton"][::-1].copy()),
    }
    return {"rows": rows, "hold_above": 1e-3, "holds": min(rows.values()) > 1e-3}


def other_sizes(quick: bool) -> dict[str, Any]:
    """Our forward against diffusers' own Cosmos class (control folded in, eps set) on random architectures and sizes."""
    cases, worst = (3 if quick else 24), 0.0
    for seed in range(cases):
        worst = max(worst, parity_tests.against_stock(seed))
    return {"architectures": cases, "largest_difference": worst, "hold": 1e-5, "holds": worst <= 1e-5}


def from_the_checkpoint(quick: bool) -> dict[str, Any]:
    """The golden run from the distributed checkpoint, its bfloat16 variant and a `.pth` VAE, through `convert`."""
    del quick
    from safetensors.torch import load_file

    final = golden.tensors("sampling_run")["latents_final"]
    with tempfile.TemporaryDirectory() as folder:
        torch.save(load_file(refusals.VAE), Path(folder) / "vae.pth")
        convert(golden.GOLDEN / "dcp", Path(folder) / "vae.pth", None, Path(folder) / "out")
        by_pth = difference(refusals.run_golden(Path(folder) / "out"), final)
    narrow, rounded = golden.pipeline("dcp_quirks"), golden.pipeline()
    with torch.no_grad():
        for parameter in rounded.transformer.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    call = golden.golden_call(output_type="latent")
    bf16 = difference(narrow(**call).frames, rounded(**call).frames)
    shapes = refusals.full_size_shapes()
    mapping = keymap.key_map(shapes)
    return {
        "dcp_and_pth_vae": by_pth,
        "bf16_variant_against_rounded_weights": bf16,
        "full_size_keys": {"source": len(shapes), "mapped": len(mapping.source_of), "dropped": len(mapping.dropped)},
        "holds": by_pth <= 1e-4 and bf16 == 0 and len(mapping.source_of) + len(mapping.dropped) == len(shapes),
    }


def independence(quick: bool) -> dict[str, Any]:
    """A list of N takes against N single calls, bit for bit; cached prompts against fresh ones."""
    count = 3 if quick else 8
    frames, pipe = laws.other_frames(count), golden.pipeline()
    equal = 0
    for seeds in ([42] * count, list(range(count))):
        call = golden.golden_call if not quick else laws.small_call
        together = pipe(**call(first_frame=frames, seed=seeds, output_type="pt")).frames
        for index, (frame, seed) in enumerate(zip(frames, seeds, strict=True)):
            alone = pipe(**call(first_frame=frame, seed=seed, output_type="pt")).frames[0]
            equal += bool(torch.equal(together[index], alone))
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "prompt": "a kitchen",
            "negative_prompt": "ugly",
            "prompt_embeds": None,
            "negative_prompt_embeds": None,
        }
        fresh = golden.text_pipeline()
        first = fresh(**laws.small_call(**words))
        fresh.enable_prompt_cache(folder)
        for text in ("a kitchen", "ugly"):
            fresh.encode_prompt(text)
        cached = golden.text_pipeline(lazy_text_encoder=True)
        cached.enable_prompt_cache(folder)
        again = cached(**laws.small_call(**words))
    same = bool(np.array_equal(first.frames, again.frames))
    return {
        "takes_compared": 2 * count,
        "takes_equal": equal,
        "cached_prompts_equal": same,
        "text_encodes": {"fresh": first.stats.text_encodes, "cached": again.stats.text_encodes},
        "holds": equal == 2 * count and same and again.stats.text_encodes == 0,
    }


def refused(quick: bool) -> dict[str, Any]:
    """Bad checkpoints and bad calls: each one a RetakeError of one line, and nothing left behind."""
    del quick
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        for index, (case, (damage, _)) in enumerate(refusals.CHECKPOINTS.items()):
            folder = Path(name) / str(index)
            folder.mkdir()
            damage(refusals.copy_checkpoint(folder), folder / "marker")
            outcomes[f"checkpoint: {case}"] = outcome(
                lambda folder=folder: convert(folder / "dcp", refusals.VAE, None, folder / "out")
            )
            if not refusals.nothing_left(folder, "dcp"):
                outcomes[f"checkpoint: {case}"] = "left something behind"
    pipe = golden.pipeline()
    for case, (changes, _) in laws.BAD.items():
        outcomes[f"call: {case}"] = outcome(lambda changes=changes: pipe(**laws.small_call(**changes)))
    wrong = {case: result for case, result in outcomes.items() if result != "refused"}
    return {"cases": len(outcomes), "refused": len(outcomes) - len(wrong), "wrong": wrong, "holds": not wrong}


def outcome(action: Callable[[], Any]) -> str:
    """ "refused" for one clear error."""
    try:
        action()
    except RetakeError as error:
        return "refused" if "\n" not in str(error) else "an error of several lines"
    except Exception as error:
        return f"another error: {type(error).__name__}"
    return "accepted"


def cost(quick: bool) -> dict[str, Any]:
    """FLOPs per take at full size; seconds of a tiny run here; CUDA figures where there is a device."""
    report: dict[str, Any] = {"computed": bench.computed(), "measured": bench.measured(), "cuda": None}
    if torch.cuda.is_available() and not quick:
        report["cuda"] = [bench.cuda(), bench.cuda(compile_blocks=True), bench.cuda(approximate=("first-block-cache",))]
    takes = report["computed"]["share_of_baseline"]
    return {**report, "lines": bench.lines(report), "holds": all(share <= 1.0 for share in takes.values())}


PARTS: dict[str, Part] = {
    "parity": parity,
    "controls": controls,
    "other_sizes": other_sizes,
    "checkpoint": from_the_checkpoint,
    "independence": independence,
    "refused": refused,
    "cost": cost,
}


def code_key() -> str:
    """Changes with the code that is proved and with the proof."""
    files = [*sorted(Path(sources.__file__).parent.glob("*.py")), Path(__file__)]
    return sha256_bytes(*(path.read_bytes() for path in files))


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run what is not yet proved; write oscar.json and oscar.md. Raises SystemExit if a part does not hold."""
    torch.set_num_threads(1)
    disable_progress_bar()
    machine = f"{platform.machine()} CPU, torch {torch.__version__}"
    return prove_in_parts("oscar", PARTS, code_key(), out_dir, quick, table, machine=machine)


def table(result: dict[str, Any]) -> list[str]:
    """The proof as Markdown."""
    lines = [
        "# Proof: OSCAR-2B",
        "",
        f"Golden tensors of the reference, tiny random weights, float32. {result['machine']}; "
        f"{'reduced' if result['quick'] else 'full'} counts. Everything holds: {'yes' if result['holds'] else 'NO'}.",
        "",
        "| parity | max abs difference | hold |",
        "|---|---|---|",
    ]
    for name, row in result["parity"]["rows"].items():
        hold = "exact" if row["hold"] == 0 else f"{row['hold']:.0e}"
        lines.append(f"| {name} | {row['difference']:.1e} | {hold} |")
    sizes, checkpoint = result["other_sizes"], result["checkpoint"]
    lines += [
        f"| forward, {sizes['architectures']} random architectures, against diffusers' class | "
        f"{sizes['largest_difference']:.1e} | {sizes['hold']:.0e} |",
        f"| guided loop from the distributed checkpoint and a .pth VAE | {checkpoint['dcp_and_pth_vae']:.1e} | 1e-04 |",
        f"| bf16 checkpoint against rounded weights | {checkpoint['bf16_variant_against_rounded_weights']:.1e} | exact |",
        "",
        "| control that must fail | max abs difference | must exceed |",
        "|---|---|---|",
    ]
    above = result["controls"]["hold_above"]
    lines += [f"| {name} | {value:.1e} | {above:.0e} |" for name, value in result["controls"]["rows"].items()]
    takes, bad, keys = result["independence"], result["refused"], checkpoint["full_size_keys"]
    lines += [
        "",
        f"- Full-size key list: {keys['source']} keys, {keys['mapped']} mapped, {keys['dropped']} dropped, none left over.",
        f"- List of N against N single calls: {takes['takes_equal']} of {takes['takes_compared']} takes equal bit for bit.",
        f"- Cached prompts equal fresh ones: {'yes' if takes['cached_prompts_equal'] else 'NO'} "
        f"({takes['text_encodes']['fresh']} text encodes against {takes['text_encodes']['cached']}).",
        f"- Bad input: {bad['refused']} of {bad['cases']} cases refused with one line and nothing left behind.",
        "",
        "```",
        *result["cost"]["lines"],
        "```",
    ]
    return lines
