# SPDX-License-Identifier: Apache-2.0
"""From run folders to a plan: which takes become episodes, in which order, and why the others do not.

A world becomes one episode with all of its cameras; one of which a camera is missing is listed as rejected and holds up
nothing else (`worlds`). Only takes whose verdict passed are planned; unjudged or unsure ones only where `unverified` is
set; failed ones never.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import retake.core.episode as episodes
from retake.core.episode import Episode
from retake.core.errors import ExportError, InputError, unknown_name
from retake.core.export.found import FoundTake, Selection, shown_task, shown_words
from retake.core.export.layouts import laid_out
from retake.core.export.provenance import record, storable
from retake.core.export.records import IMAGE, Rejected, Schema
from retake.core.export.truth import TRUTH
from retake.core.export.vectors import build_schema
from retake.core.export.worlds import FoundWorlds, worlds_of
from retake.core.files import read_json, sha256_bytes, sha256_json
from retake.core.licences import commercial_obstacle
from retake.core.run_layout import world_of
from retake.core.run_reader import RunReader
from retake.core.variants.base import Variant

TOOL_VERSION = "retake 0.1.0"
_HUGE = 1e300
"""Beyond it, and for NaN, a number of a check counts as not measured."""


@dataclass(frozen=True)
class Item:
    """One planned dataset episode. `videos`: camera name → take.mp4, or None for the simulator's own pictures."""

    uid: str
    run: Path
    episode: Path
    videos: tuple[tuple[str, Path | None], ...]
    start: int
    length: int
    task: str
    trajectory: str
    provenance: dict[str, Any]
    words: dict[str, str] = field(default_factory=dict)
    """What its pictures show `subject` and `surface` as, where that is not what the simulation calls them."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Camera → (width, height) of its take; without an entry the camera's own."""


@dataclass(frozen=True)
class Plan:
    """Everything an export will write."""

    schema: Schema
    items: tuple[Item, ...]
    rejected: tuple[Rejected, ...]
    warnings: tuple[str, ...] = ()


def plan(runs: Sequence[Path | str], selection: Selection | None = None) -> Plan:
    """Read the runs and decide. Raises InputError, EpisodeError or ExportError; each names the run and the way out."""
    selection = selection or Selection()
    if not runs:
        raise InputError("no run folder was given; expected one or more of runs/<name>")
    items: list[Item] = []
    rejected: list[Rejected] = []
    names: dict[str, Path] = {}
    opened: list[tuple[RunReader, Episode]] = []
    for run in (Path(r) for r in runs):
        if run.name in names and names[run.name] != run:
            raise InputError(
                f"two runs are called {run.name!r} ({names[run.name]}, {run}); rename one: names identify runs"
            )
        if run.name not in names:
            opened.append(_open(run))
        names[run.name] = run
    wanted = {camera.name for _, episode in opened for camera in episode.header.cameras}
    if len(set(selection.cameras)) < len(selection.cameras):
        raise InputError(f"--camera {' '.join(selection.cameras)}: a camera is named twice")
    if unknown := [name for name in selection.cameras if name not in wanted]:
        raise InputError(unknown_name("camera of these runs", unknown[0], wanted))
    found = [worlds_of(run, episode, _source(run, episode, selection), selection) for run, episode in opened]
    # One set of cameras for all: what any take of any run shows. A world without one of them is incomplete, not fatal.
    cameras = selection.cameras or tuple(dict.fromkeys(c for part in found for c in part.cameras))
    headers: list[tuple[Path, Any]] = []
    for (run, episode), part in zip(opened, found, strict=True):
        made = _run_items(run, episode, part, cameras, selection, rejected)
        if made:
            headers.append((run.path, episode.header))
        items += made
    if not items:
        reasons = "; ".join(f"{r.take}: {r.reason}" for r in rejected[:3])
        some = f" Episodes of {len(cameras)} cameras were asked for ({', '.join(cameras)}); --camera takes fewer" if (
            len(cameras) > 1 and not selection.cameras
        ) else ""  # fmt: skip
        raise ExportError(
            f"nothing to export: {len(rejected)} takes were rejected ({reasons} …).{some}"
            if rejected
            else "nothing to export: the runs hold no takes; `retake takes RUN` makes them, --include-sim exports the simulation"
        )
    unique = list({item.uid: item for item in items}.values())
    warnings = (
        [f"{len(items) - len(unique)} duplicates of the same take were left out"] if len(unique) < len(items) else []
    )
    schema, left_out = _schema(headers, unique, selection)
    return Plan(schema, tuple(unique), tuple(rejected), (*warnings, *left_out))


