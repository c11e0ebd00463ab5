# SPDX-License-Identifier: Apache-2.0
"""What a camera of the host shows, and of when: pictures are taken only with the state they show.

Newton's renderer draws the present state when a camera is read; other renderers hand out the last picture that a render of
the simulation made, which comes every `render_interval` physics steps, and may show the scene of before a reset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.capture import PairingError
from retake.core.episode import CameraFrame, encode_normals
from retake.core.episode.records import Channel
from retake.core.errors import EpisodeError, StageError
from retake.core.geometry import inverse
from retake.lab import host
from retake.lab.content import LabCamera, LabContent
from retake.usd.instances import OTHER, InstanceLookup

SAME_TIME_S = 1e-6
MOVED_M, MOVED_RAD = 1e-3, 3e-3
"""A link moved if it did so by more than this, …"""
STILL_M, STILL_RAD = 1e-7, 1e-6
"""… and a camera stood still if its pose changed by less than this."""


@dataclass(frozen=True)
class RawView:
    """What one camera delivered for one clone: copies."""

    images: Mapping[Channel, np.ndarray]
    labels: Mapping[Any, Any]
    """Of the instance image."""
    K: np.ndarray
    pose: np.ndarray
    """(7,) position and quaternion (ROS axes: OpenCV's), world frame, the host's order."""
    count: int
    """The camera's own count of pictures."""


def stride_of(env: Any, cameras: Mapping[str, Any]) -> int:
    """Control steps from one recorded frame to the next: how often every camera has a picture of a step's end."""
    step_s, decimation, _ = host.rate_of(env)
    stride = 1
    for sensor in cameras.values():
        period = float(getattr(sensor.cfg, "update_period", 0.0) or 0.0)
        stride = lcm(stride, max(1, int(np.ceil(period / step_s - 1e-6))))
        if not host.renders_on_read(sensor):
            interval = max(1, int(env.cfg.sim.render_interval))
            stride = lcm(stride, interval // gcd(decimation, interval))
    return stride


def is_fresh(env: Any, sensor: Any, env_id: int, steps_since_reset: int) -> bool:
    """Whether a camera's picture shows the present state of a clone. Call after its data were read."""
    taken, now = host.time_of_picture(sensor, host.row_of(sensor, env_id))
    if abs(now - taken) > SAME_TIME_S:
        return False
    if host.renders_on_read(sensor):
        return True
    if not getattr(env, "render_enabled", True):
        return False
    drawn = int(env._sim_step_counter) % max(1, int(env.cfg.sim.render_interval)) == 0
    if steps_since_reset == 0:
        # The renderer has seen the reset only where the environment draws anew after it.
        again = getattr(env.cfg, "num_rerenders_on_reset", 0) or getattr(env.cfg, "rerender_on_reset", False)
        return drawn and bool(again)
    return drawn


def read_view(sensor: Any, camera: LabCamera, env_id: int) -> RawView:
    """Copies of what a camera holds for one clone."""
    data, at = sensor.data, host.row_of(sensor, env_id)
    images: dict[Channel, np.ndarray] = {}
    for channel, kind in camera.outputs.items():
        if kind not in data.output:
            raise StageError(f"camera {camera.key!r} delivered no {kind}; it has {', '.join(sorted(data.output))}")
        images[channel] = host.row(data.output[kind], at)
    labels = {}
    if "instances" in camera.outputs:
        info = data.info
        kind = camera.outputs["instances"]
        found = info[at].get(kind) if isinstance(info, list | tuple) else (info or {}).get(kind)
        labels = host.labels_of(found, at)
    pose = np.concatenate([host.row(data.pos_w, at), host.row(data.quat_w_ros, at)])
    return RawView(images, labels, host.row(data.intrinsic_matrices, at), pose, int(host.row(sensor.frame, at)))


class MountCheck:
    """A camera whose reported pose stands still while its link moves would give every picture a wrong pose."""

    def __init__(self, content: LabContent) -> None:
        self._cameras = content.cameras
        self._first: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def check(self, name: str, T_env_camera: np.ndarray, T_env_link: np.ndarray, link: str) -> None:
        """One frame. Raises EpisodeError naming camera and link."""
        camera, mount = self._first.setdefault(name, (T_env_camera, T_env_link))
        moved, turned = _difference(mount, T_env_link)
        shift, turn = _difference(camera, T_env_camera)
        if (moved > MOVED_M or turned > MOVED_RAD) and shift < STILL_M and turn < STILL_RAD:
            raise EpisodeError(
                f"camera {name!r} reports the same pose while its link {link!r} moved {moved * 1000:.1f} mm and "
                f"{np.degrees(turned):.1f}°: set update_latest_camera_pose=True in its CameraCfg (retake.lab.prepare does)"
            )


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    R = a[:3, :3].T @ b[:3, :3]
    sine = np.linalg.norm([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    return float(np.linalg.norm(a[:3, 3] - b[:3, 3])), float(np.arctan2(sine, (np.trace(R) - 1) / 2))


class ViewDecoder:
    """Raw views as camera frames in Retake's units and axes, in the clone's own coordinates."""

    def __init__(self, content: LabContent) -> None:
        self._content, self._lookup = content, InstanceLookup(content.instances)
        self._labels: Mapping[Any, Any] = {}
        """Those of the last picture, and the table made of them: most renderers have one for all pictures."""
        self._table: dict[int, str] = {}

    def camera_pose(self, view: RawView) -> Float64[np.ndarray, "4 4"]:
        """T_env_camera."""
        return host.local_poses(view.pose, self._content.origin, self._content.order)

    def frame(self, camera: LabCamera, view: RawView) -> CameraFrame:
        """One camera's frame. Raises StageError naming the camera for images of another size."""
        width, height = camera.spec.size
        for channel, image in view.images.items():
            if image.shape[:2] != (height, width):
                raise StageError(
                    f"camera {camera.key!r}: {channel} is {image.shape[1]}x{image.shape[0]}; expected {width}x{height}"
                )
        rgb = np.ascontiguousarray(view.images["rgb"][..., :3])
        if rgb.dtype != np.uint8:
            raise StageError(f"camera {camera.key!r} delivers rgb as {rgb.dtype}; expected uint8")
        depth = normals = ids = None
        if "depth" in view.images:
            depth = np.array(view.images["depth"], np.float32).reshape(height, width)
            # Beyond the far plane nothing was hit; a renderer may say so by infinity, by zero or by the far plane itself.
            depth[~np.isfinite(depth) | (depth >= camera.far_m * (1 - 1e-6))] = 0.0
        if "normals" in view.images:
            normals = encode_normals(np.asarray(view.images["normals"], np.float32)[..., :3])
        if "instances" in view.images:
            ids = self._lookup.remap(packed(view.images["instances"]), self._paths(view.labels))
            if depth is not None:
                ids = np.where(depth > 0, ids, 0).astype(np.uint16)
        if normals is not None and depth is not None:
            normals[depth == 0] = 0
        T_camera_env = inverse(self.camera_pose(view))
        return CameraFrame(view.K.astype(np.float64), T_camera_env, rgb, depth, normals, ids, camera.spec.lens)

    def _paths(self, labels: Mapping[Any, Any]) -> dict[int, str]:
        """Rendered id → prim path in the clone that was read; unlabelled things are known to be something."""
        if labels != self._labels:
            self._labels = labels
            self._table = {number_of(i): self._path(label) for i, label in labels.items()}
        return self._table

    def _path(self, label: Any) -> str:
        text = label if isinstance(label, str) else next((str(v) for v in dict(label).values()), "")
        if text == "UNLABELLED":
            return OTHER
        own, others = f"{self._content.prefix}/", f"{self._content.prefix.rpartition('/')[0]}/env_"
        if text.startswith(own):
            return f"{self._content.source}/{text[len(own) :]}"
        return (
            OTHER if text.startswith(others) else text
        )  # a neighbour is nothing of this clone's, whatever describes both


def number_of(key: Any) -> int:
    """An id of a label table: a number, or a colour (r, g, b, a) as the pixel's four bytes."""
    if isinstance(key, str) and not key.strip().lstrip("-").isdigit():
        key = tuple(int(part) for part in re.findall(r"\d+", key))
    if isinstance(key, tuple | list):
        return int(sum(int(byte) << 8 * i for i, byte in enumerate(key)))
    return int(key)


def packed(image: np.ndarray) -> np.ndarray:
    """An instance image as (H, W) uint32: ids as they are, colours as their four bytes."""
    if image.ndim == 3 and image.shape[2] == 4 and image.dtype == np.uint8:
        return np.ascontiguousarray(image).view("<u4")[..., 0]
    return np.ascontiguousarray(image.reshape(image.shape[:2]).astype(np.uint32))


def not_due(camera: str, step: int, stride: int) -> PairingError:
    """A frame was due and a camera had no picture of it."""
    return PairingError(
        f"camera {camera!r} has no picture of control step {step}, where one is due every {stride}: its update_period, "
        "render_interval and decimation must have pictures end with control steps at one rate "
        "(update_period=0, render_interval=decimation and lazy_sensor_update=True always do)"
    )
