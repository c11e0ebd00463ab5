# SPDX-License-Identifier: Apache-2.0
"""The seam to Isaac Lab: what differs between its versions, and which names things have there.

In 3.x assets hold ProxyArrays (`.torch` gives the tensor) and quaternions are x y z w; in 2.x they hold tensors and
quaternions are w x y z. Nothing here imports Isaac Lab: what an object is shows in what it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import EpisodeError, StageError
from retake.core.geometry import pose_from_wxyz, wxyz_from_xyzw

XYZW, WXYZ = "xyzw", "wxyz"
ROWS = {"link": "body_link_pose_w", "root": "root_link_pose_w"}
STATES = {"link": "body_link_state_w", "root": "root_link_state_w"}
OLD_STATES = {"link": "body_state_w", "root": "root_state_w"}


def tensor(value: Any) -> Any:
    """A tensor of the host: a ProxyArray's, or the value itself."""
    return getattr(value, "torch", value)


def array(value: Any) -> np.ndarray:
    """A copy as numpy, whatever device it lies on."""
    found = tensor(value)
    if hasattr(found, "detach"):
        found = found.detach().cpu().numpy()
    return np.array(found)


def row(value: Any, index: int) -> np.ndarray:
    """A copy of one row as numpy. On the CPU no tensor is indexed or detached: torch lets go of the interpreter's lock in
    each such call, and the step would then wait for the writing thread to give it back."""
    found = tensor(value)
    if not hasattr(found, "detach"):
        return np.array(found[index])
    if found.device.type == "cpu" and not found.requires_grad:
        return np.array(found.numpy()[index])
    return np.array(found[index].detach().cpu().numpy())


def row_of(sensor: Any, env_id: int) -> int:
    """A sensor's row for one clone: a sensor of the world has one row for all of them."""
    count = len(tensor(sensor.frame))
    if count > 1 and env_id >= count:
        raise StageError(
            f"the camera at {sensor.cfg.prim_path} has {count} pictures, clone {env_id} is not among them; expected one "
            "camera in every clone, or one of the world"
        )
    return env_id if env_id < count else 0


def quaternion_order(scene: Any) -> str:
    """`xyzw` (3.x) or `wxyz` (2.x), from what the scene's assets hold. Raises StageError for a scene without any."""
    for assets in (scene.articulations, scene.rigid_objects):
        for asset in assets.values():
            return XYZW if hasattr(asset.data.root_link_pose_w, "torch") else WXYZ
    raise StageError(
        "the environment's scene has neither articulations nor rigid objects; there is no motion to record"
    )


def host_version() -> str:
    """`isaaclab 3.0.0` as it is installed; `isaaclab` where its package says nothing."""
    try:
        return f"isaaclab {version('isaaclab')}"
    except PackageNotFoundError:
        return "isaaclab"


def pose_tensor(data: Any, kind: str) -> Any:
    """(N, B, 7 or more) or (N, 7 or more): poses of links (`link`) or of the root link (`root`) and what may stand behind
    them, world frame, the host's quaternion order."""
    for names in (ROWS, STATES, OLD_STATES):
        found = getattr(data, names[kind], None)
        if found is not None:
            return tensor(found)
    raise StageError(
        f"{type(data).__name__} has no {ROWS[kind]}; expected what Isaac Lab 2.3 or 3 calls an asset's data"
    )


def joint_targets(asset: Any) -> Any:
    """(N, J) joint positions that the drives were told; 3.x holds them with the actuators, 2.x with the asset's data."""
    found = getattr(getattr(getattr(asset, "actuators", None), "target_command", None), "position", None)
    return asset.data.joint_pos_target if found is None else found


def joint_efforts(asset: Any) -> Any:
    """(N, J) efforts that the drives applied, or None where the host does not say."""
    found = getattr(getattr(asset, "actuators", None), "applied_effort", None)
    return getattr(asset.data, "applied_torque", None) if found is None else found


