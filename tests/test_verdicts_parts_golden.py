# SPDX-License-Identifier: Apache-2.0
"""The small measures that verdicts are made of, each on fixed noise, shapes and curves, against what they gave before. The takes
of `test_verdicts_golden` pass through few of their branches and round what they give; here every one counts to a thousandth.

`python tests/test_verdicts_parts_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from scenes import make_scene_episode

from retake.core.episode import Episode, open_episode
from retake.core.episode.events import object_events
from retake.core.verdicts import (
    additions,
    alignment,
    bodies,
    colours,
    falls,
    following,
    geometry,
    gripper,
    gripper_parts,
    intruders,
    load_settings,
    motion,
    objects,
    posture_shapes,
    posture_views,
    stability,
    tracking,
    wrists,
)
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.truth import Truth, read_truth

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "parts.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
SETTINGS = load_settings()


def noise(seed: int, *shape: int) -> np.ndarray:
    """Smooth noise, float32, mean 0 and spread 1."""
    rng = np.random.default_rng(seed)
    field = rng.normal(size=shape).astype(np.float32)
    if len(shape) >= 2:
        field = cv2.GaussianBlur(field.reshape(shape[0], shape[1], -1), (0, 0), 2.0).reshape(shape)
    return ((field - field.mean()) / field.std()).astype(np.float32)


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.clip(120 + 50 * noise(seed, height, width, 3), 0, 255).astype(np.uint8)


def blob(cx: float, cy: float, a: float, b: float, turn: float = 0.0, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """An ellipse, bool."""
    y, x = np.indices(shape, np.float64)
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def film(frames: int, step: float, late: int = 0, still: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A textured square that moves over noise; between two frames it may stand still."""
    out = np.repeat(picture(1, 64, 96)[None], frames, 0)
    for t in range(frames):
        s = still[0] if still[0] <= t < still[1] else t
        x = int(6 + step * max(s - late, 0)) % 70
        out[t, 20 + (s % 5) : 44 + (s % 5), x : x + 20] = picture(2, 24, 20)
    return out


