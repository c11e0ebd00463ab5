# SPDX-License-Identifier: Apache-2.0
"""What stands in a set is where its entry says, clear of the scene."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.painter.panels import PANELS
from retake.core.painter.sets import Box, build_set
from retake.core.variants.roles import Anchor

SPEC = {
    "floor": {"kind": "plain", "colours": ["#808080", "#707070"]},
    "sky": {"top": "#4d8fd6", "horizon": "#d9e9f3", "land": "#5f8058", "clouds": 0.5},
    "reach_m": [3.0, 3.0],
}
POT, LEAVES = {"kind": "plain", "colours": ["#b5653f", "#99512f"]}, {"kind": "fibre", "colours": ["#5f8250", "#3a5a34"]}
ANCHOR = Anchor((0.4, 0.0), -0.7, (1.6, 0.9, 0.8), (1.5, -0.9, 0.3), (1.6, 0.9, 1.2))


def boxes(seed: int, **entry: object) -> tuple[Box, ...]:
    item = {"wall": 0, "along": [0.1, 0.9], "body": POT, "top": LEAVES, "gap_m": 0.5, **entry}
    return build_set({**SPEC, "furniture": [item]}, ANCHOR, seed).boxes


@given(st.integers(0, 2**31 - 1), st.floats(0.25, 1.2), st.floats(0.25, 0.8), st.integers(1, 3))
def test_a_planter_is_a_pot_in_which_something_grows(seed: int, width: float, height: float, count: int) -> None:
    """Whatever its size: a foot on the floor, a rim that overhangs the body, and leaves that begin within the pot, stay over it
    and rise above it; nothing of it stands farther out than its crown."""
    parts = boxes(seed, shape="planter", count=count, width_m=width, depth_m=width, height_m=height)
    pots = [box for box in parts if not box.leafy]
    assert len(pots) == 3 * count
    for foot, body, rim in zip(pots[::3], pots[1::3], pots[2::3], strict=True):
        assert foot.low[2] == np.float32(ANCHOR.floor_z)
        assert np.isclose(rim.high[2] - foot.low[2], 0.62 * height, rtol=1e-3)
        assert (rim.low[:2] < body.low[:2]).all()
        assert (body.low[:2] < foot.low[:2]).all()
        middle, reach = (rim.low + rim.high) / 2, (rim.high - rim.low)[:2] * 0.57
        mine = [b for b in parts if b.leafy and (abs(((b.low + b.high) / 2 - middle)[:2]) <= reach).all()]
        assert mine
        assert min(b.low[2] for b in mine) < rim.high[2] < max(b.high[2] for b in mine)
        assert all((b.low[:2] >= middle[:2] - reach).all() for b in mine)


def test_an_entry_without_a_shape_is_one_box() -> None:
    (box,) = boxes(3, count=1, width_m=0.5, depth_m=0.4, height_m=0.5)
    assert not box.leafy
    assert box.low[2] == np.float32(ANCHOR.floor_z)


OWN = ["#336699", "#99aa44", "#cc4411", "#224466", "#775533"]
UNSAID = {
    "racking": (2, ("#b08a5a", "#c49a69", "#9c7748")),
    "cabinets": (1, ("#8d8f92",)),
    "goods": (2, ("#c8433a", "#e0a63a", "#4a8f5c", "#3e6fb0", "#efe9dc")),
    "books": (1, ("#7d3b32", "#33506b", "#d7c9a7", "#4f6a4e", "#26272b", "#b98b4e")),
    "machine": (1, ("#e0a526",)),
    "windows": (1, ("#fafafa", "#7fb0e0", "#dcebf5", "#6f8f5e")),
    "pictures": (2, ("#c9703f", "#2f5d62", "#e3c58c", "#7a8b99")),
}
"""Panel → how many colours must be said, and what stands for the others."""


@pytest.mark.parametrize("name", sorted(UNSAID))
def test_colours_of_a_panel_that_are_not_said_are_those_of_its_kind(name: str) -> None:
    needed, others = UNSAID[name]

    def painted(*colours: str) -> np.ndarray:
        return PANELS[name](np.random.default_rng(3), 2.0, 1.4, colours).levels[0]

    said = OWN[:needed]
    assert np.array_equal(painted(*said), painted(*said, *others))
    assert not np.array_equal(painted(*said), painted(*said, *OWN[needed:]))
