# SPDX-License-Identifier: Apache-2.0
"""Sampler laws: determinism, distinctness, coverage and exclusions, for any configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import Cancelled, VariantError
from retake.core.variants import Catalogue, load_catalogue, sample_worlds, select_worlds
from retake.core.variants.prompts import compose_prompts
from retake.core.variants.sampler import ORDER, coverage, excluded
from retake.core.variants.worlds import recipe_of

NAMES = st.integers(1, 4)


@st.composite
def catalogues(draw):
    """Random axes; each environment allows a random non-empty part of surfaces, lightings and subjects."""
    sections: dict = {"presets": {}}
    for section, letter in (
        ("surfaces", "s"),
        ("subjects", "o"),
        ("lightings", "l"),
        ("looks", "k"),
        ("clutters", "c"),
    ):
        sections[section] = {f"{letter}{i}": {} for i in range(draw(NAMES))}
    sections["environments"] = {}
    for i in range(draw(NAMES)):
        allowed = {
            key: sorted(draw(st.sets(st.sampled_from(sorted(sections[key])), min_size=1)))
            for key in ("surfaces", "lightings", "subjects")
        }
        backgrounds = {f"b{j}": {} for j in range(draw(st.integers(0, 2)))}
        sections["environments"][f"e{i}"] = {**allowed, "backgrounds": backgrounds}
    rules = draw(st.lists(st.fixed_dictionaries({"environment": st.sampled_from(sorted(sections["environments"])),
                                                 "look": st.sampled_from(sorted(sections["looks"]))}), max_size=2))  # fmt: skip
    return Catalogue(sections, tuple(rules))


def draw_some(catalogue: Catalogue, count: int, seed: int, within: Sequence[str] = ()) -> list:
    """As many worlds as exist, at most `count`."""
    while count:
        try:
            return sample_worlds(count, seed, catalogue, within)
        except VariantError as error:
            count = min(count - 1, int(str(error).split("allow ")[1].split()[0]))
    return []


@given(catalogues(), st.integers(1, 25), st.integers(0, 5))
def test_same_seed_same_worlds_all_distinct_none_excluded(catalogue, count, seed):
    worlds = draw_some(catalogue, count, seed)
    assert worlds == draw_some(catalogue, count, seed)
    keys = [tuple(getattr(w, axis) for axis in ORDER) for w in worlds]
    assert len(set(keys)) == len(keys)
    for world in worlds:
        chosen = {axis: getattr(world, axis) for axis in ORDER}
        assert not excluded(chosen, catalogue.exclusions)
        environment = catalogue.sections["environments"][world.environment]
        assert world.surface in environment["surfaces"]
        assert world.lighting in environment["lightings"]
        assert world.subject in environment["subjects"]
    shorter = worlds[: len(worlds) // 2]
    assert sample_worlds(len(shorter), seed, catalogue) == shorter


@given(st.integers(0, 50))
def test_no_axis_value_starves(seed):
    """Over 120 worlds every value of every axis occurs, and environments are balanced within one."""
    known = load_catalogue()
    worlds = sample_worlds(120, seed)
    table = coverage(worlds, known)
    assert min(table["environment"].values()) >= max(table["environment"].values()) - 1
    for axis, counts in table.items():
        assert min(counts.values()) >= 1, (axis, counts)
    looks = Counter(w.look for w in worlds)
    assert max(looks.values()) <= min(looks.values()) + 1


@given(catalogues(), st.integers(1, 12), st.integers(0, 5), st.data())
def test_named_environments_are_kept_to_and_covered(catalogue, count, seed, data):
    names = sorted(catalogue.sections["environments"])
    within = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    worlds = draw_some(catalogue, count, seed, within)
    assert {w.environment for w in worlds} <= set(within)
    assert worlds == draw_some(catalogue, count, seed, within)
    for world in worlds:
        assert not excluded({axis: getattr(world, axis) for axis in ORDER}, catalogue.exclusions)


def test_presets_and_more_of_their_kind():
    worlds = select_worlds(("kitchen", "bun_warehouse"), 30, 3, of_presets=True)
    assert [w.name for w in worlds[:2]] == ["kitchen", "bun_warehouse"]
    counts = Counter(w.environment for w in worlds[2:])
    assert counts == {"kitchen": 15, "warehouse": 15}
    assert len({w.environment for w in select_worlds(("kitchen",), 30, 3)}) > 5
    with pytest.raises(VariantError, match="unknown environment 'moon'"):
        sample_worlds(1, 0, None, ("moon",))


def test_two_hundred_sensible_worlds_out_of_the_box():
    worlds = sample_worlds(240, 0)
    assert len({w.name for w in worlds}) == 240
    assert (
        len({(w.environment, w.background, w.surface, w.subject, w.lighting, w.look, w.clutter) for w in worlds}) == 240
    )

    class Header:
        task = "pick up the packet"
        objects = ()

    for world in worlds:
        assert set(recipe_of(world)) >= {"environment", "surface", "subject", "lighting", "look"}
        prompts = compose_prompts(Header(), world)  # type: ignore[arg-type]
        assert world.environment.split("_")[0][:4] in prompts.take.lower() or len(prompts.take) > 80


def test_presets_come_first_then_samples():
    worlds = select_worlds(("kitchen",), 3, 7)
    assert worlds[0].name == "kitchen"
    assert list(worlds[1:]) == sample_worlds(3, 7)


def test_too_many_worlds_say_how_many_there_are():
    tiny = Catalogue({"environments": {"e": {}}, "surfaces": {"s": {}}, "subjects": {"a": {}, "b": {}}, "lightings": {"l": {}},
                      "looks": {"k": {}}, "clutters": {}, "presets": {}})  # fmt: skip
    assert len(sample_worlds(2, 0, tiny)) == 2
    with pytest.raises(VariantError, match="allow 2 distinct"):
        sample_worlds(3, 0, tiny)
    with pytest.raises(VariantError, match="negative"):
        sample_worlds(-1)
    with pytest.raises(VariantError, match="1000000000 worlds were asked for; at most 100000"):
        sample_worlds(10**9)


def test_sampling_can_be_stopped():
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 5:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        select_worlds(count=50, check_cancel=stop)
    assert len(asked) == 5


def test_a_catalogue_that_keeps_shapes_says_the_same_of_a_world_but_its_subject_s_shape() -> None:
    known, kept = load_catalogue(), load_catalogue(keep_shapes=True)
    assert kept is load_catalogue(keep_shapes=True)
    assert kept is not known
    worlds = sample_worlds(40, 3, known, ["kitchen", "office", "garden"])
    assert sample_worlds(40, 3, kept, ["kitchen", "office", "garden"]) == worlds
    named = [known.preset(name) for name in known.sections["presets"]]
    shaped = replace(worlds[0], parameters={"subject": {"shape": "ball", "gloss": 0.9}})
    for world in (*worlds, *named, shaped):
        recipe = recipe_of(world, known)
        assert recipe["subject"].pop("shape"), "every subject of ours has one"
        assert recipe_of(world, kept) == recipe
    assert all("shape" in subject for subject in known.sections["subjects"].values()), (
        "nothing was taken from the others"
    )
