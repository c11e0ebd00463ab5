# SPDX-License-Identifier: Apache-2.0
"""What recordings say of a stage is there while one of them runs, whatever happens to the session layer, and gone afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pxr import Sdf, Usd

from retake.isaac.overlay import Overlay

FLOAT = Sdf.ValueTypeNames.Float


@pytest.fixture
def stage() -> Usd.Stage:
    made = Usd.Stage.CreateInMemory()
    for name in "ABC":
        made.DefinePrim(f"/{name}").CreateAttribute("x", FLOAT).Set(5.0)
    return made


def values(stage: Usd.Stage) -> list[float]:
    return [stage.GetPrimAtPath(f"/{name}").GetAttribute("x").Get() for name in "ABC"]


@pytest.mark.parametrize("first_closes_first", [True, False])
def test_the_last_one_removes_what_all_have_said(stage: Usd.Stage, first_closes_first: bool) -> None:
    session = stage.GetSessionLayer()
    both = [Overlay(stage), Overlay(stage)]
    assert not session.subLayerPaths, "nothing was said yet"
    both[0].say(["/A", "/B"], "x", 0, FLOAT)
    both[1].say(["/B", "/C"], "x", 0, FLOAT, "SomeAPI")
    assert len(session.subLayerPaths) == 1
    assert [both[1].before(path, "x") for path in ("/A", "/B", "/C", "/None")] == [5, 5, 5, None]
    for overlay in both if first_closes_first else both[::-1]:
        assert values(stage) == [0, 0, 0]
        assert stage.GetPrimAtPath("/C").GetMetadata("apiSchemas").GetAppliedItems() == ["SomeAPI"]
        overlay.close()
        overlay.close()
    assert values(stage) == [5, 5, 5]
    assert stage.GetPrimAtPath("/C").GetMetadata("apiSchemas") is None
    assert not session.subLayerPaths


def their_value(session: Sdf.Layer) -> None:
    session.GetAttributeAtPath("/A.x").default = 8.0


def removed(session: Sdf.Layer) -> None:
    prim = session.GetPrimAtPath("/A")
    prim.RemoveProperty(prim.properties["x"])


@pytest.mark.parametrize(("do", "after"), [(their_value, 8.0), (removed, 5.0), (Sdf.Layer.Clear, 5.0)])
def test_what_the_user_does_meanwhile_counts(stage: Usd.Stage, do: Callable[[Sdf.Layer], None], after: float) -> None:
    session, other = stage.GetSessionLayer(), Sdf.Layer.CreateAnonymous("theirs")
    with Usd.EditContext(stage, session):
        stage.GetPrimAtPath("/A").GetAttribute("x").Set(7.0)
    overlay = Overlay(stage)
    overlay.say(["/A"], "x", 0, FLOAT)
    assert values(stage)[0] == 0
    do(session)
    session.subLayerPaths.append(other.identifier)
    overlay.close()
    assert values(stage)[0] == after
    assert list(session.subLayerPaths) == [other.identifier]
    again = Overlay(stage)
    again.say(["/A"], "x", 0, FLOAT)
    assert values(stage)[0] == 0
    again.close()
    assert values(stage)[0] == after


def test_a_layer_that_was_taken_away_comes_back_with_the_next_that_is_said(stage: Usd.Stage) -> None:
    first, second = Overlay(stage), Overlay(stage)
    first.say(["/A"], "x", 0, FLOAT)
    stage.GetSessionLayer().Clear()
    second.say(["/B"], "x", 0, FLOAT)
    assert values(stage) == [0, 0, 5]
    first.close()
    second.close()
    assert values(stage) == [5, 5, 5]
