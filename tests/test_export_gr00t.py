# SPDX-License-Identifier: Apache-2.0
"""What GR00T wants of a folder, where files of a dataset begin anew, and which encoded frames may enter one as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retake.core.errors import ExportError, InputError
from retake.core.export import encode, gr00t, lerobot_v3, writer
from retake.core.export.lerobot_v21 import LeRobotV21Writer
from retake.core.export.records import (
    ACTION,
    IMAGE,
    SOURCE_UID,
    STATE,
    SUBTASK,
    DatasetEpisode,
    LanguageRows,
    Schema,
    Segment,
    Slice,
    Vector,
    VideoOptions,
)

pytest.importorskip("av")
SLICES = (Slice("arm", 0, 3, "arm", "rad", "r"), Slice("turn", 3, 6, "ee_rotation", "rad", "r"))


def test_parts_of_a_vector_are_told_with_what_their_numbers_mean():
    schema = Schema(10, "r", {SUBTASK: Vector("int64")}, {IMAGE + "top": (6, 4)}, SLICES)
    assert gr00t.modality(schema) == {
        "state": {"arm": {"start": 0, "end": 3}, "turn": {"start": 3, "end": 6, "rotation_type": "axis_angle"}},
        "action": {"arm": {"start": 0, "end": 3, "absolute": True},
                   "turn": {"start": 3, "end": 6, "absolute": False, "rotation_type": "axis_angle"}},
        "video": {"top": {"original_key": IMAGE + "top"}},
        "annotation": {"human.task_description": {"original_key": "task_index"}, "retake.subtask": {}},
    }  # fmt: skip
    assert [*gr00t.modality(Schema(10, "r", {}, {}))["annotation"]] == ["human.task_description"]


def folder(root: Path, info: Any = None, tasks: Any = None, episodes: Any = None, modality: Any = None) -> list[str]:
    (root / "meta").mkdir(parents=True)
    features = {STATE: {"dtype": "float32", "shape": [3]}, ACTION: {"dtype": "float32", "shape": [3]},
                "task_index": {"dtype": "int64", "shape": [1]}, IMAGE + "top": {"dtype": "video"}}  # fmt: skip
    content = {
        "codebase_version": "v2.1", "total_episodes": 2, "total_frames": 5, "chunks_size": 1, "features": features,
        "data_path": "d{episode_chunk}/{episode_index}.parquet", "video_path": "v{episode_chunk}/{video_key}/{episode_index}.mp4",
    }  # fmt: skip
    for k in range(2):
        for name in (f"d{k}/{k}.parquet", f"v{k}/{IMAGE}top/{k}.mp4"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    parts = {"arm": {"start": 0, "end": 3}}
    told = {
        "state": parts,
        "action": parts,
        "video": {"top": {}},
        "annotation": {"human.task": {"original_key": "task_index"}},
    }
    (root / "meta/info.json").write_text(json.dumps({**content, **(info or {})}))
    (root / "meta/modality.json").write_text(json.dumps({**told, **(modality or {})}))
    lines = {"tasks": tasks or [{"task_index": 0, "task": "go"}, {"task_index": 1, "task": "stop"}],
             "episodes": episodes or [{"episode_index": k, "length": 2 + k, "tasks": ["go"]} for k in range(2)]}  # fmt: skip
    for name, rows in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return gr00t.problems(root)


@pytest.mark.parametrize(
    ("change", "told"),
    [({}, []), ({"info": {"codebase_version": "v3.0"}}, ["codebase_version is 'v3.0'; GR00T reads v2.x"]),
     ({"info": {"total_episodes": 3}}, ["episodes.jsonl: episode_index must count 0 … 3-1"]),
     ({"info": {"total_frames": 6}}, ["episodes.jsonl: lengths do not add up to total_frames"]),
     ({"info": {"chunks_size": 2}}, ["d0/1.parquet is missing", f"v0/{IMAGE}top/1.mp4 is missing"]),
     ({"tasks": [{"task_index": 1, "task": "go"}]}, ["tasks.jsonl: task_index must count from 0"]),
     ({"tasks": [{"task_index": 0, "task": "other"}]}, [f"episode {k}: task 'go' is not in tasks.jsonl" for k in range(2)]),
     ({"modality": {"state": {"arm": {"start": 0, "end": 4}}}},
      [f"state.arm: slice 0:4 does not lie in {STATE} with 3 entries"]),
     ({"modality": {"state": {"arm": {"start": 2, "end": 2}}}},
      [f"state.arm: slice 2:2 does not lie in {STATE} with 3 entries"]),
     ({"modality": {"state": {"arm": {"start": -1, "end": 2}}}},
      [f"state.arm: slice -1:2 does not lie in {STATE} with 3 entries"]),
     ({"modality": {"action": {"arm": {"start": 0, "end": 1, "original_key": "none"}}}},
      ["action.arm: slice 0:1 does not lie in none with 0 entries"]),
     ({"modality": {"action": {}}}, ["modality.json has no section 'action'"]), ({"modality": {"video": {}}}, []),
     ({"modality": {"video": None}}, ["modality.json has no section 'video'"]),
     ({"modality": {"video": {"side": {}}}}, [f"video.side: '{IMAGE}side' is no video feature"]),
     ({"modality": {"annotation": {"note": {}}}}, ["annotation.note: there is no column 'annotation.note'"])],
)  # fmt: skip
def test_what_keeps_gr00t_from_reading_a_folder_is_named(tmp_path, change, told):
    assert folder(tmp_path / "d", **change) == told


def test_columns_that_begin_like_annotations_are_none_unless_told(tmp_path):
    features = {STATE: {"dtype": "float32", "shape": [3]}, ACTION: {"shape": [3]}, "task_index": {}, "annotation.x": {}}
    assert folder(tmp_path / "a", info={"features": features}, modality={"video": {}}) == [
        "column 'annotation.x' begins with 'annotation' but is none"
    ]
    told = {"video": {}, "annotation": {"x": {}}}
    assert folder(tmp_path / "b", info={"features": features}, modality=told) == []
    (tmp_path / "b/meta/tasks.jsonl").unlink()
    assert gr00t.problems(tmp_path / "b") == ["meta/tasks.jsonl is missing"]
    assert f"feature {STATE} must exist" in folder(tmp_path / "c", info={"features": {}})


def test_a_thousand_files_make_a_chunk():
    where = lerobot_v3._OpenFile(2, 998, 10, 3, [(Path("a"), 3)])
    where.next()
    assert where == lerobot_v3._OpenFile(2, 999)
    where.next()
    assert where == lerobot_v3._OpenFile(3, 0)


def test_a_subtask_holds_from_its_frame_on():
    made = LeRobotV21Writer.__new__(LeRobotV21Writer)
    made.tasks, made.schema = {"go": 0, "a": 1}, Schema(10, "r", {}, {})

    def row(style: str, text: str, at: float) -> dict[str, Any]:
        return {"style": style, "content": text, "timestamp": at}

    rows = LanguageRows(
        (row("plan", "p", 0.0), row("subtask", "b", 0.4), row("subtask", "a", 0.2), row("subtask", "c", 0.5))
    )
    episode = DatasetEpisode("u", "new", 7, dict, iter, lambda key: None, {}, lambda: rows)
    texts, found = made._subtasks(episode)
    assert texts == ["a", "b", "c"]
    # The task is number 2, as it will be written before its subtasks; "b" and "c" come after it.
    assert found.tolist() == [2, 2, 1, 1, 3, 4, 4]
    assert made.tasks == {"go": 0, "a": 1}
    silent = DatasetEpisode("u", "go", 2, dict, iter, lambda key: None, {}, None)
    assert made._subtasks(silent)[1].tolist() == [0, 0]


OPTIONS = VideoOptions.of("h264", gop=3)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> tuple[Path, str]:
    """Seven frames with a key frame at 0, 3 and 6; and the header of its codec."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    frames = [np.full((64, 66, 3), 30 * k, np.uint8) for k in range(7)]
    encode.encode(path, frames, 10, 7, OPTIONS)
    return path, encode.stream_facts(path)["extradata"]


