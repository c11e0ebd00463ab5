# SPDX-License-Identifier: Apache-2.0
"""What a verdict looks like: worst frames (simulation | take, with contours) and the errors over time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.files import atomic_path
from retake.core.verdicts.alignment import peak
from retake.core.verdicts.clip import open_clip
from retake.core.verdicts.following import weighted
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.posture_shapes import outline_of
from retake.core.verdicts.postures import NAME as POSTURE
from retake.core.verdicts.records import Check, Verdict
from retake.core.verdicts.settings import VerdictSettings
from retake.core.verdicts.stability import drift_votes

KNOWN, FOUND, OBJECT, LEFT_OUT = (90, 220, 120), (255, 150, 40), (90, 170, 255), (230, 70, 200)
_INK, _PAPER, _GRID = (40, 40, 44), (250, 250, 248), (222, 222, 218)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
PLOTTED = ("arm_offset", "local_lag", "gripper_openness", "object_held", "object_released", "object_settled", "support")


def save_pictures(judged: Judged, video: Path, episode: Episode, folder: Path, settings: VerdictSettings) -> Verdict:
    """Write timeline.png and one picture per failed or unsure check (else of the worst check); verdict names them."""
    verdict = judged.verdict
    wanted = [c for c in verdict.checks if c.status in ("fail", "unsure") and c.worst_frame is not None]
    if not wanted:
        measured = [c for c in verdict.checks if c.value is not None and c.worst_frame is not None]
        worst = max(measured, key=lambda c: settings.threshold(c.name).severity(c.value or 0.0), default=None)
        wanted = [worst] if worst else []
    indices = {c.worst_frame for c in wanted}
    clip, rate = judged.clip or open_clip(video, episode.header.fps), episode.header.fps
    frames = {t: frame for t, frame in enumerate(clip.frames(rate)) if t in indices}
    names: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for check in wanted:
        frame = frames.get(check.worst_frame or 0)
        if frame is not None:
            names[check.name] = f"worst_{check.name}.png"
            _save(folder / names[check.name], side_by_side(judged, episode, frame, check, settings))
    _save(folder / "timeline.png", timeline(verdict))
    checks = tuple(replace(c, picture=names.get(c.name)) for c in verdict.checks)
    return replace(verdict, checks=checks)


def save_recording_pictures(verdict: Verdict, video: Path, episode: Episode, folder: Path) -> Verdict:
    """Write, for the worst frame of every failed or unsure check that has one, recording | take beside each other."""
    wanted = [c for c in verdict.checks if c.status in ("fail", "unsure") and c.worst_frame is not None]
    clip = open_clip(video, float(episode.header.fps))
    indices = {c.worst_frame for c in wanted}
    frames = {t: f for t, f in enumerate(clip.frames(float(episode.header.fps))) if t in indices}
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    for check in wanted:
        t = check.worst_frame or 0
        if t not in frames or verdict.start + t >= len(episode):
            continue
        known = episode.image(verdict.camera, "rgb", verdict.start + t)
        shown = cv2.resize(frames[t], (known.shape[1], known.shape[0]), interpolation=cv2.INTER_AREA)
        names[check.name] = f"worst_{check.name}.png"
        _save(folder / names[check.name], np.concatenate([known, shown], 1))
    return replace(verdict, checks=tuple(replace(c, picture=names.get(c.name)) for c in verdict.checks))


def _save(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), image[..., ::-1])


def side_by_side(
    judged: Judged, episode: Episode, frame: UInt8[np.ndarray, "H W 3"], check: Check, settings: VerdictSettings
) -> UInt8[np.ndarray, "H W2 3"]:
    """Simulation | take at a check's worst frame; known contours and skeleton green, recovered ones orange, object blue.

    An object in another posture has that posture's outline in orange. For drift every place that votes is marked with its
    motion (green), and those whose motion others do not share (a shadow, a passer-by) are pink: they are left out.
    """
    truth, t = judged.truth, min(check.worst_frame or 0, len(judged.truth) - 1)
    sim = episode.image(judged.verdict.camera, "rgb", truth.start + t)
    size = (sim.shape[1], sim.shape[0])
    panels = [sim.copy(), cv2.resize(frame, size, interpolation=cv2.INTER_AREA)]
    shift = _local_shift(judged, t)
    contour = truth.contours[t]
    known, found_bones = skeleton(judged, episode, t)
    for panel in panels:
        for k, xy in enumerate((contour.xy + 0.5) / truth.scale - 0.5):
            robot = bool(truth.parts[contour.part[k]].robot)
            _dot(panel, xy, KNOWN if robot else OBJECT)
            if robot and np.hypot(*shift) > 1:
                _dot(panel, xy + shift, FOUND)
        _bones(panel, known, KNOWN)
        _bones(panel, found_bones, FOUND)
        for found in judged.tracks.values():
            if np.isfinite(found.found[t]).all():
                _cross(panel, (found.expected[t] + 0.5) / truth.scale - 0.5, OBJECT)
                _cross(panel, (found.found[t] + 0.5) / truth.scale - 0.5, FOUND)
    _draw_posture(panels[1], judged, episode, check, t)
    _draw_votes(panels[1], judged, check, t, settings)
    value = "" if check.value is None else f" {check.value:.3g} {check.unit} (limit {check.threshold:.3g})"
    caption = np.full((26, 2 * size[0], 3), _PAPER, np.uint8)
    text = f"frame {t}: {check.name} {check.status}{value}".encode("ascii", "replace").decode()
    cv2.putText(caption, text, (8, 18), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    return np.concatenate([caption, np.concatenate(panels, 1)])


def _draw_posture(image: np.ndarray, judged: Judged, episode: Episode, check: Check, t: int) -> None:
    """The outline of the posture that the pixels prefer."""
    if check.name != POSTURE or check.value is None:
        return
    name = check.note.split(", ")[0]
    for part in judged.truth.object_parts:
        if judged.truth.parts[part].name in judged.tracks and not judged.truth.is_still(part):
            outline = outline_of(judged.truth, episode, judged.verdict.camera, part, t, name)
            if outline is not None:
                ends = np.round((outline + 0.5) / judged.truth.scale - 0.5).astype(np.int32)
                cv2.polylines(image, [ends[:, None]], True, FOUND, 1, cv2.LINE_AA)


def _draw_votes(image: np.ndarray, judged: Judged, check: Check, t: int, settings: VerdictSettings) -> None:
    """Where the scenery's motion is told, and what is left out of it."""
    if check.name != "background_drift" or not judged.truth.static_camera:
        return
    place, moved = drift_votes(judged.footage, judged.truth, t, settings.stability)
    if not len(place):
        return
    apart = np.linalg.norm(moved - np.median(moved, axis=0), axis=1)
    for at, way, far in zip(place, moved, apart, strict=True):
        colour = LEFT_OUT if far > 1.0 else KNOWN
        ends = [tuple(np.round(p / judged.truth.scale).astype(int).tolist()) for p in (at, at + 4 * way)]
        cv2.circle(image, ends[0], 3, colour, 1, cv2.LINE_AA)
        cv2.line(image, ends[0], ends[1], colour, 1, cv2.LINE_AA)


