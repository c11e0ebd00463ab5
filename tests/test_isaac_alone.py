# SPDX-License-Identifier: Apache-2.0
"""Small parts of the capture in Isaac Sim by themselves: figures by hand, several items in a row, what older versions lack."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pxr import Usd

from retake.core.errors import InputError, MissingDependencyError, RetakeError
from retake.isaac import (
    autorun,
    contacts,
    kit,
    leaving,
    options,
    preview,
    processes,
    selftest,
    settings_guard,
    standalone,
)
from retake.isaac.assumptions import Item
from retake.isaac.checks import is_suspicious, misfit_px
from retake.isaac.costs import CallbackCosts, percentiles

# -- checks ------------------------------------------------------------------------------------------------------------


def seen(uv: list[tuple[float, float]], depth: list[float]) -> Any:
    return SimpleNamespace(project=lambda points: (np.array(uv, float), np.array(depth, float)))


def misfit(robots: dict[str, np.ndarray], uv: list[tuple[float, float]], depth: list[float]) -> float | None:
    """Of robots by name with the pixels (H, W) that they cover; every robot's links are seen at the same places."""
    ids = np.zeros((30, 40), np.uint16)
    for number, mask in enumerate(robots.values(), 1):
        ids[mask] = number
    instances = [SimpleNamespace(id=k, owner=f"robot:{name}") for k, name in enumerate(robots, 1)]
    header = SimpleNamespace(robots=[SimpleNamespace(name=name) for name in robots], instances=instances)
    states = [SimpleNamespace(T_world_link=np.zeros((len(uv), 4, 4)))] * len(robots)
    view = SimpleNamespace(instance_ids=ids, camera=seen(uv, depth))
    return misfit_px(SimpleNamespace(cameras=[view], robots=states), header, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uv", "distance"),
    [
        ((10.5, 20.5), 0), ((15.5, 20.5), 5), ((10.5, 12.5), 8), ((0.5, 20.5), 10), ((-3.5, 20.5), 13), ((-0.5, 20.5), 10),
        ((39.5, 20.5), 29), ((40.5, 20.5), 30), ((45.5, 20.5), 35), ((10.5, -4.5), 24), ((10.5, 29.5), 9), ((10.5, 30.5), 10),
        ((10.5, 36.5), 16),
    ],
)  # fmt: skip
def test_a_link_s_distance_is_that_to_its_robot_s_nearest_pixel(uv: tuple[float, float], distance: float) -> None:
    mask = np.zeros((30, 40), bool)
    mask[20, 10] = True
    found = misfit({"arm": mask}, [uv], [1.0])
    assert found == pytest.approx(distance, rel=0.05)
    nobody = np.zeros((30, 40), bool)
    assert misfit({"hidden": nobody, "arm": mask}, [uv], [1.0]) == found
    assert misfit({"hidden": nobody}, [uv], [1.0]) is None
    many = [uv, (10.5, 20.5), (10.5, 20.5), (np.nan, 0), (20.5, 5.5), (20.5, 5.5)]
    assert misfit({"arm": mask}, many, [1.0, 1, 1, 1, -1, -1]) == 0, (
        "what is behind the camera or nowhere does not count"
    )


def test_a_misfit_is_suspicious_beyond_a_twentieth_of_the_diagonal() -> None:
    assert not is_suspicious(None, (300, 400))
    assert not is_suspicious(25.0, (300, 400))
    assert is_suspicious(25.001, (300, 400))


# -- contacts and costs ------------------------------------------------------------------------------------------------


