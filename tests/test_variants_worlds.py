# SPDX-License-Identifier: Apache-2.0
"""Worlds of the user's own: read from any order of sections, looked up in their own catalogue, counted by value."""

from __future__ import annotations

import pytest

from retake.core.errors import InputError, VariantError
from retake.core.variants.base import World
from retake.core.variants.sampler import choices, coverage, excluded, sample_worlds
from retake.core.variants.worlds import (
    Catalogue,
    described_world,
    lighting_of,
    load_catalogue,
    photo_licences,
    placed_beside,
    recipe_of,
    stated_recipe,
    with_photos,
)

OWN = Catalogue(
    {
        "environments": {
            "yard": {"container": {"kind": "crate"}, "furniture": ["shed"],
                     "backgrounds": {"dusk": {"sky": "red", "prompt": "a red sky"}, "none": None}},
            "shop": {"surfaces": ["oak", "gone"]},
        },
        "surfaces": {"oak": {"colour": 1}, "tin": {"colour": 2}}, "subjects": {"bun": {"shape": "round", "colour": 3}},
        "lightings": {"dim": {"sun": 1, "sky": 2}}, "looks": {"plain": None}, "clutters": {"cups": {"furniture": ["cup"]}},
        "presets": {"one": {"environment": "yard", "surface": "oak", "subject": "bun", "lighting": "dim", "look": "plain"}},
    },
    ({"environment": "yard", "surface": ["tin"]},),
)  # fmt: skip
ONE = OWN.preset("one")


def world(**more) -> World:
    return World(**{**vars(ONE), **more})


def test_a_recipe_is_what_its_own_catalogue_says():
    assert not OWN.keep_shapes
    assert World("one", "yard", "oak", "bun", "dim", "plain") == ONE
    assert recipe_of(ONE, OWN) == {
        "environment": {"container": {"kind": "crate"}, "furniture": ["shed"]}, "container": {"kind": "crate"},
        "surface": {"colour": 1}, "subject": {"shape": "round", "colour": 3}, "lighting": {"sun": 1, "sky": 2}, "look": {},
    }  # fmt: skip
    assert recipe_of(world(background="dusk"), OWN)["environment"]["sky"] == "red"
    assert "prompt" not in recipe_of(world(background="dusk"), OWN)["environment"]
    assert "sky" not in recipe_of(world(background="none"), OWN)["environment"]
    assert recipe_of(world(clutter="cups"), OWN)["environment"]["furniture"] == ["shed", "cup"]
    changed = recipe_of(world(parameters={"lighting": {"sun": 9}}), OWN)
    assert changed["lighting"] == {"sun": 9, "sky": 2}
    assert recipe_of(ONE, OWN)["environment"] == recipe_of(ONE, OWN)["environment"], "the catalogue is as it was"
    kept = Catalogue(OWN.sections, keep_shapes=True)
    assert recipe_of(ONE, kept)["subject"] == {"colour": 3}
    assert lighting_of(world(parameters={"lighting": {"sun": 9}}), OWN) == {"sun": 9, "sky": 2}
    told = World("w", "", "", "", "dim", "plain", prompt="a wall")
    assert stated_recipe(told, OWN) == {"lighting": {"sun": 1, "sky": 2}}
    assert stated_recipe(ONE, OWN) == recipe_of(ONE, OWN)
    for wrong, words in (
        ({"background": "noon"}, "background of 'yard'"), ({"surface": "glass"}, "surface"), ({"prompt": "x"}, "has no recipe"),
        ({"parameters": {"sky": {}}}, "parameter of world 'one'"), ({"parameters": {"look": 3}}, "must be a mapping; found 3"),
    ):  # fmt: skip
        with pytest.raises(VariantError, match=words):
            recipe_of(world(**wrong), OWN)


