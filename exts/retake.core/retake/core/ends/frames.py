# SPDX-License-Identifier: Apache-2.0
"""What a found end effector is like: its frame (+Z approach, fingers open along ±Y) and where its joints open and close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.ends.tree import Branch, Tree
from retake.core.geometry import transform

PARALLEL = float(np.cos(np.radians(6)))
"""Axes nearer than this to each other count as parallel."""
SNAP = float(np.cos(np.radians(30)))
"""A measured direction nearer than this to an axis of the robot's own frames is meant to be that axis."""


@dataclass(frozen=True)
class Opening:
    """Joints that open an end effector and their positions, rad or m."""

    joints: tuple[int, ...]
    """Joint indices: leaders only, a follower moves with its leader."""
    opened: tuple[float, ...]
    closed: tuple[float, ...]
    measured: bool
    """Whether the fingers were seen to part; else the end farther from zero counts as closed for a hand, open for a jaw."""


def unit(v: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    """A direction of length 1; zero stays zero."""
    length = np.linalg.norm(v)
    return v / length if length > 1e-12 else v * 0.0


def frame(Y: Float64[np.ndarray, "3"], Z: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation with these Y and Z columns; Z gives way to Y where they are not perpendicular."""
    Y = unit(Y)
    Z = unit(Z - Y * (Y @ Z))
    if not np.linalg.norm(Z):
        other = np.eye(3)[int(np.abs(Y).argmin())]
        Z = unit(other - Y * (Y @ other))
    return np.stack([np.cross(Y, Z), Y, Z], axis=1)


def own_axes(tree: Tree, link: int, joint: int | None) -> list[Float64[np.ndarray, "3"]]:
    """Directions a designer had in mind near an end effector, world: the link's axes and the last joint's."""
    out = [tree.T[link][:3, i] for i in range(3)]
    if joint is not None:
        out.insert(0, tree.axis(tree.spec.joints[joint]))
    return [sign * axis for axis in out for sign in (1.0, -1.0)]


def snapped(
    v: Float64[np.ndarray, "3"], axes: list[Float64[np.ndarray, "3"]], least: float = SNAP
) -> tuple[Float64[np.ndarray, "3"], bool]:
    """The own axis nearest to a measured direction where one is near (cosine `least`), and whether one was."""
    v = unit(v)
    best = max(axes, key=lambda axis: float(axis @ v), default=v)
    near = bool(axes) and float(best @ v) >= least
    return (unit(best), True) if near else (v, False)


def leaders(tree: Tree, joints: tuple[int, ...]) -> tuple[int, ...]:
    """The joints that move these: themselves, or whom they follow; without passive ones where others are driven."""
    by_name = {tree.spec.joints[i].name: i for i in tree.dof_of}
    out: dict[int, None] = {}
    for index in joints:
        seen = {index}
        while (mimic := tree.spec.joints[index].mimic) is not None and by_name[mimic.leader] not in seen:
            index = by_name[mimic.leader]
            seen.add(index)
        out[index] = None
    driven = tuple(i for i in out if tree.spec.joints[i].driven)
    return driven or tuple(out)


def ends_of(tree: Tree, joint: int) -> tuple[float, float]:
    """Ends of a joint's travel, rad or m; a joint without limits is tried half a turn, or 5 cm, each way."""
    spec = tree.spec.joints[joint]
    most = np.pi if spec.kind == "revolute" else 0.05
    return (
        spec.lower if np.isfinite(spec.lower) else -most,
        spec.upper if np.isfinite(spec.upper) else most,
    )


def _has_travel(tree: Tree, joint: int) -> bool:
    """Whether limits say where a joint is open and where closed: finite ones that are apart."""
    travel = tree.spec.joints[joint].upper - tree.spec.joints[joint].lower
    return bool(np.isfinite(travel) and travel > 1e-9)


def tips(tree: Tree, branches: tuple[Branch, ...], q: Float64[np.ndarray, "D"]) -> Float64[np.ndarray, "F 3"]:
    """Where the fingers' ends are at positions q, in the frame of the group that carries them at rest (world), m."""
    poses = tree.spec.forward_kinematics(tree.spec.followed(q), np.eye(4))
    base = branches[0].group
    to_rest = tree.T[base] @ np.linalg.inv(poses[base])
    out = []
    for branch in branches:
        link, local = tip(tree, branch)
        out.append(transform(to_rest @ poses[link], local))
    return np.stack(out)


def tip(tree: Tree, branch: Branch) -> tuple[int, Float64[np.ndarray, "3"]]:
    """The link at a finger's end and the middle of its geometry there, in that link's frame."""
    start = tree.origin(tree.spec.joints[branch.joint])
    best, far = (branch.groups[0], np.zeros(3)), -1.0
    for group in branch.groups:
        for link in tree.links(group):
            points = tree.points(link)
            middle = points.mean(0) if len(points) else tree.T[link][:3, 3]
            if (distance := float(np.linalg.norm(middle - start))) > far:
                best, far = (link, transform(np.linalg.inv(tree.T[link]), middle)), distance
    return best


def part_opening(
    tree: Tree, branches: tuple[Branch, ...], joints: tuple[int, ...], apart: Float64[np.ndarray, "3"],
    sides: Float64[np.ndarray, "F"],
) -> Opening:  # fmt: skip
    """Ends of travel at which fingers on two sides (+1, -1) are farthest apart along a direction, and nearest."""
    moving = [i for i in leaders(tree, joints) if _has_travel(tree, i)]

    def width(q: np.ndarray) -> float:
        along = tips(tree, branches, q) @ apart
        return float(along[sides > 0].mean() - along[sides < 0].mean())

    effects, picks = [], []
    middle = np.array(tree.rest)
    for index in moving:
        low, high = ends_of(tree, index)
        values = []
        for value in (low, high):
            q = middle.copy()
            q[tree.dof_of[index]] = value
            values.append(width(q))
        effects.append(abs(values[1] - values[0]))
        picks.append((high, low) if values[1] > values[0] else (low, high))
    best = max(effects, default=0.0)
    measured = best > 1e-6
    used = [k for k, effect in enumerate(effects) if not measured or effect > 0.02 * best]
    if not measured:
        ends = [ends_of(tree, index) for index in moving]
        picks = [(high, low) if abs(high) >= abs(low) else (low, high) for low, high in ends]
    opened, closed = (tuple(picks[k][i] for k in used) for i in (0, 1))
    return Opening(tuple(moving[k] for k in used), opened, closed, measured)


def flexion(tree: Tree, branches: tuple[Branch, ...]) -> Opening:
    """Joints that curl the fingers of a hand: those about the same axis as the finger's last joint.

    Closed is the end of travel farther from straight; where both are as far, the end with the finger tip nearer to the others.
    """
    curl: dict[int, int] = {}
    for number, branch in enumerate(branches):
        last = branch.joints[-1]
        deepest = max(branch.joints, key=lambda i: len(tree.above(tree.group_of[tree.spec.joints[i].child_link])))
        last = deepest if tree.spec.joints[deepest].kind == "revolute" else last
        axis = tree.axis(tree.spec.joints[last])
        for index in branch.joints:
            if abs(tree.axis(tree.spec.joints[index]) @ axis) >= 0.9:
                for leader in leaders(tree, (index,)):
                    if _has_travel(tree, leader):
                        curl.setdefault(leader, number)
    opened, closed = [], []
    for index, number in curl.items():
        low, high = ends_of(tree, index)
        if abs(abs(low) - abs(high)) > 0.25 * (high - low):
            far = high if abs(high) > abs(low) else low
        else:
            far = min((low, high), key=lambda value: _gap(tree, branches, number, index, value))
        closed.append(far)
        opened.append(low if far == high else high)
    return Opening(tuple(curl), tuple(opened), tuple(closed), True)


def _gap(tree: Tree, branches: tuple[Branch, ...], number: int, joint: int, value: float) -> float:
    """Distance of one finger's tip from the middle of all others with one joint at a position, m."""
    q = np.array(tree.rest)
    q[tree.dof_of[joint]] = value
    places = tips(tree, branches, q)
    others = np.delete(places, number, axis=0)
    return float(np.linalg.norm(places[number] - (others.mean(0) if len(others) else 0.0)))


def nearest_axes(
    R_world_link: Float64[np.ndarray, "3 3"],
    approach: Float64[np.ndarray, "3"],
    opening: Float64[np.ndarray, "3"] | None,
) -> Float64[np.ndarray, "3 3"]:
    """A link's own axes, renamed so that +Z is the one nearest to the approach and ±Y the one nearest to the opening.

    Columns in the link's frame. Without an opening the renaming that turns least is taken.
    """
    local = R_world_link.T @ unit(approach)
    z = int(np.abs(local).argmax())
    Z = np.zeros(3)
    Z[z] = np.sign(local[z]) or 1.0
    choices = []
    for y in range(3):
        for sign in (1.0, -1.0):
            Y = np.zeros(3)
            Y[y] = sign
            if y != z:
                choices.append(np.stack([np.cross(Y, Z), Y, Z], axis=1))
    if opening is None or not np.linalg.norm(opening):
        return max(choices, key=lambda R: float(np.trace(R)))
    wanted = R_world_link.T @ opening
    # Fingers open to both sides: which of the two is +Y follows from the link's axes alone.
    return max(choices, key=lambda R: (round(abs(float(R[:, 1] @ wanted)), 6), float(np.trace(R))))
