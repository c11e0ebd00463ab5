# SPDX-License-Identifier: Apache-2.0
"""What every preset looks like, against small pictures: a look that changes by accident is seen.

`python tests/test_painter_golden.py` writes the pictures anew where a look was changed on purpose, with `sheet.png` beside
them to look at.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants.base import SourceFrame, source_frame
from retake.core.variants.worlds import load_catalogue

GOLDEN = Path(__file__).parent / "golden" / "painter" / "presets.npz"
SIZE, SMALL = (160, 120), (40, 30)
MEAN, WORST = 0.4, 8
"""Levels of 255: another processor may round differently, nothing more."""
PRESETS = sorted(load_catalogue().sections["presets"])


def small(source: SourceFrame, preset: str) -> np.ndarray:
    """uint8 RGB (30, 40, 3): each pixel the mean of 4x4 painted ones."""
    frame = ProceduralBackend().render(source, load_catalogue().preset(preset), 0)
    return cv2.resize(frame, SMALL, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> SourceFrame:
    episode = make_scene_episode(tmp_path_factory.mktemp("painter") / "e", frames=1, size=SIZE)
    return source_frame(episode, "front", 0)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as data:
        return dict(data)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_looks_as_it_did(still: SourceFrame, golden: dict[str, np.ndarray], preset: str) -> None:
    difference = np.abs(small(still, preset).astype(int) - golden[preset])
    assert difference.mean() <= MEAN, f"{difference.mean():.2f} levels apart"
    assert difference.max() <= WORST, (
        f"{difference.max()} levels apart at {np.argwhere(difference == difference.max())[0]}"
    )


def test_no_golden_is_of_a_preset_that_is_gone(golden: dict[str, np.ndarray]) -> None:
    assert sorted(golden) == PRESETS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        scene = source_frame(make_scene_episode(Path(folder) / "e", frames=1, size=SIZE), "front", 0)
        pictures = {name: small(scene, name) for name in PRESETS}
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN, **pictures)
    sheet = np.hstack([cv2.resize(p, (240, 180), interpolation=cv2.INTER_NEAREST) for p in pictures.values()])
    cv2.imwrite(sys.argv[1] if len(sys.argv) > 1 else str(GOLDEN.with_name("sheet.png")), sheet[..., ::-1])
