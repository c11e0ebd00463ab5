# SPDX-License-Identifier: Apache-2.0
"""Worlds that name photographs: materials, a panorama behind everything and the light that it brings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml
from scenes import make_scene_episode

from retake.core.errors import VariantError
from retake.core.painter.photos import LINEAR_OF_BYTE, LUMA, Panorama, photo_texture
from retake.core.variants import load_catalogue, make_variants
from retake.core.variants.make import read_frame
from retake.core.variants.worlds import recipe_of


@pytest.fixture
def place(tmp_path):
    """A file of a user's worlds beside two photographs: a room with its light to the left of +x, and a red floor."""
    room = np.full((128, 256, 3), (90, 60, 40), np.uint8)
    room[64:] = 40
    room[28:34, 60:66] = 255  # azimuth 180 - 63 / 256 * 360 = 91 deg, elevation 90 - 31 / 128 * 180 = 46 deg
    cv2.imwrite(str(tmp_path / "room.png"), room)
    cv2.imwrite(str(tmp_path / "tiles.png"), np.full((64, 96, 3), (20, 20, 200), np.uint8))
    data = {
        "environments": {"my_lab": {
            "prompt": "my laboratory", "floor": {"photo": "tiles.png", "tile_m": 0.5, "licence": "CC0-1.0"},
            "panorama": {"photo": "room.png", "licence": "CC0-1.0"},
        }},
        "presets": {"mine": {"environment": "my_lab", "surface": "oak_table", "subject": "bun", "lighting": "cool_led"}},
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path, data


def test_a_panorama_shows_every_direction_and_brings_its_light(place):
    catalogue = load_catalogue((place[0],))
    recipe = recipe_of(catalogue.preset("mine"), catalogue)
    told = recipe["environment"]["panorama"]
    assert len(told["sha256"]) == 64
    panorama = Panorama.of(told)
    light = panorama.lighting()
    assert abs(light["azimuth_deg"] - 91) < 3
    assert abs(light["elevation_deg"] - 46) < 3
    a, e = np.radians(91.4), np.radians(46.4)
    to_light = np.array([[np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], [1, 0, -0.3]], np.float32)
    to_light /= np.linalg.norm(to_light, axis=1, keepdims=True)
    bright, down = panorama.colours(to_light, np.full(2, 0.01, np.float32))
    assert bright.min() > 0.9
    assert down.max() < 0.05
    turned = Panorama.of({**told, "heading_deg": 90}).lighting()
    assert abs((turned["azimuth_deg"] - light["azimuth_deg"] + 90 + 180) % 360 - 180) < 1


@pytest.mark.parametrize("lamp", [100, 140, 200])
def test_a_panorama_s_light_has_the_colours_and_the_contrast_of_its_parts(tmp_path, lamp):
    """The brightest place as the sun, the rest of the upper half as the sky, the lower half as the ground."""
    room = np.empty((256, 512, 3), np.uint8)
    parts = {"sun": (lamp * np.array([0.8, 0.9, 1.0])).astype(np.uint8), "sky": (90, 80, 60), "ground": (20, 40, 60)}
    room[:128], room[128:], room[32:64, 128:192] = parts["sky"], parts["ground"], parts["sun"]
    cv2.imwrite(str(tmp_path / "room.png"), room)
    light = Panorama.of({"photo": str(tmp_path / "room.png")}).lighting()
    linear = {name: LINEAR_OF_BYTE[np.asarray(bgr, np.uint8)[::-1]] for name, bgr in parts.items()}
    for name, colour in linear.items():
        shown = np.array([int(light[name]["colour"][i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
        assert np.allclose(LINEAR_OF_BYTE[shown], colour / colour.max(), atol=0.03), name
    strength = 0.12 * float(linear["sun"] @ LUMA) / float(linear["sky"] @ LUMA)
    assert 0.1 < strength < 1
    assert light["sun"]["strength"] == pytest.approx(strength, rel=0.03)
    assert light["softness"] == pytest.approx(np.clip(1.2 - strength, 0.2, 1.0), rel=0.03)


def test_photographs_are_laid_on_surfaces_and_mirrored_where_they_do_not_tile(tmp_path):
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, 16:] = 255
    cv2.imwrite(str(tmp_path / "half.png"), half)
    one = photo_texture({"photo": str(tmp_path / "half.png"), "tile_m": 1.0, "tileable": True})
    two = photo_texture({"photo": str(tmp_path / "half.png"), "tile_m": 1.0})
    assert (one.size_m, two.size_m) == ((1.0, 1.0), (2.0, 2.0))
    edge = np.array([0.99, 1.01], np.float32)
    flat, mirrored = (t.sample(edge, np.full(2, 0.5, np.float32), np.full(2, 1e-3, np.float32)) for t in (one, two))
    assert abs(float(mirrored[0, 0] - mirrored[1, 0])) < 0.05, "no seam"
    assert abs(float(flat[0, 0] - flat[1, 0])) > 0.5


def test_a_mirrored_photograph_is_itself_and_its_mirror_image_in_both_directions(tmp_path):
    rng = np.random.default_rng(4)
    picture = cv2.resize(rng.uniform(0, 255, (4, 6, 3)).astype(np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "wall.png"), picture)
    one = photo_texture({"photo": str(tmp_path / "wall.png"), "tile_m": 1.5, "tileable": True})
    two = photo_texture({"photo": str(tmp_path / "wall.png"), "tile_m": 1.5})
    assert (one.size_m, two.size_m) == ((1.5, 1.0), (3.0, 2.0))
    u, v = rng.uniform(0.1, 1.4, 50).astype(np.float32), rng.uniform(0.1, 0.9, 50).astype(np.float32)
    fine, shown = np.full(50, 1e-3, np.float32), one.sample(u, v, np.full(50, 1e-3, np.float32))
    for there in ((u, v), (3 - u, v), (u, 2 - v), (3 - u, 2 - v), (u + 3, v - 2)):
        assert np.abs(two.sample(*there, fine) - shown).max() < 0.03


def test_a_world_of_photographs_is_painted_and_states_its_terms(place, tmp_path):
    catalogue = load_catalogue((place[0],))
    episode = make_scene_episode(tmp_path / "e", frames=3, size=(160, 120))
    [made] = make_variants(
        episode, "front", tmp_path / "v", worlds=[catalogue.preset("mine")], catalogue=catalogue, only_commercial=True
    )
    assert "CC0-1.0" in made.licence
    before = read_frame(tmp_path / "v/mine/front/frame.png")
    cv2.imwrite(str(place[0].parent / "tiles.png"), np.full((64, 96, 3), (200, 20, 20), np.uint8))
    [again] = make_variants(episode, "front", tmp_path / "v", worlds=[catalogue.preset("mine")], catalogue=catalogue)
    assert again.frame_sha256 != made.frame_sha256, "another photograph is another world"
    assert not np.array_equal(before, read_frame(tmp_path / "v/mine/front/frame.png"))


def test_what_is_wrong_with_a_photograph_is_said(place, tmp_path):
    path, data = place
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((60, 256, 3), np.uint8))
    with pytest.raises(VariantError, match="256x60; an equirectangular panorama is twice as wide"):
        Panorama.of({"photo": str(tmp_path / "wide.png")})
    data["environments"]["my_lab"]["floor"]["licence"] = ""
    path.write_text(yaml.safe_dump(data), "utf-8")
    catalogue = load_catalogue((path,))
    with pytest.raises(VariantError, match="states no licence"):
        recipe_of(catalogue.preset("mine"), catalogue)
    data["environments"]["my_lab"]["floor"]["licence"] = "CC0-1.0"
    path.with_name("whole.yaml").write_text(yaml.safe_dump(data), "utf-8")
    catalogue = load_catalogue((path.with_name("whole.yaml"),))
    (tmp_path / "room.png").unlink()
    with pytest.raises(VariantError, match=r"room.png does not exist"):
        recipe_of(catalogue.preset("mine"), catalogue)
    (tmp_path / "torn.png").write_bytes(b"no picture")
    with pytest.raises(VariantError, match="no readable image"):
        photo_texture({"photo": str(tmp_path / "torn.png")})
