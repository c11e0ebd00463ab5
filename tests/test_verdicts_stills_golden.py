# SPDX-License-Identifier: Apache-2.0
"""What is looked for of things that stand still, where, and how much of it is found, against what was found before: the laws
beside it ask for the measure alone.

`python tests/test_verdicts_stills_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.verdicts import load_settings, stills
from retake.core.verdicts.footage import Footage

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "stills.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
SETTINGS = load_settings().stability
HEIGHT, WIDTH, FRAMES = 80, 104, 31
PLACES = {
    "middle": np.s_[30:46, 40:62], "upper left": np.s_[0:14, 0:12], "lower right": np.s_[68:80, 88:104],
    "left": np.s_[33:45, 2:14], "below": np.s_[66:78, 50:70], "small": np.s_[20:28, 70:80],
}  # fmt: skip


def noise(seed: int, height: int = HEIGHT, width: int = WIDTH, blur: float = 1.2) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32), (0, 0), blur)
    return field / field.std()


@lru_cache
def picture(seed: int, spread: float = 25.0) -> np.ndarray:
    """RGB float, with a hue that varies."""
    hue = np.array((130, 118, 104)) + 14 * np.stack([noise(seed + k, blur=9.0) for k in (50, 60, 70)], -1)
    return (hue + spread * noise(seed)[..., None]).astype(np.float32)


def shifted(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    M = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(image, M, image.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def as_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).astype(np.uint8)


def area(place: tuple[slice, slice]) -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH), bool)
    out[place] = True
    return out


@contextmanager
def matched() -> Iterator[list[Any]]:
    """What is looked for, where, and how well it fits."""
    found: list[Any] = []
    plain = cv2.matchTemplate

    def heard(window: np.ndarray, patch: np.ndarray, *method: Any, **mask: Any) -> np.ndarray:
        score = plain(window, patch, *method, **mask)
        found.append([window, patch, *mask.values(), score])
        return score

    cv2.matchTemplate = heard
    try:
        yield found
    finally:
        cv2.matchTemplate = plain


def of_displacements() -> dict[str, Any]:
    out: dict[str, Any] = {}
    first = as_bytes(picture(1))
    template = stills._detail(first)
    out["detail"] = [template, stills._detail(first[:30] // 3)]
    hand = area(np.s_[20:80, 50:58])
    for name, place in PLACES.items():
        mask = area(place)
        for way, share in (
            ((0, 0), 0.6),
            ((-1.4, 0.6), 1),
            ((5.3, -2.2), 0.7),
            ((-16, 3), 1),
            ((15, 16), 1),
            ((40, 30), 1),
        ):
            later = share * shifted(picture(1), *way) + (1 - share) * picture(2)
            with matched() as asked:
                told = stills._displacement(template, stills._detail(as_bytes(later)), mask, hand, SETTINGS)
            out[f"{name} {way}"] = [told, asked if way == (5.3, -2.2) else [one[-1] for one in asked]]
    return summed_up(out)


def of_edges() -> dict[str, Any]:
    out: dict[str, Any] = {}
    first, rng = picture(3), np.random.default_rng(4)
    frames = np.stack([as_bytes(first + rng.normal(0, 3, first.shape)) for _ in range(9)])
    frames[5] = as_bytes(shifted(first, 1.5, 0))
    frames[6] = as_bytes(0.6 * first + 0.4 * picture(5))
    frames[7], frames[8] = as_bytes(picture(5)), as_bytes(first * 0.4)
    edges = stills._Edges(Footage(frames, frames[0].astype(np.float32), np.ones((HEIGHT, WIDTH), bool), 1.0))
    out["first"] = edges.first
    heard, plain = [], stills._kept
    hand = area(np.s_[20:80, 50:58])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stills, "_kept", lambda *asked: heard.append([*asked, plain(*asked)]) or heard[-1][-1])
        for name, place in PLACES.items():
            for t in range(4, 9):
                heard.clear()
                out[f"{name} {t}"] = [edges._gone(area(place), hand, t), list(heard)]
    out["later"] = [sorted(edges.later), edges.later[6]]
    return summed_up(out)


def a_film(still: bool) -> tuple[Footage, Any]:
    """An arm that passes, a box of which nothing is known but that it keeps its place, a tray that leaves it half way, and a
    peg; with a camera that moves all slide."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    world, frames = picture(6), []
    own = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        dx = 0.0 if still else 0.5 * t
        image = world.copy()
        image[10:24, 60:80] = picture(7, 40)[10:24, 60:80] * (1.2, 0.8, 0.7)
        away = 5 if t >= 14 else 0
        image[40 + away : 60 + away, 30:52] = picture(8, 40)[40:60, 30:52] * (0.7, 1.0, 1.2)
        image[62:70, 74:86] = picture(9, 40)[62:70, 74:86]
        image, mine, fixed = shifted(image, -dx, 0), np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
        mine[10:24, 60:80], fixed[40:60, 30:52], fixed[62:70, 74:86] = 2, 1, 2
        labels[t] = np.roll(mine, -round(dx), 1)
        own[t] = np.roll(fixed, -round(dx), 1)
        arm = np.s_[36:80, 3 * t : 3 * t + 9]
        image[arm], labels[t][arm] = (40, 90, 50), 1
        frames.append(as_bytes(image))
    parts = (SimpleNamespace(name="arm", robot="arm"), SimpleNamespace(name="box", robot=""))
    truth = SimpleNamespace(
        static_camera=still, size=(WIDTH, HEIGHT), px=2.0, parts=parts, stills=("tray", "peg"), still_labels=own[0],
        labels=labels, area=np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float),
        is_still=lambda k: k == 1, stills_of=lambda episode, camera, t: own[t],
    )  # fmt: skip
    taken = np.stack(frames)
    return Footage(taken, taken[0].astype(np.float32), np.ones((HEIGHT, WIDTH), bool), 1.0), truth


