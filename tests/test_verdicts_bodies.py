# SPDX-License-Identifier: Apache-2.0
"""Objects as bodies, things that stand still, short chains, operating points: what is planted is found, and by whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_scenes import FRAMES

from retake.core.errors import InputError
from retake.core.verdicts import examine, judge, load_settings, tracking
from retake.core.verdicts.additions import measure_additions
from retake.core.verdicts.bodies import bodies
from retake.core.verdicts.economics import economics, faulty_share_of
from retake.core.verdicts.following import groups
from retake.core.verdicts.intruders import workspace
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.settings import OperatingPoint, Threshold
from retake.core.verdicts.stability import _coherent


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def object_part(judged: Judged) -> int:
    return judged.truth.object_parts[0]


def settled(judged: Judged) -> int:
    found = judged.verdict.events["settled"]
    assert found is not None
    return found


def repainted(change: object) -> np.ndarray:
    """The faithful take with the object's pixels of the last phase changed by `change(patch, mask)`."""
    maps, video = scene.scene_maps(), scene.clean_video().copy()
    for t in range(FRAMES // 2, FRAMES):
        mask = maps.ids[t] == maps.object_ids[0]
        video[t] = change(video[t], mask)  # type: ignore[operator]
    return video


def test_a_faithful_object_is_in_its_place_to_the_pixel(clean: Judged) -> None:
    body = bodies(clean.footage, clean.truth, object_part(clean), list(range(FRAMES)))
    off = np.linalg.norm(body.offset, axis=1)
    assert np.isfinite(off).sum() > 8
    assert np.nanmedian(off) < 1
    assert (clean.verdict.check("object_shape").value or 0) < 0.15


@pytest.mark.parametrize("pixels", [3, 5, 7])
def test_a_small_offset_is_reported_as_it_is(clean: Judged, pixels: int) -> None:
    """The known mask moved beside a faithful object is the same as an object beside its place."""
    truth, part = clean.truth, object_part(clean)
    labels = truth.labels.copy()
    mine = labels == part + 1
    labels[mine] = 0
    labels[np.roll(mine, pixels, axis=2)] = part + 1
    body = bodies(clean.footage, replace(truth, labels=labels), part, [0, 2, 4])
    assert np.nanmedian(np.linalg.norm(body.offset[[0, 2, 4]], axis=1)) == pytest.approx(pixels, abs=1.0)


def test_another_colour_midway_fails() -> None:
    def blue(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.where(mask[..., None], image[..., [2, 0, 1]], image)

    verdict = judge(repainted(blue), scene.scene_episode(), "front")
    assert verdict.overall == "fail"


def test_a_part_that_shows_scenery_is_missing() -> None:
    def sunk(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(mask.any(1))
        if len(rows) < 4:
            return image
        top = mask & (np.arange(len(mask))[:, None] < rows[0] + 0.45 * (rows[-1] - rows[0]))
        return np.where(top[..., None], scene.clean_video()[0], image)

    verdict = judge(repainted(sunk), scene.scene_episode(), "front")
    assert verdict.overall != "pass"


def test_links_of_a_short_chain_are_judged_one_by_one(clean: Judged) -> None:
    truth = clean.truth
    arm = len(truth.robot_parts)
    poses = truth.T_world_part.copy()
    poses[:, 0, 0, 3] += np.linspace(0, 0.1, len(poses))
    parts = tuple(replace(p, robot="drawer") if i < 2 else p for i, p in enumerate(truth.parts))
    named = [g.parts for g in groups(replace(truth, parts=parts, T_world_part=poses)) if len(g.parts) == 1]
    assert arm > 3
    assert [0] in named
    assert [1] in named


def test_what_stands_still_must_not_move() -> None:
    """Everything the robot's camera sees of the tray shifted late in the take."""
    judged = examine(scene.clean_video(), scene.scene_episode(), "front")
    truth = judged.truth
    where = truth.still_labels > 0
    if where.sum() < 80:
        where = np.zeros_like(where)
        where[60:100, 60:120] = True
    still = replace(truth, stills=("tray",), still_labels=where.astype(np.uint8))
    from retake.core.verdicts.stills import measure_stills

    settings = load_settings()
    assert (measure_stills(judged.footage, still, settings.stability).value or 0.0) < 2
    frames = judged.footage.frames.copy()
    grown = cv2.dilate(where.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    for t in range(FRAMES // 3, FRAMES):
        free = np.roll(grown, 8, axis=1) & (truth.labels[t] == 0)
        frames[t][free] = np.roll(judged.footage.frames[t], 8, axis=1)[free]
    moved = measure_stills(replace(judged.footage, frames=frames), still, settings.stability)
    assert moved.value == pytest.approx(8 * truth.px, abs=2)


@given(dx=st.floats(-5, 5), dy=st.floats(-5, 5), share=st.floats(0, 0.6), seed=st.integers(0, 99), far=st.floats(3, 20))
def test_drift_is_what_all_scenery_does(dx: float, dy: float, share: float, seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(np.arange(8.0, 160, 16), np.arange(8.0, 120, 16)), -1).reshape(-1, 2)
    shadowed = rng.random(len(place)) < share
    still = np.where(shadowed[:, None], far, 0.0) + rng.normal(0, 0.05, (len(place), 2))
    if shadowed.mean() < 0.65:
        assert _coherent(place, still) < 0.4
    moving = np.array([dx, dy]) + rng.normal(0, 0.05, (len(place), 2))
    assert _coherent(place, moving) == pytest.approx(np.hypot(dx, dy), abs=0.3)


def test_operating_points_scale_what_is_no_definition(tmp_path: Path) -> None:
    balanced, strict = load_settings(), load_settings(operating_point="strict")
    factor = balanced.operating_points["strict"].scale
    assert factor < 1
    assert strict.threshold("arm_offset").limit == pytest.approx(factor * balanced.threshold("arm_offset").limit)
    assert strict.threshold("support").limit > balanced.threshold("support").limit
    assert strict.threshold("length") == balanced.threshold("length")
    assert strict.at("balanced").threshold("arm_offset").limit == pytest.approx(balanced.threshold("arm_offset").limit)
    with pytest.raises(InputError, match="strict"):
        load_settings(operating_point="lenient")
    own = tmp_path / "own.yaml"
    own.write_text("operating_points: {lenient: {scale: 2}}\noperating_point: lenient\n")
    assert load_settings(own).threshold("lag").limit == pytest.approx(2 * balanced.threshold("lag").limit)
    assert load_settings(own).operating_point == "lenient"


@given(
    value=st.floats(0.1, 10),
    limit=st.floats(0.1, 10),
    factor=st.floats(0.2, 1),
    worse=st.sampled_from(["above", "below"]),
)
def test_a_sharper_point_never_passes_more(value: float, limit: float, factor: float, worse: str) -> None:
    threshold = Threshold(limit, worse=worse)
    if threshold.fails(value):
        assert threshold.scaled(factor).fails(value)


@given(share=st.floats(0, 1), good=st.floats(0.5, 1), bad=st.floats(0, 0.4), seconds=st.floats(0, 1000))
def test_cost_of_an_accepted_take(share: float, good: float, bad: float, seconds: float) -> None:
    point = OperatingPoint(1.0, clean_passed=good, faulty_passed=bad)
    found = economics(point, share, seconds)
    if found.accepted_share > 0:
        assert found.seconds_per_accepted == pytest.approx(seconds * found.attempts_per_accepted)
        assert found.attempts_per_accepted >= 1
        assert found.faulty_share <= share + 1e-9
    assert faulty_share_of(point, found.accepted_share) == pytest.approx(share, abs=1e-6)


def test_economics_refuses_in_words() -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        economics(OperatingPoint(1, 0.9, 0, 0.1), 1.5, 10)
    with pytest.raises(InputError, match="negative"):
        economics(OperatingPoint(1, 0.9, 0, 0.1), 0.5, -1)
    with pytest.raises(InputError, match="no measured rates"):
        economics(OperatingPoint(1), 0.5, 10)
    with pytest.raises(InputError, match="more faithful"):
        faulty_share_of(OperatingPoint(1, 0.1, 0, 0.1), 0.5)


def test_nothing_is_added_to_a_faithful_take_and_a_new_thing_is(clean: Judged) -> None:
    settings = load_settings().stability
    truth, footage = clean.truth, clean.footage
    none, texture = measure_additions(footage, truth, settings)
    assert (none.value or 0.0) == 0.0
    assert texture.value is None or texture.value < 0.3
    ground = workspace(truth, truth.size)
    assert ground is not None
    free = ground & (cv2.dilate((truth.labels > 0).any(0).astype(np.uint8), np.ones((13, 13), np.uint8)) == 0)
    inner = cv2.erode(free.astype(np.uint8), np.ones((17, 17), np.uint8))
    assert inner.any(), "the scene has free ground"
    y, x = np.argwhere(inner)[0]
    frames = footage.frames.copy()
    frames[FRAMES // 3 :, y - 8 : y + 9, x - 8 : x + 9] = (230, 40, 200)
    found = measure_additions(replace(footage, frames=frames), truth, settings)[0]
    assert found.value == pytest.approx(16 * truth.px, rel=0.35)
    darker = footage.frames.copy()
    darker[FRAMES // 3 :, y - 8 : y + 9, x - 8 : x + 9] //= 2
    shadow = measure_additions(replace(footage, frames=darker), truth, settings)[0]
    assert (shadow.value or 0.0) < 8


def test_a_track_goes_on_after_frames_that_say_nothing(clean: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dark frames before scenery of the object's colours: nothing is said of them, and what comes later is told again."""
    monkeypatch.setattr(tracking, "_around", lambda clutter, mask: 1.0)
    frames, dark = clean.footage.frames.copy(), slice(10, 13)
    frames[dark] = 0
    found = tracking.track(replace(clean.footage, frames=frames), clean.truth, object_part(clean))
    assert found is not None
    assert np.isnan(found.here[dark]).all()
    assert np.isnan(found.found[dark]).all()
    seen = np.flatnonzero(clean.truth.area[13:, object_part(clean)] >= tracking.MIN_AREA) + 13
    assert len(seen) > 10
    assert np.isfinite(found.here[seen]).all()


@pytest.mark.parametrize(("width", "height", "inner"), [(3, 3, 0), (6, 7, 0), (5, 9, 21), (9, 9, 49)])
def test_the_core_of_a_mask_is_its_inside_where_that_is_enough(width: int, height: int, inner: int) -> None:
    mask = np.zeros((20, 20), bool)
    mask[4 : 4 + height, 5 : 5 + width] = True
    core = tracking._core(mask)
    assert core.sum() == (inner or width * height)
    assert not (core & ~mask).any()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_scenery_seen_elsewhere_is_the_median_of_the_frames_that_show_it(seed: int) -> None:
    """Against a loop over pixels: the lower median of what other frames show of a place; of none, the frame's own."""
    rng = np.random.default_rng(seed)
    frames, width, height = 5, 6, 4
    codes = [rng.integers(0, 50, (2 * height, 2 * width)) for _ in range(frames)]
    table = rng.uniform(0, 1, 50).astype(np.float32)
    shown = rng.random((frames, height, width)) < 0.6
    x, y = (grid.astype(np.float32) for grid in np.meshgrid(np.arange(width), np.arange(height)))
    still = SimpleNamespace(same_place=lambda t, r: (x, y, shown[r]))
    now, *others = (cv2.resize(table[c], (width, height), interpolation=cv2.INTER_AREA) for c in codes)
    wanted = now.copy()
    for row, column in np.ndindex(height, width):
        values = sorted(o[row, column] for o, s in zip(others, shown[1:], strict=True) if s[row, column])
        wanted[row, column] = values[(len(values) - 1) // 2] if values else now[row, column]
    every = dict(enumerate([now, *others]))
    found = tracking._seen_elsewhere(still, 0, now, every)  # type: ignore[arg-type]
    assert np.allclose(found, cv2.dilate(wanted, np.ones((3, 3), np.uint8)), atol=1e-6)
    for scene_or_none, known in ((None, every), (still, {0: now})):
        alone = tracking._seen_elsewhere(scene_or_none, 0, now, known)  # type: ignore[arg-type]
        assert np.array_equal(alone, now)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_histogram_sums_to_one_of_however_few_pixels(count):
    from retake.core.verdicts.bodies import _histogram

    assert np.isclose(_histogram(np.full(count, 30)).sum(), 1, atol=1e-5)
    assert _histogram(np.zeros(0, int)).sum() == 0
