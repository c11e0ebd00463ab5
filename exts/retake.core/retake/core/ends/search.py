# SPDX-License-Identifier: Apache-2.0
"""Finding a robot's end effectors. Never raises: what the evidence does not show is left out, with a note that says why.

Three kinds, in this order. Fingers: a rigid group all of whose movable branches are short, limited and no legs, at least two
of them. A jaw: one small limited joint at the end of a chain that turns across the way it reaches. A tool: the end of an arm
without either. Legs and wheels are told by what they carry (the robot stands on them) and by their names, heads by their names.
"""

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
    tip,
    tips,
    unit,
)
from retake.core.ends.tree import HAND_WORDS, HEAD_WORDS, JAW_WORDS, LEG_WORDS, Branch, Shapes, Tree, no_shapes, words
from retake.core.geometry import inverse
from retake.core.robot import GripperSpec, JointSpec, RobotSpec

FINGER_REACH_M = 0.36
FINGER_JOINTS = 8
"""A branch with more independent joints in a row is an arm (coupled hands count each phalanx twice)."""
SLIDE_M = 0.25
JAW_REACH_M = 0.25
JAW_EVIDENCE = 2.0
FLANGE_RAD = 4.5
"""A last joint that turns farther rolls a flange about its own axis."""
ARM_JOINTS = 4
"""A bare branch beside others is an arm from this many joints in a row on."""


