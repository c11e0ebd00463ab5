# SPDX-License-Identifier: Apache-2.0
"""What a take adds that was not simulated: things that appear where the robot works, textures that run on its links.

Both are told from the take's own first frames. Only geometry of the simulation is read: poses, masks and K.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth

NAMES = ("intruders", "link_texture")
_ASIDE_M = 0.12
"""How far beyond the places of robot and objects the scene of work reaches, m."""
_DARK = 12.0
"""Grey value that is added before ratios are taken: noise in the dark is no colour."""


def measure_additions(footage: Footage, truth: Truth, settings: StabilitySettings) -> list[Measurement]:
    """intruders (side of the largest thing that appears, px) and link_texture (change of surface, log units)."""
    return [_intruders(footage, truth, settings), _texture(footage, truth, settings)]


def _intruders(footage: Footage, truth: Truth, settings: StabilitySettings) -> Measurement:
    """Side (root of the area) of the largest thing of another colour that stays where robot and objects work.

    A shadow or a highlight changes brightness, not hue, and a person behind the table is not on it.
    """
    name = NAMES[0]
    if not truth.static_camera:
        return Measurement(name, None, "the camera moves", applies=False)
    half = (truth.size[0] // 2, truth.size[1] // 2)
    work = workspace(truth, half)
    if work is None or work.sum() < settings.work_pixels:
        return Measurement(name, None, "this camera hardly sees where robot and objects work", applies=False)
    times = list(range(0, len(footage), settings.still_step))
    tones, free = [], []
    grow = np.ones((2 * settings.near_robot_px + 1,) * 2, np.uint8)
    for t in times:
        small = cv2.resize(footage.frames[t], half, interpolation=cv2.INTER_AREA).astype(np.float32)
        tones.append(_tone(cv2.GaussianBlur(small, (3, 3), 0)))
        taken = cv2.dilate((truth.labels[t] > 0).astype(np.uint8), grow)
        free.append(cv2.resize(taken, half, interpolation=cv2.INTER_AREA) == 0)
    known = np.zeros(free[0].shape, int)
    reference = np.zeros_like(tones[0])
    series, places = np.full(len(footage), np.nan), {}
    for t, tone, clear in zip(times, tones, free, strict=True):
        old = clear & (known > 0)
        if (old & work).sum() >= settings.work_pixels:
            change = np.abs(tone - reference / np.maximum(known, 1)[..., None]).max(-1)
            limit = settings.new_tone + float(np.quantile(change[old], 0.95))
            side, places[t] = _largest((change > limit) & old & work)
            series[t] = 2 * side * truth.px
        # The first two views of a place are what it looks like.
        fresh = clear & (known < 2)
        reference[fresh] += tone[fresh]
        known[fresh] += 1
    seen = np.flatnonzero(~np.isnan(series))
    if len(seen) < 4:
        return Measurement(name, None, "robot or objects cover where they work", applies=False)
    lasting = np.min([series[seen[:-2]], series[seen[1:-1]], series[seen[2:]]], axis=0)
    k = int(np.argmax(lasting))
    frame = int(seen[k + 1])
    x, y = (2 * places[frame] + 0.5) / truth.scale
    note = f"near ({x:.0f}, {y:.0f})" if lasting[k] else ""
    return Measurement(name, float(lasting[k]), note, frame, series=series)


def _tone(image: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
    """Two log ratios of the colours: the same in light and shade."""
    log = np.log(image + _DARK)
    return log[..., [0, 2]] - log[..., 1:2]


def _largest(mask: Bool[np.ndarray, "h w"]) -> tuple[float, Float64[np.ndarray, "2"]]:
    """Root of the area of the largest connected part, and its centre."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, _, stats, centres = cv2.connectedComponentsWithStats(opened)
    if count <= 1:
        return 0.0, np.zeros(2)
    k = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return float(np.sqrt(stats[k, cv2.CC_STAT_AREA])), centres[k]


