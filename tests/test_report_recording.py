# SPDX-License-Identifier: Apache-2.0
"""What a Rerun recording is told of a run and of a dataset, entity by entity and frame by frame: against a stand-in for
rerun-sdk that keeps what is logged and refuses arguments that the package does not know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from export_runs import make_header, write_episode, write_take

from retake.core.episode import Episode, open_episode
from retake.core.errors import Cancelled, InputError
from retake.core.export.records import Vector
from retake.core.files import read_json, write_json
from retake.core.geometry import inverse
from retake.core.report import recording
from retake.core.run_layout import SKELETON_RECORD
from retake.core.run_reader import RunReader
from retake.core.video import read_video

FRAMES, SIZE = 4, (64, 48)


class Stream:
    """As `rerun.RecordingStream`."""

    def __init__(self, application_id: str, *, recording_id: str, send_properties: bool) -> None:
        self.about = (application_id, recording_id, send_properties)
        self.own_clocks: dict[str, bool] = {}
        self.now: dict[str, Any] = {}
        self.logged: list[SimpleNamespace] = []
        self.ended: list[str] = []
        STREAMS.append(self)

    def set_log_time_enabled(self, enabled: bool) -> None:
        self.own_clocks["time"] = enabled

    def set_log_tick_enabled(self, enabled: bool) -> None:
        self.own_clocks["tick"] = enabled

    def save(self, path: str) -> None:
        Path(path).write_bytes(b"RRF2")

    def set_time(self, timeline: str, *, sequence: int | None = None, duration: float | None = None) -> None:
        self.now = {**self.now, timeline: sequence if duration is None else duration}

    def log(self, entity_path: str, entity: SimpleNamespace, *, static: bool = False) -> None:
        self.logged.append(SimpleNamespace(path=entity_path, what=entity, at=None if static else self.now))

    def flush(self) -> None:
        self.ended.append("flush")

    def disconnect(self) -> None:
        self.ended.append("disconnect")

    def of(self, path: str) -> list[Any]:
        """(frame, what) of an entity, None as the frame of what holds for all."""
        return [(one.at and one.at["frame"], one.what) for one in self.logged if one.path == path]


STREAMS: list[Stream] = []


def escaped(part: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "\\" + c for c in part)


def archetype(*fields: str) -> Any:
    """A constructor that takes these by place or by name."""

    def make(*values: Any, **named: Any) -> SimpleNamespace:
        assert set(named) <= set(fields[len(values) :])
        return SimpleNamespace(**dict(zip(fields, values, strict=False)), **named)

    return make


def package() -> SimpleNamespace:
    views = SimpleNamespace(RIGHT_HAND_Z_UP="z up", RDF="right, down, forward")
    return SimpleNamespace(
        RecordingStream=Stream, escape_entity_path_part=escaped, ViewCoordinates=views,
        EncodedImage=archetype("path", "contents", "media_type"), Scalars=archetype("scalars"),
        TextDocument=archetype("text", "media_type"), Boxes3D=archetype("half_sizes", "centers", "labels"),
        Points3D=archetype("positions", "radii"), LineStrips3D=archetype("strips", "radii"),
        Transform3D=archetype("translation", "mat3x3"), Pinhole=archetype("image_from_camera", "resolution", "camera_xyz"),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def rerun(monkeypatch: pytest.MonkeyPatch) -> None:
    STREAMS.clear()
    monkeypatch.setitem(sys.modules, "rerun", package())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras. Take 0 states fewer frames than its video has; take 1 names no camera and runs out of the episode."""
    run = tmp_path_factory.mktemp("recording") / "run"
    episode = write_episode(run / "episode", make_header(0, cameras=("front", "wrist"), size=SIZE), FRAMES)
    series = ({"drift px": [0.5, None, 0.25], "lag": [1.0]}, {"drift px": [7.0, 8.0]})
    for world, (changed, start, count) in enumerate((({"frames": 2}, 0, FRAMES), ({"camera": ""}, 3, 2))):
        write_take(run, episode, world, start=start, frames=count)
        for record, more in (("takes/{}/take.json", changed), ("verdicts/{}/verdict.json", {"series": series[world]})):
            path = run / record.format(f"v00{world}/front")
            write_json(path, {**read_json(path), **more})
    write_take(run, episode, 2, camera="wrist", frames=1, status=None)
    return run


