# SPDX-License-Identifier: Apache-2.0
"""Episode + camera → skeleton folder. Written beside its final place and renamed when whole; a killed run resumes.

skeleton/<camera>/
    frames/%06d.png         lossless, model size (640x480): what the video model consumes
    gripper_scenario.mp4    capture size, OSCAR's name for the control video
    overlay.mp4             capture size, the same strokes over the RGB
    skeleton.json           hashes, squeeze, arms; written last
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.ends import RobotDeclaration
from retake.core.episode import Episode
from retake.core.errors import SkeletonError
from retake.core.files import read_json, sha256_bytes, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.skeleton.convention import CONVENTION
from retake.core.skeleton.draw import stream_overlay, stream_skeleton
from retake.core.skeleton.inputs import CameraTrack
from retake.core.skeleton.overrides import RobotOverride
from retake.core.skeleton.record import FRAMES, OVERLAY, RECORD, SCENARIO, SCHEMA, Skeleton, hash_files, open_skeleton
from retake.core.skeleton.squeeze import MODEL_SIZE, Squeeze
from retake.core.skeleton.topology import Arm, arms_of, camera_track
from retake.core.video import write_video

_log = logging.getLogger(__name__)


def skeleton_frames(
    episode: Episode, camera_name: str, *, overrides: tuple[RobotOverride, ...] | None = None, reuse: bool = False
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The skeleton of an episode seen by one camera: (H, W, 3) uint8 RGB per frame, at capture size.

    Raises SkeletonError (no state, no gripper, broken arrays) and EpisodeError (unknown camera) at once, before the
    first frame is asked for. `reuse` as in `stream_skeleton`.
    """
    arms = arms_of(episode, overrides)
    return stream_skeleton([arm.track for arm in arms], camera_track(episode, camera_name), reuse=reuse)


