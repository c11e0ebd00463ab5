# SPDX-License-Identifier: Apache-2.0
"""The episode check: does the motion respect kinematics, joint limits and the task? One small function per property.

An episode that fails does not go on through the arrow unless forced, and everything made from it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from retake.core.codec import decode
from retake.core.config import CheckConfig
from retake.core.episode.reader import Episode
from retake.core.errors import EpisodeCheckError, EpisodeError
from retake.core.geometry import inverse
from retake.core.progress import CheckCancel, never

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class CheckItem:
    """The result of one check: the worst value found and where."""

    name: str
    status: Status
    value: float | None
    limit: float | None
    unit: str
    frame: int | None
    detail: str


@dataclass(frozen=True)
class EpisodeCheck:
    """All results for one episode."""

    episode_sha256: str
    items: tuple[CheckItem, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(item.status != "fail" for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as in check.json."""
        return {"episode_sha256": self.episode_sha256, "passed": self.passed, "items": [asdict(i) for i in self.items]}

    @staticmethod
    def from_json(data: Any, where: str = "check.json") -> EpisodeCheck:
        """The inverse of `to_json`. Raises EpisodeError naming what is wrong."""
        return decode(EpisodeCheck, data, where, error=EpisodeError, ignore_unknown=True)

    def require(self, *, force: bool = False) -> None:
        """Raise EpisodeCheckError listing the failures, unless forced."""
        failed = [item for item in self.items if item.status == "fail"]
        if failed and not force:
            lines = "\n".join(f"  - {item.name}: {item.detail}" for item in failed)
            raise EpisodeCheckError(
                f"the episode fails {len(failed)} of {len(self.items)} checks:\n{lines}\n"
                "Takes made from it would teach wrong physics. Mend the scene, or go on with --force (every take will say so)."
            )


def check_episode(
    episode: Episode, limits: CheckConfig | None = None, check_cancel: CheckCancel = never
) -> EpisodeCheck:
    """Run every check. Decodes instance images for the camera coverage; everything else is numeric."""
    limits = limits or CheckConfig()
    items: list[CheckItem] = []
    for check in CHECKS:
        check_cancel()
        items += check(episode, limits)
    return EpisodeCheck(episode.content_sha256, tuple(items))


def _item(
    name: str,
    excess: np.ndarray,
    value: np.ndarray,
    limit: float,
    unit: str,
    what: Callable[[int], str],
) -> CheckItem:
    """A check from per-frame values: `excess` > 0 marks a violation, the worst frame is named."""
    frame = int(np.argmax(excess))
    good = bool(excess[frame] <= 0)
    return CheckItem(
        name,
        "pass" if good else "fail",
        float(value[frame]),
        float(limit),
        unit,
        frame,
        what(frame) if not good else "",
    )


def _not_applicable(name: str, why: str) -> CheckItem:
    return CheckItem(name, "not applicable", None, None, "", None, why)


