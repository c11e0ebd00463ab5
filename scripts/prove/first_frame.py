# SPDX-License-Identifier: Apache-2.0
"""Proof of the diffusion first-frame backends: every real pipeline class, tiny random models, many worlds.

| what                                                              | bound                                  |
|-------------------------------------------------------------------|----------------------------------------|
| robot pixels before relighting, every backend, world and frame    | bit-equal to the simulation            |
| edges inside the robot mask after relighting (structure F1)       | >= 0.98                                |
| gain of the relit robot                                           | 0.5 … 1.8, within 8-bit rounding       |
| depth, normals, instance ids, picture of the source               | unchanged                              |
| same seed                                                         | same pixels                            |
| memory tiers against the plain run, every backend                 | at most 1 of 255                       |

The models have random weights: these figures are about what surrounds them (masks, sizes, lock, seeds, memory), not
about how their pictures look. Parameters at the published sizes are counted on the meta device.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "worker"))
from first_frame_support import NAMES, Guardrail
from scenes import make_scene_episode

from retake.core.files import read_json, write_bytes, write_json
from retake.core.variants import image_backend, sample_worlds, source_frame
from retake.core.variants.controls import control_maps
from retake.core.variants.edges import structure_f1
from retake.core.variants.lock import GAIN_BOUNDS
from retake.worker.first_frame import memory
from retake.worker.first_frame.cosmos_transfer import STILL_FRAMES
from retake.worker.first_frame.random_models import parameters, write_tiny

ROOT = Path(__file__).resolve().parents[2]
CAPTURE, FRAMES = (320, 240), (0, 9)  # frames of twelve: before the grasp and after the release
PIXELS = {"flux2-klein": 320 * 256, "cosmos-transfer": 96 * 64}


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run everything (a backend that is in the cache is not run again); write first_frame.json and first_frame.md."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    torch.set_num_threads(1)
    plus.VAE_IMAGE_SIZE, plus.CONDITION_IMAGE_SIZE = 160 * 128, 112 * 112
    cache = ROOT / ".cache" / ("prove_first_frame_quick" if quick else "prove_first_frame")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            kept = cache / f"{name}.json"
            if not kept.is_file():
                print(f"  {name}", flush=True)
                write_json(kept, _row(name, Path(folder), 2 if quick else 10))
            rows.append(read_json(kept))
    counted = cache / "counted.json"
    if not counted.is_file():
        print("  counting", flush=True)
        sizes = {name: parameters(name) for name in NAMES}
        write_json(counted, {"parameters": sizes, "forward_tflop": {} if quick else _forwards()})
    report = {"backends": rows, **read_json(counted)}
    write_json(out_dir / "first_frame.json", report)
    write_bytes(out_dir / "first_frame.md", "\n".join(_lines(report)).encode() + b"\n")
    bad = [row["backend"] for row in rows if not row["holds"]]
    if bad:
        raise SystemExit(f"does not hold: {', '.join(bad)}")
    return report


def _row(name: str, folder: Path, worlds: int) -> dict[str, Any]:
    episode = make_scene_episode(folder / f"episode-{name}", frames=12, size=CAPTURE, only=FRAMES)
    options: dict[str, Any] = {
        **write_tiny(name, folder / name), "steps": 2, "device": "cpu", "pixels": PIXELS.get(name, 160 * 128),
    }  # fmt: skip
    if name == "cosmos-transfer":
        options["safety_checker"] = Guardrail()
    backend: Any = image_backend(name, **options)
    pictures = unequal = changed = again = 0
    f1, low, high, shares = [], 9.0, 0.0, []
    for number, world in enumerate(sample_worlds(worlds, 7)):
        source = source_frame(episode, "front", number % 2)
        keep = control_maps(source).keep
        before = [a.tobytes() for a in (source.rgb, source.depth_m, source.normals, source.instance_ids)]
        lit = backend.render(source, world, number)
        backend.relight = False
        plain = backend.render(source, world, number)
        backend.relight = True
        pictures += 1
        unequal += int((plain[keep] != source.rgb[keep]).sum())
        f1.append(structure_f1(lit, source.rgb, keep))
        shares.append(backend.report.get("relight_share", 1.0))
        # Where rounding to bytes is less than 2 % and nothing was clipped.
        clear = keep & (source.rgb.min(-1) >= 50) & (lit.max(-1) < 255)
        if clear.any():
            ratio = lit[clear] / source.rgb[clear]
            low, high = min(low, float(ratio.min())), max(high, float(ratio.max()))
        changed += before != [a.tobytes() for a in (source.rgb, source.depth_m, source.normals, source.instance_ids)]
        if number == 0:
            again = int((backend.render(source, world, number) != lit).sum())
    tiers = {}
    source, world = source_frame(episode, "front", 0), sample_worlds(1, 7)[0]
    wanted = backend.render(source, world, 0).astype(int)
    for tier in memory.TIERS:
        other: Any = image_backend(name, **options, tier=tier)
        tiers[tier] = int(np.abs(other.render(source, world, 0) - wanted).max())
    pipe = type(backend.ready_pipeline()).__name__
    holds = (
        not unequal and min(f1) >= 0.98 and not changed and not again and max(tiers.values()) <= 1
        and low >= GAIN_BOUNDS[0] - 0.02 and high <= GAIN_BOUNDS[1] + 0.02
    )  # fmt: skip
    return {
        "backend": name, "pipeline": pipe, "pictures": pictures, "unequal_robot_values": unequal, "f1_min": min(f1),
        "gain": [round(low, 3), round(high, 3)], "sources_changed": changed, "other_pixels_same_seed": again,
        "tiers_max_difference": tiers, "light_taken_mean": round(float(np.mean(shares)), 2), "holds": holds,
    }  # fmt: skip


def _forwards() -> dict[str, Any]:
    """TFLOP of one forward of each denoiser (without its control network) for a 640x480 camera at its default size,
    counted on the meta device."""
    from retake.worker.first_frame.random_models import FULL, build
    from retake.worker.oscar.meter import measure

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=torch.bfloat16)

    def network(name: str, component: str) -> Any:
        with torch.device("meta"):
            return torch.nn.Module.to(build(*FULL[name][component]), torch.bfloat16)

    def ids(count: int) -> torch.Tensor:
        return torch.empty(1, count, 4, device="meta")

    klein, qwen, image, sdxl = (
        network(name, part)
        for name, part in (
            ("flux2-klein", "transformer"), ("qwen-edit", "transformer"), ("z-image", "transformer"), ("sdxl", "unet"),
        )
    )  # fmt: skip
    # 1152x864: 72 x 54 tokens of 16 px; Qwen works at 1184x896 and reads two references beside its own tokens.
    tokens, grid = 72 * 54, (1, 896 // 16, 1184 // 16)
    pooled = {"text_embeds": empty(2, 1280), "time_ids": empty(2, 6)}
    forwards = {
        "z-image": lambda: image([empty(16, 1, 108, 144)], empty(1), [empty(160, 2560)]),
        "flux2-klein": lambda: klein(
            hidden_states=empty(1, 2 * tokens, 128), timestep=empty(1), encoder_hidden_states=empty(1, 512, 7680),
            txt_ids=ids(512), img_ids=ids(2 * tokens), guidance=None, return_dict=False,
        ),
        "qwen-edit": lambda: qwen(
            hidden_states=empty(1, 3 * grid[1] * grid[2], 64), timestep=empty(1), img_shapes=[[grid] * 3],
            encoder_hidden_states=empty(1, 900, 3584), encoder_hidden_states_mask=None, return_dict=False,
        ),
        "sdxl": lambda: sdxl(
            empty(2, 4, 108, 144), torch.empty((), device="meta"), encoder_hidden_states=empty(2, 77, 2048),
            added_cond_kwargs=pooled, return_dict=False,
        ),
    }  # fmt: skip
    with torch.no_grad():
        return {name: round(measure(run).flops / 1e12, 1) for name, run in forwards.items()}


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [
        "# Diffusion first frames: proof",
        "",
        "`make prove` (scripts/prove/first_frame.py). Real pipeline classes of diffusers with tiny random weights, written "
        f"and loaded as model folders; {CAPTURE[0]}x{CAPTURE[1]} captures, CPU, float32. Nothing here was run on a GPU.",
        "",
        "| backend | pipeline | pictures | robot values that differ before relighting | structure F1, least | gain | "
        "changed sources | same seed, other values | tiers, largest difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["backends"]:
        tiers = ", ".join(f"{tier} {value}" for tier, value in row["tiers_max_difference"].items())
        lines.append(
            f"| {row['backend']} | {row['pipeline']} | {row['pictures']} | {row['unequal_robot_values']} | {row['f1_min']:.3f} | "
            f"{row['gain'][0]} … {row['gain'][1]} | {row['sources_changed']} | {row['other_pixels_same_seed']} | {tiers} |"
        )
    lines += ["", "Planted errors in what reaches the pipeline: `tests/worker/test_first_frame.py`.", ""]
    lines += [
        "## Parameters at the published sizes",
        "",
        "Counted on the meta device, in 10⁹; no weights were loaded.",
        "",
    ]
    lines += [
        "| backend | components | GiB in bfloat16 | expected GiB on the card: resident, model-offload, group-offload |"
    ]
    lines += ["|---|---|---|---|"]
    for name, counts in report["parameters"].items():
        parts = ", ".join(f"{part} {count / 1e9:.2f}" for part, count in counts.items())
        pixels, frames = (1280 * 704, STILL_FRAMES) if name == "cosmos-transfer" else (1_000_000, 1)
        needed = memory.needed(counts, pixels, frames=frames)
        size = 2 * sum(counts.values()) / memory.GIB
        lines.append(
            f"| {name} | {parts} | {size:.1f} | {', '.join(f'{needed[t] / memory.GIB:.1f}' for t in memory.TIERS)} |"
        )
    lines += ["", "## One forward of the denoiser", ""]
    lines += [
        "TFLOP for a 640x480 camera at the default size, without control network, text encoder and decoder; counted.",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in report["forward_tflop"].items()]
    return lines
