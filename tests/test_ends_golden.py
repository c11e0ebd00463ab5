# SPDX-License-Identifier: Apache-2.0
"""What is found on robots drawn at random (arms, legs, heads and wheels with fingers, hands, jaws or nothing at their ends; links
turned; some without limits, shapes or names that tell) against what was found before: a search that changes by accident is seen.

`python tests/test_ends_golden.py` writes it anew where the search was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.ends import find_ends
from retake.core.geometry import axis_angle
from retake.core.robot import JointSpec, LinkSpec, Mimic, RobotSpec

GOLDEN = Path(__file__).parent / "golden" / "ends" / "robots.json"
SHARE = 1e-4
ROBOTS, PARTS = 160, 8
TRAVELS = ((-2.9, 2.9), (-2.9, 2.9), (-1.5, 1.5), (-np.pi, np.pi), (-6.2, 6.2), (0.2, 1.5))
LIMBS = ("arm", "left_arm", "part", "leg", "head", "wheel", "a", "RightForearm", "neck")
ENDS = ("slides", "hinges", "jaw", "hand", "three", "bare", "bare", "horn", "linkage")
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


class Drawn:
    """A robot that grows joint by joint, all of it from one random source."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.names, self.joints, self.clouds = ["base"], [], [self.box((0, 0, 0.04), (0.15, 0.15, 0.08))]
        self.turned = self.rng.random() < 0.5
        self.turns = [np.eye(4)]
        self.free = self.rng.random() < 0.15  # no limits are stated
        self.bare = self.rng.random() < 0.15  # no geometry is known
        self.worded = self.rng.random() < 0.5
        limbs = int(self.rng.integers(1, 4))
        for limb in range(limbs):
            self.limb(str(self.rng.choice(LIMBS)), limb)
        if self.rng.random() < 0.25:  # what it stands on, whatever that is called
            for limb in range(limbs, limbs + int(self.rng.integers(2, 4))):
                link = 0
                for number in range(3):
                    at = (0.2 * limb, -0.1, 0.0) if number == 0 else (0, 0, -0.3)
                    link = self.add(link, f"post{limb}_{number}", at, (Z, Y, Y)[number], size=(0.05, 0.05, -0.3))

    def box(self, centre, size) -> np.ndarray:
        corners = np.stack(np.meshgrid(*([-0.5, 0.5],) * 3, indexing="ij"), -1).reshape(-1, 3)
        return corners * size + centre

    def add(
        self, parent, name, at, axis, kind="revolute", limits=(-2.9, 2.9), size=(0.05, 0.05, 0.1), mimic=None
    ) -> int:
        rng, child = self.rng, len(self.names)
        turn = np.eye(4)
        if self.turned:
            v = rng.normal(size=3)
            turn[:3, :3] = axis_angle(v / np.linalg.norm(v), float(rng.uniform(-3, 3)))
        place = np.eye(4)
        place[:3, 3] = at
        # A joint's frames in both links, each of which is turned by its own rotation.
        P, C = np.linalg.inv(self.turns[parent]) @ place, np.linalg.inv(turn)
        lower, upper = (-np.inf, np.inf) if self.free and kind != "fixed" else limits
        follows = None if mimic is None else Mimic(self.joints[mimic].name, 1.0, 0.0)
        self.joints.append(JointSpec(f"j{child}", kind, parent, child, axis, P, C, lower, upper, mimic=follows))
        self.names.append(f"{name}_{child}" if name in self.names else name)
        self.turns.append(turn)
        self.clouds.append((self.box((0, 0, size[2] / 2), size) @ turn[:3, :3]) if any(size) else np.zeros((0, 3)))
        return child

    def limb(self, word: str, limb: int) -> None:
        rng, link = self.rng, 0
        down = word == "leg" or rng.random() < 0.1
        length = float(rng.uniform(0.08, 0.16))
        for number in range(int(rng.integers(1, 7))):
            at = (0.2 * limb, 0.05, 0.08) if number == 0 else (0, 0, length)
            at = (at[0], at[1], -at[2]) if down else at
            size = (0.06, 0.05, -length if down else length)
            size = (0, 0, 0) if rng.random() < 0.1 else size
            axis, travel = (Z, Y, X, Y)[int(rng.integers(4))], TRAVELS[int(rng.integers(len(TRAVELS)))]
            link = self.add(link, f"{word}{limb}_{number}", at, axis, limits=travel, size=size)
        if word == "wheel":
            self.joints[-1] = JointSpec(**{**vars_of(self.joints[-1]), "lower": -np.inf, "upper": np.inf})
        if rng.random() < 0.3:
            link = self.add(link, str(rng.choice(("flange", "tool0", "plate"))), (0, 0, length), Z, "fixed", (0, 0))
        if rng.random() < 0.2:
            self.add(
                link, str(rng.choice(("camera_frame", "tcp", "sensor"))), (0, 0, 0.05), Z, "fixed", (0, 0), (0, 0, 0)
            )
        self.end(str(rng.choice(ENDS)), link, f"{limb}", length)

    def end(self, kind: str, hand: int, limb: str, length: float) -> None:
        rng = self.rng
        word = str(rng.choice(("finger", "gripper", "jaw", "part"))) if self.worded else "part"
        k, axis = float(rng.uniform(0.7, 1.3)), X if rng.random() < 0.5 else Y
        out = np.array(Y if axis == X else X)
        tip = (0.02 * k, 0.012 * k, 0.07 * k)
        if kind in ("slides", "hinges", "horn", "linkage"):
            for side in (1, -1):
                at = tuple(out * 0.03 * k * side + [0, 0, length])
                mimic = len(self.joints) - 1 if side < 0 and rng.random() < 0.4 else None
                if kind == "slides":
                    limits = (0.0, 0.04 * k) if side > 0 or rng.random() < 0.5 else (-0.04 * k, 0.0)
                    self.add(hand, f"{word}{side}{limb}", at, tuple(out), "prismatic", limits, tip, mimic)
                else:
                    first = self.add(hand, f"{word}{side}{limb}", at, axis, limits=(-0.8, 0.1) if side > 0 else (-0.1, 0.8),
                                     size=tip, mimic=mimic)  # fmt: skip
                    if kind == "linkage":
                        self.add(first, f"tip{side}{limb}", (0, 0, tip[2]), axis, limits=(-0.5, 0.5), size=tip)
            if kind == "horn":
                self.add(hand, f"horn{limb}", (0, 0, 0.05), axis, limits=(-np.inf, np.inf), size=(0.01, 0.01, 0.01))
        if kind == "jaw":
            kind_, ax = ("revolute", axis) if rng.random() < 0.7 else ("prismatic", tuple(out))
            limits = (-1.6, 0.1) if kind_ == "revolute" else (0.0, 0.05)
            limits = (-3.6, 0.1) if rng.random() < 0.1 else limits
            self.add(hand, f"{word}{limb}", tuple(out * 0.02 + [0, 0, length]), ax, kind_, limits, tip)
        if kind in ("hand", "three"):
            mounted = rng.random() < 0.4
            count = 3 if kind == "three" else int(rng.integers(3, 5))
            for n in range(count):
                angle = 2 * np.pi * n / count
                at = (
                    (0.03 * np.cos(angle), 0.03 * np.sin(angle), length)
                    if kind == "three"
                    else (0.03 * (n - 1), 0.03, length)
                )
                ax = (-float(np.sin(angle)), float(np.cos(angle)), 0.0) if kind == "three" else X
                carrier = hand
                if mounted:
                    carrier, at = (
                        self.add(hand, f"mount{n}{limb}", at, Z, "fixed", (0, 0), (0.01, 0.01, 0.01)),
                        (0, 0, 0.01),
                    )
                first = self.add(carrier, f"{word}{n}{limb}", at, ax, limits=(0.0, 1.5), size=tip)
                if rng.random() < 0.7:
                    self.add(first, f"{word}{n}{limb}b", (0, 0, tip[2]), ax, limits=(0.0, 1.4), size=tip)
            if kind == "hand":
                self.add(
                    hand, f"thumb{limb}", (0, -0.04, 0.6 * length), (0.0, 0.3, 0.954), limits=(-1.2, 0.2), size=tip
                )

    def found(self) -> dict[str, Any]:
        spec = RobotSpec("r", "/r", tuple(LinkSpec(n, f"/r/{n}") for n in self.names), tuple(self.joints))
        stands = np.eye(4)
        stands[:3, :3] = axis_angle(np.array(Z), float(self.rng.uniform(-3, 3)))
        stands[:3, 3] = self.rng.uniform(-1, 1, 3)
        ends, notes = find_ends(spec, lambda i: np.zeros((0, 3)) if self.bare else self.clouds[i], stands)
        told = [
            [f"{e.kind} {e.ee_link}: {' '.join(e.finger_joints)}; {e.note}", list(e.open_position), list(e.closed_position),
             e.T_link_ee]
            for e in ends
        ]  # fmt: skip
        return {"ends": told, "notes": list(notes)}


def vars_of(joint: JointSpec) -> dict[str, Any]:
    return {name: getattr(joint, name) for name in joint.__dataclass_fields__}


def part(number: int) -> dict[str, Any]:
    return summed_up({str(seed): Drawn(seed).found() for seed in range(number, ROBOTS, PARTS)})


@pytest.mark.parametrize("number", range(PARTS))
def test_the_ends_of_a_robot_are_found_as_they_were(number: int) -> None:
    assert not compare(part(number), load(GOLDEN)[str(number)], SHARE)


def test_robots_with_every_kind_of_end_are_among_them() -> None:
    told = [value for own in load(GOLDEN).values() for name, value in own.items() if isinstance(value, str)]
    assert {text.partition(" ")[0] for text in told} >= {"gripper", "hand", "jaw", "tool"}
    assert sum("legs" in text for text in told) >= 2


if __name__ == "__main__":
    store(GOLDEN, {str(number): part(number) for number in range(PARTS)})
    sys.exit(0)