def _open(path: Path) -> tuple[RunReader, Episode]:
    if not path.is_dir():
        raise InputError(f"{path} does not exist; expected a run folder (runs/<name>)")
    run = RunReader(path)
    if not run.episode.is_dir():
        raise InputError(f"{path} holds no episode/; expected a run folder made by `retake run`")
    return run, episodes.open_episode(run.episode)


def trajectory_id(episode: Episode) -> str:
    """Hash of the motion alone (joint positions and targets of every frame): re-rendered copies share it."""
    parts = []
    for robot in episode.header.robots:
        channels = ("position", "target") if "target" in episode.header.joint_channels else ("position",)
        parts += [np.ascontiguousarray(episode.joint(robot.name, c)).tobytes() for c in channels]
    return sha256_bytes(*parts)


def _run_items(
    run: RunReader, episode: Episode, found: FoundWorlds, cameras: Sequence[str], selection: Selection,
    rejected: list[Rejected],
) -> list[Item]:  # fmt: skip
    """Whole worlds become items; what else there is goes to `rejected`, each with its camera and reason."""
    source, name = found.source, run.path.name
    rejected += [Rejected(name, storable(d.id), d.reason) for d in run.damaged() if d.kind == "take"]
    rejected += [Rejected(name, take.id, reason) for take, reason in found.refused]
    items: list[Item] = []
    for world in found.worlds:
        views = world.views(cameras, episode, selection.allow_mixed)
        if lacking := {c: world.lacks(c, run) for c in cameras if c not in views}:
            rejected += world.rejections(name, lacking, cameras)
            continue
        items.append(_take_item(run.path, episode, views, cameras, source, selection))
    if selection.include_sim:
        if commercial := selection.only_commercial and commercial_obstacle(source["licence_source"]):
            rejected.append(
                Rejected(name, "sim", f"simulated assets: {commercial}; state theirs with --assets-licence")
            )
        elif blind := [c for c in cameras if c not in {spec.name for spec in episode.header.cameras}]:
            rejected.append(Rejected(name, "sim", f"its episode has no camera {', '.join(blind)}"))
        else:
            items = [*_sim_items(run.path, episode, items, cameras, source, selection), *items]
    return items


def _source(run: RunReader, episode: Episode, selection: Selection) -> dict[str, Any]:
    """Provenance that every item of a run shares."""
    settings, header = episode.header.settings, episode.header
    passed = _check_passed(run.check)
    return {
        "run": run.path.name,
        "source_episode_id": episode.content_sha256,
        "trajectory_id": trajectory_id(episode),
        "motion_source": header.motion_source,
        "action_source": selection.action_source,
        "simulator": f"{header.simulator} {header.simulator_version}".strip(),
        "episode_check": "not run" if passed is None else "passed" if passed else "failed, forced",
        "licence_source": str(settings.get("licence") or settings.get("license") or selection.assets_licence),
        "tool_version": TOOL_VERSION,
    }


def _check_passed(path: Path) -> bool | None:
    """What check.json says; None where there is none. Raises ExportError when it is damaged."""
    try:
        data = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise ExportError(f"{path} holds a {type(data).__name__}; expected a JSON object")
    return None if data.get("passed") is None else bool(data["passed"])


