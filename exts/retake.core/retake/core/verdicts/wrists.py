# SPDX-License-Identifier: Apache-2.0
"""Is the hand turned as simulated? Every contour point of what hangs on the wrist is carried around the wrist's axis.

Shifts (`following`) do not see a hand that turns about its own axis. Points get their depth from the recording; for every
angle they are moved, and their edges turned, as that angle would; the angle whose contours explain the pixels best is the
hand's, if they prefer it clearly.

How clearly depends on the hand. The same angles are tried on the robot's own silhouette in the recording: a round flange looks
alike at every angle and tells none, and what a take gains by an angle is held against what the silhouette would gain by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.geometry import inverse
from retake.core.robot import RobotSpec
from retake.core.verdicts.alignment import Alignment, vertex
from retake.core.verdicts.footage import Footage, Window, edges, responses, scenery_tensor, tensor
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import FollowingSettings
from retake.core.verdicts.truth import BINS, Truth

NAME = "wrist_turn"
ANGLES = np.arange(-45.0, 46.0, 5.0)
"""Degrees that are tried."""
_FRAMES = 16
_WINDOW = 6
"""Frames that are judged together."""
_MIN_POINTS = 50.0
"""Contour points per frame: fewer average too little noise away."""
_TOLD_AT, _TOLD = 20.0, 0.3
"""Degrees, and the share of its score that the recording's own silhouette must lose by them for the hand to tell angles: round
flanges and a short gripper seen from the front lose 0.1 to 0.25, jaws and hands with fingers 0.3 to 0.7."""
_APART = 0.1
"""The same for the very angle that the take prefers: what the silhouette cannot tell from no turn is none."""
_OF_EXPECTED = 0.15
"""Share of the silhouette's own gain by an angle that the take must gain by it: edges inside the hand and behind it remain."""
_BEYOND, _AS_CLEAR = 0.15, 0.8
"""Share of the turned outline that must lie where the simulation has only scenery for its edges there to show a turned hand;
share of the outline's mean response that they must have there: marks on a hand lie within it."""
_LEFT, _LEFT_PX, _CLEARLY = 0.1, 2.5, 0.5
"""Share of the outline that must show the scenery it would leave behind, twice as many points as show the hand there; working
px by which the hand must recede; share of its distance to the other colour within which a colour is one of the two."""
_INSIDE = (1.5, 3.5, 5.5)
"""Working px inside the turned outline that show the hand's colours."""
_ASKED = 10.0
"""Degrees from which on a turn must show in that way: a smaller one hardly leaves the outline."""
_DARK = 12.0
"""Level that is added before ratios are taken: noise in the dark is no colour."""
_LOG = np.log(np.arange(256, dtype=np.float32) + _DARK)
"""Of every level."""
_FAINT, _MASK_LEVEL = 0.25, 60
"""Share of the silhouette's squared edge strength that saturates its response by half, and its grey level."""
_PRIOR = 1e-5
"""Score an angle must gain per squared degree."""


@dataclass(frozen=True, eq=False)
class Wrist:
    """The last turning joint before a gripper, and what hangs on it."""

    robot: RobotSpec
    dof: int
    parts: tuple[int, ...]
    """Indices into `Truth.parts`."""


def wrists(episode: Episode, truth: Truth) -> list[Wrist]:
    """One per gripper whose chain has a turning joint; links that the camera never sees are left out."""
    out = []
    for robot, dof in _turning(episode):
        carried = _carried(robot, robot.dof_joints[dof].child_link)
        parts = tuple(i for i, p in enumerate(truth.parts) if p.robot == robot.name and p.link in carried)
        if parts:
            out.append(Wrist(robot, dof, parts))
    return out


def _turning(episode: Episode) -> list[tuple[RobotSpec, int]]:
    """The last turning joint of every gripper's chain that has one."""
    out = []
    for robot in episode.header.robots:
        for gripper in robot.grippers:
            chain = set(robot.chain(gripper))
            turning = [
                k
                for k, joint in enumerate(robot.dof_joints)
                if joint.kind == "revolute" and joint.child_link in chain and joint.name not in gripper.finger_joints
            ]
            if turning:
                # In order from the base: the last one is nearest to the hand.
                out.append((robot, max(turning, key=lambda k: _depth(robot, robot.dof_joints[k].child_link))))
    return out


def _depth(robot: RobotSpec, link: int) -> int:
    """Number of links between a link and the base."""
    count = 0
    while link >= 0 and count < len(robot.links):
        link, count = robot.parents[link], count + 1
    return count


def _carried(robot: RobotSpec, link: int) -> set[int]:
    """A link and all that hangs on it."""
    out = {link}
    while True:
        more = {child for child, parent in enumerate(robot.parents) if parent in out} - out
        if not more:
            return out
        out |= more


