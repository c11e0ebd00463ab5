# SPDX-License-Identifier: Apache-2.0
"""Objects in a control video: Retake's own glyph, for models that were tuned to read it.

Not part of OSCAR's convention: a model that never saw the glyph is outside its training distribution. Per movable object:
the outline of its box as the camera sees it (hidden parts too: the skeleton has no occlusion either), a dot at the box's
centre, and a line from the centre to the middle of its +Z face, so that a turn shows. The colours are none of the skeleton's.
`retake export --object-control`, `retake tune` and the takes of tuned models all draw it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import cv2
import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.lens import Lens, lens_of
from retake.core.skeleton import convention as c
from retake.core.skeleton.strokes import project

VERSION: Final = "retake.object-control/1"
"""Of the drawing below. A control video that was drawn otherwise is not mixed with this one."""
GLYPH: Final = "box outline 3 px, centre dot of radius 4 px, line from the centre to the middle of the +Z face"
OBJECT_RGB: Final[tuple[c.RGB, ...]] = ((255, 0, 255), (0, 255, 255), (255, 128, 0), (255, 255, 255))
"""By the object's place in the episode, again from the start after the last."""
OUTLINE_PX: Final = 3
CENTRE_RADIUS_PX: Final = 4


@dataclass(frozen=True)
class ObjectTrack:
    """One object over T frames: poses of its frame in the world, and its box in that frame, metres."""

    T_world_object: Float64[np.ndarray, "T 4 4"]
    size_m: Float64[np.ndarray, "3"]
    center_m: Float64[np.ndarray, "3"]


def object_tracks(arrays: Mapping[str, Any]) -> tuple[ObjectTrack, ...]:
    """The movable objects of a physics.npz (export.physics), in the episode's order."""
    return tuple(
        ObjectTrack(arrays["T_world_object"][:, o], arrays["object_sizes_m"][o], arrays["object_centers_m"][o])
        for o in np.flatnonzero(arrays["object_movable"])
    )


def draw_control(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]], arrays: Mapping[str, Any]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames (RGB, at the camera's size) with the glyphs of a physics.npz of one camera on top; frames are copied."""
    lens = None
    if "camera_lens_model" in arrays:
        lens = lens_of(str(arrays["camera_lens_model"]), arrays["camera_distortion"])
    return draw_objects(frames, list(object_tracks(arrays)), arrays["camera_intrinsic"], arrays["T_camera_world"], lens)


def control_record(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What is stated beside a control video with the glyphs of a physics.npz: version, glyph, each object's colour (RGB)."""
    names = [str(arrays["object_names"][o]) for o in np.flatnonzero(arrays["object_movable"])]
    objects = [{"name": name, "rgb": list(OBJECT_RGB[k % len(OBJECT_RGB)])} for k, name in enumerate(names)]
    return {"version": VERSION, "glyph": GLYPH, "objects": objects}


def glyph_points(
    track: ObjectTrack,
    K: Float64[np.ndarray, "T 3 3"],
    T_camera_world: Float64[np.ndarray, "T 4 4"],
    lens: Lens | None = None,
) -> Float64[np.ndarray, "T 10 2"]:
    """Image-index pixels of the box's eight corners, its centre, and the middle of its +Z face; NaN behind the camera."""
    signs = np.array(list(product((-0.5, 0.5), repeat=3)))
    local = np.vstack([signs, np.zeros((1, 3)), [[0, 0, 0.5]]]) * track.size_m + track.center_m
    world = np.einsum("tij,nj->tni", track.T_world_object[:, :3, :3], local) + track.T_world_object[:, None, :3, 3]
    depth = np.einsum("tj,tnj->tn", T_camera_world[:, 2, :3], world) + T_camera_world[:, 2, 3][:, None]
    points = project(world, K, T_camera_world, lens)
    return np.where((depth > c.NEAREST_DEPTH_M)[..., None], points, np.nan)


def draw_objects(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    tracks: list[ObjectTrack],
    K: Float64[np.ndarray, "T 3 3"],
    T_camera_world: Float64[np.ndarray, "T 4 4"],
    lens: Lens | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames (RGB) with every object's glyph on top; frames are copied. An object partly behind the camera is left out."""
    points = [glyph_points(track, K, T_camera_world, lens) for track in tracks]
    for index, frame in enumerate(frames):
        canvas = np.ascontiguousarray(frame).copy()
        for number, pixels in enumerate(points):
            if np.isfinite(pixels[index]).all():
                _draw(canvas, pixels[index], OBJECT_RGB[number % len(OBJECT_RGB)])
        yield canvas


def _draw(canvas: UInt8[np.ndarray, "H W 3"], points: Float64[np.ndarray, "10 2"], colour: c.RGB) -> None:
    pixels = np.rint(np.clip(points, -c.PIXEL_LIMIT, c.PIXEL_LIMIT)).astype(np.int32)
    cv2.polylines(canvas, [cv2.convexHull(pixels[:8])], isClosed=True, color=colour, thickness=OUTLINE_PX)
    centre, top = (tuple(int(v) for v in pixels[i]) for i in (8, 9))
    cv2.line(canvas, centre, top, colour, OUTLINE_PX)
    cv2.circle(canvas, centre, CENTRE_RADIUS_PX, colour, -1)
