# SPDX-License-Identifier: Apache-2.0
"""Things that stand still before a camera that does: a drawer that opens towards it, light and shadow that only pass."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retake.core.verdicts import stills
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.stills import measure_stills

FRAMES, SIZE = 60, (160, 120)
SETTINGS = load_settings().stability
BOX = (60, 45, 100, 75)
"""x0, y0, x1, y1 of a drawer's front, working px."""


def drawn(
    t: int, grow: float, seed: int = 0, shade: np.ndarray | None = None, noise: float = 1.0, gap: bool = False
) -> np.ndarray:
    """Frame t of a cabinet with a drawer whose front is `grow` px larger on every side, hardly told from it but for a dark `gap`
    around it: RGB float."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.normal(0, 30, (SIZE[1], SIZE[0])).astype(np.float32), (0, 0), 1.5)
    picture = np.array((150, 140, 130), np.float32) + texture[..., None]
    cv2.rectangle(picture, (48, 36), (112, 84), (90, 70, 120), -1)
    x0, y0, x1, y1 = np.array(BOX) + np.array([-1, -1, 1, 1]) * grow
    fine = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    corners = (np.array([x0, y0, x1, y1]) * 4).round().astype(int)
    cv2.rectangle(fine, corners[:2].tolist(), corners[2:].tolist(), (105, 85, 135), -1)
    middle, half = (corners[:2] + corners[2:]) // 2, (corners[2:] - corners[:2]) / 2
    for share, colour in (
        (0.75, (80, 60, 110)),
        (0.6, (110, 90, 140)),
        (0.2, (60, 45, 85)),
    ):  # a frame, its board, a knob
        cv2.rectangle(
            fine, (middle - share * half).astype(int).tolist(), (middle + share * half).astype(int).tolist(), colour, -1
        )
    if gap:
        cv2.rectangle(fine, corners[:2].tolist(), corners[2:].tolist(), (30, 20, 40), 5)
    picture = cv2.resize(fine, SIZE, interpolation=cv2.INTER_AREA)
    if shade is not None:
        picture = picture * (shade if shade.ndim == 3 else shade[..., None])
    return picture + np.random.default_rng([seed, t]).normal(0, noise, picture.shape)


def measured(pictures: list[np.ndarray]) -> Any:
    frames = np.stack([np.clip(p, 0, 255).astype(np.uint8) for p in pictures])
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1

    class Truth(SimpleNamespace):
        def __len__(self) -> int:
            return FRAMES

        def is_still(self, _: int) -> bool:
            return True

    labels = np.zeros((FRAMES, SIZE[1], SIZE[0]), np.uint8)
    truth = Truth(
        static_camera=True,
        stills=("drawer",),
        still_labels=mask,
        parts=(),
        labels=labels,
        area=np.zeros((FRAMES, 0)),
        px=2.0,
    )
    footage = Footage(frames, frames[0].astype(np.float32), np.ones(mask.shape, bool), 1.0)
    return measure_stills(footage, truth, SETTINGS)  # type: ignore[arg-type]


def lit(t: int, first: int, last: int, dark: float, slope: float) -> np.ndarray:
    """Light with the edge of a shadow that crosses the picture from frame `first` to `last`."""
    x = np.indices((SIZE[1], SIZE[0]))[1] + slope * np.indices((SIZE[1], SIZE[0]))[0]
    edge = np.interp(t, [first, last], [20, 150])
    return cv2.GaussianBlur(np.where(np.abs(x - edge) < 14, 1 - dark, 1.0).astype(np.float32), (0, 0), 0.8)


@given(opening=st.floats(4, 8), begin=st.integers(8, 30), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_drawer_that_opens_towards_the_camera_is_told(opening: float, begin: int, seed: int) -> None:
    found = measured([drawn(t, opening * float(np.clip((t - begin) / 8, 0, 1)), seed) for t in range(FRAMES)])
    assert (found.value or 0.0) > 4
    assert found.note == "drawer"


@given(
    seed=st.integers(0, 99),
    noise=st.floats(0, 6),
    dark=st.floats(0, 0.6),
    slope=st.floats(-1, 1),
    begin=st.integers(0, 30),
)
@settings(deadline=None)
def test_a_shadow_that_passes_moves_nothing(seed: int, noise: float, dark: float, slope: float, begin: int) -> None:
    found = measured([drawn(t, 0, seed, lit(t, begin, begin + 25, dark, slope), noise) for t in range(FRAMES)])
    assert found.value == 0.0


@given(
    seed=st.integers(0, 99),
    dark=st.floats(0.65, 0.7),
    wide=st.integers(9, 14),
    first=st.integers(62, 70),
    last=st.integers(85, 98),
)
@settings(deadline=None)
def test_a_hard_shadow_that_lay_on_it_and_moves_on_to_stay_moves_nothing(
    seed: int, dark: float, wide: int, first: int, last: int
) -> None:
    """It takes away the edges of before and leaves others; the outline shows where it was."""
    x = np.indices((SIZE[1], SIZE[0]))[1]
    before, after = (np.where(np.abs(x - at) < wide, 1 - dark, 1.0).astype(np.float32) for at in (first, last))
    found = measured([drawn(t, 0, seed, before if t < 20 else after, gap=True) for t in range(FRAMES)])
    assert found.value == 0.0


@given(seed=st.integers(0, 99), dark=st.floats(0.4, 0.7), comes=st.booleans(), edge=st.integers(54, 60))
@example(seed=3, dark=0.8, comes=True, edge=56)
@settings(deadline=None)
def test_a_shadow_that_most_of_it_lies_in_at_first_or_at_last_moves_nothing(
    seed: int, dark: float, comes: bool, edge: int
) -> None:
    """Its edges are others in another light, and the border of the shadow has lain on it or does. It is less than half of the
    picture: of more, nobody knows it from another exposure."""
    x = np.indices((SIZE[1], SIZE[0]))[1]
    shade = np.where(((x > edge) & (x < 120))[..., None], (1 - dark) * np.array((1, 1, 1 + 0.3 * dark)), 1.0).astype(
        np.float32
    )
    found = measured([drawn(t, 0, seed, shade if (t >= FRAMES // 2) == comes else None) for t in range(FRAMES)])
    assert found.value == 0.0


@given(light=st.floats(0.6, 1.4), opening=st.floats(4, 8), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_drawer_that_opens_is_told_in_any_exposure(light: float, opening: float, seed: int) -> None:
    """The whole picture gets brighter or darker while it does."""
    shade = np.full((SIZE[1], SIZE[0]), light, np.float32)
    found = measured([drawn(t, opening if t >= 20 else 0, seed, shade if t >= 20 else None) for t in range(FRAMES)])
    assert (found.value or 0.0) > 4


@pytest.mark.parametrize("comes", [True, False])
def test_a_shadow_that_stays_or_leaves_for_good_moves_nothing(comes: bool) -> None:
    """It lies over half the drawer before, or after, the middle of the take."""
    half = np.where(np.indices((SIZE[1], SIZE[0]))[1] < 80, 0.5, 1.0).astype(np.float32)
    found = measured([drawn(t, 0, 0, half if (t >= FRAMES // 2) == comes else None) for t in range(FRAMES)])
    assert found.value == 0.0


def detail(seed: int = 0) -> np.ndarray:
    """What a picture of 90 x 70 px shows beside its light."""
    return cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 40, (70, 90)).astype(np.float32), (0, 0), 1.0)


def area(rows: slice = slice(25, 45), columns: slice = slice(30, 60)) -> np.ndarray:
    out = np.zeros((70, 90), bool)
    out[rows, columns] = True
    return out


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, -2), (-12, 9), (0, 15), (-7, 0)])
def test_a_thing_is_as_far_beside_its_place_as_it_is(dx: int, dy: int) -> None:
    found = stills._displacement(detail(), np.roll(detail(), (dy, dx), (0, 1)), area(), area() & False, SETTINGS)
    assert found == pytest.approx(np.hypot(dx, dy), abs=0.4)


@pytest.mark.parametrize("way", [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_what_fits_best_at_the_rim_of_what_is_searched_is_no_place(way: tuple[int, int]) -> None:
    """The hand's shadow lay on a robot's foot at first; the foot's own edges stay, and at the rim another shadow fits better."""

    def beside(far: int) -> float | None:
        shift = (far * way[0] + 5 * abs(way[1]), far * way[1] + 5 * abs(way[0]))
        image = 0.45 * detail() + 0.7 * np.roll(detail(), shift, (0, 1))
        return stills._displacement(detail(), image.astype(np.float32), area(), area() & False, SETTINGS)

    assert beside(15) == pytest.approx(np.hypot(15, 5), abs=0.4)
    assert beside(16) == 0.0


