# SPDX-License-Identifier: Apache-2.0
"""Composite takes: frame 0 is the variant, the background stands still, robot and object are the simulator's."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.errors import Cancelled, TakeError, VariantError
from retake.core.files import read_json, sha256_file, write_json
from retake.core.painter.composite import CompositeBackend, psnr
from retake.core.painter.matting import Matte
from retake.core.painter.procedural import ProceduralBackend
from retake.core.takes import TakeRequest, make_take, open_take
from retake.core.takes.make import kept_take
from retake.core.variants import load_catalogue, make_variants, source_frame
from retake.core.variants.edges import edge_f1, instance_border, structure_f1
from retake.core.variants.make import read_frame
from retake.core.video import read_video, video_info

FULL = os.environ.get("RETAKE_FULL") == "1"
ROBOT_IDS = tuple(range(10, 16))
PACKET_ID = 4


@dataclasses.dataclass(frozen=True)
class Bench:
    episode: object
    root: Path

    def request(self, camera: str = "front", **changes) -> TakeRequest:
        base = TakeRequest(self.episode.path, camera, self.root / "skeleton", self.variant(camera), "p", frames=0)
        return dataclasses.replace(base, **changes)

    def variant(self, camera: str) -> Path:
        folder = self.root / "chips_conveyor" / camera
        return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    root = tmp_path_factory.mktemp("takes")
    episode = make_scene_episode(root / "e", frames=10, size=(320, 240), wrist=True)
    write_json(root / "skeleton" / "skeleton.json", {"sha256": "ab" * 32})
    for camera in ("front", "wrist"):
        make_variants(episode, camera, root, worlds=[load_catalogue().preset("chips_conveyor")], seed=2)
    return Bench(episode, root)


@pytest.fixture(scope="module")
def frames(bench):
    return list(CompositeBackend().generate(bench.request()))


@pytest.fixture(scope="module")
def foreign(bench):
    """A first frame of unknown origin: the variant's, mirrored in hue, as another backend's record."""
    # In the simulated silhouette, as an image model paints that is held to it.
    world = dataclasses.replace(load_catalogue().preset("chips_conveyor"), parameters={"subject": {"shape": ""}})
    make_variants(bench.episode, "front", bench.root / "boxes", worlds=[world], seed=2)
    return make_foreign(bench.root / "boxes" / "chips_conveyor" / "front", bench.root / "foreign")


def make_foreign(variant: Path, folder: Path) -> Path:
    frame = read_frame(variant / "frame.png")[..., ::-1]
    folder.mkdir()
    cv2.imwrite(str(folder / "frame.png"), cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))
    record = read_json(variant / "variant.json")
    write_json(
        folder / "variant.json", {**record, "backend": "folder", "frame_sha256": sha256_file(folder / "frame.png")}
    )
    return folder


def still_region(bench: Bench, a: int, b: int) -> np.ndarray:
    """Pixels that show the same static point in frames a and b, 3 px away from anything that moves."""
    out = None
    for index in (a, b):
        moving = np.isin(bench.episode.image("front", "instances", index), (*ROBOT_IDS, PACKET_ID))
        grown = cv2.dilate(moving.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        out = ~grown if out is None else out & ~grown
    return out


def test_frame_0_is_the_variant_frame(bench, frames):
    first = read_frame(bench.root / "chips_conveyor/front/frame.png")
    assert np.array_equal(frames[0], first)
    source = source_frame(bench.episode, "front", 0)
    world = load_catalogue().preset("chips_conveyor")
    rendered = ProceduralBackend().render(source, world, 2)
    assert psnr(rendered, first) == float("inf")  # not only copied: drawn anew it is the same
    assert len(frames) == 10


def test_the_background_stands_still(bench, frames):
    """Without shadows nothing may change; with them most pixels still do not, and the rest only by a shadow."""
    for index in range(1, len(frames)):
        region = still_region(bench, 0, index)
        moved = np.abs(frames[index].astype(int) - frames[0]).max(-1)
        assert (moved[region] == 0).mean() > 0.7, index
    far = cv2.dilate((moved > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert far[:20, -40:].sum() == 0  # a corner that no shadow reaches


def test_without_light_from_anywhere_but_above_the_still_region_is_exact(bench):
    plain = dataclasses.replace(
        load_catalogue().preset("chips_conveyor"), parameters={"lighting": {"sun": {"strength": 0.0}}}
    )
    first = source_frame(bench.episode, "front", 0)
    dresser = ProceduralBackend().dresser(first, plain, 0)
    start = dresser.render(first)
    for index in (4, 9):
        frame = dresser.render(source_frame(bench.episode, "front", index))
        region = still_region(bench, 0, index)
        # Contact shadows reach centimetres: leave out the table near gripper and packet, keep everything else.
        rows, columns = np.nonzero(np.isin(bench.episode.image("front", "instances", index), (1, 2, 3)))
        keep = np.zeros(region.shape, bool)
        keep[rows, columns] = True
        same = (frame == start).all(-1)[region & keep]
        assert same.mean() > 0.9


def test_robot_structure_equals_the_simulation_in_every_frame(bench, frames):
    for index, frame in enumerate(frames):
        source = source_frame(bench.episode, "front", index)
        assert structure_f1(frame, source.rgb, source.robot_mask) >= 0.95, index
    wrong = source_frame(bench.episode, "front", 5)
    assert structure_f1(frames[2], wrong.rgb, wrong.robot_mask) < 0.9


def test_the_object_is_drawn_exactly_where_the_simulation_has_it(bench):
    """Two flat looks differ only on the object: where they differ is where it is drawn, compared with the mask."""
    world = load_catalogue().preset("chips_conveyor")
    first = source_frame(bench.episode, "front", 0)
    looks = []
    for colour in ("#ff00ff", "#00ff00"):
        flat = {"subject": {"kind": "plush", "colours": [colour, colour, colour], "gloss": 0.0}}
        looks.append(ProceduralBackend().dresser(first, dataclasses.replace(world, parameters=flat), 0))
    for index in range(0, 10, 1 if FULL else 3):
        source = source_frame(bench.episode, "front", index)
        a, b = (d.render(source).astype(int) for d in looks)
        drawn = np.abs(a - b).max(-1) > 40
        mask = source.mask("object:packet")
        assert edge_f1(instance_border(drawn.astype(np.uint8)), instance_border(mask.astype(np.uint8))) >= 0.95, index


def test_a_take_is_written_kept_and_remade(bench, tmp_path):
    request = bench.request(frames=5, start=0)
    take = make_take(request, CompositeBackend(), tmp_path / "t", extra={"note": 1})
    record = read_json(tmp_path / "t/take.json")
    assert record["domain"] == "composite"
    assert record["inputs"] == {"episode": bench.episode.content_sha256, "skeleton": "ab" * 32,
                                "first_frame": sha256_file(request.variant / "frame.png")}  # fmt: skip
    assert record["extra"] == {"note": 1}
    assert video_info(take.video).frames == take.frames == 5
    assert psnr(next(read_video(take.video)), read_frame(request.variant / "frame.png")) > 30
    stamp = take.video.stat().st_mtime_ns
    assert (
        make_take(request, CompositeBackend(), tmp_path / "t", extra={"note": 1}) == take == open_take(tmp_path / "t")
    )
    assert kept_take(request, CompositeBackend(), tmp_path / "t", {"note": 1}) == take
    assert kept_take(request, CompositeBackend(), tmp_path / "elsewhere") is None
    assert kept_take(dataclasses.replace(request, frames=4), CompositeBackend(), tmp_path / "t") is None
    assert take.video.stat().st_mtime_ns == stamp
    other = make_take(dataclasses.replace(request, frames=4), CompositeBackend(), tmp_path / "t")
    assert other.frames == 4
    assert other.video_sha256 != take.video_sha256


def test_same_request_same_bytes_and_cancel_leaves_no_take(bench, tmp_path):
    request, calls = bench.request(frames=6), []

    def cancel() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        make_take(request, CompositeBackend(), tmp_path / "a", check_cancel=cancel)
    assert not list((tmp_path / "a").glob("*"))
    a = make_take(request, CompositeBackend(), tmp_path / "a")
    b = make_take(request, CompositeBackend(), tmp_path / "b")
    assert a.video_sha256 == b.video_sha256


KILL = """
import sys
from pathlib import Path
from retake.core.takes import TakeRequest, make_take
from retake.core.painter.composite import CompositeBackend
from retake.core.painter.matting import Matte
print("ready", flush=True)
e, s, v, out = map(Path, sys.argv[1:])
make_take(TakeRequest(e, "front", s, v, "p", frames=0), CompositeBackend(), out)
"""


def test_kill_and_resume_gives_the_same_take(bench, tmp_path):
    request, rng = bench.request(), np.random.default_rng(1)
    whole = make_take(request, CompositeBackend(), tmp_path / "whole" / "w" / "t")
    for _ in range(10 if FULL else 2):
        arguments = [bench.episode.path, request.skeleton, request.variant, tmp_path / "killed" / "w" / "t"]
        child = subprocess.Popen([sys.executable, "-c", KILL, *map(str, arguments)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0.02, 1.0)))
        child.kill()
        child.wait()
        child.stdout.close()
    again = make_take(request, CompositeBackend(), tmp_path / "killed" / "w" / "t")
    assert dataclasses.replace(again, video=whole.video) == whole


def test_matting_over_a_foreign_first_frame(bench, foreign):
    frames = list(CompositeBackend().generate(bench.request(variant=foreign)))
    assert np.array_equal(frames[0], read_frame(foreign / "frame.png"))
    for index, frame in enumerate(frames[1:], start=1):
        source = source_frame(bench.episode, "front", index)
        assert structure_f1(frame, source.rgb, source.robot_mask) >= 0.95, index
        same = (frame == frames[0]).all(-1)[still_region(bench, 0, index)]
        assert same.mean() > 0.6, index
    # The packet keeps the colours of the first frame when it is carried (red became blue there).
    masks = [source_frame(bench.episode, "front", k).mask("object:packet").astype(np.uint8) for k in (0, 6)]
    first, later = (frames[k][cv2.erode(m, np.ones((3, 3))) > 0].mean(0) for k, m in zip((0, 6), masks, strict=True))
    assert np.abs(later - first).max() < 30


def test_shadows_of_matting_fall_where_this_frame_s_depth_is(bench):
    first, later = (source_frame(bench.episode, "front", index) for index in (0, 6))
    matte = Matte(first, first.rgb)
    light = matte._shadow(later)
    assert light.min() < 0.95
    # The same picture of a scene five times as far away: everything lies beside the shadows.
    assert (matte._shadow(dataclasses.replace(later, depth_m=5 * later.depth_m)) > 0.999).all()


def test_the_wrist_camera_works_with_both_kinds_of_first_frame(bench, tmp_path):
    own = list(CompositeBackend().generate(bench.request("wrist", frames=4)))
    assert np.array_equal(own[0], read_frame(bench.variant("wrist") / "frame.png"))
    folder = make_foreign(bench.variant("wrist"), tmp_path / "foreign")
    other = list(CompositeBackend().generate(bench.request("wrist", variant=folder, frames=4)))
    for frames in (own, other):
        assert len(frames) == 4
        for index, frame in enumerate(frames):
            source = source_frame(bench.episode, "wrist", index)
            assert structure_f1(frame, source.rgb, source.robot_mask) >= 0.95, index


# Faults ------------------------------------------------------------------------------------------------------------


def test_windows_outside_the_episode_are_refused(bench, tmp_path):
    for changes in ({"frames": 11}, {"start": 10}, {"start": -1}, {"frames": 5, "start": 8}):
        with pytest.raises(TakeError, match="has 10 frames"):
            make_take(bench.request(**changes), CompositeBackend(), tmp_path / "t")


def test_missing_and_changed_inputs_are_named(bench, tmp_path):
    with pytest.raises(TakeError, match="skeleton hash"):
        make_take(bench.request(skeleton=tmp_path), CompositeBackend(), tmp_path / "t")
    with pytest.raises(VariantError, match="variant record"):
        make_take(bench.request(variant=tmp_path), CompositeBackend(), tmp_path / "t")
    folder = make_foreign(bench.root / "chips_conveyor/front", tmp_path / "changed")
    (folder / "frame.png").write_bytes(b"other")
    with pytest.raises(VariantError, match="was changed"):
        make_take(bench.request(variant=folder), CompositeBackend(), tmp_path / "t")
    small = np.zeros((10, 12, 3), np.uint8)
    cv2.imwrite(str(folder / "frame.png"), small)
    record = read_json(folder / "variant.json")
    write_json(folder / "variant.json", {**record, "frame_sha256": sha256_file(folder / "frame.png")})
    with pytest.raises(TakeError, match="12x10"):
        make_take(bench.request(variant=folder), CompositeBackend(), tmp_path / "t")
    assert not (tmp_path / "t" / "take.json").exists()


def test_a_damaged_take_is_noticed(bench, tmp_path):
    take = make_take(bench.request(frames=2), CompositeBackend(), tmp_path / "t")
    take.video.write_bytes(take.video.read_bytes()[:-7])
    with pytest.raises(TakeError, match="was changed"):
        open_take(tmp_path / "t")
    assert make_take(bench.request(frames=2), CompositeBackend(), tmp_path / "t") == take
    (tmp_path / "t/take.json").write_text("[]")
    with pytest.raises(TakeError, match="has schema 'list'"):
        open_take(tmp_path / "t")


def test_a_backend_that_stops_early_is_refused(bench, tmp_path):
    class Short(CompositeBackend):
        def generate(self, request, progress=lambda *a: None, check_cancel=lambda: None):
            yield next(super().generate(request))

    with pytest.raises(TakeError, match="made 1 frames; 3 were asked for"):
        make_take(bench.request(frames=3), Short(), tmp_path / "t")
    assert not (tmp_path / "t/take.mp4").exists()
