# SPDX-License-Identifier: Apache-2.0
"""Proof of variants and composite takes: geometry and robot kept, worlds diverse, gate sharp, background still.

| what                                                            | bound                              |
|-----------------------------------------------------------------|------------------------------------|
| 200 sampled worlds of the demo episode, through the gate        | every one delivered, every axis    |
|                                                                 | value used, no two alike           |
| edges inside the robot mask, every world and preset of it       | structure F1 >= 0.95, 1 px         |
| gate: planted faults, 14 kinds, wherever the view shows them    | every one caught                   |
| gate: false alarms on frames that set no limit                  | <= 1 % (95 % upper bound)          |
| take frame 0 against the variant frame, before encoding         | >= 40 dB                           |
| edges inside the robot mask, every third take frame             | >= 0.95                            |
| outline of the drawn object against the mask, same frames       | F1 >= 0.95, 1 px                   |
| static camera: pixels that no mover and no shadow touches       | every one unchanged                |

The gate's limits were set on one part of the corpus (gate_corpus.py) and are counted on the other: other episodes, other
worlds.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bounds import upper_bound
from gate_corpus import Shown, corpus
from scenes import make_scene_episode
from variant_faults import KINDS, plant, visible

from retake.core.episode import Episode, open_episode
from retake.core.errors import EpisodeError
from retake.core.files import read_json, write_bytes, write_json
from retake.core.painter.composite import psnr
from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants import (
    Variant,
    load_catalogue,
    make_gated_variants,
    make_variants,
    sample_worlds,
    source_frame,
)
from retake.core.variants.edges import edge_f1, instance_border, structure_f1
from retake.core.variants.gate import Gate, GateLimits, duplicate_of, thumbnail
from retake.core.variants.make import read_frame
from retake.core.variants.sheet import diversity, write_sheet

EXPERIMENTS = ("bun_warehouse", "chips_conveyor", "vegetable_kitchen")
ROOT = Path(__file__).resolve().parents[2]
DUPLICATE = "duplicate world"


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run everything (what is in the cache is not made again), write variants.json and variants.md."""
    cache = ROOT / ".cache" / ("prove_variants_quick" if quick else "prove_variants")
    cache.mkdir(parents=True, exist_ok=True)
    episode = _episode(cache, quick)
    presets = [load_catalogue().preset(name) for name in load_catalogue().sections["presets"]]
    shown = make_variants(episode, "front", cache / "presets", worlds=presets[:3] if quick else presets)
    worlds = sample_worlds(8 if quick else 200, 0)
    made = make_gated_variants(episode, "front", cache / "first", worlds=worlds, progress=_say("worlds"))
    first = list(made.variants)
    if not quick:
        images = ROOT / "docs" / "images"
        write_sheet(shown, cache / "presets", cache / "presets.png", columns=5, width=256)
        write_sheet(first, cache / "first", cache / "worlds.png", columns=14, width=128)
        _jpeg(cache / "presets.png", images / "variants_presets.jpg", 85)
        _jpeg(cache / "worlds.png", images / "variants_worlds.jpg", 80)
    held_out = list(corpus("test", cache, None if quick else cache / "episodes", _say("held out"),
                           8 if quick else 0))  # fmt: skip
    edges = _robot_edges(episode, [(cache / "presets", shown), (cache / "first", first)])
    result: dict[str, Any] = {
        "episode": {"frames": len(episode), "size": list(episode.header.camera("front").size)},
        "worlds": {"asked": len(worlds), "delivered": len(first), "missing": {k: list(v) for k, v in made.missing.items()},
                   "tried_again": sum(bool(e["failed"]) for e in read_json(cache / "first/gate.json")["delivered"].values())},
        "robot_edges": edges,
        "gate": _gate(held_out, 1 if quick else 6, [(v.id, read_frame(cache / "first" / v.id / "frame.png")) for v in first]),
        "diversity": diversity(first, cache / "first"),
        "takes": {name: _take(episode, cache, name, 4 if quick else 3) for name in EXPERIMENTS},
    }  # fmt: skip
    result["holds"] = _verdict(result, quick)
    write_json(out_dir / "variants.json", result)
    write_bytes(out_dir / "variants.md", _table(result).encode())
    print({k: v for k, v in result["holds"].items()}, flush=True)
    return result


def _episode(cache: Path, quick: bool) -> Episode:
    path = cache / "episode"
    try:
        return open_episode(path)
    except EpisodeError:
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    if quick:
        return make_scene_episode(path, frames=12, size=(480, 360))
    from retake.newton.run import capture

    capture(path, preset="short", seed=0)
    return open_episode(path)


def _say(title: str) -> Any:
    last = [-1]

    def show(done: int, total: int, note: str = "") -> None:
        if done // 20 != last[0]:
            last[0] = done // 20
            print(f"{title}: {done}/{total}", flush=True)

    return show


