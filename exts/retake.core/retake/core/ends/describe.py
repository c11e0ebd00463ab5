# SPDX-License-Identifier: Apache-2.0
"""From a place where an end effector was found to what it is: link, frame, finger joints, open and closed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from retake.core.array_types import Float64
from retake.core.ends.frames import (
    PARALLEL,
    ends_of,
    flexion,
    frame,
    nearest_axes,
    own_axes,
    part_opening,
    snapped,
    tips,
    unit,
)
from retake.core.ends.tree import HEAD_WORDS, Branch, Tree, words
from retake.core.geometry import inverse
from retake.core.robot import GripperSpec

FLANGE_RAD = 4.5
"""A last joint that turns farther rolls a flange about its own axis."""


def _palm(tree: Tree, branches: tuple[Branch, ...]) -> int:
    """The link that carries most fingers; where each sits on a link of its own, the one that carries all of these."""
    parents = Counter(tree.spec.joints[b.joint].parent_link for b in branches)
    link, count = parents.most_common(1)[0]
    if count > 1 or len(branches) < 3:
        return link
    ways = []
    for parent in parents:
        way = [parent]
        while (above := tree.spec.parents[way[-1]]) >= 0 and tree.group_of[above] == tree.group_of[parent]:
            way.append(above)
        ways.append(way)
    return next((link for link in ways[0] if all(link in way for way in ways)), link)


def _reach(tree: Tree, group: int, palm: int, places: Float64[np.ndarray, "F 3"]) -> Float64[np.ndarray, "3"]:
    """Direction from the last joint before an end effector (the palm's origin where there is none, or where no geometry is known
    that would say where fingers end) to its fingers."""
    last, origin = tree.parent_joint(group), tree.T[palm][:3, 3]
    if last is not None and not tree.seen and np.linalg.norm(places.mean(0) - origin) > 1e-3:
        return places.mean(0) - origin
    start = origin if last is None else tree.origin(tree.spec.joints[last])
    reach = places.mean(0) - start
    if last is None and np.linalg.norm(reach) < 1e-4:
        points = tree.group_points(group)
        reach = places.mean(0) - points.mean(0) if len(points) else reach
    return reach


def describe_fingers(tree: Tree, group: int, branches: tuple[Branch, ...]) -> GripperSpec:
    """Two fingers or more that leave a group: a gripper where they part in one plane, else a hand."""
    palm, spec = _palm(tree, branches), tree.spec
    planar = _planar(tree, branches)
    if planar is None:
        return _hand(tree, group, palm, branches)
    X, Y, sides = planar
    ends = tips(tree, branches, tree.rest)
    joints = tuple(i for b in branches for i in b.joints)
    opening = part_opening(tree, branches, joints, Y, sides)
    starts = np.stack([tree.origin(spec.joints[b.joint]) for b in branches])
    reach = _reach(tree, group, palm, ends)
    if X is not None:
        # Turning fingers: the approach lies in their plane, across the opening, towards the tips.
        Z = np.cross(X, Y)
        ahead = ends.mean(0) - starts.mean(0)
        towards = float(Z @ ahead) if abs(Z @ ahead) > 2e-3 else float(Z @ reach)
        Z, known = (Z if towards >= 0 else -Z), True
    else:
        across = reach - Y * (Y @ reach)
        if np.linalg.norm(across) < 1e-4:
            across = tree.T[palm][:3, 2] - Y * (Y @ tree.T[palm][:3, 2])
        axes = [a for a in own_axes(tree, palm, tree.parent_joint(group)) if abs(a @ Y) < 0.1]
        Z, known = snapped(across, axes)
    # Of the two frames half a turn apart the one nearer to the link's own, which OSCAR's robots are drawn with; else +Y is
    # where the first finger goes when it opens.
    R = inverse(tree.T[palm])[:3, :3] @ frame(Y * sides[0], Z)
    if R[0, 0] + R[1, 1] < -1e-6:
        R = R * [-1, -1, 1]
    note = f"{len(branches)} fingers that part" if opening.measured else "fingers whose parting could not be seen"
    if not opening.joints:
        note = (
            "fingers without stated limits: openness is 1 throughout until their open and closed positions are declared"
        )
    note += "" if known else "; the approach is measured, no axis of the link is near it"
    return _gripper(tree, palm, R, "gripper", opening.joints, opening.opened, opening.closed, note)


def _planar(
    tree: Tree, branches: tuple[Branch, ...]
) -> tuple[Float64[np.ndarray, "3"] | None, Float64[np.ndarray, "3"], Float64[np.ndarray, "F"]] | None:
    """For fingers on two sides in one plane: (hinge axis or None for slides, opening direction, side of each finger)."""
    spec = tree.spec
    firsts = [spec.joints[b.joint] for b in branches]
    kinds = {j.kind for j in firsts}
    axes = np.stack([tree.axis(j) for j in firsts])
    if len(kinds) != 1 or np.abs(axes @ axes[0]).min() < PARALLEL:
        return None
    origins = np.stack([tree.origin(j) for j in firsts])
    ends = tips(tree, branches, tree.rest)
    if kinds == {"prismatic"}:
        Y = axes[0]
        across = ends @ Y
        X = None
    else:
        inner = [tree.axis(spec.joints[i]) for b in branches for i in b.joints if spec.joints[i].kind == "revolute"]
        if min(abs(axis @ axes[0]) for axis in inner) < PARALLEL:
            return None
        X = axes[0]
        flat = origins - np.outer(origins @ X, X)
        spread = flat - flat.mean(0)
        if np.linalg.norm(spread, axis=1).max() < 2e-3:  # all on one hinge: the tips tell the sides
            flat = ends - np.outer(ends @ X, X)
            spread = flat - flat.mean(0)
        Y = np.linalg.svd(spread)[2][0]
        across = spread @ Y
        if np.abs(across).max() < 1e-4:
            return None
    middle = (across.max() + across.min()) / 2
    sides = np.where(across > middle, 1.0, -1.0)
    if (sides > 0).all() or (sides < 0).all():
        sides = np.array([1.0] + [-1.0] * (len(branches) - 1))
    if X is not None:
        means = [flat[sides == side].mean(0) for side in (1.0, -1.0)]
        Y = unit(means[0] - means[1])
        # Three fingers and more beside each other, as on a hand, lie on a line across; those of a gripper face each other.
        if len(branches) >= 3 and not _face(tree, branches, sides):
            return None
    return X, Y, sides


def _face(tree: Tree, branches: tuple[Branch, ...], sides: Float64[np.ndarray, "F"]) -> bool:
    """Whether fingers lie on two sides only, nobody between: across is either one side or the other."""
    firsts = [tree.spec.joints[b.joint] for b in branches]
    origins = np.stack([tree.origin(j) for j in firsts])
    X = tree.axis(firsts[0])
    flat = origins - np.outer(origins @ X, X)
    gap = np.linalg.norm(flat[sides > 0].mean(0) - flat[sides < 0].mean(0))
    within = max(float(np.linalg.norm(flat[sides == s] - flat[sides == s].mean(0), axis=1).max()) for s in (1.0, -1.0))
    return bool(gap > 1.2 * within)


def _hand(tree: Tree, group: int, palm: int, branches: tuple[Branch, ...]) -> GripperSpec:
    opening = flexion(tree, branches)
    ends = tips(tree, branches, tree.rest)
    reach = _reach(tree, group, palm, ends)
    closing = _closing(tree, branches, opening.joints, opening.opened, opening.closed)
    R = nearest_axes(tree.T[palm][:3, :3], reach, closing)
    note = f"{len(branches)} fingers that flex; drawn with the palm link's own axes, +Z the one nearest to the fingers"
    if not opening.joints:
        note += "; no limits are stated, so openness is 1 throughout until open and closed positions are declared"
    return _gripper(tree, palm, R, "hand", opening.joints, opening.opened, opening.closed, note)


def _closing(
    tree: Tree,
    branches: tuple[Branch, ...],
    joints: tuple[int, ...],
    opened: tuple[float, ...],
    closed: tuple[float, ...],
) -> Float64[np.ndarray, "3"]:
    """Direction in which the fingers' ends part on opening, world."""
    q_open, q_shut = np.array(tree.rest), np.array(tree.rest)
    for index, a, b in zip(joints, opened, closed, strict=True):
        q_open[tree.dof_of[index]], q_shut[tree.dof_of[index]] = a, b
    moved = tips(tree, branches, q_open) - tips(tree, branches, q_shut)
    return np.linalg.svd(moved)[2][0] if np.abs(moved).max() > 1e-6 else np.zeros(3)


