# SPDX-License-Identifier: Apache-2.0
"""Pictures of a verdict: which are drawn, of which frames, what stands on them, and that no stroke moves by accident.

`python tests/test_verdicts_pictures.py` writes the sums of the pictures anew where they were changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from scenes import make_scene_episode

from retake.core.episode import Episode, open_episode
from retake.core.verdicts import load_settings
from retake.core.verdicts.alignment import Alignment
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.pictures import (
    FOUND,
    KNOWN,
    LEFT_OUT,
    OBJECT,
    PLOTTED,
    save_pictures,
    save_recording_pictures,
    side_by_side,
    skeleton,
    timeline,
)
from retake.core.verdicts.records import Check, Status, Verdict
from retake.core.verdicts.tracking import Track
from retake.core.verdicts.truth import read_truth

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "pictures.json"
SHARE = 1e-3
"""Of a strip's sums: one pixel of a stroke moves them by more."""
FRAMES, SIZE, CAPTION = 13, (256, 192), 26
RADIUS = 6
SETTINGS = load_settings()
KEPT: list[Any] = []


@lru_cache(maxsize=1)
def episode() -> Episode:
    made = tempfile.TemporaryDirectory(prefix="retake-pictures-")
    KEPT.append(made)
    make_scene_episode(Path(made.name) / "e", frames=FRAMES, size=SIZE, shadows=False)
    return open_episode(Path(made.name) / "e")


def check(
    name: str, status: Status = "fail", value: float | None = 3.0, frame: int | None = 0, note: str = "", unit: str = "px"
) -> Check:  # fmt: skip
    return Check(name, status, value, 2.0, unit, "measured", note, frame)


def verdict(*checks: Check, **more: Any) -> Verdict:
    return Verdict("fail", 0.1, "none", checks, "front", more.pop("start", 0), FRAMES, 15.0, SIZE, "0" * 64, **more)


def judged(
    shift: tuple[int, int] = (0, 0), seen: int = 40, width: int = 128, tracked: bool = True, since: int = 0
) -> Judged:  # fmt: skip
    """A take whose robot is best explained by that shift, working px, from a frame on; `seen` contour points stand behind it
    per frame and part."""
    truth = read_truth(episode(), "front", 0, FRAMES, width)
    pictures = np.stack([cv2.resize(take(t), truth.size, interpolation=cv2.INTER_AREA) for t in range(FRAMES)])
    parts, span = len(truth.parts), 2 * RADIUS + 1
    scores = np.empty((FRAMES, parts, span, span), np.float32)
    for t in range(FRAMES):
        away = np.indices((span, span)) - RADIUS - np.array(shift[::-1] if t >= since else (0, 0))[:, None, None]
        scores[t] = np.exp(-(away**2).sum(0) / 8)
    lags = np.zeros((FRAMES, 3, parts))
    alignment = Alignment(
        1, scores, np.full((FRAMES, parts), float(seen)), lags, lags, RADIUS, 1, np.zeros(parts), np.zeros(parts)
    )
    (packet,) = [k for k in truth.object_parts if truth.parts[k].name == "packet"]
    expected = truth.centroid[:, packet]
    found = expected + np.array([6.0, -4.0])
    found[-1] = np.nan
    nothing = np.zeros(FRAMES)
    track = Track(packet, found, expected, nothing, nothing, nothing, found, 1.0, np.zeros((FRAMES, 4, 4), np.float32))
    tracks = {"packet": track} if tracked else {}
    return Judged(verdict(), truth, make_footage(pictures, truth), alignment, tracks, ())


