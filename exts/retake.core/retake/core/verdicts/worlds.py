# SPDX-License-Identifier: Apache-2.0
"""The cameras of each world of a run, compared: verdicts/<world>-s<seed>/views.json. A camera that does not belong to the
others fails its takes, whatever their own verdicts say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import VerdictError
from retake.core.files import known_sha256, read_json, sha256_bytes, write_json
from retake.core.processes import map_in_processes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import world_of
from retake.core.run_reader import VIEWS_SCHEMA, RunReader
from retake.core.takes.base import Take
from retake.core.verdicts.assess import check_of, overall_of
from retake.core.verdicts.footage import shrink
from retake.core.verdicts.records import VERSION, Check, check_to_json, reason_of
from retake.core.verdicts.run import shown_by
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.verdicts.views import VIEWS_VERSION, PairFigures, compare_views
from retake.core.video import read_video


def compare_worlds(
    run: RunReader,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    config: VerdictSettings | None = None,
) -> list[dict[str, Any]]:
    """Compare the cameras of every world of which two takes or more of one window exist; returns the records.

    A record of the same videos, episode and settings is kept; a damaged take is left out. Raises VerdictError when a video
    cannot be read.
    """
    settings = config or load_settings()
    groups: dict[tuple[str, int, int], list[Take]] = {}
    for take in run.takes():
        if take.camera and "/" in take.id and run.standing(take).status != "damaged":
            groups.setdefault((world_of(take.id), take.start, take.frames), []).append(take)
    wanted = [takes for takes in groups.values() if len({take.camera for take in takes}) > 1]
    new = [takes for takes in wanted if _valid_record(run, takes, settings) is None]
    progress(len(wanted) - len(new), len(wanted), "")
    if len(new) > 1:
        map_in_processes(
            _compare_apart, [(run.path, [take.id for take in takes], settings) for takes in new], [1] * len(new),
            what="views", failure=VerdictError, progress=progress, check_cancel=check_cancel,
        )  # fmt: skip
    episode = open_episode(run.episode) if wanted else None
    out = []
    for done, takes in enumerate(wanted):
        check_cancel()
        assert episode is not None
        out.append(_valid_record(run, takes, settings) or compare_world(run, takes, episode, settings, check_cancel))
        progress(done + 1, len(wanted), world_of(takes[0].id))
    return out


def compare_world(
    run: RunReader, takes: Sequence[Take], episode: Episode, config: VerdictSettings | None = None,
    check_cancel: CheckCancel = never,
) -> dict[str, Any]:  # fmt: skip
    """Compare takes of one world and window, one per camera; writes and returns the record."""
    settings = config or load_settings()
    first = takes[0]
    films = {take.camera: _film(take, episode, settings.working_width) for take in takes}
    found = compare_views(
        shown_by(run, first, episode),
        films,
        first.start,
        working_width=settings.working_width,
        check_cancel=check_cancel,
    )
    pairs = [(pair, tuple(check_of(m, settings) for m in pair.measurements)) for pair in found]
    failed = failed_cameras(pairs)
    # Of a required check: what the thresholds alone doubt has never kept a take from passing.
    open_pairs = [
        (p, [c for c in checks if c.name in settings.required and c.value is None and c.status == "unsure"])
        for p, checks in pairs
    ]
    unsure = sorted({name for p, checks in open_pairs if checks for name in (p.first, p.second)})
    status = overall_of(tuple(check for _, checks in pairs for check in checks))
    data = {
        "schema": VIEWS_SCHEMA, "world": world_of(first.id), "status": status, "version": f"{VERSION}.{VIEWS_VERSION}",
        "videos": {take.camera: take.video_sha256 for take in takes}, "failed": list(failed), "unsure": unsure,
        "reasons": [reason_of(c) for _, checks in pairs for c in checks if c.status == "fail"]
        + [reason_of(c) for _, checks in open_pairs for c in checks],
        "start": first.start, "frames": first.frames, "inputs_sha256": _inputs(takes, episode, settings),
        "pairs": [
            {"first": pair.first, "second": pair.second, "gain": round(pair.gain, 4), "status": overall_of(checks),
             "checks": [check_to_json(check) for check in checks]}
            for pair, checks in pairs
        ],
    }  # fmt: skip
    write_json(run.views_record(first.id), data)
    return data


def failed_cameras(pairs: Sequence[tuple[PairFigures, tuple[Check, ...]]]) -> tuple[str, ...]:
    """Cameras that do not belong to the others: those in every failing pair; both of a single pair, and all of failing
    pairs that have none in common."""
    bad = [(p.first, p.second) for p, checks in pairs if any(check.status == "fail" for check in checks)]
    if not bad:
        return ()
    count = Counter(name for pair in bad for name in pair)
    alone = [name for name in count if count[name] == len(bad)]
    if len(bad) > 1 and alone:
        return tuple(alone)
    # One failing pair of several: the one whose other pairs could not be told is as likely as its partner.
    return tuple(count)


def _film(take: Take, episode: Episode, width: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    """A take's frames, at most `width` wide."""
    own, high = episode.header.camera(take.camera).size
    size = (min(own, width), round(high * min(own, width) / own))
    frames = [np.ascontiguousarray(shrink(frame, size)) for frame in read_video(take.video)]
    if len(frames) < take.frames:
        raise VerdictError(f"{take.video} ends after {len(frames)} frames; take.json promises {take.frames}")
    return frames[: take.frames]


def _compare_apart(run: Path, names: list[str], settings: VerdictSettings, progress: Progress) -> None:
    reader = RunReader(run)
    compare_world(reader, [reader.take(name) for name in names], open_episode(reader.episode), settings)


def _inputs(takes: Sequence[Take], episode: Episode, settings: VerdictSettings) -> str:
    videos = sorted(f"{take.camera} {known_sha256(take.video)} {take.start} {take.frames}" for take in takes)
    return sha256_bytes("\n".join([*videos, episode.content_sha256, VERSION, VIEWS_VERSION, repr(settings)]).encode())


def _valid_record(run: RunReader, takes: Sequence[Take], settings: VerdictSettings) -> dict[str, Any] | None:
    """The record on disk, when it is of these videos and settings."""
    try:
        data = read_json(run.views_record(takes[0].id))
        same = data.get("schema") == VIEWS_SCHEMA
        return data if same and data["inputs_sha256"] == _inputs(takes, open_episode(run.episode), settings) else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None
