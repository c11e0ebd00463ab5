# SPDX-License-Identifier: Apache-2.0
"""Making a take: a request and a backend in, `takes/<id>/{take.mp4, take.json}` out; an unchanged take is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.errors import TakeError
from retake.core.files import read_json, sha256_file, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.takes.base import Take, TakeRequest, VideoBackend
from retake.core.takes.composite import window
from retake.core.variants.base import Variant
from retake.core.variants.make import open_variant
from retake.core.video import write_video

SCHEMA = "retake.take/1"


def make_take(
    request: TakeRequest,
    backend: VideoBackend,
    out_dir: Path,
    *,
    extra: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Take:
    """One take in its folder: take.mp4 first, take.json last, so a folder with take.json is whole.

    Nothing is made when the folder holds a take of the same inputs. `extra` goes into take.json beside the record.
    Raises TakeError for a missing skeleton or a window outside the episode, VariantError for a damaged variant, and
    what the backend raises; an interrupted take leaves no take.json.
    """
    out_dir = Path(out_dir)
    plan = _plan(request, backend)
    episode, indices, variant, inputs, digest = plan.episode, plan.indices, plan.variant, plan.inputs, plan.digest
    record_path, video = out_dir / "take.json", out_dir / "take.mp4"
    if (kept := _unchanged(record_path, video, digest, extra)) is not None:
        progress(len(indices), len(indices), "unchanged")
        return kept
    out_dir.mkdir(parents=True, exist_ok=True)
    record_path.unlink(missing_ok=True)
    written = write_video(
        video,
        _exactly(backend.generate(request, progress, check_cancel), len(indices), backend.name),
        episode.header.fps,
    )
    take = Take(
        id=out_dir.name, video=video, video_sha256=sha256_file(video), variant=variant.id, backend=backend.name,
        backend_version=backend.version, domain=backend.domain, seed=request.seed, prompt=request.prompt,
        frames=written.frames, fps=float(episode.header.fps), size=written.size, inputs=inputs,
        model=getattr(backend, "model", ""), revision=getattr(backend, "revision", ""), licence=backend.licence,
    )  # fmt: skip
    write_json(record_path, _record(take, request, digest, episode, extra))
    return take


def kept_take(
    request: TakeRequest, backend: VideoBackend, out_dir: Path, extra: Mapping[str, Any] | None = None
) -> Take | None:
    """The take that the folder already holds for these inputs; None when `make_take` would have to make it."""
    return _unchanged(Path(out_dir) / "take.json", Path(out_dir) / "take.mp4", _plan(request, backend).digest, extra)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What a request comes to: its sources and the hash of everything that determines the take."""

    episode: Episode
    indices: range
    variant: Variant
    inputs: dict[str, str]
    digest: str


def _plan(request: TakeRequest, backend: VideoBackend) -> _Plan:
    episode = open_episode(request.episode)
    indices = window(episode, request)
    variant = open_variant(request.variant)
    inputs = {
        "episode": episode.content_sha256,
        "skeleton": skeleton_sha256(request.skeleton),
        "first_frame": variant.frame_sha256,
    }
    identity = {
        "inputs": inputs, "camera": request.camera, "prompt": request.prompt, "negative": request.negative_prompt,
        "seed": request.seed, "frames": len(indices), "start": request.start, "settings": request.settings,
        "backend": [backend.name, backend.version, getattr(backend, "model", ""), getattr(backend, "revision", "")],
        # The composite re-dresses the variant's world; other backends see the first frame alone.
        "world": [variant.world.identity(), variant.seed, variant.backend] if backend.domain == "composite" else 0,
    }  # fmt: skip
    return _Plan(episode, indices, variant, inputs, sha256_json(identity))


def open_take(folder: Path) -> Take:
    """The record of a take folder. Raises TakeError when it is missing, foreign, or its video was changed."""
    path = Path(folder) / "take.json"
    try:
        data = read_json(path)
        if data.get("schema") != SCHEMA:
            raise TakeError(f"{path} has schema {data.get('schema')!r}; this version of Retake reads {SCHEMA!r}")
        known = {f.name for f in dataclasses.fields(Take)}
        take = Take(**{**{k: v for k, v in data.items() if k in known}, "video": path.parent / data["video"],
                       "size": tuple(data["size"])})  # fmt: skip
    except TakeError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TakeError(f"{path} is no readable take record ({type(error).__name__}: {error})") from error
    if not take.video.is_file():
        raise TakeError(f"{take.video} is missing; {path} describes it")
    if (found := sha256_file(take.video)) != take.video_sha256:
        raise TakeError(
            f"{take.video} was changed: its SHA-256 is {found[:12]}…, recorded was {take.video_sha256[:12]}…"
        )
    return take


def skeleton_sha256(folder: Path) -> str:
    """The pixel hash that skeleton.json states. Raises TakeError when there is none."""
    path = Path(folder) / "skeleton.json"
    try:
        return str(read_json(path)["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TakeError(f"{path} states no skeleton hash ({type(error).__name__}); draw the skeleton first") from error


def _record(
    take: Take, request: TakeRequest, digest: str, episode: Episode, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        **dataclasses.asdict(take),
        "video": take.video.name,
        "camera": request.camera,
        "start": request.start,
        "negative_prompt": request.negative_prompt,
        "settings": request.settings,
        "motion_source": episode.header.motion_source,
        "inputs_sha256": digest,
        "extra": dict(extra or {}),
    }


def _unchanged(record: Path, video: Path, digest: str, extra: Mapping[str, Any] | None) -> Take | None:
    if not record.exists() or not video.exists():
        return None
    try:
        take = open_take(record.parent)
        data = read_json(record)
    except TakeError:
        return None
    if data.get("inputs_sha256") != digest:
        return None
    if data.get("extra") != dict(extra or {}):
        write_json(record, {**data, "extra": dict(extra or {})})
    return take


def _exactly(frames: Iterator[np.ndarray], count: int, name: str) -> Iterator[np.ndarray]:
    """The frames, with their number checked: a backend that stops early must not pass as a whole take."""
    seen = 0
    for seen, frame in enumerate(frames, start=1):  # noqa: B007
        yield frame
    if seen != count:
        raise TakeError(f"backend {name!r} made {seen} frames; {count} were asked for")
