# SPDX-License-Identifier: Apache-2.0
"""The user's own first frames: found by the world's name, taken as they are, and never stretched."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retake.core.errors import VariantError
from retake.core.variants import folder as module
from retake.core.variants.folder import FolderBackend

SOURCE = SimpleNamespace(rgb=np.zeros((24, 32, 3), np.uint8), camera_name="front")


def world(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name)


def put(path, value: int, size=(32, 24)) -> None:
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp"])
def test_a_picture_is_found_by_the_world_s_name_under_every_suffix(tmp_path, suffix):
    put(tmp_path / f"lab{suffix}", 90)
    found = FolderBackend(tmp_path).render(SOURCE, world("lab"), 0)
    assert found.shape == (24, 32, 3)
    assert abs(float(found.mean()) - 90) < 3


def test_of_two_pictures_of_one_name_the_lossless_one_is_taken(tmp_path):
    put(tmp_path / "lab.jpg", 200)
    put(tmp_path / "lab.png", 50)
    assert FolderBackend(tmp_path).render(SOURCE, world("lab"), 0).mean() == 50


def test_a_picture_that_is_not_there_or_of_another_size_is_refused(tmp_path):
    put(tmp_path / "b.png", 1)
    put(tmp_path / "a.png", 1, (33, 24))
    (tmp_path / "notes.txt").write_text("x")
    backend = FolderBackend(tmp_path)
    with pytest.raises(VariantError, match=r"no picture of world 'c'; it has: a, b$"):
        backend.render(SOURCE, world("c"), 0)
    with pytest.raises(VariantError, match=r"a\.png is 33x24; camera 'front' is 32x24: crop or resize it yourself"):
        backend.render(SOURCE, world("a"), 0)
    for place in ("", tmp_path / "none", tmp_path / "b.png"):
        with pytest.raises(VariantError, match="needs a folder of pictures"):
            FolderBackend(place)


def test_another_picture_is_another_input(tmp_path):
    put(tmp_path / "b.png", 1)
    backend = FolderBackend(tmp_path)
    first = backend.revision
    (tmp_path / "notes.txt").write_text("x")
    assert backend.revision == first
    put(tmp_path / "a.PNG", 2)
    assert backend.revision != first
    assert backend.revision.endswith(first)
    assert [part.partition(":")[0] for part in backend.revision.split()] == ["a.PNG", "b.png"]
    assert {len(part.partition(":")[2]) for part in backend.revision.split()} == {12}
    put(tmp_path / "b.png", 3)
    assert first not in backend.revision


def test_the_robot_is_carried_over_only_where_that_is_asked_for(tmp_path, monkeypatch):
    put(tmp_path / "lab.png", 50)
    monkeypatch.setattr(module, "lock_robot", lambda frame, source: SimpleNamespace(frame=frame + 1))
    plain, locked = FolderBackend(tmp_path, "CC0-1.0"), FolderBackend(tmp_path, lock=True)
    assert (plain.needs_maps, plain.settings, plain.licence) == (False, {"lock": False}, "CC0-1.0")
    assert (locked.needs_maps, locked.settings, locked.licence) == (True, {"lock": True}, "")
    assert [backend.render(SOURCE, world("lab"), 0).mean() for backend in (plain, locked)] == [50, 51]
    asked = []
    plain.render(SOURCE, world("lab"), 0, lambda: asked.append(1))
    assert asked == [1]
