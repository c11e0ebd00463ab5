# SPDX-License-Identifier: Apache-2.0
"""OSCAR's training layout: one folder per sample of 81 frames, with the simulator's physics beside it.

<subset>/<episode>/[<camera>/]{rgb.mp4, gripper_scenario.mp4, caption.pickle, caption.json, episode_meta.npz}
                              + physics.npz, robot.urdf, provenance.json

With `object_control` the control video holds the movable objects' glyphs, too, drawn from the arrays of physics.npz, and
provenance.json says so (`object_control`: version, glyph, colours; skeleton.objects).

subset is `retake_<domain>`. The pickle holds one dictionary of one string and is only ever written; the same text is in
caption.json. Pictures have the capture size: the skeleton is drawn there, and OSCAR's loader squeezes both alike.
"""

from __future__ import annotations

import pickletools
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.errors import EpisodeError, ExportError
from retake.core.export.collect import IMAGE
from retake.core.export.physics import physics_arrays, write_physics
from retake.core.export.records import DatasetEpisode, Schema
from retake.core.export.staging import Entry, Staging
from retake.core.export.tables import read_jsonl, write_jsonl
from retake.core.export.urdf_out import robot_urdf
from retake.core.export.writer import PROVENANCE, clear, write_marker
from retake.core.files import read_json, write_bytes, write_json
from retake.core.oscar_episode import CAPTION, CAPTION_PICKLE, META, RGB, SCENARIO, export_oscar, read_oscar_meta
from retake.core.skeleton.objects import VERSION, control_record, draw_control
from retake.core.video import video_info

WINDOW = 81
"""Frames of the paper's training windows."""
OBJECT_CONTROL = "object_control"
"""Key of provenance.json and meta/retake.json: objects are drawn into the control video, and how."""
FILES = (RGB, SCENARIO, CAPTION_PICKLE, META)


def windows(length: int, size: int = WINDOW) -> list[tuple[int, int]]:
    """(start, length) of the windows of an episode: consecutive, the last one ending with the episode."""
    if length <= size:
        return [(0, length)]
    starts = list(range(0, length - size + 1, size))
    return [(s, size) for s in (starts if starts[-1] + size == length else [*starts, length - size])]


