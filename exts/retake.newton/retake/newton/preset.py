# SPDX-License-Identifier: Apache-2.0
"""Capture presets (`config/capture/*.yaml`): what to simulate, for how long, and what the cameras deliver."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.camera import require_size
from retake.core.codec import merged
from retake.core.config import config_path, load_yaml
from retake.core.ends import beside
from retake.core.errors import InputError, unknown_name
from retake.core.files import sha256_file, sha256_json
from retake.core.joint_motion import FORM, read_motion
from retake.newton.preset_values import PHASES, POLICIES, DriveRequest, Lighting, is_description
from retake.usd.stage import open_stage, stage_sha256

STAGES = Path(__file__).resolve().parents[4] / "data" / "stages"
INSTALLED_STAGES = Path(__file__).parent / "_stages"
SCENARIOS = ("pick_place", "hold", "replay")


@dataclass(frozen=True)
class CameraRequest:
    """A camera the episode shall have."""

    name: str
    size: tuple[int, int]
    """(width, height), px."""
    prim: str = ""
    """Camera prim path; empty = the first camera of that mount."""
    mount: str = "fixed"
    """`fixed` or `body`: which cameras an empty prim path looks among."""
    optional: bool = False
    """Leave it out on stages that have no such camera."""


@dataclass(frozen=True)
class Preset:
    """Everything a capture needs beside the stage and the seed."""

    name: str
    task: str = ""
    stage: str = "pick_place/scene.usda"
    """Relative to data/stages, or an absolute path."""
    scenario: str = "pick_place"
    motion_file: str = ""
    """For `replay`: the joint trajectory (.npz or .csv, docs/motion.md)."""
    drives: str = "auto"
    """What moves joints that the stage does not drive: `auto`, `authored`, `fill` (docs/embedded_simulator.md)."""
    stiffness: float = 0.0
    """Of stated drives, N·m/rad or N/m; 0 = from each joint's inertia."""
    damping: float = 0.0
    """N·m·s/rad or N·s/m; 0 = critical."""
    object: str = ""
    """Name or label of the object to move; empty = the stage's first rigid object."""
    target: str = "tray"
    """Name or label of the prim to drop it in."""
    robot: str = ""
    """Name of the robot that works; empty = the first with a gripper."""
    robot_file: str = ""
    """YAML that declares end effectors; empty = the one beside the stage, else what is found."""
    fps: int = 15
    frames: int = 81
    steps_per_frame: int = 34
    """Physics steps between frames: dt = 1 / (fps · steps), near 2 ms."""
    cameras: tuple[CameraRequest, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)
    """Duration of each phase of the scripted task, s; the rest of the episode is settling."""
    randomise: dict[str, Any] = field(default_factory=dict)
    lighting: Lighting = field(default_factory=Lighting)

    @property
    def dt_s(self) -> float:
        """Physics step; an exact fraction of the frame time, so frames fall on steps."""
        return 1.0 / (self.fps * self.steps_per_frame)

    @property
    def duration_s(self) -> float:
        """Time of the last frame."""
        return (self.frames - 1) / self.fps

    @property
    def drive_request(self) -> DriveRequest:
        """What the simulator is asked of drives."""
        return DriveRequest(self.drives, self.stiffness, self.damping)

    def lasting(self, overrides: Mapping[str, Any]) -> Preset:
        """The same run as long as the motion it replays, unless the overrides say how many frames. Raises InputError."""
        if self.scenario != "replay" or "frames" in overrides:
            return self
        duration = float(read_motion(Path(self.motion_file)).time_s[-1])
        return dataclasses.replace(self, frames=int(np.ceil(duration * self.fps - 1e-9)) + 1)

    def without_cameras(self) -> Preset:
        """The same run with nothing to render."""
        return dataclasses.replace(self, cameras=())


def preset_names() -> tuple[str, ...]:
    """Presets that exist."""
    return tuple(sorted(path.stem for path in config_path("capture").glob("*.yaml")))


def load_preset(name: str, overrides: Mapping[str, Any], *, own_stage: bool = False) -> Preset:
    """Read a preset and replace values. Raises InputError naming the preset, setting or value that is wrong.

    With `own_stage` the scenario becomes `hold` unless an override names one: a scripted task fits its own stage only.
    """
    if name not in preset_names():
        raise InputError(unknown_name("capture preset", name, preset_names()))
    file = config_path("capture", f"{name}.yaml")
    data = dict(load_yaml(file) or {})
    changes = dict(overrides)
    if "scenario" not in changes and (own_stage or changes.get("motion_file")):
        data["scenario"] = "replay" if changes.get("motion_file") else "hold"
        data["task"] = str(data["task"]) if data["scenario"] == "pick_place" else ""
    for source, values in ((str(file), data), ("overrides", changes)):
        if not isinstance(values, dict):
            raise InputError(f"{source}: expected a mapping of settings, found {type(values).__name__}")
    preset = Preset(name)
    for source, values in ((str(file), data), ("overrides", changes)):
        cameras = values.pop("cameras", None)
        preset = merged(preset, _merge_nested(preset, values), source)
        if cameras is not None:
            preset = dataclasses.replace(preset, cameras=_cameras(cameras, source))
    _validate(preset)
    return preset


