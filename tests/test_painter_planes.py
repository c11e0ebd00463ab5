# SPDX-License-Identifier: Apache-2.0
"""The painter works through pixels plane by plane and in blocks: how they are cut changes no pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.painter import dresser, planes, restage
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.shadows import ShadowField
from retake.core.painter.textures import wrapped
from retake.core.variants.base import SourceFrame, source_frame
from retake.core.variants.worlds import load_catalogue

SIZE, FRAMES = (160, 120), (2, 5)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[SourceFrame]]:
    episode = make_scene_episode(tmp_path_factory.mktemp("planes") / "e", frames=8, size=SIZE, wrist=True)
    return {camera.name: [source_frame(episode, camera.name, t) for t in FRAMES] for camera in episode.header.cameras}


def painted(sources: list[SourceFrame]) -> np.ndarray:
    one = ProceduralBackend().dresser(sources[0], load_catalogue().preset("conveyor_blue"), 0)
    return np.stack([one.render(source) for source in sources])


def test_blocks_of_any_size_give_the_same_pixels(sources, monkeypatch):
    whole = {camera: painted(frames) for camera, frames in sources.items()}
    for size, dense in ((700, 0.6), (1 << 14, 2.0), (1 << 14, 0.0)):
        for module in (planes, restage, dresser):
            monkeypatch.setattr(module, "blocks", lambda count, size=size: cut(count, size))
        monkeypatch.setattr(dresser, "DENSE", dense)
        for camera, frames in sources.items():
            assert np.array_equal(painted(frames), whole[camera]), (camera, size, dense)


def cut(count: int, size: int):
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def test_a_moving_camera_is_painted_afresh_in_every_frame(sources):
    """What it saw before leaves no trace: its second frame is that of a camera that only ever looked at it, exposed alike."""
    wrist = next(name for name in sources if name != "front")
    one = ProceduralBackend().dresser(sources[wrist][0], load_catalogue().preset("kitchen"), 0)
    first, second = (one.render(source) for source in sources[wrist])
    assert not np.array_equal(first, second)
    one.render(sources[wrist][0])
    assert np.array_equal(one.render(sources[wrist][1]), second)


METRES = st.floats(-1e5, 1e5, width=32).filter(lambda v: v == 0 or abs(v) > 1e-30)
"""Of smaller ones a share is no number any more."""


@given(st.lists(METRES, min_size=1, max_size=50), st.sampled_from([8, 64, 512, 100]))
def test_a_period_is_taken_off_as_the_remainder_is(values, period):
    x = np.array(values, np.float32)
    assert np.array_equal(wrapped(x, period), np.mod(x, np.float32(period)))


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([40, 255, 256, 60_000]), st.sampled_from([np.uint8, np.bool_, np.int32])
)
def test_tables_are_looked_up_by_small_and_large_ids_alike(seed, largest, kind):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 2 if kind is np.bool_ else 100, 65536).astype(kind)
    ids = rng.integers(0, largest + 1, (7, 9)).astype(np.uint16)
    ids[0, 0] = largest
    found = planes.by_id(table, ids)
    assert found.dtype == table.dtype
    assert np.array_equal(found, table[ids])


@given(st.integers(0, 2**32 - 1))
def test_the_largest_of_three_is_the_first_of_equal_ones(seed):
    a = np.random.default_rng(seed).integers(0, 3, (3, 40)).astype(np.float32)
    assert np.array_equal(planes.largest(*a), a.argmax(0))


def test_nothing_is_shadowed_out_of_a_field_s_reach():
    field = ShadowField(np.array([0.3, 0, 1.0], np.float32), np.zeros(3))
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 41), np.linspace(-0.1, 0.1, 41))
    field.add_points(np.stack([x, y, np.full_like(x, 0.2)], -1).reshape(-1, 3).astype(np.float32))
    floor = np.stack([*np.meshgrid(np.linspace(-1, 1, 160), np.linspace(-1, 1, 160)), np.zeros((160, 160))])
    at = field.planes(floor.reshape(3, -1).astype(np.float32))
    shade, contact = field.cast_on(at[:, None], 0.6)[0], field.contact_on(at[:, None], 0.4)[0]
    near = field.reach(at)
    assert 0 < len(near) < 0.6 * at.shape[1]
    far = np.setdiff1d(np.arange(at.shape[1]), near)
    assert shade.max() > 0.5
    assert not shade[far].any()
    assert not contact[far].any()
    field.clear()
    assert not len(field.reach(at))
