# SPDX-License-Identifier: Apache-2.0
"""Does it run on this card, and how fast? One command on a bare CUDA machine: no downloads, full-size random weights.

    python scripts/gpu_acceptance.py                    # docs/proof/gpu.json and a table, in at most 8 minutes
    python scripts/gpu_acceptance.py --wheels DIR       # with wheels carried along (everything but torch), nothing installed
    python scripts/gpu_acceptance.py --tiny --device cpu --out FILE   # tries the script itself, anywhere

Every part has a budget of seconds and writes what it found at once; what does not fit is named, not guessed. Seconds per
take are measured where a whole take fits the budget, else put together from measured stages and forwards and marked so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 480.0
FIRST_FRAMES = ("z-image", "flux2-klein", "sdxl", "qwen-edit")
PRETENDED_GIB = (8, 12, 16)


class UnavailableError(Exception):
    """A part that this machine cannot do, in words."""


@dataclass
class Bench:
    """What all parts share: the device, sizes, and a model that is made once."""

    device: Any
    tiny: bool
    ends: float
    part_ends: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)
    _pipe: Any = None

    @property
    def frames(self) -> int:
        return 5 if self.tiny else 81

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return (64, 64) if self.tiny else (480, 640)

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"

    @property
    def grid(self) -> tuple[int, int, int]:
        return (self.frames - 1) // 4 + 1, self.size[0] // 16, self.size[1] // 16

    @property
    def tokens(self) -> int:
        t, h, w = self.grid
        return t * h * w

    def left(self) -> float:
        """Seconds left to this part."""
        return min(self.part_ends, self.ends) - time.monotonic()

    def wait(self) -> None:
        if self.on_card:
            import torch

            torch.cuda.synchronize(self.device)

    def timed(self, run: Callable[[], Any], least: int = 3, seconds: float = 2.0) -> float:
        """Median seconds of a call, warm."""
        run()
        self.wait()
        found, began = [], time.perf_counter()
        while len(found) < least or (time.perf_counter() - began < seconds and len(found) < 50):
            started = time.perf_counter()
            run()
            self.wait()
            found.append(time.perf_counter() - started)
            if self.left() < found[-1]:
                break
        return sorted(found)[len(found) // 2]

    def pipe(self) -> Any:
        """The full-size pipeline with random weights, exact and resident."""
        from retake.worker.oscar import bench

        if self._pipe is None:
            import torch

            sizes = (bench.TINY_TRANSFORMER, bench.TINY_VAE) if self.tiny else (bench.FULL_TRANSFORMER, bench.FULL_VAE)
            self._pipe = bench.random_pipeline(*sizes, torch.bfloat16, self.device)
        self._pipe.enable_memory_tier("resident", self.device)
        return self._pipe

    def drop(self) -> None:
        """Let go of the model."""
        self._pipe = None
        self.clean()

    def clean(self) -> None:
        import torch

        gc.collect()
        if self.on_card:
            torch.cuda.empty_cache()

    def call(self, pipe: Any, **changes: Any) -> dict[str, Any]:
        from retake.worker.oscar import bench

        height, width = self.size
        first, skeleton = bench.random_input(self.frames, height, width)
        return {
            "first_frame": first, "skeleton": skeleton, "prompt_embeds": bench.random_prompt(pipe),
            "negative_prompt_embeds": bench.random_prompt(pipe, seed=1), "num_frames": self.frames, "height": height,
            "width": width, "num_inference_steps": 1, **changes,
        }  # fmt: skip

    def forward(self, pipe: Any) -> Callable[[], Any]:
        """One evaluation of the network as the sampling loop calls it."""
        import torch

        model, (t, h, w) = pipe.transformer, self.grid
        latents = torch.randn(1, 16, t, 2 * h, 2 * w, device=self.device)
        mask, times = torch.zeros_like(latents[:, :1]), torch.full((1, t), 0.5, device=self.device)
        width = model.config["num_attention_heads"] * model.config["attention_head_dim"]
        control = torch.randn(1, self.tokens, width, device=self.device, dtype=model.dtype)
        text = torch.randn(1, 512, model.config["text_embed_dim"], device=self.device, dtype=model.dtype)

        @torch.no_grad()
        def run() -> Any:
            return model(
                latents, times, text, condition_mask=mask, control_tokens=control, text_is_projected=True
            ).sample

        return run


def environment(b: Bench) -> dict[str, Any]:
    """What is here."""
    import importlib.metadata
    import importlib.util

    import torch

    from retake.worker.gpu import NvmlProbe

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
    }
    for package in (
        "diffusers",
        "transformers",
        "triton",
        "flash_attn",
        "flash_attn_interface",
        "sageattention",
        "torchao",
        "peft",
    ):
        known = importlib.util.find_spec(package)
        try:
            found[package] = importlib.metadata.version(package.replace("_", "-")) if known else None
        except importlib.metadata.PackageNotFoundError:
            found[package] = "here"
    if b.on_card:
        card = torch.cuda.get_device_properties(b.device)
        found |= {"device": card.name, "capability": f"{card.major}.{card.minor}", "gib": card.total_memory / 2**30,
                  "cuda": torch.version.cuda, "nvml_cards": len(NvmlProbe().read())}  # fmt: skip
    else:
        found |= {"device": str(b.device)}
    return found


def ceilings(b: Bench) -> dict[str, Any]:
    """The card's own rates: matrix products and copies, to hold everything else against."""
    import torch

    n = 256 if b.tiny else 8192
    x, y = (torch.randn(n, n, device=b.device, dtype=torch.bfloat16) for _ in range(2))
    found: dict[str, Any] = {"matmul_bf16_tflops": 2 * n**3 / b.timed(lambda: torch.mm(x, y)) / 1e12}
    try:
        from retake.worker.oscar.fp8 import quantise

        (p, ps), (q, qs) = quantise(x), quantise(y)
        product = lambda: torch._scaled_mm(p, q.t(), ps, qs.t().contiguous(), out_dtype=torch.bfloat16)  # noqa: E731
        found["matmul_fp8_tflops"] = 2 * n**3 / b.timed(product) / 1e12
    except (RuntimeError, NotImplementedError) as error:
        found["matmul_fp8"] = f"not here: {str(error).splitlines()[0]}"
    size = 1 << (20 if b.tiny else 30)
    source = torch.empty(size, dtype=torch.uint8, device=b.device)
    target = torch.empty_like(source)
    found["copy_on_device_gb_s"] = 2 * size / b.timed(lambda: target.copy_(source)) / 1e9
    if b.on_card:
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        found["copy_to_device_gb_s"] = size / b.timed(lambda: target.copy_(host, non_blocking=True)) / 1e9
    return found


