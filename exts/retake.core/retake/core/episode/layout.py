# SPDX-License-Identifier: Apache-2.0
"""The Episode's bytes (docs/episode.md): which file holds what, and how images become lossless files.

episode.json        the header, plus the numpy dtypes of the two binary files
state.bin           one fixed-size record per frame
physics.bin         object poses at physics rate
frames.jsonl        the commit log: one line per complete frame, hash-chained
complete.json       written last: frame count and content hash
cameras/<name>/{rgb,normals,instances}/%06d.png, cameras/<name>/depth/%06d.tiff
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.camera import Camera
from retake.core.codec import Record, decode, encode
from retake.core.episode.records import (
    LENS_SCHEMA,
    SCHEMA,
    CameraFrame,
    CameraSpec,
    Contact,
    EpisodeHeader,
    Instance,
    ObjectSpec,
)
from retake.core.errors import EpisodeError
from retake.core.lens import Lens
from retake.core.robot import RobotSpec

HEADER, STATE, PHYSICS, LOG, COMPLETE = "episode.json", "state.bin", "physics.bin", "frames.jsonl", "complete.json"
SUFFIX = {"rgb": ".png", "depth": ".tiff", "normals": ".png", "instances": ".png"}
# LZW + floating-point predictor: a 640x480 depth frame takes half the time of deflate and half the bytes of raw.
_TIFF = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 3]


def image_path(camera: str, channel: str, index: int) -> str:
    """Path of one image inside the episode folder."""
    return f"cameras/{camera}/{channel}/{index:06d}{SUFFIX[channel]}"


def state_dtype(header: EpisodeHeader) -> np.dtype[Any]:
    """The record of state.bin: little-endian float64 throughout, one field per quantity (docs/episode.md)."""
    fields: list[Any] = [("index", "<i8"), ("time_s", "<f8")]
    for robot in header.robots:
        dofs = len(robot.dof_names)
        fields.append((f"robot/{robot.name}/joint_position", "<f8", (dofs,)))
        fields += [(f"robot/{robot.name}/joint_{c}", "<f8", (dofs,)) for c in header.joint_channels]
        fields.append((f"robot/{robot.name}/T_world_link", "<f8", (len(robot.links), 4, 4)))
        fields.append((f"robot/{robot.name}/gripper_openness", "<f8", (len(robot.grippers),)))
    fields.append(("T_world_object", "<f8", (len(header.objects), 4, 4)))
    for camera in header.cameras:
        fields.append((f"camera/{camera.name}/K", "<f8", (3, 3)))
        fields.append((f"camera/{camera.name}/T_camera_world", "<f8", (4, 4)))
    return np.dtype(fields)


def physics_dtype(header: EpisodeHeader) -> np.dtype[Any]:
    """The record of physics.bin."""
    return np.dtype([("time_s", "<f8"), ("T_world_object", "<f8", (len(header.objects), 4, 4))])


def _descr(dtype: np.dtype[Any]) -> list[list[Any]]:
    return [[name, base.base.str, list(base.shape)] for name, base in ((n, dtype[n]) for n in dtype.names or ())]


def header_to_json(header: EpisodeHeader) -> dict[str, Any]:
    """The content of episode.json."""
    return {
        "schema": header.schema,
        "task": header.task,
        "motion_source": header.motion_source,
        "fps": header.fps,
        "physics_dt_s": header.physics_dt_s,
        "simulator": header.simulator,
        "simulator_version": header.simulator_version,
        "stage_sha256": header.stage_sha256,
        "seed": header.seed,
        "units": {"length": "m", "angle": "rad", "mass": "kg", "time": "s", "up_axis": "Z", "camera_axes": "opencv"},
        "robots": [robot.to_json() for robot in header.robots],
        "joint_channels": list(header.joint_channels),
        "cameras": [encode(c) for c in header.cameras],
        "objects": [encode(o) for o in header.objects],
        "instances": [encode(i) for i in header.instances],
        "settings": header.settings,
        "state_dtype": _descr(state_dtype(header)),
        "physics_dtype": _descr(physics_dtype(header)),
    }


def header_from_json(data: Any, where: Path) -> EpisodeHeader:
    """The inverse of `header_to_json`. Raises EpisodeError naming `where` and what is wrong."""
    if not isinstance(data, dict) or "schema" not in data:
        raise EpisodeError(f"{where} is no episode header: expected a JSON object with 'schema': {SCHEMA!r}")
    if data["schema"] not in (SCHEMA, LENS_SCHEMA):
        raise EpisodeError(
            f"{where} has schema {data['schema']!r}; this version of Retake reads {SCHEMA!r} and {LENS_SCHEMA!r}"
        )
    try:
        header = EpisodeHeader(
            task=data["task"],
            fps=data["fps"],
            physics_dt_s=data["physics_dt_s"],
            robots=tuple(
                RobotSpec.from_json(robot, f"{where}: robots[{i}]", error=EpisodeError)
                for i, robot in enumerate(data["robots"])
            ),
            cameras=_records(CameraSpec, {"cameras": map(_with_lens, data["cameras"])}, "cameras", where),
            objects=_records(ObjectSpec, data, "objects", where),
            instances=_records(Instance, data, "instances", where),
            simulator=data["simulator"],
            simulator_version=data["simulator_version"],
            stage_sha256=data["stage_sha256"],
            seed=data["seed"],
            motion_source=data["motion_source"],
            joint_channels=tuple(data["joint_channels"]),
            settings=data["settings"],
        )
    except EpisodeError:
        raise
    except Exception as error:
        raise EpisodeError(
            f"{where} is damaged: {type(error).__name__}: {error}; expected the fields of {SCHEMA}"
        ) from error
    return header


def _with_lens(camera: Any) -> Any:
    """A camera's JSON with the record of its lens: a pinhole without coefficients is none."""
    return {**camera, "lens": Lens.from_json(camera.get("lens"))}


