# SPDX-License-Identifier: Apache-2.0
"""An environment's configuration as a full Episode needs it: depth, normals and instances of its cameras, a label on
every body, camera poses that follow their links. Call it before the environment is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retake.core.episode import CHANNELS
from retake.core.episode.records import Channel
from retake.core.errors import InputError, unknown_name
from retake.lab.content import OUTPUTS

ADDED = {"rgb": "rgb", "depth": "distance_to_image_plane", "normals": "normals", "instances": "instance_segmentation"}
ADDED_2 = {**ADDED, "instances": "instance_segmentation_fast"}
"""As 2.x calls them; each version refuses the other's name of instances."""


def prepare(
    cfg: Any,
    cameras: Sequence[str] = (),
    *,
    channels: Sequence[Channel] = CHANNELS,
    sizes: dict[str, tuple[int, int]] | None = None,
    looks: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> tuple[str, ...]:
    """Change `cfg` (of a manager-based or Direct environment) in place; returns the names of the cameras.

    `sizes`: (width, height) by camera. `looks`: cameras to add, name → (eye, target), m, in each clone's coordinates.
    Raises InputError naming the cameras that there are, and when there is none.
    """
    scene = cfg.scene
    for name, (eye, target) in (looks or {}).items():
        setattr(scene, name, _added(scene, name, eye, target, (sizes or {}).get(name, (640, 480))))
    known = {
        n: value for n, value in vars(scene).items() if not isinstance(value, str) and hasattr(value, "data_types")
    }
    if not known:
        raise InputError(
            "the environment's scene has no camera; `--look NAME=EX,EY,EZ:TX,TY,TZ` adds one that stands at E and looks at T"
        )
    wanted = tuple(cameras) or tuple(known)
    for name in wanted:
        if name not in known:
            raise InputError(unknown_name("camera of the scene", name, known))
    for name in wanted:
        camera = known[name]
        path = str(camera.prim_path)
        inside = path.startswith(("{ENV_REGEX_NS}", "/World/envs/env_"))
        if not inside and getattr(scene, "num_envs", 1) > 1 and _is_xyzw(type(camera)):
            raise InputError(
                f"camera {name!r} stands at {path}, outside the clones, and Isaac Lab 3 has one picture per clone: put it at "
                f"{{ENV_REGEX_NS}}/{path.rpartition('/')[2]}, or make one clone (num_envs=1)"
            )
        types = list(camera.data_types)
        for channel in channels:
            if not set(OUTPUTS[channel]) & set(types):
                types.append((ADDED if _is_xyzw(type(camera)) else ADDED_2)[channel])
        camera.data_types = types
        camera.update_latest_camera_pose = True
        for holder in (camera.renderer_cfg if hasattr(camera, "renderer_cfg") else camera, camera):
            if hasattr(holder, "colorize_instance_segmentation"):
                holder.colorize_instance_segmentation = False
        if sizes and name in sizes:
            camera.width, camera.height = sizes[name]
    _label_bodies(cfg)
    return wanted


class LabelledSpawn:
    """A spawner that labels what it spawned: every rigid body and every static asset without a label gets its name as one.

    Labels are how renderers tell instances apart; they must be there before the simulation starts, and an event of mode
    `prestartup` is refused where clones are replicated.
    """

    def __init__(self, spawn: Any) -> None:
        self.spawn = spawn

    def __call__(self, prim_path: str, cfg: Any, *arguments: Any, **named: Any) -> Any:
        """As the spawner of Isaac Lab that it stands before."""
        prim = self.spawn(prim_path, cfg, *arguments, **named)
        if prim is not None and prim.IsValid():
            label_asset(prim)
        return prim


def _label_bodies(cfg: Any) -> None:
    for holder in (cfg.scene, cfg):
        for name, value in vars(holder).items():
            # Strings of Isaac Lab import what they name on any look at them.
            if name.startswith("_") or isinstance(value, str) or not hasattr(value, "prim_path"):
                continue
            spawn = getattr(value, "spawn", None)
            if hasattr(value, "data_types"):
                continue
            if spawn is not None and hasattr(spawn, "func") and not isinstance(spawn.func, LabelledSpawn):
                spawn.func = LabelledSpawn(spawn.func)


def label_asset(asset: Any) -> None:
    """Label an asset's bodies, or the asset where it has none, in every clone that has prims of its own."""
    from pxr import Usd, UsdPhysics

    from retake.usd.stage import has_label

    stage, path = asset.GetStage(), asset.GetPath()
    clone = re.match(r"(.*/env_)\d+(/.*)", str(path))
    siblings = [asset]
    if clone is not None:
        parent = stage.GetPrimAtPath(clone[1].rpartition("/")[0])
        found = [stage.GetPrimAtPath(f"{child.GetPath()}{clone[2]}") for child in parent.GetChildren()]
        siblings = [prim for prim in found if prim] or siblings
    for prim in siblings:
        bodies = [p for p in Usd.PrimRange(prim) if p.HasAPI(UsdPhysics.RigidBodyAPI)]
        for body in bodies or [prim]:
            if not has_label(body):
                _label(body)


def _label(prim: Any) -> None:
    try:
        from isaaclab.sim.utils.semantics import add_labels
    except ImportError:  # 2.x
        from isaacsim.core.utils.semantics import add_labels
    add_labels(prim, labels=[prim.GetName().lower()])


def _added(scene: Any, name: str, eye: Sequence[float], target: Sequence[float], size: tuple[int, int]) -> Any:
    import isaaclab.sim as sim_utils
    from isaaclab.sensors import CameraCfg

    from retake.core.geometry import wxyz_from_rotation

    if hasattr(scene, name):
        raise InputError(f"the scene has a {name!r} already; choose another name for the camera")
    forward = np.asarray(target, np.float64) - np.asarray(eye, np.float64)
    if np.linalg.norm(forward) < 1e-9:
        raise InputError(f"camera {name!r} stands where it looks, at {tuple(eye)}; expected two different points")
    forward /= np.linalg.norm(forward)
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    w, x, y, z = wxyz_from_rotation(np.stack([right, np.cross(forward, right), forward], axis=1))
    rot = (float(x), float(y), float(z), float(w)) if _is_xyzw(CameraCfg) else (float(w), float(x), float(y), float(z))
    return CameraCfg(
        prim_path="{ENV_REGEX_NS}/" + name,
        offset=CameraCfg.OffsetCfg(pos=tuple(map(float, eye)), rot=rot, convention="ros"),
        spawn=sim_utils.PinholeCameraCfg(focal_length=24.0, horizontal_aperture=26.5, clipping_range=(0.01, 100.0)),
        width=size[0],
        height=size[1],
        data_types=["rgb"],
    )


def _is_xyzw(camera_cfg: Any) -> bool:
    """Whether no rotation is (0, 0, 0, 1) in this version of Isaac Lab."""
    return tuple(camera_cfg.OffsetCfg().rot) == (0.0, 0.0, 0.0, 1.0)
