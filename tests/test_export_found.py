# SPDX-License-Identifier: Apache-2.0
"""Takes before they are exported: which camera one shows, what its settings state, and what keeps it from being training data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.errors import InputError
from retake.core.export.found import (
    DOMAINS,
    FoundTake,
    Selection,
    camera_of,
    obstacle,
    shown_task,
    shown_words,
    unknown_camera,
)
from retake.core.run_reader import Standing, StoredCheck, StoredVariant, StoredVerdict
from retake.core.takes.base import Take
from retake.core.variants.base import Variant, World

PASSED = StoredVerdict(Path("v"), "pass", "0" * 64, 0.9)
PASS = Standing("pass", "", PASSED)
JUDGE = "(`retake verify` judges it; --unverified exports it)"
OPEN, CLOSED = "Apache-2.0", "CC-BY-NC-4.0"


def take(**change: Any) -> Take:
    fields: dict[str, Any] = {
        "id": "v/front", "video": Path("take.mp4"), "video_sha256": "0" * 64, "variant": "w/front", "backend": "b",
        "backend_version": "1", "domain": "generated", "seed": 1, "prompt": "", "frames": 5, "fps": 10.0, "size": (8, 8),
        "inputs": {}, "licence": OPEN,
    }  # fmt: skip
    return Take(**{**fields, **change})


def variant(camera: str | None = None, licence: str = OPEN) -> StoredVariant:
    source = {} if camera is None else {"camera": camera}
    world = World("w", "lab", "table", "bun", "day")
    return StoredVariant(Path("w"), Variant("w/front", world, 0, "", "", "0" * 64, "b", "1", licence, source))


def found(standing: Standing = PASS, of: StoredVariant | None = None, **change: Any) -> FoundTake:
    return FoundTake(take(**change), of, standing)


def episode(*cameras: str) -> Any:
    return SimpleNamespace(header=SimpleNamespace(cameras=[SimpleNamespace(name=name) for name in cameras]))


@pytest.mark.parametrize("of", [None, variant(None), variant("")])
def test_a_take_that_names_no_camera_shows_the_only_one_there_is(of: StoredVariant | None) -> None:
    assert camera_of(found(of=of), episode("wrist")) == "wrist"
    for cameras in ((), ("front", "wrist")):
        one, several = found(of=of), episode(*cameras)
        assert camera_of(one, several) == ""
        told = f"its record names no camera; its episode has: {', '.join(cameras)}"
        assert unknown_camera(one, "", several) == told
        assert unknown_camera(one, "front", several) is None


@pytest.mark.parametrize("cameras", [("front",), ("wrist",), ("front", "wrist"), ("wrist", "front"), ("a", "b", "c")])
@pytest.mark.parametrize(("own", "of"), [("wrist", None), ("wrist", "front"), ("", "wrist")])
def test_a_take_shows_the_camera_it_names_else_its_variant_s(
    cameras: tuple[str, ...], own: str, of: str | None
) -> None:
    one = found(of=None if of is None else variant(of), camera=own)
    if "wrist" in cameras:
        assert camera_of(one, episode(*cameras)) == "wrist"
        return
    assert camera_of(one, episode(*cameras)) == ""
    told = f"its record names camera 'wrist'; its episode has: {', '.join(cameras)}"
    assert unknown_camera(one, "", episode(*cameras)) == told


@pytest.mark.parametrize(
    ("settings", "names", "stated"),
    [({}, ("a",), None), ({"a": 1, "b": 2}, ("b", "a"), 2), ({"a": None, "b": 2}, ("a", "b"), 2), ({"a": 0}, ("a", "b"), 0),
     ({"a": ""}, ("a",), ""), ({"a": None}, ("a",), None), ({"b": 3}, (), None)],
)  # fmt: skip
def test_the_first_setting_that_is_stated_counts(settings: dict[str, Any], names: tuple[str, ...], stated: Any) -> None:
    assert found(settings=settings).stated(*names) == stated


def test_a_take_knows_its_world_while_its_variant_is_there() -> None:
    assert found().world is None
    assert found(of=variant()).world == World("w", "lab", "table", "bun", "day")


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 0, 1])
def test_a_probability_of_nought_or_one_may_be_asked_for(value: float) -> None:
    assert Selection(min_verdict=value).min_verdict == value


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, 2, float("inf"), float("-inf")])
def test_no_other_number_is_a_probability(value: float) -> None:
    with pytest.raises(InputError, match=r"--min-verdict .*: expected a probability within 0\.\.1"):
        Selection(min_verdict=value)


def test_windows_and_domains_are_looked_at_too() -> None:
    assert [Selection(window=frames).window for frames in (0, 1, 81)] == [0, 1, 81]
    with pytest.raises(InputError, match="--window -1: expected a number of frames"):
        Selection(window=-1)
    assert Selection(domains=DOMAINS).domains == DOMAINS
    with pytest.raises(InputError, match="unknown domain 'sim'; valid: composite, generated, reprojected"):
        Selection(domains=("generated", "sim"))


def why_not(one: FoundTake, licence: str = OPEN, **selection: Any) -> str | None:
    return obstacle(one, 10, {"licence_source": licence}, Selection(**selection))


def judged(status: Any, *failed: str, reason: str = "", probability: float = 0.9) -> Standing:
    checks = (
        *(StoredCheck(name, "fail") for name in failed),
        StoredCheck("fine", "pass"),
        StoredCheck("odd", "unsure"),
    )
    return Standing(status, reason, StoredVerdict(Path("v"), status, "0" * 64, probability, checks=checks))


@pytest.mark.parametrize(
    ("one", "selection", "words"),
    [
        (found(), {}, None),
        (found(domain="sim"), {},
         "its domain is 'sim' (backend 'b'); a dataset takes generated and reprojected and composite ones"),
        (found(), {"domains": ("generated", "composite")}, None),
        (found(), {"domains": ("composite",)}, "its domain is 'generated'; --domain asks for composite"),
        (found(start=9), {}, None),
        (found(start=10), {"unverified": True}, "it starts at frame 10; its episode has 10 frames"),
        (found(Standing("damaged", "cut short", None)), {"unverified": True}, "cut short"),
        (found(Standing("outdated", "of another", PASSED)), {"unverified": True}, "of another"),
        (found(judged("fail", "action", "bodies")), {"unverified": True}, "the verdict is fail (action, bodies)"),
        (found(judged("fail", reason="seen by hand")), {}, "the verdict is fail (seen by hand)"),
        (found(judged("fail")), {}, "the verdict is fail"),
        (found(Standing("fail", "", None)), {}, "the verdict is fail"),
        (found(judged("unsure", reason="dark")), {"unverified": True}, None),
        (found(judged("unsure", reason="dark")), {}, f"the verdict is unsure {JUDGE}"),
        (found(Standing("not judged", "no verdict", None)), {}, f"no verdict {JUDGE}"),
        (found(Standing("not judged", "no verdict", None)), {"unverified": True}, None),
        (found(), {"min_verdict": 0.9}, None),
        (found(), {"min_verdict": 0.91}, "verdict probability 0.9 is below --min-verdict 0.91"),
        (found(Standing("not judged", "", None)), {"unverified": True, "min_verdict": 1e-9},
         "verdict probability None is below --min-verdict 1e-09"),
        (found(judged("pass", probability=0.0)), {"min_verdict": 0.0}, None),
    ],
)  # fmt: skip
def test_what_keeps_a_take_from_being_training_data(
    one: FoundTake, selection: dict[str, Any], words: str | None
) -> None:
    assert why_not(one, **selection) == words


@pytest.mark.parametrize("bad", ["video model", "first-frame model", "simulated assets or recording"])
@pytest.mark.parametrize("stated", [CLOSED, ""])
def test_each_of_three_licences_must_allow_commercial_use_where_that_is_asked(bad: str, stated: str) -> None:
    licences = {"video model": OPEN, "first-frame model": OPEN, "simulated assets or recording": OPEN}
    for given in (licences, {**licences, bad: stated}):
        one = found(of=variant(licence=given["first-frame model"]), licence=given["video model"])
        assets = given["simulated assets or recording"]
        assert why_not(one, assets) is None, "nobody asked"
        reason = why_not(one, assets, only_commercial=True)
        assert (reason is None) if given is licences else reason.startswith(f"--only-commercial: {bad}: ")  # type: ignore[union-attr]
    assert "its variant is gone" in str(why_not(found(), only_commercial=True))


def header(task: str, *labels: str, movable: bool = True) -> Any:
    return SimpleNamespace(task=task, objects=[SimpleNamespace(label=label, movable=movable) for label in labels])


BUN = {"subject": {"prompt": "a sesame bun"}}


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        ("Pick up the packet.", "Pick up a sesame bun."),
        ("Pick up a Packet from the tray", "Pick up a sesame bun from the tray"),
        ("packet to tray", "a sesame bun to tray"),
        ("Put the packet on the packet", "Put a sesame bun on the packet"),
        ("Open the packets", "Open the packets"),
        ("bathe packet", "bathe a sesame bun"),
    ],
)
def test_a_task_speaks_of_what_the_world_shows_once(task: str, shown: str) -> None:
    for movable, expected in ((True, shown), (False, task)):
        assert shown_task(header(task, "", "packet", "cup", movable=movable), "", BUN) == expected


@pytest.mark.parametrize("recipe", [None, {}, {"subject": "bun"}, {"subject": {}}, ["bun"]])
def test_a_task_of_a_world_that_nobody_knows_is_as_it_was(recipe: Any) -> None:
    assert shown_task(header("Pick up the packet", "packet"), "no such thing", recipe) == "Pick up the packet"
    assert shown_task(header("Pick up the packet"), "bun", recipe) == "Pick up the packet"


def test_words_of_a_world_are_its_recipe_s_else_its_own_names() -> None:
    seen = header("", "packet")
    world = World("w", "lab", "slab of jade", "odd thing", "day")
    assert shown_words(seen, None) == {}
    assert shown_words(seen, World("w", "", "", "", "", prompt="a shop")) == {
        "subject": "the object",
        "surface": "the surface",
    }
    assert shown_words(seen, world) == {"subject": "odd thing", "surface": "slab of jade"}
    assert shown_words(seen, world, BUN) == {"subject": "a sesame bun", "surface": "slab of jade"}
    assert shown_words(seen, world, {"surface": {"prompt": " a bench "}, "subject": {}}) == {
        "subject": "odd thing", "surface": "a bench",
    }  # fmt: skip
    empty = World("w", "lab", "", "", "day")
    assert shown_words(seen, empty) == {"subject": "the object", "surface": "the surface"}
