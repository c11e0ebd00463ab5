# SPDX-License-Identifier: Apache-2.0
"""UsdPhysics articulation -> RobotSpec: links, joints with their frames, limits, end effectors.

The kinematic tree is found from the joints themselves, not from prim nesting: starting at the base link every joint is
walked away from the base, and a joint authored the other way round is turned (its axis changes sign). Joints marked
`excludeFromArticulation` (loop closures) are no tree edges. A hinge or slide between the base and the world is a degree of
freedom like any other, and so are several hinges of one body. Every robot is read for itself: one that cannot be read
refuses by name when it is asked for, and is a note otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pxr import Usd, UsdPhysics

from retake.core.array_types import Float64
from retake.core.ends import find_ends
from retake.core.errors import InputError, StageError, unknown_name
from retake.core.joint_motion import RobotJoints
from retake.core.robot import WORLD, JointSpec, LinkSpec, Mimic, RobotSpec
from retake.usd.joint_tree import base_of, component, members_of, root_bodies, walk
from retake.usd.joints import (
    AXES,
    Edge,
    JointValues,
    actuated_joints,
    follows,
    joint_values,
    loose_joints,
    read_edges,
    ring,
    scaled_slide,
    unstated_speeds,
)
from retake.usd.names import CONTAINER, distinct, model_prim
from retake.usd.names import WORLD as WORLD_NAMES
from retake.usd.shapes import link_points
from retake.usd.stage import notable_prims, one_pass, prims_under, stage_name
from retake.usd.units import StageUnits, world_pose


@dataclass(frozen=True)
class Articulation:
    """A robot as the stage describes it: what it is, and where its parts are on the stage."""

    spec: RobotSpec
    dof_paths: tuple[str, ...]
    """Joint prim path of each movable joint, order of `spec.dof_names`."""
    T_world_link: Float64[np.ndarray, "L 4 4"]
    """Authored world poses of the links, m, at the stage's start."""
    initial_position: Float64[np.ndarray, "D"]
    """Joint positions the stage starts with (authored joint state, else drive target, else 0), rad or m."""
    driven: tuple[bool, ...]
    """Whether each movable joint has a drive or an actuator."""
    fixed_base: bool
    """Whether the world holds the base: fixed, or on joints that are degrees of freedom."""
    notes: tuple[str, ...] = ()
    """What a person should know about how it was read."""

    @property
    def named_joints(self) -> RobotJoints:
        """What a motion file may call its movable joints."""
        return RobotJoints(self.spec.name, self.spec.prim_path, self.spec.dof_names, self.dof_paths)


@dataclass(frozen=True)
class StageRobots:
    """Every robot of a stage that can be read, and why others cannot."""

    robots: tuple[Articulation, ...]
    refused: dict[str, str]
    """Root prim path -> reason."""
    notes: tuple[str, ...]


def find_articulations(stage: Usd.Stage) -> StageRobots:
    """Every articulation of a stage, in stage order. Never raises because of one robot; raises as `StageUnits.of`."""
    with one_pass(stage):
        return _find_articulations(stage)


def _find_articulations(stage: Usd.Stage) -> StageRobots:
    units = StageUnits.of(stage)
    edges, actuated = read_edges(stage, units), actuated_joints(stage)
    read: list[Articulation] = []
    refused: dict[str, str] = {}
    notes: list[str] = []
    taken: dict[str, str] = {}
    for root in [prim for prim in notable_prims(stage) if prim.HasAPI(UsdPhysics.ArticulationRootAPI)]:
        path = str(root.GetPath())
        try:
            members = members_of(root, edges)
            if other := next((taken[m] for m in sorted(members) if m in taken), None):
                notes.append(f"articulation {path} is jointed to {other}: the two are one robot")
                continue
            read.append(_read_one(root, members, edges, units, actuated))
            taken |= dict.fromkeys(members, path)
        except StageError as error:
            refused[path] = str(error)
    if any(r.spec.dof_names for r in read):
        still = [r for r in read if not r.spec.dof_names]
        notes += [f"articulation {r.spec.prim_path} has no movable joint: it is scenery" for r in still]
        read = [r for r in read if r.spec.dof_names]
    names = distinct([_model(stage, r, read) for r in read], plain=True)
    robots = tuple(replace(r, spec=replace(r.spec, name=n)) for r, n in zip(read, names, strict=True))
    notes += [f"robot {robot.spec.name!r}: {note}" for robot in robots for note in robot.notes]
    notes += _torn(robots)
    loose = loose_joints(stage).items()
    notes += [f"joint {path} {why}: it is left out (correct its bodies, or deactivate it)" for path, why in loose]
    notes += [f"robot {path} left out: {why}" for path, why in refused.items()]
    return StageRobots(robots, refused, tuple(notes))


