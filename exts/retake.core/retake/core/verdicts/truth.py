# SPDX-License-Identifier: Apache-2.0
"""What the simulator knows about every frame of a take, in the form the estimators need: contours and masks.

Only geometry is read (instance ids, poses, K): the simulator's colours are never opened, so a take cannot pass by
looking like the simulation. Coordinates are image-index pixels of the working image (`Truth.size`, at most
`working_width` wide): column x of the working image is at (x + 0.5) / scale − 0.5 of the recorded one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.episode import Episode, EpisodeHeader
from retake.core.episode.parts import RigidPart, rigid_parts
from retake.core.errors import VerdictError
from retake.core.lens import Lens

BINS = 8
"""Edge directions are quantised to BINS over half a turn; ±11° changes a squared projection by at most 4 %."""
REFERENCE_WIDTH = 640
MOST_PARTS = 254
"""Pictures of parts have 8 bits, and 0 means scenery."""
_NEXT = np.ones((3, 3), np.uint8)
"""A pixel and its neighbours."""
_BORDER_PX = 3
_POINTS_PER_PART = 90
"""Contour points kept per part and frame; more changes the score by less than its noise and costs time."""


@dataclass(frozen=True)
class Contour:
    """Contour points of all parts in one frame, sorted by part."""

    xy: Float32[np.ndarray, "N 2"]
    """Working image, image-index pixels."""
    bin: UInt8[np.ndarray, "N"]
    """Direction of the contour's normal, 0..BINS-1 over half a turn."""
    normal: Float32[np.ndarray, "N 2"]
    """Unit, out of the part."""
    part: UInt8[np.ndarray, "N"]
    silhouette: Bool[np.ndarray, "N"]
    """The other side is scenery (True) or another part (False)."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The simulator's geometry for the frames of one take."""

    parts: tuple[RigidPart, ...]
    fps: float
    static_camera: bool
    size: tuple[int, int]
    """(width, height) of the working image."""
    scale: float
    """Working pixels per recorded pixel."""
    px: float
    """Reported pixels per working pixel. Reported are pixels of the recorded image, or of one REFERENCE_WIDTH wide where
    that is wider: the same picture in twice the resolution is judged by the same figures and limits."""
    labels: UInt8[np.ndarray, "T H W"]
    """Working image: 0 scenery, 1 + index into `parts`."""
    contours: tuple[Contour, ...]
    centroid: Float64[np.ndarray, "T P 2"]
    """Mean pixel of each part's visible mask, working px; NaN where it is invisible."""
    area: Float64[np.ndarray, "T P"]
    """Visible area, working px²."""
    K: Float64[np.ndarray, "T 3 3"]
    """Intrinsics of the working image (corner convention)."""
    T_camera_world: Float64[np.ndarray, "T 4 4"]
    T_world_part: Float64[np.ndarray, "T P 4 4"]
    openness: Float64[np.ndarray, "T G"]
    start: int
    stills: tuple[str, ...]
    """Objects that cannot move (trays, say), when the camera stands still."""
    still_labels: UInt8[np.ndarray, "H W"]
    """Working image: 0, or 1 + index into `stills` where any frame shows it."""

    lens: Lens | None = None
    """Distortion of recorded and working image alike."""

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.labels)

    def ideal(self, t: int, points: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, "N 2"]:
        """Working pixels (index coordinates) of frame t as a pinhole of the same K would show them."""
        if self.lens is None:
            return points
        focal, centre = np.diag(self.K[t])[:2], self.K[t][:2, 2]
        return self.lens.undistort((points + 0.5 - centre) / focal) * focal + centre - 0.5

    def seen(self, t: int, points: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, "N 2"]:
        """The inverse of `ideal`: where the lens shows a pinhole's pixels; NaN stays NaN."""
        if self.lens is None:
            return points
        return self.lens.bend(self.K[t], points + 0.5) - 0.5

    @property
    def robot_parts(self) -> list[int]:
        """Indices of robot links."""
        return [i for i, part in enumerate(self.parts) if part.robot]

    @property
    def object_parts(self) -> list[int]:
        """Indices of objects."""
        return [i for i, part in enumerate(self.parts) if not part.robot]

    def is_still(self, part: int) -> bool:
        """Whether a part keeps its place: 3 mm and 2° in nine frames of ten, and never 15 mm (what settles at first)."""
        pose = self.T_world_part[:, part]
        moved = np.abs(pose - np.median(pose, axis=0))
        away, turned = moved[:, :3, 3].max(1), moved[:, :3, :3].max((1, 2))
        return bool(np.quantile(away, 0.9) < 3e-3 and away.max() < 0.015 and np.quantile(turned, 0.9) < 0.03)

    @property
    def robot_stands(self) -> bool:
        """Whether no link of any robot moves in these frames."""
        return bool(self.robot_parts) and all(self.is_still(part) for part in self.robot_parts)

    def stills_of(self, episode: Episode, camera: str, t: int) -> UInt8[np.ndarray, "H W"]:
        """Working image of frame t: 0, or 1 + index into `stills`."""
        _, table = _stills(episode.header)
        ids = renumbered(episode.image(camera, "instances", self.start + t), table)
        return cv2.resize(ids, self.size, interpolation=cv2.INTER_NEAREST)

    def others(self, t: int, part: int) -> Bool[np.ndarray, "H W"]:
        """Pixels of every other part at frame t: robots, and objects of whatever looks."""
        return (self.labels[t] > 0) & (self.labels[t] != part + 1)

    def robot_mask(self, t: int) -> Bool[np.ndarray, "H W"]:
        """Pixels of any robot link at frame t."""
        return _member(self.labels[t], [i + 1 for i in self.robot_parts])


