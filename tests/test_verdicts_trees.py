# SPDX-License-Identifier: Apache-2.0
"""Robots are trees: which links are judged together, and which hands can tell that they turned."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.episode.parts import RigidPart
from retake.core.verdicts import load_settings
from retake.core.verdicts.following import groups
from retake.core.verdicts.wrists import ANGLES, _lasting, _read, _Reading, _Row

FOLLOWING = load_settings().following


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """Carrier of every part of one robot, parents anywhere before their children."""
    return [-1] + [draw(st.integers(0, i - 1)) for i in range(1, draw(st.integers(4, 24)))]


def truth_of(carriers: list[int], order: list[int]) -> SimpleNamespace:
    """As much of a Truth as groups() reads, the parts listed in another order than the tree's."""
    place = {part: k for k, part in enumerate(order)}
    parts = [RigidPart(f"l{p}", "r", p, place[c] if (c := carriers[p]) >= 0 else -1) for p in order]
    poses = np.tile(np.eye(4), (2, len(parts), 1, 1))
    poses[1, :, 0, 3] = 1.0
    return SimpleNamespace(parts=parts, robot_parts=list(range(len(parts))), T_world_part=poses)


@given(trees(), st.randoms(use_true_random=False))
def test_links_that_are_judged_together_hang_together(carriers: list[int], shuffle) -> None:
    """Whatever the order in which a stage lists its links: a group is a link with all it carries, or three in a row."""
    order = list(range(len(carriers)))
    shuffle.shuffle(order)
    found = groups(truth_of(carriers, order))  # type: ignore[arg-type]
    links = [(group.name, [order[i] for i in group.parts]) for group in found]
    carried = [{i for i in range(len(carriers)) if p in _path(carriers, i)} for p in range(len(carriers))]
    beyond = {name: set(group) for name, group in links if name.endswith(" and beyond")}
    assert beyond == {f"l{p} and beyond": c for p, c in enumerate(carried) if carriers[p] >= 0 and len(c) >= 3}
    rows = [group for name, group in links if name.startswith("around ")]
    assert all([carriers[c], carriers[b]] == [b, a] for a, b, c in rows)
    inner = [p for p in range(len(carriers)) if p in carriers and len(_path(carriers, p)) >= 3]
    assert sorted(row[2] for row in rows) == inner


def _path(carriers: list[int], part: int) -> list[int]:
    out = [part]
    while carriers[out[-1]] >= 0:
        out.append(carriers[out[-1]])
    return out


def row(turn: float, told: float = 0.6, width: float = 12.0, ground: float = 0.2) -> _Row:
    """A frame of a hand whose silhouette loses `told` of its score when it is turned away, seen turned by some degrees."""

    def peak(centre: float) -> np.ndarray:
        return 1 - told * (1 - np.exp(-0.5 * ((ANGLES - centre) / width) ** 2))

    return _Row(ground + 0.5 * peak(turn), peak(0.0), 80.0)


@given(st.floats(-32, 32), st.floats(0.5, 0.9), st.floats(0.0, 0.3))
def test_a_turn_is_read_where_the_outline_tells_it(turn: float, told: float, ground: float) -> None:
    found = _read([row(turn, told, ground=ground)] * 5, 7, FOLLOWING)
    assert found is not None
    degrees, _ = _lasting([found, found])
    if abs(turn) >= 15:
        assert degrees == pytest.approx(abs(turn), abs=3)
    else:
        assert degrees == 0 or degrees == pytest.approx(abs(turn), abs=4)


@given(st.floats(-40, 40), st.floats(0.0, 0.3))
def test_a_round_hand_tells_no_angle(turn: float, told: float) -> None:
    """Whatever its pixels prefer: the recording's own silhouette looks the same at 20 degrees."""
    assert _read([row(turn, told)] * 5, 7, FOLLOWING) is None


def test_edges_that_rise_to_the_end_of_the_search_are_no_turn() -> None:
    rising = dataclasses.replace(row(0.0), seen=np.linspace(0.2, 0.7, len(ANGLES)))
    found = _read([rising] * 5, 7, FOLLOWING)
    assert found is not None
    assert found.angle == 0.0


@pytest.mark.parametrize(
    ("angles", "gains", "degrees"),
    [
        ([18], [0.2], 18),
        ([18], [0.1], 0),
        ([0, -20, 0], [0.0, 0.5, 0.0], 0),
        ([0, -20, 25], [0.0, 0.5, 0.5], 0),
        ([0, -20, -15], [0.0, 0.2, 0.1], 15),
        ([0, -20, -15], [0.0, 0.15, 0.1], 0),
        ([30, 28, 20], [0.2, 0.2, 0.2], 28),
    ],
)
def test_a_turn_lasts_for_two_windows(angles: list[float], gains: list[float], degrees: float) -> None:
    found = [_Reading(a, g, 0.13, 5 * k) for k, (a, g) in enumerate(zip(angles, gains, strict=True))]
    assert _lasting(found)[0] == degrees