def _torn(robots: Sequence[Articulation]) -> list[str]:
    """A word on robots that are one in a person's eyes: jointed to one prim that is no rigid body (a palm without mass)."""
    hanging: dict[str, list[str]] = {}
    for robot in robots:
        if any(joint.parent_link == WORLD and joint.kind != "fixed" for joint in robot.spec.joints):
            carrier = robot.spec.links[robot.spec.root].prim_path.rpartition("/")[0]
            hanging.setdefault(carrier, []).append(robot.spec.name)
    return [
        f"robots {', '.join(names)} are jointed to {carrier}, which is no rigid body, so each is a robot of its own; to have "
        "one robot give it PhysicsRigidBodyAPI and a mass (in a URDF an <inertial>), and hold it by a fixed joint"
        for carrier, names in hanging.items()
        if carrier and len(names) > 1
    ]


def read_articulations(stage: Usd.Stage, chosen: Sequence[str] = ()) -> tuple[Articulation, ...]:
    """The articulations at or under some prim paths (all of a stage if none is named), in stage order.

    Raises StageError when there is none, when a chosen one cannot be read (a spherical joint, a loop that is not marked)
    naming the prim, and when nothing on the stage can be read. What was not chosen never refuses.
    """
    return choose_articulations(stage, find_articulations(stage), chosen)


def choose_articulations(stage: Usd.Stage, found: StageRobots, chosen: Sequence[str] = ()) -> tuple[Articulation, ...]:
    """Of what was found the robots at, above or under the chosen prim paths. Raises as `read_articulations`."""
    where = stage_name(stage)
    if not found.robots and not found.refused:
        bodies = sum(prim.HasAPI(UsdPhysics.RigidBodyAPI) for prim in notable_prims(stage))
        raise StageError(
            f"{where} has no articulation ({bodies} rigid bodies, none under a PhysicsArticulationRootAPI); "
            "apply UsdPhysics.ArticulationRootAPI to the robot's root prim"
        )
    if not chosen:
        if not found.robots:
            raise StageError("; ".join(found.refused.values()))
        return found.robots
    out: dict[str, Articulation] = {}
    for path in chosen:
        match = [r for r in found.robots if _within(r.spec.prim_path, path)]
        broken = [why for root, why in found.refused.items() if _within(root, path)]
        # Asked for by its model's prim, of which the articulation root is a part; else by a part of the robot.
        if not match and not broken:
            match = [r for r in found.robots if _within(path, r.spec.prim_path)][:1]
            broken = [why for root, why in found.refused.items() if _within(path, root)]
        if broken and not match:
            raise StageError("; ".join(broken))
        if not match:
            known = [r.spec.prim_path for r in found.robots]
            raise StageError(unknown_name("robot prim", path, known))
        out |= {r.spec.prim_path: r for r in match}
    return tuple(r for r in found.robots if r.spec.prim_path in out)


def read_robots(stage: Usd.Stage) -> tuple[RobotSpec, ...]:
    """The RobotSpec of every articulation. Raises StageError as `read_articulations` does."""
    return tuple(articulation.spec for articulation in read_articulations(stage))


def articulation_bodies(stage: Usd.Stage) -> frozenset[str]:
    """Prim paths of all bodies that belong to an articulation, whether or not it can be read as a robot."""
    edges = read_edges(stage, StageUnits.of(stage))
    roots = [prim for prim in notable_prims(stage) if prim.HasAPI(UsdPhysics.ArticulationRootAPI)]
    return frozenset(body for root in roots for body in component(root_bodies(root, edges), edges))


def _model(stage: Usd.Stage, robot: Articulation, robots: Sequence[Articulation]) -> Usd.Prim:
    """The prim whose name a person knows a robot by: the top of its model where nothing else lives under that."""
    root = top = stage.GetPrimAtPath(robot.spec.prim_path)
    while (
        top.HasAPI(UsdPhysics.RigidBodyAPI)
        or top.IsA(UsdPhysics.Joint)
        or top.GetTypeName() == "Scope"
        or WORLD_NAMES.fullmatch(top.GetName())
        or CONTAINER.fullmatch(top.GetName())
    ):
        parent = top.GetParent()
        if not parent or parent.IsPseudoRoot():
            break
        top = parent
    mine = {link.prim_path for link in robot.spec.links}
    alone = all(
        str(prim.GetPath()) in mine for prim in prims_under(top) if prim.HasAPI(UsdPhysics.RigidBodyAPI)
    ) and not any(other is not robot and _within(other.spec.prim_path, str(top.GetPath())) for other in robots)
    if alone and not WORLD_NAMES.fullmatch(top.GetName()):
        return top
    return model_prim(root)


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top.rstrip('/')}/")


