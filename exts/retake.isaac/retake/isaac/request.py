# SPDX-License-Identifier: Apache-2.0
"""What to record, and where a recording stands: the two records that panel, headless runs and scripts share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from retake.core.camera import require_size
from retake.core.capture import WhenFull
from retake.core.codec import fields_of
from retake.core.episode import CHANNELS
from retake.core.errors import InputError, unknown_name
from retake.core.files import user_path
from retake.isaac.camera_text import camera_from_mapping, parse_camera, parse_channels
from retake.isaac.stage_reader import CameraChoice

Mode = Literal["auto", "live", "stepped"]
Contacts = Literal["auto", "on", "off"]
Antialiasing = Literal["as-is", "dlss-quality", "dlaa"]
SETTINGS = "/exts/retake.isaac"
"""Every option is a setting below this path; the panel and the command line set the same ones."""


@dataclass(frozen=True)
class CaptureRequest:
    """One recording. The defaults suit a stage with one robot and one camera."""

    output: str = ""
    """Episode folder to create; must be empty or absent."""
    robots: tuple[str, ...] = ()
    """Robot prim paths; empty = every articulation."""
    cameras: tuple[str, ...] = ()
    """Cameras, each as PRIM_PATH[@WIDTHxHEIGHT][:rgb+depth+…] (`camera_text`); empty = the first camera."""
    objects: tuple[str, ...] = ()
    """Object prim paths; empty = every rigid body that is no robot."""
    robot_file: str = ""
    """YAML that declares end effectors; empty = the one beside the stage, else what is found."""
    task: str = ""
    fps: float = 15.0
    """Frames per second of the episode; must divide the physics rate."""
    width: int = 640
    height: int = 480
    """Image size of every camera that names none of its own."""
    channels: tuple[str, ...] = CHANNELS
    """Channels of every camera that names none of its own; rgb always."""
    frames: int = 0
    """Stop after so many frames; 0 = until stopped."""
    mode: Mode = "auto"
    """live: beside the running timeline; stepped: the timeline waits for each frame; auto: live where it is exact."""
    rt_subframes: int = 1
    """Renders per frame in stepped mode (temporal effects settle)."""
    contacts: Contacts = "auto"
    """auto: contact reports of the objects and gripper links; on: of every link, too; off: none."""
    antialiasing: Antialiasing = "as-is"
    """as-is: the application's; dlss-quality, dlaa: set while recording, and put back."""
    undistort: bool = False
    """Record the picture of a calibrated lens as a pinhole sees it; the change is in the episode's settings."""
    queue_frames: int = 8
    when_full: WhenFull = "wait"
    seed: int = 0

    def camera_choices(self) -> tuple[CameraChoice, ...]:
        """The chosen cameras at their sizes; an empty path means the stage's first camera. Raises InputError."""
        size, channels = (self.width, self.height), parse_channels(self.channels)
        return tuple(parse_camera(text, size, channels) for text in self.cameras or ("",))

    def checked(self) -> CaptureRequest:
        """This request with its paths as the system knows them, if its numbers make sense and its folder can take an episode.
        Raises InputError naming the setting."""
        if not self.output.strip():
            raise InputError(f"{SETTINGS}/output is empty; give the folder the episode is written to")
        self.check_values()
        folder = user_path(self.output)
        try:
            used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            raise InputError(f"{folder} cannot be used ({error.strerror}); choose another output folder") from error
        if used:
            raise InputError(f"{folder} is not an empty folder; an episode needs a folder of its own")
        robot_file = self.robot_file.strip()
        return replace(self, output=str(folder), robot_file=str(user_path(robot_file)) if robot_file else "")

    def check_values(self) -> None:
        """Whether numbers and words make sense, wherever the episode goes. Raises InputError naming the setting."""
        if not self.fps > 0 or min(self.width, self.height) < 1 or self.frames < 0 or self.queue_frames < 1:
            raise InputError(
                f"fps {self.fps}, size {self.width}x{self.height} and queue_frames {self.queue_frames} must be positive, "
                f"frames {self.frames} not negative"
            )
        require_size((self.width, self.height), f"{SETTINGS}/width and height")
        if self.rt_subframes < 1:
            raise InputError(f"{SETTINGS}/rt_subframes is {self.rt_subframes}; at least one render per frame is needed")
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise InputError(unknown_name(f"{SETTINGS}/{name}", str(getattr(self, name)), valid))
        self.camera_choices()


CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(hint) for name, hint in fields_of(CaptureRequest).items() if get_origin(hint) is Literal
}
"""Settings with a few valid words."""


def request_from(values: Mapping[str, Any]) -> CaptureRequest:
    """A request from loose values (settings, YAML, writer arguments): text becomes numbers and comma-separated lists.

    Raises InputError naming an unknown name or a value of the wrong kind.
    """
    fields = fields_of(CaptureRequest)
    out: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(unknown_name("capture setting", name, fields))
        out[name] = convert(name, value, getattr(CaptureRequest, name))
    return CaptureRequest(**out)


def check_writable(folder: Path) -> None:
    """Whether an episode can be written there; all is left as it was found. Raises InputError naming the folder and the reason,
    before anything starts."""
    new = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".retake-probe"
        probe.write_bytes(b"0")
        os.remove(probe)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another output folder") from error
    finally:
        with contextlib.suppress(OSError):  # somebody else uses it meanwhile
            for place in new:
                place.rmdir()


TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def convert(name: str, value: Any, default: Any) -> Any:
    """A loose value as the kind of its default. Raises InputError naming the setting."""
    try:
        if isinstance(default, tuple):
            items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, Mapping) else value
            texts = [camera_from_mapping(item) if isinstance(item, Mapping) else str(item).strip() for item in items]
            return tuple(text for text in texts if text)
        if isinstance(default, bool):
            word = str(value).strip().lower()
            if word not in (*TRUE, *FALSE):
                raise ValueError(value)
            return word in TRUE
        if name == "contacts" and str(value).strip().lower() in (*TRUE, *FALSE):  # as a switch: recordings of before
            return "on" if str(value).strip().lower() in TRUE else "off"
        return type(default)(value)
    except (TypeError, ValueError):
        needed = "true or false" if isinstance(default, bool) else f"a value like {default!r}"
        raise InputError(f"{SETTINGS}/{name} needs {needed}; found {value!r}") from None


class Phase(str, Enum):
    """Where a recording stands."""

    IDLE = "idle"
    WAITING = "waiting for Play"
    RECORDING = "recording"
    FINISHING = "finishing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class CaptureStatus:
    """A snapshot of a recording."""

    phase: Phase = Phase.IDLE
    message: str = ""
    """Why it ended or what it waits for; what to do about it."""
    output: str = ""
    frames: int = 0
    """Frames paired and handed to the writer."""
    written: int = 0
    dropped: int = 0
    """Never anything but 0: a frame that cannot be kept ends the recording with a message."""
    queued: int = 0
    bytes_written: int = 0
    waited_s: float = 0.0
    """Time the simulation was slowed down because the disk was slower."""
    lag_steps: int = 0
    callback_ms: tuple[float, float] = (0.0, 0.0)
    """Cost in the simulation's callbacks: median and 99th percentile, without `waited_s`."""
    notes: tuple[str, ...] = field(default=())

    @property
    def active(self) -> bool:
        """Whether it may still produce frames."""
        return self.phase in (Phase.WAITING, Phase.RECORDING, Phase.FINISHING)