def _member(labels: UInt8[np.ndarray, "H W"], wanted: list[int]) -> Bool[np.ndarray, "H W"]:
    table = np.zeros(256, bool)
    table[wanted] = True
    return table[labels]


def read_truth(episode: Episode, camera: str, start: int, frames: int, working_width: int = 320) -> Truth:
    """The geometry of `frames` frames from `start`. Cached: many takes of one episode share it.

    Raises VerdictError when the camera recorded no instance ids or the range leaves the episode.
    """
    spec = episode.header.camera(camera)
    if "instances" not in spec.channels:
        raise VerdictError(
            f"camera {camera!r} of {episode.path} recorded no instance ids; a take can be judged only against a camera "
            "that knows which pixel is robot and which is object"
        )
    if start < 0 or frames < 1 or start + frames > len(episode):
        raise VerdictError(
            f"frames {start}..{start + frames - 1} are outside the episode, which has frames 0..{len(episode) - 1}"
        )
    key = (episode.content_sha256 + episode.staging, camera, start, frames, working_width)
    with _LOCK:
        if key in _KNOWN:
            _KNOWN.move_to_end(key)
            return _KNOWN[key]
    truth = _read(episode, camera, start, frames, working_width)
    with _LOCK:
        _KNOWN[key] = truth
        while len(_KNOWN) > 4:
            _KNOWN.popitem(last=False)
    return truth


def working_robots(truth: Truth) -> set[str]:
    """Names of the robots of which something moves in these frames; a cabinet that stays shut is none."""
    return {part.robot for k, part in enumerate(truth.parts) if part.robot and not truth.is_still(k)}


_KNOWN: OrderedDict[tuple[str, str, int, int, int], Truth] = OrderedDict()
_LOCK = threading.Lock()


def forget() -> None:
    """Drop the cached geometry (benchmarks)."""
    with _LOCK:
        _KNOWN.clear()


def _read(episode: Episode, camera: str, start: int, frames: int, working_width: int) -> Truth:
    header, spec = episode.header, episode.header.camera(camera)
    scale = min(1.0, working_width / spec.size[0])
    size = (round(spec.size[0] * scale), round(spec.size[1] * scale))
    seen = (spec.size[0], spec.size[1])
    if seen[0] > REFERENCE_WIDTH:
        seen = (REFERENCE_WIDTH, round(spec.size[1] * REFERENCE_WIDTH / spec.size[0]))
    seen_scale = size[0] / seen[0]
    parts, table, poses = rigid_parts(episode)
    span = slice(start, start + frames)
    count = len(parts)
    stills, still_table = _stills(header)
    if max(count, len(stills)) > MOST_PARTS:
        raise VerdictError(
            f"the episode has {count} parts that move and {len(stills)} objects that cannot; a verdict tells {MOST_PARTS} of "
            "either apart: record with fewer objects (what no robot touches can be scenery)"
        )
    labels = np.zeros((frames, size[1], size[0]), np.uint8)
    centroid, area = np.full((frames, count, 2), np.nan), np.zeros((frames, count))
    contours = []
    still = np.zeros((size[1], size[0]), np.uint8)
    for t in range(frames):
        ids = episode.image(camera, "instances", start + t)
        if stills and t % 8 == 0:
            standing = renumbered(ids, still_table)
            still = np.maximum(still, cv2.resize(standing, size, interpolation=cv2.INTER_NEAREST))
        full = renumbered(ids, table)
        if seen != spec.size:
            full = cv2.resize(full, seen, interpolation=cv2.INTER_NEAREST_EXACT)
        labels[t] = cv2.resize(full, size, interpolation=cv2.INTER_NEAREST) if seen_scale < 1 else full
        contours.append(_contour(full, count, seen_scale, centroid[t], area[t]))
    K, T_camera_world = episode.camera_matrices(camera)
    K = np.diag([size[0] / spec.size[0], size[1] / spec.size[1], 1.0]) @ K[span]
    openings = [episode.gripper_openness(r.name)[span] for r in header.robots]
    openness = np.concatenate([np.zeros((frames, 0)), *openings], 1)
    return Truth(
        parts, float(header.fps), is_static(T_camera_world[span]), size, scale, 1 / seen_scale, labels,
        tuple(contours), centroid, area, K, T_camera_world[span], poses[span], openness, start,
        stills, still, spec.lens,
    )  # fmt: skip