def _read_one(
    root: Usd.Prim, members: set[str], edges: list[Edge], units: StageUnits, actuated: frozenset[str]
) -> Articulation:
    stage = root.GetStage()
    mine = [e for e in edges if set(e.bodies) & members]
    for edge in mine:
        if edge.problem:
            raise StageError(f"articulation {root.GetPath()}: {edge.problem}")
    base, held, to_world, notes = base_of(root, members, mine)
    links, walked, more = walk(base, [e for e in mine if all(e.bodies)])
    notes += more
    if missing := members - set(links):
        raise StageError(f"articulation {root.GetPath()}: links {sorted(missing)} are not reached from base {base}")
    walked = [(edge, edge.bodies[1] == "") for edge in to_world] + walked
    index = {"": WORLD} | {path: i for i, path in enumerate(links)}
    values = [None if e.kind == "fixed" else joint_values(e, units) for e, _ in walked]
    notes += [note for e, _ in walked if (note := scaled_slide(e))]
    notes += unstated_speeds(e for e, _ in walked)
    names = distinct([edge.prim for edge, _ in walked])
    of_path = {edge.path: name for (edge, _), name, v in zip(walked, names, values, strict=True) if v is not None}
    mimics, more = _mimics([edge for edge, _ in walked if edge.kind != "fixed"], of_path, units)
    notes += more
    drives = {e.path for (e, _), v in zip(walked, values, strict=True) if v is not None and v.driven}
    drives |= actuated & {e.path for e, _ in walked}
    # A description without any drive says nothing about which joints are passive.
    passive = {e.path for e, _ in walked if drives and e.path not in drives} | set(mimics)
    joints = tuple(
        _joint(edge, reverse, name, index, value, mimics.get(edge.path), edge.path not in passive)
        for (edge, reverse), name, value in zip(walked, names, values, strict=True)
    )
    bodies = [stage.GetPrimAtPath(path) for path in links]
    link_specs = tuple(LinkSpec(n, p) for n, p in zip(distinct(bodies), links, strict=True))
    path = str(root.GetPath())
    try:
        spec = RobotSpec(root.GetName(), path, link_specs, joints)
        T_world_base = world_pose(bodies[spec.root], units)
        ends, more = find_ends(spec, lambda link: link_points(stage, links[link], units), T_world_base)
        spec = replace(spec, grippers=ends)
        notes += more
    except InputError as error:
        raise StageError(f"articulation {path}: {error}") from error
    movable = [(edge, value) for (edge, _), value in zip(walked, values, strict=True) if value is not None]
    return Articulation(
        spec=spec,
        dof_paths=tuple(edge.path for edge, _ in movable),
        T_world_link=np.stack([world_pose(body, units) for body in bodies]),
        initial_position=np.array([value.start for _, value in movable], np.float64),
        driven=tuple(edge.path in drives for edge, _ in movable),
        fixed_base=held,
        notes=tuple(notes),
    )


def _mimics(movable: list[Edge], of_path: dict[str, str], units: StageUnits) -> tuple[dict[str, Mimic], list[str]]:
    """Joint prim path -> what it follows. A follower whose leader is no joint of the robot, or itself, leads; of joints that
    follow each other in a ring the first by path."""
    found, notes = {}, []
    told = {edge.path: follow for edge in movable if (follow := follows(edge, units)) is not None}
    leaders = {path: follow.leader for path, follow in told.items()}
    for edge in movable:
        follow = told.get(edge.path)
        if follow is None:
            continue
        leader, others = follow.leader, ring(edge.path, leaders)
        if leader not in of_path:
            notes.append(
                f"joint {edge.path} follows {leader}, which is no movable joint of the robot: it counts as free"
            )
            continue
        if others and edge.path == min(others):
            through = f" through {', '.join(others[1:])}" if others[1:] else ""
            notes.append(f"joint {edge.path} follows itself{through}: it counts as free")
            continue
        found[edge.path] = Mimic(of_path[leader], follow.factor, follow.offset)
    return found, notes


def _joint(
    edge: Edge,
    reverse: bool,
    name: str,
    index: dict[str, int],
    values: JointValues | None,
    mimic: Mimic | None,
    driven: bool,
) -> JointSpec:
    (parent, child), (T_parent, T_child) = edge.bodies, edge.frames
    sign = 1.0
    if reverse:
        parent, child, T_parent, T_child, sign = child, parent, T_child, T_parent, -1.0
    common = (name, edge.kind, index[parent], index[child])
    if values is None:
        return JointSpec(*common, (0.0, 0.0, 1.0), T_parent, T_child, prim_path=edge.path)
    x, y, z = AXES[edge.axis]
    return JointSpec(
        *common,
        (sign * x, sign * y, sign * z),
        T_parent,
        T_child,
        values.lower,
        values.upper,
        values.velocity,
        values.effort,
        driven=driven,
        prim_path=edge.path,
        mimic=mimic,
    )
