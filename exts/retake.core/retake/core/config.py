# SPDX-License-Identifier: Apache-2.0
"""RunConfig: every parameter of a run with its default. `config/retake.yaml` mirrors it and explains each line.

A user's file or `--set section.key=value` overrides single values; an unknown key or a value of the wrong type is an
error that lists what is valid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from retake.core.codec import Within, encode, merged
from retake.core.errors import InputError, unknown_name


@dataclass(frozen=True)
class CaptureConfig:
    """How the Episode is made."""

    simulator: str = "newton"
    preset: str = "short"
    seed: Annotated[int, Within(0)] = 0
    stage: str = ""
    """USD stage; empty = the preset's own."""
    robot: str = ""
    """YAML that declares end effectors (docs/robots.md); empty = the one beside the stage, else what is found."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Scenario parameters that replace the preset's random draw."""


@dataclass(frozen=True)
class CheckConfig:
    """Bounds of the episode check; sources in docs/episode.md."""

    force: bool = False
    """Go on with an episode that fails; everything downstream says so."""
    joint_limit_slack: float = 1e-3
    """rad or m beyond a position limit (soft limits of the solvers)."""
    velocity_slack: float = 0.02
    """Share of a velocity limit."""
    effort_slack: float = 0.01
    """Share of an effort limit."""
    link_position_m: float = 1e-4
    """Link pose against forward kinematics (float32 simulators: 4.3e-7 m measured)."""
    link_rotation_rad: float = 1e-3
    penetration_m: float = 0.005
    """Deepest contact."""
    frame_time_s: float = 1e-4
    """Frame times against k/fps."""
    coverage_frames: Annotated[float, Within(0, 1)] = 0.9
    """Share of frames in which a camera must see a robot."""
    coverage_pixels: Annotated[int, Within(0)] = 50
    """Robot pixels that count as seen."""


@dataclass(frozen=True)
class SkeletonConfig:
    """How the Skeleton is drawn."""

    size: tuple[Annotated[int, Within(1)], Annotated[int, Within(1)]] = (640, 480)
    """(width, height) that the video model reads; drawing happens at capture size first."""


@dataclass(frozen=True)
class VariantsConfig:
    """How first frames are dressed."""

    backend: str = "procedural"
    presets: tuple[str, ...] = ("bun_warehouse", "chips_conveyor", "vegetable_kitchen")
    count: Annotated[int, Within(0)] = 0
    """More worlds drawn by the sampler beyond the presets."""
    of_presets: bool = False
    """Sampled worlds stay in the presets' environments."""
    prompts: tuple[str, ...] = ()
    """Worlds in your own words, one each; for backends that read them."""
    catalogue: tuple[str, ...] = ()
    """YAML files with worlds of your own (presets and axis values, in the form of config/worlds)."""
    keep_shapes: bool = False
    """Objects keep their simulated shape: a box stays a box, of another material."""
    seed: Annotated[int, Within(0)] = 0
    only_commercial: bool = False
    gate: bool = True
    """Deliver only frames in which robot and geometry are measured to be the simulated ones."""
    blind: Literal["deliver", "refuse"] = "deliver"
    """A camera in whose first frame no robot is to be seen, beside one that shows it: its frame cannot be measured."""
    rerolls: Annotated[int, Within(0)] = 2
    """Further attempts for a world whose frame fails the gate."""
    depth_estimator: str = ""
    """A depth model for the gate (entry-point group retake.depth_estimators); empty = none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the backend: its constructor's keywords."""


@dataclass(frozen=True)
class TakesConfig:
    """How videos are generated."""

    backend: str = "composite"
    seed: int = 42
    seeds: tuple[int, ...] = ()
    """Several takes per variant, one per seed; empty = one, of `seed`."""
    frames: Annotated[int, Within(0)] = 0
    """0 = the whole episode."""
    start: Annotated[int, Within(0)] = 0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VerdictsConfig:
    """How takes are judged."""

    enabled: bool = True
    reroll: Annotated[int, Within(0)] = 0
    """Further attempts for a take that fails."""


