# SPDX-License-Identifier: Apache-2.0
"""What an export plans: windows of the simulation, sizes of pictures, one split per trajectory, whether a check was passed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strategies import random_frame, random_header

from retake.core.episode import EpisodeWriter
from retake.core.errors import ExportError
from retake.core.export import collect, items
from retake.core.export.collect import IMAGE, Item, Selection, trajectory_id, with_split
from retake.core.export.found import FoundTake
from retake.core.export.provenance import record
from retake.core.run_reader import Standing, StoredCheck, StoredVerdict
from retake.core.takes.base import Take


def episode(path: Path, frames: int = 10, *, seed: int = 0, pictures: int = 0, change=lambda frame: frame, **header):
    made = replace(random_header(np.random.default_rng(1), cameras=2), **{"joint_channels": ("target",), **header})
    motion = [random_frame(np.random.default_rng(seed + 100 * k), made, k) for k in range(frames)]
    if pictures:
        views = [random_frame(np.random.default_rng(pictures + k), made, k).cameras for k in range(frames)]
        motion = [replace(frame, cameras=view) for frame, view in zip(motion, views, strict=True)]
    with EpisodeWriter(path, made) as writer:
        for frame in motion:
            writer.append(change(frame))
        return writer.finish()


def test_a_trajectory_is_its_motion_whatever_it_looks_like(tmp_path):
    def retargeted(frame):
        robot = frame.robots[0]
        return replace(frame, robots=(replace(robot, joint_target=robot.joint_target + 1e-9),))

    one = trajectory_id(episode(tmp_path / "a", 3))
    assert trajectory_id(episode(tmp_path / "b", 3, pictures=7, task="another")) == one
    assert trajectory_id(episode(tmp_path / "c", 3, seed=1)) != one
    assert trajectory_id(episode(tmp_path / "d", 3, change=retargeted)) != one
    assert trajectory_id(episode(tmp_path / "e", 2)) != one


def item(run: str = "r", start: int = 0, length: int = 1, trajectory: str = "t", take: str = "k", **videos) -> Item:
    """Camera → size of its take's pictures; None for the simulator's own."""
    shown = tuple((c, None if size is None else Path(c)) for c, size in videos.items())
    sizes = {c: size for c, size in videos.items() if size is not None}
    return Item("u", Path(run), Path("e"), shown, start, length, "", trajectory, record({"take_id": take}), {}, sizes)


def test_the_simulation_is_cut_into_windows_or_into_those_of_its_takes(tmp_path):
    source = {"trajectory_id": "t", "run": "r"}
    made = episode(tmp_path / "a", motion_source="recorded", seed=4)

    def windows(takes=(), cameras=(), **selection):
        found = items.sim_items(tmp_path, made, takes, cameras, source, Selection(**selection))
        return [(i.start, i.length) for i in found], found

    assert windows()[0] == [(0, 10)]
    assert windows(window=4)[0] == [(0, 4), (4, 4), (8, 2)]
    assert windows(window=5)[0] == [(0, 5), (5, 5)]
    assert windows([item(start=3, length=2), item(start=0, length=4), item(start=3, length=2)], window=4)[0] == [
        (0, 4),
        (3, 2),
    ]
    (whole,) = windows()[1]
    assert whole.videos == (("cam0", None), ("cam1", None))
    p = whole.provenance
    assert (p["camera_names"], p["camera_domains"], p["domain"]) == ("cam0,cam1", "recorded,recorded", "recorded")
    assert (p["accepted"], p["verdict_status"], p["resize_sx"], p["window_length"]) == (True, "source", 1.0, 10)
    assert (p["capture_width"], p["capture_height"]) == made.header.cameras[0].size
    (one,) = windows(cameras=["cam1"])[1]
    assert (one.videos, one.provenance["capture_width"]) == ((("cam1", None),), made.header.cameras[1].size[0])
    assert one.uid != whole.uid
    simulated = episode(tmp_path / "b", 2)
    (own,) = items.sim_items(tmp_path, simulated, (), (), source, Selection())
    assert (own.provenance["domain"], own.provenance["camera_domains"]) == ("sim", "sim,sim")


class Header:
    def __init__(self, **sizes) -> None:
        self.sizes = sizes

    def camera(self, name: str) -> Header:
        return type("C", (), {"size": self.sizes[name]})()


def test_pictures_have_the_size_of_the_takes_unless_another_is_asked():
    headers = {Path("r"): Header(a=(64, 48), b=(32, 24)), Path("s"): Header(a=(80, 60), b=(32, 24))}

    def sizes(*items: Item, size=None):
        return collect._sizes(items, Selection(size=size), headers)

    take, sim = item(a=(60, 40), b=(30, 20)), item(a=None, b=None)
    assert sizes(take, sim) == {IMAGE + "a": (60, 40), IMAGE + "b": (30, 20)}
    assert sizes(sim) == {IMAGE + "a": (64, 48), IMAGE + "b": (32, 24)}
    assert sizes(take, sim, size="capture") == {IMAGE + "a": (64, 48), IMAGE + "b": (32, 24)}
    assert sizes(take, item("s", a=None, b=None), size=(9, 8)) == {IMAGE + "a": (9, 8), IMAGE + "b": (9, 8)}
    assert sizes(item(a=None, b=(30, 20))) == {IMAGE + "a": (64, 48), IMAGE + "b": (30, 20)}
    with pytest.raises(ExportError, match=r"camera 'a' has pictures of several sizes: 60x40 \(r/k\), 61x40 \(s/l\)"):
        sizes(take, item("s", take="l", a=(61, 40), b=(30, 20)))
    with pytest.raises(ExportError, match=r"64x48 \(r\), 80x60 \(s\)"):
        sizes(sim, item("s", a=None, b=None))
    with pytest.raises(ExportError, match=r"s has cameras \['a'\], runs before it \['a', 'b'\]"):
        sizes(take, item("s", a=None))


def test_a_split_is_noted_by_trajectory():
    first, second = with_split([item(trajectory="t"), item(trajectory="u")], {"u": "val"})
    assert (first.provenance["split"], second.provenance["split"]) == ("train", "val")


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, None), ("{}", None), ('{"passed": null}', None), ('{"passed": true}', True), ('{"passed": 0}', False)],
)
def test_whether_the_episode_passed_its_check_is_told_where_it_was_run(tmp_path, text, told):
    path = tmp_path / "check.json"
    if text is not None:
        path.write_text(text)
    assert collect._check_passed(path) is told
    for wrong, words in (("[1]", "holds a list"), ("{", "is not readable JSON")):
        path.write_text(wrong)
        with pytest.raises(ExportError, match=words):
            collect._check_passed(path)


def shot(camera: str, status: str = "pass", checks=(), probability: float = 0.9, **change) -> FoundTake:
    fields = {
        "id": f"w-s1/{camera}", "video": Path(f"{camera}.mp4"), "video_sha256": f"sha-{camera}", "variant": f"w/{camera}",
        "backend": "b", "backend_version": "1", "domain": "generated", "seed": 1, "prompt": "p", "frames": 5, "fps": 15.0,
        "size": (64, 24), "inputs": {"skeleton": "s"}, "camera": camera, "settings": {"style": "é", "dtype": "bf16"},
    }  # fmt: skip
    verdict = StoredVerdict(Path("v"), status, "0" * 64, probability, checks=tuple(checks))
    return FoundTake(Take(**{**fields, **change}), None, Standing(status, "", verdict))


def test_a_world_s_takes_are_one_item_with_what_each_camera_shows(tmp_path):
    made = episode(tmp_path / "a", 10)
    size = made.header.cameras[0].size
    source = {"trajectory_id": "t", "run": "r"}
    checks = [StoredCheck("tone", "pass", 0.5), StoredCheck("huge", "pass", 1e300), StoredCheck("none", "pass", None)]
    one = shot("cam0", checks=checks, frames=20, start=4)

    def of(cameras=("cam0", "cam1"), **views):
        return items.take_item(tmp_path, made, views, cameras, source, Selection())

    p = of(("cam0",), cam0=one).provenance
    assert (p["window_start"], p["window_length"]) == (4, 6), "no longer than the episode"
    assert (p["resize_sx"], p["resize_sy"]) == (64 / size[0], 24 / size[1])
    assert (p["capture_width"], p["capture_height"]) == size
    assert (p["settings"], p["precision"]) == ('{"dtype": "bf16", "style": "é"}', "bf16")
    assert (p["variant_id"], p["take_id"], p["domain"], p["video_sha256"]) == (
        "w/cam0",
        "w-s1/cam0",
        "generated",
        "sha-cam0",
    )
    assert (p["accepted"], p["verdict_status"], p["verdict_probability"]) == (True, "pass", 0.9)
    assert (p["verdict/tone"], p["verdict/huge"], p["verdict/none"]) == (0.5, None, None)
    two = of(cam0=one, cam1=shot("cam1", "unsure", [StoredCheck("tone", "pass", 0.25)], 0.4, start=4))
    p = two.provenance
    assert (p["variant_id"], p["take_id"], p["camera_names"]) == ("w", "w-s1/cam0+w-s1/cam1", "cam0,cam1")
    assert (p["accepted"], p["verdict_status"], p["verdict_probability"]) == (False, "pass+unsure", 0.4)
    assert (p["verdict/cam0/tone"], p["verdict/cam1/tone"]) == (0.5, 0.25)
    assert (p["video_sha256"], p["camera_domains"]) == ("sha-cam0,sha-cam1", "generated,generated")
    assert two.sizes == {"cam0": (64, 24), "cam1": (64, 24)}
    mixed = of(cam0=None, cam1=shot("cam1"))
    p = mixed.provenance
    assert (p["domain"], p["camera_domains"], p["video_sha256"]) == ("mixed", "sim,generated", ",sha-cam1")
    assert mixed.videos == (("cam0", None), ("cam1", Path("cam1.mp4")))
    assert p["capture_width"] == made.header.cameras[1].size[0], "of the camera whose take leads"