def describe_jaw(tree: Tree, group: int, branch: Branch) -> GripperSpec:
    """One moving jaw against the group that carries it."""
    spec, joint = tree.spec, tree.spec.joints[branch.joint]
    palm = joint.parent_link
    axis, start = tree.axis(joint), tree.origin(joint)
    low, high = ends_of(tree, branch.joint)
    before = tree.parent_joint(group)
    axes = own_axes(tree, palm, before)
    q = np.array(tree.rest)
    places = []
    for value in (low, high):
        q[tree.dof_of[branch.joint]] = value
        places.append(tips(tree, (branch,), q)[0])
    own = tree.group_points(group)
    middle = own.mean(0) if len(own) else tree.T[palm][:3, 3]
    if joint.kind == "prismatic":
        Y = axis
        reach = (places[0] + places[1]) / 2 - (start if before is None else tree.origin(spec.joints[before]))
        Z, known = snapped(reach - Y * (Y @ reach), [a for a in axes if abs(a @ Y) < 0.1])
        gaps = [abs((place - middle) @ Y) for place in places]
    else:
        X = axis
        away = start - (tree.T[palm][:3, 3] if before is None else tree.origin(spec.joints[before]))
        ways = [unit((p - start) - X * (X @ (p - start))) for p in places]
        straight = max(ways, key=lambda way: float(way @ unit(away))) if np.linalg.norm(ways[0]) else away
        reach = straight + unit(away - X * (X @ away))
        Z, known = snapped(reach - X * (X @ reach), [a for a in axes if abs(a @ X) < 0.1])
        Y = np.cross(Z, X)
        gaps = [float(np.arccos(np.clip(way @ Z, -1, 1))) for way in ways]
    measured = abs(gaps[0] - gaps[1]) > 1e-6 and any(np.linalg.norm(p - start) > 1e-3 for p in places)
    if not measured:
        gaps = [abs(low), abs(high)]
    closed, opened = (low, high) if gaps[0] <= gaps[1] else (high, low)
    # +Y is where the jaw goes when it opens.
    shift = places[1] - places[0]
    if joint.kind != "prismatic" and np.linalg.norm(shift) < 1e-6:
        # A jaw without a shape: it would lie along the approach and goes where its joint turns that.
        shift = np.cross(axis, Z)
    shift = shift * (1 if opened == high else -1)
    Y = Y if float(Y @ shift) >= 0 else -Y
    R = inverse(tree.T[palm])[:3, :3] @ frame(Y, Z)
    note = "one jaw against its carrier" + (
        "" if known else "; the approach is measured, no axis of the link is near it"
    )
    return _gripper(tree, palm, R, "jaw", (branch.joint,), (opened,), (closed,), note)