def test_a_thing_that_is_nowhere_is_as_far_off_as_one_looks() -> None:
    assert stills._displacement(detail(), detail(1), area(), area() & False, SETTINGS) == stills.REACH == 16


EXACT = replace(SETTINGS, still_match=0.5, still_gain=0.125, still_share=0.25, still_lost=0.25)
"""Limits that a float holds."""
MIDDLE = (stills.REACH, stills.REACH)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({MIDDLE: 0.25}, 0.0), ({MIDDLE: 0.249}, 16.0),
        *(({(16 + dy, 16 + dx): 0.25}, 0.0) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1))),
        *(({(16 + dy, 16 + dx): 0.25}, 16.0) for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2), (2, 2))),
        ({MIDDLE: 0.25, (10, 24): 0.5}, 0.0), ({MIDDLE: 0.25, (10, 24): 0.501}, 10.0),
        ({MIDDLE: 0.5, (10, 24): 0.625}, 0.0), ({MIDDLE: 0.5, (10, 24): 0.626}, 10.0),  # the least gain there is
        ({MIDDLE: 0.75, (22, 8): 0.875}, 0.0), ({MIDDLE: 0.75, (22, 8): 0.876}, 10.0),
        ({MIDDLE: 0.375, (10, 24): 0.53125}, 0.0), ({MIDDLE: 0.375, (10, 24): 0.532}, 10.0),  # a share of what it lacks
        ({MIDDLE: 0.3, (10, 24): np.inf}, 0.0), ({MIDDLE: np.nan}, 16.0),
    ],
)  # fmt: skip
def test_a_thing_is_elsewhere_where_it_fits_better_by_enough(
    monkeypatch: pytest.MonkeyPatch, scores: dict[tuple[int, int], float], told: float
) -> None:
    surface = np.zeros((33, 33), np.float32)
    for place, score in scores.items():
        surface[place] = score
    monkeypatch.setattr(cv2, "matchTemplate", lambda *_, **__: surface)
    found = stills._displacement(detail(), detail(), area(), area() & False, EXACT)
    assert found == pytest.approx(told, abs=1e-6)