def take(t: int) -> np.ndarray:
    """The simulator's picture in other colours, and its scenery creeping to the right."""
    return np.roll(episode().image("front", "rgb", t)[..., ::-1], t // 2, 1)


def strips(image: np.ndarray) -> dict[str, np.ndarray]:
    return {str(y): image[y : y + 12] for y in range(0, len(image), 12)}


def sides() -> dict[str, Any]:
    posture = check("object_posture", note="turned by 45°, held", frame=FRAMES - 1)
    cases = {
        "arm moved": (judged((3, -2)), check("arm_offset", frame=3)),
        "arm moved late": (judged((4, 3), since=FRAMES - 6), check("arm_offset", frame=FRAMES - 1)),
        "arm moved soon": (judged((4, 3), since=6), check("arm_offset", frame=0)),
        "arm hardly moved": (judged((1, 0), width=256), check("arm_offset", "unsure", frame=2)),
        "hardly seen": (judged((3, -2), seen=0, tracked=False), check("lag", value=None, frame=99)),
        "turned": (judged(width=256), posture),
        "drift": (judged(tracked=False), check("background_drift", frame=FRAMES - 1)),
    }
    return {
        name: strips(side_by_side(given, episode(), take(one.worst_frame % FRAMES), one, SETTINGS))
        for name, (given, one) in cases.items()
    }


SERIES = {
    "arm_offset": (0.5, 1.0, None, 2.5, 1.0, 0.2), "object_held": (None, None, 0.3, 0.1, 0.9, 5.0),
    "support": (None,) * 6, "local_lag": (-3.0, 1.0, 0.0, 0.1, 0.0, 0.0), "unknown": (1.0,) * 6,
}  # fmt: skip


def drawn_over_time() -> Verdict:
    checks = (
        check("arm_offset"), check("object_held", "unsure", unit="×"), check("support", "skipped", value=None),
        replace(check("local_lag", "pass"), threshold=None),
    )  # fmt: skip
    return verdict(*checks, series=SERIES, events={"grasp": 1, "release": 4, "settled": None})


def timelines() -> dict[str, Any]:
    return {
        "several": strips(timeline(drawn_over_time())), "none": strips(timeline(verdict())),
        "one frame": strips(timeline(verdict(check("arm_offset"), series={"arm_offset": (1.0,)}))),
    }  # fmt: skip


CASES = {"beside each other": sides, "over time": timelines}


@pytest.mark.parametrize("case", CASES)
def test_a_picture_is_drawn_as_it_was(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


def has(image: np.ndarray, colour: tuple[int, int, int], apart: int = 0) -> int:
    """How many pixels have the colour; thin strokes have it nearly."""
    return int((np.abs(image.astype(int) - colour) <= apart).all(-1).sum())


def panels(given: Judged, one: Check) -> tuple[np.ndarray, np.ndarray]:
    image = side_by_side(given, episode(), take(one.worst_frame or 0), one, SETTINGS)
    assert image.shape == (CAPTION + SIZE[1], 2 * SIZE[0], 3)
    return image[CAPTION:, : SIZE[0]], image[CAPTION:, SIZE[0] :]


def test_the_simulation_stands_on_the_left_and_the_take_on_the_right() -> None:
    untouched = np.s_[:20, :20]
    left, right = panels(judged(tracked=False), check("arm_offset", frame=2))
    assert np.array_equal(left[untouched], episode().image("front", "rgb", 2)[untouched])
    assert np.array_equal(right[untouched], take(2)[untouched])
    assert has(left, KNOWN) > 100
    assert has(left, OBJECT) > 10


@pytest.mark.parametrize(("width", "px", "told"), [(256, 0, False), (256, 1, False), (256, 2, True), (128, 1, True)])
def test_an_arm_is_drawn_in_another_place_from_a_pixel_of_the_recording_on(width: int, px: int, told: bool) -> None:
    given = judged((px, 0), width=width)
    known, found = skeleton(given, episode(), 4)
    apart = [b - a for one, other in zip(known, found, strict=True) for a, b in zip(one, other, strict=True)]
    assert len(known) >= 3
    assert np.allclose(apart, [px * 256 / width, 0], atol=0.02)
    bare = [has(panel, FOUND) for panel in panels(judged((0, 0), width=width), check("arm_offset", frame=4))]
    moved = [has(panel, FOUND) for panel in panels(given, check("arm_offset", frame=4))]
    assert all((m > b + 30) == told for m, b in zip(moved, bare, strict=True))


def test_another_posture_is_outlined_in_the_take_alone() -> None:
    bare, posture = (check("object_posture", value=v, note="lying, held", frame=FRAMES - 1) for v in (None, 0.9))
    given = judged(width=256)
    shown = [panels(given, one) for one in (bare, posture)]
    assert np.array_equal(shown[0][0], shown[1][0])
    assert has(shown[1][1], FOUND, 60) > has(shown[0][1], FOUND, 60) + 20
    (still,) = panels(given, replace(posture, note="as it should be"))[1:]
    assert np.array_equal(still, shown[0][1]), "of no posture that is known"


def test_what_scenery_does_not_share_is_left_out_of_a_drift() -> None:
    given = judged(width=256, tracked=False)
    grain = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(*SIZE[::-1], 3)), (0, 0), 2.0)
    still = np.repeat(np.clip(128 + 200 * grain, 0, 255).astype(np.uint8)[None], FRAMES, 0)
    moved = still.copy()
    moved[-1, 96:, :96] = np.roll(still[-1], 4, 1)[96:, :96]
    drift = check("background_drift", frame=FRAMES - 1)
    found = [replace(given, footage=replace(given.footage, frames=frames)) for frames in (still, moved)]
    shown = [panels(one, drift)[1] for one in found]
    pink = [has(image, LEFT_OUT, 40) for image in (shown[0], shown[1], shown[1][:80], shown[1][:, 128:])]
    assert pink[1] > 20
    assert pink[0] == pink[2] == pink[3] == 0
    assert has(shown[1], KNOWN, 40) > has(panels(found[1], check("seams", frame=FRAMES - 1))[1], KNOWN, 40) + 20
    moving = replace(found[1], truth=replace(given.truth, static_camera=False))
    assert has(panels(moving, drift)[1], LEFT_OUT, 40) == 0