def _merge_nested(preset: Preset, values: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings (`phases`, `randomise`) are merged key by key, so an override names only what it changes."""
    out = dict(values)
    for key in ("phases", "randomise"):
        if isinstance(out.get(key), Mapping):
            out[key] = {**getattr(preset, key), **out[key]}
    return out


def _cameras(values: Any, source: str) -> tuple[CameraRequest, ...]:
    fields = {f.name for f in dataclasses.fields(CameraRequest)}
    out = []
    for entry in values if isinstance(values, list | tuple) else [values]:
        if not isinstance(entry, Mapping) or not {"name", "size"} <= set(entry):
            raise InputError(f"{source}: a camera needs at least name and size [width, height]; found {entry!r}")
        if unknown := set(entry) - fields:
            raise InputError(f"{source}: {unknown_name('camera setting', sorted(unknown)[0], fields)}")
        size = entry["size"]
        if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(x, int) and x > 0 for x in size)):
            raise InputError(f"{source}: camera size is {size!r}; expected [width, height] in whole pixels")
        size = require_size((size[0], size[1]), f"{source}: camera {entry['name']!r}")
        out.append(CameraRequest(**{**entry, "size": size}))
    return tuple(out)


def _validate(preset: Preset) -> None:
    if preset.scenario not in SCENARIOS:
        raise InputError(unknown_name("scenario", preset.scenario, SCENARIOS))
    for name in ("fps", "frames", "steps_per_frame"):
        if getattr(preset, name) < 1:
            raise InputError(
                f"preset {preset.name}: {name} is {getattr(preset, name)}; expected a positive whole number"
            )
    names = [camera.name for camera in preset.cameras]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"preset {preset.name}: two cameras are named {twice[0]!r}; each needs a name of its own")
    for camera in preset.cameras:
        if camera.mount not in ("fixed", "body"):
            raise InputError(unknown_name(f"mount of camera {camera.name!r}", camera.mount, ("fixed", "body")))
    if preset.scenario == "pick_place":
        if unknown := set(preset.phases) - set(PHASES):
            raise InputError(unknown_name("phase", sorted(unknown)[0], PHASES))
        if missing := set(PHASES) - set(preset.phases):
            raise InputError(f"preset {preset.name} gives no duration for phases {sorted(missing)}")
        if any(not isinstance(v, int | float) or v <= 0 for v in preset.phases.values()):
            raise InputError(f"preset {preset.name}: phase durations must be positive seconds; found {preset.phases}")
    if preset.scenario == "replay" and not preset.motion_file:
        raise InputError(f"scenario 'replay' needs motion_file (--motion): {FORM}")
    if preset.drives not in POLICIES:
        raise InputError(unknown_name("drives", preset.drives, POLICIES))
    if min(preset.stiffness, preset.damping) < 0:
        raise InputError(
            f"stiffness {preset.stiffness} and damping {preset.damping} of stated drives must not be negative"
        )


def stage_path(preset: Preset) -> Path:
    """The preset's own stage file."""
    given = Path(preset.stage)
    if given.is_absolute():
        return given
    root = INSTALLED_STAGES if INSTALLED_STAGES.is_dir() else STAGES
    return root / given


def fingerprint(preset: str, overrides: Mapping[str, Any], stage: Path | None) -> str:
    """Content hash of the files a capture would read: the stage with every layer and texture, the motion it replays.

    Raises InputError for an unknown preset or value, StageError when the stage is none or one of its files is missing.
    """
    settings = load_preset(preset, overrides, own_stage=stage is not None)
    file = stage if stage is not None else stage_path(settings)
    # A declaration lies beside what the user named, which may be a description, converted elsewhere.
    declared = Path(settings.robot_file) if settings.robot_file else beside(file)
    if is_description(file):
        from retake.newton.describe import described

        file = described(file)
    open_stage(file)
    motion = Path(settings.motion_file) if settings.motion_file else None
    files = [sha256_file(path) if path is not None and path.is_file() else "" for path in (motion, declared)]
    return sha256_json([stage_sha256(file), *(files if declared is not None else files[:1])])