def measure_wrist(
    footage: Footage, alignment: Alignment, truth: Truth, episode: Episode, camera: str, settings: FollowingSettings
) -> Measurement:
    """wrist_turn: degrees by which the hand is turned about its last joint in any window, where the pixels prefer it."""
    if "depth" not in episode.header.camera(camera).channels:
        return Measurement(NAME, None, "no depth was recorded", applies=False, absent=not _turning(episode))
    if not truth.static_camera:
        return Measurement(NAME, None, "the camera moves", applies=False, absent=not _turning(episode))
    worst: tuple[float, str, int | None] | None = None
    doubt: tuple[str, int | None] | None = None
    still: Float32[np.ndarray, "3 H W"] | None = None
    for wrist in wrists(episode, truth):
        seen = [t for t in range(len(truth)) if alignment.points[t, list(wrist.parts)].sum() >= _MIN_POINTS]
        if len(seen) < _WINDOW:
            continue
        times = [seen[k] for k in np.unique(np.linspace(0, len(seen) - 1, _FRAMES).astype(int))]
        still = scenery_tensor(footage) if still is None else still
        rows = [_scores(footage, alignment, truth, episode, camera, wrist, t, still) for t in times]
        found: list[_Reading] = []
        for first in range(0, len(rows) - _WINDOW + 1, _WINDOW // 2):
            told = [row for row in rows[first : first + _WINDOW] if row is not None]
            frame = times[first + _WINDOW // 2]
            if len(told) >= _WINDOW - 1 and (reading := _read(told, frame, settings)) is not None:
                found.append(reading)
        if found:
            name = wrist.robot.dof_names[wrist.dof]
            angle, frame = _lasting([replace(r, angle=0.0, gain=0.0, needed=0.0) if r.untold else r for r in found])
            if worst is None or angle > worst[0]:
                worst = (angle, name, frame)
            angle, frame = _lasting(found)
            if angle >= _ASKED:
                doubt = (f"{name} by {angle:.0f}°, or marks on the hand look so", frame)
    if worst is None:
        why = "no hand shows an outline that tells its angle"
        return Measurement(NAME, None, why, applies=False, absent=not _turning(episode))
    if doubt is not None and worst[0] < _ASKED:
        return Measurement(NAME, None, *doubt)
    return Measurement(NAME, *worst)


@dataclass(frozen=True, eq=False)
class _Row:
    """One frame: scores of all angles in the take's pixels and on the recording's silhouette, and the points behind them.

    Of each angle besides: the points of its outline that lie on what the simulation knows as scenery, and their responses
    together; the points that the hand would have left, as they look like the scenery behind, and like the hand. None of them
    where nothing is said of it.
    """

    seen: Float64[np.ndarray, "L"]
    expected: Float64[np.ndarray, "L"]
    points: float
    beyond: Float64[np.ndarray, "L"] = field(default_factory=lambda: np.zeros(len(ANGLES)))
    beyond_points: Float64[np.ndarray, "L"] = field(default_factory=lambda: np.zeros(len(ANGLES)))
    left: Float64[np.ndarray, "L"] = field(default_factory=lambda: np.zeros(len(ANGLES)))
    kept: Float64[np.ndarray, "L"] = field(default_factory=lambda: np.zeros(len(ANGLES)))


@dataclass(frozen=True)
class _Reading:
    """What a window of frames says of a hand."""

    angle: float
    """Degrees, with their sign, that its pixels prefer; 0 where these are no turn the silhouette could tell."""
    gain: float
    """By how much they prefer it, as a share of its score."""
    needed: float
    """What a turn must gain."""
    frame: int
    untold: bool = False
    """Whether that may as well be marks on the hand."""


def _lasting(found: list[_Reading]) -> tuple[float, int | None]:
    """(degrees, frame) of the largest turn that two windows in a row agree on and together prefer clearly: a hand that is
    turned stays so. A single window stands for itself."""
    best: tuple[float, int | None] = (0.0, None)
    for one, two in pairwise(found) if len(found) > 1 else [(found[0], found[0])]:
        both = min(abs(one.angle), abs(two.angle)) if one.angle * two.angle > 0 else 0.0
        if both > best[0] and one.gain + two.gain >= one.needed + two.needed:
            best = (both, two.frame)
    return best


def _read(rows: list[_Row], frame: int, settings: FollowingSettings) -> _Reading | None:
    """What the rows of a window prefer; None where the hand's outline cannot tell."""
    weight = np.array([row.points for row in rows])
    curve = np.average([row.seen for row in rows], axis=0, weights=weight) - _PRIOR * ANGLES**2
    expected = np.average([row.expected for row in rows], axis=0, weights=weight)
    middle = len(ANGLES) // 2
    lost = 1 - expected / max(float(expected[middle]), 1e-9)
    if lost[np.abs(ANGLES) == _TOLD_AT].mean() < _TOLD:
        return None
    index = int(np.argmax(curve))
    # On a hand turned by some degrees the simulation's outline lies as it does on its own silhouette when turned back by them.
    apart = float(lost[len(curve) - 1 - index])
    if index in (0, len(curve) - 1) or apart < _APART:
        # Still rising where the search ends, or as good as no turn: no place of the hand's own.
        return _Reading(0.0, 0.0, 0.0, frame)
    untold = bool(abs(ANGLES[index]) >= _ASKED and not _elsewhere(rows, index))
    score = max(float(curve[index]), 1e-9)
    needed = max(settings.min_gain / score, settings.link_share, _OF_EXPECTED * apart)
    return _Reading(
        float(ANGLES[index] + 5.0 * vertex(curve, index)), float(curve[index] - curve[middle]) / score, needed, frame,
        untold,
    )  # fmt: skip


def _elsewhere(rows: list[_Row], index: int) -> bool:
    """Whether a window shows the hand where the simulation has scenery, or scenery where it has the hand.

    A stripe on the hand, a seam or its edge between two lights lies within its own outline and fits some angle's as well,
    the better the fainter the hand is before its scenery.
    """
    points = sum(row.points for row in rows)
    beyond, there = (sum(float(values[index]) for values in column)
                     for column in ([r.beyond for r in rows], [r.beyond_points for r in rows]))  # fmt: skip
    seen = sum(float(row.seen[index]) * row.points for row in rows)
    if there >= _BEYOND * points and beyond / there >= _AS_CLEAR * seen / points:
        return True
    left, kept = (sum(float(values[index]) for values in column)
                  for column in ([r.left for r in rows], [r.kept for r in rows]))  # fmt: skip
    return left >= _LEFT * points and left >= 2 * kept


def _scores(
    footage: Footage, alignment: Alignment, truth: Truth, episode: Episode, camera: str, wrist: Wrist, t: int,
    still: Float32[np.ndarray, "3 H W"],
) -> _Row | None:  # fmt: skip
    """Mean edge responses per angle; None where too little of the hand's outline is seen."""
    contour = truth.contours[t]
    # Outlines before scenery alone: those between two links are shading as often as not.
    mine = np.isin(contour.part, wrist.parts) & contour.silhouette
    if mine.sum() < _MIN_POINTS:
        return None
    xy, normal, part = contour.xy[mine].astype(np.float64), contour.normal[mine].astype(np.float64), contour.part[mine]
    depth = cv2.resize(
        np.asarray(episode.image(camera, "depth", truth.start + t), np.float32), truth.size,
        interpolation=cv2.INTER_NEAREST,
    )  # fmt: skip
    inside = np.clip(np.round(xy - 1.5 * normal).astype(int), 0, [truth.size[0] - 1, truth.size[1] - 1])
    z = depth[inside[:, 1], inside[:, 0]].astype(np.float64)
    good = (z > 0.02) & (truth.labels[t][inside[:, 1], inside[:, 0]] == part + 1)
    if good.sum() < _MIN_POINTS:
        return None
    xy, normal, part, z = xy[good], normal[good], part[good], z[good]
    out = xy + alignment.girth[part][:, None] * normal
    ends = [_lifted(truth, t, place, z) for place in (out, out + normal)]
    robot, frame = wrist.robot, truth.start + t
    q = np.repeat(episode.joint(robot.name, "position")[frame : frame + 1], len(ANGLES), 0)
    q[:, wrist.dof] += np.radians(ANGLES)
    poses = episode.link_poses(robot.name)[frame]
    base = np.repeat(poses[robot.root][None], len(ANGLES), 0)
    turned = robot.forward_kinematics(q, base)
    links = np.array([truth.parts[p].link for p in part])
    places = []
    for end in ends:
        local = np.einsum("nij,nj->ni", inverse(poses[links]), np.c_[end, np.ones(len(end))])
        world = np.einsum("anij,nj->ani", turned[:, links], local)[..., :3]
        places.append(_seen(truth, t, world))
    way = places[1] - places[0]
    bins = (np.round(np.arctan2(way[..., 1], way[..., 0]) / np.pi * BINS).astype(int) % BINS).astype(np.uint8)
    # The silhouette's outline has no girth: its points are carried as they are.
    slim = places[0] - way * alignment.girth[part][None, :, None]
    shown, known = (_pixels(at, truth.size) for at in (places[0], slim))
    window, slim_window = _window(shown), _window(known)
    response = _sampled(edges(footage, t, still, window), shown, window, bins)
    free = cv2.dilate((truth.labels[t] > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    beyond = free[shown[1], shown[0]]
    left, kept = _receded(footage, t, out, normal, places[0], way)
    return _Row(
        response.mean(1).astype(np.float64),
        _sampled(_silhouette(truth, t, slim_window), known, slim_window, bins).mean(1).astype(np.float64),
        float(len(xy)),
        (response * beyond).sum(1).astype(np.float64), beyond.sum(1).astype(np.float64), left, kept,
    )  # fmt: skip


def _receded(
    footage: Footage, t: int, out: Float64[np.ndarray, "N 2"], normal: Float64[np.ndarray, "N 2"],
    places: Float64[np.ndarray, "L N 2"], way: Float64[np.ndarray, "L N 2"],
) -> tuple[Float64[np.ndarray, "L"], Float64[np.ndarray, "L"]]:  # fmt: skip
    """Per angle, points of the outline from which it recedes, as what is just inside the simulated outline looks like the
    scenery behind it, and as it looks like what is just inside the turned one."""
    size = (footage.frames.shape[2], footage.frames.shape[1])
    frame = footage.frames[t]
    inner = _pixels(out - 1.5 * normal, size)
    inwards = -way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)
    recedes = ((places - out) * normal).sum(-1) < -_LEFT_PX
    recedes &= footage.known[inner[1], inner[0]]
    now, behind = _LOG[frame[inner[1], inner[0]]], np.log(footage.scenery[inner[1], inner[0]] + _DARK)
    of_scenery = np.linalg.norm(now - behind, axis=-1)[None]
    hand = np.inf
    for depth in _INSIDE:  # A stripe along the turned outline is no more the hand than what is beside it.
        column, line = _pixels(places + depth * inwards, size)
        hand = np.minimum(hand, np.linalg.norm(now - _LOG[frame[line, column]], axis=-1))
    of_hand = np.broadcast_to(hand, recedes.shape)
    left, kept = (of_scenery < _CLEARLY * of_hand, of_hand < _CLEARLY * of_scenery)
    return tuple((recedes & vote).sum(1).astype(np.float64) for vote in (left, kept))  # type: ignore[return-value]


def _silhouette(truth: Truth, t: int, window: Window) -> Float32[np.ndarray, "B h w"]:
    """Edge response per direction bin of the robots' silhouette against a ground of one grey, in a window."""
    J = tensor(cv2.merge([truth.robot_mask(t).astype(np.uint8) * _MASK_LEVEL] * 3))
    return responses(J[:, window[0], window[1]], _FAINT * float((J[0] + J[1]).max()) + 1e-6)


def _pixels(places: Float64[np.ndarray, "L N 2"], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (L, N) of the nearest pixels of a picture."""
    near = np.clip(np.round(places).astype(int), 0, np.array(size) - 1)
    return near[..., 0], near[..., 1]


def _window(pixels: tuple[np.ndarray, np.ndarray]) -> Window:
    """Rows and columns that hold all of them."""
    columns, rows = (slice(int(at.min()), int(at.max()) + 1) for at in pixels)
    return rows, columns


def _sampled(
    field: Float32[np.ndarray, "B h w"], pixels: tuple[np.ndarray, np.ndarray], window: Window,
    bins: UInt8[np.ndarray, "L N"],
) -> Float32[np.ndarray, "L N"]:  # fmt: skip
    """Responses of pixels; `field` is a window's."""
    columns, rows = pixels
    return field[bins, rows - window[0].start, columns - window[1].start]


def _lifted(truth: Truth, t: int, xy: Float64[np.ndarray, "N 2"], z: Float64[np.ndarray, "N"]) -> np.ndarray:
    """World points (N, 3) of working pixels at depths z."""
    K, uv = truth.K[t], truth.ideal(t, xy) + 0.5
    p = np.stack([(uv[:, 0] - K[0, 2]) / K[0, 0] * z, (uv[:, 1] - K[1, 2]) / K[1, 1] * z, z], 1)
    T = inverse(truth.T_camera_world[t])
    return p @ T[:3, :3].T + T[:3, 3]


def _seen(truth: Truth, t: int, world: Float64[np.ndarray, "L N 3"]) -> Float64[np.ndarray, "L N 2"]:
    """Working pixels of world points."""
    T, K = truth.T_camera_world[t], truth.K[t]
    p = world @ T[:3, :3].T + T[:3, 3]
    z = np.maximum(p[..., 2], 0.02)
    uv = np.stack([K[0, 0] * p[..., 0] / z + K[0, 2], K[1, 1] * p[..., 1] / z + K[1, 2]], -1) - 0.5
    return truth.seen(t, uv.reshape(-1, 2)).reshape(uv.shape)