def kernels(b: Bench) -> dict[str, Any]:
    """One forward with reference and fused kernels, and how far apart they are."""
    from retake.worker.oscar import fused
    from retake.worker.oscar.costs import forward_cost, meta_transformer
    from retake.worker.oscar.stepcache import relative_error

    pipe = b.pipe()
    found: dict[str, Any] = {
        "body": fused.bodies(b.device.type),
        "check": fused.disagreement(b.device, pipe.transformer.dtype),
    }
    run = b.forward(pipe)
    flops = forward_cost(
        meta_transformer(dict(_settings(pipe)), pipe.transformer.dtype), b.grid[0], 2 * b.grid[1], 2 * b.grid[2], 1
    ).flops
    for name in fused.KERNELS:
        if name == "fused" and found["check"]:
            continue
        pipe.use_kernels(name)
        out = run()
        seconds = b.timed(run)
        found[name] = {"seconds": seconds, "tflops": flops / seconds / 1e12, "tokens_per_s": b.tokens / seconds}
        if name == "reference":
            reference = out.cpu()
        else:
            found["relative_difference"] = relative_error(out.cpu(), reference)
    matmul = b.results.get("ceilings", {}).get("matmul_bf16_tflops")
    for name in fused.KERNELS:
        if matmul and name in found:
            found[name]["of_matmul_rate"] = found[name]["tflops"] / matmul
    return found


def _settings(pipe: Any) -> dict[str, Any]:
    from retake.worker.oscar.planner import _TRANSFORMER_SETTINGS

    return {name: pipe.transformer.config[name] for name in _TRANSFORMER_SETTINGS}


