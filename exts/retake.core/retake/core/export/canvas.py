# SPDX-License-Identifier: Apache-2.0
"""All cameras of a world on one picture, in OSCAR's layout: pairs that teach a video model to keep its views consistent.

The camera on the hand is on top at its own size, the others below it at half of that, two in a row, as the public DROID
recipe stacks them. Skeleton and pictures are placed alike, and so are the object masks of physics.npz. Objects in the control
video (`object_control`) are drawn through each camera at its own size, as its skeleton is, and then placed.

<subset>/<episode>/{rgb.mp4, gripper_scenario.mp4, caption.pickle, caption.json, episode_meta.npz}
                   + canvas.json, cameras/<name>.npz, physics.npz, robot.urdf, provenance.json

episode_meta.npz, and K and poses of physics.npz, are those of the camera on top; cameras/<name>.npz has every camera's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Bool, UInt8
from retake.core.episode import open_episode
from retake.core.episode.mounts import mount_of
from retake.core.errors import ExportError
from retake.core.export.collect import IMAGE
from retake.core.export.oscar import OscarWriter, end_sample, safe_name, window_of
from retake.core.export.physics import physics_arrays, unpack_masks, write_physics
from retake.core.export.records import DatasetEpisode, Schema
from retake.core.files import write_json
from retake.core.oscar_episode import CANVAS, oscar_view, write_oscar, write_oscar_meta
from retake.core.skeleton.objects import draw_control

CAMERAS = "cameras"
SCHEMA = "retake.canvas/1"
FORMAT = "oscar-canvas"


@dataclass(frozen=True)
class Tile:
    """Where a camera's picture lies on the canvas, px."""

    camera: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Canvas:
    """Places of all cameras; what no tile covers is black."""

    size: tuple[int, int]
    """(width, height), even as 4:2:0 needs them."""
    tiles: tuple[Tile, ...]

    def place(
        self, pictures: Mapping[str, UInt8[np.ndarray, "h w *C"]], interpolation: int = cv2.INTER_AREA
    ) -> UInt8[np.ndarray, "H W *C"]:
        """One picture per camera, resized into its tile."""
        first = pictures[self.tiles[0].camera]
        out = np.zeros((self.size[1], self.size[0], *first.shape[2:]), np.uint8)
        for tile in self.tiles:
            picture = pictures[tile.camera]
            if picture.shape[:2] != (tile.height, tile.width):
                picture = cv2.resize(picture, (tile.width, tile.height), interpolation=interpolation)
            out[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = picture
        return out


def arrange(sizes: Mapping[str, tuple[int, int]], top: str) -> Canvas:
    """`top` at its own (width, height), the others below in cells of half of it, two in a row, their aspect kept.

    Raises ExportError for fewer than two cameras.
    """
    if len(sizes) < 2:
        raise ExportError(
            f"{FORMAT} shows several cameras on one picture, and here is {', '.join(sizes) or 'none'} alone; "
            "export with --format oscar, or capture and dress more cameras"
        )
    width, height = sizes[top]
    cell = (width // 2, height // 2)
    tiles = [Tile(top, 0, 0, width, height)]
    for index, name in enumerate(name for name in sizes if name != top):
        w, h = sizes[name]
        scale = min(cell[0] / w, cell[1] / h)
        w, h = max(1, round(w * scale)), max(1, round(h * scale))
        x, y = (index % 2) * cell[0], height + (index // 2) * cell[1]
        tiles.append(Tile(name, x + (cell[0] - w) // 2, y + (cell[1] - h) // 2, w, h))
    rows = len(sizes) // 2
    return Canvas((width + width % 2, (height + rows * cell[1] + 1) // 2 * 2), tuple(tiles))


def schema_sizes(schema: Schema) -> tuple[dict[str, tuple[int, int]], str]:
    """Sizes of a dataset's cameras and the first one's name: what can be asked of `arrange` before anything is opened."""
    sizes = {key.removeprefix(IMAGE): size for key, size in schema.cameras.items()}
    return sizes, next(iter(sizes), "")


class OscarCanvasWriter(OscarWriter):
    """One sample per world and window instead of one per camera."""

    format = FORMAT

    def samples(self, episode: DatasetEpisode, folder: Path, offset: int, length: int) -> Iterator[dict[str, Any]]:
        """Write the canvas of a window; yields its entry."""
        names = [camera for camera, _ in episode.extra["videos"]]
        source = open_episode(episode.extra["episode"])
        hand = next((n for n in names if mount_of(source, n).kind == "hand"), names[0])
        canvas = arrange({n: source.header.camera(n).size for n in names}, hand)
        start = episode.extra["start"] + offset
        part = self.part()
        views = {n: oscar_view(source, n, start=start, length=length) for n in names}
        truths = {n: physics_arrays(source, n, start, length) for n in names}
        controls = {
            n: draw_control(v.skeleton, truths[n]) if self.object_control else v.skeleton for n, v in views.items()
        }
        write_oscar(
            part,
            views[hand].arrays,
            _joined(canvas, {n: window_of(episode.frames(IMAGE + n), offset, length) for n in names}),
            _joined(canvas, controls),
            size=canvas.size,
            length=length,
            fps=source.header.fps,
            caption=str(episode.provenance.get("prompt") or episode.task),
            said={"cameras": names, "motion_source": source.header.motion_source},
        )
        write_json(
            part / CANVAS,
            {"schema": SCHEMA, "size": list(canvas.size), "tiles": [asdict(tile) for tile in canvas.tiles]},
        )
        for name, view in views.items():
            write_oscar_meta(part / CAMERAS / f"{safe_name(name)}.npz", view.arrays)
        said = self.said(truths[hand])
        write_physics(part / "physics.npz", canvas_physics(canvas, truths))
        end_sample(part, self.staging.dataset / folder, source, episode, start, length, ",".join(names), said)
        yield {"sample": folder.as_posix(), "camera": ",".join(names), "offset": offset, "length": length}


def canvas_physics(canvas: Canvas, truths: Mapping[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """`physics_arrays` of the camera on top with the masks of all cameras where the canvas shows them.

    `truths`: every camera's own. `canvas_cameras` (N,) names them. Without masks where one recorded no instance ids.
    """
    arrays = dict(truths[canvas.tiles[0].camera])
    arrays["canvas_cameras"] = np.array([tile.camera for tile in canvas.tiles], dtype=np.str_)
    packed = arrays.pop("object_masks", None)
    arrays.pop("mask_width", None)
    if packed is None or not all("object_masks" in truths[tile.camera] for tile in canvas.tiles):
        return arrays
    masks: dict[str, Bool[np.ndarray, "T O H W"]] = {t.camera: unpack_masks(truths[t.camera]) for t in canvas.tiles}
    frames, objects = packed.shape[:2]
    out = np.zeros((frames, objects, canvas.size[1], -(-canvas.size[0] // 8)), np.uint8)
    for k in range(frames):
        for o in range(objects):
            placed = canvas.place({c: m[k, o].astype(np.uint8) for c, m in masks.items()}, cv2.INTER_NEAREST)
            out[k, o] = np.packbits(placed.astype(bool), axis=-1)
    return {**arrays, "object_masks": out, "mask_width": np.array(canvas.size[0], np.int64)}


def _joined(
    canvas: Canvas, streams: Mapping[str, Iterable[UInt8[np.ndarray, "h w 3"]]]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of all cameras, side by side in time."""
    for pictures in zip(*streams.values(), strict=True):
        yield canvas.place(dict(zip(streams, pictures, strict=True)))