Bone = tuple[np.ndarray, np.ndarray]
"""Ends of a bone, recorded px."""


def skeleton(judged: Judged, episode: Episode, t: int) -> tuple[list[Bone], list[Bone]]:
    """Bones of the kinematic chains at take frame t: as simulated, and as recovered from the pixels around t.

    A recovered joint is the simulated one moved by the offset of what hangs on its link (that link and everything
    behind it), where the pixels clearly prefer an offset.
    """
    truth, spec = judged.truth, episode.header.camera(judged.verdict.camera)
    K, T = truth.K[t], truth.T_camera_world[t]
    known: list[Bone] = []
    recovered: list[Bone] = []
    for robot in episode.header.robots:
        poses = episode.link_poses(robot.name)[truth.start + t]
        moved = np.array([_link_shift(judged, robot.name, link, t) for link in range(len(robot.links))])
        p = (poses[:, :3, 3] @ T[:3, :3].T) + T[:3, 3]
        uvw = p @ K.T
        working = truth.seen(t, uvw[:, :2] / np.maximum(uvw[:, 2:], 1e-6) - 0.5) + 0.5
        place = working / truth.scale - 0.5
        for child, parent in enumerate(robot.parents):
            if parent < 0 or min(p[child, 2], p[parent, 2]) < 0.02 or np.hypot(*(place[child] - place[parent])) < 2:
                continue
            if np.abs(place[[child, parent]]).max() > 4 * max(spec.size):
                continue
            known.append((place[parent], place[child]))
            recovered.append((place[parent] + moved[parent], place[child] + moved[child]))
    return known, recovered