@dataclass(frozen=True)
class RunConfig:
    """One run of the whole arrow."""

    cameras: tuple[str, ...] = ()
    """Whose skeletons, variants and takes are made, of one world each; empty = every camera of the episode."""
    capture: CaptureConfig = CaptureConfig()
    check: CheckConfig = CheckConfig()
    skeleton: SkeletonConfig = SkeletonConfig()
    variants: VariantsConfig = VariantsConfig()
    takes: TakesConfig = TakesConfig()
    verdicts: VerdictsConfig = VerdictsConfig()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON of all values."""
        return encode(self)


def config_path(*parts: str) -> Path:
    """A file or folder of Retake's `config/` tree, in the checkout (also inside Kit) or in the installed wheel."""
    installed = Path(__file__).parent / "_config"
    root = installed if installed.is_dir() else Path(__file__).resolve().parents[4] / "config"
    return root.joinpath(*parts)


def load_yaml(path: Path) -> Any:
    """YAML of a file. Raises InputError naming the file."""
    try:
        # The C parser where PyYAML has it: ten times faster, and the world catalogue is read by every run.
        return yaml.load(Path(path).read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; expected a YAML file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not readable YAML: {error}") from error


def known_mapping(value: Any, path: Path, what: str, keys: Sequence[str]) -> dict[str, Any]:
    """A part of a file as a mapping with no other keys. Raises InputError naming the file, `what` and the valid keys."""
    if not isinstance(value, dict):
        raise InputError(f"{path}: {what} must be a mapping with the keys {', '.join(keys)}; found {value!r}")
    for key in value:
        if key not in keys:
            raise InputError(f"{path}: {what}: " + unknown_name("key", str(key), keys))
    return value


def load_config(path: Path | None = None, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Defaults, then the user's YAML, then `section.key=value` overrides (values are YAML, too)."""
    config = RunConfig() if path is None else merged(RunConfig(), load_yaml(path) or {}, str(path))
    for item in overrides:
        config = set_value(config, item)
    return config


def whole_paths(config: RunConfig) -> RunConfig:
    """The configuration with the user's files named from the root, `~` included: a run is continued from any folder."""
    capture, overrides = config.capture, dict(config.capture.overrides)
    if isinstance(file := overrides.get("motion_file"), str):
        overrides["motion_file"] = _whole(file)
    capture = replace(capture, stage=_whole(capture.stage), robot=_whole(capture.robot), overrides=overrides)
    catalogue = tuple(_whole(file) for file in config.variants.catalogue)
    return replace(config, capture=capture, variants=replace(config.variants, catalogue=catalogue))


def _whole(file: str) -> str:
    return str(Path(os.path.expanduser(file)).resolve()) if file and "://" not in file else file


def set_value(config: RunConfig, item: str) -> RunConfig:
    """The configuration with one setting changed: `section.key=value`. Raises InputError saying what is wrong with it."""
    key, equals, text = item.partition("=")
    if not equals:
        raise InputError(f"--set {item!r}: expected section.key=value, for example takes.seed=7")
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {item!r}: {text!r} is not a YAML value: {error}") from error
    parts: list[str] = key.strip().split(".")
    holder: Any = config
    for depth, part in enumerate(parts):
        if isinstance(holder, Mapping):  # a mapping of free names: the one named changes, the others stay
            value, parts = _replace_in(holder, parts[depth:], value), parts[:depth]
            break
        holder = getattr(holder, part, None)
    for part in reversed(parts):
        value = {part: value}
    return merged(config, value, f"--set {item}")


def _replace_in(mapping: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with the value at a path."""
    inner = mapping.get(path[0])
    if len(path) > 1:
        value = _replace_in(inner if isinstance(inner, Mapping) else {}, path[1:], value)
    return {**mapping, path[0]: value}