def workspace(truth: Truth, size: tuple[int, int], aside_m: float = _ASIDE_M) -> Bool[np.ndarray, "h w"] | None:
    """Pixels of an image of `size` whose rays meet the objects' ground where robot and objects are during the take.

    aside_m: m around these places that count, too. The ground is level and as high as the lowest object's origin. None
    without objects.
    """
    objects = truth.object_parts
    if not objects:
        return None
    ground = float(truth.T_world_part[:, objects, 2, 3].min())
    reach = truth.T_world_part[:, objects, :2, 3].reshape(-1, 2)
    hands = truth.T_world_part[:, truth.robot_parts, :3, 3].reshape(-1, 3)
    low = hands[hands[:, 2] < ground + 0.4][:, :2]
    corners = np.concatenate([reach, low])
    lower, upper = corners.min(0) - aside_m, corners.max(0) + aside_m
    v, u = np.mgrid[0 : size[1], 0 : size[0]]
    K = np.diag([size[0] / truth.size[0], size[1] / truth.size[1], 1.0]) @ truth.K[0]
    ray = np.stack([(u + 0.5 - K[0, 2]) / K[0, 0], (v + 0.5 - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)
    T = np.linalg.inv(truth.T_camera_world[0])
    way, eye = ray @ T[:3, :3].T, T[:3, 3]
    down = way[..., 2]
    length = np.where(np.abs(down) > 1e-6, (ground - eye[2]) / np.where(np.abs(down) > 1e-6, down, 1.0), -1.0)
    place = eye[:2] + length[..., None] * way[..., :2]
    return (length > 0) & (place > lower).all(-1) & (place < upper).all(-1)


def _texture(footage: Footage, truth: Truth, settings: StabilitySettings) -> Measurement:
    """How much the brightness of a link's surface points changes over a few frames, beyond its first frames; worst link.

    Points are carried along with their link at its own depth. A lamp brightens a link as a whole; only the spread counts.
    A link that turns is lit anew, every face of it otherwise: frames between which it turns much are not compared.
    """
    name = NAMES[1]
    step = settings.texture_frames
    greys = [np.log(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32) + _DARK) for f in footage.frames]
    spreads: dict[int, dict[int, float]] = {}
    inner: dict[int, tuple[int, np.ndarray]] = {}
    for t in range(0, len(footage) - step, step):
        for part in truth.robot_parts:
            found = _spread(greys, truth, part, t, t + step, settings, inner)
            if found is not None:
                spreads.setdefault(part, {})[t] = found
    worst, where, frame = None, "", None
    series = np.full(len(footage), np.nan)
    for part, values in spreads.items():
        times = sorted(values)
        if len(times) < 5:
            continue
        v = np.array([values[t] for t in times])
        rise = np.maximum(np.median([v[:-2], v[1:-1], v[2:]], axis=0) - float(np.median(v[:3])), 0)
        for t, value in zip(times[1:-1], rise, strict=True):
            series[t] = max(float(value), np.nan_to_num(series[t]))
        k = int(np.argmax(rise))
        if worst is None or rise[k] > worst:
            worst, where, frame = float(rise[k]), truth.parts[part].name, times[k + 1]
    if worst is None:
        return Measurement(name, None, "no link shows enough of its surface", applies=False)
    return Measurement(name, worst, where, frame, series=series)


def _inside(truth: Truth, t: int, part: int) -> np.ndarray:
    """Pixels of a part that are not at its rim, 0 or 1."""
    mask = cv2.inRange(truth.labels[t], part + 1, part + 1) & 1  # type: ignore[call-overload]
    return cv2.erode(mask, np.ones((5, 5), np.uint8))


def _angle(a: Float64[np.ndarray, "4 4"], b: Float64[np.ndarray, "4 4"]) -> float:
    """Angle between two poses, rad."""
    return float(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))


def _spread(
    greys: list[np.ndarray], truth: Truth, part: int, t: int, u: int, settings: StabilitySettings,
    known: dict[int, tuple[int, np.ndarray]],
) -> float | None:  # fmt: skip
    """Robust deviation of the log brightness of one link's points between two frames.

    known: per part a frame and what lies well inside it there; the later frame's is left for the next call.
    """
    if min(truth.area[t, part], truth.area[u, part]) < settings.texture_area:
        return None
    frame, inner = known.get(part, (-1, truth.labels[t]))
    inner = inner if frame == t else _inside(truth, t, part)
    later = _inside(truth, u, part)
    known[part] = (u, later)
    rows, columns = np.nonzero(inner)
    if len(rows) < settings.texture_points:
        return None
    pick = np.linspace(0, len(rows) - 1, min(len(rows), 150)).astype(int)
    rows, columns = rows[pick], columns[pick]
    if _angle(truth.T_world_part[t, part], truth.T_world_part[u, part]) > settings.texture_turn:
        return None
    before, after = (truth.T_camera_world[k] @ truth.T_world_part[k, part] for k in (t, u))
    depth, K = before[2, 3], truth.K[t]
    if depth < 0.05:
        return None
    p = np.stack([(columns + 0.5 - K[0, 2]) / K[0, 0], (rows + 0.5 - K[1, 2]) / K[1, 1], np.ones(len(rows))], 1) * depth
    body = (p - before[:3, 3]) @ before[:3, :3]
    q = body @ after[:3, :3].T + after[:3, 3]
    uvw = q @ truth.K[u].T
    place = (uvw[:, :2] / np.maximum(uvw[:, 2:], 1e-6) - 0.5).astype(np.float32)
    x, y = place[None, :, 0], place[None, :, 1]
    shows = cv2.remap(later, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)[0] > 0
    if shows.sum() < settings.texture_points:
        return None
    ratio = cv2.remap(greys[u], x, y, cv2.INTER_LINEAR)[0][shows] - greys[t][rows, columns][shows]
    ratio.sort()
    high, low = (_at(ratio, share * (len(ratio) - 1)) for share in (0.84, 0.16))
    return (high - low) / 2


def _at(ordered: Float32[np.ndarray, "N"], place: float) -> float:
    """Value between two neighbours: a quantile of so few takes `numpy.quantile` mostly preparation."""
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