def test_every_header_s_own_contacts_are_read() -> None:
    def point(number: int) -> Any:
        return SimpleNamespace(position=(number, 0, 0), normal=(0, 0, 1), impulse=(0, number, 0), separation=-number)

    def header(a: int, b: int, offset: int, count: int) -> Any:
        return SimpleNamespace(actor0=a, actor1=b, contact_data_offset=offset, num_contact_data=count)

    asked: list[int] = []
    reports = contacts.ContactReports(Usd.Stage.CreateInMemory(), [])
    assert (reports.read(), reports.available) == ((), False)
    data = [point(number) for number in range(6)]
    headers = [header(1, 2, 1, 2), header(1, 3, 0, 0), header(3, 1, 4, 1)]
    reports._simulation = SimpleNamespace(get_contact_report=lambda: (headers, data))
    reports._to_path = lambda number: asked.append(number) or f"/{number}"
    found = reports.read()
    assert [(a, b, position[0]) for a, b, position, *_ in found] == [("/1", "/2", 1), ("/1", "/2", 2), ("/3", "/1", 4)]
    assert found[2][2:] == ((4, 0, 0), (0, 0, 1), (0, 4, 0), -4.0)
    assert reports.read() == found
    assert sorted(asked) == [1, 2, 3], "names are asked for once"


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_percentiles_are_of_the_sorted_calls_in_milliseconds(calls: list[int]) -> None:
    ordered = sorted(calls)
    middle, high = ordered[len(ordered) // 2], ordered[math.floor(0.99 * len(ordered))]
    assert percentiles(calls) == (middle / 1e6, high / 1e6)


def test_the_newest_twenty_thousand_calls_count() -> None:
    assert percentiles([]) == (0.0, 0.0)
    costs = CallbackCosts()
    for kind in (costs.steps, costs.frames):
        kind.extend(range(20_001))
        assert (len(kind), kind[0]) == (20_000, 1)


# -- settings and versions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("removes", [True, False])
def test_settings_are_put_back_as_they_were_newest_first(monkeypatch: pytest.MonkeyPatch, removes: bool) -> None:
    log: list[Any] = []
    values = {"/a": 1, "/b": 2}
    carb = SimpleNamespace(
        get=values.get, set=lambda path, value: (log.append((path, value)), values.update({path: value}))
    )
    if removes:
        carb.destroy_item = lambda path: (log.append((path, "gone")), values.pop(path))
    monkeypatch.setattr(settings_guard, "require", lambda name: SimpleNamespace(get_settings=lambda: carb))
    guard = settings_guard.SettingsGuard()
    assert guard.before("/a") == 1
    guard.set("/a", 5)
    guard.set("/a", 6)
    guard.set("/new", 7)
    assert guard.remember("/b") == 2
    values["/b"] = 9
    assert (guard.remember("/b"), guard.before("/b"), guard.get("/b")) == (2, 2, 9)
    guard.put_back_as("/b", 3)
    guard.put_back_as("/other", 4)
    assert log == [("/a", 5), ("/a", 6), ("/new", 7)]
    log.clear()
    guard.restore()
    assert log == [("/b", 3), ("/new", "gone" if removes else None), ("/a", 1)]
    guard.restore()
    assert len(log) == 3


def test_versions_are_those_of_the_first_that_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    app = SimpleNamespace(get_kit_version=lambda: "107", get_app_name=lambda: "isaac")
    found: dict[str, Any] = {}
    monkeypatch.setattr(kit, "optional", found.get)
    assert kit.versions() == {"kit": "", "isaac_sim": "", "app": ""}
    found["omni.kit.app"] = SimpleNamespace(get_app=lambda: app)
    found["isaacsim.core.version"] = SimpleNamespace()
    found["omni.isaac.version"] = SimpleNamespace(get_version=lambda: "4.2")
    assert kit.versions() == {"kit": "107", "isaac_sim": "4.2", "app": "", "name": "isaac"}
    found["isaacsim.core.version"] = SimpleNamespace(get_version=lambda: ("6.0", "rc", "1"))
    assert kit.versions()["isaac_sim"] == "6.0"
    told: list[Any] = []
    manager = SimpleNamespace(set_extension_enabled_immediate=lambda name, on: told.append((name, on)) or 1)
    app.get_extension_manager = lambda: manager
    assert kit.enable_extension("omni.x") is True
    assert told == [("omni.x", True)]


def test_an_unset_setting_is_its_default_and_an_unreadable_autorun_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {"/exts/retake.isaac/on": False}
    carb = SimpleNamespace(get_settings=lambda: values)
    monkeypatch.setattr(options, "require", lambda name: carb)
    assert [options.read("on", True), options.read("off", "x"), options.read("none")] == [False, "x", None]
    assert options.quits(tmp_path / "none.yaml") is True
    (tmp_path / "a.yaml").write_text("- no mapping\n")
    assert options.quits(tmp_path / "a.yaml") is True


# -- an application of one's own ---------------------------------------------------------------------------------------


def test_an_application_is_headless_and_of_the_first_module_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    found: dict[str, Any] = {
        "isaacsim": SimpleNamespace(),
        "omni.isaac.kit": SimpleNamespace(SimulationApp=asked.append),
    }
    monkeypatch.setattr(standalone, "optional", found.get)
    standalone.simulation_app()
    standalone.simulation_app(headless=False, width=4, height=3)
    assert asked == [
        {"headless": True, "width": 1280, "height": 720}, {"headless": False, "width": 4, "height": 3},
    ]  # fmt: skip
    found.clear()
    with pytest.raises(MissingDependencyError, match="SimulationApp cannot be imported here"):
        standalone.simulation_app()


def test_a_coroutine_runs_on_kit_s_loop_or_by_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    standalone.run_coroutine(SimpleNamespace(run_coroutine=ran.append), "work")  # type: ignore[arg-type]
    assert ran == ["work"]
    loop = asyncio.new_event_loop()

    def update() -> None:
        ran.append("update")
        loop.run_until_complete(asyncio.sleep(0))

    async def work(fails: bool) -> None:
        await asyncio.sleep(0)
        ran.append("done")
        if fails:
            raise RetakeError("in words")

    monkeypatch.setattr(standalone.asyncio, "ensure_future", loop.create_task)
    app = SimpleNamespace(update=update)
    standalone.run_coroutine(app, work(False))
    assert ran[-1] == "done" or ran[-2:] == ["done", "update"]
    with pytest.raises(RetakeError, match="in words"):
        standalone.run_coroutine(app, work(True))
    loop.close()


def test_an_error_that_teaches_is_a_line_and_a_code(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "a", "b"])
    assert standalone.exit_code_of_command(lambda argv: argv == ["a", "b"] and 7) == 7

    def refuses(argv: list[str]) -> int:
        raise InputError("do this")

    assert standalone.exit_code_of_command(refuses) == 2
    assert capsys.readouterr().err == "retake: error: do this\n"


