# SPDX-License-Identifier: Apache-2.0
"""What every surrounding of the catalogue shows all around (sky, floor, walls, furniture, plants, water), against what it showed.

`python tests/test_painter_sets_golden.py` writes the numbers anew where a surrounding was changed on purpose.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.painter.sets import build_set, cast_set
from retake.core.variants import load_catalogue
from retake.core.variants.roles import Anchor
from retake.core.variants.worlds import recipe_of

GOLDEN = Path(__file__).parent / "golden" / "painter" / "sets.json"
SHARE = 0.003
"""Of a number: another processor rounds differently, and a ray may meet the other of two faces, nothing more."""
ANCHOR = Anchor((0.4, 0.0), -0.7, (1.6, 0.9, 0.8), (1.5, -0.9, 0.3), (1.6, 0.9, 1.2))
ENVIRONMENTS = sorted(load_catalogue().sections["environments"])


def around() -> np.ndarray:
    """Rays in all directions, (N, 3) float32."""
    azimuth, height = np.meshgrid(np.linspace(-np.pi, np.pi, 72, endpoint=False) + 0.013, np.linspace(-0.9, 0.9, 37))
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), height], -1).reshape(-1, 3).astype(np.float32)


def seen(name: str, number: int) -> dict[str, Any]:
    world = replace(load_catalogue().preset("kitchen"), environment=name, background="")
    scene = build_set(recipe_of(world)["environment"], ANCHOR, 3 + number)
    hit = cast_set(scene, np.array([0.3, 0.2, 0.5]), around(), 0.004)
    lit = hit.glow > 0.5
    return summed_up({
        "hit": hit, "boxes": [(box.low, box.high) for box in scene.boxes], "sky": hit.albedo[lit],
        "faces": np.bincount(hit.label + 1, minlength=1),
    })  # fmt: skip


@pytest.mark.parametrize("number", range(len(ENVIRONMENTS)), ids=ENVIRONMENTS)
def test_a_surrounding_shows_what_it_showed(number: int) -> None:
    assert not compare(seen(ENVIRONMENTS[number], number), load(GOLDEN)[ENVIRONMENTS[number]], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {name: seen(name, number) for number, name in enumerate(ENVIRONMENTS)})
    sys.exit(0)
