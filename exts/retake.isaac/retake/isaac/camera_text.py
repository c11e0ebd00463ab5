# SPDX-License-Identifier: Apache-2.0
"""One camera of a recording in a line of text, so that settings, YAML files and the panel can say size and channels of each.

/World/Camera                                the size and channels of the recording
/World/Camera@1280x720                       a size of its own
/World/Camera@1280x720:rgb+depth             and channels of its own (rgb always)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retake.core.camera import require_size
from retake.core.episode import CHANNELS
from retake.core.episode.records import Channel
from retake.core.errors import InputError, unknown_name
from retake.isaac.stage_reader import CameraChoice

TEXT = re.compile(r"(?P<path>[^@:]*)(?:@(?P<width>\d+)x(?P<height>\d+))?(?::(?P<channels>[a-z+ ]*))?")
ALL_MAPS = "structure-locked first frames and composite takes"
WITHOUT: dict[str, str] = {
    "depth": f"{ALL_MAPS}, multi-view and world-point verdicts",
    "normals": ALL_MAPS,
    "instances": f"{ALL_MAPS}, verdicts",
}
"""Channel -> what of the arrow cannot be done for a camera that does not record it. What stays: the skeleton, and takes
of the video model from first frames of your own."""


def camera_parts(text: str) -> tuple[str, tuple[int, int] | None, tuple[Channel, ...] | None]:
    """(prim path, size, channels) of a camera's text, None where it says nothing. Raises InputError naming what is wrong."""
    found = TEXT.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"camera {text!r} is not understood; expected PRIM_PATH, PRIM_PATH@WIDTHxHEIGHT or "
            "PRIM_PATH@WIDTHxHEIGHT:rgb+depth"
        )
    size = None if found["width"] is None else (int(found["width"]), int(found["height"]))
    if size is not None:
        require_size(size, f"camera {text!r}")
    channels = None if found["channels"] is None else parse_channels(found["channels"].split("+"))
    return found["path"].strip(), size, channels


def parse_camera(text: str, size: tuple[int, int], channels: Sequence[Channel]) -> CameraChoice:
    """A camera from its text; `size` and `channels` where it says none. Raises InputError naming what is wrong."""
    path, own_size, own_channels = camera_parts(text)
    return CameraChoice(path, own_size or size, channels=tuple(channels if own_channels is None else own_channels))


def parse_channels(names: Sequence[str]) -> tuple[Channel, ...]:
    """Channels in the episode's order, rgb always among them. Raises InputError naming the valid ones."""
    asked = [name.strip() for name in names if name.strip()]
    for name in asked:
        if name not in CHANNELS:
            raise InputError(unknown_name("channel", name, CHANNELS))
    return tuple(c for c in CHANNELS if c == "rgb" or c in asked)


def camera_text(path: str, size: tuple[int, int] | None = None, channels: Sequence[str] | None = None) -> str:
    """The inverse of `parse_camera`; what is None is left to the recording."""
    own = "" if size is None else f"@{size[0]}x{size[1]}"
    return f"{path}{own}{'' if channels is None else ':' + '+'.join(channels)}"


def camera_from_mapping(data: Mapping[str, Any]) -> str:
    """The text of a YAML mapping {path, size: [W, H], channels: […]}. Raises InputError naming an unknown key."""
    if unknown := set(data) - {"path", "size", "channels"}:
        raise InputError(unknown_name("camera key", sorted(map(str, unknown))[0], ("path", "size", "channels")))
    try:
        size = None if data.get("size") is None else (int(data["size"][0]), int(data["size"][1]))
        channels = None if data.get("channels") is None else parse_channels([str(c) for c in data["channels"]])
        return camera_text(str(data.get("path", "")), size, channels)
    except (TypeError, ValueError, IndexError, KeyError):
        raise InputError(
            f"camera {dict(data)!r} is not understood; expected path, size: [width, height], channels: [rgb, depth]"
        ) from None


def what_is_lost(cameras: Sequence[CameraChoice]) -> tuple[str, ...]:
    """One sentence per camera whose channels are fewer than the arrow uses."""
    out = []
    for camera in cameras:
        off = [channel for channel in CHANNELS if channel not in camera.channels]
        if off:
            what = "; ".join(f"without {channel}: no {WITHOUT[channel]}" for channel in off)
            out.append(f"camera {camera.prim_path or 'of the stage'} records no {', '.join(off)} ({what})")
    return tuple(out)