@pytest.mark.parametrize(
    ("code", "newer", "how"), [(0, True, "close 0"), (3, True, "close 3"), (0, False, "close"), (3, False, "end 3")]
)
def test_an_application_is_left_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, code: int, newer: bool, how: str
) -> None:
    log: list[str] = []
    monkeypatch.setattr(leaving, "arm", lambda code: log.append(f"arm {code}"))
    monkeypatch.setattr(leaving, "end_process", lambda code: log.append(f"end {code}"))
    app = SimpleNamespace(close=lambda: log.append("close"))
    if newer:
        app.close = lambda exit_code: log.append(f"close {exit_code}")
    leaving.leave(app, code)
    assert log == [f"arm {code}", how]
    assert capsys.readouterr().out == f"retake: exit code {code}\n"


# -- processes ---------------------------------------------------------------------------------------------------------


def test_the_checkout_is_found_and_the_worker_s_python_serves_the_arrow_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (processes.repository() / "exts/retake.isaac/retake/isaac/processes.py").is_file()
    monkeypatch.setattr(processes, "repository", lambda: tmp_path)
    python = processes.python_of(tmp_path / ".venv-worker")
    python.parent.mkdir(parents=True)
    python.write_text("")
    assert processes.find_python() == processes.find_python(worker=True) == python
    python.unlink()
    other = processes.python_of(tmp_path / ".venv")
    other.parent.mkdir(parents=True)
    other.write_text("")
    assert processes.find_python() == other
    with pytest.raises(InputError):
        processes.find_python(worker=True)


def test_what_kit_put_into_the_environment_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*processes.LEAKS, "OMNI_X", "CARB_Y"):
        monkeypatch.setenv(name, "kit")
    monkeypatch.setenv("MINE", "mine")
    found = processes.clean_environment({"MORE": "more"})
    assert not {*processes.LEAKS, "OMNI_X", "CARB_Y"} & set(found)
    assert (found["MINE"], found["MORE"], found["PYTHONUTF8"]) == ("mine", "more", "1")
    assert processes.clean_environment()["MINE"] == "mine"