def local_poses(rows: np.ndarray, origin: Float64[np.ndarray, "3"], order: str) -> Float64[np.ndarray, "*n 4 4"]:
    """(…, 7) world poses as T_env (…, 4, 4), m: relative to the clone's origin."""
    rows = np.asarray(rows, np.float64)
    q = wxyz_from_xyzw(rows[..., 3:7]) if order == XYZW else rows[..., 3:7]
    return pose_from_wxyz(rows[..., :3] - origin, q)


def clones_of(env_ids: Any, num_envs: int) -> list[int]:
    """Numbers of the clones that the host names: None or a slice, or indices in a list, an array or a tensor."""
    if env_ids is None:
        return list(range(num_envs))
    if isinstance(env_ids, slice):
        return list(range(num_envs))[env_ids]
    return [int(i) for i in (env_ids.tolist() if hasattr(env_ids, "tolist") else env_ids)]


def is_camera(sensor: Any) -> bool:
    """Whether a sensor of a scene is a camera that renders."""
    return hasattr(sensor, "image_shape") and hasattr(sensor, "frame") and hasattr(sensor.cfg, "data_types")


def is_contact_sensor(sensor: Any) -> bool:
    """Whether a sensor of a scene measures contact forces."""
    return hasattr(sensor, "body_names") and hasattr(sensor.cfg, "filter_prim_paths_expr")


def cameras_of(scene: Any) -> dict[str, Any]:
    """The scene's cameras by name."""
    return {name: sensor for name, sensor in scene.sensors.items() if is_camera(sensor)}


def renders_on_read(sensor: Any) -> bool:
    """Whether reading a camera renders the present state (Newton's renderer), instead of giving the last rendered picture."""
    return getattr(getattr(sensor.cfg, "renderer_cfg", None), "renderer_type", "") == "newton_warp"


def time_of_picture(sensor: Any, env_id: int) -> tuple[float, float]:
    """(time of the picture, time now) of a camera's own clock for one clone, s."""
    values = []
    for name in ("_timestamp_last_update", "_timestamp"):
        found = getattr(sensor, name)
        found = found.numpy() if hasattr(found, "numpy") and not hasattr(found, "detach") else array(found)
        values.append(float(np.asarray(found).ravel()[env_id]))
    return values[0], values[1]


def rate_of(env: Any) -> tuple[float, int, float]:
    """(control step s, decimation, physics step s). Raises EpisodeError where an environment has none."""
    try:
        return float(env.step_dt), int(env.cfg.decimation), float(env.cfg.sim.dt)
    except AttributeError as error:
        raise EpisodeError(
            f"{type(env).__name__} is no environment of Isaac Lab ({error}); expected a manager-based or Direct one"
        ) from error


def env_name(env: Any) -> str:
    """How the environment is called: its task id where gymnasium made it, else its class."""
    spec = getattr(env, "spec", None)
    return str(getattr(env.cfg, "env_name", "") or getattr(spec, "id", "") or type(env.cfg).__name__)


def source_path(scene: Any, path: str, source: str) -> str:
    """A configured prim path, which may be an expression over all clones, as the path in the clone at `source`."""
    root = str(getattr(scene, "env_ns", "/World/envs"))
    for pattern in (
        str(getattr(scene, "env_regex_ns", "")),
        f"{root}/env_.*",
        f"{root}/env_[^/]+",
        f"{root}/env_[0-9]+",
    ):
        if pattern and path.startswith(pattern):
            return source + path[len(pattern) :]
    return re.sub(rf"^{re.escape(root)}/env_\d+", source, path)


def labels_of(info: Any, env_id: int) -> Mapping[Any, Any]:
    """idToLabels of a segmentation's side information; 2.x cameras give one per clone."""
    if isinstance(info, list | tuple):
        info = info[env_id] if env_id < len(info) else {}
    return dict((info or {}).get("idToLabels", {}))
