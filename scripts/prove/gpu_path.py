# SPDX-License-Identifier: Apache-2.0
"""Proof of the GPU path without a GPU: wiring on a pretended CUDA machine, faults at every stage and step, what elementwise
work moves, one graph per block, and what approximate modes cost on tiny weights.

Runs in .venv-worker. Writes gpu_path.json and gpu_path.md; finished rows are kept in gpu_path.partial.json, so an
interrupted proof goes on where it stopped (and starts anew when the code changed).
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "worker")]

import cuda_faults as faults  # noqa: E402
import oscar_golden as golden  # noqa: E402
import pretend_cuda  # noqa: E402

from retake.core.files import sha256_bytes, write_bytes, write_json  # noqa: E402
from retake.worker import memory  # noqa: E402
from retake.worker.oscar import bench, costs, fused, quality, stepcache  # noqa: E402
from retake.worker.oscar.tiers import TIERS  # noqa: E402

Rows = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
COMPUTES_ALIKE = ("resident-overlap", "resident", "staged")
"""Tiers with the same arithmetic: a take that falls from one to another keeps its bits."""


def memory_faults(quick: bool) -> Rows:
    """Out of memory at every stage and step, in every tier; each kind of message in turn."""
    places = faults.places()
    chosen = places[:: len(places) // 3] if quick else places
    for number, (place, visit) in enumerate(chosen):
        for tier in faults.TIER_NAMES[2:3] if quick else faults.TIER_NAMES:
            message = faults.MESSAGES[number % len(faults.MESSAGES)]

            def run(tier: str = tier, place: str = place, visit: int = visit, message: str = message) -> dict[str, Any]:
                with pytest.MonkeyPatch.context() as patch:
                    found = faults.out_of_memory(patch, tier, place, visit, 5, message)
                frames = found.pop("frames")
                ran_on = next((after.name for before, after in pairwise(TIERS) if before.name == tier), tier)
                alike = tier in COMPUTES_ALIKE and ran_on in COMPUTES_ALIKE
                equal = bool(np.array_equal(frames, faults.undisturbed("resident"))) if alike else None
                lost = (
                    found["evaluations"] - 2 * len(faults.SEEDS) * 2 * (faults.STEPS + 1)
                    if tier != faults.TIER_NAMES[-1]
                    else 0
                )
                return {**found, "equal": equal, "lost_forwards": lost,
                        "holds": equal is not False and lost == 0}  # fmt: skip

            yield f"{tier} / {place} / {visit}", run


def taken_memory(quick: bool) -> Rows:
    """Another process takes the card's memory when a take is in its middle."""
    for tier in faults.TIER_NAMES[2:3] if quick else faults.TIER_NAMES[:3]:
        for place in ("step 1",) if quick else ("encode", "step 0", "step 2", "decode"):

            def run(tier: str = tier, place: str = place) -> dict[str, Any]:
                with pytest.MonkeyPatch.context() as patch:
                    found = faults.memory_taken(patch, tier, place)
                return {
                    "ended_in": found["ended_in"],
                    "takes": len(found["frames"]),
                    "holds": len(found["frames"]) == 2,
                }

            yield f"{tier} / {place}", run


def broken_contexts(quick: bool) -> Rows:
    """A sticky error, and a card that disappears, at stages and steps."""
    for place in ("step 1",) if quick else ("encode", "step 0", "step 1", "step 3", "decode"):
        for message in faults.BROKEN:

            def run(place: str = place, message: str = message) -> dict[str, Any]:
                with pytest.MonkeyPatch.context() as patch:
                    return {**faults.broken_context(patch, place, message), "holds": True}

            yield f"{place} / {message}", run


def queue_faults(quick: bool) -> Rows:
    """The service with jobs that break their process's context or run out of memory, among jobs that do not."""

    def run() -> dict[str, Any]:
        import worker_scenarios as scenarios

        with tempfile.TemporaryDirectory() as folder:
            return {**scenarios.poisoned_contexts(Path(folder), 9 if quick else 30), "holds": True}

    yield "service", run


