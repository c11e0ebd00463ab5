# SPDX-License-Identifier: Apache-2.0
"""Names of variants and takes, and where they lie: no two have one, and none leads out of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.run_layout import (
    RECORD,
    RunLayout,
    camera_in,
    frame_suffix,
    is_name,
    is_older,
    is_take_of,
    name_of,
    subfolders,
    take_id,
    variant_id,
    world_of,
)

WORD = st.text("abc", min_size=1, max_size=3)
PLACE = st.tuples(WORD, st.sampled_from(["front", "wrist"]), st.sampled_from([0, 4, 14]))
WAY = st.tuples(st.sampled_from(["composite", "oscar"]), st.integers(0, 30), st.sampled_from([0, 4, 14]))


@given(PLACE, PLACE)
def test_two_views_of_a_world_have_two_names(one: tuple[str, str, int], two: tuple[str, str, int]) -> None:
    names = [variant_id(*place) for place in (one, two)]
    assert (names[0] == names[1]) == (one == two)
    assert [camera_in(name) for name in names] == [one[1], two[1]]
    assert world_of(names[0]) == one[0] + (f"-f{one[2]}" if one[2] else "")
    assert all(is_name(name) for name in names)


@given(PLACE, WAY, WAY)
def test_two_takes_of_a_variant_have_two_names(place: tuple[str, str, int], one: tuple, two: tuple) -> None:
    variant = variant_id(*place)
    takes = [take_id(variant, *way) for way in (one, two)]
    same = one == two or (one[:2] == two[:2] and {one[2], two[2]} == {0, place[2]})
    assert (takes[0] == takes[1]) == same, "the frame of the variant is named once"
    assert all(is_take_of(take, variant) and is_name(take) for take in takes)
    assert camera_in(takes[0]) == place[1]
    assert not is_take_of(takes[0], variant_id(f"{place[0]}x", *place[1:]))
    assert not is_take_of(takes[0], variant.replace(place[1], "rear"))


@pytest.mark.parametrize(
    ("variant", "given", "name"),
    [("kitchen/front", ("composite", 7), "kitchen-s7/front"), ("kitchen/front", ("oscar", 7), "kitchen-oscar-s7/front"),
     ("kitchen/front", ("composite", 7, 40), "kitchen-f40-s7/front"),
     ("kitchen-f40/front", ("composite", 7, 40), "kitchen-f40-s7/front"),
     ("kitchen-f40/front", ("oscar", 1, 0), "kitchen-f40-oscar-s1/front"), ("own", ("composite", 3, 2), "own-f2-s3")],
)  # fmt: skip
def test_a_take_is_named_by_what_it_is_made_of(variant: str, given: tuple, name: str) -> None:
    assert take_id(variant, *given) == name
    assert frame_suffix(0) == ""


@pytest.mark.parametrize(
    ("text", "fine"),
    [("a", True), ("a/b", True), ("a/b/c", False), ("", False), ("a/", False), ("/a", False), (".", False), ("..", False),
     ("../a", False), ("a/..", False), ("a\\b", False), ("a\0", False), ("...", True), ("a b/ü", True)],
)  # fmt: skip
def test_a_name_never_leads_out_of_the_run(text: str, fine: bool) -> None:
    assert is_name(text) == fine


def test_a_name_of_one_part_has_no_camera() -> None:
    assert (world_of("own"), camera_in("own")) == ("own", "")
    assert (world_of("a/b"), camera_in("a/b")) == ("a", "b")


def test_folders_are_named_by_where_they_lie(tmp_path: Path) -> None:
    run = RunLayout(tmp_path)
    assert name_of(run.take_folder("kitchen-s1/front")) == "kitchen-s1/front"
    assert name_of(run.variant_folder("old")) == "old"
    assert (is_older(run.variant_folder("old")), is_older(run.take_folder("a/b"))) == (True, False)
    assert name_of(Path("alone")) == "alone"
    assert run.views_record("kitchen-s1/front") == run.verdicts_folder / "kitchen-s1" / "views.json"
    folders = {run.variants_folder, run.takes_folder, run.verdicts_folder, run.skeletons_folder, run.report_folder}
    assert len(folders | {run.captured_episode, run.check, run.report}) == 8


def test_cameras_are_found_in_order_with_those_of_an_older_run_and_no_temporaries(tmp_path: Path) -> None:
    run = RunLayout(tmp_path)
    assert run.variant_folders() == run.take_folders() == run.skeleton_cameras() == subfolders(tmp_path / "no") == []
    for kind, at in (("variant", run.variant_folder), ("take", run.take_folder)):
        for name in ("b/wrist", "b/front", "a", "c/front", ".hidden/front", "d/.tmp"):
            at(name).mkdir(parents=True)
        (at("a") / RECORD[kind]).write_text("{}")
        (at("a") / "inside").mkdir()
        (at("b") / "file").write_text("")
    assert [name_of(p) for p in run.variant_folders()] == ["a", "b/front", "b/wrist", "c/front"]
    assert [name_of(p) for p in run.take_folders()] == ["a", "b/front", "b/wrist", "c/front"]
    for camera in ("wrist", "front", "bare"):
        run.skeleton(camera).mkdir(parents=True)
        if camera != "bare":
            (run.skeleton(camera) / "skeleton.json").write_text("{}")
    assert run.skeleton_cameras() == ["front", "wrist"]
