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
from retake.core.progress import CheckCancel, never
from retake.core.verdicts.assess import assess
from retake.core.verdicts.control import NAME as CONTROL_LEAK
from retake.core.verdicts.footage import shrink
from retake.core.verdicts.form import Frames, open_film
from retake.core.verdicts.judge import Judged, examine
from retake.core.verdicts.motion import NAMES, measure_recorded
from retake.core.verdicts.pictures import save_pictures, save_recording_pictures
from retake.core.verdicts.records import Measurement, Verdict
from retake.core.verdicts.settings import Threshold, VerdictSettings, load_settings

FORM = ("length", "size", "fps", "first_frame", CONTROL_LEAK)
"""Checks of the file itself, and of what its model was given: the recording has no part in them."""


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

    Arguments and errors are those of `examine`.
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
            told = check.status != "skipped"
            measured.append(
                Measurement(check.name, check.value, check.note, check.worst_frame, told, absent=check.absent)
            )
            continue
        own = known.check(check.name).value
        if own is None or check.value is None:
            why = f"not told on the recording itself ({known.check(check.name).note})" if own is None else check.note
            told = own is not None and check.status != "skipped"
            absent = check.absent or known.check(check.name).absent
            measured.append(Measurement(check.name, None, why, applies=told, absent=absent))
            continue
        value = _change(check.value, own, settings.threshold(check.name))
        note = f"{check.value:.3g} here, {own:.3g} on the recording itself" + (f"; {check.note}" if check.note else "")
        measured.append(Measurement(check.name, value, note, check.worst_frame))
    measured += measure_recorded(judged.footage.frames, recording, settings.recorded)
    return replace(verdict, **assess(measured, settings))


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
    film = open_film(
        video, episode, camera, settings, first_frame=first_frame, start=start, frames=frames, fps=fps,
        check_cancel=check_cancel,
    )  # fmt: skip
    pictures, measured = film.pictures, list(film.form)
    size = (pictures.shape[2], pictures.shape[1])
    if "rgb" in episode.header.camera(camera).channels:
        recording = []
        for t in range(start, start + len(pictures)):
            check_cancel()
            recording.append(shrink(episode.image(camera, "rgb", t), size))
        measured += measure_recorded(pictures, np.stack(recording), settings.recorded)
    else:
        why = f"camera {camera!r} recorded no pictures to compare with"
        measured += [Measurement(name, None, why) for name in NAMES]
    measured.append(Measurement("masks", None, _advice(episode, camera)))
    return Verdict(**assess(measured, settings), **film.identity)


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
    object_control: str = "",
    check_cancel: CheckCancel = never,
) -> Verdict:
    """`judge` a file and, with `pictures`, write what there is to look at into that folder.

    `object_control`: how the model was shown objects (`Take.object_control`); of such takes `control_leak` is asked, too.
    """
    settings = config or load_settings()
    if has_masks(episode, camera):
        judged = examine(
            video, episode, camera, first_frame=first_frame, start=start, frames=frames, config=settings,
            object_control=object_control, check_cancel=check_cancel,
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