def test_a_timeline_has_a_row_for_every_series_that_holds_a_number() -> None:
    rows = [name for name in PLOTTED if name in SERIES and any(v is not None for v in SERIES[name])]
    assert rows == ["arm_offset", "local_lag", "object_held"]
    assert len(timeline(drawn_over_time())) - len(timeline(verdict())) == 86 * (len(rows) - 1)
    own = {"arm_offset": SERIES["arm_offset"]}
    for colour, status in (((200, 40, 40), "fail"), ((30, 120, 80), "pass"), ((200, 140, 20), "unsure")):
        lit = [
            has(timeline(verdict(check("arm_offset", s), series=own)), colour, 50) for s in ("fail", "pass", "unsure")
        ]
        assert max(lit) == lit[("fail", "pass", "unsure").index(status)] > sorted(lit)[1] + 20


@pytest.fixture
def film(tmp_path: Path) -> Path:
    folder = tmp_path / "film"
    folder.mkdir()
    for t in range(FRAMES):
        cv2.imwrite(str(folder / f"{t}.png"), take(t)[..., ::-1])
    return folder


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def test_what_failed_or_is_unsure_is_shown_at_its_worst_frame(film: Path, tmp_path: Path) -> None:
    checks = (
        check("arm_offset", frame=5), check("seams", "pass", value=9.0, frame=2), check("lag", "unsure", frame=0),
        check("object_fall", "fail", frame=None), check("darkness", "skipped", None, 3),
        check("local_lag", "fail", frame=FRAMES + 3),
    )  # fmt: skip
    given = judged((3, 0))
    given = replace(given, verdict=verdict(*checks, series={"arm_offset": (1.0, 2.0)}))
    found = save_pictures(given, film, episode(), tmp_path / "v" / "deep", SETTINGS)
    named = {c.name: c.picture for c in found.checks if c.picture}
    assert named == {"arm_offset": "worst_arm_offset.png", "lag": "worst_lag.png"}
    assert {p.name for p in (tmp_path / "v" / "deep").iterdir()} == {*named.values(), "timeline.png"}
    for one in checks[:3:2]:
        wanted = side_by_side(given, episode(), take(one.worst_frame or 0), one, SETTINGS)
        assert np.array_equal(read(tmp_path / "v" / "deep" / str(named[one.name])), wanted)
    assert np.array_equal(read(tmp_path / "v" / "deep" / "timeline.png"), timeline(given.verdict))
    again = save_pictures(given, film, episode(), tmp_path / "v" / "deep", SETTINGS)
    assert again == found, "a folder that is there is written to again"


def test_of_a_take_that_passed_the_check_nearest_to_its_limit_is_shown(film: Path, tmp_path: Path) -> None:
    limits = {name: SETTINGS.threshold(name).limit for name in ("arm_offset", "seams")}
    near = check("seams", "pass", 0.9 * limits["seams"], 4)
    far = check("arm_offset", "pass", 0.2 * limits["arm_offset"], 1)
    unplaced = check("flicker", "pass", 0.99 * SETTINGS.threshold("flicker").limit, None)
    given = replace(judged(), verdict=verdict(far, near, unplaced, check("lag", "skipped", None, 2)))
    found = save_pictures(given, film, episode(), tmp_path / "v", SETTINGS)
    assert [c.name for c in found.checks if c.picture] == ["seams"]
    bare = replace(judged(), verdict=verdict(unplaced))
    assert not any(c.picture for c in save_pictures(bare, film, episode(), tmp_path / "w", SETTINGS).checks)


def test_a_take_of_a_recording_is_shown_beside_the_frame_it_shows(film: Path, tmp_path: Path) -> None:
    start = 3
    checks = (
        check("frozen_part", frame=FRAMES - 1), check("late", "unsure", frame=2), check("shift", "pass", frame=1),
        check("other", frame=FRAMES + 1), check("last", frame=FRAMES - 1 - start), check("none", frame=None),
    )  # fmt: skip
    found = save_recording_pictures(verdict(*checks, start=start), film, episode(), tmp_path / "v")
    named = {c.name: c.picture for c in found.checks if c.picture}
    assert named == {"late": "worst_late.png", "last": "worst_last.png"}
    for name, t in (("late", 2), ("last", FRAMES - 1 - start)):
        wanted = np.concatenate([episode().image("front", "rgb", start + t), take(t)], 1)
        assert np.array_equal(read(tmp_path / "v" / str(named[name])), wanted)
    again = save_recording_pictures(verdict(*checks, start=start), film, episode(), tmp_path / "v")
    assert again == found


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(make()) for case, make in CASES.items()})
    sys.exit(0)