def attention(b: Bench) -> dict[str, Any]:
    """Every attention kernel at the model's size: exact ones, quantised ones, sparse patterns."""
    import torch
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    from retake.worker.oscar import backends, sparse

    config = b.pipe().transformer.config
    heads, dim = config["num_attention_heads"], config["attention_head_dim"]
    q = torch.randn(1, b.tokens, heads, dim, device=b.device, dtype=torch.bfloat16)
    flops, found = 4 * heads * dim * b.tokens**2, {}
    for name in (*backends.EXACT_BACKENDS, *backends.QUANTISED_BACKENDS):
        if reason := backends.obstacle(name):
            found[name] = f"not here: {reason}"
            continue
        try:
            seconds = b.timed(lambda name=name: dispatch_attention_fn(q, q, q, backend=name), seconds=0.5)
            found[name] = {"seconds": seconds, "tflops": flops / seconds / 1e12}
        except Exception as error:
            found[name] = f"not here: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    for kind in sparse.KINDS:
        if b.left() < 5:
            found[kind] = "no time left"
            continue
        pattern = sparse.Pattern(kind, 1, b.grid)
        try:
            seconds = b.timed(lambda pattern=pattern: sparse.attention(q, q, q, pattern), seconds=0.5)
            found[f"sparse-{kind}"] = {"seconds": seconds, "density": pattern.density()}
        except Exception as error:
            found[f"sparse-{kind}"] = f"not here: {str(error).splitlines()[0]}"
    return found


def tiers(b: Bench) -> dict[str, Any]:
    """Seconds per take and per stage, and peak GiB, in every tier: one short take each, put together to 35 steps."""
    from retake.worker.oscar import backends
    from retake.worker.oscar.tiers import TIERS

    pipe, found = b.pipe(), {}
    pipe.use_kernels("auto")
    backend, _ = backends.select_backend(pipe.transformer, b.tokens, b.device)
    for tier in TIERS:
        if b.left() < 10:
            found[tier.name] = "no time left"
            continue
        pipe.enable_memory_tier(tier.name, b.device)
        stages = []
        for steps in (1, 3):
            pipe.control_latents.clear()
            stages.append(pipe(**b.call(pipe, num_inference_steps=steps)).stats)
        step = (stages[1].seconds["denoise"] - stages[0].seconds["denoise"]) / 2
        whole = {**stages[1].seconds, "denoise": stages[0].seconds["denoise"] + 34 * step}
        found[tier.name] = {
            "seconds_per_take": sum(whole.values()), "how": "stages measured, 36 steps put together from 2 and 4",
            "stages": whole, "peak_gib": stages[1].peak_device_bytes / 2**30, "attention": backend, "kernels": pipe.kernels,
        }  # fmt: skip
    pipe.enable_memory_tier("resident", b.device)
    return found


def whole_take(b: Bench) -> dict[str, Any]:
    """One take of 35 steps, measured from end to end."""
    expected = b.results.get("tiers", {}).get("resident", {})
    expected = expected.get("seconds_per_take", 0.0) if isinstance(expected, dict) else 0.0
    if expected > b.left():
        raise UnavailableError(
            f"a whole take is expected to need {expected:.0f} s, {b.left():.0f} s are left to this part"
        )
    pipe = b.pipe()
    started = time.perf_counter()
    out = pipe(**b.call(pipe, num_inference_steps=3 if b.tiny else 35))
    return {"seconds": time.perf_counter() - started, "stages": out.stats.seconds, "tier": out.tier,
            "evaluations": out.stats.evaluations, "peak_gib": out.stats.peak_device_bytes / 2**30}  # fmt: skip


def determinism(b: Bench) -> dict[str, Any]:
    """The same seed twice gives the same bytes, with deterministic kernels."""
    import numpy as np
    import torch

    from retake.worker.oscar.backends import set_backend

    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        pipe = b.pipe()
        set_backend(pipe.transformer, "native")
        first, second = (pipe(**b.call(pipe, seed=7, num_inference_steps=2)).frames for _ in range(2))
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
    return {"equal": bool(np.array_equal(first, second)), "differing_values": int((first != second).sum())}


def pretended_memory(b: Bench) -> dict[str, Any]:
    """What is planned and what is used where only so much of the card's memory may be."""
    import torch

    if not b.on_card:
        raise UnavailableError("pretended memory sizes need a CUDA device")
    total, found = torch.cuda.get_device_properties(b.device).total_memory, {}
    try:
        for gib in PRETENDED_GIB:
            if gib * 2**30 >= total or b.left() < 10:
                found[f"{gib} GiB"] = "the card has no more" if gib * 2**30 >= total else "no time left"
                continue
            pipe = b.pipe()
            pipe.release_memory()
            b.clean()
            torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total, b.device)
            tier = pipe.enable_planned_memory(b.device, *b.size, b.frames, free_bytes=gib * 2**30).name
            began = time.perf_counter()
            stats = pipe(**b.call(pipe, num_inference_steps=2)).stats
            found[f"{gib} GiB"] = {"planned": tier, "ran": pipe.tier.name, "seconds_of_3_steps": time.perf_counter() - began,
                                   "stages": stats.seconds, "peak_gib": stats.peak_device_bytes / 2**30}  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, b.device)
    return found