class OscarWriter:
    """Each sample's folder is final as soon as it is written, so nothing is joined later."""

    replaced: tuple[str, ...] = ()
    format = "oscar"

    def __init__(self, staging: Staging, schema: Schema, object_control: bool = False) -> None:
        self.staging, self.schema, self.object_control = staging, schema, object_control

    def write(self, index: int, episode: DatasetEpisode) -> Entry:
        """Write the samples of one episode. Raises ExportError for an episode that is not from a run folder."""
        if "episode" not in episode.extra:
            raise ExportError(
                "OSCAR's layout needs the simulator's state: only takes of run folders can be exported to it"
            )
        p = episode.provenance
        parts = windows(episode.length)
        name = safe_name(f"{p['run']}__{p.get('take_id') or 'sim'}__{episode.uid[:8]}")
        samples = []
        for number, (offset, length) in enumerate(parts):
            folder = Path(safe_name(f"retake_{p['domain']}")) / (name if len(parts) == 1 else f"{name}__w{number}")
            samples += self.samples(episode, folder, offset, length)
        return {
            "uid": episode.uid,
            "length": episode.length,
            "task": episode.task,
            "samples": samples,
            "provenance": dict(p),
        }

    def samples(self, episode: DatasetEpisode, folder: Path, offset: int, length: int) -> Iterator[dict[str, Any]]:
        """Write the samples of a window, one per camera; yields what is to be known of each."""
        videos = episode.extra["videos"]
        for camera, _ in videos:
            sample = folder / camera if len(videos) > 1 else folder
            self._sample(sample, episode, camera, offset, length)
            yield {"sample": sample.as_posix(), "camera": camera, "offset": offset, "length": length}

    def part(self) -> Path:
        """An empty folder for a sample that is being written."""
        part = self.staging.parts / "sample"
        clear(part)
        return part

    def _sample(self, sample: Path, item: DatasetEpisode, camera: str, offset: int, length: int) -> None:
        source, part = open_episode(item.extra["episode"]), self.part()
        start = item.extra["start"] + offset
        frames = window_of(item.frames(IMAGE + camera), offset, length)
        # The caption is the text the video was made from: task and world.
        caption = str(item.provenance.get("prompt") or item.task)
        arrays = physics_arrays(source, camera, start, length)
        over = partial(draw_control, arrays=arrays) if self.object_control else None
        export_oscar(source, camera, part, caption=caption, start=start, length=length, rgb=frames, over=over)
        write_physics(part / "physics.npz", arrays)
        end_sample(part, self.staging.dataset / sample, source, item, start, length, camera, self.said(arrays))

    def said(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """What provenance.json says of the control video, where there is something to say."""
        return {OBJECT_CONTROL: control_record(arrays)} if self.object_control else {}

    def advance(self, entry: Entry) -> None:
        """Nothing to remember: samples do not depend on each other."""

    def finish(self) -> None:
        """Write the list of samples."""
        base = self.staging.base
        old = list(read_jsonl(base / PROVENANCE)) if base else []
        write_jsonl(
            self.staging.dataset / PROVENANCE,
            (
                {**row, "episode_index": i}
                for i, row in enumerate(
                    (*old, *({"samples": e["samples"], **e["provenance"]} for e in self.staging.entries()))
                )
            ),
        )
        write_marker(self.staging, self.schema, self.format, also=drawn_objects(self.object_control))


def drawn_objects(object_control: bool) -> dict[str, str]:
    """What the plan and the marker of an export say of objects in its control videos; nothing where there are none."""
    return {OBJECT_CONTROL: VERSION} if object_control else {}


def end_sample(
    part: Path, target: Path, source: Episode, item: DatasetEpisode, start: int, length: int, camera: str,
    said: Mapping[str, Any],
) -> None:  # fmt: skip
    """Add the robot and where the sample comes from (`said`: what else is to be known), and give the folder its place."""
    # The arrays beside hold one arm: that of the robot with an end effector.
    robot = next(r for r in source.header.robots if r.grippers)
    write_bytes(part / "robot.urdf", robot_urdf(robot).encode())
    window = {"window_start": start, "window_length": length, "camera": camera, "task": item.task}
    window["ee_link"] = robot.grippers[0].ee_link
    write_json(part / "provenance.json", {**item.provenance, **window, **said})
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.rename(target)


def window_of(frames: Iterator[Any], offset: int, length: int) -> Iterator[Any]:
    """Frames offset … offset + length - 1 of a stream."""
    for index, frame in enumerate(frames):
        if index >= offset + length:
            return
        if index >= offset:
            yield frame


def safe_name(name: str) -> str:
    """A folder name that every file system and shell takes."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)


def problems(sample: Path) -> list[str]:
    """What keeps OSCAR's loaders from reading a sample folder; empty when nothing does. Never loads the pickle."""
    out = [f"{name} is missing" for name in FILES if not (sample / name).is_file()]
    if out:
        return out
    try:
        meta = read_oscar_meta(sample / META)
    except EpisodeError as error:
        return [str(error)]
    rgb, scenario = video_info(sample / RGB), video_info(sample / SCENARIO)
    if rgb.codec != "h264" or scenario.codec != "h264":
        out.append(f"videos are {rgb.codec} and {scenario.codec}; expected H.264")
    if rgb.size != scenario.size or rgb.frames != scenario.frames or abs(rgb.fps - scenario.fps) > 1e-6:
        out.append(
            f"{RGB} is {rgb.size} x {rgb.frames} at {rgb.fps}, {SCENARIO} {scenario.size} x {scenario.frames} at {scenario.fps}"
        )
    if rgb.frames > len(meta):
        out.append(f"{RGB} has {rgb.frames} frames, {META} only {len(meta)}")
    if rgb.frames < 70:
        out.append(f"{rgb.frames} frames; training keeps samples of 70 or more")
    if not (meta.gripper_openness.min() >= 0 and meta.gripper_openness.max() <= 1):
        out.append("gripper_openness leaves 0..1")
    if "__failure__" in sample.as_posix():
        out.append("the path marks a failed session")
    caption = read_caption(sample / CAPTION_PICKLE)
    if caption is None:
        out.append(f"{CAPTION_PICKLE} holds more than one dictionary with one caption text")
    elif (sample / CAPTION).is_file() and read_json(sample / CAPTION).get("caption") != caption:
        out.append(f"{CAPTION} and {CAPTION_PICKLE} differ")
    return out


_HARMLESS = {
    "PROTO", "FRAME", "EMPTY_DICT", "MEMOIZE", "BINPUT", "SETITEM", "SETITEMS", "MARK", "STOP",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE",
}  # fmt: skip


def read_caption(path: Path) -> str | None:
    """The caption in a pickle of a str or {"caption": str}, read opcode by opcode without executing; None if other."""
    texts = []
    try:
        for code, argument, _ in pickletools.genops(path.read_bytes()):
            if code.name not in _HARMLESS:
                return None
            if isinstance(argument, str) and "UNICODE" in code.name:
                texts.append(argument)
    except ValueError:
        return None
    if len(texts) == 1:
        return texts[0]
    return texts[1] if len(texts) == 2 and texts[0] == "caption" else None


def samples(root: Path) -> list[Path]:
    """Every sample folder below `root`."""
    return sorted(path.parent for path in root.rglob(META))


def joint_angles(sample: Path) -> np.ndarray:
    """(T, A) float64 rad, of a sample."""
    return read_oscar_meta(sample / META).joint_angles