@pytest.mark.parametrize(("columns", "told"), [(17, True), (18, True), (19, False)])
def test_two_fifths_of_a_thing_must_show(columns: int, told: bool) -> None:
    """Of 30 columns; what shows elsewhere in its place says nothing where it is hidden."""
    hidden = area(columns=slice(30, 30 + columns))
    image = np.where(area(columns=slice(20, 30 + columns)), detail(1), detail()).astype(np.float32)
    found = stills._displacement(detail(), image, area(), hidden | area(columns=slice(20, 30)), SETTINGS)
    assert found == (0.0 if told else None)


@pytest.mark.parametrize(("wide", "told"), [(10, True), (9, False)])
def test_eighty_px_of_a_thing_must_show(wide: int, told: bool) -> None:
    small = area(slice(25, 33), slice(30, 30 + wide))
    assert stills._displacement(detail(), detail(), small, small & False, SETTINGS) == (0.0 if told else None)


def test_a_thing_without_contrast_cannot_be_told() -> None:
    deviation = float(detail()[22:48, 27:63].std())  # of it and three px around
    for share, told in ((1.01, True), (0.99, False)):
        faint = detail() * np.float32(share * SETTINGS.still_contrast / deviation)
        assert (stills._displacement(faint, faint, area(), area() & False, SETTINGS) is not None) == told


def edge(strength: float = 10.0, at: int = 10, seven: bool = False) -> np.ndarray:
    """Gradients (h, w, 6) of an upright edge, alike in all channels."""
    out = np.zeros((20, 30, 6), np.float32)
    out[:, at, 3 * seven : 3 * seven + 3] = strength
    return out


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (edge(), 1.0),
        (edge(5), 1.0),
        (edge(2.5), 0.5),
        (edge(40), 1.0),
        (edge(-10), 0.0),
        (edge(at=11), 1.0),
        (edge(at=9), 1.0),
        (edge(at=12), 0.0),
        (edge(at=8), 0.0),
        (edge(seven=True), 0.0),
        (0 * edge(), 0.0),
    ],
)
def test_an_edge_is_kept_within_a_pixel_in_its_direction_and_half_as_strong(other: np.ndarray, share: float) -> None:
    every = np.ones((20, 30), bool)
    every[:, 20:] = False
    use = every & (np.indices(every.shape)[1] == 10)
    assert stills._kept(edge(), other, use) == pytest.approx(share, abs=1e-5)
    assert stills._kept(edge(), other, every & False) == 1.0