def a_scene() -> Any:
    v, u = np.mgrid[0 : HEIGHT // 2, 0 : WIDTH // 2].astype(np.float32)

    def same_place(t: int, r: int, standing: frozenset[int]) -> Any:
        assert standing == {1}
        x = u + np.float32(0.25 * (t - r))
        return x, v, (x >= 0) & (x <= WIDTH // 2 - 1)

    return SimpleNamespace(same_place=same_place, episode=None, camera="")


@lru_cache(maxsize=1)
def looks() -> Any:
    footage, truth = a_film(still=False)
    return stills._Looks(footage, truth, SETTINGS, a_scene())


def of_films() -> dict[str, Any]:
    out: dict[str, Any] = {}
    plain = stills._displacement
    for still in (True, False):
        asked: list[Any] = []
        footage, truth = a_film(still)

        def heard(template: Any, image: Any, mask: Any, hidden: Any, given: Any, asked: list[Any] = asked) -> Any:
            asked.append([template, image, mask, hidden])
            return plain(template, image, mask, hidden, given)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stills, "_displacement", heard)
            out[f"{still}"] = [stills.measure_stills(footage, truth, SETTINGS, a_scene()), len(asked), asked[::5]]
    return summed_up(out)


def of_looks() -> dict[str, Any]:
    found = looks()
    out: dict[str, Any] = {"times": found.times, "names": dict(enumerate(found.names))}
    out["standing"] = sorted(found.standing)
    for t in found.times:
        out[f"{t}"] = [found.shown[t], found.hidden[t], found.details[t]]
        for number in range(1, len(found.names) + 1):
            mask = found.shown[t] == number
            out[f"{t} {number}"] = [found._whole(number, t), found.displaced(number, t)]
            with matched() as asked:
                out[f"{t} {number} outlined"] = [
                    stills._outlined(mask, found.frames[t], found.hidden[t] > 0) > stills._ON_EDGES,
                    asked,
                ]
    for t, r in ((12, 0), (30, 6), (6, 0)):
        out[f"{t} from {r}"] = found._as_seen(r, t, found.shown[t] == 2)
    return summed_up(out)


CASES = {"displacements": of_displacements, "edges": of_edges, "films": of_films, "looks": of_looks}


@pytest.mark.parametrize("case", CASES)
def test_things_that_stand_still_are_looked_for_as_they_were(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


def test_why_nothing_is_told_is_said_under_the_measure_s_name() -> None:
    why = {}
    for still in (True, False):
        footage, truth = a_film(still)
        if not still:
            why["no depth"] = stills.measure_stills(footage, truth, SETTINGS)
        moving = SimpleNamespace(**{**vars(truth), "is_still": lambda k: False, "stills": ()})
        why[f"nothing stands still, {still}"] = stills.measure_stills(footage, moving, SETTINGS, a_scene())  # type: ignore[arg-type]
        grey = Footage(footage.frames * 0, footage.scenery, footage.known, 1.0)
        why[f"no contrast, {still}"] = stills.measure_stills(grey, truth, SETTINGS, a_scene())
    assert {name: (told.name, told.value, told.note, told.applies) for name, told in why.items()} == {
        name: ("still_objects", None, note, False)
        for name, note in {
            "nothing stands still, True": "nothing that stands still is recorded as an object",
            "no contrast, True": "tray, peg, box: hidden or without contrast",
            "no depth": "the camera moves, and no depth tells where things are",
            "nothing stands still, False": "nothing that stands still is recorded as an object",
            "no contrast, False": "box, tray, peg: never seen whole from two places, or without contrast",
        }.items()
    }


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
