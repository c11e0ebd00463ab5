# SPDX-License-Identifier: Apache-2.0
"""Surfaces of links: what melts or runs is told whatever the light, and light, warps and highlights alone are not."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_scenes import FRAMES

from retake.core.verdicts import examine, load_settings
from retake.core.verdicts.additions import measure_additions
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.records import Measurement

NAME = "link_texture"


@lru_cache(maxsize=1)
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def measured(judged: Judged, frames: np.ndarray, depth: bool = True) -> Measurement:
    footage, episode = replace(judged.footage, frames=frames), scene.scene_episode() if depth else None
    return measure_additions(footage, judged.truth, load_settings().stability, episode, "front")[1]


def links(judged: Judged) -> list[int]:
    """Links that show enough of their surface all the time."""
    area = judged.truth.area.min(0)
    return [part for part in judged.truth.robot_parts if area[part] > 300]


def blotches(seed: int, scale: int = 5) -> np.ndarray:
    """(H, W) smooth noise of deviation one half, blotches of about `scale` px."""
    rng = np.random.default_rng(seed)
    width, height = scene.SIZE
    small = rng.normal(size=(height // scale, width // scale)).astype(np.float32)
    noise = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return 0.5 * noise / noise.std()


def molten(judged: Judged, part: int, seed: int, run: int, strength: float = 1.5) -> np.ndarray:
    """Blotches that grow on one link from a third of the take on, and run down over it by `run` px per frame."""
    frames, noise = judged.footage.frames.astype(np.float32), blotches(seed)
    for t in range(FRAMES):
        grown = strength * np.clip((t - FRAMES / 3) / (FRAMES / 2), 0, 1)
        gain = np.exp(grown * np.clip(np.roll(noise, run * t, 0), -1, 1))
        frames[t] *= np.where(judged.truth.labels[t] == part + 1, gain, 1)[..., None]
    return np.clip(frames, 0, 255).astype(np.uint8)


def test_there_are_links_to_melt() -> None:
    assert len(links(clean())) >= 2


@settings(deadline=None, max_examples=8)
@given(which=st.integers(0, 9), seed=st.integers(0, 1000), run=st.integers(2, 3))
def test_a_surface_that_melts_fails_wherever_and_however_it_runs(which: int, seed: int, run: int) -> None:
    part = links(clean())[which % len(links(clean()))]
    found = measured(clean(), molten(clean(), part, seed, run))
    limit = load_settings().threshold(NAME).limit
    assert found.value is not None
    assert found.value > limit
    assert found.note == clean().truth.parts[part].name
    assert found.worst_frame is not None
    assert found.worst_frame > FRAMES // 3


@settings(deadline=None, max_examples=8)
@given(
    start=st.floats(0.5, 1.0), end=st.floats(0.5, 1.2), slope=st.floats(-0.4, 0.4), warp=st.floats(0, 1.5),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_light_that_changes_and_a_picture_that_sways_are_no_melting(
    start: float, end: float, slope: float, warp: float, seed: int
) -> None:
    """Exposure that drifts, a lamp that brightens one side, and a smooth warp of up to 3 px at 640, all changing in time."""
    width, height = scene.SIZE
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    sway = [2 * blotches(seed + k, 45) for k in (0, 1)]
    frames = np.empty_like(clean().footage.frames)
    for t in range(FRAMES):
        share = t / (FRAMES - 1)
        gain = (start + (end - start) * share) * (1 + slope * share * (u / width - 0.5))
        amount = np.float32(warp * np.sin(2 * np.pi * t / 25) * 0.5)
        moved = cv2.remap(
            clean().footage.frames[t], u + amount * np.clip(sway[0], -2, 2), v + amount * np.clip(sway[1], -2, 2),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        frames[t] = np.clip(moved * gain[..., None], 0, 255)
    found = measured(clean(), frames)
    threshold = load_settings().threshold(NAME)
    assert found.value is not None
    assert found.value < (threshold.unsure or threshold.limit)


@pytest.mark.parametrize("depth", [True, False])
def test_a_highlight_and_the_edge_of_a_shadow_that_pass_over_links_are_no_melting(depth: bool) -> None:
    width, height = scene.SIZE
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    robot = np.stack([clean().truth.robot_mask(t) for t in range(FRAMES)])
    frames = clean().footage.frames.astype(np.float32)
    for t in range(FRAMES):
        rows, columns = np.nonzero(robot[t])
        k = int((0.2 + 0.6 * t / FRAMES) * (len(rows) - 1))
        shine = 110 * np.exp(-((u - columns[k]) ** 2 + (v - rows[k]) ** 2) / (2 * 4**2))
        frames[t] += (shine * robot[t])[..., None]
        frames[t, :, : width // 4 + 4 * t] *= 0.6
    found = measured(clean(), np.clip(frames, 0, 255).astype(np.uint8), depth)
    threshold = load_settings().threshold(NAME)
    assert found.value is None or found.value < (threshold.unsure or threshold.limit)


def test_without_depth_a_link_that_stands_still_is_judged_all_the_same() -> None:
    truth = clean().truth
    still = next(p for p in links(clean()) if np.abs(truth.T_world_part[:, p] - truth.T_world_part[:1, p]).max() < 1e-6)
    found = measured(clean(), molten(clean(), still, 3, 1), depth=False)
    assert found.value is not None
    assert found.value > load_settings().threshold(NAME).limit


def test_a_melting_take_fails_as_a_whole_and_says_which_link() -> None:
    part = links(clean())[0]
    verdict = examine(molten(clean(), part, 1, 1), scene.scene_episode(), "front").verdict
    assert verdict.overall == "fail"
    assert verdict.check(NAME).status == "fail"
    assert clean().verdict.check(NAME).status == "pass"