@pytest.fixture(scope="module")
def episode(run: Path) -> Episode:
    return open_episode(run / "episode")


def record(run: Path, out: Path, **more: Any) -> Stream:
    assert recording.record_run(run, out, **more) == out
    (stream,) = STREAMS
    assert stream.ended == ["flush", "disconnect"]
    return stream


DRAWN = np.zeros((24, 32, 3), np.uint8)
DRAWN[:12, :, 0], DRAWN[12:, :, 2] = 220, 120


class Skeleton:
    """Half as large as the camera's pictures; it ends before the episode does."""

    def __len__(self) -> int:
        return 3

    def frame(self, index: int) -> np.ndarray:
        return DRAWN


@pytest.fixture(scope="module")
def told(run: Path) -> tuple[Stream, list[tuple[int, int, str]]]:
    """The whole run with a skeleton of one camera, and the steps of its progress."""
    steps: list[tuple[int, int, str]] = []
    drawn = RunReader(run).skeleton("front") / SKELETON_RECORD
    write_json(drawn, {})
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "rerun", package())
        patched.setattr(recording, "open_skeleton", lambda folder: Skeleton())
        STREAMS.clear()
        stream = record(run, run.parent / "told.rrd", progress=lambda *step: steps.append(step))
    drawn.unlink()
    return stream, steps


