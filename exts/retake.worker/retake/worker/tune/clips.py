# SPDX-License-Identifier: Apache-2.0
"""What can be learnt from: videos with their Skeleton and the simulator's physics, wherever they lie.

A run folder gives its accepted takes and, where asked, the simulator's own pictures or the recording; a folder in OSCAR's
layout gives its samples. Nothing is copied: a clip knows how to read its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.export import oscar as oscar_layout
from retake.core.export.collect import Item, plan
from retake.core.export.found import Selection
from retake.core.export.physics import NEVER, physics_arrays
from retake.core.export.sources import simulated, take_frames
from retake.core.files import read_json, sha256_file, sha256_json
from retake.core.oscar_episode import RGB, SCENARIO
from retake.core.run_store import RunDirectory
from retake.core.skeleton import open_skeleton
from retake.core.skeleton.objects import VERSION
from retake.core.video import read_video, video_info

Frames = Iterator[np.ndarray]


@dataclass(frozen=True)
class Clip:
    """One video of one camera and what the simulator knows about it.

    Attributes:
        uid: content identity: the same uid means the same pixels, skeleton and physics.
        episode: what training and validation are split by: every look of one simulated run shares it.
        domain: generated, composite, sim or recorded.
        events: frames of grasp, release and settling, of all objects, within the clip.
        rgb, skeleton: start reading uint8 RGB (H, W, 3) from frame 0. physics: arrays of physics.npz, or None.
        terms: the licence of the pictures as their provenance states it.
        objects_drawn: the skeleton holds the objects' glyphs already (`retake export --object-control`).
    """

    uid: str
    episode: str
    domain: str
    camera: str
    caption: str
    frames: int
    fps: float
    events: tuple[int, ...]
    rgb: Callable[[], Frames]
    skeleton: Callable[[], Frames]
    physics: Callable[[], Any]
    terms: str
    objects_drawn: bool = False


def find_clips(places: Sequence[Path | str], selection: Selection | None = None) -> list[Clip]:
    """Every clip of run folders and OSCAR-layout folders, in a stable order, each once. Raises InputError or ExportError."""
    found: list[Clip] = []
    for place in map(Path, places):
        if (place / "run.json").is_file():
            found += _run_clips(place, selection or Selection())
        elif place.is_dir() and (samples := oscar_layout.samples(place)):
            found += [_sample_clip(sample) for sample in samples]
        else:
            raise InputError(
                f"{place} is neither a run folder (run.json) nor a folder in OSCAR's layout (…/episode_meta.npz)"
            )
    return list({clip.uid: clip for clip in found}.values())


def _run_clips(run: Path, selection: Selection) -> list[Clip]:
    clips = []
    for item in plan([run], selection).items:
        for camera, video in item.videos:
            clips.append(_item_clip(RunDirectory(run), item, camera, video))
    return clips


def _item_clip(run: RunDirectory, item: Item, camera: str, video: Path | None) -> Clip:
    episode = open_episode(item.episode)
    skeleton = run.skeleton(camera)
    if not skeleton.is_dir():
        raise InputError(f"{run.path} has no skeleton of camera {camera!r}; `retake skeleton {run.path}` draws it")
    drawn = open_skeleton(skeleton)

    def rgb() -> Frames:
        if video is None:
            return simulated(episode, camera, item.start, item.length)
        return take_frames(item, video)

    def physics() -> Any:
        return physics_arrays(episode, camera, item.start, item.length) if episode.header.objects else None

    events = _events(physics, item.length)
    return Clip(
        uid=sha256_json([item.uid, camera, drawn.sha256, "run"]),
        episode=item.trajectory,
        domain=str(item.provenance["domain"]),
        camera=camera,
        caption=str(item.provenance.get("prompt") or item.task),
        frames=item.length,
        fps=float(episode.header.fps),
        events=events,
        rgb=rgb,
        skeleton=lambda: islice(iter(drawn.frames()), item.start, item.start + item.length),
        physics=physics,
        terms=_terms(item.provenance),
    )


def _sample_clip(sample: Path) -> Clip:
    problems = oscar_layout.problems(sample)
    fatal = [p for p in problems if "training keeps samples" not in p]
    if fatal:
        raise InputError(f"{sample} cannot be learnt from: {'; '.join(fatal)}")
    info = video_info(sample / RGB)
    stated = read_json(sample / "provenance.json") if (sample / "provenance.json").is_file() else {}
    path = sample / "physics.npz"

    def physics() -> Any:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        _same_frames(sample, arrays, stated)
        return arrays

    return Clip(
        uid=sha256_json([sha256_file(sample / RGB), sha256_file(sample / SCENARIO), "oscar"]),
        episode=str(stated.get("trajectory_id") or stated.get("source_episode_id") or sample.parent.name),
        domain=str(stated.get("domain") or "recorded"),
        camera=str(stated.get("camera") or "camera"),
        caption=oscar_layout.read_caption(sample / "caption.pickle") or "",
        frames=info.frames,
        fps=info.fps,
        events=_events(physics, info.frames),
        rgb=lambda: iter(read_video(sample / RGB)),
        skeleton=lambda: iter(read_video(sample / SCENARIO)),
        physics=physics,
        terms=_terms(stated),
        objects_drawn=_objects_drawn(sample, stated),
    )


def _objects_drawn(sample: Path, stated: Mapping[str, Any]) -> bool:
    """Whether the sample's control video holds objects. Raises InputError where they are drawn in another way than here."""
    record = stated.get(oscar_layout.OBJECT_CONTROL)
    version = record.get("version", "?") if isinstance(record, Mapping) else record
    if version not in (None, VERSION):
        raise InputError(
            f"{sample}: objects are drawn into its control video as {version!r}, and this version of Retake draws and reads "
            f"{VERSION!r}; export it again with --object-control"
        )
    return version is not None


