# SPDX-License-Identifier: Apache-2.0
"""Variants: same geometry and robot, another world. Laws of the procedural backend and of `make_variants`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.errors import Cancelled, InputError, VariantError
from retake.core.files import read_json
from retake.core.painter.light import ROBOT_GAIN, Light, robot_gain
from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants import (
    image_backend,
    load_catalogue,
    make_variant,
    make_variants,
    open_variant,
    select_worlds,
    source_frame,
)
from retake.core.variants.edges import structure_f1
from retake.core.variants.make import read_frame
from retake.core.variants.prompts import compose_prompts
from retake.core.variants.worlds import recipe_of

EXPERIMENTS = ("bun_warehouse", "chips_conveyor", "vegetable_kitchen")
PRESETS = tuple(load_catalogue().sections["presets"])
FULL = os.environ.get("RETAKE_FULL") == "1"


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """One frame at 320x240 from both cameras."""
    return make_scene_episode(
        tmp_path_factory.mktemp("still") / "e", frames=12, size=(320, 240), wrist=True, only=range(4, 6)
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_scene_episode(tmp_path_factory.mktemp("small") / "e", frames=3)


def world(name: str):
    return load_catalogue().preset(name)


@pytest.mark.parametrize("name", PRESETS if FULL else EXPERIMENTS)
def test_robot_edges_and_size_are_kept(still, name):
    source = source_frame(still, "front", 0)
    frame = ProceduralBackend().render(source, world(name), 3)
    assert frame.shape == source.rgb.shape
    assert frame.dtype == np.uint8
    assert structure_f1(frame, source.rgb, source.robot_mask) >= 0.95
    assert 25 < frame.mean() < 215


def test_the_edge_measure_notices_a_robot_shifted_by_three_pixels(still):
    source = source_frame(still, "front", 0)
    frame = ProceduralBackend().render(source, world("bun_warehouse"), 3)
    assert structure_f1(np.roll(frame, 2, 1), source.rgb, source.robot_mask) < 0.9
    assert structure_f1(np.roll(frame, 3, 1), source.rgb, source.robot_mask) < 0.8
    assert structure_f1(np.full_like(frame, 90), source.rgb, source.robot_mask) < 0.1


def test_same_seed_same_pixels_and_other_seed_other_pixels(small):
    source = source_frame(small, "front", 0)
    first, again, other = (ProceduralBackend().render(source, world("bun_warehouse"), s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_worlds_differ_from_each_other(small):
    source = source_frame(small, "front", 0)
    frames = [ProceduralBackend().render(source, world(n), 0).astype(float) for n in EXPERIMENTS]
    for i in range(3):
        for j in range(i):
            assert np.abs(frames[i] - frames[j]).mean() > 15


def test_robot_gain_is_bounded_and_smooth(still):
    source = source_frame(still, "front", 0)
    for name in ("harsh_sun", "night_neon", "overcast"):
        light = Light.of(load_catalogue().value("lighting", name), np.random.default_rng(0))
        gain = robot_gain(light, source.normals, source.robot_mask)
        assert gain.min() >= ROBOT_GAIN[0]
        assert gain.max() <= ROBOT_GAIN[1]
        step = np.abs(np.diff(gain, axis=1))[source.robot_mask[:, 1:] & source.robot_mask[:, :-1]]
        assert step.max() < 0.12 * gain.max()


def test_a_moving_camera_sees_the_same_world(still):
    """Work-surface points seen in two frames of the wrist camera keep their colour (shadows aside)."""
    first, second = (source_frame(still, "wrist", i) for i in (0, 1))
    # Without a sun only contact shadows remain, so colours must agree closely.
    plain = dataclasses.replace(
        world("vegetable_kitchen"),
        parameters={"lighting": {"sun": {"strength": 0.0}}, "look": {"vignette": 0.0, "grain": 0.0}},
    )
    dresser = ProceduralBackend().dresser(first, plain, 0)
    a, b = dresser.render(first).astype(float), dresser.render(second).astype(float)
    rows, columns = np.nonzero(first.instance_ids == 2)
    p = first.camera.unproject(np.stack([columns + 0.5, rows + 0.5], -1), first.depth_m[rows, columns].astype(float))
    uv, z = second.camera.project(p)
    x, y = np.floor(uv).astype(int).T
    inside = (x >= 2) & (y >= 2) & (x < 318) & (y < 238)
    rows, columns, x, y, z = (v[inside] for v in (rows, columns, x, y, z))
    seen = (second.instance_ids[y, x] == 2) & (np.abs(second.depth_m[y, x] - z) < 2e-3)
    difference = np.abs(a[rows, columns] - b[y, x])[seen]
    assert seen.sum() > 2000
    assert np.abs(first.camera.T_camera_world - second.camera.T_camera_world).max() > 1e-3
    assert np.median(difference) < 3
    # The measure can fail: colours of unrelated table points differ more.
    assert np.median(np.abs(a[rows, columns] - np.roll(b[y, x], 997, axis=0))[seen]) > np.median(difference) + 1


def test_variants_are_written_resumed_and_remade_when_inputs_change(small, tmp_path):
    worlds = select_worlds(EXPERIMENTS[:2])
    made = make_variants(small, "front", tmp_path / "v", worlds=worlds, seed=4)
    assert [v.id for v in made] == [f"{name}/front" for name in EXPERIMENTS[:2]]
    record = read_json(tmp_path / "v/bun_warehouse/front/variant.json")
    assert record["source"]["episode_sha256"] == small.content_sha256
    assert "bun" in record["prompt"]
    assert "tray" in record["prompt"]
    assert record["licence"] == "Apache-2.0"
    stamp = (tmp_path / "v/bun_warehouse/front/frame.png").stat().st_mtime_ns
    assert make_variants(small, "front", tmp_path / "v", worlds=worlds, seed=4) == made
    assert (tmp_path / "v/bun_warehouse/front/frame.png").stat().st_mtime_ns == stamp
    other = make_variants(small, "front", tmp_path / "v", worlds=worlds[:1], seed=5)
    assert other[0].frame_sha256 != made[0].frame_sha256
    assert open_variant(tmp_path / "v/chips_conveyor/front") == made[1]
    (tmp_path / "v/chips_conveyor/front/frame.png").write_bytes(b"torn")
    assert make_variants(small, "front", tmp_path / "v", worlds=worlds[1:], seed=4) == made[1:]


def test_cancel_keeps_what_is_done(small, tmp_path):
    worlds, calls = select_worlds(EXPERIMENTS), []

    def cancel() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        make_variants(small, "front", tmp_path / "v", worlds=worlds, check_cancel=cancel)
    assert [p.name for p in (tmp_path / "v").iterdir()] == ["bun_warehouse"]
    whole = make_variants(small, "front", tmp_path / "v", worlds=worlds)
    assert whole == make_variants(small, "front", tmp_path / "w", worlds=worlds)


KILL = """
import sys
from pathlib import Path
from retake.core.episode import open_episode
from retake.core.variants import make_variants, select_worlds
print("ready", flush=True)
make_variants(open_episode(sys.argv[1]), "front", Path(sys.argv[2]), worlds=select_worlds(%r), seed=9)
"""


def test_kill_and_resume_gives_the_same_frames(small, tmp_path):
    code, rng = KILL % (EXPERIMENTS,), np.random.default_rng(0)
    expected = make_variants(small, "front", tmp_path / "whole", worlds=select_worlds(EXPERIMENTS), seed=9)
    for _ in range(10 if FULL else 2):
        child = subprocess.Popen([sys.executable, "-c", code, small.path, tmp_path / "killed"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0.05, 1.5)))
        child.kill()
        child.wait()
        child.stdout.close()
    again = make_variants(small, "front", tmp_path / "killed", worlds=select_worlds(EXPERIMENTS), seed=9)
    assert again == expected


def test_every_preset_has_a_recipe_and_a_prompt(small):
    for name in PRESETS:
        assert set(recipe_of(world(name))) == {"environment", "container", "surface", "subject", "lighting", "look"}
        prompts = compose_prompts(small.header, world(name))
        assert len(prompts.take) < 700
        assert "  " not in prompts.take
        assert "Keep the robot" in prompts.image


# Faults ------------------------------------------------------------------------------------------------------------


def test_unknown_names_list_the_valid_ones(small, tmp_path):
    with pytest.raises(VariantError, match=r"unknown preset 'moon'.*bun_warehouse"):
        select_worlds(("moon",))
    with pytest.raises(VariantError, match=r"unknown environment 'moon'.*kitchen"):
        make_variants(small, "front", tmp_path, worlds=[dataclasses.replace(world("kitchen"), environment="moon")])
    with pytest.raises(VariantError, match=r"background of 'kitchen'.*wooden"):
        make_variants(small, "front", tmp_path, worlds=[dataclasses.replace(world("kitchen"), background="moon")])
    with pytest.raises(InputError, match="procedural"):
        image_backend("nope")


def test_empty_prompts_are_refused(small):
    known = load_catalogue()
    mute = {**known.sections, "subjects": {**known.sections["subjects"], "soap": {"prompt": " "}}}
    silent = dataclasses.replace(world("kitchen"), subject="soap")
    with pytest.raises(VariantError, match="subject 'soap' has an empty prompt"):
        compose_prompts(small.header, silent, dataclasses.replace(known, sections=mute))
    with pytest.raises(VariantError, match=r"rewriting of the prompts of world 'kitchen' returned an empty text"):
        compose_prompts(small.header, world("kitchen"), rewrite=lambda text: "")
    louder = compose_prompts(small.header, world("kitchen"), rewrite=str.upper)
    assert louder.take.isupper()


def test_a_camera_without_maps_is_refused(tmp_path):
    episode = make_scene_episode(tmp_path / "e", frames=1, channels=("rgb", "depth"))
    with pytest.raises(VariantError, match="recorded no instances, normals"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(EXPERIMENTS))


def test_empty_lists_and_twins_are_refused(small, tmp_path):
    with pytest.raises(VariantError, match="no worlds"):
        make_variants(small, "front", tmp_path, worlds=[])
    with pytest.raises(VariantError, match="no worlds"):
        select_worlds((), 0)
    with pytest.raises(VariantError, match="two worlds"):
        make_variants(small, "front", tmp_path, worlds=[world("kitchen"), world("kitchen")])
    with pytest.raises(VariantError, match="cannot be a folder"):
        make_variants(small, "front", tmp_path, worlds=[dataclasses.replace(world("kitchen"), name="../x")])


def test_bad_recipes_say_what_is_wrong(small, tmp_path):
    bad = dataclasses.replace(world("kitchen"), parameters={"surface": {"kind": "lava"}})
    with pytest.raises(VariantError, match=r"material kind 'lava'.*wood"):
        make_variants(small, "front", tmp_path, worlds=[bad])
    bad = dataclasses.replace(world("kitchen"), parameters={"surface": {"colours": ["red"]}})
    with pytest.raises(VariantError, match="#rrggbb"):
        make_variants(small, "front", tmp_path, worlds=[bad])
    with pytest.raises(VariantError, match="parameter"):
        recipe_of(dataclasses.replace(world("kitchen"), parameters={"sky": {}}))


def test_user_worlds_are_read_and_bad_files_named(small, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "presets:\n  my_kitchen: {environment: kitchen, surface: oak_table, subject: soap, lighting: overcast}\n"
    )
    assert load_catalogue([mine]).preset("my_kitchen").subject == "soap"
    for text, message in (
        ("worlds: {}\n", "unknown section 'worlds'"), ("presets: [1]\n", "must map names"),
        ("presets: {a: {environment: kitchen}}\n", "lacks lighting, subject, surface"),
        ("presets: {a: {sky: x}}\n", "unknown axis 'sky'"), ("- 1\n", "expected a mapping"), ("{", "not readable YAML"),
    ):  # fmt: skip
        bad = tmp_path / f"{abs(hash(text))}.yaml"
        bad.write_text(text)
        with pytest.raises(InputError, match=message):
            load_catalogue([bad])


def test_only_commercial_fails_closed(small, tmp_path):
    class Unknown(ProceduralBackend):
        licence = ""

    with pytest.raises(VariantError, match="no licence is stated"):
        make_variants(small, "front", tmp_path, worlds=[world("kitchen")], backend=Unknown(), only_commercial=True)
    assert make_variants(small, "front", tmp_path, worlds=[world("kitchen")], only_commercial=True)


def test_damaged_records_and_foreign_folders(small, tmp_path):
    source = source_frame(small, "front", 0)
    variant = make_variant(source, world("kitchen"), ProceduralBackend(), tmp_path / "k")
    assert variant.source["episode_sha256"]
    assert read_frame(tmp_path / "k/frame.png").shape == source.rgb.shape
    (tmp_path / "k/variant.json").write_text("{}")
    with pytest.raises(VariantError, match="schema None"):
        open_variant(tmp_path / "k")
    (tmp_path / "k/variant.json").unlink()
    with pytest.raises(VariantError, match="not a variant folder"):
        make_variant(source, world("kitchen"), ProceduralBackend(), tmp_path / "k")
    with pytest.raises(VariantError, match="no readable image"):
        read_frame(tmp_path / "none.png")


def test_a_backend_of_another_size_is_refused(small, tmp_path):
    class Wrong(ProceduralBackend):
        def render(self, source, world, seed, check_cancel=lambda: None):
            return super().render(source, world, seed)[:-2]

    with pytest.raises(VariantError, match=r"returned \(118, 160, 3\)"):
        make_variant(source_frame(small, "front", 0), world("kitchen"), Wrong(), Path(tmp_path) / "x")
