# SPDX-License-Identifier: Apache-2.0
"""A Rerun recording (.rrd) of a run, or of an exported dataset: cameras with skeleton, robot and objects in space, takes and
verdict curves on one timeline. Needs the extra `rerun` (rerun-sdk, Apache-2.0 or MIT); nothing else imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.errors import InputError, MissingDependencyError, install_hint
from retake.core.export.reader import Dataset
from retake.core.files import atomic_path
from retake.core.geometry import inverse
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_reader import RunReader
from retake.core.skeleton import open_skeleton
from retake.core.video import read_video

FRAME, TIME = "frame", "time"
"""Timelines: frame of the episode, and its time."""
_QUALITY = 88


def rerun() -> Any:
    """The optional package. Raises MissingDependencyError naming the extra."""
    try:
        import rerun
    except ImportError as error:
        raise MissingDependencyError(f"a Rerun recording needs rerun-sdk: {install_hint('rerun')}") from error
    return rerun


class _Log:
    """One recording under way."""

    def __init__(self, name: str, path: Path) -> None:
        self.rr = rerun()
        # Only what is stated on our timelines: same inputs, same picture.
        self.stream = self.rr.RecordingStream("retake", recording_id=name, send_properties=False)
        self.stream.set_log_time_enabled(False)
        self.stream.set_log_tick_enabled(False)
        self.stream.save(str(path))

    def at(self, frame: int, time_s: float) -> None:
        """What follows belongs to this frame."""
        self.stream.set_time(FRAME, sequence=frame)
        self.stream.set_time(TIME, duration=float(time_s))

    def path(self, *parts: str) -> str:
        """An entity path of names that may hold any character."""
        return "/".join(self.rr.escape_entity_path_part(part) for part in parts)

    def image(self, entity: str, picture: np.ndarray) -> None:
        ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if ok:
            self.stream.log(entity, self.rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))

    def number(self, entity: str, value: float) -> None:
        self.stream.log(entity, self.rr.Scalars([float(value)]))

    def text(self, entity: str, text: str) -> None:
        self.stream.log(entity, self.rr.TextDocument(text, media_type="text/markdown"), static=True)

    def close(self) -> None:
        self.stream.flush()
        self.stream.disconnect()


def record_run(
    run: Path, out: Path, *, takes: Sequence[str] = (), progress: Progress = silent, check_cancel: CheckCancel = never
) -> Path:
    """Everything of a run folder as `out` (.rrd). `takes`: these only; empty = all. Raises InputError where `out` exists."""
    if out.exists():
        raise InputError(f"{out} exists; choose another file (nothing was changed)")
    reader = RunReader(run)
    episode = open_episode(reader.episode)
    known = {take.id: take for take in reader.takes()}
    if unknown := [name for name in takes if name not in known]:
        raise InputError(f"{run} has no take {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    shown = [known[name] for name in takes] if takes else list(known.values())
    total, done = len(episode) + sum(take.frames for take in shown), 0
    with atomic_path(out) as temporary:
        log = _Log(f"retake-{run.name}-{episode.content_sha256[:12]}", temporary)
        try:
            for _ in _episode(log, episode, run):
                check_cancel()
                done += 1
                progress(done, total, "episode")
            for take in shown:
                camera = take.camera or episode.header.cameras[0].name
                entity = log.path("takes", camera, take.id)
                for k, picture in enumerate(read_video(take.video)):
                    check_cancel()
                    frame = take.start + k
                    if k >= take.frames or frame >= len(episode):
                        break
                    log.at(frame, float(episode.time_s[frame]))
                    log.image(entity, picture)
                    done += 1
                    progress(done, total, take.id)
                _verdict(log, reader, take, episode)
        finally:
            log.close()
    return out


def _episode(log: _Log, episode: Episode, run: Path) -> Iterator[int]:
    """The simulation: space, cameras, skeletons; yields every frame when it is logged."""
    rr, header, reader = log.rr, episode.header, RunReader(run)
    log.stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    log.text(
        "about", f"# {header.task or 'Episode'}\n\n{header.simulator} · {len(episode)} frames at {header.fps:g} fps"
    )
    skeletons = {c.name: open_skeleton(reader.skeleton(c.name)) for c in header.cameras if reader.has_skeleton(c.name)}
    poses = {robot.name: episode.link_poses(robot.name) for robot in header.robots}
    for spec in header.objects:
        box = rr.Boxes3D(
            half_sizes=[np.array(spec.size_m) / 2], centers=[spec.center_m], labels=[spec.label or spec.name]
        )
        log.stream.log(log.path("world", "objects", spec.name), box, static=True)
    for k in range(len(episode)):
        log.at(k, float(episode.time_s[k]))
        for robot in header.robots:
            places = poses[robot.name][k, :, :3, 3]
            bones = [[places[j.parent_link], places[j.child_link]] for j in robot.joints if j.parent_link >= 0]
            log.stream.log(log.path("world", "robots", robot.name, "links"), rr.Points3D(places, radii=0.008))
            log.stream.log(log.path("world", "robots", robot.name, "bones"), rr.LineStrips3D(bones, radii=0.004))
            for i, name in enumerate(robot.dof_names):
                log.number(
                    log.path("joints", robot.name, name, "position"), episode.joint(robot.name, "position")[k, i]
                )
                if "target" in header.joint_channels:
                    log.number(
                        log.path("joints", robot.name, name, "target"), episode.joint(robot.name, "target")[k, i]
                    )
        for o, spec in enumerate(header.objects):
            T = episode.object_poses[k, o]
            log.stream.log(
                log.path("world", "objects", spec.name), rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3])
            )
        for camera in header.cameras:
            view = episode.camera(camera.name, k)
            T, entity = inverse(view.T_camera_world), log.path("world", "cameras", camera.name)
            log.stream.log(entity, rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
            pinhole = rr.Pinhole(
                image_from_camera=view.K, resolution=list(camera.size), camera_xyz=rr.ViewCoordinates.RDF
            )
            log.stream.log(entity, pinhole)
            log.image(f"{entity}/rgb", episode.image(camera.name, "rgb", k))
            if camera.name in skeletons and k < len(skeletons[camera.name]):
                drawn = cv2.resize(skeletons[camera.name].frame(k), camera.size, interpolation=cv2.INTER_AREA)
                log.image(f"{entity}/skeleton", drawn)
        yield k


def _verdict(log: _Log, reader: RunReader, take: Any, episode: Episode) -> None:
    """What was judged: curves over the take's frames, and the table."""
    stored = reader.verdict_of(take)
    if stored is None:
        return
    document = stored.document()
    lines = [f"# {take.id}: {document.get('status', '?')}", "", "| check | status | value |", "|---|---|---|"]
    for check in document.get("checks", ()):
        lines.append(f"| {check.get('name')} | {check.get('status')} | {check.get('value')} |")
    log.text(log.path("verdicts", take.id, "table"), "\n".join(lines))
    for name, series in (document.get("series") or {}).items():
        for k, value in enumerate(series):
            frame = take.start + k
            if value is not None and frame < len(episode):
                log.at(frame, float(episode.time_s[frame]))
                log.number(log.path("verdicts", take.id, name), value)


