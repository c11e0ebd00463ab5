# SPDX-License-Identifier: Apache-2.0
"""`robustness(runs, policy, out)`: ask the policy about the same frames in every world, then write the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import ExportError, InputError
from retake.core.export.collect import AXES, IMAGE, Item, Plan, Selection, plan
from retake.core.export.records import ACTION, STATE
from retake.core.export.sources import resized, take_frames
from retake.core.export.vectors import columns
from retake.core.files import write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robustness.analysis import Analysis, WorldResult, analyse, moving_entries
from retake.core.robustness.caller import Bounded
from retake.core.robustness.policy import Observation, Policy, as_actions, own_copy
from retake.core.robustness.report import Picture, write_report
from retake.core.run_store import held_out

SCHEMA = "retake.robustness/1"
WORST = 6
"""Worlds shown with pictures."""


@dataclass(frozen=True)
class RobustnessReport:
    """What was found, and where it is written."""

    html: Path
    json: Path
    analysis: Analysis
    worlds: tuple[WorldResult, ...]


@dataclass(frozen=True)
class _Window:
    """The frames of one run's window: what the policy does on the simulator's own pictures."""

    episode: Episode
    item: Item
    frames: tuple[int, ...]
    """Offsets from the window's start."""
    state: np.ndarray
    truth: np.ndarray
    """(T, A) true actions of the whole window."""
    actions: np.ndarray
    """(F, H, A) on the simulator's frames."""
    repeated: np.ndarray
    """The same asked again."""


