# SPDX-License-Identifier: Apache-2.0
"""Verdicts of a run folder: verdicts/<take>/{verdict.json, timeline.png, worst_*.png} and verdicts/summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import VerdictError
from retake.core.files import known_sha256, sha256_bytes, write_json
from retake.core.painter.staged import staged
from retake.core.processes import map_in_processes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import TAKE_RECORD, VARIANT_FRAME, VERDICT_RECORD
from retake.core.run_reader import Damaged, RunReader
from retake.core.run_store import open_run
from retake.core.takes.base import Take
from retake.core.variants.base import PAINTER
from retake.core.verdicts.recorded import verify_video
from retake.core.verdicts.records import VERSION, Verdict
from retake.core.verdicts.settings import VerdictSettings, load_settings

SUMMARY = "summary.json"


def verify_run(
    run_dir: Path,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    config: VerdictSettings | None = None,
) -> list[dict[str, Any]]:
    """Judge every take of a run; returns their verdicts as JSON, in order of take ids.

    A verdict of the same video, episode, settings and estimators is kept. Raises RunError when `run_dir` is no run
    folder, VerdictError naming the takes that cannot be read or compared when all others are judged, Cancelled between takes.
    """
    verdicts, damaged = verify_whole(run_dir, progress, check_cancel, config)
    if damaged:
        raise VerdictError(told_damaged(damaged))
    return verdicts


def verify_whole(
    run_dir: Path,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    config: VerdictSettings | None = None,
) -> tuple[list[dict[str, Any]], list[Damaged]]:
    """Judge what can be judged: verdicts as JSON in order of take ids, and the takes that are no whole ones. Raises as
    `verify_run`, but for those."""
    run = open_run(run_dir)
    settings = config or load_settings()
    damaged = damaged_takes(run)
    takes = [take for take in run.takes() if take.id not in {found.id for found in damaged}]
    episode = open_episode(run.episode) if takes else None
    progress(0, len(takes), "")
    new = (
        []
        if episode is None
        else [t for t in takes if _valid_verdict(run, t, episode, settings.of_domain(t.domain)) is None]
    )
    if len(new) > 1:
        map_in_processes(
            _judge_apart, [(run.path, take, settings) for take in new], [1] * len(new),
            what="verdicts", failure=VerdictError, progress=progress, check_cancel=check_cancel,
        )  # fmt: skip
    out = []
    for done, take in enumerate(takes):
        check_cancel()
        assert episode is not None
        out.append(verify_take(run, take, episode, settings, check_cancel))
        progress(done + 1, len(takes), f"{take.id} {out[-1]['overall']}")
    write_json(run.verdicts_folder / SUMMARY, summary(out))
    return out, damaged


def damaged_takes(run: RunReader) -> list[Damaged]:
    """Takes of which the record cannot be read, the video is gone or changed, or the camera is none of the episode's."""
    found = [broken for broken in run.damaged() if broken.kind == "take"]
    for take in run.takes():
        standing = run.standing(take)
        if standing.status == "damaged":
            found.append(Damaged("take", take.id, take.folder, standing.reason))
    return sorted(found, key=lambda broken: broken.id)


def told_damaged(damaged: Sequence[Damaged]) -> str:
    """In words: which takes are no whole ones, and why."""
    first = damaged[0]
    more = (
        f" (and {len(damaged) - 1} more: {', '.join(found.id for found in damaged[1:5])})" if len(damaged) > 1 else ""
    )
    return f"take {first.id!r} cannot be judged: {first.reason}; make it again, or remove it{more}"


def verify_take(
    run: RunReader, take: Take, episode: Episode, config: VerdictSettings | None = None,
    check_cancel: CheckCancel = never,
) -> dict[str, Any]:  # fmt: skip
    """Judge one take of a run against its episode, unless its verdict is there; returns the verdict's JSON."""
    settings = (config or load_settings()).of_domain(take.domain)
    if (kept := _valid_verdict(run, take, episode, settings)) is not None:
        return kept
    out, frame = run.verdict_folder(take.id), run.variant_folder(take.variant) / VARIANT_FRAME
    inputs = _inputs(run, take, episode, settings)
    verdict = verify_video(
        take.video,
        shown_by(run, take, episode),
        take.camera or episode.header.cameras[0].name,
        first_frame=read_picture(frame) if frame.is_file() else None,
        start=take.start,
        frames=take.frames,
        config=settings,
        pictures=out,
        object_control=take.object_control,
        check_cancel=check_cancel,
    )
    data = {**replace(verdict, take=take.id).to_json(), "inputs_sha256": inputs}
    write_json(out / VERDICT_RECORD, data)
    return data


def shown_by(run: RunReader, take: Take, episode: Episode) -> Episode:
    """The episode as a take's first frame shows it: objects have the shapes that the painter gave them."""
    found = run.variant(take.variant)
    if found is None or found.record.backend != PAINTER:
        return episode
    return staged(episode, found.document().get("recipe"))


def _judge_apart(run: Path, take: Take, settings: VerdictSettings, progress: Progress) -> None:
    """In a process of its own; the verdict is read from disk afterwards."""
    reader = RunReader(run)
    verify_take(reader, take, open_episode(reader.episode), settings)


def _inputs(run: RunReader, take: Take, episode: Episode, settings: VerdictSettings) -> str:
    """Hash of all a verdict follows from. Raises VerdictError when the video is gone."""
    if not take.video.is_file():
        raise VerdictError(f"{take.video} is missing although {TAKE_RECORD} is there; make the take again")
    frame = run.variant_folder(take.variant) / VARIANT_FRAME
    return sha256_bytes(
        known_sha256(take.video).encode(), episode.content_sha256.encode(), VERSION.encode(), repr(settings).encode(),
        known_sha256(frame).encode() if frame.is_file() else b"", take.object_control.encode(),
    )  # fmt: skip


def _valid_verdict(run: RunReader, take: Take, episode: Episode, settings: VerdictSettings) -> dict[str, Any] | None:
    """The verdict on disk, when it is of the same inputs and can be read."""
    if (verdict := run.verdict_of(take)) is None:
        return None
    kept = verdict.document()
    return kept if kept.get("inputs_sha256") == _inputs(run, take, episode, settings) else None


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