def float8(b: Bench) -> dict[str, Any]:
    """One forward with float8 products. The weights are rounded: a model of its own."""
    from retake.worker.oscar.fp8 import obstacle

    if reason := obstacle(b.device):
        raise UnavailableError(reason)
    pipe = b.pipe()
    pipe.use_kernels("auto")
    exact = b.timed(b.forward(pipe))
    pipe.enable_approximation("fp8")
    seconds = b.timed(b.forward(pipe))
    b.drop()
    return {"seconds": seconds, "of_exact": seconds / exact}


def compiled(b: Bench) -> dict[str, Any]:
    """torch.compile of the repeated block: how long it takes, what it gains."""
    pipe = b.pipe()
    pipe.use_kernels("reference")
    run = b.forward(pipe)
    before = b.timed(run)
    pipe.enable_compile()
    started = time.perf_counter()
    run()
    b.wait()
    compile_s = time.perf_counter() - started
    after = b.timed(run)
    b.drop()
    return {"compile_seconds": compile_s, "seconds": after, "of_eager": after / before}


def lora_step(b: Bench) -> dict[str, Any]:
    """One training step of an adapter on the full-size model."""
    import importlib.util

    import torch

    if importlib.util.find_spec("peft") is None:
        raise UnavailableError("a LoRA step needs peft (the `tune` extra), which is not installed here")
    from retake.worker.tune.config import LoraSettings, TuneConfig
    from retake.worker.tune.step import Batch, Tuner

    if b.on_card and not b.tiny and torch.cuda.mem_get_info(b.device)[0] < 40 * 2**30:
        raise UnavailableError("a LoRA step is tried where 40 GiB are free")
    pipe = b.pipe()
    pipe.use_kernels("reference")
    t, h, w = b.grid
    shape = (1, 16, t, 2 * h, 2 * w)
    make = lambda *size: torch.randn(*size, device=b.device)  # noqa: E731
    batch = Batch(make(*shape), make(*shape), make(1, 512, pipe.transformer.config["text_embed_dim"]))
    tuner = Tuner(pipe.transformer, TuneConfig(lora=LoraSettings(), gradient_checkpointing=True))
    tuner.step(batch)
    b.wait()
    if b.on_card:
        torch.cuda.reset_peak_memory_stats(b.device)
    started = time.perf_counter()
    tuner.step(batch)
    b.wait()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(b.device) / 2**30 if b.on_card else None
    b.drop()
    return {"seconds": seconds, "peak_gib": peak}


