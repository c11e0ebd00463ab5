# SPDX-License-Identifier: Apache-2.0
"""The shipped examples, run as a user runs them, on the fakes: from `SimulationApp` to the report, with small counts."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes.kit import FakeKit, row_in
from fakes.stage import Motion, make_stage, planned_motion, random_motion
from pxr import Sdf, Usd

from retake.core.episode import open_episode
from retake.core.errors import InputError, StageError
from retake.isaac import leaving, standalone

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "exts/retake.isaac/examples"
TRAJECTORY = ROOT / "data/trajectories/pick_place.npz"
SMALL: dict[str, Any] = {"frames": 6, "width": 160, "height": 120}
_OPENED: dict[str, Motion] = {}


def demo(url: str) -> Motion:
    """What the fake simulator plays when a script opens the demo stage."""
    stage = Usd.Stage.Open(url)
    stage.GetSessionLayer().Clear()
    _OPENED[url] = planned_motion(stage, TRAJECTORY, steps=120)
    return _OPENED[url]


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One world, one take."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"variants": {"presets": ["bun_warehouse"], "gate": False}}))
    return path


@pytest.fixture(autouse=True)
def importable() -> Any:
    for (
        layer
    ) in Sdf.Layer.GetLoadedLayers():  # the demo's stage as it is on disk, whatever an earlier test did to it in memory
        if layer.dirty and layer.realPath:
            layer.Reload(True)
    yield
    sys.modules.pop("pick_place", None)
    sys.path[:] = [p for p in sys.path if p != str(EXAMPLES)]


@pytest.mark.parametrize("version", ["4.2", "6.x"])
def test_the_demo_goes_from_simulation_app_to_the_report(
    version: str, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = version == "6.x"  # once is enough
    options = {"generate": generate, "config": str(config), "python": sys.executable}
    with FakeKit(version, random_motion(make_stage(), 10), on_open=demo) as kit:
        code = standalone.run_in_app(lambda: example("pick_place")["main"](tmp_path / "run", options, **SMALL))
        assert code == 0, capsys.readouterr().out
        assert kit.exit_code == 0
        assert kit.registry == {}
        commanded = kit.settings["commanded"]
    out = capsys.readouterr().out
    assert "episode: 6 frames, dropped 0" in out
    assert out.rstrip().endswith("retake: exit code 0")
    episode = open_episode(tmp_path / "run/episode")
    assert (episode.header.task, len(episode)) == ("pick up the packet and drop it into the tray", 6)
    rows = [row_in(episode.image("Camera", "rgb", k)) for k in range(6)]
    assert np.all(np.diff(rows) == 4)
    with np.load(TRAJECTORY, allow_pickle=False) as data:
        planned = data["joint_position"][:8]
    assert (np.sort(commanded[0]) >= planned.min() - 0.1).all()
    assert np.abs(commanded[0] - planned[0][::-1]).max() < np.abs(np.diff(planned, axis=0)).max() * 8 + 1e-6
    if generate:
        assert (tmp_path / "run/report.html").is_file()
        takes = list((tmp_path / "run/takes").glob("*/*/take.json"))
        assert len(takes) == 1
        assert "Takes" in out


def test_randomised_episodes_differ_and_say_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = example("randomised_episodes")
    moved: list[tuple[float, ...]] = []
    options = {"generate": False}
    with FakeKit("5.1", random_motion(make_stage(), 10), on_open=demo) as kit:
        code = standalone.run_in_app(lambda: script["main"](2, 7, tmp_path / "k", options, **SMALL))
        assert code == 0, capsys.readouterr().out
        asked = [what for what, _ in kit.events]
        sent = [[*args, *named.values()] for what, (args, named) in kit.events if what == "utils.send_og_event"]
    assert asked.count("randomizer.color") == 2
    assert sent == [["retake_randomise"]] * 2
    for index in range(2):
        episode = open_episode(tmp_path / "k" / f"{index:03d}" / "episode")
        drawn = episode.header.settings["randomised"]
        assert (drawn["seed"], drawn["episode"], episode.header.seed) == (7, index, 7 + index)
        assert any(key.startswith("light_gain /World/") for key in drawn)
        moved.append((*drawn["object_shift_m"], *drawn["camera_shift_m"]))
        assert len(episode) == 6
        assert (tmp_path / "k" / f"{index:03d}" / "run.json").exists()  # `retake run` goes on from here
    assert np.abs(np.subtract(*moved)).min() > 0


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    script = example("randomised_episodes")
    drawn = []
    with FakeKit("6.x", random_motion(make_stage(), 10)) as kit:
        for _ in range(2):
            kit.motion = demo(str(ROOT / "data/stages/pick_place/scene.usda"))
            before = kit.motion.stage.GetRootLayer().ExportToString()
            drawn.append(script["randomise"](kit.motion.stage, 3, 1))
            assert kit.motion.stage.GetRootLayer().ExportToString() == before
    assert json.dumps(drawn[0]) == json.dumps(drawn[1])


def test_a_failing_example_ends_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/episode").mkdir()
    (tmp_path / "run/episode/mine.txt").write_text("x")
    with FakeKit("6.x", random_motion(make_stage(), 10), on_open=demo) as kit:
        assert standalone.run_in_app(lambda: example("pick_place")["main"](tmp_path / "run", **SMALL)) == 2
        assert kit.exit_code == 2
    assert (tmp_path / "run/episode/mine.txt").read_text() == "x"
    assert "retake: error:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("x"), 2), (StageError("y"), 2), (OSError(28, "No space left"), 6), (KeyError("z"), 1)],
)
def test_every_error_becomes_the_exit_code_of_the_process(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> int:
        raise error

    with FakeKit("6.x", random_motion(make_stage(), 10)) as kit:
        assert standalone.run_in_app(work) == code
        assert kit.exit_code == code
    out = capsys.readouterr().out
    assert ("Traceback" in out) is (code == 1)
    assert out.rstrip().endswith(f"retake: exit code {code}")


@pytest.mark.parametrize("version", ["4.2", "4.5", "5.1"])
def test_before_6_a_failure_leaves_at_once_because_close_would_say_0(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    async def work() -> int:
        return 5

    with FakeKit(version, random_motion(make_stage(), 10)) as kit:
        monkeypatch.setattr(leaving, "end_process", left.append)
        assert standalone.run_in_app(work) == 5
        assert left == [5]
        assert kit.exit_code is None
        leaving.leave(standalone.simulation_app(), 0)
        assert kit.exit_code == 0


@pytest.mark.parametrize("version", ["4.2", "5.0", "5.1", "6.x"])
def test_a_script_with_a_loop_of_its_own_gets_an_episode_per_reset(version: str, tmp_path: Path) -> None:
    with FakeKit(version, random_motion(make_stage(), 10), on_open=demo) as kit:
        app = standalone.simulation_app()
        episodes = example("own_loop")["main"](app, tmp_path / "own", 2, 40, width=64, height=48)
        assert [len(episode) for episode in episodes] == [10, 10]
        assert "commanded" in kit.settings
        leaving.leave(app, 0)
    assert (tmp_path / "own/001/run.json").is_file()  # `retake run` goes on from here