def find_ends(
    spec: RobotSpec,
    shapes: Shapes = no_shapes,
    T_world_base: Float64[np.ndarray, "4 4"] | None = None,
) -> tuple[tuple[GripperSpec, ...], tuple[str, ...]]:
    """End effectors of a robot in link order, and notes for a person. `T_world_base`: how it stands (Z up)."""
    try:
        tree = Tree(spec, shapes, T_world_base)
        found, notes = _search(tree)
    except (ArithmeticError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        return (), (f"end effectors were not looked for ({type(error).__name__}: {error}); declare them",)
    if not found:
        notes.append("no end effector was found; a skeleton needs one: declare it (`retake robot`)")
    return tuple(sorted(found, key=lambda g: spec.link_index(g.ee_link))), tuple(notes)


def _search(tree: Tree) -> tuple[list[GripperSpec], list[str]]:
    legs = _legs(tree)
    hands = _hands(tree, legs)
    inside = {g for _, branches in hands for b in branches for g in b.groups}
    jaws = _jaws(tree, legs, inside | {group for group, _ in hands})
    found = [_fingers(tree, group, branches) for group, branches in hands]
    found += [_jaw(tree, group, branch) for group, branch in jaws]
    taken = inside | {g for g, _ in hands} | {g for group, b in jaws for g in (group, *b.groups)}
    tools, notes = _tools(tree, legs, taken, bool(found))
    return found + [_tool(tree, group) for group in tools], notes


# -- legs and wheels ----------------------------------------------------------------------------------------------------


def _is_wheel(joint: JointSpec) -> bool:
    return joint.kind == "revolute" and not (np.isfinite(joint.lower) and np.isfinite(joint.upper))


def _legs(tree: Tree) -> set[int]:
    """Groups that belong to legs and wheels: by name, or because the robot stands on them."""
    everything = np.concatenate(
        [tree.T[:, :3, 3], *(tree.points(i) for i in range(len(tree.T)) if not tree.is_helper(i))]
    )
    bottom, height = everything[:, 2].min(), np.ptp(everything[:, 2])
    legs: set[int] = set()
    for group in tree.groups:
        branches = tree.branches(group)
        about = frozenset(w for link in tree.links(group) for w in words(tree.spec.links[link].name))
        fingers = [b for b in branches if tree.names(b) & (HAND_WORDS - {"ee", "tool"}) and tree.depth(b) < 6]
        carries_fingers = bool(about & HAND_WORDS or fingers)
        standing: list[Branch] = []
        for branch in branches:
            named = tree.names(branch)
            hand, leg = len(named & HAND_WORDS), len(named & LEG_WORDS)
            if leg and not hand:
                legs |= set(branch.groups)
                continue
            places = tree.extent(branch)
            low = places[:, 2].min()
            # Stands: its lowest place is the robot's, and well below the joint it hangs from.
            hangs = tree.origin(tree.spec.joints[branch.joint])[2] - low > 0.25 * np.ptp(places[:, 2]) + 0.02
            if (
                not hand
                and not carries_fingers
                and low - bottom < 0.06 * height + 0.005
                and hangs
                and tree.depth(branch) >= 2
            ):
                standing.append(branch)
        # Legs come in pairs of equal build; what they carry is more than they are.
        builds = Counter(len(b.joints) for b in standing)
        for branch in standing:
            if builds[len(branch.joints)] >= 2 and builds[len(branch.joints)] % 2 == 0:
                legs |= set(branch.groups)
    return legs


# -- hands with two fingers or more -------------------------------------------------------------------------------------


def _limited(tree: Tree, index: int) -> bool:
    joint = tree.spec.joints[index]
    if joint.mimic is not None:
        return True
    travel = joint.upper - joint.lower
    return bool(np.isfinite(travel) and travel < 2 * np.pi) if joint.kind == "revolute" else _short_slide(joint)


def _short_slide(joint: JointSpec) -> bool:
    # A slide without limits may still be a finger: its travel has to be declared.
    travel = joint.upper - joint.lower
    return not np.isfinite(travel) or travel <= SLIDE_M


def _finger_like(tree: Tree, branch: Branch) -> bool:
    return (
        all(_limited(tree, i) for i in branch.joints)
        and tree.depth(branch) <= FINGER_JOINTS
        and tree.reach(branch) <= FINGER_REACH_M
    )


def _empty(tree: Tree, branch: Branch) -> bool:
    """A branch with nothing to see and nowhere to reach: a passive or virtual part."""
    links = [link for g in branch.groups for link in tree.links(g)]
    return not any(len(tree.points(link)) for link in links) and tree.reach(branch) < 1e-3


def _hands(tree: Tree, legs: set[int]) -> list[tuple[int, tuple[Branch, ...]]]:
    out: list[tuple[int, tuple[Branch, ...]]] = []
    inside: set[int] = set()
    for group in tree.groups:  # parents first: a finger that branches is no hand of its own
        if group in inside or group in legs:
            continue
        branches = tree.branches(group)
        # Pulleys and rotors that turn without end and reach nowhere say nothing.
        branches = tuple(
            b for b in branches if not (len(b.joints) == 1 and tree.reach(b) < 0.01 and not _limited(tree, b.joint))
        )
        if len(branches) < 2 or not all(_finger_like(tree, b) for b in branches):
            continue
        if any(g in legs for b in branches for g in b.groups):
            continue
        seen = tuple(b for b in branches if not _empty(tree, b))
        branches = seen if len(seen) >= 2 else branches
        named = [tree.names(b) for b in branches]
        if sum(bool(n & HEAD_WORDS) and not n & HAND_WORDS for n in named):
            continue
        if not _work_together(tree, branches):
            continue
        out.append((group, branches))
        inside |= {g for b in branches for g in b.groups}
    return out


def _work_together(tree: Tree, branches: tuple[Branch, ...]) -> bool:
    """Fingers have parallel joints of one kind (at least two of them), and reach places near each other."""
    joints = [tree.spec.joints[b.joints[-1]] for b in branches]
    axes = [tree.axis(j) for j in joints]
    pairs = [
        (a, b)
        for a in range(len(branches))
        for b in range(a)
        if joints[a].kind == joints[b].kind and abs(axes[a] @ axes[b]) > 0.85
    ]
    reach = max(0.05, *(tree.reach(b) for b in branches))
    ends = tips(tree, branches, tree.rest)
    apart = np.linalg.norm(ends[:, None] - ends[None], axis=-1) + np.diag(np.full(len(ends), np.inf))
    near = bool((apart.min(1) < 3 * reach).all())
    return (bool(pairs) or len(branches) >= 3) and near


def _palm(tree: Tree, branches: tuple[Branch, ...]) -> int:
    """The link that carries most fingers."""
    return Counter(tree.spec.joints[b.joint].parent_link for b in branches).most_common(1)[0][0]


def _reach(tree: Tree, group: int, palm: int, places: Float64[np.ndarray, "F 3"]) -> Float64[np.ndarray, "3"]:
    """Direction from the last joint before an end effector (the palm's origin where there is none) to its fingers."""
    last = tree.parent_joint(group)
    start = tree.T[palm][:3, 3] if last is None else tree.origin(tree.spec.joints[last])
    reach = places.mean(0) - start
    if last is None and np.linalg.norm(reach) < 1e-4:
        points = tree.group_points(group)
        reach = places.mean(0) - points.mean(0) if len(points) else reach
    return reach


def _fingers(tree: Tree, group: int, branches: tuple[Branch, ...]) -> GripperSpec:
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
    # +Y is where the first finger goes when it opens.
    first = sides[0]
    R = inverse(tree.T[palm])[:3, :3] @ frame(Y * first, Z)
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


# -- one jaw ------------------------------------------------------------------------------------------------------------


def _jaws(tree: Tree, legs: set[int], inside: set[int]) -> list[tuple[int, Branch]]:
    out = []
    for group in tree.groups:
        if group in inside or group in legs:
            continue
        for branch in tree.branches(group):
            if (
                len(branch.groups) == 1
                and branch.groups[0] not in legs | inside
                and _jaw_evidence(tree, group, branch) >= JAW_EVIDENCE
            ):
                out.append((group, branch))
    return out


def _jaw_evidence(tree: Tree, group: int, branch: Branch) -> float:
    joint = tree.spec.joints[branch.joint]
    if not _limited(tree, branch.joint) or tree.reach(branch) > JAW_REACH_M or len(branch.joints) > 1:
        return 0.0
    low, high = ends_of(tree, branch.joint)
    if joint.kind == "revolute" and high - low > np.radians(200):
        return 0.0
    named = tree.names(branch)
    score = 2.0 * bool(named & JAW_WORDS) - 3.0 * bool(named & (HEAD_WORDS | LEG_WORDS)) - 2.0 * ("wrist" in named)
    # A jaw is shut at or near one end of its travel; a joint that turns as far either way from zero is a wrist.
    score += 1.0 * (abs(low + high) > 0.5 * (high - low)) - 2.0 * (abs(low + high) < 0.1 * (high - low))
    axis, start = tree.axis(joint), tree.origin(joint)
    own, points = tree.group_points(group), tree.points(tip(tree, branch)[0])
    if len(points):
        lever = points - start
        sideways = np.linalg.norm(lever - np.outer(lever @ axis, axis), axis=1).max()
        if joint.kind == "revolute" and sideways < 0.5 * np.linalg.norm(lever, axis=1).max():
            return 0.0  # turns about the way it reaches: a wrist
        if len(own):
            score += 0.5 * (np.linalg.norm(np.ptp(points, axis=0)) < 0.9 * np.linalg.norm(np.ptp(own, axis=0)))
            ahead = unit(points.mean(0) - start)
            # A counterpart: the carrier's own geometry beside the jaw, beyond the hinge.
            score += 1.5 * (((own - start) @ ahead).max() > 0.5 * (lever @ ahead).max())
            middle = own.mean(0) - start
            across = middle - ahead * (middle @ ahead) - axis * (middle @ axis)
            score += 0.5 * (np.linalg.norm(across) > 0.005)
    return float(score) if len(tree.above(group)) >= 1 or named & JAW_WORDS else 0.0


def _jaw(tree: Tree, group: int, branch: Branch) -> GripperSpec:
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
    shift = (places[1] - places[0]) * (1 if opened == high else -1)
    Y = Y if float(Y @ shift) >= 0 else -Y
    R = inverse(tree.T[palm])[:3, :3] @ frame(Y, Z)
    note = "one jaw against its carrier" + (
        "" if known else "; the approach is measured, no axis of the link is near it"
    )
    return _gripper(tree, palm, R, "jaw", (branch.joint,), (opened,), (closed,), note)


# -- bare ends of arms --------------------------------------------------------------------------------------------------


def _tools(tree: Tree, legs: set[int], taken: set[int], others: bool) -> tuple[list[int], list[str]]:
    """Groups at which an arm ends without fingers."""
    terminal = [
        g for g in tree.groups if not tree.branches(g) and g not in taken | legs and tree.parent_joint(g) is not None
    ]
    # A wrist whose only branches are pulleys or virtual parts ends an arm, too.
    arms, notes = [], []
    for group in terminal:
        chain = _own_chain(tree, group, taken)
        if chain is None:
            continue
        joint = tree.spec.joints[chain[0]]
        name = tree.spec.links[group].name
        named = frozenset(w for link in tree.links(group) for w in words(tree.spec.links[link].name)) | words(
            joint.name
        )
        if named & HEAD_WORDS and not named & HAND_WORDS:
            continue
        if len(chain) == 1 and _is_wheel(joint) and len(tree.groups) > 2:
            continue
        alone = not others and len(terminal) == 1
        if not alone and len(chain) < ARM_JOINTS:
            continue
        if legs and not named & (HAND_WORDS | {"wrist"}):
            notes.append(
                f"{name} ends a branch of {len(chain)} joints of a robot on legs and is taken for no end effector"
            )
            continue
        arms.append(group)
    return arms, notes


def _own_chain(tree: Tree, group: int, taken: set[int]) -> list[int] | None:
    """Joints between a group and the place where its arm leaves the rest, nearest first; None where a hand is on it."""
    out = []
    while (index := tree.parent_joint(group)) is not None:
        out.append(index)
        group = tree.group_of[tree.spec.joints[index].parent_link]
        if group in taken:
            return None
        if len([b for b in tree.branches(group) if tree.depth(b) >= 2 or len(b.joints) > 1]) > 1:
            break
    return out


def _tool(tree: Tree, group: int) -> GripperSpec:
    index = tree.parent_joint(group)
    assert index is not None
    joint = tree.spec.joints[index]
    link = _tool_link(tree, joint.child_link)
    start, axis = tree.origin(joint), tree.axis(joint)
    points = tree.group_points(group)
    places = [tree.T[i][:3, 3] for i in tree.links(group)]
    ahead = max((p - start for p in places), key=lambda v: float(np.linalg.norm(v)))
    above = tree.above(group)
    before = (
        start - tree.origin(tree.spec.joints[above[1]]) if len(above) > 1 else start - tree.T[tree.spec.root][:3, 3]
    )
    if np.linalg.norm(ahead) < 5e-3 and len(points):
        ahead = points.mean(0) - start
    rolls = joint.kind == "revolute" and joint.upper - joint.lower > FLANGE_RAD
    if rolls or (joint.kind == "revolute" and abs(axis @ unit(ahead)) > 0.7):
        # A flange turns about its approach, away from the arm.
        along = float(axis @ (before + ahead)) or 1.0
        Z = axis * np.sign(along)
    else:
        way = unit(ahead) if np.linalg.norm(ahead) > 1e-3 else unit(before)
        Z, _ = snapped(way, own_axes(tree, link, None))
    local = inverse(tree.T[link])[:3, :3] @ Z
    near = nearest_axes(tree.T[link][:3, :3], Z, None)
    R = near if near[:, 2] @ local > np.cos(np.radians(1)) else frame(near[:, 1], local)
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
