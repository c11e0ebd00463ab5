# SPDX-License-Identifier: Apache-2.0
"""How far the arrow's stages say they are, and which seeds and cameras they go through, with stand-ins for the work itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from strategies import random_header

from retake.core import pipeline
from retake.core.config import RunConfig
from retake.core.episode import Episode
from retake.core.errors import InputError, TakeError
from retake.core.robustness.options import LONGEST_S, check_timeout
from retake.core.run_store import RunDirectory
from retake.core.skeleton import Skeleton
from retake.core.takes import Take, TakeRequest, fan_out

CONFIG = RunConfig()


def told() -> tuple[list[tuple[int, int, str]], object]:
    calls: list[tuple[int, int, str]] = []
    return calls, lambda done, total, note="": calls.append((done, total, note))


def episode(*channels: tuple[str, ...], frames: int = 12) -> Episode:
    """An episode of which only cameras and length are asked."""
    made = random_header(np.random.default_rng(0), cameras=len(channels))
    cameras = tuple(replace(c, channels=own) for c, own in zip(made.cameras, channels, strict=True))
    nothing = np.zeros(0)
    return Episode(Path("e"), replace(made, cameras=cameras), True, "", ({},) * frames, nothing, nothing, ())


ALL = ("rgb", "depth", "normals", "instances")


def test_cameras_are_those_named_or_those_with_maps_or_all():
    def of(*channels, cameras=()):
        return pipeline.cameras_of(replace(CONFIG, cameras=cameras), episode(*channels))

    assert of(ALL, ("rgb",), ALL) == ("cam0", "cam2")
    assert of(("rgb",), ("rgb", "depth")) == ("cam0", "cam1")
    assert of(ALL, ("rgb",), cameras=("cam1", "cam0", "cam1")) == ("cam1", "cam0")


def test_control_videos_of_several_cameras_are_one_work(monkeypatch, tmp_path):
    def draw(of, camera, out, progress, cancel, **how):
        for frame in (1, 2):
            progress(frame, 2, "" if frame == 1 else "half")
        return object.__new__(Skeleton)

    monkeypatch.setattr(pipeline, "make_skeleton", draw)
    monkeypatch.setattr(pipeline, "_checked_episode", lambda run, config: episode(ALL, ALL, ALL))
    calls, progress = told()
    made = pipeline.skeleton(RunDirectory(tmp_path), CONFIG, progress)
    assert calls == [(1, 6, "cam0"), (2, 6, "half"), (3, 6, "cam1"), (4, 6, "half"), (5, 6, "cam2"), (6, 6, "half")]
    assert [*made] == ["cam0", "cam1", "cam2"]


def job(name: str, frames: int = 4) -> tuple[Path, TakeRequest]:
    return Path("takes") / name, TakeRequest(Path("e"), "c", Path("s"), Path("v"), "p", frames=frames)


def test_takes_of_the_model_and_those_that_follow_are_one_work(monkeypatch, tmp_path):
    asked = []

    def produce(jobs, backend, extra, progress, check_cancel):
        asked.append((backend, [folder.name for folder, _ in jobs], extra))
        for k in range(2):
            progress(k + 1, 2, f"{backend} {k}")
        return [object.__new__(Take) for _ in jobs]

    monkeypatch.setattr(pipeline, "take_requests", lambda run, config: [job(f"{run.path.name}{k}") for k in range(3)])
    monkeypatch.setattr(pipeline, "check", lambda run, config: SimpleNamespace(passed=run.path.name == "a"))
    model = SimpleNamespace(domain="generated", licence="MIT")
    monkeypatch.setattr(pipeline, "video_backend_class", lambda name: model)
    monkeypatch.setattr(pipeline, "split_views", lambda jobs: (jobs[:2], jobs[2:]))
    runs = [(RunDirectory(tmp_path / name), CONFIG) for name in "ab"]
    calls, progress = told()
    assert len(pipeline.takes_of(runs, progress, produce=produce)) == 6
    own, forced = CONFIG.takes.backend, {"episode_check": "failed, forced"}
    assert asked == [
        (own, ["a0", "a1"], {}), ("reproject", ["a2"], {}), (own, ["b0", "b1"], forced), ("reproject", ["b2"], forced),
    ]  # fmt: skip
    # Six takes: two, one, two and one; the half of one is none yet.
    assert [(done, total) for done, total, _ in calls] == [(n, 6) for n in (1, 2, 2, 3, 4, 5, 5, 6)]
    model.domain = "composite"
    asked.clear()
    calls.clear()
    pipeline.takes_of(runs[:1], progress, produce=produce)
    assert asked == [(own, ["a0", "a1", "a2"], {})]
    assert [(done, total) for done, total, _ in calls] == [(1, 2), (2, 2)], "the maker's own words"
    model.licence = "CC-BY-NC-4.0"
    strict = replace(CONFIG, variants=replace(CONFIG.variants, only_commercial=True))
    with pytest.raises(TakeError, match="video backend"):
        pipeline.takes_of([(runs[0][0], strict)], produce=produce)


def test_seeds_are_whole_numbers_each_once(monkeypatch):
    def of(reads=True, **takes):
        monkeypatch.setattr(pipeline, "video_backend_class", lambda name: SimpleNamespace(reads_seed=reads))
        return pipeline.used_seeds(replace(CONFIG, takes=replace(CONFIG.takes, **takes)))

    assert of(seeds=(3, 1)) == (3, 1)
    assert of(reads=False, seeds=(3, 1)) == (3,)
    assert of(seed=7) == (7,)
    monkeypatch.setattr(pipeline, "video_backend_class", lambda name: SimpleNamespace())
    config = replace(CONFIG, takes=replace(CONFIG.takes, seeds=(3, 1)))
    assert pipeline.used_seeds(config) == (3, 1), "a backend of somebody's that does not say so reads seeds"
    with pytest.raises(InputError, match="expected whole numbers, each once"):
        of(seeds=(1, 1))
    for start, fine in ((0, True), (11, True), (12, False), (-1, False)):
        config = replace(CONFIG, takes=replace(CONFIG.takes, start=start))
        if fine:
            pipeline._check_start(config, episode(ALL))
        else:
            with pytest.raises(InputError, match="the episode has frames 0 … 11"):
                pipeline._check_start(config, episode(ALL))


def test_a_recording_whose_stage_cannot_be_read_here_stays():
    for before, inputs, same in (
        ("a:b", "a:b", True),
        ("a:b", "a:", True),
        ("a:", "a:b", False),
        ("a:b", "c:", False),
        (None, "a:", False),
    ):
        assert pipeline._same(before, inputs) == same


def test_takes_made_one_after_the_other_are_counted_in_frames(monkeypatch):
    def make(request, maker, out, extra, progress, check_cancel):
        progress(1, request.frames)
        progress(request.frames, request.frames, "last")
        return takes[out.name]

    takes = {name: object.__new__(Take) for name in "ab"}
    monkeypatch.setattr(fan_out, "make_take", make)
    monkeypatch.setattr(fan_out, "video_backend", lambda name: SimpleNamespace())
    monkeypatch.setattr(fan_out, "kept_take", lambda request, maker, out, extra: None)
    calls, progress = told()
    assert fan_out.produce_takes([job("a", 4), job("b", 6)], "x", progress=progress) == [*takes.values()]
    assert calls == [
        (1, 10, "a"), (4, 10, "last"), (4, 10, "a"), (5, 10, "b"), (10, 10, "last"), (10, 10, "b"),
    ]  # fmt: skip
    monkeypatch.setattr(fan_out, "kept_take", lambda request, maker, out, extra: takes[out.name])
    calls.clear()
    assert fan_out.produce_takes([job("a", 4), job("b", 6)], "x", progress=progress) == [*takes.values()]
    assert calls == [(10, 10, "unchanged")]


@pytest.mark.parametrize(("frames", "kept", "worth", "apart"), [
    ((4, 6), "", 10, True), ((4, 6), "", 11, False), ((0, 6), "", 18, True), ((0, 6), "", 19, False),
    ((4, 6, 2), "a", 8, True), ((4, 6, 2), "a", 9, False), ((4, 6), "a", 1, False),
])  # fmt: skip
def test_takes_are_made_in_processes_where_their_pixels_are_worth_it(monkeypatch, frames, kept, worth, apart):
    """The pixels of the takes that are missing decide; 0 frames are all of the episode's, 12; of one take nothing is shared."""
    of = episode(ALL)
    width, height = of.header.cameras[0].size
    made, take = [], object.__new__(Take)
    monkeypatch.setattr(fan_out, "WORTH_PROCESSES_PX", worth * width * height)
    monkeypatch.setattr(fan_out, "open_episode", lambda path: of)
    monkeypatch.setattr(fan_out, "video_backend", lambda name: SimpleNamespace(parallel=True))
    monkeypatch.setattr(fan_out, "kept_take", lambda request, maker, out, extra: take if out.name in kept else None)
    monkeypatch.setattr(fan_out.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(fan_out, "make_take", lambda *given, **how: made.append("here") or take)
    monkeypatch.setattr(
        fan_out, "map_in_processes", lambda one, jobs, units, **how: made.append("apart") or [take] * len(jobs)
    )
    jobs = [
        (Path(name), replace(job(name, count)[1], camera="cam0")) for name, count in zip("abc", frames, strict=False)
    ]
    assert fan_out.produce_takes(jobs, "x") == [take] * len(frames)
    assert set(made) == {"apart" if apart else "here"}


def test_a_wait_is_above_nothing_and_at_most_a_day():
    for seconds in (0.001, 1.0, LONGEST_S):
        check_timeout(seconds)
    for seconds in (0.0, -1.0, LONGEST_S + 1, float("nan")):
        with pytest.raises(InputError, match="expected seconds above zero"):
            check_timeout(seconds)