def elementwise(quick: bool) -> Rows:
    """Bytes that a full-size forward's elementwise work moves, and FLOPs, by kernels; counted on the meta device."""
    del quick

    def run() -> dict[str, Any]:
        moved = bench.elementwise_traffic()
        model = costs.meta_transformer(costs.FULL_TRANSFORMER, torch.bfloat16)
        flops = {}
        for kernels in fused.KERNELS:
            fused.set_kernels(model, kernels)
            flops[kernels] = costs.forward_cost(model, 21, 60, 80, 1).flops
        return {"gb": {name: value / 1e9 for name, value in moved.items()}, "flops": flops,
                "holds": moved["fused"] <= 120e9 and len(set(flops.values())) == 1}  # fmt: skip

    yield "81 frames of 480x640", run


def graphs(quick: bool) -> Rows:
    """What the compiler sees of a block: graphs, breaks, and how often other sizes compile anew."""
    del quick
    for kernels in fused.KERNELS:

        def run(kernels: str = kernels) -> dict[str, Any]:
            pipe = golden.pipeline()
            pipe.use_kernels(kernels)
            block = pipe.transformer.transformer_blocks[0]
            width, text = block.norm1.linear_1.in_features, pipe.transformer.config["text_embed_dim"]

            def inputs(frames: int) -> tuple[Any, ...]:
                rope = pipe.transformer.rope_tables(frames, 4, 4, torch.device("cpu"))
                return (torch.randn(1, 4 * frames, width), torch.randn(1, 5, text), torch.randn(1, frames, width),
                        torch.randn(1, frames, 3 * width), rope)  # fmt: skip

            with torch.no_grad():
                found = torch._dynamo.explain(block)(*inputs(2))
                torch._dynamo.reset()
                counter = torch._dynamo.testing.CompileCounter()
                compiled = torch.compile(block, backend=counter)
                seen = []
                for frames in (2, 2, 3, 5, 6):
                    compiled(*inputs(frames))
                    seen.append(counter.frame_count)
            torch._dynamo.reset()
            return {"graphs": found.graph_count, "breaks": found.graph_break_count, "compilations_by_sizes_2_2_3_5_6": seen,
                    "holds": (found.graph_count, found.graph_break_count) == (1, 0)}  # fmt: skip

        yield kernels, run


def fused_parity(quick: bool) -> Rows:
    """Fused kernels against the reference's tensors, float32 on the CPU."""
    del quick

    def run() -> dict[str, Any]:
        import test_oscar_parity as parity

        forward = golden.tensors("dit_forward")
        pipe = golden.pipeline()
        exact = parity.forward(pipe.transformer)
        pipe.use_kernels("fused")
        found = parity.forward(pipe.transformer)
        latents = pipe(**golden.golden_call(output_type="latent")).frames
        rows = {
            "forward, fused against reference kernels": golden.difference(found, exact),
            "forward, fused against the reference's tensors": golden.difference(found, forward["output"]),
            "guided loop, final latents": golden.difference(latents, golden.tensors("sampling_run")["latents_final"]),
        }
        return {
            "differences": rows,
            "holds": max(list(rows.values())[:2]) <= 1e-5 and rows["guided loop, final latents"] <= 1e-4,
        }

    yield "golden weights", run


def modes(quick: bool) -> Rows:
    """Approximate modes against exact takes of the same seeds, on tiny random weights."""

    def run() -> dict[str, Any]:
        frames, steps, seeds = (5, 6, (1,)) if quick else (5, 12, (1, 2))
        make = lambda: bench.random_pipeline(bench.TINY_TRANSFORMER, bench.TINY_VAE, torch.float32, "cpu")  # noqa: E731
        first, skeleton = bench.random_input(frames, 64, 64)
        pipe = make()
        call = {"first_frame": first, "skeleton": skeleton, "num_frames": frames, "height": 64, "width": 64,
                "num_inference_steps": steps, "prompt_embeds": bench.random_prompt(pipe, 12),
                "negative_prompt_embeds": bench.random_prompt(pipe, 12, 1)}  # fmt: skip
        latents = lambda seed: pipe(**{**call, "seed": seed, "output_type": "latent"}).frames  # noqa: E731
        found = stepcache.calibrate(pipe, latents, seeds[:1], 0.05, steps + 1, 6.0)
        rows = quality.compare(make, call, seeds, quality.default_modes(found))
        return {"frames": frames, "steps": steps, "seeds": list(seeds), "rows": quality.to_json(rows),
                "calibrated_on": list(found.seeds), "holds": rows[0].latent_error < 1e-4}  # fmt: skip

    yield "tiny random weights", run


