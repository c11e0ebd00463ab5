# SPDX-License-Identifier: Apache-2.0
"""Verdicts on recorded episodes, and on any camera without instance ids: the take's change against the recording.

Without masks a video can be refused (it moves later, elsewhere, mirrored, not at all, otherwise) but never passed: what
links, gripper and objects do stays unsure, and the verdict says what would settle it. With masks (`retake.core.masks`) all
checks are made, each by its change against the recording.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.errors import VerdictError
from retake.core.progress import CheckCancel, never
from retake.core.verdicts.assess import check_of, overall_of, probability_of
from retake.core.verdicts.clip import Clip, open_clip
from retake.core.verdicts.footage import shrink
from retake.core.verdicts.form import Frames, length, rate_of, size_of, take_frames
from retake.core.verdicts.judge import Judged, examine
from retake.core.verdicts.motion import NAMES, measure_recorded
from retake.core.verdicts.pictures import save_pictures, save_recording_pictures
from retake.core.verdicts.records import Measurement, Verdict
from retake.core.verdicts.settings import Threshold, VerdictSettings, load_settings
from retake.core.verdicts.stability import first_frame_error

FORM = ("length", "size", "fps", "first_frame")
"""Checks of the file itself: the recording has no part in them."""


def judge(
    video: Path | str | Frames,
    episode: Episode,
    camera: str,
    *,
    first_frame: UInt8[np.ndarray, "H W 3"] | None = None,
    start: int = 0,
    frames: int | None = None,
    config: VerdictSettings | None = None,
    fps: float | None = None,
    check_cancel: CheckCancel = never,
) -> Verdict:
    """Judge a take against any episode: by the simulator's masks where the camera has them, else by the recording.

    Arguments and errors are those of `judge.judge`.
    """
    if not has_masks(episode, camera):
        return judge_recording(
            video, episode, camera, first_frame=first_frame, start=start, frames=frames, config=config, fps=fps,
            check_cancel=check_cancel,
        )  # fmt: skip
    judged = examine(
        video, episode, camera, first_frame=first_frame, start=start, frames=frames, config=config, fps=fps,
        check_cancel=check_cancel,
    )  # fmt: skip
    return as_change(judged, episode, config or load_settings(), check_cancel)


def as_change(
    judged: Judged, episode: Episode, settings: VerdictSettings, check_cancel: CheckCancel = never
) -> Verdict:
    """The verdict on a masked recording: every check by its change against the recording's own pictures.

    Fitted calibrations and coarse meshes leave a constant error that a faithful take has too. What could not be told on the
    recording itself is skipped. Verdicts on simulated episodes are returned as they are.
    """
    camera, verdict = judged.verdict.camera, judged.verdict
    if episode.header.motion_source != "recorded" or "rgb" not in episode.header.camera(camera).channels:
        return verdict
    size, count = judged.truth.size, len(judged.footage)
    recording = np.stack([shrink(episode.image(camera, "rgb", verdict.start + t), size) for t in range(count)])
    key = (episode.content_sha256, camera, verdict.start, count, repr(settings))
    if key not in _OWN:
        _OWN.clear()
        _OWN[key] = examine(
            recording, episode, camera, start=verdict.start, frames=count, config=settings, check_cancel=check_cancel
        ).verdict  # fmt: skip
    known = _OWN[key]
    measured = []
    for check in verdict.checks:
        if check.name in FORM:
            measured.append(
                Measurement(check.name, check.value, check.note, check.worst_frame, check.status != "skipped")
            )
            continue
        own = known.check(check.name).value
        if own is None or check.value is None:
            why = f"not told on the recording itself ({known.check(check.name).note})" if own is None else check.note
            measured.append(Measurement(check.name, None, why, applies=own is not None and check.status != "skipped"))
            continue
        value = _change(check.value, own, settings.threshold(check.name))
        note = f"{check.value:.3g} here, {own:.3g} on the recording itself" + (f"; {check.note}" if check.note else "")
        measured.append(Measurement(check.name, value, note, check.worst_frame))
    measured += measure_recorded(judged.footage.frames, recording, settings.recorded)
    checks = tuple(check_of(m, settings) for m in measured)
    severities = [settings.threshold(m.name).severity(m.value) for m in measured if m.value is not None]
    return replace(
        verdict, checks=checks, overall=overall_of(checks),
        probability=probability_of(checks, max(severities, default=1.0), settings),
    )  # fmt: skip


_OWN: dict[tuple[str, str, int, int, str], Verdict] = {}
"""The verdict on the recording itself that was used last: many takes of one window share it."""


def _change(value: float, own: float, threshold: Threshold) -> float:
    """A take's value with the recording's own taken off; for what falls with faults, in units of the recording's."""
    if threshold.worse == "above":
        return max(value - max(own, 0.0), 0.0)
    good = 1.25 * (threshold.unsure if threshold.unsure is not None else threshold.limit)
    return threshold.base + (value - threshold.base) * max(
        (good - threshold.base) / max(own - threshold.base, 1e-6), 1.0
    )


