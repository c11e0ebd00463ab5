# SPDX-License-Identifier: Apache-2.0
"""Making a take: a request and a backend in, `takes/<id>/{take.mp4, take.json}` out; an unchanged take is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.codec import decode, encode
from retake.core.episode import Episode, open_episode
from retake.core.errors import TakeError
from retake.core.files import known_sha256, read_json, sha256_file, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import SKELETON_RECORD, TAKE_RECORD, TAKE_VIDEO, is_name, name_of
from retake.core.takes.base import Take, TakeRequest, VideoBackend, WithFurtherInputs
from retake.core.variants.base import Variant
from retake.core.variants.make import open_variant
from retake.core.video import write_video

SCHEMA = "retake.take/1"
REDRESSING = ("composite", "reprojected")
"""Domains whose pixels follow from the variant's world as well."""


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
    episode, indices, variant = plan.episode, plan.indices, plan.variant
    if (kept := _existing_take(out_dir, plan.digest, extra)) is not None:
        progress(len(indices), len(indices), "unchanged")
        return kept
    video = out_dir / TAKE_VIDEO
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / TAKE_RECORD).unlink(missing_ok=True)
    written = write_video(
        video,
        _exactly(backend.generate(request, progress, check_cancel), len(indices), backend.name),
        episode.header.fps,
    )
    take = Take(
        id=name_of(out_dir), video=video, video_sha256=sha256_file(video), variant=variant.id, backend=backend.name,
        backend_version=backend.version, domain=backend.domain, seed=request.seed, prompt=request.prompt,
        frames=written.frames, fps=float(episode.header.fps), size=written.size, inputs=plan.inputs,
        model=getattr(backend, "model", ""), revision=getattr(backend, "revision", ""), licence=backend.licence,
        camera=request.camera, start=request.start, negative_prompt=request.negative_prompt, settings=request.settings,
        motion_source=episode.header.motion_source, inputs_sha256=plan.digest, extra=dict(extra or {}),
        approximations=tuple(getattr(backend, "approximations", ())), object_control=_object_control(backend),
    )  # fmt: skip
    record = {"schema": SCHEMA, **encode(take), "video": TAKE_VIDEO}
    for name in ("approximations", "object_control"):
        if not record[name]:
            del record[name]
    write_json(out_dir / TAKE_RECORD, record)
    return take


def kept_take(
    request: TakeRequest, backend: VideoBackend, out_dir: Path, extra: Mapping[str, Any] | None = None
) -> Take | None:
    """The take that the folder already holds for these inputs; None when `make_take` would have to make it."""
    return _existing_take(Path(out_dir), _plan(request, backend).digest, extra)


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
        **(backend.further_inputs(request) if isinstance(backend, WithFurtherInputs) else {}),
    }
    identity = {
        "inputs": inputs, "camera": request.camera, "prompt": request.prompt, "negative": request.negative_prompt,
        "seed": request.seed, "frames": len(indices), "start": request.start, "settings": request.settings,
        "backend": [backend.name, backend.version, getattr(backend, "model", ""), getattr(backend, "revision", "")],
        # The composite re-dresses the variant's world; other backends see the first frame alone.
        "world": [variant.world.identity(), variant.seed, variant.backend] if backend.domain in REDRESSING else 0,
    }  # fmt: skip
    if arithmetic := getattr(
        backend, "arithmetic", ""
    ):  # kernels and tiers that the user pinned: they decide last bits
        identity["arithmetic"] = arithmetic
    return _Plan(episode, indices, variant, inputs, sha256_json(identity))


def read_take(folder: Path) -> Take:
    """The record of a take folder. Raises TakeError when it is missing, damaged or of another schema version."""
    path = Path(folder) / TAKE_RECORD
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise TakeError(f"{path} is no readable take record ({type(error).__name__}: {error})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise TakeError(f"{path} has schema {found!r}; this version of Retake reads {SCHEMA!r}")
    # A folder may be copied or renamed: its own name and the video inside it are what counts.
    place = {"id": name_of(path.parent), "video": path.parent / TAKE_VIDEO}
    take = decode(Take, {**data, **place}, str(path), error=TakeError, ignore_unknown=True)
    for what, name in (("variant", take.variant), ("camera", take.camera)):
        if name and (not is_name(name) or (what == "camera" and "/" in name)):
            raise TakeError(f"{path}: {what} is {name!r}; expected a plain name, it stands for a folder of the run")
    if take.frames < 1 or take.start < 0 or min(take.size) < 1 or take.fps <= 0:
        raise TakeError(
            f"{path} says {take.frames} frames from frame {take.start}, {take.size[0]}x{take.size[1]} at {take.fps:g} fps; no "
            "video is like that"
        )
    return take


def open_take(folder: Path) -> Take:
    """`read_take`, with the video checked against its hash. Raises TakeError when it is missing or was changed."""
    take = read_take(folder)
    if fault := video_fault(take):
        raise TakeError(fault)
    return take


def video_fault(take: Take) -> str:
    """Why a take's video is not the one its record describes; empty when it is."""
    try:
        found = known_sha256(take.video)
    except OSError as error:
        return f"{take.video} is missing ({error.strerror}); {take.folder / TAKE_RECORD} describes it"
    if found == take.video_sha256:
        return ""
    return (
        f"{take.video} was changed after it was made: its SHA-256 is {found[:12]}…, {TAKE_RECORD} recorded "
        f"{take.video_sha256[:12]}…"
    )


def window(episode: Episode, request: TakeRequest) -> range:
    """Episode frames of a take. Raises TakeError when the window leaves the episode."""
    count = request.frames or len(episode) - request.start
    if request.start < 0 or count < 1 or request.start + count > len(episode):
        raise TakeError(
            f"a take of {request.frames or 'all'} frames from frame {request.start} leaves {request.episode}, "
            f"which has {len(episode)} frames"
        )
    return range(request.start, request.start + count)


def skeleton_sha256(folder: Path) -> str:
    """The pixel hash that skeleton.json states. Raises TakeError when there is none."""
    path = Path(folder) / SKELETON_RECORD
    try:
        return str(read_json(path)["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TakeError(f"{path} states no skeleton hash ({type(error).__name__}); draw the skeleton first") from error


def _existing_take(folder: Path, digest: str, extra: Mapping[str, Any] | None) -> Take | None:
    try:
        take = open_take(folder)
    except TakeError:
        return None
    if take.inputs_sha256 != digest:
        return None
    if take.extra != dict(extra or {}):
        take = dataclasses.replace(take, extra=dict(extra or {}))
        write_json(folder / TAKE_RECORD, {**read_json(folder / TAKE_RECORD), "extra": take.extra})
    return take


def _object_control(backend: VideoBackend) -> str:
    """What a backend says of objects in its model's control video; empty where it says nothing, or that there are none."""
    stated = str(getattr(backend, "object_control", ""))
    return "" if stated == "none" else stated


def _exactly(frames: Iterator[np.ndarray], count: int, name: str) -> Iterator[np.ndarray]:
    """The frames, with their number checked: a backend that stops early must not pass as a whole take."""
    seen = 0
    for seen, frame in enumerate(frames, start=1):  # noqa: B007
        yield frame
    if seen != count:
        raise TakeError(f"backend {name!r} made {seen} frames; {count} were asked for")