def _robot_edges(episode: Episode, sets: list[tuple[Path, list[Variant]]]) -> dict[str, Any]:
    source = source_frame(episode, "front", 0)
    values = [
        (structure_f1(read_frame(folder / v.id / "frame.png"), source.rgb, source.robot_mask), v.id)
        for folder, variants in sets
        for v in variants
    ]
    weakest = min(values)
    return {
        "frames": len(values),
        "min": weakest[0],
        "median": float(np.median([v for v, _ in values])),
        "weakest": weakest[1],
    }


def _gate(held_out: list[Shown], every: int, worlds: list[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """False alarms on every held-out frame; faults planted in each `every`-th; look-alikes among the worlds."""
    alarms: list[list[Any]] = []
    caught = {kind: [0, 0] for kind in (*KINDS, DUPLICATE)}
    missed: list[list[str]] = []
    margins: dict[str, list[float]] = {}
    gates: dict[str, Gate] = {}
    for number, shown in enumerate(held_out):
        gate = gates.setdefault(f"{shown.place} {shown.name}", Gate(shown.source))
        report = gate.check(shown.frame)
        for check in report.checks:
            margins.setdefault(check.name, []).append(check.value)
        if not report.passed:
            alarms.append([shown.name, shown.place, list(report.reasons)])
        if number % every:
            continue
        for kind in KINDS:
            if visible(kind, shown.source):
                hit = not gate.check(plant(kind, shown.frame, shown.source)).passed
                caught[kind][0] += hit
                caught[kind][1] += 1
                missed += [] if hit else [[kind, shown.name, shown.place]]
        marks = {"itself": thumbnail(shown.frame)}
        grain = np.random.default_rng(number).integers(-4, 5, shown.frame.shape)
        again = np.clip(shown.frame.astype(int) + grain + 1, 0, 255).astype(np.uint8)
        caught[DUPLICATE][0] += duplicate_of(again, marks) == "itself"
        caught[DUPLICATE][1] += 1
    seen: dict[str, np.ndarray] = {}
    alike = []
    for name, frame in worlds:
        if twin := duplicate_of(frame, seen):
            alike.append([name, twin])
        seen[name] = thumbnail(frame)
    return {
        "held_out_frames": len(held_out),
        "places": len(gates),
        "false_alarms": len(alarms),
        "upper_bound_95": upper_bound(len(alarms), len(held_out)),
        "alarms": alarms[:20],
        "caught": caught,
        "missed": missed[:20],
        "look_alikes": alike,
        "limits": dataclasses.asdict(GateLimits()),
        "range": {name: [min(v), float(np.median(v)), max(v)] for name, v in margins.items()},
    }


def _take(episode: Episode, cache: Path, name: str, step: int) -> dict[str, Any]:
    """One world over the whole episode, measured frame by frame before encoding."""
    remembered = cache / f"take_{name}.json"
    if remembered.exists() and read_json(remembered).get("version") == ProceduralBackend.version:
        return read_json(remembered)["result"]
    world, reference = load_catalogue().preset(name), source_frame(episode, "front", 0)
    dresser = ProceduralBackend().dresser(reference, world, 0)
    start = dresser.render(reference)
    variant = read_frame(cache / "presets" / name / "frame.png")
    looks = []
    for colour in ("#ff00ff", "#00ff00"):
        flat = {"subject": {"kind": "plush", "colours": [colour] * 3, "gloss": 0.0}}
        looks.append(ProceduralBackend().dresser(reference, dataclasses.replace(world, parameters=flat), 0))
    edges, outlines, moved, spent, base = [], [], 0, [], None
    for index in range(0, len(episode), step):
        source = source_frame(episode, "front", index)
        began = time.process_time()
        frame = dresser.render(source)
        spent.append(time.process_time() - began)
        edges.append(structure_f1(frame, source.rgb, source.robot_mask))
        a, b = (look.render(source).astype(int) for look in looks)
        mask = source.mask("object:" + next(o.name for o in source.header.objects if o.movable))
        drawn = (np.abs(a - b).max(-1) > 40).astype(np.uint8)
        outlines.append(edge_f1(instance_border(drawn), instance_border(mask.astype(np.uint8))))
        untouched = _untouched(source, dresser)
        if base is not None:
            both = untouched & base[1]
            moved += int((frame != base[0]).any(-1)[both].sum())
        base = (frame, untouched)
    result = {
        "frames": len(edges),
        "frame_0_db": min(psnr(start, variant), 999.0),
        "robot_edges_min": min(edges),
        "object_outline_min": min(outlines),
        "moved_background_pixels": moved,
        "untouched_share": float(base[1].mean()) if base else 0.0,
        "cpu_ms_per_frame": float(np.median(spent) * 1000),
    }
    write_json(remembered, {"version": ProceduralBackend.version, "result": result})
    return result


def _untouched(source: Any, dresser: Any) -> np.ndarray:
    """Pixels of scenery that no mover covers (2 px) and no shadow of this frame reaches."""
    role = dresser.roles.role[source.instance_ids]
    movers = cv2.dilate((role >= 4).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    shade, contact = dresser.moving_shadows(source, 1)
    reached = cv2.dilate(((shade > 0) | (contact > 0)).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return ~movers & ~reached


def _jpeg(png: Path, jpeg: Path, quality: int) -> None:
    picture = cv2.cvtColor(read_frame(png), cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    write_bytes(jpeg, data.tobytes())


def _verdict(result: dict[str, Any], quick: bool) -> dict[str, bool]:
    takes, gate = result["takes"].values(), result["gate"]
    coverage = result["diversity"]["coverage"]
    worlds = result["worlds"]
    return {
        "every sampled world delivered": worlds["delivered"] == worlds["asked"],
        "no two sampled worlds alike": not gate["look_alikes"],
        "robot edges >= 0.95": result["robot_edges"]["min"] >= 0.95,
        "all planted faults caught": all(hit == of and of for hit, of in gate["caught"].values()),
        "false alarms <= 1 %": gate["upper_bound_95"] <= 0.01 or (quick and not gate["false_alarms"]),
        "every axis value used": quick or all(n for counts in coverage.values() for n in counts.values()),
        "frame 0 >= 40 dB": all(t["frame_0_db"] >= 40 for t in takes),
        "take robot edges >= 0.95": all(t["robot_edges_min"] >= 0.95 for t in takes),
        "object outline >= 0.95": all(t["object_outline_min"] >= 0.95 for t in takes),
        "background stands still": all(t["moved_background_pixels"] == 0 for t in takes),
    }


def _table(result: dict[str, Any]) -> str:
    gate, edges, pairs = result["gate"], result["robot_edges"], result["diversity"]["pair_distance"]
    lines = ["# Variants and composite takes", "", "`scripts/prove.py variants` writes this file.", ""]
    lines += ["| claim | holds |", "|---|---|"] + [
        f"| {k} | {'yes' if v else 'NO'} |" for k, v in result["holds"].items()
    ]
    worlds = result["worlds"]
    lines += ["", f"{worlds['delivered']} of {worlds['asked']} sampled worlds of the demo episode delivered, "
              f"{worlds['tried_again']} of them after another attempt."]  # fmt: skip
    lines += [f"- missing: {name}: {'; '.join(reasons)}" for name, reasons in worlds["missing"].items()]
    lines += ["", "![Sampled worlds over one frame of the demo episode](../images/variants_worlds.jpg)"]
    lines += ["", f"Robot edges over {edges['frames']} frames: minimum {edges['min']:.3f} ({edges['weakest']}), "
              f"median {edges['median']:.3f}.", ""]  # fmt: skip
    bound = 100 * gate["upper_bound_95"]
    lines += [
        f"Gate: {gate['false_alarms']} false alarms on {gate['held_out_frames']} held-out frames from {gate['places']} "
        f"views (95 % upper bound {bound:.2f} %). These episodes and worlds were looked at once; since then only the "
        "exposure's upper limit was lowered (238 to 215), because a planted burnt-out night had passed. Earlier held-out parts "
        "that had led to a change count as tuning (`scripts/prove/gate_corpus.py`).",
        "",
        "| check | least | median | largest |",
        "|---|---|---|---|",
        *(f"| {n} | {a:.3g} | {b:.3g} | {c:.3g} |" for n, (a, b, c) in gate["range"].items()),
        "",
        "Faults are planted where the view shows them: no second robot, bent or mirrored arm or table edge in a wrist "
        "camera that a symmetric gripper fills, no outline of an object that the gripper holds.",
        "",
        "| planted fault | caught |",
        "|---|---|",
    ]
    lines += [f"| {kind} | {hit} of {of} |" for kind, (hit, of) in gate["caught"].items()]
    lines += ["", "| take | frames | frame 0, dB | robot edges | object outline | moved background px | CPU ms/frame |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, t in result["takes"].items():
        decibel = "equal" if t["frame_0_db"] >= 999 else f"{t['frame_0_db']:.1f}"
        lines.append(f"| {name} | {t['frames']} | {decibel} | {t['robot_edges_min']:.3f} | {t['object_outline_min']:.3f} | "
                     f"{t['moved_background_pixels']} | {t['cpu_ms_per_frame']:.0f} |")  # fmt: skip
    lines += ["", f"Diversity of {result['diversity']['variants']} sampled worlds (mean 8-bit difference of 32x24 Lab "
              f"thumbnails): nearest pair {pairs['min']:.1f}, median {pairs['median']:.1f}.", ""]  # fmt: skip
    for axis, counts in result["diversity"]["coverage"].items():
        lines += [f"**{axis}**: " + ", ".join(f"{name} {n}" for name, n in counts.items()), ""]
    return "\n".join(lines)
