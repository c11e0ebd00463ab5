# SPDX-License-Identifier: Apache-2.0
"""One camera's painted frame carried to another: brightness told by what both see, seams, and who is the anchor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from retake.core.errors import VariantError
from retake.core.variants import carry as module
from retake.core.variants.carry import (
    GAIN,
    Carried,
    CarryingBackend,
    _gain,
    _joined,
    _minified,
    carry,
    complete_by_rendering,
)
from retake.core.variants.correspond import Correspondence

HEIGHT, WIDTH = 40, 60


def same_place(scale: float = 1.0) -> Correspondence:
    """Two cameras that stand at one place."""
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    return Correspondence(
        np.stack([x, y], -1), np.ones((HEIGHT, WIDTH), bool), np.full((HEIGHT, WIDTH), scale, np.float32)
    )


def shown(value: float, **more) -> SimpleNamespace:
    return SimpleNamespace(rgb=np.full((HEIGHT, WIDTH, 3), value, np.uint8), **more)


@pytest.mark.parametrize(
    ("here", "there", "pixels", "gain"),
    [(100, 150, 200, 1.5), (100, 150, 199, 1.0), (100, 50, 400, 0.5), (50, 200, 400, GAIN[1]), (200, 50, 400, GAIN[0]),
     (12, 100, 400, 1.0), (13, 26, 400, 2.0), (100, 12, 400, 1.0), (244, 200, 400, 1.0), (243, 243, 400, 1.0),
     (200, 244, 400, 1.0), (150, 243, 400, 1.62)],
)  # fmt: skip
def test_the_exposure_of_a_camera_is_told_by_200_pixels_that_are_neither_dark_nor_burnt_out(here, there, pixels, gain):
    known = np.zeros((HEIGHT, WIDTH), bool)
    known.ravel()[:pixels] = True
    assert _gain(shown(here), shown(there), same_place(), known) == pytest.approx(gain, abs=0.01)


def test_most_pixels_decide_where_some_are_burnt_out():
    known, there = np.ones((HEIGHT, WIDTH), bool), shown(150)
    there.rgb[:38] = 255
    assert _gain(shown(100), there, same_place(), known) == 1.0, "120 good pixels are too few"
    there.rgb[:35] = 255
    there.rgb[35:] = 150
    assert _gain(shown(100), there, same_place(), known) == pytest.approx(1.5, abs=0.01)


def test_a_picture_of_about_the_same_scale_is_not_softened():
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert _minified(picture, same_place(0.8)) is picture
    assert _minified(picture, same_place(0.79)).std() < picture.std()
    nowhere = Correspondence(same_place().place, np.zeros((HEIGHT, WIDTH), bool), same_place(0.1).scale)
    assert _minified(picture, nowhere) is picture
    assert np.array_equal(_minified(picture, same_place(0.01)), _minified(picture, same_place(0.08))), (
        "six pixels at most"
    )


def test_what_both_cameras_see_is_carried_in_the_other_s_brightness(monkeypatch):
    monkeypatch.setattr(module, "view_of", lambda source: source)
    found = same_place()
    found.seen[:, :10] = False
    found.scale[:, 10:20] = 4.0
    monkeypatch.setattr(module, "correspond", lambda target, anchor: found)
    painted = np.random.default_rng(1).integers(40, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    made = carry(shown(100), painted, shown(150))
    assert made.gain == pytest.approx(1.5, abs=0.01)
    assert made.known[:, 20:].all()
    assert not made.known[:, :20].any(), "unseen, or as coarse as four pixels"
    assert (made.frame[:, :20] == 0).all()
    assert np.abs(made.frame[:, 20:] - painted[:, 20:] * made.gain).max() <= 0.51
    assert made.share == pytest.approx(40 / 60)
    found.scale[:, 10:20] = 3.99
    assert carry(shown(100), painted, shown(150)).known[:, 10:].all()
    anchor = shown(100, camera_name="front")
    with pytest.raises(VariantError, match="camera 'front' is"):
        carry(anchor, painted[:, 1:], shown(150))


def test_a_seam_is_softened_on_the_painted_side_alone():
    known = np.zeros((HEIGHT, WIDTH), bool)
    known[:, :30] = True
    frame = np.where(known[..., None], 200, 100).astype(np.uint8).repeat(3, -1)
    joined = _joined(frame, known)
    assert np.array_equal(joined[known], frame[known])
    assert (joined[:, 31:] == 100).all()
    assert (joined[:, 30] > 110).all()
    assert (joined[:, 30] < 150).all()


def test_a_backend_that_only_renders_completes_with_its_own_view():
    missing = np.zeros((HEIGHT, WIDTH), bool)
    missing[:10] = True
    known, whole = np.full((HEIGHT, WIDTH, 3), 50, np.uint8), np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    asked = []

    def render(source, world, seed, check_cancel):
        asked.append((source, world, seed))
        return whole

    found = complete_by_rendering(SimpleNamespace(render=render), "source", "world", 7, known, missing)  # type: ignore[arg-type]
    assert asked == [("source", "world", 7)]
    assert (found[:10] == 90).all()
    assert (found[10:] == 50).all()


def test_a_backend_that_carries_is_told_apart_and_needs_one_that_completes():
    class Completing:
        name, version, licence, model, settings = "z", "2", "MIT", "m", {"steps": 4}

        def complete(self, *args):
            return None

    backend = CarryingBackend(Completing(), SimpleNamespace(camera_name="front"), np.zeros((2, 2, 3), np.uint8))
    assert (backend.name, backend.version, backend.licence, backend.model, backend.revision) == (
        "z",
        "2+carry1",
        "MIT",
        "m",
        "",
    )
    assert backend.reads_prompts
    assert not backend.parallel
    assert backend.settings["steps"] == 4
    other = CarryingBackend(Completing(), SimpleNamespace(camera_name="front"), np.ones((2, 2, 3), np.uint8))
    assert backend.settings["anchor"][0] == "front"
    assert backend.settings["anchor"][1] != other.settings["anchor"][1]
    with pytest.raises(VariantError, match="backend 'plain' cannot paint the missing part"):
        CarryingBackend(SimpleNamespace(name="plain"), backend.anchor, backend.painted)


def test_a_share_is_of_all_pixels():
    known = np.zeros((4, 5), bool)
    known[0] = True
    assert Carried(np.zeros((4, 5, 3), np.uint8), known, 1.0).share == 0.25