def _take_item(
    run: Path,
    episode: Episode,
    views: Mapping[str, FoundTake | None],
    cameras: Sequence[str],
    source: dict[str, Any],
    selection: Selection,
) -> Item:
    shown = [views[c] for c in cameras]
    takes = [view for view in shown if view is not None]
    first, take = takes[0], takes[0].take
    lead = next(c for c in cameras if views[c] is first)
    start = take.start
    length = min(take.frames, len(episode) - start)
    verdicts = [t.standing.verdict for t in takes]
    capture = episode.header.camera(lead).size
    simulated = "recorded" if episode.header.motion_source == "recorded" else "sim"
    domains = [simulated if view is None else view.take.domain for view in shown]
    checks: dict[str, float | None] = {}
    for camera, view in zip(cameras, shown, strict=True):
        verdict = view.standing.verdict if view is not None else None
        for check in verdict.checks if verdict is not None else ():
            name = check.name if len(cameras) == 1 else f"{camera}/{check.name}"
            checks[name] = check.value if check.value is not None and abs(check.value) < _HUGE else None
    statuses = {t.standing.status if t.standing.verdict is not None else "none" for t in takes}
    shas = {c: "" if t is None else t.take.video_sha256 for c, t in zip(cameras, shown, strict=True)}
    uid = sha256_json({"episode": episode.content_sha256, "start": start, "length": length, "videos": shas})
    values = {
        **source,
        "uid": uid,
        "variant_id": take.variant if len(cameras) == 1 else world_of(take.variant),
        "take_id": "+".join(t.id for t in takes),
        "domain": domains[0] if len(set(domains)) == 1 else "mixed",
        "window_start": start,
        "window_length": length,
        "video_sha256": ",".join(shas.values()),
        "camera_names": ",".join(cameras),
        "camera_domains": ",".join(domains),
        "backend": take.backend,
        "backend_version": take.backend_version,
        "model": take.model,
        "model_revision": take.revision,
        "weights_sha256": first.stated("weights_sha256"),
        "steps": first.stated("steps", "num_inference_steps"),
        "guidance": first.stated("guidance", "guidance_scale"),
        "seed": take.seed,
        "prompt": take.prompt,
        "negative_prompt": take.negative_prompt,
        "precision": first.stated("precision", "dtype"),
        "acceleration": first.stated("acceleration"),
        "settings": json.dumps(take.settings, sort_keys=True, ensure_ascii=False, default=str),
        **_first_frame(first.variant.record if first.variant is not None else None),
        "skeleton_sha256": take.inputs.get("skeleton"),
        "first_frame_sha256": take.inputs.get("first_frame"),
        "capture_width": capture[0],
        "capture_height": capture[1],
        "resize_sx": take.size[0] / capture[0],
        "resize_sy": take.size[1] / capture[1],
        "accepted": statuses == {"pass"},
        "verdict_status": "pass" if statuses == {"pass"} else "+".join(sorted(statuses)),
        "verdict_probability": None if None in verdicts else min(v.probability for v in verdicts if v is not None),
        "verdict_version": verdicts[0].version if verdicts[0] is not None else None,
        "licence_model": take.licence,
        "created_utc": take.extra.get("created_utc"),
    }
    recipe = first.variant.document().get("recipe") if first.variant is not None else None
    task = shown_task(episode.header, first.world.subject if first.world is not None else "", recipe)
    videos = tuple((c, None if t is None else t.take.video) for c, t in zip(cameras, shown, strict=True))
    sizes = {c: view.take.size for c, view in zip(cameras, shown, strict=True) if view is not None}
    words = {key: storable(text) for key, text in shown_words(episode.header, first.world, recipe).items()}
    return Item(
        uid,
        run,
        episode.path,
        videos,
        start,
        length,
        storable(task),
        source["trajectory_id"],
        record(values, checks),
        words,
        sizes,
    )


def _first_frame(variant: Variant | None) -> dict[str, Any]:
    """Provenance of the first frame."""
    if variant is None:
        return {}
    return {
        "world": variant.world.name,
        **{f"world_{axis}": getattr(variant.world, axis) for axis in AXES},
        "first_frame_backend": variant.backend,
        "first_frame_backend_version": variant.backend_version,
        "first_frame_model": variant.model,
        "first_frame_model_revision": variant.revision,
        "first_frame_seed": variant.seed,
        "first_frame_prompt": variant.prompt,
        "licence_first_frame": variant.licence,
    }


AXES = ("environment", "surface", "subject", "lighting", "look", "background", "clutter")
"""Visual axes of a World (variants/base.py)."""


