# SPDX-License-Identifier: Apache-2.0
"""Words and per-frame truth: every frame and pixel is the simulator's, and a phrase names only what is in the picture."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_runs import make_header, make_run, write_take
from strategies import random_frame

from retake.core.episode import Contact, Episode, EpisodeWriter, Instance, ObjectSpec
from retake.core.export import ExportOptions, Selection, VideoOptions, export, gr00t, mix
from retake.core.export.found import shown_words
from retake.core.export.language import LEAST_PX, SUBTASKS, TASKS_DONE, TASKS_HELD, definite, language_rows
from retake.core.export.mix import MixSource
from retake.core.export.reader import Dataset
from retake.core.export.truth import PHASES, truth_columns
from retake.core.variants.sampler import sample_worlds
from retake.core.variants.worlds import load_catalogue

pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")
LENGTH, GRASP, LIFT, RELEASE, SETTLED = 30, 8, 11, 20, 26
SIZE = (96, 64)
KEY = "observation.images.front"
FULL = os.environ.get("RETAKE_FULL") == "1"


def ids_at(k: int, hidden: frozenset[str] = frozenset()) -> np.ndarray:
    """Instance ids of frame k: table 1, tray 2 at the right, object 7 moving right from the grasp to the release."""
    image = np.zeros((SIZE[1], SIZE[0]), np.uint16)
    if "table" not in hidden:
        image[40:] = 1
    if "tray" not in hidden:
        image[36:50, 70:94] = 2
    x = 10 + round(60 * np.clip((k - LIFT) / (RELEASE - LIFT), 0, 1))
    if "object" not in hidden:
        image[20 + k % 3 : 33, x : x + 11] = 7
    return image


def pick_and_drop(path: Path, hidden: frozenset[str] = frozenset(), **header: Any) -> Episode:
    """A robot takes the object at GRASP, moves it from LIFT on, lets go at RELEASE; it lies still in the tray at SETTLED."""
    spec = make_header(0, size=SIZE, fps=10, **header)
    spec = replace(
        spec,
        objects=(ObjectSpec("obj0", "/World/Obj0", "packet", (0.1, 0.1, 0.1)),),
        instances=(
            Instance(1, "/World/Table", "table"), Instance(2, "/World/Tray", "tray"),
            Instance(7, "/World/Obj0", "packet", "object:obj0"),
        ),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    fingers = [link.prim_path for link in spec.robots[0].links[-2:]]

    def touch(a: str) -> Contact:
        return Contact(a, "/World/Obj0", (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0))

    with EpisodeWriter(path, spec) as writer:
        for k in range(LENGTH):
            frame = random_frame(rng, spec, k)
            pose = np.eye(4)[None].copy()
            pose[0, 0, 3] = 0.04 * np.clip(k - LIFT + 1, 0, RELEASE - LIFT + 1)
            pose[0, 2, 3] = 0.3 if k < RELEASE else max(0.3 - 0.05 * (k - RELEASE), 0.05 if k < SETTLED else 0.0)
            contacts = [touch("/World/Table")] if k < LIFT else []
            contacts += [touch(f) for f in fingers] if GRASP <= k < RELEASE else []
            contacts += [touch("/World/Tray")] if k >= SETTLED else []
            views = tuple(replace(view, instance_ids=ids_at(k, hidden)) for view in frame.cameras)
            writer.append(replace(frame, T_world_object=pose, contacts=tuple(contacts), cameras=views))
        return writer.finish()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language") / "run"
    episode = pick_and_drop(root / "episode")
    for world in range(2):
        write_take(root, episode, world)
    write_take(root, episode, 2, start=9, frames=14)
    return root


def said(rows: Any, style: str) -> list[tuple[float, str]]:
    return [(row["timestamp"], row["content"]) for row in rows.persistent if row["style"] == style]


def test_frames_carry_phase_contact_distance_and_boxes_of_the_simulator(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "d", ExportOptions(video=H264), Selection(include_sim=True, size=(192, 96)))
    data = Dataset(tmp_path / "d")
    assert set(data.info["features"]) >= {"truth.phase", "truth.contact", "truth.box.front", "language_persistent"}
    for row in data.episodes():
        start, columns = row.provenance["window_start"], data.columns(row)
        frames = np.arange(start, start + row.length)
        edges = np.searchsorted([GRASP, LIFT, RELEASE, SETTLED], frames, side="right")
        assert np.array_equal(columns["truth.phase"], edges)
        assert np.array_equal(columns["truth.contact"], ((frames >= GRASP) & (frames < RELEASE)).astype(int))
        assert (columns["truth.gripper_object_m"] >= 0).all()
        for k, box, area in zip(frames, columns["truth.box.front"], columns["truth.visible_px.front"], strict=True):
            y, x = np.nonzero(ids_at(int(k)) == 7)
            wanted = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) * (2.0, 1.5, 2.0, 1.5)
            assert np.abs(box - wanted).max() < 1e-4
            assert area == pytest.approx(len(x) * 3.0)


def test_every_event_stands_on_the_simulators_frame_and_box_and_point_lie_on_the_object(
    run: Path, tmp_path: Path
) -> None:
    export([run], tmp_path / "d", ExportOptions(video=H264), Selection(include_sim=True, size=(192, 96)))
    data = Dataset(tmp_path / "d")
    for row in data.episodes():
        rows, start, stamps = data.language(row), row.provenance["window_start"], data.columns(row)["timestamp"]
        moments = [start, *(k for k in (GRASP, LIFT, RELEASE, SETTLED) if start < k < start + row.length)]
        assert [t for t, _ in said(rows, "subtask")] == [float(stamps[k - start]) for k in moments]
        assert sorted(rows.events) == [k - start for k in moments]
        for k, event in rows.events.items():
            answer, question = sorted(event, key=lambda r: r["role"])
            assert question["camera"] == answer["camera"] == KEY
            content = json.loads(answer["content"])
            mask = ids_at(start + k) == 7
            if "detections" in content:
                (one,) = content["detections"]
                y, x = np.nonzero(mask)
                wanted = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) * (2.0, 1.5, 2.0, 1.5)
                assert np.abs(np.array(one["bbox"]) - wanted).max() <= 1.0
            else:
                x, y = np.array(content["point"]) / (2.0, 1.5)
                assert mask[int(y), int(x)]
    kinds = {
        key
        for row in data.episodes()
        for e in data.language(row).events.values()
        for key in json.loads(e[0]["content"])
    }
    assert {"detections", "point"} <= kinds


def test_variants_differ_in_words_and_nothing_else_of_the_truth(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "d", ExportOptions(video=H264))
    data = Dataset(tmp_path / "d")
    first, second = (row for row in data.episodes() if row.length == LENGTH)
    ours, theirs = data.columns(first), data.columns(second)
    assert all(
        np.array_equal(ours[k], theirs[k])
        for k in ours
        if k.startswith("truth.") or k in ("action", "observation.state")
    )
    texts = [" ".join(t for _, t in said(data.language(row), "task_aug")) for row in (first, second)]
    assert "bun" in texts[0]
    assert "bun" not in texts[1]
    assert len(said(data.language(first), "task_aug")) == 3


@pytest.mark.parametrize(
    "hidden", [frozenset(), frozenset({"tray"}), frozenset({"object"}), frozenset({"table", "tray"})]
)
def test_phrases_of_many_worlds_name_only_what_is_visible(hidden: frozenset[str], tmp_path: Path) -> None:
    """All catalogue words are looked for in all phrases: only the world's own, and only of what the ids show."""
    episode = pick_and_drop(tmp_path / "e", hidden)
    catalogue = load_catalogue()
    words = {
        axis: {name: definite(str(value["prompt"])) for name, value in catalogue.sections[f"{axis}s"].items()}
        for axis in ("subject", "surface")
    }
    seen = {
        name: any((ids_at(k, hidden) == i).sum() >= LEAST_PX for k in range(LENGTH))
        for name, i in (("table", 1), ("tray", 2), ("object", 7))
    }
    different = set()
    for seed, world in enumerate(sample_worlds(200 if FULL else 60, seed=3)):
        rows = language_rows(episode, {KEY: SIZE}, 0, LENGTH, words=shown_words(episode.header, world), seed=seed)
        text = " ".join(row["content"] for row in rows.persistent)
        text += " ".join(row["content"] for event in rows.events.values() for row in event)
        own = {words["subject"][world.subject]: "object", words["surface"][world.surface]: "table", "the tray": "tray"}
        for known in (*words["subject"].values(), *words["surface"].values(), "the tray", "the packet"):
            if re.search(rf"{re.escape(known)}\b", text) and not any(known in mine and known != mine for mine in own):
                assert known in own, f"{known!r} is not in world {world.name}: {text}"
                assert seen[own[known]], f"{known!r} is not visible: {text}"
        different.add(text)
        if not seen["object"]:
            assert not rows.events
    assert len(different) > (20 if seen["object"] else 0)