def make_skeleton(
    episode: Episode,
    camera: str,
    out_dir: Path | str,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
    *,
    model_size: tuple[int, int] = MODEL_SIZE,
    overrides: tuple[RobotOverride, ...] | None = None,
    declared: tuple[RobotDeclaration, ...] = (),
) -> Skeleton:
    """Draw and write one camera's skeleton into `out_dir`; an up-to-date one is returned untouched.

    `declared`: end effectors in the user's own words instead of the episode's.

    Resumable: frames already written by an interrupted run are checked and kept. Raises SkeletonError (nothing to
    draw, or `out_dir` holds something else), EpisodeError, and whatever `cancel` raises between two frames.
    """
    out_dir, progress, cancel = Path(out_dir), progress or silent, cancel or never
    arms, track = arms_of(episode, overrides, declared), camera_track(episode, camera)
    squeeze = Squeeze(track.size, model_size)
    inputs = _inputs_sha256(episode, camera, arms, track, squeeze)
    partial, old = (out_dir.with_name(f".{out_dir.name}.{kind}") for kind in ("partial", "old"))
    if (existing := _up_to_date(out_dir, inputs)) is not None:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        progress(1, 1, "up to date")
        return existing
    _start(partial, inputs)

    tracks, total = [arm.track for arm in arms], 3 * len(episode)

    def counted(
        frames: Iterator[UInt8[np.ndarray, "H W 3"]], done: int, note: str
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index, frame in enumerate(frames):
            cancel()
            yield frame
            progress(done + index + 1, total, note)

    pixels, drawn = hashlib.sha256(), 0
    for index, frame in enumerate(counted(stream_skeleton(tracks, track, reuse=True), 0, "frames")):
        small = squeeze.squeeze(frame)
        pixels.update(small.data)
        drawn += bool(small.any())
        _write_frame(partial / FRAMES / f"{index:06d}.png", small)
    if not (partial / SCENARIO).exists():
        frames = counted(stream_skeleton(tracks, track, reuse=True), len(episode), SCENARIO)
        write_video(partial / SCENARIO, frames, episode.header.fps)
    if not (partial / OVERLAY).exists():
        images = (episode.image(camera, "rgb", index) for index in range(len(episode)))
        frames = counted(stream_overlay(tracks, track, images), 2 * len(episode), OVERLAY)
        write_video(partial / OVERLAY, frames, episode.header.fps)
    progress(total, total, "")

    notes = (*_notes(camera, drawn, len(episode)), *(arm.note for arm in arms if arm.note))
    skeleton = Skeleton(
        path=out_dir,
        camera=camera,
        fps=episode.header.fps,
        frame_count=len(episode),
        squeeze=squeeze,
        arms=tuple((arm.robot, arm.gripper, arm.chain) for arm in arms),
        motion_source=episode.header.motion_source,
        episode_sha256=episode.content_sha256,
        inputs_sha256=inputs,
        pixels_sha256=pixels.hexdigest(),
        sha256=sha256_json({"schema": SCHEMA, "inputs": inputs, "pixels": pixels.hexdigest()}),
        drawn_frames=drawn,
        notes=notes,
        files=hash_files(partial, len(episode)),
    )
    write_json(partial / RECORD, skeleton.to_json())
    (partial / "inputs.json").unlink(missing_ok=True)
    _replace(partial, out_dir, old)
    for note in notes:
        _log.warning("skeleton of camera %s: %s", camera, note)
    return skeleton


def _notes(camera: str, drawn: int, frames: int) -> tuple[str, ...]:
    if drawn == 0:
        return (f"camera {camera!r} never sees the robot: every skeleton frame is black",)
    if drawn < frames:
        return (f"camera {camera!r} sees nothing of the robot in {frames - drawn} of {frames} frames",)
    return ()


def _inputs_sha256(episode: Episode, camera: str, arms: tuple[Arm, ...], track: CameraTrack, squeeze: Squeeze) -> str:
    """Hash of everything the artefacts follow from; the episode's own hash stands for the RGB under the overlay."""
    arrays = [
        array for arm in arms for array in (arm.track.link_positions, arm.track.ee_pose, arm.track.gripper_openness)
    ]
    return sha256_json(
        {
            "convention": CONVENTION,
            "episode": episode.content_sha256,
            "camera": camera,
            "fps": episode.header.fps,
            "squeeze": squeeze.to_json(),
            **({} if track.lens is None else {"lens": track.lens.to_json()}),
            "arms": [[arm.robot, arm.gripper, *arm.chain] for arm in arms],
            "arrays": sha256_bytes(
                *(
                    np.ascontiguousarray(a, "<f8").tobytes()
                    for a in (*arrays, track.camera_intrinsic, track.camera_extrinsic)
                )
            ),
        }
    )


def _up_to_date(out_dir: Path, inputs: str) -> Skeleton | None:
    """The finished skeleton when it is whole and made from these inputs. Raises SkeletonError for a foreign folder."""
    if not out_dir.exists():
        return None
    if not out_dir.is_dir() or (any(out_dir.iterdir()) and not (out_dir / RECORD).exists()):
        raise SkeletonError(f"{out_dir} exists and is no skeleton folder ({RECORD} is missing); choose another place")
    try:
        skeleton = open_skeleton(out_dir)
    except SkeletonError:
        return None  # damaged or of another version: made anew from the episode
    return skeleton if skeleton.inputs_sha256 == inputs else None


def _start(partial: Path, inputs: str) -> None:
    """A work folder for these inputs: continued when it is theirs, else begun afresh."""
    marker = partial / "inputs.json"
    try:
        same = read_json(marker) == {"inputs_sha256": inputs} or read_json(partial / RECORD)["inputs_sha256"] == inputs
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        shutil.rmtree(partial, ignore_errors=True)
    (partial / FRAMES).mkdir(parents=True, exist_ok=True)
    for torn in (*partial.glob(".*.tmp*"), *(partial / FRAMES).glob(".*.tmp*")):
        torn.unlink()
    (partial / RECORD).unlink(missing_ok=True)
    write_json(marker, {"inputs_sha256": inputs})


def _write_frame(path: Path, frame: UInt8[np.ndarray, "h w 3"]) -> None:
    if path.exists():
        found = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if found is not None and np.array_equal(found[..., ::-1], frame):
            return
    ok, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if not ok:
        raise SkeletonError(f"could not encode {path}")
    # No fsync per frame: after a power cut the file hashes in skeleton.json show the damage, and it is drawn again.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data.tobytes())
    os.replace(temporary, path)


def _replace(partial: Path, out_dir: Path, old: Path) -> None:
    """Put the finished folder in place. Killed between the renames, the next run finds `partial` whole and goes on."""
    shutil.rmtree(old, ignore_errors=True)
    if out_dir.exists():
        out_dir.rename(old)
    partial.rename(out_dir)
    shutil.rmtree(old, ignore_errors=True)
