# SPDX-License-Identifier: Apache-2.0
"""Finding a robot's end effectors. Never raises: what the evidence does not show is left out, with a note that says why.

Three kinds, in this order. Fingers: a rigid group all of whose movable branches are short, limited and no legs, at least two
of them. A jaw: one small limited joint at the end of a chain that turns across the way it reaches. A tool: the end of an arm
without either. Legs and wheels are told by what they carry (the robot stands on them) and by their names, heads by their names.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from retake.core.array_types import Float64
from retake.core.ends.describe import describe_fingers, describe_jaw, describe_tool
from retake.core.ends.frames import ends_of, tip, tips, unit
from retake.core.ends.tree import HAND_WORDS, HEAD_WORDS, JAW_WORDS, LEG_WORDS, Branch, Shapes, Tree, no_shapes, words
from retake.core.robot import GripperSpec, JointSpec, RobotSpec

FINGER_REACH_M = 0.36
FINGER_JOINTS = 8
"""A branch with more independent joints in a row is an arm (coupled hands count each phalanx twice)."""
SLIDE_M = 0.25
JAW_REACH_M = 0.25
JAW_EVIDENCE = 2.0
FINGER_WORDS = frozenset(("finger", "fingers", "fingertip", "thumb", "knuckle", "jaw", "claw", "pincer"))
TRUNK_WORDS = frozenset(("elbow", "wrist", "forearm", "neck", "head"))
"""What a branch with a knee or a hip in it carries when it is a robot's trunk; a leg ends without them."""
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
    found = [describe_fingers(tree, group, branches) for group, branches in hands]
    carriers: dict[int, list[Branch]] = {}
    for group, branch in jaws:
        carriers.setdefault(group, []).append(branch)
    for group, branches in carriers.items():  # several jaws on one body are one gripper
        several = len(branches) > 1
        found.append(
            describe_fingers(tree, group, tuple(branches)) if several else describe_jaw(tree, group, branches[0])
        )
    taken = inside | {g for g, _ in hands} | {g for group, b in jaws for g in (group, *b.groups)}
    tools, notes = _tools(tree, legs, taken, bool(found))
    return found + [describe_tool(tree, group) for group in tools], notes


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
        # At the end of an arm there are fingers, however the arm hangs.
        carries_fingers = bool(about & HAND_WORDS or fingers) or len(tree.above(group)) >= 3
        standing: list[Branch] = []
        for branch in branches:
            named = tree.names(branch)
            hand, leg = len(named & HAND_WORDS), len(named & LEG_WORDS)
            if leg and not hand and not named & TRUNK_WORDS:
                legs |= set(branch.groups)
                continue
            places = tree.extent(branch)
            low = places[:, 2].min()
            # Stands: its lowest place is the robot's, and well below the joint it hangs from.
            hangs = tree.origin(tree.spec.joints[branch.joint])[2] - low > 0.25 * np.ptp(places[:, 2]) + 0.02
            stands = low - bottom < 0.06 * height + 0.005 and hangs and tree.depth(branch) >= 2
            if (
                stands
                and not hand
                and not carries_fingers
                and not any(_fingers_of(tree, g, set()) for g in branch.groups)
            ):
                standing.append(branch)
        # Legs come in pairs of equal build; what they carry is more than they are.
        builds = Counter(len(b.joints) for b in standing)
        for branch in standing:
            if builds[len(branch.joints)] >= 2 and builds[len(branch.joints)] % 2 == 0:
                legs |= set(branch.groups)
    return legs


# -- hands with two fingers or more -------------------------------------------------------------------------------------


def _has_limits(tree: Tree, index: int) -> bool:
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
        (all(_has_limits(tree, i) for i in branch.joints) or _bends(tree, branch))
        and tree.depth(branch) <= FINGER_JOINTS
        and tree.reach(branch) <= FINGER_REACH_M
        and not any(_is_palm(tree, group) for group in branch.groups)
    )


def _is_palm(tree: Tree, group: int) -> bool:
    """Whether a body within a branch carries a hand itself: three rows of hinges or more. A finger's linkage has two."""
    rows = [b for b in tree.branches(group) if tree.depth(b) >= 2 and (_has_limits(tree, b.joint) or _bends(tree, b))]
    return len(rows) >= 3


def _bends(tree: Tree, branch: Branch) -> bool:
    """Whether a branch without stated limits is a finger all the same: two hinges and more in a row about one direction, or a
    finger's name. A wheel has one, a caster two across each other."""
    joints = [tree.spec.joints[i] for i in branch.joints]
    if any(joint.kind != "revolute" for joint in joints):
        return False
    axes = [tree.axis(joint) for joint in joints]
    row = tree.depth(branch) >= 2 and abs(axes[-1] @ axes[-2]) > 0.9 and not tree.branches(branch.groups[-1])
    return bool(row) or bool(tree.names(branch) & FINGER_WORDS)


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
        branches = _fingers_of(tree, group, legs)
        if not branches:
            continue
        out.append((group, branches))
        inside |= {g for b in branches for g in b.groups}
    return out


def _fingers_of(tree: Tree, group: int, legs: set[int]) -> tuple[Branch, ...]:
    """The fingers that a group carries; none where it carries something else, too."""
    branches = tree.branches(group)
    branches = tuple(b for b in branches if not _is_rotor(tree, b, branches))
    if len(branches) < 2 or not all(_finger_like(tree, b) for b in branches):
        return ()
    if any(g in legs for b in branches for g in b.groups):
        return ()
    seen = tuple(b for b in branches if not _empty(tree, b))
    branches = seen if len(seen) >= 2 else branches
    if any(n & HEAD_WORDS and not n & HAND_WORDS for n in map(tree.names, branches)):
        return ()
    return branches if _work_together(tree, branches) else ()


def _is_rotor(tree: Tree, branch: Branch, branches: tuple[Branch, ...]) -> bool:
    """Whether a branch is a pulley, a rotor or a servo's horn: it turns without end and reaches nowhere, or not half as far as
    any finger beside it."""
    if len(branch.joints) > 1 or _has_limits(tree, branch.joint) or tree.names(branch) & FINGER_WORDS:
        return False
    fingers = [tree.reach(b) for b in branches if b is not branch and _finger_like(tree, b)]
    return tree.reach(branch) < (max(0.01, 0.5 * min(fingers)) if len(fingers) >= 2 else 0.01)


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
                and _is_on_an_arm(tree, branch)
            ):
                out.append((group, branch))
    return out


def _is_on_an_arm(tree: Tree, branch: Branch) -> bool:
    """Whether a jaw ends a chain of its own; a pan and tilt head beside an arm does not."""
    alone = sum(not tree.branches(g) for g in tree.groups) == 1
    chain = _own_chain(tree, branch.groups[0], set()) or []
    return alone or len(chain) >= 3 or bool(tree.names(branch) & JAW_WORDS)


def _jaw_evidence(tree: Tree, group: int, branch: Branch) -> float:
    joint = tree.spec.joints[branch.joint]
    if not _has_limits(tree, branch.joint) or tree.reach(branch) > JAW_REACH_M or len(branch.joints) > 1:
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