def first_frames(b: Bench) -> dict[str, Any]:
    """First-frame models at full size with random weights: seconds of a picture and peak GiB."""
    import numpy as np
    import torch

    from retake.worker.first_frame.random_models import random_backend

    b.drop()
    found: dict[str, Any] = {}
    for name in FIRST_FRAMES[:1] if b.tiny else FIRST_FRAMES:
        if b.left() < 30 and not b.tiny:
            found[name] = "no time left"
            continue
        try:
            if b.on_card:
                torch.cuda.reset_peak_memory_stats(b.device)
            made = random_backend(
                name,
                "tiny" if b.tiny else "full",
                str(b.device),
                **({"steps": 1, "pixels": 128 * 128} if b.tiny else {}),
            )
            pipe = made.ready_pipeline()
            size = 128 if b.tiny else 1024
            grey = np.full((size, size, 3), 127, np.uint8)
            from PIL import Image

            parts = {"prompt": "a kitchen", "num_inference_steps": 1 if b.tiny else made.steps, "height": size, "width": size,
                     "output_type": "np"}  # fmt: skip
            picture = Image.fromarray(grey)
            painted = {"image": picture, "mask_image": picture}
            extra: dict[str, Any] = {
                "z-image": {**painted, "control_image": picture},
                "sdxl": {**painted, "control_image": [picture], "control_mode": [0]},
                "qwen-edit": {"image": [picture]},
                "flux2-klein": {"image": [picture]},
            }[name]
            started = time.perf_counter()
            pipe(**parts, **extra)
            b.wait()
            found[name] = {"seconds": time.perf_counter() - started, "steps": parts["num_inference_steps"],
                           "peak_gib": torch.cuda.max_memory_allocated(b.device) / 2**30 if b.on_card else None}  # fmt: skip
            made.close()
        except Exception as error:
            found[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        b.clean()
    return found


PARTS: dict[str, tuple[Callable[[Bench], dict[str, Any]], float]] = {
    "environment": (environment, 10),
    "ceilings": (ceilings, 20),
    "kernels": (kernels, 40),
    "attention": (attention, 40),
    "tiers": (tiers, 110),
    "whole_take": (whole_take, 60),
    "determinism": (determinism, 20),
    "pretended_memory": (pretended_memory, 50),
    "compiled": (compiled, 60),
    "float8": (float8, 15),
    "lora_step": (lora_step, 20),
    "first_frames": (first_frames, 90),
}
"""Part → (what it does, its budget in seconds). In order of worth: what comes last is what a short run lacks."""


def write(out: Path, results: dict[str, Any]) -> None:
    """Atomically, with plain values."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(temporary, out)


def table(results: dict[str, Any]) -> list[str]:
    """What a person reads."""
    here = results.get("environment", {})
    lines = [f"{here.get('device', '?')}, torch {here.get('torch', '?')}; {results.get('seconds', 0):.0f} s in all"]

    def show(name: str, value: Any, depth: int) -> None:
        pad = "  " * depth
        if isinstance(value, dict):
            plain = {k: v for k, v in value.items() if not isinstance(v, dict)}
            text = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items())
            lines.append(f"{pad}{name}: {text}" if text else f"{pad}{name}")
            for key, inner in value.items():
                if isinstance(inner, dict):
                    show(key, inner, depth + 1)
        else:
            lines.append(f"{pad}{name}: {value}")

    for name in PARTS:
        if name in results:
            show(name, results[name], 0)
        else:
            lines.append(f"{name}: no time left")
    return lines


def run(device: Any, tiny: bool, out: Path, limit_s: float, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """All parts within the limit; the report is whole after each of them."""
    began = time.monotonic()
    b = Bench(device, tiny, began + limit_s)
    results = b.results
    results |= {"schema": "retake.gpu/1", "tiny": tiny, "limit_s": limit_s}
    for name, (part, budget) in PARTS.items():
        if only and name not in only:
            continue
        if b.ends - time.monotonic() < min(5.0, budget / 4):
            results[name] = "no time left"
            continue
        b.part_ends = time.monotonic() + budget
        print(f"  {name}", flush=True)
        try:
            found: Any = part(b)
        except UnavailableError as reason:
            found = f"not here: {reason}"
        except Exception as error:
            traceback.print_exc()
            found = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            b.drop()
        results[name] = found
        results["seconds"] = time.monotonic() - began
        write(out, results)
    return results


def carried(folder: Path) -> None:
    """Unpack wheels into a folder of this run and import from there; nothing is installed or fetched."""
    wheels = sorted(str(path) for path in folder.glob("*.whl"))
    if not wheels:
        sys.exit(f"no wheels (*.whl) in {folder}")
    target = tempfile.mkdtemp(prefix="retake-wheels-")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, *wheels],
        check=True,
    )
    sys.path.insert(0, target)


def main(argv: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models: tries the script, measures nothing of worth")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof" / "gpu.json")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds in all")
    parser.add_argument("--only", default="", help="parts, with commas")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that this machine lacks")
    arguments = parser.parse_args(argv)
    if arguments.wheels is not None:
        carried(arguments.wheels)
    sys.path[:0] = [str(folder) for folder in sorted((ROOT / "exts").glob("retake.*"))]
    import torch

    if arguments.tiny and arguments.out.resolve() == (ROOT / "docs" / "proof" / "gpu.json").resolve():
        parser.error("--tiny measures nothing that belongs into docs/proof; name another --out")
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is here; --tiny --device cpu --out FILE tries the script itself")
    only = tuple(part for part in arguments.only.split(",") if part)
    if unknown := [part for part in only if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; valid: {', '.join(PARTS)}")

    def give_up() -> None:
        print(f"stopped after {arguments.limit:.0f} s with what is in {arguments.out}", flush=True)
        os._exit(0)

    watch = threading.Timer(arguments.limit, give_up)  # a part that hangs in a kernel hears nothing else
    watch.daemon = True
    watch.start()
    try:
        results = run(torch.device(arguments.device), arguments.tiny, arguments.out, arguments.limit, only)
    finally:
        watch.cancel()
    print("\n".join(table(results)))
    failed = [name for name, found in results.items() if isinstance(found, str) and found.startswith("failed")]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