def has_masks(episode: Episode, camera: str) -> bool:
    """Whether a camera knows which pixel is robot and which is object. Raises EpisodeError for an unknown camera."""
    return "instances" in episode.header.camera(camera).channels


def judge_recording(
    video: Path | str | Frames,
    episode: Episode,
    camera: str,
    *,
    first_frame: UInt8[np.ndarray, "H W 3"] | None = None,
    start: int = 0,
    frames: int | None = None,
    config: VerdictSettings | None = None,
    fps: float | None = None,
    check_cancel: CheckCancel = never,
) -> Verdict:
    """Judge a take by its change against the recording's own pictures: fail or unsure, never pass.

    Raises VerdictError for no frames or `start` outside the episode, InputError for an unreadable file.
    """
    settings = config or load_settings()
    spec, rate = episode.header.camera(camera), float(episode.header.fps)
    if not 0 <= start < len(episode):
        raise VerdictError(f"start frame {start} is outside the episode, which has frames 0..{len(episode) - 1}")
    clip: Clip | None = None
    source = video
    if isinstance(video, str | Path):
        clip = open_clip(Path(video), rate)
        source = clip.frames(rate)
        fps = (clip.fps or None) if fps is None else fps
    width = min(settings.working_width, spec.size[0])
    size = (width, round(spec.size[1] * width / spec.size[0]))
    offered = len(episode) - start
    pictures, total, take_size = take_frames(source, size, offered, check_cancel)  # type: ignore[arg-type]
    measured = [
        length(total, offered, frames, clip, settings),
        size_of(take_size, spec.size),
        rate_of(fps, rate, clip, frames is not None),
        first_frame_error(pictures[0], first_frame, size),
    ]
    if "rgb" in spec.channels:
        recording = []
        for t in range(start, start + len(pictures)):
            check_cancel()
            recording.append(shrink(episode.image(camera, "rgb", t), size))
        measured += measure_recorded(pictures, np.stack(recording), settings.recorded)
    else:
        why = f"camera {camera!r} recorded no pictures to compare with"
        measured += [Measurement(name, None, why) for name in NAMES]
    measured.append(Measurement("masks", None, _advice(episode, camera)))
    checks = tuple(check_of(m, settings) for m in measured)
    severities = [settings.threshold(m.name).severity(m.value) for m in measured if m.value is not None]
    return Verdict(
        overall=overall_of(checks),
        probability=probability_of(checks, max(severities, default=1.0), settings),
        calibration=settings.calibration.data,
        checks=checks,
        camera=camera,
        start=start,
        frames=total,
        fps=float(fps if fps is not None else rate),
        size=take_size,
        episode_sha256=episode.content_sha256,
        video_sha256=clip.sha256 if clip else "",
    )


def _advice(episode: Episode, camera: str) -> str:
    """Why nothing can pass here, and what would help."""
    if episode.header.motion_source == "recorded":
        return (
            f"camera {camera!r} has no instance ids: arm and gripper cannot be told apart; with masks of the "
            "robot's meshes a take can pass: `retake masks EPISODE --urdf ROBOT.urdf --meshes DIR --out NEW`, then judge "
            "against NEW"
        )
    return f"camera {camera!r} recorded no instance ids: capture it with the channel `instances`, then a take can pass"


def verify_video(
    video: Path,
    episode: Episode,
    camera: str,
    *,
    first_frame: UInt8[np.ndarray, "H W 3"] | None = None,
    start: int = 0,
    frames: int | None = None,
    config: VerdictSettings | None = None,
    pictures: Path | None = None,
    check_cancel: CheckCancel = never,
) -> Verdict:
    """`judge` a file and, with `pictures`, write what there is to look at into that folder."""
    settings = config or load_settings()
    if has_masks(episode, camera):
        judged = examine(
            video, episode, camera, first_frame=first_frame, start=start, frames=frames, config=settings,
            check_cancel=check_cancel,
        )  # fmt: skip
        verdict = as_change(judged, episode, settings, check_cancel)
        if pictures is None:
            return verdict
        return save_pictures(replace(judged, verdict=verdict), video, episode, pictures, settings)
    verdict = judge_recording(
        video, episode, camera, first_frame=first_frame, start=start, frames=frames, config=settings,
        check_cancel=check_cancel,
    )  # fmt: skip
    return verdict if pictures is None else save_recording_pictures(verdict, video, episode, pictures)