def describe_tool(tree: Tree, group: int) -> GripperSpec:
    """The end of an arm without fingers."""
    index = tree.parent_joint(group)
    assert index is not None
    joint = tree.spec.joints[index]
    link = _tool_link(tree, joint.child_link)
    start, axis = tree.origin(joint), tree.axis(joint)
    points = tree.group_points(group)
    places = [tree.T[i][:3, 3] for i in tree.links(group)]
    ahead = max((p - start for p in places), key=lambda v: float(np.linalg.norm(v)))
    # Wrists whose axes meet in one point: the arm's direction is that from the joint before them.
    earlier = [start - tree.origin(tree.spec.joints[i]) for i in tree.above(group)[1:]]
    earlier.append(start - tree.T[tree.spec.root][:3, 3])
    before = next((way for way in earlier if np.linalg.norm(way) > 0.01), earlier[-1])
    if np.linalg.norm(ahead) < 5e-3:
        middle = points.mean(0) - start if len(points) else ahead
        # A body that lies around its joint reaches nowhere.
        far = len(points) and np.linalg.norm(middle) > 0.15 * np.linalg.norm(np.ptp(points, axis=0))
        ahead = middle if far else ahead * 0.0
    along = max(abs(float(axis @ unit(way))) for way in (ahead, before))
    rolls = joint.kind == "revolute" and joint.upper - joint.lower > FLANGE_RAD and along > 0.5
    if rolls or (joint.kind == "revolute" and abs(axis @ unit(ahead)) > 0.7):
        # A flange turns about its approach, away from the arm.
        Z = axis * np.sign(float(axis @ (before + ahead)) or 1.0)
    else:
        way = unit(ahead) if np.linalg.norm(ahead) > 1e-3 else unit(before)
        # Where a body without fingers points is vague: one of its own axes is meant.
        Z, _ = snapped(way, own_axes(tree, link, None), float(np.cos(np.radians(42))))
    local = inverse(tree.T[link])[:3, :3] @ Z
    near = nearest_axes(tree.T[link][:3, :3], Z, None)
    across = near[:, 1] - local * (near[:, 1] @ local)
    R = near if near[:, 2] @ local > np.cos(np.radians(0.5)) else frame(across, local)
    note = "the end of an arm without fingers: openness is 1 throughout"
    return _gripper(tree, link, R, "tool", (), (), (), note)