def test_every_template_speaks_of_known_things_and_has_one_that_names_nothing() -> None:
    for phase in PHASES:
        assert "{" not in SUBTASKS[phase][-1]
    for text in (*TASKS_DONE, *TASKS_HELD, *(t for texts in SUBTASKS.values() for t in texts)):
        assert set(re.findall(r"{(\w+)}", text)) <= {"object", "start", "end", "start_thing", "end_thing"}
    assert definite("an eggplant") == definite("eggplant") == "the eggplant"


def test_a_world_in_the_users_own_words_is_not_described(run: Path) -> None:
    from retake.core.episode import open_episode
    from retake.core.variants.base import World

    episode = open_episode(run / "episode")
    world = World("mine", "", "", "", "", prompt="a workshop with a wooden toy on a bench")
    words = shown_words(episode.header, world)
    rows = language_rows(episode, {KEY: SIZE}, 0, LENGTH, words=words, seed=0)
    text = " ".join(row["content"] for row in rows.persistent)
    assert "the object" in text
    assert "packet" not in text


def test_language_is_left_out_where_it_has_no_place_or_is_not_wanted(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "a", ExportOptions(video=H264), Selection(language=False, truth=False))
    features = Dataset(tmp_path / "a").info["features"]
    assert not [key for key in features if key.startswith(("truth.", "language"))]
    export([run], tmp_path / "b", ExportOptions("lerobot-v2.1"))
    data = Dataset(tmp_path / "b")
    assert not data.schema.language
    assert "truth.phase" in data.schema.vectors
    assert gr00t.problems(tmp_path / "b") == []
    for row in data.episodes():
        subtasks, k0 = data.columns(row)["annotation.retake.subtask"], row.provenance["window_start"]
        moments = [0, *(k - k0 for k in (GRASP, LIFT, RELEASE, SETTLED) if k0 < k < k0 + row.length)]
        assert [int(k) for k in np.flatnonzero(np.diff(subtasks, prepend=-1))] == moments
        assert all(data.tasks[i] and data.tasks[i] != row.task for i in subtasks)
    export([run], tmp_path / "c", ExportOptions("lerobot-v2.1"), Selection(language=False))
    assert not [key for key in Dataset(tmp_path / "c").info["features"] if key.startswith("annotation")]
    mix([MixSource("b", tmp_path / "b", 1.0)], tmp_path / "mixed", options=ExportOptions(video=H264))
    assert not [key for key in Dataset(tmp_path / "mixed").schema.vectors if key.startswith("annotation")]