def test_strong_edges_are_two_fifths_of_a_thing_s_and_count_by_their_strength() -> None:
    one = np.zeros((1, 10, 6), np.float32)
    one[0, :, 0] = np.arange(10) * 10
    other = one.copy()
    other[0, 7:] = 0  # of 60, 70, 80 and 90 the last two are gone, 70 is beside 60
    assert stills._kept(one, other, np.ones((1, 10), bool)) == pytest.approx((60 + 70) / 300, abs=1e-5)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ({6: 0.5, 12: 0.5, 18: 0.5}, {6: 8.0, 12: 8.0, 18: 8.0}),
        ({6: 0.5, 12: 0.0, 18: 0.25}, {}),
        ({6: 0.0, 12: 0.5, 18: 0.5}, {}),
        ({6: 0.0, 12: 0.5, 18: 0.5, 24: 0.25}, {12: 8.0, 18: 8.0, 24: 4.0}),
        ({6: 0.5, 12: 0.5, 18: 0.5, 24: 0.0}, {}),
    ],
)
def test_another_view_of_a_thing_lasts_for_three_looks_up_to_the_last(
    monkeypatch: pytest.MonkeyPatch, gone: dict[int, float], told: dict[int, float]
) -> None:
    frames = np.zeros((25, 20, 30, 3), np.uint8)
    edges = stills._Edges(Footage(frames, frames[0].astype(np.float32), np.ones((20, 30), bool), 1.0))
    thing, hidden = np.ones((20, 30), bool), {t: np.zeros((20, 30), bool) for t in gone}

    def share(mask: Any, before: Any, t: int) -> float:
        assert mask is thing
        assert before is hidden[t]
        return gone[t]

    monkeypatch.setattr(edges, "_gone", share)
    for outlined, lasts in ((stills._IN_PLACE, told), (stills._IN_PLACE + 1e-6, {})):
        monkeypatch.setattr(stills, "_outlined", lambda *_, outlined=outlined: outlined)
        assert edges.changed(thing, hidden) == lasts