@pytest.mark.parametrize(
    ("start", "length", "change", "copied"),
    [(0, 7, {}, True), (3, 4, {}, True), (3, 2, {}, True), (6, 1, {}, True), (1, 2, {}, False), (2, 3, {}, False),
     (6, 2, {}, False), (0, 7, {"gop": 2}, False), (0, 7, {"gop": 4}, True), (0, 7, {"codec": "hevc"}, False),
     (0, 7, {"size": (64, 66)}, False), (0, 7, {"template": "00"}, False), (0, 7, {"codec": "lossless"}, False),
     (0, 7, {"fps": 9}, False)],
)  # fmt: skip
def test_encoded_frames_enter_as_they_are_where_they_begin_with_a_key_frame_and_fit(
    film, start, length, change, copied
):
    path, template = film
    options = VideoOptions.of(change.get("codec", "h264"), gop=change.get("gop", 3))
    size, fps, header = change.get("size", (66, 64)), change.get("fps", 10), change.get("template", template)
    assert writer.copyable(Segment(path, start, length), size, fps, options, header) == copied


def test_copied_frames_follow_each_other_on_the_new_clock(film, tmp_path):
    path, _ = film
    joined = tmp_path / "b.mp4"
    assert encode.copy(joined, [Segment(path, 3, 3), Segment(path, 0, 2)], 10) == encode.check_video(joined, 10, 5)
    levels = [round(float(frame.mean())) for frame in encode.read_segment(Segment(joined, 0, 5))]
    assert levels == pytest.approx([90, 120, 150, 0, 30], abs=3)
    assert [round(float(f.mean()) / 30) for f in encode.read_segment(Segment(path, 2, 3))] == [2, 3, 4]
    assert [number for number, _ in encode.packets(path, 10)] == list(range(7))
    with pytest.raises(ExportError, match="frame 1 is no key frame"):
        encode.copy(tmp_path / "c.mp4", [Segment(path, 1, 2)], 10)
    with pytest.raises(ExportError, match=r"holds 5 distinct frames; expected 0 … 5 at 10 fps"):
        encode.check_video(joined, 10, 6)
    with pytest.raises(ExportError, match="ends after 1 of 2 frames from frame 6"):
        list(encode.read_segment(Segment(path, 6, 2)))
    with pytest.raises(ExportError, match="no multiple of 1/9 s"):
        list(encode.packets(path, 9))
    with pytest.raises(ExportError, match=r"none\.mp4 is missing"):
        list(encode.read_segment(Segment(tmp_path / "none.mp4", 0, 1)))
    with pytest.raises(ExportError, match="gave 1 frames where the episode has 2"):
        encode.encode(tmp_path / "d.mp4", [np.zeros((64, 64, 3), np.uint8)], 10, 2, OPTIONS)


