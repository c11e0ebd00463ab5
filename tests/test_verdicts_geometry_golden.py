# SPDX-License-Identifier: Apache-2.0
"""Which points a moving camera's scenery has, where they are followed to and where they should be, against what they were
before.

`python tests/test_verdicts_geometry_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from test_verdicts_geometry import FRAMES, SIZE, STEP_M, WALL_M, K, episode_of, poses, truth_of

from retake.core.verdicts import geometry, load_settings

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "geometry.json"
SHARE = 2e-2
"""Of a number: followed points differ by a hundredth of a pixel from processor to processor."""
SETTINGS = load_settings().stability


def film(T_camera_world: np.ndarray, repeats: bool = False, edges: bool = False) -> np.ndarray:
    """(T, H, W, 3): a textured wall at WALL_M, as every frame sees it."""
    rng = np.random.default_rng(3)
    big = 120 + 40 * cv2.GaussianBlur(rng.normal(size=(720, 960)), (0, 0), 2.0) * 4
    y, x = np.indices(big.shape)
    if repeats:
        big = np.where((y % 12 < 3) | ((x + 9 * (y // 12 % 2)) % 18 < 3), 60.0, 140.0)
    if edges:
        big[(x + 0.3 * y) % 60 < 30] = 150
        big[y % 97 < 4] = 30
    offset, out = np.array([[1, 0, 320], [0, 1, 240], [0, 0, 1.0]]), []
    for T in T_camera_world:
        H = K @ (T[:3, :3] + np.outer(T[:3, 3], (0, 0, 1 / WALL_M))) @ np.linalg.inv(K)
        taken = cv2.warpPerspective(np.clip(big, 0, 255).astype(np.float32), H @ np.linalg.inv(offset), SIZE)
        out.append(np.clip(taken + rng.normal(0, 1, taken.shape), 0, 255).astype(np.uint8))
    return np.repeat(np.stack(out)[..., None], 3, axis=3)


def summary(values: np.ndarray) -> list[float]:
    """Of points, whose order and number may differ by one, and places by a hundredth of a pixel."""
    finite = values[np.isfinite(values).reshape(len(values), -1).all(1)].astype(float)
    return [round(len(finite) / 10), *(1 + np.median(finite, axis=0).ravel())] if len(finite) else [0]


def of_points() -> dict[str, Any]:
    """Points on a grid, followed from where they are and looked for beside where they should be."""
    way = poses(0.3, (0.2, 1, 0.1), (-STEP_M, 0.002, 0.001))
    truth, out = truth_of(way), {}
    depth = np.full(SIZE[::-1], WALL_M, np.float32)
    depth[:60, :80] = 0.0
    grid = np.stack(np.meshgrid(np.arange(12.0, 310, 17), np.arange(9.0, 235, 17)), -1).reshape(-1, 2)
    for name, given in {"texture": {}, "repeats": {"repeats": True}, "edges": {"edges": True}}.items():
        pictures = [geometry.detail(frame) for frame in film(way, **given)]
        expected = geometry.predicted(truth, depth, grid, 2, 6)
        out[name] = [
            pictures[0],
            geometry.without_standing(pictures)[3],
            expected,
            geometry.far_away(truth, grid, 2, 6),
        ]
        seen = np.arange(len(grid)) % 7 > 0
        for off in (0.0, 1.5, 9.0):
            followed = np.where(np.isfinite(expected), expected, grid) + off
            place, doubt = geometry.nearer(pictures[2], pictures[6], grid, followed, seen, expected + off / 3)
            shown, shift = geometry.shown_of(pictures[2], grid, np.add(grid, (4 + off, 1)), np.add(grid, (4, 3 - off)))
            alike = geometry.likeness(pictures[2], pictures[6], grid, expected + off / 3)
            out[f"{name} {off}"] = [summary(place - grid), round(float(doubt.mean()), 1), shown, shift, alike]
    F = geometry.fundamental(truth, 2, 6, 0.001)
    assert F is not None
    out["matrix"] = [F, geometry.sampson(grid, np.add(grid, (3, 1)), F)]
    for far in (0.05, 0.2, 0.5, 2.0):
        near = truth_of(poses(1.0, (0, 1, 0.3), (-0.03, 0, 0)))
        out[f"partner {far}"] = [geometry.partner_of(near, depth * far, t, SETTINGS) for t in (0, 4)]
    out["partner"] = [geometry.partner_of(truth, given, 3, SETTINGS) for given in (None, 0 * depth)]
    return summed_up(out)


def of_pairs(name: str) -> dict[str, Any]:
    way = poses(0.4, (0.2, 1, 0.1), (-4 * STEP_M, 0.002, 0.001))
    truth = truth_of(way)
    truth.px = 2.0
    frames = film(way)
    depth = np.full(SIZE[::-1], WALL_M, np.float32)
    if name == "stands":
        frames[:] = frames[0]
    if name == "backwards":
        frames = frames[::-1].copy()
    if name == "half depth":
        depth[:, 100:] = 0.0
    if name == "shadow":
        frames[:, 20:200, 40:250] = frames[0, 20:200, 40:250]
    truth.labels[:, 150:, 200:] = 1
    episode = episode_of(depth)
    if name == "no depth":
        camera = SimpleNamespace(channels=("rgb",))
        episode = SimpleNamespace(header=SimpleNamespace(camera=lambda _: camera))
    asked: dict[str, list[Any]] = {function: [] for function in ("predicted", "sampson", "likeness", "fundamental")}

    def noted(function: str) -> Any:
        plain = getattr(geometry, function)

        def heard(*given: Any) -> Any:
            out = plain(*given)
            asked[function].append(None if out is None else summary(out) if function != "fundamental" else out)
            return out

        return heard

    footage: Any = SimpleNamespace(frames=frames)
    with pytest.MonkeyPatch.context() as patched:
        for function in asked:
            patched.setattr(geometry, function, noted(function))
        found = geometry.measure_geometry(footage, truth, episode, "hand", SETTINGS)
    told = [None if m.value is None else [1 + m.value, m.note, 1 + np.asarray(m.series)] for m in found]
    return summed_up(
        {"found": told, "asked": {k: [len(calls), *calls[:3]] for k, calls in asked.items()}, "frames": FRAMES}
    )


CASES: dict[str, Any] = {"points": of_points}
CASES |= {
    name: lambda name=name: of_pairs(name)
    for name in ("plain", "stands", "backwards", "half depth", "shadow", "no depth")
}


@pytest.mark.parametrize("case", CASES)
def test_points_of_the_scenery_go_where_they_went(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


@pytest.mark.parametrize(("fewer", "told"), [(0, True), (1, False)])
def test_a_tenth_of_the_points_must_look_the_same(monkeypatch: pytest.MonkeyPatch, fewer: int, told: bool) -> None:
    way = poses(0.4, (0.2, 1, 0.1), (-4 * STEP_M, 0.002, 0.001))
    truth, details = truth_of(way), [geometry.detail(frame) for frame in film(way)]
    episode = episode_of(np.full(SIZE[::-1], WALL_M, np.float32))

    def likeness(first: Any, second: Any, start: np.ndarray, place: np.ndarray) -> np.ndarray:
        out = np.full(len(start), 0.7)
        out[: -(-len(start) // 10) - fewer] = 0.71
        return out

    monkeypatch.setattr(geometry, "likeness", likeness)
    found = geometry._pairs(details, truth, episode, "hand", SETTINGS, True)
    assert np.isfinite(found.errors).any() == told
    every = geometry._pairs(details, truth, episode, "hand", SETTINGS)
    assert np.flatnonzero(np.isfinite(every.errors)).tolist() == list(range(0, FRAMES - SETTINGS.pair_frames, 2))


def test_a_frame_that_is_compared_with_none_is_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one between which and its partner the camera hardly moves, and one without texture."""
    way = poses(0.4, (0.2, 1, 0.1), (-4 * STEP_M, 0.002, 0.001))
    truth, details = truth_of(way), [geometry.detail(frame) for frame in film(way)]
    episode = episode_of(np.full(SIZE[::-1], WALL_M, np.float32))
    partner, matrix = geometry.partner_of, geometry.fundamental
    monkeypatch.setattr(geometry, "partner_of", lambda t, d, at, s: None if at == 0 else partner(t, d, at, s))
    monkeypatch.setattr(geometry, "fundamental", lambda truth, t, *rest: None if t == 2 else matrix(truth, t, *rest))
    details[4] = np.full_like(details[4], 128)
    found = geometry._pairs(details, truth, episode, "hand", SETTINGS)
    assert np.flatnonzero(np.isfinite(found.errors)).tolist() == [6, 8]


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