def _sim_items(
    run: Path,
    episode: Episode,
    takes: Sequence[Item],
    cameras: Sequence[str],
    source: dict[str, Any],
    selection: Selection,
) -> list[Item]:
    """The simulator's own pictures over the windows of the run's takes, or over the whole episode where it has none."""
    chosen = tuple(cameras) or tuple(c.name for c in episode.header.cameras)
    if not chosen:
        raise ExportError(
            f"{run.name}: --include-sim exports the simulator's own pictures, and its episode has no camera; record it with "
            "one, or leave --include-sim out"
        )
    windows = sorted({(item.start, item.length) for item in takes})
    if not windows:
        step = selection.window or len(episode)
        windows = [(start, min(step, len(episode) - start)) for start in range(0, len(episode), step)]
    out = []
    recorded = episode.header.motion_source == "recorded"
    for start, length in windows:
        uid = sha256_json({"episode": episode.content_sha256, "start": start, "length": length, "sim": chosen})
        capture = episode.header.camera(chosen[0]).size
        values = {
            **source,
            "uid": uid,
            "variant_id": "0",
            "domain": "recorded" if recorded else "sim",
            "window_start": start,
            "window_length": length,
            "camera_names": ",".join(chosen),
            "camera_domains": ",".join(["recorded" if recorded else "sim"] * len(chosen)),
            "seed": episode.header.seed,
            "capture_width": capture[0],
            "capture_height": capture[1],
            "resize_sx": 1.0,
            "resize_sy": 1.0,
            "accepted": True,
            "verdict_status": "source",
        }
        videos = tuple((c, None) for c in chosen)
        out.append(
            Item(
                uid,
                run,
                episode.path,
                videos,
                start,
                length,
                storable(episode.header.task),
                source["trajectory_id"],
                record(values),
            )
        )
    return out


def _schema(
    headers: Sequence[tuple[Path, Any]], items: Iterable[Item], selection: Selection
) -> tuple[Schema, list[str]]:
    """The one schema of all items, and notes. Raises ExportError naming the first run that differs, and how.

    Features of the simulator's truth that some run lacks are left out of all.
    """
    sizes = _sizes(items, selection, {run: header for run, header in headers})
    schemas = [build_schema(header, sizes, selection.extras, truth=selection.truth) for _, header in headers]
    schemas = [laid_out(schema, header, selection.layout) for schema, (_, header) in zip(schemas, headers, strict=True)]
    known = [{key for key in schema.vectors if key.startswith(TRUTH)} for schema in schemas]
    partly = set.union(*known) - set.intersection(*known)
    schemas = [
        replace(
            schema,
            vectors={k: v for k, v in schema.vectors.items() if k not in partly},
            units={k: v for k, v in schema.units.items() if k not in partly},
        )
        for schema in schemas
    ]
    for (run, _), schema in zip(headers[1:], schemas[1:], strict=True):
        first = headers[0][0].name
        if differences := schemas[0].differences(schema, first, run.name):
            raise ExportError(f"runs {first} and {run.name} cannot share a dataset: " + "; ".join(differences))
    notes = [f"{', '.join(sorted(partly))} left out: not every run has it"] if partly else []
    return schemas[0], notes


def _sizes(items: Iterable[Item], selection: Selection, headers: dict[Path, Any]) -> dict[str, tuple[int, int]]:
    """Feature key → picture size. The takes decide; the simulator's pictures follow. Raises ExportError when mixed."""
    takes: dict[str, dict[tuple[int, int], str]] = {}
    captures: dict[str, dict[tuple[int, int], str]] = {}
    cameras: set[str] | None = None
    for item in items:
        names = {name for name, _ in item.videos}
        if cameras is not None and cameras != names:
            raise ExportError(
                f"{item.run.name} has cameras {sorted(names)}, runs before it {sorted(cameras)}; every episode of a "
                "dataset needs the same cameras: choose with --camera"
            )
        cameras = names
        for name, video in item.videos:
            captures.setdefault(name, {}).setdefault(headers[item.run].camera(name).size, item.run.name)
            if video is not None:
                taken = f"{item.run.name}/{item.provenance['take_id']}"
                takes.setdefault(name, {}).setdefault(item.sizes[name], taken)
    out = {}
    for name in sorted(cameras or ()):
        found = captures[name] if selection.size == "capture" or name not in takes else takes[name]
        if isinstance(selection.size, tuple):
            found = {selection.size: "asked"}
        if len(found) > 1:
            listed = ", ".join(f"{w}x{h} ({who})" for (w, h), who in list(found.items())[:4])
            raise ExportError(f"camera {name!r} has pictures of several sizes: {listed}; choose one with --size WxH")
        out[IMAGE + name] = next(iter(found))
    return out


def with_split(items: Iterable[Item], split_of: dict[str, str]) -> tuple[Item, ...]:
    """The items with their split noted in the provenance; `split_of`: trajectory id → split name."""
    return tuple(
        replace(item, provenance={**item.provenance, "split": split_of.get(item.trajectory, "train")}) for item in items
    )


__all__ = ["AXES", "IMAGE", "Item", "Plan", "Selection", "plan", "trajectory_id", "with_split"]