def renumbered(ids: np.ndarray, table: UInt8[np.ndarray, "N"]) -> UInt8[np.ndarray, "H W"]:
    """`table[ids]`; several times as fast where the ids are small, as they nearly always are."""
    return cv2.LUT(ids.astype(np.uint8), table[:256]) if ids.max(initial=0) < 256 else table[ids]


def is_static(T: Float64[np.ndarray, "T 4 4"]) -> bool:
    """By the recorded poses, not by the header's word: 0.1 mm is far below a pixel."""
    return bool(np.abs(T - T[:1]).max() < 1e-4)


def _stills(header: EpisodeHeader) -> tuple[tuple[str, ...], UInt8[np.ndarray, "N"]]:
    """Objects that cannot move, and the table from instance id to 1 + their index (right for MOST_PARTS of them)."""
    names, table = [], np.zeros(65536, np.uint16)
    for spec in header.objects:
        ids = [i.id for i in header.instances if i.owner == f"object:{spec.name}"]
        if ids and not spec.movable:
            names.append(spec.name)
            table[ids] = len(names)
    return tuple(names), table.astype(np.uint8)


def _contour(
    labels: UInt8[np.ndarray, "H W"],
    count: int,
    scale: float,
    centroid: Float64[np.ndarray, "P 2"],
    area: Float64[np.ndarray, "P"],
) -> Contour:
    """Contours of one label image at the size reported in; fills the centroid and area rows of its frame."""
    height, width = labels.shape
    found: list[tuple[np.ndarray, np.ndarray]] = []
    # Everything but the scenery lies in a window; parts are looked for in it alone.
    left, top, wide, high = cv2.boundingRect(labels)
    window = np.ascontiguousarray(labels[top : top + high, left : left + wide])
    present = cv2.calcHist([window], [0], None, [count], [1, count + 1]) if window.size else np.zeros(0)
    for part in np.flatnonzero(present):
        number = int(part) + 1
        x, y, across, down = cv2.boundingRect(cv2.inRange(window, number, number))  # type: ignore[call-overload]
        y0, y1 = max(top + y - 4, 0), min(top + y + down + 4, height)
        x0, x1 = max(left + x - 4, 0), min(left + x + across + 4, width)
        mask = cv2.inRange(labels[y0:y1, x0:x1], number, number) & 1  # type: ignore[call-overload]
        moments = cv2.moments(mask, binaryImage=True)
        pixels = moments["m00"]
        area[part] = pixels * scale**2
        centroid[part] = (
            (moments["m10"] / pixels + x0 + 0.5) * scale - 0.5,
            (moments["m01"] / pixels + y0 + 0.5) * scale - 0.5,
        )
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
        gx = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
        gy = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
        rim = np.flatnonzero(mask != cv2.erode(mask, _NEXT))
        v, u = np.divmod(rim, x1 - x0)
        found.append(
            (np.stack([u + x0, v + y0, np.full(len(rim), part)]), np.stack([of.take(rim) for of in (gx, gy, soft)]))
        )
    u, v, part = np.concatenate([places for places, _ in found], 1) if found else np.zeros((3, 0), int)
    gx, gy, soft = np.concatenate([values for _, values in found], 1) if found else np.zeros((3, 0), np.float32)
    strength = np.hypot(gx, gy)
    kept = strength > 0.05
    for at, end in ((u, width), (v, height)):
        kept &= (at >= _BORDER_PX) & (at < end - _BORDER_PX)
    chosen = _spread(part, np.flatnonzero(kept))
    if not len(chosen):
        empty = np.zeros((0, 2), np.float32)
        return Contour(empty, np.zeros(0, np.uint8), empty, np.zeros(0, np.uint8), np.zeros(0, bool))
    u, v, part, gx, gy, soft, strength = (values[chosen] for values in (u, v, part, gx, gy, soft, strength))
    rim, normal = np.stack([u, v], 1), -np.stack([gx, gy], 1) / strength[:, None]
    # The rim pixel lies inside; the contour is the blurred mask's half level, a fraction of a pixel further out.
    xy = (rim + normal * np.clip((soft - 0.5) / strength, -1.0, 1.5)[:, None] + 0.5) * scale - 0.5
    far = np.clip(np.round(rim + 3 * normal).astype(int), 0, [width - 1, height - 1])
    bins = np.floor((np.arctan2(normal[:, 1], normal[:, 0]) % np.pi) / (np.pi / BINS) + 0.5).astype(int) % BINS
    return Contour(
        xy.astype(np.float32), bins.astype(np.uint8), normal.astype(np.float32), part.astype(np.uint8),
        labels[far[:, 1], far[:, 0]] == 0,
    )  # fmt: skip


def _spread(part: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Of the points that are kept (rising indices) at most _POINTS_PER_PART of every part, evenly spread."""
    ends = np.flatnonzero(np.diff(part[kept])) + 1
    out = []
    for mine in np.split(kept, ends):
        if len(mine) > _POINTS_PER_PART:
            mine = mine[np.linspace(0, len(mine) - 1, _POINTS_PER_PART).astype(int)]
        out.append(mine)
    return np.concatenate(out)