def _records(kind: type[Record], data: Any, name: str, where: Path) -> tuple[Record, ...]:
    return tuple(
        decode(kind, item, f"{where}: {name}[{i}]", error=EpisodeError, ignore_unknown=True)
        for i, item in enumerate(data[name])
    )


def encode_image(channel: str, image: np.ndarray) -> bytes:
    """One image as lossless file bytes (PNG; depth as float32 TIFF)."""
    if channel == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    elif channel == "normals":
        # PNG holds unsigned 16 bit: offset 32768, channels stored as R=x, G=y, B=z.
        image = (image.astype(np.int32) + 32768).astype(np.uint16)[..., ::-1]
    ok, data = cv2.imencode(SUFFIX[channel], image, _TIFF if channel == "depth" else [])
    if not ok:
        raise EpisodeError(f"could not encode a {channel} image of shape {image.shape} {image.dtype}")
    return data.tobytes()


def decode_image(channel: str, data: bytes, where: Path) -> np.ndarray:
    """The inverse of `encode_image`. Raises EpisodeError when the bytes are no image."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise EpisodeError(f"{where} is no readable {channel} image")
    if channel == "rgb":
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if channel == "normals":
        return (image[..., ::-1].astype(np.int32) - 32768).astype(np.int16)
    return image


def images_of(frame: CameraFrame, spec: CameraSpec) -> dict[str, np.ndarray]:
    """Channel name to array, for the channels this camera records."""
    every = {"rgb": frame.rgb, "depth": frame.depth_m, "normals": frame.normals, "instances": frame.instance_ids}
    return {channel: image for channel in spec.channels if (image := every[channel]) is not None}


def contact_to_json(c: Contact) -> list[Any]:
    """A contact as a list in the order of docs/episode.md."""
    vectors = [[float(x) for x in v] for v in (c.position_m, c.normal, c.force_n)]
    return [c.body_a, c.body_b, *vectors, float(c.penetration_m)]


def contact_from_json(x: list[Any]) -> Contact:
    """The inverse of `contact_to_json`."""
    return Contact(x[0], x[1], tuple(x[2]), tuple(x[3]), tuple(x[4]), x[5])


def camera_of(record: np.void, spec: CameraSpec) -> Camera:
    """The camera at one frame from its state record and its lens."""
    K, T = record[f"camera/{spec.name}/K"].copy(), record[f"camera/{spec.name}/T_camera_world"].copy()
    return Camera(K, T, spec.size, spec.lens)