def picture(logged: SimpleNamespace) -> np.ndarray:
    """RGB of a logged image."""
    assert logged.media_type == "image/jpeg"
    return cv2.imdecode(np.frombuffer(logged.contents, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_a_recording_states_only_the_episode_s_own_frames_and_times(run: Path, episode: Episode, told: Any) -> None:
    stream, _ = told
    assert stream.about == ("retake", f"retake-run-{episode.content_sha256[:12]}", False)
    assert stream.own_clocks == {"time": False, "tick": False}
    for one in stream.logged:
        if one.at is not None:
            assert one.at["time"] == episode.time_s[one.at["frame"]]
    assert [(k, v) for k, v in stream.of("world")] == [(None, "z up")]
    [(when, about)] = stream.of("about")
    assert (when, about.media_type) == (None, "text/markdown")
    assert about.text.endswith(f"{FRAMES} frames at 10 fps")
    with pytest.raises(InputError, match="exists; choose another file"):
        recording.record_run(run, run.parent / "told.rrd")


def test_robots_and_objects_stand_where_they_were_recorded(episode: Episode, told: Any) -> None:
    (stream, _), (robot,) = told, episode.header.robots
    links, bones = (stream.of(f"world/robots/{robot.name}/{what}") for what in ("links", "bones"))
    places = episode.link_poses(robot.name)[:, :, :3, 3]
    assert [k for k, _ in links] == [k for k, _ in bones] == [*range(FRAMES)]
    for k in range(FRAMES):
        assert np.array_equal(links[k][1].positions, places[k])
        ends = [(places[k][j.parent_link], places[k][j.child_link]) for j in robot.joints]
        assert np.array_equal(bones[k][1].strips, ends)
    for channel in ("position", "target"):
        for i, joint in enumerate(robot.dof_names):
            found = stream.of(f"joints/{robot.name}/{joint}/{channel}")
            assert [(k, v.scalars) for k, v in found] == [
                (k, [episode.joint(robot.name, channel)[k, i]]) for k in range(FRAMES)
            ]
    box, *moves = stream.of("world/objects/obj0")
    assert box[0] is None
    assert np.allclose(box[1].half_sizes, [[0.05, 0.025, 0.1]])
    assert (box[1].centers, box[1].labels) == ([(0.0, 0.0, 0.0)], ["packet"])
    assert [k for k, _ in moves] == [*range(FRAMES)]
    for (_, move), T in zip(moves, episode.object_poses[:, 0], strict=True):
        assert np.array_equal(move.translation, T[:3, 3])
        assert np.array_equal(move.mat3x3, T[:3, :3])


def test_a_joint_channel_that_was_not_recorded_is_not_shown(tmp_path: Path) -> None:
    header = make_header(0, joint_channels=(), size=SIZE)
    write_episode(tmp_path / "run" / "episode", header, 1)
    stream = record(tmp_path / "run", tmp_path / "a.rrd")
    assert {one.path.rpartition("/")[2] for one in stream.logged if one.path.startswith("joints/")} == {"position"}


def test_cameras_stand_where_they_were_and_show_what_they_saw(episode: Episode, told: Any) -> None:
    stream, _ = told
    for name in ("front", "wrist"):
        entity = f"world/cameras/{name}"
        placed, lenses = stream.of(entity)[::2], stream.of(entity)[1::2]
        shown = stream.of(f"{entity}/rgb")
        assert [k for k, _ in placed] == [k for k, _ in lenses] == [k for k, _ in shown] == [*range(FRAMES)]
        for k in range(FRAMES):
            view = episode.camera(name, k)
            T = inverse(view.T_camera_world)
            assert np.array_equal(placed[k][1].translation, T[:3, 3])
            assert np.array_equal(placed[k][1].mat3x3, T[:3, :3])
            assert np.array_equal(lenses[k][1].image_from_camera, view.K)
            assert (lenses[k][1].resolution, lenses[k][1].camera_xyz) == ([*SIZE], "right, down, forward")
            assert np.abs(picture(shown[k][1]) - episode.image(name, "rgb", k)).mean() < 5
    skeleton = stream.of("world/cameras/front/skeleton")
    assert [k for k, _ in skeleton] == [0, 1, 2]
    seen = picture(skeleton[0][1])
    assert seen.shape == (48, 64, 3)
    assert np.abs(seen[5] - [220, 0, 0]).max() < 30
    assert np.abs(seen[-5] - [0, 0, 120]).max() < 30
    assert not stream.of("world/cameras/wrist/skeleton")


def test_takes_are_shown_at_the_frames_they_stand_for(run: Path, told: Any) -> None:
    """As many as the record states, no further than the episode goes, under the first camera where none is named."""
    stream, steps = told
    for take, camera, frames in (("v000", "front", [0, 1]), ("v001", "front", [3]), ("v002", "wrist", [0])):
        folder = "wrist" if take == "v002" else "front"
        shown = stream.of(f"takes/{camera}/{take}\\/{folder}")
        assert [k for k, _ in shown] == frames
        for (_, logged), made in zip(shown, read_video(run / "takes" / take / folder / "take.mp4"), strict=False):
            assert np.abs(picture(logged) - made).mean() < 5
    total = FRAMES + 2 + 2 + 1
    named = ["v000/front"] * 2 + ["v001/front", "v002/wrist"]
    assert steps == [(k, total, name) for k, name in enumerate([*["episode"] * FRAMES, *named], 1)]


def test_verdicts_are_curves_over_the_take_s_frames_and_a_table(told: Any) -> None:
    stream, _ = told
    curves = {
        "v000\\/front/drift\\ px": [(0, [0.5]), (2, [0.25])], "v000\\/front/lag": [(0, [1.0])],
        "v001\\/front/drift\\ px": [(3, [7.0])],
    }  # fmt: skip
    for name, wanted in curves.items():
        assert [(k, v.scalars) for k, v in stream.of(f"verdicts/{name}")] == wanted
    [(when, table)] = stream.of("verdicts/v000\\/front/table")
    assert when is None
    assert table.text.splitlines() == [
        "# v000/front: pass", "", "| check | status | value |", "|---|---|---|", "| action | pass | 0.8 |",
        "| object | pass | 0.0 |",
    ]  # fmt: skip
    assert not [one for one in stream.logged if "v002" in one.path and one.path.startswith("verdicts")]


def test_takes_that_are_named_are_shown_alone_and_an_unknown_one_is_refused(run: Path, tmp_path: Path) -> None:
    stream = record(run, tmp_path / "a.rrd", takes=("v001/front",))
    assert {one.path for one in stream.logged if one.path.startswith("takes/")} == {"takes/front/v001\\/front"}
    with pytest.raises(InputError, match="has no take 'nobody'; it has: v000/front, v001/front, v002/wrist"):
        recording.record_run(run, tmp_path / "b.rrd", takes=("v000/front", "nobody"))
    assert not (tmp_path / "b.rrd").exists()


def cancelling(after: int) -> Any:
    calls = iter(range(after))

    def check() -> None:
        if next(calls, None) is None:
            raise Cancelled("stop")

    return check


@pytest.mark.parametrize("after", [0, FRAMES])
def test_a_recording_that_is_cancelled_leaves_no_file(run: Path, tmp_path: Path, after: int) -> None:
    steps: list[Any] = []
    with pytest.raises(Cancelled):
        recording.record_run(
            run, tmp_path / "a.rrd", progress=lambda *step: steps.append(step), check_cancel=cancelling(after)
        )
    assert len(steps) == after
    assert STREAMS[0].ended == ["flush", "disconnect"]
    assert not list(tmp_path.iterdir())


class Toy:
    """A dataset of two episodes."""

    total_frames = 5
    schema = SimpleNamespace(
        fps=10, cameras={"observation.images.front": (4, 3)},
        vectors={"observation.state": Vector("float32", ("a", "b")), "reward": Vector("float64"), "done": Vector("int64"),
                 "source.state": Vector("float32", ("a",))},
    )  # fmt: skip

    def __init__(self, root: Path) -> None:
        pass

    def episodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(index=3, length=2), SimpleNamespace(index=5, length=3)]

    def columns(self, row: Any) -> dict[str, np.ndarray]:
        state = 10 * row.index + np.arange(2 * row.length).reshape(-1, 2)
        return {
            "observation.state": state,
            "reward": state[:, 0] / 2,
            "done": state[:, 0],
            "source.state": state[:, :1],
        }

    def frames(self, row: Any, key: str) -> Iterator[np.ndarray]:
        assert key == "observation.images.front"
        return (np.full((16, 16, 3), 20 * row.index + 30 * k, np.uint8) for k in range(row.length))


@pytest.mark.parametrize(("asked", "kept"), [((), (3, 5)), ((5,), (5,)), ((4,), ())])
def test_episodes_of_a_dataset_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    """Each begins at second 0 of its own; only numbers that say something of the scene are curves."""
    monkeypatch.setattr(recording, "Dataset", Toy)
    steps: list[Any] = []
    out = tmp_path / "d.rrd"
    assert recording.record_dataset(Path("toy"), out, episodes=asked, progress=lambda *step: steps.append(step)) == out
    (stream,) = STREAMS
    assert stream.about == ("retake", "retake-toy-5", False)
    assert stream.ended == ["flush", "disconnect"]
    rows = [(row, k) for row in Toy(out).episodes() if row.index in kept for k in range(row.length)]
    assert steps == [(n, len(rows), f"episode {row.index}") for n, (row, _) in enumerate(rows, 1)]
    for one in stream.logged:
        assert one.at["time"] == rows[one.at["frame"]][1] / 10
    numbers = {
        "episode_index": lambda row, k: row.index, "observation.state/a": lambda row, k: 10 * row.index + 2 * k,
        "observation.state/b": lambda row, k: 10 * row.index + 2 * k + 1, "reward/value": lambda row, k: 5 * row.index + k,
    }  # fmt: skip
    for name, value in numbers.items():
        found = [(frame, what.scalars) for frame, what in stream.of(name)]
        assert found == [(n, [value(row, k)]) for n, (row, k) in enumerate(rows)], name
    shown = stream.of("cameras/front")
    assert [frame for frame, _ in shown] == [*range(len(rows))]
    for (_, logged), (row, k) in zip(shown, rows, strict=True):
        assert np.abs(picture(logged) - (20 * row.index + 30 * k)).max() < 4
    assert {one.path for one in stream.logged} == ({"cameras/front", *numbers} if rows else set())


@pytest.mark.parametrize("after", [0, 3])
def test_a_recording_of_a_dataset_can_be_cancelled_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(recording, "Dataset", Toy)
    steps: list[Any] = []
    with pytest.raises(Cancelled):
        recording.record_dataset(
            Path("toy"), tmp_path / "d.rrd", progress=lambda *step: steps.append(step), check_cancel=cancelling(after)
        )
    assert len(steps) == after
    assert STREAMS[0].ended == ["flush", "disconnect"]
    assert not list(tmp_path.iterdir())
    (tmp_path / "d.rrd").write_bytes(b"kept")
    with pytest.raises(InputError, match="nothing was changed"):
        recording.record_dataset(Path("toy"), tmp_path / "d.rrd")
    assert (tmp_path / "d.rrd").read_bytes() == b"kept"