def test_the_last_six_lines_are_kept_and_the_code_is_told() -> None:
    assert processes.Advance() == processes.Advance("", 0, 0, "")
    codes: list[int] = []
    code = "import sys\nfor k in range(60): print('line', k)\nprint()\nprint('Takes: 1/2')\nsys.exit(3)"
    process = processes.Process([sys.executable, "-c", code], on_exit=codes.append)
    process._thread.join(60)
    assert codes == [3]
    assert process._thread.daemon
    assert process.last_words.splitlines() == [f"line {k}" for k in range(54, 60)]
    assert process.advance == processes.Advance("Takes", 1, 2, "")


@pytest.mark.parametrize(("code", "last"), [(0, "report: "), (4, "the last words")])
def test_the_rest_of_the_arrow_is_told_line_by_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, code: int, last: str
) -> None:
    advances = [processes.Advance(), *[processes.Advance("Takes", 1, 2, "bun")] * 2, processes.Advance("Takes", 2, 2)]
    started: list[list[str]] = []

    class Running:
        last_words = "the last words"

        def __init__(self, command: list[str]) -> None:
            started.append(command)
            self.looks = -1

        @property
        def exit_code(self) -> int | None:
            self.looks += 1
            return None if self.looks < len(advances) else code

        @property
        def advance(self) -> processes.Advance:
            return advances[self.looks]

    async def update() -> None:
        return

    app = SimpleNamespace(next_update_async=update)
    monkeypatch.setattr(kit, "require", lambda name: SimpleNamespace(get_app=lambda: app))
    monkeypatch.setattr(processes, "Process", Running)
    for config in ("", "c.yaml"):
        asked = {"python": sys.executable, "config": config}
        assert asyncio.run(autorun.generate(tmp_path, asked)) == code
        said = capsys.readouterr().out.splitlines()
        assert said[:2] == ["retake: Takes 1/2 bun", "retake: Takes 2/2"]
        assert said[2].startswith(f"retake: {last}")
        assert len(said) == 3
    plain = processes.arrow_command(Path(sys.executable), tmp_path, [])
    assert started == [plain, [*plain, "--config", str(Path("c.yaml").absolute())]]


# -- pages and pictures ------------------------------------------------------------------------------------------------


def test_a_self_test_of_twenty_frames_writes_its_pages_and_counts_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    from retake.isaac import selftest_items

    asked: list[Any] = []
    items = [Item("a", "one", "pass", "fine", 1), Item("b", "two", "unknown", "who knows", None)]

    def made(folder: Path, stage: Path | None, frames: int) -> Any:
        async def run(say: Any) -> list[Item]:
            for item in items:
                say(item)
            return items

        asked.append((stage, frames))
        return SimpleNamespace(run=run)

    monkeypatch.setattr(selftest_items, "SelfTest", made)
    monkeypatch.setattr(kit, "optional", lambda name: None)
    for failed in (0, 1):
        for _ in range(2):
            assert asyncio.run(selftest.whole(None, tmp_path / "x/y")) == failed
        out = capsys.readouterr().out
        assert f"\n{2} of {2 + failed} items without a failure\n" in out
        assert out.startswith("PASS")
        assert (tmp_path / "x/y" / selftest.JSON).is_file()
        items.append(Item("c", "three", "fail", "broken", None))
    assert asked == [(None, 20)] * 4


@pytest.mark.parametrize(
    ("size", "width", "expected"), [((40, 30), 20, (15, 20)), ((900, 2), 20, (1, 20)), ((7, 5), 21, (15, 21))]
)
def test_a_preview_keeps_the_picture_s_shape(size: tuple[int, int], width: int, expected: tuple[int, int]) -> None:
    view = SimpleNamespace(rgb=np.full((size[1], size[0], 3), 7, np.uint8), instance_ids=None)
    frame: Any = SimpleNamespace(cameras=[view], robots=[])
    header: Any = SimpleNamespace(robots=[], cameras=[SimpleNamespace(name="front")], instances=[])
    picture = preview.draw(3, frame, header, 0, width)
    assert picture.rgba.shape == (*expected, 4)
    assert (picture.rgba == (7, 7, 7, 255)).all()
    assert (picture.index, picture.camera, picture.misfit_px) == (3, "front", None)
    assert preview.Preview().width == 480
    none = preview.Preview()
    none.header = SimpleNamespace(cameras=[])  # type: ignore[assignment]
    none.show(0, frame)
    assert none.newest is None
