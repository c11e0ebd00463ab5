# SPDX-License-Identifier: Apache-2.0
"""From run folders to a plan: which takes become episodes, in which order, and why the others do not.

A world becomes one episode with all of its cameras; one of which a camera is missing is listed as rejected and holds up
nothing else (`worlds`). Only takes whose verdict passed are planned; unjudged or unsure ones only where `unverified` is
set; failed ones never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import retake.core.episode as episodes
from retake.core.episode import Episode
from retake.core.errors import ExportError, InputError, unknown_name
from retake.core.export.found import Selection
from retake.core.export.items import AXES, Item, sim_items, take_item
from retake.core.export.layouts import laid_out
from retake.core.export.provenance import storable
from retake.core.export.records import IMAGE, Rejected, Schema
from retake.core.export.truth import TRUTH
from retake.core.export.vectors import build_schema
from retake.core.export.worlds import FoundWorlds, worlds_of
from retake.core.files import read_json, sha256_bytes
from retake.core.licences import commercial_obstacle
from retake.core.run_reader import RunReader

TOOL_VERSION = "retake 0.1.0"


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
            told = {(one.run, one.take) for one in rejected}
            rejected += [r for r in world.rejections(name, lacking, cameras) if (r.run, r.take) not in told]
            continue
        items.append(take_item(run.path, episode, views, cameras, source, selection))
    if selection.include_sim:
        if commercial := selection.only_commercial and commercial_obstacle(source["licence_source"]):
            rejected.append(
                Rejected(name, "sim", f"simulated assets: {commercial}; state theirs with --assets-licence")
            )
        elif blind := [c for c in cameras if c not in {spec.name for spec in episode.header.cameras}]:
            rejected.append(Rejected(name, "sim", f"its episode has no camera {', '.join(blind)}"))
        else:
            items = [*sim_items(run.path, episode, items, cameras, source, selection), *items]
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
