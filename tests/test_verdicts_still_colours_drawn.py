# SPDX-License-Identifier: Apache-2.0
"""Colours of what stands still, by hand: how far apart two hues are, which pixels tell them, what lasts, and what is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import still_colours
from retake.core.verdicts.still_colours import change_of_colour

HEIGHT, WIDTH = 70, 80
RED, BLUE, GREY = (120, 60, 60), (60, 60, 120), (90, 90, 90)
APART = 2 * 60 / 240
"""Of red a half is red, of blue a quarter; and the other way round."""


def thing(high: int = 30, wide: int = 30) -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH), bool)
    out[20 : 20 + high, 25 : 25 + wide] = True
    return out


def picture(mask: np.ndarray, colour: Any, ground: Any = GREY) -> np.ndarray:
    return np.where(mask[..., None], colour, ground).astype(np.uint8)


def compared(
    mask: np.ndarray, now: Any, hidden: np.ndarray | None = None, ground: Any = GREY, before: Any = RED
) -> float | None:
    none = np.zeros_like(mask) if hidden is None else hidden
    return change_of_colour(picture(mask, now, ground), picture(mask, before).astype(np.float32), mask, none)


def test_hues_are_as_far_apart_as_their_shares_of_the_light() -> None:
    assert compared(thing(), BLUE) == pytest.approx(APART)
    assert compared(thing(), tuple(np.array(RED) // 2)) == pytest.approx(0)
    assert compared(thing(), (4, 2, 2)) == pytest.approx(0.25 * (1 - 8 / 48) * 4 / 3)  # too dark to have all of its hue
    assert compared(thing() & False, RED) is None
    edge = np.zeros((HEIGHT, WIDTH), bool)
    edge[:30, :30] = True  # the border of the picture is no outline
    assert compared(edge, BLUE) == pytest.approx(APART)


def test_what_the_surroundings_turn_by_is_taken_off() -> None:
    turned = tuple(np.array(GREY) + np.array([20, 0, -20]))
    own = tuple((np.array([0.5, 0.25, 0.25]) * 240 + np.array([20, 0, -20]) * 240 / 270).round().astype(int))
    assert compared(thing(), own, ground=turned) == pytest.approx(0, abs=0.01)
    alone = compared(thing(), own)
    assert alone == pytest.approx(40 / 270, abs=0.01)
    hidden = ~thing()  # of surroundings that do not show nothing is known
    assert compared(thing(), own, hidden, ground=turned) == pytest.approx(40 / 270, abs=0.01)


@pytest.mark.parametrize(("columns", "told"), [(26, True), (24, True), (2, True), (1, False)])
def test_thirty_px_inside_of_an_outline_must_show(columns: int, told: bool) -> None:
    """Of 26 rows; the rim of two px says nothing."""
    hidden = np.ones((HEIGHT, WIDTH), bool)
    hidden[:, 27 : 27 + columns] = False
    assert (compared(thing(), BLUE, hidden) is not None) == told
    rim = np.ones((HEIGHT, WIDTH), bool)
    rim[:, :27] = rim[:, 53:] = rim[:22] = rim[48:] = False
    assert compared(thing(), BLUE, rim) is None


@pytest.mark.parametrize(("wide", "told"), [(24, True), (25, False)])
def test_a_small_thing_loses_no_more_than_its_outline(wide: int, told: bool) -> None:
    """Of 25 rows and 24 columns, or 25: the second px inside the outline counts of the former alone."""
    mask = thing(25, wide)
    hidden = np.ones((HEIGHT, WIDTH), bool)
    hidden[21:44, 26], hidden[21:44, 24 + wide - 1] = False, False
    assert (compared(mask, BLUE, hidden) is not None) == told


def test_pixels_that_light_has_bleached_have_no_hue() -> None:
    assert compared(thing(), (255, 250, 250)) is None
    assert compared(thing(), (255, 249, 249)) is not None
    assert compared(thing(), (255, 255, 100)) is None
    assert compared(thing(), BLUE, before=(255, 250, 250)) is None


def test_some_places_are_the_first_the_last_and_those_between_evenly() -> None:
    every = np.ones((40, 50), bool)
    chosen = still_colours._some(every)
    assert (len(chosen), chosen[0], chosen[-1]) == (500, 0, 1999)
    assert set(np.diff(chosen)) <= {3, 4, 5}
    few = np.zeros((40, 50), bool)
    few[2, 3:9] = True
    assert still_colours._some(few).tolist() == list(range(103, 109))
    assert still_colours._some(few & False).tolist() == []


@pytest.mark.parametrize(
    ("said", "value", "frame", "name"),
    [
        ({(1, 6): [0.5], (1, 12): [0.4], (1, 18): [0.1]}, 0.4, 6, "tray"),
        ({(1, 6): [0.5], (1, 12): [0.1], (1, 18): [0.5]}, 0.1, 6, "tray"),
        ({(1, 6): [0.3, 0.9, 0.5], (1, 12): [0.9, 0.4]}, 0.4, 6, "tray"),
        ({(1, 6): [0.2], (1, 12): [0.2], (2, 12): [0.3], (2, 18): [0.6]}, 0.3, 12, "rack"),
        ({(1, 6): [0.5], (2, 12): [0.3]}, None, None, ""),
        ({(1, 6): [0.0], (1, 12): [0.0]}, 0.0, None, ""),
    ],
)
def test_another_colour_lasts_for_two_looks_and_most_earlier_looks_say_so(
    monkeypatch: pytest.MonkeyPatch, said: Any, value: float | None, frame: int | None, name: str
) -> None:
    answers = [(thing, t, one) for (thing, t), values in said.items() for one in values]
    looks = SimpleNamespace(
        names={1: "tray", 2: "rack"}, shown={t: np.zeros((2, 2), int) for t in (6, 12, 18)},
        from_one_place=lambda: [(thing, t, one, None) for thing, t, one in answers],
    )  # fmt: skip
    monkeypatch.setattr(still_colours, "_Looks", lambda *_: looks)
    monkeypatch.setattr(still_colours, "change_of_colour", lambda now, before, mask, hidden: before)
    film: Any = type("Film", (), {"frames": np.zeros((24, 2, 2, 3), np.uint8), "__len__": lambda self: 24})()
    truth: Any = SimpleNamespace(static_camera=True)
    none: Any = None
    found = still_colours.measure_still_colours(film, truth, none, none, "front", None)
    assert (found.value, found.worst_frame) == (value, frame)
    assert found.applies == (value is not None)
    assert value is None or found.note == name
    truth.static_camera = False
    assert not still_colours.measure_still_colours(film, truth, none, none, "front", None).applies


def test_what_stands_is_all_but_what_moves_and_the_base_of_a_robot_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {
        1: "",
        2: "object:packet",
        3: "object:tray",
        4: "robot:arm",
        5: "robot:arm",
        6: "robot:cabinet",
        7: "object:tin",
        8: "robot:rack",
    }
    table = np.zeros(16, np.uint8)
    table[2], table[4], table[5], table[6], table[7] = 1, 2, 3, 4, 5
    parts = [SimpleNamespace(robot=name) for name in ("", "arm", "arm", "cabinet", "")]
    still = [False, True, False, True, True]
    monkeypatch.setattr(still_colours, "rigid_parts", lambda episode: (None, table, None))
    truth: Any = SimpleNamespace(parts=parts, is_still=lambda k: still[k])
    instances = [SimpleNamespace(id=k, owner=owner, prim_path=f"/World/Thing{k}") for k, owner in owners.items()]
    episode: Any = SimpleNamespace(header=SimpleNamespace(instances=instances))
    found = still_colours.things_that_stand(truth, episode)
    assert found == {1: "Thing1", 3: "tray", 6: "cabinet", 7: "tin"}
