# SPDX-License-Identifier: Apache-2.0
"""report.html: data collected from the run folder, put into one self-contained template."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.codec import encode
from retake.core.episode import Episode, open_episode
from retake.core.episode.events import object_events
from retake.core.errors import RunError
from retake.core.files import read_json, write_bytes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.report.clips import playable, simulation_clip
from retake.core.run_layout import SKELETON_OVERLAY, SKELETON_RECORD, SKELETON_VIDEO
from retake.core.run_store import RunDirectory, remove_leftovers
from retake.core.variants.gated import read_missing

TEMPLATE = Path(__file__).with_name("template.html")


def make_report(run: RunDirectory, *, progress: Progress = silent, check_cancel: CheckCancel = never) -> Path:
    """Write `report.html` (and `report/` with what it plays) from whatever the run holds. Raises RunError without an
    Episode; missing later stages are simply not shown."""
    if not run.episode.exists():
        raise RunError(f"{run.path} has no episode; there is nothing to report yet")
    episode = open_episode(run.episode)
    folder, page = run.report_folder, run.report
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    steps = len(episode.header.cameras) + 2
    cameras = []
    for done, camera in enumerate(episode.header.cameras):
        progress(done, steps, camera.name)
        cameras.append(
            {
                "name": camera.name,
                "clip": simulation_clip(episode, camera.name, folder, page, check_cancel),
                "skeleton": _skeleton(run, camera.name, folder, page),
            }
        )
    progress(steps - 2, steps, "takes")
    data = {
        "name": run.path.name,
        "episode": _episode(episode),
        "cameras": cameras,
        **_worlds(run, folder, page),
        "missing": read_missing(run.variants_folder),
        "plots": _plots(episode),
        "check": read_json(run.check) if run.check.exists() else None,
        "stages": run.manifest().get("stages", {}),
        "config": run.manifest().get("config", {}),
    }
    check_cancel()
    write_bytes(page, render(data).encode())
    progress(steps, steps, "")
    return page


def render(data: dict[str, Any]) -> str:
    """The page's HTML. Data goes in as JSON in which `<` is escaped, so that no text can end the script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    title = html.escape(f"{data['episode']['task']} · {data['name']}")
    # In one pass: a task text may itself contain a placeholder.
    return re.sub(r"\{\{(title|data)\}\}", lambda m: {"title": title, "data": text}[m[1]], TEMPLATE.read_text("utf-8"))


def _episode(episode: Episode) -> dict[str, Any]:
    header = episode.header
    return {
        "task": header.task,
        "frames": len(episode),
        "fps": header.fps,
        "seconds": round(len(episode) / header.fps, 2),
        "simulator": header.simulator_version
        if header.simulator_version.startswith(header.simulator)
        else f"{header.simulator} {header.simulator_version}".strip(),
        "motion_source": header.motion_source,
        "physics_dt_ms": round(header.physics_dt_s * 1e3, 4),
        "seed": header.seed,
        "robots": [r.name for r in header.robots],
        "sha256": episode.content_sha256,
        "stage_sha256": header.stage_sha256,
        "settings": header.settings,
    }


def _skeleton(run: RunDirectory, camera: str, folder: Path, page: Path) -> dict[str, Any] | None:
    if not run.has_skeleton(camera):
        return None
    here = run.skeleton(camera)
    record = read_json(here / SKELETON_RECORD)
    return {
        "control": playable(here / SKELETON_VIDEO, folder, page),
        "overlay": playable(here / SKELETON_OVERLAY, folder, page),
        "sha256": record.get("sha256", ""),
    }


def _worlds(run: RunDirectory, folder: Path, page: Path) -> dict[str, Any]:
    """Variants with their takes and what the run says of each; takes without a variant; what cannot be read."""
    takes: dict[str, list[dict[str, Any]]] = {}
    for take in run.takes():
        standing = run.standing(take)
        takes.setdefault(take.variant, []).append(
            {
                **encode(take),
                "video": take.video.relative_to(page.parent).as_posix(),
                "clip": playable(take.video, folder, page) if standing.status != "damaged" else None,
                "status": standing.status,
                "reason": standing.reason,
                "verdict": standing.verdict.document() if standing.verdict is not None else None,
            }
        )
    variants = [
        {
            **found.document(),
            "id": found.id,
            "frame": found.frame.relative_to(page.parent).as_posix(),
            "takes": takes.pop(found.id, []),
        }
        for found in run.variants()
    ]
    damaged = [{"kind": d.kind, "id": d.id, "status": "damaged", "reason": d.reason} for d in run.damaged()]
    return {"variants": variants, "orphans": [t for group in takes.values() for t in group], "damaged": damaged}


def _plots(episode: Episode) -> dict[str, Any]:
    """Series against frame: joints, grippers, object heights; and the moments of grasp and release."""

    def rounded(values: np.ndarray, digits: int) -> list[float]:
        return [round(float(v), digits) for v in values]

    charts: list[dict[str, Any]] = []
    for robot in episode.header.robots:
        fingers = {name for gripper in robot.grippers for name in gripper.finger_joints}
        q = episode.joint(robot.name, "position")
        target = episode.joint(robot.name, "target") if "target" in episode.header.joint_channels else None
        arm = [(i, name) for i, name in enumerate(robot.dof_names) if name not in fingers]
        lines = [{"name": name, "y": rounded(q[:, i], 4)} for i, name in arm]
        if target is not None:
            lines += [{"name": f"{n} commanded", "y": rounded(target[:, i], 4), "dashed": True} for i, n in arm]
        charts.append({"title": f"Joints, {robot.name}", "unit": "rad", "lines": lines})
        if robot.grippers:
            openness = episode.gripper_openness(robot.name)
            charts.append(
                {
                    "title": f"Gripper, {robot.name}",
                    "unit": "0 closed … 1 open",
                    "lines": [{"name": g.name, "y": rounded(openness[:, i], 4)} for i, g in enumerate(robot.grippers)],
                }
            )
    poses = episode.object_poses
    movable = [(i, o) for i, o in enumerate(episode.header.objects) if o.movable]
    if movable:
        lines = [{"name": o.name, "y": rounded(poses[:, i, 2, 3], 4)} for i, o in movable]
        charts.append({"title": "Object height", "unit": "m", "lines": lines})
    events = [
        {"frame": frame, "name": f"{name} {e.object}"}
        for e in object_events(episode)
        for name, frame in (("grasp", e.grasp), ("release", e.release), ("settled", e.settled))
        if frame is not None
    ]
    return {"charts": charts, "events": events, "time_s": rounded(episode.time_s, 4)}