def _tool_link(tree: Tree, link: int) -> int:
    """The last body with geometry that is rigid with a moved link, tool-centre and sensor frames left out."""
    while True:
        fixed = [j.child_link for j in tree.spec.joints if j.kind == "fixed" and j.parent_link == link]
        solid = [
            i
            for i in fixed
            if not tree.is_helper(i) and len(tree.points(i)) and not words(tree.spec.links[i].name) & HEAD_WORDS
        ]
        passed = [i for i in fixed if not tree.is_helper(i) and not len(tree.points(i))]
        further = [i for i in passed if any(j.kind == "fixed" and j.parent_link == i for j in tree.spec.joints)]
        step = solid if len(solid) == 1 else further if not solid and len(further) == 1 else []
        if not step:
            return link
        link = step[0]


def _gripper(
    tree: Tree, link: int, R: Float64[np.ndarray, "3 3"], kind: str, joints: tuple[int, ...],
    opened: tuple[float, ...], closed: tuple[float, ...], note: str,
) -> GripperSpec:  # fmt: skip
    T = np.eye(4)
    if not (np.isfinite(R).all() and np.abs(R.T @ R - np.eye(3)).max() < 1e-6):
        R, note = np.eye(3), f"{note}; no approach could be told, so the link's own axes are drawn"
    rounded = np.rint(R)
    # Axes that the source states in single precision are meant to be exact.
    T[:3, :3] = rounded + 0.0 if np.abs(R - rounded).max() < 1e-4 else R
    name = tree.spec.links[link].name
    spec = GripperSpec(name, name, T, tuple(tree.spec.joints[i].name for i in joints), opened, closed, note=note)
    return replace(spec, kind=kind)  # type: ignore[arg-type]