def robustness(
    runs: Sequence[Path | str],
    policy: Policy,
    out: Path | str,
    *,
    frames: int = 8,
    selection: Selection | None = None,
    seed: int = 0,
    timeout_s: float = 60.0,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> RobustnessReport:
    """Report on a policy. `frames`: how many frames of each window are asked; `timeout_s`: the longest wait for an answer.

    Raises InputError (a policy with other actions, no answer in time, an existing report), ExportError (no takes), WorkerError
    (a server).
    """
    out, started = Path(out), time.time()
    _refuse_a_report(out)
    if frames < 1:
        raise InputError(f"--frames is {frames}; at least one frame per window is needed")
    made = plan(runs, selection or Selection())
    groups: dict[tuple[Path, int, int], list[Item]] = {}
    for item in made.items:
        if item.provenance["domain"] in ("generated", "composite"):
            groups.setdefault((item.run, item.start, item.length), []).append(item)
    if not groups:
        raise ExportError(
            "the runs hold no accepted take; a robustness report compares takes with the simulator's frames"
        )
    with held_out(out):
        _refuse_a_report(out)  # of another process, meanwhile
        bounded = Bounded(policy, timeout_s)
        try:
            windows = _ask_all(made, list(groups.values()), bounded, frames, progress, check_cancel)
        finally:
            bounded.end()
        return _report(made, windows, policy.name, out, frames, seed, started)


def _refuse_a_report(out: Path) -> None:
    if (out / "report.json").exists():
        raise InputError(f"{out} holds a report already; choose another --out (nothing was changed)")


def _report(
    made: Plan,
    windows: Sequence[tuple[_Window, list[tuple[Item, np.ndarray]]]],
    name: str,
    out: Path,
    frames: int,
    seed: int,
    started: float,
) -> RobustnessReport:
    worlds, pictures, facts = _results(made, windows)
    analysis = analyse(worlds, facts["sim_error"], facts["noise"], seed)
    content = {
        "schema": SCHEMA,
        "policy": name,
        "score": asdict(analysis.score),
        "verdict": analysis.verdict,
        "axes": [asdict(a) for a in analysis.axes],
        "sim_error": analysis.sim_error,
        "noise": analysis.noise,
        "action_entries": facts["entries"],
        "left_out": facts["left_out"],
        "frames_per_window": frames,
        "windows": len(windows),
        "worlds": [
            {
                "run": w.run,
                "world": w.world,
                "take": w.take,
                "axes": w.axes,
                "divergence": w.divergence,
                "truth_error": w.truth_error,
                "per_frame": [float(x) for x in w.per_frame],
            }
            for w in sorted(worlds, key=lambda w: -w.divergence)
        ],
        "seconds": round(time.time() - started, 3),
    }
    write_json(out / "report.json", content)
    write_report(out / "report.html", content, pictures)
    return RobustnessReport(out / "report.html", out / "report.json", analysis, tuple(worlds))


def _ask_all(
    made: Plan, groups: Sequence[list[Item]], policy: Policy, frames: int, progress: Progress, check_cancel: CheckCancel
) -> list[tuple[_Window, list[tuple[Item, np.ndarray]]]]:
    """Every window with its takes, in the policy's words."""
    total, done = sum(len(items) + 1 for items in groups), 0
    windows: list[tuple[_Window, list[tuple[Item, np.ndarray]]]] = []
    for items in groups:
        window = _ask_about_simulation(made, items[0], policy, frames, check_cancel)
        done += 1
        progress(done, total, f"{items[0].run.name}: simulation")
        results = []
        for item in items:
            results.append((item, _on_take(made, window, item, policy, check_cancel)))
            done += 1
            progress(done, total, f"{item.run.name}: {item.provenance['take_id']}")
        windows.append((window, results))
    return windows


def _ask_about_simulation(made: Plan, item: Item, policy: Policy, count: int, check_cancel: CheckCancel) -> _Window:
    """Ask about the simulator's own frames, twice (the second time shows the policy's own noise)."""
    episode = open_episode(item.episode)
    found = columns(episode, item.start, item.length, item.provenance["action_source"])
    chosen = tuple(sorted({int(x) for x in np.linspace(0, item.length - 1, min(count, item.length)).round()}))
    first, second = [], []
    for k in chosen:
        check_cancel()
        images = {
            name: resized(episode.image(name, "rgb", item.start + k), made.schema.cameras[IMAGE + name])
            for name, _ in item.videos
        }
        first.append(_ask(made, policy, images, found[STATE][k], episode.header.task))
        second.append(_ask(made, policy, images, found[STATE][k], episode.header.task))
    if len({a.shape for a in first}) > 1:
        raise InputError(f"policy {policy.name} returned actions of several shapes: {sorted({a.shape for a in first})}")
    width = made.schema.vectors[ACTION].width
    if first[0].shape[1] != width:
        raise InputError(
            f"policy {policy.name} gives {first[0].shape[1]} action entries, the dataset has {width} "
            f"({', '.join(made.schema.vectors[ACTION].names)}); wrap it so that they are the same"
        )
    truth = found[ACTION].astype(np.float64)
    return _Window(episode, item, chosen, found[STATE], truth, np.stack(first), np.stack(second))


def _ask(made: Plan, policy: Policy, images: dict[str, np.ndarray], state: np.ndarray, task: str) -> np.ndarray:
    observation = Observation(
        images, state.copy(), task, made.schema.vectors[STATE].names, made.schema.slices, made.schema.action_slices
    )
    policy.reset()
    return as_actions(policy.infer(own_copy(observation)), policy.name)


def _on_take(made: Plan, window: _Window, item: Item, policy: Policy, check_cancel: CheckCancel) -> np.ndarray:
    """(F, H, A) actions on a take's frames: the same state and the same task text, other pixels."""
    out = []
    for k, images in _chosen_frames(made, item, window.frames):
        check_cancel()
        out.append(_ask(made, policy, images, window.state[k], window.episode.header.task))
    return np.stack(out)


def _chosen_frames(
    made: Plan, item: Item, chosen: Sequence[int]
) -> Iterator[tuple[int, dict[str, UInt8[np.ndarray, "H W 3"]]]]:
    """The asked frames of every camera of a take, decoded once, one frame in memory at a time."""
    streams = {name: take_frames(item, path) for name, path in item.videos if path is not None}
    wanted = set(chosen)
    for k in range(max(chosen) + 1):
        images = {name: next(stream) for name, stream in streams.items()}
        if k in wanted:
            yield k, {name: resized(image, made.schema.cameras[IMAGE + name]) for name, image in images.items()}


def _results(
    made: Plan, windows: Sequence[tuple[_Window, list[tuple[Item, np.ndarray]]]]
) -> tuple[list[WorldResult], list[Picture], dict[str, Any]]:
    """Normalise, compare, and pick the worst worlds' pictures."""
    names, kinds = made.schema.vectors[ACTION].names, [""] * made.schema.vectors[ACTION].width
    for part in made.schema.action_slices:
        kinds[part.start : part.end] = [part.kind] * (part.end - part.start)
    moving, scale = moving_entries(np.concatenate([w.truth for w, _ in windows]), kinds)
    worlds: list[WorldResult] = []
    sources: list[tuple[_Window, Item]] = []
    for window, results in windows:
        for item, actions in results:
            deviation = ((actions - window.actions) / scale)[..., moving]
            p = item.provenance
            axes = {axis: str(p.get(f"world_{axis}") or "") for axis in AXES}
            error = _truth_error(window, actions, moving, scale)
            label = str(p.get("world") or p.get("variant_id"))
            worlds.append(WorldResult(str(p["run"]), label, str(p["take_id"]), axes, deviation, error))
            sources.append((window, item))
    order = sorted(range(len(worlds)), key=lambda i: -worlds[i].divergence)[:WORST]
    pictures = [_picture(made, worlds[i], *sources[i]) for i in order]
    sim_errors = [_truth_error(w, w.actions, moving, scale) for w, _ in windows]
    noise = np.concatenate(
        [(((w.repeated - w.actions) / scale)[..., moving] ** 2).mean(-1).ravel() for w, _ in windows]
    )
    facts = {
        "sim_error": float(np.mean(sim_errors)),
        "noise": float(np.sqrt(noise).mean()),
        "entries": [n for n, m in zip(names, moving, strict=True) if m],
        "left_out": [n for n, m in zip(names, moving, strict=True) if not m],
    }
    return worlds, pictures, facts


def _truth_error(window: _Window, actions: np.ndarray, moving: np.ndarray, scale: np.ndarray) -> float:
    """Root mean square against the true actions of the following frames, where the window has them."""
    errors = []
    for k, predicted in zip(window.frames, actions, strict=True):
        steps = min(len(predicted), len(window.truth) - k)
        errors.append((((predicted[:steps] - window.truth[k : k + steps]) / scale)[:, moving] ** 2).ravel())
    return float(np.sqrt(np.concatenate(errors).mean()))


def _picture(made: Plan, world: WorldResult, window: _Window, item: Item) -> Picture:
    """The simulator's frame and the take's, where the policy differs most."""
    k = window.frames[int(world.per_frame.argmax())]
    name = item.videos[0][0]
    size = made.schema.cameras[IMAGE + name]
    sim = resized(window.episode.image(name, "rgb", item.start + k), size)
    take = next(images[name] for frame, images in _chosen_frames(made, item, [k]) if frame == k)
    return Picture(world.run, world.world, world.divergence, item.start + k, sim, take)