PARTS: dict[str, Callable[[bool], Rows]] = {
    "fused_parity": fused_parity,
    "elementwise": elementwise,
    "graphs": graphs,
    "modes": modes,
    "queue_faults": queue_faults,
    "broken_contexts": broken_contexts,
    "taken_memory": taken_memory,
    "memory_faults": memory_faults,
}
"""In order of what a proof that is ended early should have."""


def code_key() -> str:
    """Changes with the code that is proved and with the proof."""
    files = [
        *sorted(Path(str(costs.__file__)).parent.glob("*.py")),
        *(Path(str(module.__file__)) for module in (memory, faults, pretend_cuda)),
        Path(__file__),
    ]
    return sha256_bytes(*(path.read_bytes() for path in files))


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run every row that is not yet there; write gpu_path.json and gpu_path.md. Raises SystemExit where one does not hold.

    $RETAKE_PROVE_SECONDS ends it early: the tables then say how many of how many rows were run.
    """
    ends = time.monotonic() + float(os.environ.get("RETAKE_PROVE_SECONDS", "inf"))
    torch.set_num_threads(1)
    disable_progress_bar()
    gc.freeze()  # imported modules: every stage of every take collects rubbish, a third of a row's time went into them
    partial, key = out_dir / "gpu_path.partial.json", [code_key(), quick]
    done: dict[str, dict[str, Any]] = {}
    if partial.is_file():
        stored = json.loads(partial.read_text(encoding="utf-8"))
        done = stored["parts"] if stored.get("key") == key else {}
    planned: dict[str, int] = {}
    for name, part in PARTS.items():
        rows = done.setdefault(name, {})
        everything = list(part(quick))
        planned[name] = len(everything)
        for row, run in everything:
            if row in rows or time.monotonic() > ends:
                continue
            started = time.monotonic()
            try:
                rows[row] = run()
            except Exception as error:  # a row that fails is a finding, not the end of the proof
                rows[row] = {"holds": False, "error": f"{type(error).__name__}: {error}"[:500]}
            print(
                f"  {name}: {row}: {'holds' if rows[row]['holds'] else 'DOES NOT HOLD'} ({time.monotonic() - started:.0f} s)",
                flush=True,
            )
            write_json(partial, {"key": key, "parts": done})
    wrong = [f"{name}: {row}" for name, rows in done.items() for row, found in rows.items() if not found["holds"]]
    result = {"proof": "gpu_path", "quick": quick, "machine": f"{platform.machine()} CPU, torch {torch.__version__}",
              "holds": not wrong, "wrong": wrong, "planned": planned, **done}  # fmt: skip
    write_json(out_dir / "gpu_path.json", result)
    write_bytes(out_dir / "gpu_path.md", ("\n".join(table(result)) + "\n").encode())
    if all(len(done[name]) == count for name, count in planned.items()):
        partial.unlink(missing_ok=True)
    if wrong:
        raise SystemExit(f"does not hold: {'; '.join(wrong)}")
    return result


def table(result: dict[str, Any]) -> list[str]:
    """The proof as Markdown."""
    traffic = result["elementwise"]["81 frames of 480x640"]
    differences = result["fused_parity"]["golden weights"]["differences"]
    run, wanted = sum(len(result[name]) for name in PARTS), sum(result["planned"].values())
    counts = f"{run} of {wanted} rows run" + (", reduced counts" if result["quick"] else "")
    lines = [
        "# The GPU path, without a GPU",
        "",
        f"{result['machine']}; {counts}. `python scripts/prove.py gpu_path`. A pretended CUDA machine",
        "(`tests/worker/pretend_cuda.py`) says which card each tensor is on; kernels, times and real memory of a card are",
        "not measured here.",
        "",
        "| fault | injected | outcome |",
        "|---|---|---|",
        *fault_rows(result),
        "",
        "| elementwise work of one full-size forward, bfloat16, counted on the meta device | GB read and written | TFLOP |",
        "|---|---|---|",
    ]
    for name, moved in traffic["gb"].items():
        lines.append(f"| kernels {name} | {moved:.1f} | {traffic['flops'][name] / 1e12:.2f} |")
    lines += ["", "| float32, CPU, golden weights | largest difference |", "|---|---|"]
    lines += [f"| {name} | {value:.1e} |" for name, value in differences.items()]
    lines += [
        "",
        "| kernels | graphs of a block | breaks | compilations after sizes 2, 2, 3, 5, 6 |",
        "|---|---|---|---|",
    ]
    for name, row in result["graphs"].items():
        lines.append(f"| {name} | {row['graphs']} | {row['breaks']} | {row['compilations_by_sizes_2_2_3_5_6']} |")
    lines += ["", *mode_rows(result["modes"]["tiny random weights"])]
    lines += ["", *reference_rows()]
    if result["wrong"]:
        lines += ["", f"**Does not hold:** {'; '.join(result['wrong'])}"]
    return lines


def fault_rows(result: dict[str, Any]) -> list[str]:
    """What was injected and what came of it."""
    faulty, queue = result["memory_faults"], result["queue_faults"]["service"]
    planned = result["planned"]
    alike = [row for row in faulty.values() if row.get("equal") is not None]
    twice = sum(row.get("lost_forwards", 0) for row in faulty.values())
    tiers = len({row.get("tier") for row in faulty.values()})
    return [
        f"| out of memory (three wordings), by stage, step and tier ({tiers} tiers) | {len(faulty)} of "
        f"{planned['memory_faults']} | every take once, {twice} forwards made twice; of {len(alike)} falls between tiers "
        f"that compute alike {sum(bool(row['equal']) for row in alike)} end in the same bytes |",
        f"| memory taken by another process in mid-take | {len(result['taken_memory'])} of {planned['taken_memory']} | every "
        "take once, in a lower tier |",
        f"| sticky error, card gone, in mid-take | {len(result['broken_contexts'])} | raised at once, never taken for lack of "
        "memory |",
        f"| service: contexts broken, memory short, among {queue.get('jobs')} jobs | {queue.get('faults')} | every take once, "
        f"{queue.get('attempts')} attempts, {queue.get('failed_for_another')} jobs failed for another's fault |",
    ]


def reference_rows() -> list[str]:
    """The faults that were found when the path was looked at, and the tests that failed before each was mended."""
    lines = ["| fault that was found | tests that fail with it |", "|---|---|"]
    for number, (fault, tests) in enumerate(faults.FOUND, start=1):
        named = "; ".join(f"`{file}`: {', '.join(names)}" for file, names in tests.items())
        lines.append(f"| {number}. {fault} | {named} |")
    return lines


def mode_rows(found: dict[str, Any]) -> list[str]:
    """What approximate modes cost on tiny weights."""
    lines = [
        f"Approximate modes against exact takes of the same {len(found['seeds'])} seeds, {found['frames']} frames, "
        f"{found['steps']} steps, tiny random weights: that modes work, not what they cost with real weights.",
        "",
        "| mode | latent error (relative RMS, worst seed) | PSNR, dB | forwards |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        if row["reason"]:
            lines.append(f"| {row['mode']} | not here: {row['reason']} | | |")
            continue
        psnr = "equal" if row["psnr_db"] is None else f"{row['psnr_db']:.1f}"
        lines.append(f"| {row['label'] or row['mode']} | {row['latent_error']:.1e} | {psnr} | {row['forwards']:.0%} |")
    return lines
