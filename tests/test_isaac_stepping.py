# SPDX-License-Identifier: Apache-2.0
"""Loops that a script steps itself: World of every version, SimulationManager, bare updates; resets, objects or prim paths."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.kit import FakeKit
from isaac_support import VERSIONS, check_exact, motion

from retake.core.capture import PairingError
from retake.core.errors import InputError, RetakeError, StageError
from retake.isaac import record
from retake.isaac.stepping import prim_paths

SMALL: dict[str, Any] = {"width": 32, "height": 24, "task": "test"}


def world_of(kit: FakeKit, **options: Any) -> Any:
    name = "omni.isaac.core" if kit.version == "4.2" else "isaacsim.core.api"
    return importlib.import_module(name).World(**options)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_world_that_is_reset_gives_one_episode_each(version: str, tmp_path: Path) -> None:
    source = motion(cameras=2)
    with FakeKit(version, source, lag=3) as kit:
        world = world_of(kit)
        plain = world.reset
        with record(world, output=tmp_path, cameras=["/World/Camera0", "/World/Camera1"], **SMALL) as recording:
            for _ in range(3):
                world.reset()
                for _ in range(30):
                    world.step(render=True)
        assert world.reset.__name__ == plain.__name__ == "reset"
        assert len(recording.episodes) == 3
        for index, episode in enumerate(recording.episodes):
            rows = check_exact(episode, source, 4)
            assert rows[0] == 1, "no step of an episode is lost"
            assert len(rows) >= 7
            assert json.loads((tmp_path / f"{index:03d}/run.json").read_text())["schema"]
        kit.stop()
        kit.update(20)
        assert kit.changed_settings() == {}
        assert kit.writers == kit.products == []


@pytest.mark.parametrize("version", ["4.5", "5.1", "6.x"])
@pytest.mark.parametrize("way", ["render every fourth", "rendering_dt 0", "soft reset"])
def test_other_ways_to_step_are_exact_too(version: str, way: str, tmp_path: Path) -> None:
    """Physics between updates: on 5.1 these steps carry the time of the update before, whose frame shows another state."""
    source = motion()
    with FakeKit(version, source, lag=2) as kit:
        world = world_of(kit, **({"rendering_dt": 0.0} if way == "rendering_dt 0" else {}))
        world.reset()
        with record(world, output=tmp_path, **SMALL) as recording:
            for index in range(48):
                world.step(render=way != "render every fourth" or index % 4 == 0)
            if way == "soft reset":
                world.reset(soft=True)
                for _ in range(24):
                    world.step()
        assert len(recording.episodes) == (2 if way == "soft reset" else 1)
        for episode in recording.episodes:
            assert len(check_exact(episode, source, 4)) >= 5


def test_simulation_manager_and_bare_updates(tmp_path: Path) -> None:
    """6.x without a World: the timeline plays, the script updates; a Stop ends an episode, Play begins the next."""
    source = motion()
    with FakeKit("6.x", source) as kit, record(output=tmp_path, **SMALL) as recording:
        for _ in range(2):
            kit.play()
            for _ in range(40):
                kit.update()
                recording.frame()
            kit.stop()
            for _ in range(12):
                kit.update()
                recording.frame()
        recording.reset()
        assert len(recording.episodes) == 2
        assert recording.capture is not None
        for episode in recording.episodes:
            check_exact(episode, source, 4)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_steps_of_simulation_manager_between_updates_are_exact_or_refused(steps: int, tmp_path: Path) -> None:
    """6.x: `SimulationManager.step` simulates without rendering; the update that follows makes one more step and a frame of it.

    A frame is due every fourth step: two or four steps an update meet them all, eight skip every other one.
    """
    source = motion()
    with FakeKit("6.x", source, lag=2) as kit:
        if kit.profile.application == "lab":
            pytest.skip("Isaac Lab puts a manager without `step` in its place")
        recording = record(output=tmp_path, **SMALL)

        def script() -> None:
            manager = importlib.import_module("isaacsim.core.simulation_manager").SimulationManager
            with recording:
                kit.play()
                for _ in range(24):
                    manager.step(steps=steps)
                    kit.update()
                    recording.frame()
                kit.stop()
                for _ in range(12):
                    kit.update()
                    recording.frame()

        if steps == 7:
            with pytest.raises(PairingError, match=r"due every 4 physics steps.* An update makes 8 physics steps"):
                script()
            return
        script()
    (episode,) = recording.episodes
    assert len(check_exact(episode, source, 4)) >= 24 * (steps + 1) // 4 - 2  # two updates of lag at the Stop


def test_cameras_and_robots_may_be_objects_of_every_version(tmp_path: Path) -> None:
    source = motion(cameras=2)
    old = SimpleNamespace(prim_path="/World/Camera0", get_resolution=lambda: (32, 24))
    new = SimpleNamespace(paths=["/World/Camera1"])
    with FakeKit("6.x", source) as kit:
        world = world_of(kit)
        world.reset()
        robot = source.stage.GetPrimAtPath("/World/Arm0")
        settings = {**SMALL, "width": 16, "height": 12}
        with record(world, output=tmp_path, robots=robot, cameras=[old, new], **settings) as recording:
            for _ in range(20):
                world.step()
        (episode,) = recording.episodes
        assert [camera.size for camera in episode.header.cameras] == [(32, 24), (16, 12)]
        assert episode.header.robots[0].prim_path == "/World/Arm0"
    assert prim_paths(SimpleNamespace(prim_paths=["/A", "/B"])) == ["/A", "/B"]
    with pytest.raises(InputError, match="int has no prim path"):
        prim_paths(3)


def test_what_stops_a_recording_is_raised_where_the_script_steps(tmp_path: Path) -> None:
    source = motion()
    with FakeKit("6.x", source) as kit:
        world = world_of(kit)
        world.reset()

        def script() -> None:
            with record(world, output=tmp_path, **SMALL):
                for index in range(60):
                    if index == 30:
                        kit.deleted.add("/World/Packet")
                    world.step()

        with pytest.raises(StageError, match="was a prim deleted"):
            script()
        kit.deleted.clear()
        world.step()  # the world is the script's again
        assert kit.writers == []


def test_the_script_s_own_error_counts_for_more(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        world = world_of(kit)
        world.reset()
        recording = record(world, output=tmp_path, **SMALL)

        def script() -> None:
            with recording:
                for _ in range(20):
                    world.step()
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            script()
        assert len(recording.episodes) == 1  # the frames so far are kept


def test_stepping_over_the_grid_in_stepped_mode_is_refused(tmp_path: Path) -> None:
    with FakeKit("5.1", motion(), substeps=3) as kit:
        world = world_of(kit)
        world.reset()

        def script() -> None:
            with record(world, output=tmp_path, mode="stepped", **SMALL):
                for _ in range(20):
                    world.step()

        with pytest.raises((PairingError, InputError), match=r"frames are due every 4|fall between"):
            script()


def test_wrong_settings_and_a_used_folder_are_refused_and_the_world_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "000/episode").mkdir(parents=True)
    (tmp_path / "000/episode/mine.txt").write_text("x")
    with FakeKit("6.x", motion()) as kit:
        world = world_of(kit)
        with pytest.raises(InputError, match="capture setting"), record(world, output=tmp_path / "x", framerate=3):
            pass
        with pytest.raises(RetakeError, match="not a run's"), record(world, output=tmp_path, **SMALL):
            pass
        assert "reset" not in world.__dict__ or world.reset.__name__ == "reset"
        assert kit.writers == kit.products == []
    assert (tmp_path / "000/episode/mine.txt").read_text() == "x"


def steps_of(world: Any, count: int) -> None:
    for _ in range(count):
        world.step()


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_every_reset_gives_an_episode_from_its_first_step_on(steps: int, tmp_path: Path) -> None:
    """A world that ran before, resets at once and after a step or two: nothing is lost, nothing empty is left."""
    source = motion()
    with FakeKit("6.x", source, lag=2) as kit:
        world = world_of(kit)
        world.reset()
        steps_of(world, 3)
        with record(world, output=tmp_path / "o", **SMALL) as recording:
            for count in (steps, 24):
                world.reset()
                world.reset()
                steps_of(world, count)
            world.reset()  # begins an episode that never comes
        assert [check_exact(episode, source, 4)[0] for episode in recording.episodes] == [1, 1]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["000", "001"]


def test_a_script_goes_on_after_an_episode_that_failed(tmp_path: Path) -> None:
    """Its frames so far keep their folder; the next episode has the next one."""
    source, failures = motion(), []
    with FakeKit("6.x", source) as kit:
        world = world_of(kit)
        with record(world, output=tmp_path / "o", **SMALL) as recording:
            for index in range(4):
                try:
                    world.reset()
                    for step in range(40):
                        if (index, step) == (1, 20):
                            kit.deleted.add("/World/Packet")
                        world.step()
                except StageError as error:
                    failures.append(str(error))
                    kit.deleted.clear()
                    world.reset()
        assert len(failures) == 1
        assert "was a prim deleted" in failures[0]
        assert len(recording.episodes) >= 2
        for episode in recording.episodes:
            check_exact(episode, source, 4)
    assert (tmp_path / "o/001/episode").is_dir()


@pytest.mark.parametrize("wrong", [{"cameras": "/World/Nope"}, {"fps": 0}, {"robots": "/World/Nope"}])
def test_what_is_refused_leaves_no_folder(wrong: dict[str, Any], tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        world = world_of(kit)
        with pytest.raises(RetakeError), record(world, output=tmp_path / "o", **{**SMALL, **wrong}):
            pass
        assert kit.writers == kit.products == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("in_order", [True, False])
def test_two_recordings_of_one_world(in_order: bool, tmp_path: Path) -> None:
    source = motion(cameras=2)
    with FakeKit("6.x", source) as kit:
        world = world_of(kit)
        one, two = (
            record(world, output=tmp_path / name, cameras=f"/World/Camera{index}", **SMALL)
            for index, name in enumerate("ab")
        )
        with one:
            two.__enter__()
            world.reset()
            steps_of(world, 20)
            if in_order:
                two.__exit__(None, None, None)
                steps_of(world, 20)
        if not in_order:
            steps_of(world, 20)
            two.__exit__(None, None, None)
        world.reset()
        steps_of(world, 9)  # the world is the script's again
        for recording in (one, two):
            (episode,) = recording.episodes
            assert check_exact(episode, source, 4)[0] == 1
        assert kit.writers == kit.products == []
