# SPDX-License-Identifier: Apache-2.0
"""Is the hand turned as simulated? Every contour point of what hangs on the wrist is carried around the wrist's axis.

Shifts (`following`) do not see a hand that turns about its own axis. Points get their depth from the recording; for every
angle they are moved, and their edges turned, as that angle would; the angle whose contours explain the pixels best is the
hand's, if they prefer it clearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.geometry import inverse
from retake.core.robot import RobotSpec
from retake.core.verdicts.alignment import Alignment, vertex
from retake.core.verdicts.footage import Footage, edges, scenery_tensor
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import FollowingSettings
from retake.core.verdicts.truth import BINS, Truth

NAME = "wrist_turn"
ANGLES = np.arange(-45.0, 46.0, 5.0)
"""Degrees that are tried."""
_FRAMES = 16
_WINDOW = 6
"""Frames that are judged together."""
_MIN_POINTS = 60.0
"""Contour points per frame, on average over a window."""
_MIN_MOVE = 2.0
"""Working px that 20 degrees must move the points by, on average: less is no evidence."""
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
    for robot in episode.header.robots:
        for gripper in robot.grippers:
            chain = set(robot.chain(gripper))
            turning = [
                k
                for k, joint in enumerate(robot.dof_joints)
                if joint.kind == "revolute" and joint.child_link in chain and joint.name not in gripper.finger_joints
            ]
            if not turning:
                continue
            # In order from the base: the last one is nearest to the hand.
            dof = max(turning, key=lambda k: _depth(robot, robot.dof_joints[k].child_link))
            carried = _carried(robot, robot.dof_joints[dof].child_link)
            parts = tuple(i for i, p in enumerate(truth.parts) if p.robot == robot.name and p.link in carried)
            if parts:
                out.append(Wrist(robot, dof, parts))
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
        return Measurement(NAME, None, "no depth was recorded", applies=False)
    if not truth.static_camera:
        return Measurement(NAME, None, "the camera moves", applies=False)
    worst: tuple[float, str, int] | None = None
    still: Float32[np.ndarray, "3 H W"] | None = None
    for wrist in wrists(episode, truth):
        seen = [t for t in range(len(truth)) if alignment.points[t, list(wrist.parts)].sum() >= _MIN_POINTS]
        if len(seen) < _WINDOW:
            continue
        times = [seen[k] for k in np.unique(np.linspace(0, len(seen) - 1, _FRAMES).astype(int))]
        still = scenery_tensor(footage) if still is None else still
        rows = [_scores(footage, alignment, truth, episode, camera, wrist, t, still) for t in times]
        for first in range(0, len(rows) - _WINDOW + 1, _WINDOW // 2):
            told = [row for row in rows[first : first + _WINDOW] if row is not None]
            if len(told) < _WINDOW - 1:
                continue
            angle = _best(told, settings)
            if worst is None or angle > worst[0]:
                worst = (angle, wrist.robot.dof_names[wrist.dof], times[first + _WINDOW // 2])
    if worst is None:
        return Measurement(NAME, None, "no hand shows enough of its outline", applies=False)
    return Measurement(NAME, worst[0], worst[1], worst[2])


def _best(rows: list[tuple[Float64[np.ndarray, "L"], float]], settings: FollowingSettings) -> float:
    """Degrees that the rows (score per angle, points) prefer clearly to none."""
    weight = np.array([points for _, points in rows])
    curve = np.average([score for score, _ in rows], axis=0, weights=weight) - _PRIOR * ANGLES**2
    index, middle = int(np.argmax(curve)), len(ANGLES) // 2
    gain = float(curve[index] - curve[middle])
    if gain < max(settings.min_gain, settings.link_share * float(curve[index])):
        return 0.0
    return abs(float(ANGLES[index] + 5.0 * vertex(curve, index)))


def _scores(
    footage: Footage, alignment: Alignment, truth: Truth, episode: Episode, camera: str, wrist: Wrist, t: int,
    still: Float32[np.ndarray, "3 H W"],
) -> tuple[Float64[np.ndarray, "L"], float] | None:  # fmt: skip
    """Mean edge response per angle, and how many points it rests on; None where the angle hardly moves them."""
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
    moved = np.linalg.norm(places[0] - places[0][len(ANGLES) // 2], axis=-1)
    if moved[[0, -1]].mean() * 20 / 45 < _MIN_MOVE:
        return None
    way = places[1] - places[0]
    bins = np.round(np.arctan2(way[..., 1], way[..., 0]) / np.pi * BINS).astype(int) % BINS
    field = edges(footage, t, still)
    return _sampled(field, places[0], bins.astype(np.uint8)), float(len(xy))


def _sampled(
    field: Float32[np.ndarray, "B H W"], places: Float64[np.ndarray, "L N 2"], bins: UInt8[np.ndarray, "L N"]
) -> Float64[np.ndarray, "L"]:
    height, width = field.shape[1:]
    x = np.clip(np.round(places[..., 0]).astype(int), 0, width - 1)
    y = np.clip(np.round(places[..., 1]).astype(int), 0, height - 1)
    return field[bins, y, x].mean(1).astype(np.float64)


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