def test_things_are_those_that_stand_and_are_large_enough() -> None:
    labels = np.zeros((3, 40, 60), np.uint8)
    labels[0, :8, :10], labels[1, 10:18, :10], labels[2, 20:28, :9] = 1, 2, 3
    labels[1, :8, 10:20] = 1
    still = np.zeros((40, 60), np.uint8)
    still[30:, :8], still[30:, 10:17] = 1, 2
    truth: Any = SimpleNamespace(
        parts=[SimpleNamespace(name=name, robot="") for name in ("box", "ball", "tin")], stills=("tray", "peg"),
        still_labels=still,
        is_still=lambda k: k != 1, labels=labels, area=np.array([[80.0, 90, 70], [80, 90, 70], [0, 0, 72]]),
    )  # fmt: skip
    found = dict(stills._places(truth))
    assert list(found) == ["tray", "box"]
    assert [int(mask.sum()) for mask in found.values()] == [80, 160]
    truth.area[0, 0] = truth.area[1, 0] = 79
    assert list(dict(stills._places(truth))) == ["tray"]
    moving = stills._moving(truth, [0, 1])
    assert not moving[0].any()
    rows, columns = np.nonzero(moving[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 20, 0, 12)


def test_the_foot_of_a_robot_that_works_is_none_of_them() -> None:
    """The arm's shadow lies on it, and the arm stands before it; a cabinet that stays shut is one, whatever has joints."""
    robots = ("arm", "arm", "cabinet", "cabinet", "", "")
    labels = np.zeros((1, 40, 60), np.uint8)
    for k in range(len(robots)):
        labels[0, 20 * (k // 3) : 20 * (k // 3) + 10, 20 * (k % 3) : 20 * (k % 3) + 9] = k + 1
    truth: Any = SimpleNamespace(
        parts=[SimpleNamespace(name=f"part{k}", robot=robot) for k, robot in enumerate(robots)], stills=(),
        still_labels=labels[0] & 0, is_still=lambda k: k not in (1, 5), labels=labels, area=np.full((1, 6), 90.0),
        static_camera=False,
    )  # fmt: skip
    assert [name for name, _ in stills._places(truth)] == ["part2", "part3", "part4"]
    rows, columns = np.nonzero(stills._moving(truth, [0])[0])
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == (0, 17, 32, 51)
    assert not stills._moving(truth, [0])[0][5, 5], "it hides what is behind it from the first frame on"
    footage = Footage(np.zeros((1, 40, 60, 3), np.uint8), np.zeros((40, 60, 3), np.float32), labels[0] == 0, 1.0)
    looks = stills._Looks(footage, truth, SETTINGS, SimpleNamespace())  # type: ignore[arg-type]
    assert looks.names == ["part2", "part3", "part4"]
    assert looks.standing == {0, 2, 3, 4}
    truth.parts = truth.parts[:2]
    assert not stills._anything(truth)


@pytest.mark.parametrize(
    ("found", "value", "frame"),
    [
        ({6: 3.0, 12: 4.0, 18: 0.0}, 6.0, 6),
        ({6: 3.0, 12: 0.0, 18: 4.0}, 0.0, None),
        ({6: 3.0, 12: None, 18: 4.0}, 6.0, 6),
        ({6: None, 12: None, 18: 4.0}, 8.0, 18),
        ({6: 1.0, 12: 3.0, 18: 4.0}, 6.0, 12),
        ({6: None, 12: None, 18: None}, None, None),
    ],
)
def test_a_thing_is_beside_its_place_for_two_looks_in_a_row(
    monkeypatch: pytest.MonkeyPatch, found: dict[int, float | None], value: float | None, frame: int | None
) -> None:
    """Px of the recording, two per working px."""
    values = iter(found.values())
    monkeypatch.setattr(stills, "_displacement", lambda *_: next(values))
    monkeypatch.setattr(stills._Edges, "changed", lambda *_: {})
    frames = np.zeros((24, 30, 40, 3), np.uint8)
    still = np.ones((30, 40), np.uint8)
    truth: Any = SimpleNamespace(
        static_camera=True,
        stills=("tray",),
        still_labels=still,
        parts=(),
        labels=np.zeros((24, 30, 40), np.uint8),
        px=2.0,
    )
    film = Footage(frames, frames[0].astype(np.float32), still > 0, 1.0)
    told = measure_stills(film, truth, SETTINGS)
    assert (told.value, told.worst_frame, told.applies) == (value, frame, value is not None)
    assert told.note == ("tray: hidden or without contrast" if value is None else "tray" if value else "1 still")


@pytest.mark.parametrize(
    ("rows", "columns", "whole"),
    [
        (slice(5, 13), slice(5, 15), True),
        (slice(5, 13), slice(5, 14), False),
        (slice(0, 10), slice(5, 15), False),
        (slice(0, 12), slice(5, 15), True),
        (slice(28, 40), slice(5, 15), True),
        (slice(5, 15), slice(0, 12), True),
        (slice(5, 15), slice(0, 10), False),
        (slice(5, 15), slice(48, 60), True),
        (slice(0, 11), slice(0, 11), False),
        (slice(29, 40), slice(49, 60), False),
    ],
)
def test_a_thing_is_whole_that_touches_the_border_with_less_than_a_side(
    rows: slice, columns: slice, whole: bool
) -> None:
    shown = np.zeros((40, 60), np.uint8)
    shown[rows, columns] = 2
    looks: Any = SimpleNamespace(shown={3: shown})
    assert stills._Looks._whole(looks, 2, 3) == whole
    assert not stills._Looks._whole(looks, 1, 3)


@pytest.mark.parametrize(("shift", "on_it"), [(0, True), (1, True), (6, False)])
def test_an_outline_lies_on_edges_or_beside_them(shift: int, on_it: bool) -> None:
    frames = np.full((1, 70, 90, 3), 100, np.uint8)
    frames[0, 25:45, 30 + shift : 60 + shift] = 160
    hidden = np.zeros((70, 90), bool)
    assert (stills._outlined(area(), frames[0], hidden) > stills._IN_PLACE) == on_it
    hidden[:, 33:] = True  # its left side, 20 px high, two px wide, and some corners
    assert (stills._outlined(area(), frames[0], hidden) > stills._IN_PLACE) == on_it
    hidden[28:] = True  # less than 40 px of the outline
    assert stills._outlined(area(), frames[0], hidden) == 0


@pytest.mark.parametrize(("share", "gone"), [(0.75, 0.25), (0.8, 0.0), (0.9, 0.0), (0.0, 1.0)])
def test_another_view_has_lost_a_fifth_of_its_edges_and_brought_a_fifth(
    monkeypatch: pytest.MonkeyPatch, share: float, gone: float
) -> None:
    """Whichever is less; only a thing and three px around are asked, but for what hides them."""
    monkeypatch.setattr(stills, "_CHANGED", 0.25)
    frames = np.random.default_rng(1).integers(0, 255, (4, 70, 90, 3)).astype(np.uint8)
    edges = stills._Edges(Footage(frames, frames[0].astype(np.float32), area(), 1.0))
    hand = area(columns=slice(50, 90))
    asked: list[Any] = []
    for kept in ([share, 0.0], [0.0, share]):
        answers = iter(kept)
        monkeypatch.setattr(stills, "_kept", lambda *given, answers=answers: asked.append(given) or next(answers))
        assert edges._gone(area(), hand, 3) == gone
    (before, now, use), (after, then, _) = asked[:2]
    assert before is then
    assert now is after
    assert before.shape == (26, 36, 6)
    assert np.array_equal(use, ~hand[22:48, 27:63])
    assert np.array_equal(before, edges.first[22:48, 27:63])
    assert np.array_equal(now, stills._gradients(frames[3].astype(np.float32))[22:48, 27:63])


@pytest.mark.parametrize(("missing", "kept"), [(0, True), (1, False)])
def test_an_outline_tells_from_forty_px_on(monkeypatch: pytest.MonkeyPatch, missing: int, kept: bool) -> None:
    """And but for the three px at the borders of the picture."""
    frames = np.full((1, 70, 90, 3), 100, np.uint8)
    frames[0, :45, 30:60] = 160
    thing = area(slice(0, 45), slice(30, 60))
    hidden = np.ones((70, 90), bool)
    hidden[: 3 + 20, 29:31] = False  # two px wide, from the fourth row on
    hidden[3 : 3 + missing, 29] = True
    assert (stills._outlined(thing, frames[0], hidden) > 0) == kept
    surface = np.zeros((33, 33), np.float32)
    monkeypatch.setattr(cv2, "matchTemplate", lambda *_: surface)
    for here, best, rest, share in ((0.91, 1.0, 0.1, 0.91), (0.91, 0.91, 0.75, 1.0), (0.91, 1.0, 0.77, 0.0)):
        surface[:] = rest
        surface[17, 15], surface[3, 3], surface[14, 16] = here, best, 0.99 * best
        assert stills._outlined(thing, frames[0], hidden) == pytest.approx(share if kept else 0.0)


def whole_looks(monkeypatch: pytest.MonkeyPatch, told: dict[tuple[int, int], float | None]) -> tuple[Any, list[Any]]:
    """Looks at a thing (number 2) every six frames; told: (frame, earlier frame) -> displacement."""
    asked: list[Any] = []
    looks: Any = SimpleNamespace(
        times=list(range(0, 48, 6)), shown={t: np.full((4, 4), 2, np.uint8) for t in range(0, 48, 6)},
        details=dict.fromkeys(range(0, 48, 6)), settings=None, _whole=lambda number, t: t != 6,
        _as_seen=lambda r, t, mask: (asked.append((t, r)) or (t, r), None),
        hidden={t: np.zeros((4, 4), np.uint8) for t in range(0, 48, 6)}, frames=list(range(48)),
    )  # fmt: skip
    monkeypatch.setattr(
        stills, "_outlined", lambda mask, frame, hidden: stills._ON_EDGES + (0.01 if frame == 42 else 0)
    )
    monkeypatch.setattr(stills, "_displacement", lambda pair, *_: told.get(pair, 0.0))
    return looks, asked


def test_a_thing_is_compared_with_the_earliest_look_two_before_that_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, asked = whole_looks(monkeypatch, {(24, 0): None, (24, 12): 5.0, (30, 0): 3.0, (42, 0): 4.0})
    found = {t: stills._Looks.displaced(looks, 2, t) for t in looks.times}
    assert found == {0: None, 6: None, 12: 0.0, 18: 0.0, 24: 5.0, 30: 3.0, 36: 0.0, 42: 0.0}
    assert asked == [(12, 0), (18, 0), (24, 0), (24, 12), (30, 0), (36, 0), (42, 0)]