def _timing(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    t = episode.time_s
    off = np.abs(t - t[0] - np.arange(len(t)) / episode.header.fps)
    return [
        _item(
            "frame times", off - limits.frame_time_s, off, limits.frame_time_s, "s",
            lambda f: f"frame {f} lies {off[f]:.6f} s from its place on the {episode.header.fps} fps grid",
        )
    ]  # fmt: skip


def _joint_limits(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    items = []
    for robot in episode.header.robots:
        joints = [j for j in robot.joints if j.kind != "fixed"]
        if not joints:
            continue
        lower, upper = np.array([j.lower for j in joints]), np.array([j.upper for j in joints])
        if not (np.isfinite(lower).any() or np.isfinite(upper).any()):
            items.append(_not_applicable(f"joint position limits ({robot.name})", "no limits stated"))
            continue
        for channel in ("position", "target"):
            if channel == "target" and "target" not in episode.header.joint_channels:
                continue
            q = episode.joint(robot.name, channel)
            beyond = np.maximum(q - upper, lower - q)
            worst = beyond.max(-1)

            def what(f: int, beyond: Any = beyond, q: Any = q, channel: str = channel, joints: Any = joints) -> str:
                j = int(np.argmax(beyond[f]))
                return (
                    f"{channel} of joint {joints[j].name!r} is {q[f, j]:.4f} at frame {f}; "
                    f"its limits are {joints[j].lower:.4f} … {joints[j].upper:.4f}"
                )

            items.append(
                _item(
                    f"joint {channel} limits ({robot.name})", worst - limits.joint_limit_slack, worst,
                    limits.joint_limit_slack, "rad or m beyond", what,
                )
            )  # fmt: skip
    return items


def _rates(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    items = []
    for robot in episode.header.robots:
        joints = [j for j in robot.joints if j.kind != "fixed"]
        if not joints:
            continue
        q = episode.joint(robot.name, "position")
        table = {}
        if "velocity" in episode.header.joint_channels:
            table["velocity"] = episode.joint(robot.name, "velocity")
        elif len(q) > 1:
            table["velocity"] = np.gradient(q, 1 / episode.header.fps, axis=0)
        if "effort" in episode.header.joint_channels:
            table["effort"] = episode.joint(robot.name, "effort")
        for channel, values in table.items():
            bound = np.array([getattr(j, f"{channel}_limit") for j in joints])
            if not np.isfinite(bound).any():
                items.append(_not_applicable(f"joint {channel} ({robot.name})", "no limits stated"))
                continue
            slack = limits.velocity_slack if channel == "velocity" else limits.effort_slack
            # A limit of zero allows rest only; the smallest divisor keeps 0/0 from becoming NaN, 1/0 infinite.
            share = np.minimum(np.abs(values) / np.maximum(bound, 1e-12), 1e12)
            worst = share.max(-1)

            def what(
                f: int,
                share: Any = share,
                values: Any = values,
                channel: str = channel,
                joints: Any = joints,
                bound: Any = bound,
            ) -> str:
                j = int(np.argmax(share[f]))
                return f"{channel} of joint {joints[j].name!r} is {values[f, j]:.3f} at frame {f}; its limit is {bound[j]:.3f}"

            items.append(
                _item(f"joint {channel} ({robot.name})", worst - 1 - slack, worst, 1 + slack, "of limit", what)
            )
    return items


def _kinematics(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    items = []
    for robot in episode.header.robots:
        if not robot.joints:
            continue
        measured = episode.link_poses(robot.name)
        expected = robot.forward_kinematics(episode.joint(robot.name, "position"), measured[:, robot.root])
        error = inverse(expected) @ measured
        distance = np.linalg.norm(error[..., :3, 3], axis=-1)
        # From the antisymmetric part: accurate near zero, where arccos of the trace is not.
        R = error[..., :3, :3]
        vee = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1) / 2
        trace = np.trace(R, axis1=-2, axis2=-1)
        angle = np.arctan2(np.linalg.norm(vee, axis=-1), (trace - 1) / 2)
        for name, table, limit, unit in (
            ("position", distance, limits.link_position_m, "m"),
            ("rotation", angle, limits.link_rotation_rad, "rad"),
        ):
            worst = table.max(-1)

            def what(f: int, table: Any = table, name: str = name, unit: str = unit, robot: Any = robot) -> str:
                link = robot.links[int(np.argmax(table[f]))].name
                return f"{name} of link {link!r} at frame {f} is {table[f].max():.2e} {unit} from forward kinematics"

            items.append(
                _item(f"link {name} against kinematics ({robot.name})", worst - limit, worst, limit, unit, what)
            )
    return items


def _penetration(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    depth = np.zeros(len(episode))
    pairs = [""] * len(episode)
    seen = False
    for frame in range(len(episode)):
        for contact in episode.contacts(frame):
            seen = True
            if contact.penetration_m > depth[frame]:
                depth[frame], pairs[frame] = contact.penetration_m, f"{contact.body_a} and {contact.body_b}"
    if not seen:
        return [CheckItem("penetration", "not applicable", None, None, "m", None, "the episode records no contacts")]
    return [
        _item(
            "penetration", depth - limits.penetration_m, depth, limits.penetration_m, "m",
            lambda f: f"{pairs[f]} overlap by {depth[f] * 1e3:.1f} mm at frame {f}",
        )
    ]  # fmt: skip


def _task(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    """The goal a scenario states: `settings.goal` = {object, center_m, size_m}: an axis-aligned region of the world in
    which the object's centre must be at the end."""
    goal = episode.header.settings.get("goal")
    if not isinstance(goal, dict):
        return [_not_applicable("task outcome", "the episode states no goal")]
    names = [o.name for o in episode.header.objects]
    if goal.get("object") not in names:
        return [
            CheckItem(
                "task outcome", "fail", None, None, "", None, f"goal names {goal.get('object')!r}; objects: {names}"
            )
        ]
    index = names.index(goal["object"])
    spec = episode.header.objects[index]
    T = episode.object_poses[-1, index]
    center = T[:3, :3] @ np.array(spec.center_m) + T[:3, 3]
    try:
        middle, size = (np.array(goal[key], np.float64).reshape(3) for key in ("center_m", "size_m"))
        if not np.isfinite([middle, size]).all():
            raise ValueError("not finite")
    except (KeyError, TypeError, ValueError) as error:
        detail = f"the goal {goal} is unreadable ({type(error).__name__}: {error}); expected center_m and size_m, 3 numbers each"
        return [CheckItem("task outcome", "fail", None, None, "", None, detail)]
    outside = float((np.abs(center - middle) - size / 2).max())
    where = "inside" if outside <= 0 else "outside"
    return [
        CheckItem(
            "task outcome", "pass" if outside <= 0 else "fail", outside, 0.0, "m beyond the goal region", len(episode) - 1,
            f"{spec.name} ends at {np.round(center, 3).tolist()} m, {where} the goal region",
        )
    ]  # fmt: skip


def _coverage(episode: Episode, limits: CheckConfig) -> list[CheckItem]:
    items = []
    ids = [i.id for i in episode.header.instances if i.owner.startswith("robot:")]
    for camera in episode.header.cameras:
        name = f"camera {camera.name} sees the robot"
        if not episode.header.robots:
            items.append(_not_applicable(name, "the episode has no robot"))
            continue
        if "instances" in camera.channels and ids:
            count = np.array(
                [np.isin(episode.image(camera.name, "instances", f), ids).sum() for f in range(len(episode))]
            )
            seen = count >= limits.coverage_pixels
        else:
            seen = _frames_with_robot(episode, camera.name)
        share = float(seen.mean())
        detail = (
            f"the robot is visible in {share:.0%} of the frames" if seen.any() else "this camera never sees the robot"
        )
        status: Status = "pass" if share >= limits.coverage_frames else "fail"
        frame = int(np.argmin(seen)) if status == "fail" else None
        items.append(CheckItem(name, status, share, limits.coverage_frames, "share of frames", frame, detail))
    return items


def _frames_with_robot(episode: Episode, camera: str) -> np.ndarray:
    """Frames in which at least one link origin falls into the image (episodes without instance images)."""
    seen = np.zeros(len(episode), bool)
    links = [episode.link_poses(robot.name)[..., :3, 3] for robot in episode.header.robots]
    for frame in range(len(episode)):
        view = episode.camera(camera, frame)
        for points in links:
            uv, _ = view.project(points[frame])
            seen[frame] |= bool(((uv >= 0) & (uv < view.size)).all(-1).any())
    return seen


CHECKS = (_timing, _joint_limits, _rates, _kinematics, _penetration, _task, _coverage)
