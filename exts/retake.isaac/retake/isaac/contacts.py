# SPDX-License-Identifier: Apache-2.0
"""PhysX contact reports: switched on for chosen bodies in the recordings' own layer (`overlay`), read after each step.

A body reports contacts from a force on (its threshold, 1 N where a stage says nothing); a recording needs all of them, so the
threshold is 0 while it runs, also of bodies that report for somebody else.

The report buffers live for one step, so numbers are copied at once. PhysX's normal points from the second body to the
first and its impulse acts on the first; an Episode's contact has both the other way round (from a to b, on b).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pxr import Sdf, Usd

from retake.core.episode import Contact
from retake.core.robot import RobotSpec
from retake.isaac.kit import optional, require
from retake.isaac.overlay import Overlay
from retake.isaac.tensors import engine

API = "PhysxContactReportAPI"
NOT_PROCESSED, NO_READBACK = "/physics/disableContactProcessing", "/physics/suppressReadback"
THRESHOLD, FLOAT = "physxContactReport:threshold", Sdf.ValueTypeNames.Float

RawContact = tuple[str, str, tuple[float, ...], tuple[float, ...], tuple[float, ...], float]
"""actor paths, position, normal, impulse (stage units, as PhysX gives them), separation."""


class ContactReports:
    """Contact reports of some bodies while open. Without a PhysX engine there are none, and `available` says so."""

    def __init__(self, stage: Usd.Stage, body_paths: Sequence[str]) -> None:
        self._stage, self._bodies = stage, tuple(body_paths)
        self._overlay: Overlay | None = None
        self._simulation: Any = None
        self._to_path: Any = None
        self._names: dict[int, str] = {}
        self.trouble = ""
        """Why contacts are missing or may be, as a sentence."""
        self.added: tuple[str, ...] = ()
        """Bodies that had no report of their own: opening and closing makes the engine read them again."""

    @property
    def available(self) -> bool:
        """Whether contacts are being read."""
        return self._simulation is not None

    def open(self) -> None:
        """Apply the report API where it is missing, and set the thresholds to 0."""
        tools, physx = optional("pxr.PhysicsSchemaTools"), optional("omni.physx")
        if tools is None or physx is None or engine() != "physx":
            self.trouble = f"no contacts are recorded: physics engine {engine()} gives no contact reports"
            return
        settings = require("carb.settings").get_settings()
        if settings.get(NOT_PROCESSED):
            self.trouble = (
                f"no contacts will be reported: {NOT_PROCESSED} is on (Isaac Lab sets it); switch it off before Play"
            )
        elif settings.get(NO_READBACK):
            self.trouble = f"contacts may be missing: {NO_READBACK} is on, so what the GPU simulates stays there"
        self._overlay = overlay = Overlay(self._stage)
        self.added = tuple(path for path in self._bodies if not _reports(self._stage.GetPrimAtPath(path)))
        overlay.say(self.added, THRESHOLD, 0.0, FLOAT, API)
        overlay.say([path for path in self._bodies if _threshold(self._stage, path) != 0], THRESHOLD, 0.0, FLOAT)
        self._to_path = tools.intToSdfPath
        self._simulation = physx.get_physx_simulation_interface()

    @property
    def cost(self) -> str:
        """What switching them on costs, as a sentence; empty where nothing had to be switched on."""
        if not self.added:
            return ""
        return (
            f"contact reports were switched on for {len(self.added)} bodies of a stage that may be rendering already: the "
            "engine and the renderer read them again at Record and at the end (a user measured 13.9 GB of video memory "
            "for a large scene, 32 MB before its first Play: IsaacSim#467); /exts/retake.isaac/contacts=off records "
            "without, and bodies with PhysxContactReportAPI on the stage cost nothing"
        )

    def read(self) -> tuple[RawContact, ...]:
        """Contacts of the step that just ended."""
        if self._simulation is None:
            return ()
        try:
            headers, data = self._simulation.get_contact_report()
        except Exception as error:
            self._simulation = None
            self.trouble = f"contacts are recorded no further: the engine refused its report ({error})"
            return ()
        out = []
        for header in headers:
            if not header.num_contact_data:
                continue
            a, b = self._path(header.actor0), self._path(header.actor1)
            for index in range(header.contact_data_offset, header.contact_data_offset + header.num_contact_data):
                point = data[index]
                out.append(
                    (a, b, tuple(point.position), tuple(point.normal), tuple(point.impulse), float(point.separation))
                )
        return tuple(out)

    def close(self) -> None:
        """Leave the stage as it was, where no other recording needs its reports."""
        if self._overlay is not None:
            self._overlay.close()
        self._simulation = self._to_path = None

    def _path(self, number: int) -> str:
        if number not in self._names:
            self._names[number] = str(self._to_path(number))
        return self._names[number]


def reported_bodies(robots: Sequence[RobotSpec], movable: Sequence[str], wanted: str) -> tuple[str, ...]:
    """Prim paths whose contacts are asked for: movable objects, and of each robot its gripper links (`auto`) or every
    link (`on`). A contact of two bodies is told when one of them reports, so `auto` misses only the arm against scenery."""
    if wanted == "off":
        return ()
    links: list[str] = []
    for robot in robots:
        hands = {name for gripper in robot.grippers for name in (gripper.ee_link, *_fingers(robot, gripper))}
        links += [link.prim_path for link in robot.links if wanted == "on" or link.name in hands]
    return (*links, *movable)


def _fingers(robot: RobotSpec, gripper: Any) -> tuple[str, ...]:
    """Links that the finger joints move, and what hangs on them."""
    moved = {joint.child_link for joint in robot.joints if joint.name in gripper.finger_joints}
    while more := {j.child_link for j in robot.joints if j.parent_link in moved} - moved:
        moved |= more
    return tuple(robot.links[index].name for index in sorted(moved))


def _reports(prim: Usd.Prim) -> bool:
    """Whether a prim has the report API: from the metadata, because the schema's plugin may not be loaded."""
    applied = prim.GetMetadata("apiSchemas") if prim else None
    return bool(applied) and API in applied.GetAppliedItems()


def _threshold(stage: Usd.Stage, path: str) -> float | None:
    """The threshold of a body; None where nothing is known of one."""
    prim = stage.GetPrimAtPath(path)
    attribute = prim.GetAttribute(THRESHOLD) if prim else None
    return attribute.Get() if attribute else None


def decode_contact(raw: RawContact, metres_per_unit: float, rotate: Any, dt_s: float) -> Contact:
    """A raw contact in Retake's units: position m, force N = impulse / dt (mass units are kilograms)."""
    a, b, position, normal, impulse, separation = raw

    def vector(values: Any) -> tuple[float, float, float]:
        x, y, z = (float(v) for v in values)
        return (x, y, z)

    return Contact(
        a,
        b,
        vector(rotate(position) * metres_per_unit),
        vector(-rotate(normal)),
        vector(-rotate(impulse) * metres_per_unit / dt_s),
        max(0.0, -separation * metres_per_unit),
    )