def objects_in_control(
    clips: Sequence[Clip], control: str, valid: str = "--object-control drawn, which draws all"
) -> str:
    """One sentence where some control videos hold objects already, "" where none does.

    Raises InputError where a training with that object control ("none", "drawn", "embed") would give a model control videos
    with objects without knowing it; `valid` says what to do instead.
    """
    drawn = [clip for clip in clips if clip.objects_drawn]
    if not drawn:
        return ""
    found = f"{len(drawn)} of {len(clips)} clips have objects drawn into their control videos (the first: {drawn[0].caption!r})"
    if control != "drawn":
        raise InputError(
            f"{found}, and object control is {control!r} here; valid: {valid}, or exports without --object-control"
        )
    rest = len(clips) - len(drawn)
    return f"{found}: taken as they are" + (f"; those of the other {rest} are drawn in the same way" if rest else "")


def _same_frames(sample: Path, arrays: Mapping[str, np.ndarray], stated: Mapping[str, Any]) -> None:
    """Raises InputError where physics.npz and provenance.json of a sample name other frames (either may not say)."""
    for name in ("source_episode_id", "window_start"):
        if name in arrays and name in stated and str(arrays[name][()]) != str(stated[name]):
            raise InputError(
                f"{sample / 'physics.npz'} is of another episode or window ({name} is {str(arrays[name][()])[:16]}, the "
                f"sample's {str(stated[name])[:16]}); export this sample again"
            )


def _terms(stated: Mapping[str, Any]) -> str:
    parts = (stated.get(f"licence_{part}") for part in ("model", "first_frame", "source"))
    return "; ".join(dict.fromkeys(str(part) for part in parts if part)) or "not stated"


def _events(physics: Callable[[], Any], frames: int) -> tuple[int, ...]:
    arrays = physics()
    if arrays is None:
        return ()
    found = np.concatenate([np.atleast_1d(arrays[f"{name}_frame"]) for name in ("grasp", "release", "settled")])
    return tuple(sorted({int(f) for f in found if f != NEVER and 0 <= f < frames}))


def split(clips: Sequence[Clip], validation: float, seed: int = 0) -> tuple[list[Clip], list[Clip]]:
    """Training and validation clips, parted by source episode: no motion is on both sides.

    Raises InputError where a share above 0 leaves one side empty.
    """
    if not 0 <= validation < 1:
        raise InputError(f"the validation share is {validation}; valid: 0 to below 1")
    names = sorted({clip.episode for clip in clips}, key=lambda name: sha256_json([seed, name]))
    count = round(validation * len(names))
    if validation and count in (0, len(names)):
        raise InputError(
            f"validation share {validation:g} of {len(names)} source episode(s) leaves one side empty; give more episodes "
            "or 0 to train without validation"
        )
    held = set(names[:count])
    return [c for c in clips if c.episode not in held], [c for c in clips if c.episode in held]