def test_runs_without_objects_join_a_dataset_and_mixtures_keep_the_words(run: Path, tmp_path: Path) -> None:
    bare = make_run(tmp_path / "bare", takes=1, frames=5, size=SIZE, header={"objects": (), "instances": ()})
    (report,) = export([run, bare], tmp_path / "d", ExportOptions(video=H264))
    assert any("truth.phase" in note and "not every run has it" in note for note in report.warnings)
    assert not [key for key in Dataset(tmp_path / "d").schema.vectors if key.startswith("truth.")]
    empty = [
        data
        for row in Dataset(tmp_path / "d").episodes()
        if not (data := Dataset(tmp_path / "d").language(row)).persistent
    ]
    assert len(empty) == 1
    export([run], tmp_path / "e", ExportOptions(video=H264))
    mix([MixSource("a", tmp_path / "e", 1.0)], tmp_path / "m", options=ExportOptions(video=H264))
    there = {row.task: Dataset(tmp_path / "e").language(row) for row in Dataset(tmp_path / "e").episodes()}
    for row in Dataset(tmp_path / "m").episodes():
        assert Dataset(tmp_path / "m").language(row) in there.values() or row.task in there


def test_truth_of_a_recording_without_contacts_says_so(tmp_path: Path) -> None:
    spec = make_header(0, size=SIZE)
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "e", spec) as writer:
        for k in range(6):
            writer.append(replace(random_frame(rng, spec, k), contacts=()))
        episode = writer.finish()
    columns = truth_columns(episode, {KEY: SIZE}, 0, 6)
    assert set(columns["truth.contact"]) == {-1}