def _link_shift(judged: Judged, robot: str, link: int, t: int) -> np.ndarray:
    """Offset (recorded px) of a link and the later links of its robot around frame t; none where it is not clear."""
    truth, alignment = judged.truth, judged.alignment
    parts = [i for i in truth.robot_parts if truth.parts[i].robot == robot and truth.parts[i].link >= link]
    window = slice(max(t - 5, 0), t + 6)
    if not parts or alignment.points[window][:, parts].sum() < 60:
        return np.zeros(2)
    score = weighted(alignment.shift_scores, alignment.points, window, parts)
    dx, dy, gain = peak(score, 6e-4)
    return np.array([dx, dy]) / truth.scale if gain > 0.5 * float(score.std()) or np.hypot(dx, dy) < 1 else np.zeros(2)


def _bones(image: np.ndarray, bones: list[Bone], colour: tuple[int, int, int]) -> None:
    for a, b in bones:
        ends = [(round(float(x)), round(float(y))) for x, y in (a, b)]
        cv2.line(image, ends[0], ends[1], (20, 20, 20), 3, cv2.LINE_AA)
        cv2.line(image, ends[0], ends[1], colour, 1, cv2.LINE_AA)
        for end in ends:
            cv2.circle(image, end, 3, colour, -1, cv2.LINE_AA)


def _local_shift(judged: Judged, t: int) -> np.ndarray:
    """Offset of the arm around frame t, recorded px."""
    parts, alignment = judged.truth.robot_parts, judged.alignment
    window = slice(max(t - 5, 0), t + 6)
    if not parts or not alignment.points[window][:, parts].any():
        return np.zeros(2)
    score = weighted(alignment.shift_scores[:, parts], alignment.points[:, parts], window, list(range(len(parts))))
    dx, dy, _ = peak(score, 1e-4)
    return np.array([dx, dy]) / judged.truth.scale


def _dot(image: np.ndarray, xy: np.ndarray, colour: tuple[int, int, int]) -> None:
    x, y = round(float(xy[0])), round(float(xy[1]))
    if 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
        image[y, x] = colour


def _cross(image: np.ndarray, xy: np.ndarray, colour: tuple[int, int, int]) -> None:
    cv2.drawMarker(image, (round(float(xy[0])), round(float(xy[1]))), colour, cv2.MARKER_CROSS, 13, 2)


def timeline(verdict: Verdict) -> UInt8[np.ndarray, "H W 3"]:
    """Errors over time, one row each, with grasp, release and settling marked and the limit dashed."""
    rows = [name for name in PLOTTED if any(v is not None for v in verdict.series.get(name, ()))]
    width, height, left = 900, 86, 170
    image = np.full((max(len(rows), 1) * height + 34, width, 3), _PAPER, np.uint8)
    count = max((len(verdict.series[name]) for name in rows), default=2)
    x_of = lambda t: left + round(t / max(count - 1, 1) * (width - left - 20))  # noqa: E731 - one expression, used below
    for row, name in enumerate(rows):
        series = np.array([np.nan if v is None else v for v in verdict.series[name]], np.float64)
        check, top = verdict.check(name), row * height + 8
        limit = check.threshold or 0.0
        peak_value = max(float(np.nanmax(np.abs(series))), limit * 1.2, 1e-6)
        y_of = lambda v, top=top, peak_value=peak_value: top + 66 - round(min(abs(v) / peak_value, 1.0) * 60)  # noqa: E731
        cv2.line(image, (left, top + 66), (width - 20, top + 66), _GRID, 1)
        for x in range(left, width - 20, 8):
            cv2.line(image, (x, y_of(limit)), (x + 3, y_of(limit)), (200, 60, 60), 1)
        colour = {"fail": (200, 40, 40), "unsure": (200, 140, 20)}.get(check.status, (30, 120, 80))
        points = [(x_of(t), y_of(v)) for t, v in enumerate(series) if np.isfinite(v)]
        for a, b in itertools.pairwise(points):
            cv2.line(image, a, b, colour, 1, cv2.LINE_AA)
        cv2.putText(image, name, (8, top + 26), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
        unit = check.unit.encode("ascii", "replace").decode().replace("?", "x")
        cv2.putText(image, f"limit {limit:.3g} {unit}", (8, top + 46), _FONT, 0.4, (110, 110, 110), 1, cv2.LINE_AA)
    for name, frame in verdict.events.items():
        if frame is not None:
            cv2.line(image, (x_of(frame), 4), (x_of(frame), image.shape[0] - 28), (120, 120, 200), 1)
            cv2.putText(image, name, (x_of(frame) - 20, image.shape[0] - 10), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return image