def test_sections_of_a_file_may_stand_in_any_order(tmp_path, monkeypatch):
    """Read beside a folder of Retake's own worlds that holds one place."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.yaml").write_text("environments: {yard: {}}\n")
    monkeypatch.setattr("retake.core.variants.worlds.config_path", lambda *names: tmp_path / "own")
    path = tmp_path / "w.yaml"
    path.write_text("exclusions:\n- {look: odd}\nlooks: {odd: {}}\nsurfaces: {slate: {photo: p.png}}\n")
    found = load_catalogue([path])
    assert found.value("look", "odd") == {}
    assert found.value("surface", "slate") == {"photo": str((tmp_path / "p.png").resolve())}
    assert found.exclusions == ({"look": "odd"},)
    assert found.value("environment", "yard") == {}
    assert (found.files, found.keep_shapes) == ((path,), False)
    assert load_catalogue([path]) is found
    assert load_catalogue([path], keep_shapes=True).keep_shapes
    for text, words in (("[1]", "expected a mapping"), ("exclusions: {a: b}", "must be a list"), ("sky: {}", "section 'sky'"),
                        ("looks: [a]", "must map names"), ("looks: {a: 1}", "must map names"),
                        ("presets: {p: {environment: x}}", "lacks lighting, subject, surface"),
                        ("presets: {p: {colour: x}}", "axis 'colour'"), ("exclusions: [x]", "must be a list")):  # fmt: skip
        other = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        other.write_text(text)
        with pytest.raises(InputError, match=words):
            load_catalogue([other])


def test_photographs_are_known_by_their_content_and_terms(tmp_path):
    (tmp_path / "p.png").write_bytes(b"x")
    at = {"photo": str(tmp_path / "p.png"), "licence": "CC0-1.0"}
    found = with_photos({"walls": [{"deep": at}], "n": 1})
    assert found["walls"][0]["deep"]["sha256"][:4] == "2d71"
    assert found["n"] == 1
    assert photo_licences({"a": at, "b": [{"c": {"photo": "x"}}, 3], "d": "e"}) == ("CC0-1.0", "")
    assert placed_beside([{"photo": "p.png", "k": [1]}], tmp_path) == [
        {"photo": str((tmp_path / "p.png").resolve()), "k": [1]}
    ]
    with pytest.raises(VariantError, match="states no licence"):
        with_photos({"photo": at["photo"]})
    with pytest.raises(VariantError, match="does not exist"):
        with_photos({"photo": "nowhere.png", "licence": "x"})


def test_a_world_in_words_is_named_by_its_first_words_and_all_of_them():
    one, two = described_world("  A   Red wall,  at night "), described_world("A Red wall, at dawn")
    assert one.prompt == "A Red wall, at night"
    assert one.name.rpartition("-")[0] == "a_red_wall_at_night"
    assert len(one.name.rpartition("-")[2]) == 8
    assert one.name != two.name
    assert (one.environment, one.lighting) == ("", "soft_daylight")
    long = described_world("word " * 40).name
    assert long.rpartition("-")[0] == "_".join(["word"] * 10)[:48].strip("_")
    with pytest.raises(VariantError, match="describes no world"):
        described_world(" … ")


def test_values_that_make_sense_are_chosen_and_counted():
    assert choices("environment", {}, OWN) == ["shop", "yard"]
    assert choices("background", {"environment": "yard"}, OWN) == ["dusk", "none"]
    assert choices("background", {"environment": "shop"}, OWN) == [""]
    assert choices("surface", {"environment": "shop"}, OWN) == ["oak"]
    assert choices("surface", {"environment": "yard"}, OWN) == ["oak", "tin"]
    bare = Catalogue({**OWN.sections, "clutters": {}, "looks": {}})
    assert (choices("clutter", {"environment": "yard"}, bare), choices("look", {"environment": "yard"}, bare)) == (
        [""],
        [],
    )
    rules = ({"environment": "yard", "surface": ["tin", "oak"]}, {})
    assert excluded({"environment": "yard", "surface": "oak"}, rules)
    assert not excluded({"environment": "yard"}, rules)
    assert not excluded({"environment": "shop", "surface": "oak"}, rules)
    assert not excluded({}, rules)
    # Three worlds exist: the shop's, and the yard's under two skies; the tin table in the yard is left out.
    worlds = sample_worlds(3, 5, OWN)
    assert {(w.environment, w.background, w.surface) for w in worlds} == {
        ("shop", "", "oak"), ("yard", "dusk", "oak"), ("yard", "none", "oak"),
    }  # fmt: skip
    assert worlds[0].name.startswith("w0000-")
    assert worlds[2].name == f"w0002-{worlds[2].environment}-bun-dim"
    assert sample_worlds(2, 5, OWN) == worlds[:2]
    assert {w.environment for w in sample_worlds(2, 5, OWN, ("yard",))} == {"yard"}
    with pytest.raises(VariantError, match="the axes and exclusions allow 3 distinct ones"):
        sample_worlds(4, 5, OWN)
    with pytest.raises(VariantError, match="must not be negative"):
        sample_worlds(-1, 5, OWN)
    with pytest.raises(VariantError, match="at most 100000 are sampled"):
        sample_worlds(100_001, 5, OWN)
    assert sample_worlds(0, 5, OWN) == []
    assert coverage(worlds, OWN) == {
        "environment": {"shop": 1, "yard": 2}, "surface": {"oak": 3, "tin": 0}, "subject": {"bun": 3}, "lighting": {"dim": 3},
        "look": {"plain": 3}, "clutter": {"cups": 3},
    }  # fmt: skip