def record_dataset(
    dataset: Path,
    out: Path,
    *,
    episodes: Sequence[int] = (),
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Path:
    """Episodes of a LeRobot dataset as `out` (.rrd), one after the other on the frame timeline.

    Raises InputError where `out` exists, ExportError for an unreadable dataset.
    """
    if out.exists():
        raise InputError(f"{out} exists; choose another file (nothing was changed)")
    data = Dataset(dataset)
    rows = [row for row in data.episodes() if not episodes or row.index in episodes]
    total, done = sum(row.length for row in rows), 0
    with atomic_path(out) as temporary:
        log = _Log(f"retake-{dataset.name}-{data.total_frames}", temporary)
        try:
            for row in rows:
                columns, streams = data.columns(row), {key: data.frames(row, key) for key in data.schema.cameras}
                for k in range(row.length):
                    check_cancel()
                    log.at(done, k / data.schema.fps)
                    for key, stream in streams.items():
                        log.image(log.path("cameras", key.rsplit(".", 1)[-1]), next(stream))
                    for key, vector in data.schema.vectors.items():
                        values = np.ravel(columns[key][k])
                        if vector.dtype.startswith("float") and not key.startswith("source."):
                            for name, value in zip(vector.names or ("value",), values, strict=True):
                                log.number(log.path(key, name), float(value))
                    log.number("episode_index", row.index)
                    done += 1
                    progress(done, total, f"episode {row.index}")
        finally:
            log.close()
    return out
