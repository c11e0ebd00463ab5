# SPDX-License-Identifier: Apache-2.0
"""Verdicts of a run folder: verdicts/<take>/{verdict.json, timeline.png, worst_*.png} and verdicts/summary.json."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import VerdictError
from retake.core.files import read_json, sha256_bytes, sha256_file, write_json
from retake.core.processes import map_in_processes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_store import open_run
from retake.core.verdicts.judge import examine
from retake.core.verdicts.pictures import save_pictures
from retake.core.verdicts.records import VERSION, Verdict
from retake.core.verdicts.settings import VerdictSettings, load_settings


@dataclass(frozen=True)
class _Take:
    """What a verdict depends on."""

    folder: Path
    data: dict[str, Any]
    first_frame: Path


def verify_run(
    run_dir: Path,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    config: VerdictSettings | None = None,
) -> list[dict[str, Any]]:
    """Judge every take of a run; returns their verdicts as JSON, in order of take ids.

    A verdict of the same video, episode, settings and estimators is kept. Raises RunError when `run_dir` is no run
    folder, VerdictError naming the take that cannot be compared, Cancelled between takes.
    """
    run = open_run(run_dir)
    settings = config or load_settings()
    takes = _takes(run.takes, run.variants)
    episode = open_episode(run.episode) if takes else None
    progress(0, len(takes), "")
    new = (
        []
        if episode is None
        else [t for t in takes if _kept(t, episode, run.verdicts / t.folder.name, settings) is None]
    )
    if len(new) > 1:
        jobs = [(take, run.episode, run.verdicts / take.folder.name, settings) for take in new]
        map_in_processes(
            _judge_apart, jobs, [1] * len(jobs),
            what="verdicts", failure=VerdictError, progress=progress, check_cancel=check_cancel,
        )  # fmt: skip
    out = []
    for done, take in enumerate(takes):
        check_cancel()
        assert episode is not None
        out.append(_judge_take(take, episode, run.verdicts / take.folder.name, settings, check_cancel))
        progress(done + 1, len(takes), f"{take.folder.name} {out[-1]['overall']}")
    write_json(run.verdicts / "summary.json", summary(out))
    return out


def verify_take(
    take: Path, variants: Path, episode: Episode, out: Path, config: VerdictSettings | None = None,
    check_cancel: CheckCancel = never,
) -> dict[str, Any]:  # fmt: skip
    """Judge one take folder (take.mp4, take.json) into a verdict folder; returns the verdict's JSON."""
    found = [t for t in _takes(take.parent, variants) if t.folder == take]
    if not found:
        raise VerdictError(f"{take} is no finished take: take.json is missing")
    return _judge_take(found[0], episode, out, config or load_settings(), check_cancel)


def _takes(folder: Path, variants: Path) -> list[_Take]:
    out = []
    for record in sorted(folder.glob("*/take.json")):
        data = read_json(record)
        out.append(_Take(record.parent, data, variants / str(data.get("variant", "")) / "frame.png"))
    return out


def _judge_apart(take: _Take, episode: Path, out: Path, settings: VerdictSettings, progress: Progress) -> None:
    """In a process of its own; the verdict is read from disk afterwards."""
    _judge_take(take, open_episode(episode), out, settings, never)


def _inputs(take: _Take, episode: Episode, settings: VerdictSettings) -> str:
    """Hash of all a verdict follows from. Raises VerdictError when the video is gone."""
    video = take.folder / "take.mp4"
    if not video.is_file():
        raise VerdictError(f"{video} is missing although {take.folder / 'take.json'} exists; make the take again")
    return sha256_bytes(
        sha256_file(video).encode(), episode.content_sha256.encode(), VERSION.encode(), repr(settings).encode(),
        sha256_file(take.first_frame).encode() if take.first_frame.is_file() else b"",
    )  # fmt: skip


def _kept(take: _Take, episode: Episode, out: Path, settings: VerdictSettings) -> dict[str, Any] | None:
    """The verdict on disk, when it is of the same inputs."""
    record = out / "verdict.json"
    if not record.exists():
        return None
    kept = read_json(record)
    return kept if kept.get("inputs_sha256") == _inputs(take, episode, settings) else None


def _judge_take(
    take: _Take, episode: Episode, out: Path, settings: VerdictSettings, check_cancel: CheckCancel
) -> dict[str, Any]:
    if (kept := _kept(take, episode, out, settings)) is not None:
        return kept
    record, video, inputs = out / "verdict.json", take.folder / "take.mp4", _inputs(take, episode, settings)
    camera = str(take.data.get("camera") or episode.header.cameras[0].name)
    judged = examine(
        video,
        episode,
        camera,
        first_frame=read_picture(take.first_frame) if take.first_frame.is_file() else None,
        start=int(take.data.get("start", 0)),
        frames=int(take.data["frames"]) if take.data.get("frames") else None,
        config=settings,
        check_cancel=check_cancel,
    )
    verdict = save_pictures(judged, video, episode, out, settings)
    data = {**replace(verdict, take=take.folder.name).to_json(), "inputs_sha256": inputs}
    write_json(record, data)
    return data


def read_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as RGB. Raises VerdictError when it is none."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise VerdictError(f"{path} is not a readable image; expected the take's first frame as PNG or JPEG")
    return np.ascontiguousarray(image[..., ::-1])


def summary(verdicts: list[dict[str, Any]] | list[Verdict]) -> dict[str, Any]:
    """Counts, yield and reasons of many verdicts."""
    rows = [v.to_json() if isinstance(v, Verdict) else v for v in verdicts]
    reasons: dict[str, int] = {}
    for row in rows:
        for check in row["checks"]:
            if check["status"] == "fail":
                reasons[check["name"]] = reasons.get(check["name"], 0) + 1
    count = {status: sum(r["overall"] == status for r in rows) for status in ("pass", "fail", "unsure")}
    return {
        "takes": len(rows),
        **count,
        "yield": count["pass"] / len(rows) if rows else None,
        "rejected_for": dict(sorted(reasons.items(), key=lambda item: -item[1])),
    }
