# SPDX-License-Identifier: Apache-2.0
"""What every surface, surrounding, light, look and subject paints, against coarse pictures: half of them from the camera on the
hand, each with a seed of its own. Small changes count here, which `test_painter_golden` lets pass.

`python tests/test_painter_scenes_golden.py` writes the pictures anew where a look was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants.base import SourceFrame, World, source_frame
from retake.core.variants.worlds import load_catalogue

GOLDEN = Path(__file__).parent / "golden" / "painter" / "axes.npz"
SIZE, CELLS = (160, 120), (20, 15)
NEAR, FAR, FEW = 0.15, 8.0, 3
"""Levels of 255 by which a cell (the mean of 64 pixels) may differ: another processor may round differently, and a pixel at a
threshold fall to its other side, in a few cells."""
AXES = {
    "environments": "environment",
    "surfaces": "surface",
    "subjects": "subject",
    "lightings": "lighting",
    "looks": "look",
    "clutters": "clutter",
}


def worlds() -> dict[str, World]:
    """Name -> a world that differs from the plain one in one axis."""
    catalogue = load_catalogue()
    plain = catalogue.preset("kitchen")
    return {
        f"{section}/{value}": replace(plain, **{axis: value, **({"background": ""} if axis == "environment" else {})}, name=value)
        for section, axis in AXES.items() for value in catalogue.sections.get(section, {})
    }  # fmt: skip


WORLDS = worlds()


def coarse(frames: dict[str, SourceFrame], number: int) -> np.ndarray:
    """uint16 (15, 20, 3): the mean of each cell's pixels in 256ths of a level."""
    world = list(WORLDS.values())[number]
    frame = ProceduralBackend().render(frames["wrist" if number % 2 else "front"], world, number)
    return np.round(cv2.resize(frame.astype(np.float32), CELLS, interpolation=cv2.INTER_AREA) * 256).astype(np.uint16)


def stills(folder: Path) -> dict[str, SourceFrame]:
    episode = make_scene_episode(folder / "e", frames=8, size=SIZE, wrist=True, only=range(5, 6))
    return {camera: source_frame(episode, camera, 0) for camera in ("front", "wrist")}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceFrame]:
    return stills(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as data:
        return dict(data)


@pytest.mark.parametrize("number", range(len(WORLDS)), ids=list(WORLDS))
def test_a_value_of_an_axis_looks_as_it_did(
    frames: dict[str, SourceFrame], golden: dict[str, np.ndarray], number: int
) -> None:
    difference = np.abs(coarse(frames, number) / 256 - golden[list(WORLDS)[number]] / 256)
    assert (difference > NEAR).sum() <= FEW
    assert difference.max() <= FAR


def test_no_golden_is_of_a_value_that_is_gone(golden: dict[str, np.ndarray]) -> None:
    assert sorted(golden) == sorted(WORLDS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sources = stills(Path(scratch))
        np.savez_compressed(GOLDEN, **{name: coarse(sources, k) for k, name in enumerate(WORLDS)})
    sys.exit(0)
