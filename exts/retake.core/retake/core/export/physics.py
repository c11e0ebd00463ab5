# SPDX-License-Identifier: Apache-2.0
"""physics.npz: the simulator's truth beside a sample, for tuning what generated objects do after their release.

T frames of the window, O objects, S physics samples, C contacts, H×W pixels of the camera.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode
from retake.core.episode.events import object_events
from retake.core.files import atomic_path

SCHEMA = "retake.physics/1"
NEVER = -(2**31)
"""Frame number of something that did not happen (frames before the window are small negative numbers)."""


def physics_arrays(episode: Episode, camera: str | None, start: int, length: int) -> dict[str, np.ndarray]:
    """The arrays of physics.npz, plain dtypes (no pickle).

    source_episode_id () and window_start (): which frames of which episode this is, as in the sample's provenance;
    object_names (O,), object_sizes_m (O, 3), object_centers_m (O, 3), object_movable (O,);
    time_s (T,); T_world_object (T, O, 4, 4); T_camera_world (T, 4, 4) and camera_intrinsic (T, 3, 3);
    camera_lens_model and camera_distortion (D,) OpenCV's coefficients, where the picture is distorted;
    object_masks (T, O, H, ceil(W/8)) uint8, np.packbits along the width (where instance ids were recorded);
    contact_frame (C,), contact_bodies (C, 2) prim paths, contact_position_m / contact_normal / contact_force_n (C, 3),
    contact_penetration_m (C,); grasp_frame, release_frame, settled_frame (O,) int64 counted from the window's start,
    negative before it, NEVER where it did not happen;
    track_time_s (S,), track_T_world_object (S, O, 4, 4): poses at physics rate; release_sample (O,) int64: first track
    sample after the release frame, -1 where there is none.
    """
    header, window = episode.header, range(start, start + length)
    objects, time = header.objects, episode.time_s
    out: dict[str, Any] = {
        "schema": np.array(SCHEMA),
        "source_episode_id": np.array(episode.content_sha256),
        "fps": np.array(float(header.fps)),
        "physics_dt_s": np.array(float(header.physics_dt_s)),
        "window_start": np.array(start, np.int64),
        "object_names": np.array([o.name for o in objects], dtype=np.str_),
        "object_labels": np.array([o.label for o in objects], dtype=np.str_),
        "object_sizes_m": np.array([o.size_m for o in objects], np.float64).reshape(-1, 3),
        "object_centers_m": np.array([o.center_m for o in objects], np.float64).reshape(-1, 3),
        "object_movable": np.array([o.movable for o in objects], bool),
        "time_s": time[start : start + length],
        "T_world_object": episode.object_poses[start : start + length],
    }
    events = {event.object: event for event in object_events(episode)}
    for name in ("grasp", "release", "settled"):
        frames = [getattr(events[o.name], name) if o.name in events else None for o in objects]
        out[f"{name}_frame"] = np.array([NEVER if f is None else f - start for f in frames], np.int64)
    contacts = [(k, c) for k, frame in enumerate(window) for c in episode.contacts(frame)]
    out["contact_frame"] = np.array([k for k, _ in contacts], np.int64)
    out["contact_bodies"] = np.array([[c.body_a, c.body_b] for _, c in contacts], dtype=np.str_).reshape(-1, 2)
    for name in ("position_m", "normal", "force_n"):
        out[f"contact_{name}"] = np.array([getattr(c, name) for _, c in contacts], np.float64).reshape(-1, 3)
    out["contact_penetration_m"] = np.array([c.penetration_m for _, c in contacts], np.float64)
    samples = [s for frame in window if (s := episode.physics(frame)) is not None]
    out["track_time_s"] = np.concatenate([s.time_s for s in samples]) if samples else np.zeros(0)
    shape = (0, len(objects), 4, 4)
    out["track_T_world_object"] = np.concatenate([s.T_world_object for s in samples]) if samples else np.zeros(shape)
    release = []
    for k in out["release_frame"]:
        after = np.flatnonzero(out["track_time_s"] > time[start + k]) if 0 <= k < length else np.zeros(0, int)
        release.append(int(after[0]) if len(after) else -1)
    out["release_sample"] = np.array(release, np.int64)
    if camera is not None:
        K, T = episode.camera_matrices(camera)
        out["camera_intrinsic"], out["T_camera_world"] = K[start : start + length], T[start : start + length]
        if (lens := header.camera(camera).lens) is not None:
            out["camera_lens_model"], out["camera_distortion"] = np.array(lens.model), np.array(lens.coefficients)
        if "instances" in header.camera(camera).channels:
            out["object_masks"] = _masks(episode, camera, window)
            out["mask_width"] = np.array(header.camera(camera).size[0], np.int64)
    return out


def _masks(episode: Episode, camera: str, window: range) -> np.ndarray:
    """(T, O, H, ceil(W/8)) packed object masks."""
    ids = [[i.id for i in episode.header.instances if i.owner == f"object:{o.name}"] for o in episode.header.objects]
    width, height = episode.header.camera(camera).size
    out = np.zeros((len(window), len(ids), height, -(-width // 8)), np.uint8)
    for k, frame in enumerate(window):
        image = episode.image(camera, "instances", frame)
        for o, mine in enumerate(ids):
            out[k, o] = np.packbits(np.isin(image, mine), axis=-1)
    return out


def write_physics(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """physics.npz, compressed; the same arrays give the same bytes."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def unpack_masks(arrays: Any) -> np.ndarray:
    """(T, O, H, W) bool from the packed masks of a loaded physics.npz."""
    return np.unpackbits(arrays["object_masks"], axis=-1)[..., : int(arrays["mask_width"])].astype(bool)