def test_a_video_is_described_as_it_was_written(film):
    found = writer.video_info(film[0], Schema(10, "r", {}, {}), OPTIONS)
    assert found == {
        "video.height": 64, "video.width": 66, "video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False,
        "video.fps": 10, "video.channels": 3, "has_audio": False, "is_depth_map": False, "video.g": 3, "video.crf": 23,
        "video.preset": "veryfast", "video.fast_decode": 0, "video.extra_options": {}, "video.video_backend": "pyav",
    }  # fmt: skip


def test_frames_of_another_size_are_refused_and_pictures_are_small(tmp_path):
    stats = writer.ImageStats(1)
    good = np.zeros((4, 6, 3), np.uint8)
    (same,) = writer.counted(iter([good]), stats, (6, 4), "k")
    assert same is good
    assert stats.result()["count"] == [1]
    for wrong in (good[:3], good.astype(np.float32)):
        with pytest.raises(ExportError, match=r"k: a frame is .*; the dataset has 6x4 uint8 RGB"):
            list(writer.counted(iter([wrong]), stats, (6, 4), "k"))
    writer.picture(tmp_path / "p.jpg", np.zeros((90, 160, 3), np.uint8), height=45)
    assert cv2.imread(str(tmp_path / "p.jpg")).shape == (45, 80, 3)
    columns = {"a": np.zeros(3), SOURCE_UID: np.ones(3)}
    schema = Schema(10, "r", {SOURCE_UID: Vector("int64"), "a": Vector("float32")}, {})
    found = writer.numeric_columns(DatasetEpisode("u", "t", 3, lambda: columns, iter, lambda key: None, {}), schema)
    assert [*found] == [SOURCE_UID, "a"]
    assert len(set(found[SOURCE_UID].tolist())) == 1
    assert found[SOURCE_UID][0] > 1


@pytest.mark.parametrize(
    ("size", "codec", "words"),
    [((64, 64), "av1", ""), ((62, 64), "av1", "too small for AV1"), ((62, 64), "h264", ""),
     ((65, 64), "h264", "give --size 66x64"),
     ((64, 63), "h264", "give --size 64x64"), ((65, 63), "lossless", "")],
)  # fmt: skip
def test_sizes_that_a_codec_cannot_hold_are_refused_with_one_that_it_can(size, codec, words):
    if words:
        with pytest.raises(InputError, match=words):
            encode.check_size(size, VideoOptions.of(codec))
    else:
        encode.check_size(size, VideoOptions.of(codec))


def test_video_options_have_bounds_and_what_is_no_video_is_told(tmp_path):
    assert [VideoOptions.of("h264", crf=c).crf for c in (0, 63)] == [0, 63]
    assert VideoOptions.of("hevc") == VideoOptions("libx265", 26, 2, "veryfast", "yuv420p")
    for crf, gop in ((-1, 2), (64, 2), (30, 0)):
        with pytest.raises(InputError, match="must be within"):
            VideoOptions("libx264", crf, gop)
    with pytest.raises(InputError, match="do not go together"):
        VideoOptions("libx264", pix_fmt="rgb24")
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(ExportError, match="is not a readable video"):
        list(encode.packets(tmp_path / "x.mp4", 10))


def test_what_keeps_two_schemas_apart_is_said_of_both():
    one = Schema(
        10, "r", {"a": Vector("float32", ("x", "y")), "b": Vector("int64")}, {"k": (4, 3)}, units={"a": "rad", "b": "m"}
    )
    two = Schema(
        10, "r", {"a": Vector("float32", ("x",)), "b": Vector("int32"), "c": Vector("int64")}, {"k": (4, 3)}, language=True,
        units={"a": "deg", "b": "m", "c": "s"},
    )  # fmt: skip
    assert one.differences(two, "one", "two") == [
        "feature a: one has 2 entries, two 1", "feature b: one has dtype int64, two int32", "feature c: only in two",
        "language columns: only in two (--no-language leaves them out)", "unit of a: one rad, two deg",
    ]  # fmt: skip
    assert one.differences(one) == []
    assert Schema.from_json(one.to_json(), "x") == one
    own = Schema(10, "r", {}, {}, SLICES, own_action_slices=SLICES[:1])
    assert (own.action_slices, Schema(10, "r", {}, {}, SLICES).action_slices) == (SLICES[:1], SLICES)
    assert own.to_json()["action_slices"][0]["name"] == "arm"
    assert "action_slices" not in one.to_json()