def of_stability() -> dict[str, Any]:
    out: dict[str, Any] = {}
    cells = (100 + 12 * noise(3, 12, 15 * 20 * 3)).reshape(12, 15, 20, 3) + 9 * np.sin(np.arange(12))[
        :, None, None, None
    ]
    cells[7:] += np.array([14.0, 2, -6])
    weight = np.clip(0.8 + 0.25 * noise(4, 12, 300).reshape(12, 15, 20), 0, 1)
    for name, w in (("seen", weight), ("little", weight * (np.indices((15, 20)).sum(0) < 4)), ("none", weight * 0)):
        level = stability._level(cells, w)
        parts = (stability._flicker, stability._colour, stability._seams)
        out[name] = [level, *(part(cells.astype(np.float32), w.astype(np.float32), level) for part in parts)]
        out[f"{name}, short"] = [part(cells[:n], w[:n], level) for part in parts for n in (2, 3, 7, 8)]
    sharp = 10 + np.cumsum(np.random.default_rng(5).normal(size=20))
    sharp[[0, 5, 6]] = np.nan
    out["sharpness"] = [stability._sharpness(s) for s in (sharp, sharp * np.nan, np.r_[[np.nan] * 3, sharp[3:]])]
    out["darkness"] = [stability._darkness([np.full((4, 4), v, np.uint8) for v in values])
                       for values in ((100, 9, 200), (100, 10, 11), (200, 19, 21), (5, 5))]  # fmt: skip
    series = np.where(np.arange(15) % 4 == 1, np.nan, np.random.default_rng(6).normal(size=15))
    out["median"] = [stability._median(series, w) for w in (1, 3, 5, 9)]
    flow = np.stack([noise(7, 50, 66), noise(8, 50, 66)], -1)
    for name, mask in (
        ("votes", blob(30, 25, 28, 20, shape=(50, 66))),
        ("few votes", blob(5, 5, 3, 3, shape=(50, 66))),
    ):
        out[name] = stability._votes(flow, mask)
    out["levelled"] = [stability._levelled(picture(k)[..., 0] // d) for k, d in ((9, 1), (10, 60), (11, 255))]
    place, _ = stability._votes(flow, np.ones((50, 66), bool))
    for name, moved in (("creep", 0 * place + [1.5, -0.5]), ("zoom", 0.03 * (place - 20)), ("swim", noise(12, *place.shape)),
                        ("turn", 0.02 * (place - 30)[:, ::-1] * [1, -1]), ("back", -0 * place)):  # fmt: skip
        out[name] = [
            stability._coherent(place, np.asarray(moved + 0.1 * k * noise(13, *place.shape), float)) for k in (0, 1)
        ]
    frames = [picture(14), np.full((48, 64, 3), 77, np.uint8)]
    for k, mask in enumerate(
        (blob(30, 20, 12, 8), blob(2, 2, 3, 3), blob(30, 20, 0.4, 0.4), blob(-9, 0, 1, 1), blob(30, 20, 99, 99))
    ):
        out[f"colours {k}"] = [stability.part_colours(frame, mask) for frame in frames]
    near = np.clip(frames[0].astype(int) + 9, 0, 255).astype(np.uint8)
    out["first"] = [
        stability.first_frame_error(frames[0], given, (32, 24))
        for given in (None, frames[0], near, picture(15), frames[1])
    ]
    return out


def of_tracking() -> dict[str, Any]:
    mask, rng = blob(30, 20, 10, 6).astype(np.float32), np.random.default_rng(20)
    likely = np.clip(0.3 + 0.2 * noise(21, 48, 64) + 0.6 * blob(36, 24, 10, 6), 0, 1).astype(np.float32)
    score, centre = tracking._search(likely, mask)
    edge = tracking._search(likely, blob(2, 46, 6, 5).astype(np.float32))
    faint = tracking._search(likely, 0.2 * mask)
    row, column = tracking._argmax(score)
    codes = [tracking._codes(picture(k)) for k in (22, 23)]
    hist = [tracking._histogram(c[blob(30, 20, r, r)]) for c, r in zip(codes, (12, 18), strict=True)]
    windows = [tracking._window(c, r, (48, 64)) for c in ((3, 4), (60, 47), (30, 20)) for r in (2, 7)]
    fine = [tracking._fine(noise(24, 20, 20), r, c) for r, c in ((5, 7), (0, 0), (19, 19), (10, 0))]
    return {
        "search": [score, centre, *edge, *faint, row, column], "codes": codes, "histograms": hist,
        "windows": [[w.start, w.stop, h.start, h.stop] for w, h in windows], "fine": fine,
        "cores": [tracking._core(blob(30, 20, r, r)) for r in (2, 3, 4, 9)],
        "posterior": tracking._posterior(hist[0], hist[1]), "half": tracking._half(noise(25, 48, 64), (32, 24)),
        "around": [tracking._around(rng.random((48, 64)).astype(np.float32), m) for m in (mask, 0.2 * mask, 0 * mask)],
    }  # fmt: skip


def of_motion() -> dict[str, Any]:
    settings = SETTINGS.recorded
    plain, late, frozen = film(26, 2.0), film(26, 2.0, late=3), film(26, 2.0, still=(9, 16))
    maps = {name: motion.motion_maps(f, 8) for name, f in (("plain", plain), ("late", late), ("frozen", frozen))}
    out: dict[str, Any] = {name: m for name, m in maps.items()}
    a, b, c = maps["plain"].maps, maps["late"].maps, maps["frozen"].maps
    out["none"] = motion.motion_maps(plain[:1], 8)
    out["pairs"] = [f(x, y) for f in (motion.agreement, motion.overlap) for x in (a, b, c) for y in (a, b, 0 * a)]
    out["lags"] = [motion._lag(x, y, settings) for x, y in ((a, b), (b, a), (a, a), (c, a), (0 * a, a))]
    out["aligned"] = [motion._align_by_lag(a, b, k) for k in (-3, 0, 2)]
    out["shift"] = [
        motion._shift(maps["plain"].fine, np.roll(maps["plain"].fine, s, (1, 2)), settings)
        for s in ((0, 0), (1, -2), (-3, 4))
    ]
    out["undone"] = motion._undo_shift(maps["plain"], np.array([3.0, -2.0]))
    line = np.array([0.0, 1, 3, 2, 2, 5, 4])
    out["vertex"] = [motion._vertex(line, k) for k in range(7)]
    moving = a.sum((1, 2)) > np.median(a.sum((1, 2))) * 0.5
    out["window"] = [
        motion._worst_window(x, y, m, settings) for x, y in ((a, b), (c, a)) for m in (moving, moving & False)
    ]
    sums = [m.maps.sum((1, 2), dtype=np.float64) for m in maps.values()]
    out["freeze"] = [motion._longest_freeze(sums[k], sums[0], moving, settings) for k in (0, 1, 2)]
    return out


def of_pictures() -> dict[str, Any]:
    """Silhouettes, tones, distances and peaks of the other modules."""
    rng, out = np.random.default_rng(30), {}
    mask, other = blob(30, 22, 14, 7, 0.4), blob(33, 20, 13, 7, 0.9)
    images = [picture(31), picture(32)]
    out["tone"] = intruders.tone_of(images[0].astype(np.float32))
    out["largest"] = [
        intruders._largest(m)
        for m in (mask, mask & (np.indices(mask.shape)[1] % 9 > 1), mask & False, blob(9, 9, 0.4, 0.4))
    ]
    ordered = np.sort(noise(33, 9))
    out["at"] = [intruders._at(ordered, p) for p in (0.0, 0.3, 4.0, 7.99, 8.0)]
    turned = [posture_shapes._turned(axis, d) for axis, d in (((0, 0, 1), 30), ((1, 0, 0), -45), ((0, 0.6, 0.8), 200))]
    poses = [np.block([[R, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]) for R in turned]
    out["angle"] = [additions._angle(a, b) for a in poses for b in poses]
    out["turned"] = turned
    flat = images[0].reshape(-1, 3)
    lights = [np.clip(flat * k, 1, 255).astype(np.float32) for k in (0.3, 0.6, 0.95, 1.1, 1.6)]
    out["like scenery"] = [bodies._like_scenery(flat, light) for light in lights]
    out["moved mask"] = [bodies._shift_mask(mask, np.array(o)) for o in ((0.0, 0.0), (2.5, -1.25), (-70.0, 3.0))]
    out["signed"] = [bodies.signed_distance(m) for m in (mask, ~mask)]
    codes = [bodies._codes(i) for i in images]
    out["codes"] = codes
    table = bodies._table(codes[0][mask], codes[1][~mask])
    out["table"] = table
    likely = table[codes[0]].astype(np.float32)
    free = np.indices(mask.shape)[1] > 20
    for name, shown in (("own", mask), ("other", other), ("none", mask & False), ("far", blob(50, 40, 9, 5))):
        target = np.clip(0.2 * likely + 0.8 * shown, 0, 1).astype(np.float32)
        out[f"offset {name}"] = [
            bodies._offset(target, m, bodies.signed_distance(m), f) for m in (mask, other) for f in (free | True, free)
        ]
        out[f"turn {name}"] = [bodies._turn(m, shown) for m in (mask, other, blob(30, 20, 8, 8))]
    way = np.cumsum(rng.normal(size=(8, 2)), axis=0)
    out["distance"] = [objects._distance(p, w) for p in rng.normal(0, 3, (6, 2)) for w in (way, way[:1], way[:2])]
    hills = [-0.05 * ((np.indices((9, 9)) - np.array(c)[:, None, None]) ** 2).sum(0) + 0.02 * noise(34 + k, 9, 9)
             for k, c in enumerate(((4.3, 4.1), (2.2, 6.4), (0.0, 8.0), (8.0, 3.3)))]  # fmt: skip
    out["peaks"] = [alignment.peak(h.astype(np.float64), p) for h in hills for p in (0.0, 0.01, 0.2)]
    out["vertices"] = [alignment.vertex(np.array([0.0, 1, 3, 2, 2, 5, 4]), k) for k in range(7)]
    curve = np.concatenate(
        [np.ones(5), np.linspace(1, 0.2, 6), np.full(4, 0.2), np.linspace(0.2, 0.9, 5), [0.9, 0.4, 0.9, 0.9, 0.75, 0.5]]
    )
    out["changes"] = [gripper_parts.changes(c) for c in (curve, 1 - curve, curve[5:11], curve * 0.3, np.ones(4))]
    surface = noise(40, 12, 16)
    out["bilinear"] = gripper._bilinear(surface, rng.uniform(-2, 17, (20, 2)))
    steps = len(gripper._STEPS)
    for k in range(3):
        scores, weights = noise(41 + k, 6, steps).astype(np.float64), np.array([0, 1, 2, 1, 0, 3.0])
        scores[0], scores[1, : k + 1] = np.nan, np.nan
        out[f"best {k}"] = [
            gripper._best_error(s, weights, SETTINGS.following) for s in (scores, 0.01 * scores, scores * np.nan)
        ]
    F = noise(50, 3, 3).astype(np.float64)
    out["sampson"] = geometry.sampson(rng.uniform(0, 60, (9, 2)), rng.uniform(0, 60, (9, 2)), F)
    out["wider"] = [posture_views._wider(mask.astype(np.uint8), g) for g in (-1, 0, 1)]
    moved = posture_views._moved_fields(noise(51, 24, 30))
    out["moved"] = moved
    drawn = [blob(15, 12, r, r, shape=(24, 30)).astype(np.uint8) for r in (3, 6)]
    out["explained"] = posture_views._explained(moved, drawn)
    return out


def of_turns() -> dict[str, Any]:
    names = wrists._Reading.__dataclass_fields__
    rng, out = np.random.default_rng(60), {}
    for k in range(12):
        found = []
        for frame in range(1 + k % 5):
            known = {
                "angle": float(rng.normal(0, 20)),
                "frame": frame,
                "gain": float(rng.random()),
                "needed": float(0.6 * rng.random()),
            }
            found.append(wrists._Reading(**{name: known.get(name, 0) for name in names}))  # type: ignore[arg-type]
        out[str(k)] = wrists._lasting(found)
    return out


FRAMES, RADIUS = 33, 12
KEPT: list[Any] = []


@lru_cache(maxsize=1)
def episode() -> Episode:
    made = tempfile.TemporaryDirectory(prefix="retake-parts-")
    KEPT.append(made)
    make_scene_episode(Path(made.name) / "e", frames=FRAMES, size=(96, 72), shadows=False)
    return open_episode(Path(made.name) / "e")


def truths() -> dict[str, Truth]:
    """The recorded geometry as it is, of a larger picture, and as a camera that moves has it."""
    plain = read_truth(episode(), "front", 0, FRAMES)
    large = replace(plain, px=3.0, area=9 * plain.area)
    return {"plain": plain, "large": large, "moving": replace(large, static_camera=False)}


def drawn_alignment(seed: int, shift: tuple[float, float], lag: float, sure: float, moved: tuple[int, ...] = ()) -> Any:
    """Scores that prefer a shift of some parts (all where none is named) from frame 14 on, and a lag."""
    rng, parts = np.random.default_rng(seed), len(truths()["plain"].parts)
    points = rng.integers(20, 90, (FRAMES, parts)).astype(float)
    drawn = np.stack([np.bincount(c.part, minlength=parts) for c in truths()["plain"].contours])
    points[(rng.random((FRAMES, parts)) < 0.1) | (drawn == 0)] = 0
    grid = np.indices((2 * RADIUS + 1,) * 2) - RADIUS
    scores = 0.2 * rng.random((FRAMES, parts, 2 * RADIUS + 1, 2 * RADIUS + 1))
    for t in range(FRAMES):
        for part in range(parts):
            at = shift if (t >= 14 and (not moved or part in moved)) else (0.0, 0.0)
            away = (grid[0] - at[1]) ** 2 + (grid[1] - at[0]) ** 2
            scores[t, part] += sure * np.exp(-away / 6)
    lags = np.arange(-8, 9)[None, :, None]
    there = (np.arange(FRAMES)[:, None] + lags[0, :, 0] >= 0) & (np.arange(FRAMES)[:, None] + lags[0, :, 0] < FRAMES)
    likely = 0.2 + sure * np.exp(-((lags + lag) ** 2) / 8) + 0.02 * rng.random((FRAMES, 17, parts))
    lag_points = np.where(there[..., None], points[:, None], 0.0)
    lag_scores = np.where(there[..., None], likely * points[:, None], np.nan)
    swelling, girth = rng.normal(0, 1, parts), rng.normal(0, 0.3, parts)
    return alignment.Alignment(1, scores.astype(np.float32), points, lag_scores, lag_points, RADIUS, 8, swelling, girth)


def alignments() -> dict[str, Any]:
    few = drawn_alignment(74, (0, 0), 0, 0.5)
    return {
        "in place": drawn_alignment(70, (0, 0), 0, 0.5), "moved": drawn_alignment(71, (3.4, -2.2), 2.3, 0.5),
        "a hand": drawn_alignment(72, (6.0, 5.0), 0, 0.6, (3, 4, 5)), "faint": drawn_alignment(73, (2, 2), -1.4, 0.02),
        "few": replace(few, points=0.1 * few.points), "early": drawn_alignment(75, (1, 0), -3, 0.3, (1,)),
    }  # fmt: skip


def of_alignments() -> dict[str, Any]:
    settings, out = SETTINGS.following, {}
    for seen, truth in truths().items():
        out[seen] = [following.motion_px(truth), following.arm_size(truth), following.groups(truth)]
        for name, found in alignments().items():
            one = out[f"{seen} {name}"] = [
                following.measure_following(found, truth, settings), following.link_offsets(found, truth, settings),
                alignment.best_lag(found, truth.robot_parts), following.arm_track(found, truth, settings),
            ]  # fmt: skip
            hidden = {"v": replace(truth, parts=tuple(replace(p, robot="") for p in truth.parts))}
            if name == "moved":
                one.append(following.measure_following(found, hidden["v"], settings))
    return out


def of_fingers() -> dict[str, Any]:
    """Grippers that open and close at the right moment, early, late and not at all."""
    settings, out, plain = SETTINGS.following, {}, truths()["plain"]
    rng, steps = np.random.default_rng(80), np.arange(FRAMES)
    openness = np.interp(steps, [0, 6, 8, 19, 23, 32], [1.0, 1.0, 0.05, 0.05, 0.9, 0.9])
    found = gripper_parts.find_fingers(episode(), plain)
    out["found"] = [found, gripper_parts.find_fingers(episode(), truths()["large"])]
    parts = found[0].parts
    travel = np.stack([np.full((FRAMES, 2), (7.0, 3.0)), np.full((FRAMES, 2), (-6.0, 4.0))], 1)
    for name, shown in {
        "true": openness, "early": np.interp(steps + 3, steps, openness), "late": np.interp(steps - 2, steps, openness),
        "shut": openness * 0 + 0.05, "half": 0.5 * openness, "far": np.interp(steps + 6, steps, openness),
    }.items():  # fmt: skip
        base = drawn_alignment(81, (0, 0), 0, 0.0)
        scores, grid = 0.4 * base.shift_scores, np.indices((2 * RADIUS + 1,) * 2) - RADIUS
        for t in range(FRAMES):
            for k, part in enumerate(parts):
                at = (shown[t] - openness[t]) * travel[t, k]
                # Shifts of the fingers are looked up with x along the columns.
                scores[t, part] += 0.6 * np.exp(-((grid[0] - at[1]) ** 2 + (grid[1] - at[0]) ** 2) / 4)
        for seen, truth in truths().items():
            wide = replace(truth, area=40 * truth.area)
            hands = [gripper_parts.Fingers(parts, travel * size, openness) for size in (1.0, 0.2)] + [
                gripper_parts.Fingers(parts, np.where(rng.random(travel.shape) < 0.2, np.nan, travel), openness)
            ]
            out[f"{name} {seen}"] = [
                measure(replace(base, shift_scores=scores), wide, hand, settings)
                for measure in (partial(gripper.measure_gripper, unknown(wide)), partial(gripper.measure_events, unknown(wide)))
                for hand in (hands[:1], hands[1:2], hands)
            ]  # fmt: skip
    return out


def unknown(truth: Truth) -> Footage:
    """Pictures of which no scenery is known, so that contours alone tell."""
    width, height = truth.size
    frames = np.zeros((len(truth), height, width, 3), np.uint8)
    return Footage(frames, frames[0].astype(np.float32), np.zeros((height, width), bool), 1.0)


def drawn_track(seed: int, truth: Truth, part: int, apart: float, weak: float) -> Any:
    """A track that leaves its object by `apart` px after a third of the take, and is weak in some frames."""
    rng = np.random.default_rng(seed)
    expected = truth.centroid[:, part] + 0.0
    away = np.clip((np.arange(FRAMES) - 10) / 10, 0, 1)[:, None] * np.array([apart, -0.6 * apart])
    found = expected + away + rng.normal(0, 0.6, (FRAMES, 2))
    here = np.clip(rng.normal(0.8 - 0.02 * apart, 0.2, FRAMES), 0, 1)
    best = np.maximum(here, np.clip(rng.normal(0.9, 0.15, FRAMES), 0, 1) * (rng.random(FRAMES) > weak))
    second = np.clip(rng.normal(0.2, 0.25, FRAMES), 0, 1)
    gone = rng.random(FRAMES) < 0.1
    for values in (found, best, second):
        values[gone] = np.nan
    half = (truth.size[1] // 2, truth.size[0] // 2)
    y, x = np.indices(half)
    centre = np.nan_to_num((found + 0.5) / 2 - 0.5)
    likely = np.exp(-((x - centre[:, :1, None]) ** 2 + (y - centre[:, 1:, None]) ** 2) / 18).astype(np.float32)
    return tracking.Track(part, found, expected, here, best, second, found[::-1], 0.8, likely)


def drawn_body(seed: int, truth: Truth, part: int, apart: float) -> Any:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.3, (FRAMES, 2)), 0) + np.where(np.arange(FRAMES) > 14, apart, 0)[:, None]
    looked = np.arange(FRAMES) % 2 == 0
    some = rng.random((5, FRAMES))
    some[:, ~looked] = np.nan
    walk[~looked] = np.nan
    colour = np.where(np.arange(FRAMES)[:, None] > 20, (90.0, 150, 60 + apart), (180.0, 60, 40)) + rng.normal(
        0, 4, (FRAMES, 3)
    )
    pixels = {t: np.clip(colour[t] + rng.normal(0, 9, (40, 3)), 0, 255).astype(np.uint8) for t in range(FRAMES)}
    return bodies.Body(
        part, 30 * truth.area[:, part], looked, walk, 0.3 * some[0], 0.4 * some[1], 0.8 + 0.4 * some[2],
        0.4 + 0.7 * some[3], colour, pixels, 0.8 * some[4], some[0] * 1.2,
    )  # fmt: skip


def of_objects() -> dict[str, Any]:
    """Tracks and silhouettes that agree, part, are weak, and whose object is hardly seen."""
    settings, out, rng = SETTINGS.object, {}, np.random.default_rng(90)
    plain, large, moving = truths().values()
    part = next(k for k in plain.object_parts if plain.parts[k].name == "packet")
    event = next(e for e in object_events(episode()) if e.object == "packet")
    phases = [event.phase(t) for t in range(FRAMES)]
    scores = drawn_alignment(91, (5, -3), 0, 0.6)
    for number, (truth, apart, weak) in enumerate(
        ((plain, 0, 0.0), (large, 6, 0.0), (large, 14, 0.3), (large, 30, 0.6), (moving, 3, 0.9), (plain, -9, 0.2))
    ):
        track, body = (
            drawn_track(92 + number, truth, part, apart, weak),
            drawn_body(99 + number, truth, part, apart / 3),
        )
        rows = np.array([p in ("released", "settled") for p in phases])
        distance = np.abs(rng.normal(0, 4, FRAMES))
        out[str(number)] = [
            objects.measure_object(track, body, scores, truth, phases, settings),
            objects.position_error(track, truth, settings), objects.pisa(track, truth, phases),
            objects.at_home(track, body, settings), objects.doubted(track, body, distance, settings),
            objects.stands(body, distance, settings), objects.stands(body, distance, settings, 0.1),
            objects.cropped(truth, part), falls.measure_fall(track, truth, part, phases),
            objects.on_path(track, np.array([p == "released" for p in phases]), 4.0),
            objects.behaviour(track, truth, rows, phases), objects.behaviour(track, truth, rows & False, phases),
            [colours.measure_colour(body, sure, truth) for sure in (rows | True, rows & False)], colours.views_of(truth, part),
        ]  # fmt: skip
    body = drawn_body(110, large, part, 0)
    dull = replace(drawn_track(111, large, part, 0, 0), reference=0.2)
    for name, one, found in (("unseen", None, scores), ("dull", dull, scores), ("faint", dull, alignments()["faint"])):
        out[name] = [
            objects.measure_object(one, body, found, truth, given, settings)
            for truth, given in ((large, phases), (plain, ["held"] * FRAMES))
        ]
    out["no fall"] = [falls.measure_fall(None, plain, part, phases)]
    drop = replace(large, fps=60.0)
    out["slower clock"] = [falls.measure_fall(dull, drop, part, phases)]
    out["revealed"] = [
        colours.revealed(a, b, c) for a in (0.0, 0.3, 2.0) for b, c in ((10, 10), (4, 9), (9, 4), (0, 0))
    ]
    out["lasting"] = [colours.lasting(rng.random(12), np.array(rows)) for rows in ((0, 3, 4, 7, 11), (1, 2, 3))]
    return out


CASES = {
    "stability": of_stability,
    "tracking": of_tracking,
    "motion": of_motion,
    "pictures": of_pictures,
    "turns": of_turns,
    "alignments": of_alignments,
    "fingers": of_fingers,
    "objects": of_objects,
}


@pytest.mark.parametrize("case", CASES)
def test_a_part_gives_what_it_gave(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(measure()) for case, measure in CASES.items()})
    sys.exit(0)
