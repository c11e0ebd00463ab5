# SPDX-License-Identifier: Apache-2.0
"""Action following: offset, lag and support of the arm, recovered from the pixels. Recorded pixels and frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.verdicts.alignment import Alignment, best_lag, peak, vertex
from retake.core.verdicts.evidence import SceneryEvidence
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import FollowingSettings
from retake.core.verdicts.truth import Truth


@dataclass(frozen=True, eq=False)
class Group:
    """Links that are judged together over a window of frames."""

    name: str
    parts: list[int]


def measure_following(
    alignment: Alignment, truth: Truth, settings: FollowingSettings, footage: Footage | None = None
) -> list[Measurement]:
    """arm_offset, link_offset, robot_shape, lag, local_lag, support. Without a visible robot all are unsure.

    With the footage a link counts as displaced only where edges show it on what the simulation knows as scenery.
    """
    parts = truth.robot_parts
    names = ("arm_offset", "link_offset", "robot_shape", "lag", "local_lag", "support")
    if not parts or alignment.points[:, parts].sum() < settings.min_points:
        why = "robot never visible" if parts else "the episode's camera knows no robot"
        return [Measurement(name, None, why) for name in names]
    to_px = truth.px
    track = arm_track(alignment, truth, settings)
    moves = []
    for mine in robots(truth):
        if alignment.points[:, mine].sum() >= settings.min_points:
            moves.append(
                peak(weighted(alignment.shift_scores, alignment.points, slice(None), mine), settings.prior)[:2]
            )
    dx, dy = max(moves, key=lambda move: np.hypot(*move), default=(0.0, 0.0))
    out = [
        Measurement("arm_offset", float(np.hypot(dx, dy)) * to_px, f"({dx * to_px:+.1f}, "
                    f"{dy * to_px:+.1f}) px over the whole take", _argmax(track), series=track),
        _link_offset(alignment, truth, settings, None if footage is None else SceneryEvidence(footage, truth, alignment)),
        _swelling(alignment, truth),
        *_lags(alignment, truth, settings),
        _support(alignment, truth, settings),
    ]  # fmt: skip
    return out


def _swelling(alignment: Alignment, truth: Truth) -> Measurement:
    """robot_shape: by how much a robot is drawn wider or narrower at the end than at the beginning, px."""
    mine = [p for robot in robots(truth) for p in robot]
    value = float(np.abs(alignment.swelling[mine]).max()) * truth.px
    return Measurement("robot_shape", value, "on every side, last third against first")


def robots(truth: Truth) -> list[list[int]]:
    """Parts of every robot that moves in these frames; of all of them where none does.

    A shut cabinet that stands beside an arm must not outvote it; `still_objects` judges what stands still.
    """
    every = [
        [p for p in truth.robot_parts if truth.parts[p].robot == name]
        for name in dict.fromkeys(truth.parts[p].robot for p in truth.robot_parts)
    ]
    pose = truth.T_world_part
    moving = [mine for mine in every if np.abs(pose[:, mine] - pose[:1, mine]).max() > 1e-3]
    return moving or every


def arm_track(alignment: Alignment, truth: Truth, settings: FollowingSettings) -> Float64[np.ndarray, "T"]:
    """Offset over time (px) of the robot that is furthest off, from a sliding window of frames; NaN where none shows."""
    reach = settings.window // 2
    out = np.full(len(truth), np.nan)
    for mine in robots(truth):
        for t in range(len(truth)):
            window = slice(max(t - reach, 0), t + reach + 1)
            if alignment.points[window][:, mine].sum() < settings.min_points:
                continue
            dx, dy, gain = peak(weighted(alignment.shift_scores, alignment.points, window, mine), settings.prior)
            offset = np.hypot(dx, dy) * truth.px if gain > 0 or np.hypot(dx, dy) < 1 else 0.0
            out[t] = max(offset, np.nan_to_num(out[t]))
    return out


def weighted(S: np.ndarray, n: np.ndarray, window: slice, parts: list[int]) -> Float64[np.ndarray, "S S"]:
    """Mean response per shift over frames and parts, each contour point counting once."""
    weight = n[window][:, parts]
    total = max(float(weight.sum()), 1.0)
    return np.einsum("tp,tpij->ij", weight, S[window][:, parts].astype(np.float64)) / total


def link_offsets(alignment: Alignment, truth: Truth, settings: FollowingSettings) -> dict[str, float | None]:
    """Offset of every link's own contours over the whole take, px; None for links that are hardly visible.

    Reported, not judged: a single straight link fits in many places (`link_offset` judges groups of links).
    """
    out: dict[str, float | None] = {}
    for part in truth.robot_parts:
        name = f"link_px.{truth.parts[part].robot}.{truth.parts[part].name}"
        if alignment.points[:, part].sum() < settings.min_points:
            out[name] = None
            continue
        score = weighted(alignment.shift_scores[:, [part]], alignment.points[:, [part]], slice(None), [0])
        dx, dy, _ = peak(score, settings.link_prior)
        out[name] = float(np.hypot(dx, dy)) * truth.px
    return out


def arm_size(truth: Truth) -> float:
    """Median diagonal of the robot's bounding box in the image, working px; 0 where it is never visible."""
    diagonals = []
    for t in range(0, len(truth), 4):
        mask = truth.robot_mask(t)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            diagonals.append(np.hypot(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    return float(np.median(diagonals)) if diagonals else 0.0


def groups(truth: Truth) -> list[Group]:
    """Each visible link with everything that hangs on it, and three links in a row; indices are into `robot_parts`.

    A frozen or drifting joint moves all that it carries, and nothing beside it: the right shoulder is no neighbour of the left
    hand, however they are listed. Fewer than three links of a robot are not judged: a finger fits its neighbour. A drawer, a
    door or another robot of up to three parts has nothing but its links.
    """
    parts = truth.robot_parts
    out = []
    for robot in robots(truth):
        mine = [i for i, p in enumerate(parts) if p in robot]
        names = [truth.parts[p].name for p in parts]
        if len(mine) <= 3:
            out += [Group(names[i], [i]) for i in mine]
            continue
        above = {i: parts.index(c) if (c := truth.parts[parts[i]].carrier) in robot else -1 for i in mine}
        for first in mine:
            beyond = [i for i in mine if first in _ancestry(above, i)]
            if above[first] >= 0 and len(beyond) >= 3:
                out.append(Group(f"{names[first]} and beyond", beyond))
        for last in mine:
            row = _ancestry(above, last)[2::-1]
            if len(row) == 3 and last in above.values():
                out.append(Group(f"around {names[row[1]]}", row))
    return out


def _ancestry(above: dict[int, int], part: int) -> list[int]:
    """A part, what carries it, what carries that, … to the base."""
    out = [part]
    while above[out[-1]] >= 0:
        out.append(above[out[-1]])
    return out


def _link_offset(
    alignment: Alignment, truth: Truth, settings: FollowingSettings, evidence: SceneryEvidence | None
) -> Measurement:
    """Largest offset of any group in any window that the pixels prefer clearly to no offset."""
    parts = truth.robot_parts
    S, n = alignment.shift_scores[:, parts], alignment.points[:, parts]
    worst, where, frame = 0.0, "", None
    mute: dict[str, None] = {}
    far: dict[str, list[tuple[float, int]]] = {}
    starts = range(0, max(len(S) - settings.window, 0) + 1, max(1, settings.window // 2))
    for start in starts:
        window = slice(start, start + settings.window)
        for group in groups(truth):
            if n[window][:, group.parts].sum() < settings.min_points:
                continue
            score = weighted(S, n, window, group.parts)
            dx, dy, gain = peak(score, settings.link_prior)
            offset = float(np.hypot(dx, dy)) * truth.px
            spread = float(score.std())
            if np.hypot(dx, dy) > FAR and _stands(score, settings.link_rival):
                continue
            needed = max(settings.min_gain, settings.link_gain * spread, settings.link_share * float(score.max()))
            if gain <= needed or offset <= worst:
                continue
            middle = start + settings.window // 2
            if evidence is None or np.hypot(dx, dy) <= _OWN:
                worst, where, frame = offset, group.name, middle
            elif evidence.speaks(
                window, [parts[i] for i in group.parts], (dx, dy), float(score[alignment.radius, alignment.radius])
            ):
                far.setdefault(group.name, []).append((offset, middle))
            else:
                mute[group.name] = None
    for name, found in far.items():
        # A link that is elsewhere is so for longer than a window; what only looks alike for a moment is not told.
        lasting = sorted(found, reverse=True)[min(1, len(starts) - 1) :]
        if lasting and lasting[0][0] > worst:
            worst, frame = lasting[0]
            where = name
        if lasting:
            mute.pop(name, None)
        else:
            mute[name] = None
    if mute:
        where = f"{where}{'; ' if where else ''}not told where dark or hidden: {', '.join(list(mute)[:4])}"
    return Measurement("link_offset", worst, where, frame)


_OWN = 1.5
"""Working px: a peak this near is the links' own; a farther one may be the shading of a thin, pale link, or its shadow."""
_HERE = 3
"""Working px within which links that stand where they belong have their peak, be it moved by a warp or a widening."""
FAR = 4.0
"""Working px; a nearer best place is the peak of the links themselves."""


def _stands(score: Float64[np.ndarray, "S S"], rival: float) -> bool:
    """Whether the parts are found where they belong although something far away looks alike.

    A clear peak at no offset, at least `rival` of the best one above the surroundings, is the hand; the stripes of a
    belt or the posts of a shelf make peaks as high elsewhere. A displaced hand leaves no peak where it should be.
    """
    radius = score.shape[0] // 2
    near = score[radius - _HERE : radius + _HERE + 1, radius - _HERE : radius + _HERE + 1]
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    floor = float(np.median(score))
    inside = 0 < row < 2 * _HERE and 0 < column < 2 * _HERE
    return bool(inside and near[row, column] - floor >= rival * (float(score.max()) - floor))


def _lags(alignment: Alignment, truth: Truth, settings: FollowingSettings) -> list[Measurement]:
    """Lag of the whole take, and the worst lag of any window that moves enough to show one."""
    parts = truth.robot_parts
    moving = motion_px(truth)
    if np.nansum(moving) < settings.min_motion_px:
        why, stands = "the robot hardly moves in the image", truth.robot_stands
        return [Measurement(name, None, why, applies=False, absent=stands) for name in ("lag", "local_lag")]
    if len(moving) < 2 * alignment.max_lag + 3:
        why = f"{len(moving)} frames are too few to tell a lag of up to {alignment.max_lag}"
        return [Measurement("lag", None, why), Measurement("local_lag", None, why)]
    length = settings.lag_window
    windows = [slice(start, start + length) for start in range(0, len(moving) - length + 1, 2)]
    windows = [
        w for w in windows if np.nansum(moving[w]) >= settings.min_motion_px and _moves(alignment, truth, w, settings)
    ]
    if not truth.static_camera and not windows:
        why = "the robot hardly moves in the picture of the camera that it carries"
        return [Measurement("lag", None, why, applies=False), Measurement("local_lag", None, why, applies=False)]
    lag, curve = best_lag(alignment, parts)
    if float(np.ptp(curve)) < settings.min_gain:
        why = "the robot's outlines look the same at every lag"
        return [Measurement("lag", None, why, applies=False), Measurement("local_lag", None, why, applies=False)]
    worst, frame = 0.0, None
    series = np.full(len(moving), np.nan)
    for window in windows:
        value = _window_lag(alignment, parts, window, settings, truth.static_camera)
        if value is None:
            continue
        middle = window.start + length // 2
        series[middle] = value
        before = series[middle - 2]
        if not truth.static_camera:
            # One window of a hand that hardly moves in its own picture is no evidence: its neighbour must agree.
            value = min(abs(value), abs(before)) if abs(value - before) <= 1 else 0.0
        if abs(value) > worst:
            worst, frame = abs(value), middle
    return [
        Measurement("lag", abs(lag), f"{lag:+.2f} frames", frame),
        Measurement("local_lag", worst, "worst window", frame, series=series),
    ]


def _moves(alignment: Alignment, truth: Truth, window: slice, settings: FollowingSettings) -> bool:
    """Whether the robot's own outlines move in the picture, so that a lag shows in them.

    Before a camera on the hand the scenery moves, and a tip of the hand at the picture's border looks like it by chance.
    """
    if truth.static_camera:
        return True
    parts = truth.robot_parts
    moved = np.linalg.norm(np.diff(truth.centroid[window][:, parts], axis=0), axis=-1)
    points = alignment.points[window][:, parts].sum(0)
    return bool(points[np.nansum(moved, axis=0) >= settings.lag_own_px].sum() >= settings.min_points)


def _window_lag(
    alignment: Alignment, parts: list[int], window: slice, settings: FollowingSettings, static_camera: bool
) -> float | None:
    """Lag inside a window; None where no candidate stands out (a hold looks the same at every lag).

    Before a moving camera a lag must be a peak of its own: neither the last one searched nor one of several alike.
    """
    score = alignment.lag_scores[window][:, :, parts].sum(-1)
    count = alignment.lag_points[window][:, :, parts].sum(-1)
    rows = count.any(1)
    if not rows.any():
        return None
    score, count = score[rows], count[rows]
    valid = ~np.isnan(score).any(0)
    if valid.sum() < 5 or not valid[alignment.max_lag]:
        return None
    curve = np.where(valid, np.nansum(score, 0) / np.maximum(np.nansum(count, 0), 1), -np.inf)
    index = int(np.argmax(curve))
    if curve[index] - curve[alignment.max_lag] < settings.min_gain:
        return 0.0
    if not static_camera:
        gain = float(curve[index] - curve[alignment.max_lag])
        alike = np.flatnonzero(curve > curve[index] - settings.lag_alike * gain)
        if index in (0, len(curve) - 1) or np.ptp(alike) > 2:
            return None
    return -(index - alignment.max_lag + (vertex(curve, index) if np.isfinite(curve).all() else 0.0))


def motion_px(truth: Truth) -> Float64[np.ndarray, "T"]:
    """How far the robot's links move in the image from frame to frame, px, by visible area."""
    parts = truth.robot_parts
    step = np.linalg.norm(np.diff(truth.centroid[:, parts], axis=0), axis=-1) * truth.px
    weight = np.minimum(truth.area[1:, parts], truth.area[:-1, parts]) * np.isfinite(step)
    total = np.maximum(weight.sum(1), 1e-9)
    moved = np.nansum(np.nan_to_num(step) * weight, 1) / total
    if not truth.static_camera:
        moved = np.maximum(moved, _camera_motion_px(truth))
    return np.concatenate([[0.0], moved])


def _camera_motion_px(truth: Truth) -> Float64[np.ndarray, "T"]:
    """How far a point half a metre before a moving camera shifts in the image from frame to frame, px."""
    out = np.zeros(len(truth) - 1)
    ahead = np.array([0.0, 0.0, 0.5, 1.0])
    for t in range(1, len(truth)):
        p = truth.T_camera_world[t] @ np.linalg.inv(truth.T_camera_world[t - 1]) @ ahead
        focal = truth.K[t, 0, 0] * truth.px
        out[t - 1] = focal * np.hypot(p[0], p[1]) / p[2] if p[2] > 0.05 else focal
    return out


def _support(alignment: Alignment, truth: Truth, settings: FollowingSettings) -> Measurement:
    """How much better the contours explain the pixels in place than anywhere nearby: 1 is chance. The worst robot's."""
    every = robots(truth)
    reach = settings.window // 2
    centre = alignment.radius
    worst: Measurement | None = None
    for mine in every:
        S, n = alignment.shift_scores[:, mine], alignment.points[:, mine]
        series = np.full(len(S), np.nan)
        for t in range(len(S)):
            window = slice(max(t - reach, 0), t + reach + 1)
            if n[window].sum() >= settings.min_points:
                score = weighted(S, n, window, list(range(len(mine))))
                series[t] = score[centre, centre] / max(float(score.mean()), 1e-6)
        if np.isnan(series).all():
            continue
        note = "1 is chance" if len(every) == 1 else f"{truth.parts[mine[0]].robot}; 1 is chance"
        found = Measurement("support", float(np.nanmin(series)), note, int(np.nanargmin(series)), series=series)
        if worst is None or (found.value or 0.0) < (worst.value or 0.0):
            worst = found
    return worst or Measurement("support", None, "robot never visible long enough")


def _argmax(series: Float64[np.ndarray, "T"]) -> int | None:
    return None if np.isnan(series).all() else int(np.nanargmax(series))
