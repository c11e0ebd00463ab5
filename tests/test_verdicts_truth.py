# SPDX-License-Identifier: Apache-2.0
"""What is known of a drawn label image: where a part is, how large it is, where its outline runs and what lies beyond;
what stands still; where a lens shows a pinhole's pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.episode import Episode, EpisodeWriter
from retake.core.episode.motion import motion_px
from retake.core.episode.parts import RigidPart, rigid_parts
from retake.core.episode.records import CameraFrame, CameraSpec, EpisodeHeader, Frame, Instance, ObjectSpec
from retake.core.errors import VerdictError
from retake.core.verdicts import truth
from retake.core.verdicts.truth import BINS, Contour, Truth, read_truth

HEIGHT, WIDTH = 80, 100


def read(labels: np.ndarray, count: int = 2, scale: float = 1.0) -> tuple[Contour, np.ndarray, np.ndarray]:
    centroid, area = np.full((count, 2), np.nan), np.zeros(count)
    return truth._contour(labels, count, scale, centroid, area), centroid, area


def box(rows: slice, columns: slice, label: int = 1) -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH), np.uint8)
    out[rows, columns] = label
    return out


@given(st.integers(0, 70), st.integers(0, 90), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1.0, 0.5]))
def test_a_part_is_where_its_pixels_are_and_as_large(y: int, x: int, high: int, wide: int, scale: float) -> None:
    _, centroid, area = read(box(slice(y, y + high), slice(x, x + wide), 2), scale=scale)
    assert area == pytest.approx([0, scale**2 * high * wide])
    assert np.isnan(centroid[0]).all()
    corner = np.array([x + wide / 2, y + high / 2])  # of its middle, counted from the picture's corner
    assert centroid[1] == pytest.approx(scale * corner - 0.5)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_outline_of_a_box_runs_between_its_last_pixels_and_the_next(scale: float) -> None:
    found, _, _ = read(box(slice(20, 40), slice(30, 60)), scale=scale)
    x, y = ((found.xy + 0.5) / scale).T  # counted from the picture's corner: the box lies between 30 and 60, 20 and 40
    for side, normal, at, end in (
        (found.normal[:, 0] < -0.99, (-1, 0), x, 30),
        (found.normal[:, 0] > 0.99, (1, 0), x, 60),
        (found.normal[:, 1] < -0.99, (0, -1), y, 20),
        (found.normal[:, 1] > 0.99, (0, 1), y, 40),
    ):
        assert side.sum() > 8
        assert at[side] == pytest.approx(end, abs=0.1)
        assert (found.bin[side] == (0 if normal[0] else BINS // 2)).all()
    assert found.silhouette.all()
    assert (found.part == 0).all()
    assert np.linalg.norm(found.normal, axis=1) == pytest.approx(1, abs=1e-5)


def test_directions_go_through_half_a_turn() -> None:
    v, u = np.indices((HEIGHT, WIDTH))
    found, _, _ = read(((u - 50) ** 2 + (v - 40) ** 2 <= 30**2).astype(np.uint8))
    angle = np.arctan2(found.xy[:, 1] - 40, found.xy[:, 0] - 50) % np.pi
    apart = np.abs(angle - found.bin * np.pi / BINS)
    assert (np.minimum(apart, np.pi - apart) < np.pi / BINS / 2 + 0.1).all()
    assert set(found.bin.tolist()) == set(range(BINS))
    assert np.hypot(*(found.xy - [50, 40]).T) == pytest.approx(30.05, abs=0.5)


def test_beyond_an_outline_lies_scenery_or_another_part() -> None:
    labels = box(slice(20, 40), slice(20, 40)) + box(slice(20, 40), slice(40, 60), 2)
    found, centroid, area = read(labels)
    assert area.tolist() == [400, 400]
    assert centroid == pytest.approx(np.array([[29.5, 29.5], [49.5, 29.5]]))
    for part, inwards in ((0, 1.0), (1, -1.0)):
        mine = found.part == part
        between = mine & (found.normal[:, 0] * inwards > 0.99)
        outside = mine & (found.normal[:, 0] * inwards < -0.99)
        assert between.sum() > 8
        assert outside.sum() > 8
        assert not found.silhouette[between].any()
        assert found.silhouette[outside].all()
    assert (np.diff(found.part.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("first", "other", "silhouette"), [(20, 43, True), (20, 42, False), (77, 99, False), (77, 100, True)]
)
def test_what_is_three_px_beyond_an_outline_is_what_lies_there(first: int, other: int, silhouette: bool) -> None:
    """Up to the last column of the picture."""
    found, _, _ = read(box(slice(20, 40), slice(first, first + 20)) + box(slice(15, 45), slice(other, other + 9), 2))
    right = (found.part == 0) & (found.normal[:, 0] > 0.99)
    assert right.sum() > 8
    assert (found.silhouette[right] == silhouette).all()


def test_three_px_at_the_border_have_no_outline() -> None:
    for rows, columns, axis, most in (
        (slice(0, HEIGHT), slice(40, 60), 1, HEIGHT),
        (slice(30, 50), slice(0, WIDTH), 0, WIDTH),
    ):
        found, _, area = read(box(rows, columns))
        along = found.xy[:, axis]
        assert area[0] == 20 * most
        assert along.min() == pytest.approx(3, abs=1e-3)
        assert along.max() == pytest.approx(most - 4, abs=1e-3)


def test_nothing_has_no_outline() -> None:
    for labels in (box(slice(0), slice(0)), box(slice(0, 2), slice(0, 2))):
        found, _, _ = read(labels)
        assert [len(values) for values in (found.xy, found.bin, found.normal, found.part, found.silhouette)] == [0] * 5
        assert found.xy.shape == found.normal.shape == (0, 2)


@given(st.lists(st.integers(1, 250), min_size=1, max_size=4), st.integers(0, 9))
def test_of_many_points_ninety_of_each_part_are_kept_from_the_first_to_the_last(
    counts: list[int], left_out: int
) -> None:
    part = np.repeat(np.arange(len(counts)) * 2, np.array(counts) + left_out)
    kept = np.concatenate([np.flatnonzero(part == 2 * k)[: counts[k]] for k in range(len(counts))])
    chosen = truth._spread(part, kept)
    assert set(chosen) <= set(kept)
    assert (np.diff(chosen) > 0).all()
    for k, count in enumerate(counts):
        mine, own = chosen[part[chosen] == 2 * k], kept[part[kept] == 2 * k]
        assert len(mine) == min(count, 90)
        assert (mine[0], mine[-1]) == (own[0], own[-1])
        assert np.diff(np.searchsorted(own, mine)).max(initial=1) <= -(-count // 89)


@pytest.mark.parametrize("largest", [0, 7, 255, 256, 300, 65535])
def test_ids_get_their_entry_whatever_their_size(largest: int) -> None:
    table = (np.arange(65536) % 251).astype(np.uint8)
    ids = np.array([[0, largest], [largest // 2, 1]], np.uint16)
    assert truth.renumbered(ids, table).tolist() == table[ids].tolist()


@pytest.mark.parametrize(("metres", "static"), [(0.0, True), (0.9e-4, True), (1.1e-4, False)])
def test_a_camera_stands_still_within_a_tenth_of_a_millimetre(metres: float, static: bool) -> None:
    T = np.tile(np.eye(4), (5, 1, 1))
    T[2, 0, 3] = -metres
    assert truth.is_static(T) == static


def known(parts: tuple[RigidPart, ...] = (), **given: Any) -> Truth:
    """Of eleven frames."""
    eye = np.tile(np.eye(4), (11, 1, 1))
    labels = np.zeros((11, 4, 6), np.uint8)
    labels[:, 0, :4] = [0, 1, 2, 3]
    fields: dict[str, Any] = {
        "parts": parts, "fps": 15.0, "static_camera": True, "size": (6, 4), "scale": 0.5, "px": 2.0, "labels": labels,
        "contours": (), "centroid": np.zeros((11, 3, 2)), "area": np.ones((11, 3)), "K": eye[:, :3, :3],
        "T_camera_world": eye, "T_world_part": np.tile(np.eye(4), (11, 3, 1, 1)), "openness": np.zeros((11, 0)),
        "start": 0, "stills": (), "still_labels": labels[0],
    }  # fmt: skip
    return Truth(**{**fields, **given})


@pytest.mark.parametrize(
    ("places", "turns", "still"),
    [
        ({}, {}, True),
        ({3: 0.014}, {}, True),
        ({3: 0.016}, {}, False),
        ({3: 0.0029, 5: -0.0029}, {}, True),
        ({3: 0.0031, 5: 0.0031}, {}, False),
        ({}, {3: 0.2}, True),
        ({}, {3: 0.031, 4: 0.031}, False),
        ({}, {3: 0.029, 4: 0.029}, True),
    ],
)
def test_a_part_stands_still_but_for_one_frame_in_ten(
    places: dict[int, float], turns: dict[int, float], still: bool
) -> None:
    """Of eleven frames the ninth tenth is the second largest."""
    poses = np.tile(np.eye(4), (11, 3, 1, 1))
    for t, metres in places.items():
        poses[t, 1, 1, 3] = metres
    for t, turn in turns.items():
        poses[t, 1, 0, 1], poses[t, 1, 1, 0] = -turn, turn
    assert known(T_world_part=poses).is_still(1) == still
    assert known(T_world_part=poses).is_still(0)


def parts() -> tuple[RigidPart, ...]:
    fields = RigidPart.__dataclass_fields__
    blank = {name: 0 for name in fields}
    return tuple(
        RigidPart(**{**blank, "name": name, "robot": robot})
        for name, robot in (("box", ""), ("link", "arm"), ("tin", ""))
    )  # type: ignore[arg-type]


def test_parts_are_robots_or_objects_and_have_their_pixels() -> None:
    one = known(parts())
    assert (len(one), one.robot_parts, one.object_parts) == (11, [1], [0, 2])
    assert np.argwhere(one.robot_mask(4)).tolist() == [[0, 2]]
    assert np.argwhere(one.others(4, 1)).tolist() == [[0, 1], [0, 3]]


def test_a_lens_bends_pixels_as_counted_from_the_corner_of_the_picture() -> None:
    """A lens that doubles what lies beside the middle: of a pixel's place in units of the focal length."""
    K = np.tile(np.array([[20.0, 0, 30], [0, 10, 15], [0, 0, 1]]), (11, 1, 1))
    points = np.array([[33.5, 20.5], [29.5, 14.5]])

    def bend(one: np.ndarray, place: np.ndarray) -> np.ndarray:
        return one[:2, 2] + 2 * (place - one[:2, 2])

    lens: Any = SimpleNamespace(undistort=lambda rays: rays / 2, bend=bend)
    bent = known(K=K, lens=lens)
    assert bent.ideal(3, points) == pytest.approx(np.array([[31.5, 17.5], [29.5, 14.5]]))
    assert bent.seen(3, points) == pytest.approx(np.array([[37.5, 26.5], [29.5, 14.5]]))
    plain = replace(bent, lens=None)
    assert plain.ideal(3, points) is points
    assert plain.seen(3, points) is points


def test_objects_that_cannot_move_are_numbered_in_order() -> None:
    def spec(name: str, movable: bool) -> Any:
        return SimpleNamespace(name=name, movable=movable)

    owners = {3: "object:tray", 4: "object:packet", 9: "object:rack", 12: "object:tray", 5: "robot:rack", 7: ""}
    header: Any = SimpleNamespace(
        objects=[spec("tray", False), spec("packet", True), spec("unseen", False), spec("rack", False)],
        instances=[SimpleNamespace(id=k, owner=owner) for k, owner in owners.items()],
    )
    names, table = truth._stills(header)
    assert names == ("tray", "rack")
    assert {int(k): int(table[k]) for k in np.flatnonzero(table)} == {3: 1, 12: 1, 9: 2}


def crowd(folder: Path, count: int, *, movable: bool = True) -> Episode:
    """One frame of 20 columns in which every pixel shows a thing of its own."""
    things = [ObjectSpec(f"thing_{k}", f"/Thing_{k}", "thing", (0.1, 0.1, 0.1), movable=movable) for k in range(count)]
    seen = tuple(Instance(k + 1, f"/Thing_{k}", "thing", f"object:thing_{k}") for k in range(count))
    size = (20, -(-count // 20))
    camera = CameraSpec("front", "/Camera", size, True, ("rgb", "depth", "instances"))
    header = EpisodeHeader("t", 10, 0.1, (), (camera,), tuple(things), seen, joint_channels=())
    ids = np.resize(np.arange(1, count + 1, dtype=np.uint16), size[::-1])
    view = CameraFrame(
        np.array([[20.0, 0, 10], [0, 20, 5], [0, 0, 1]]), np.eye(4), np.zeros((*ids.shape, 3), np.uint8),
        np.ones(ids.shape, np.float32), None, ids,
    )  # fmt: skip
    with EpisodeWriter(folder, header) as writer:
        for k in range(2):
            poses = np.tile(np.eye(4), (count, 1, 1))
            poses[:, 0, 3] = k * np.arange(count) / 1000
            writer.append(Frame(0.1 * k, (), poses, (view,)))
        return writer.finish()


@pytest.mark.parametrize("count", [254, 255, 256, 400])
def test_more_parts_than_eight_bits_move_each_by_itself(tmp_path: Path, count: int) -> None:
    episode = crowd(tmp_path / "episode", count)
    parts, table, _ = rigid_parts(episode)
    assert [parts[int(table[k + 1]) - 1].name for k in range(count)] == [f"thing_{k}" for k in range(count)]
    moved = motion_px(episode, "front", 0, 1)[..., 0].ravel()[:count]
    assert moved == pytest.approx(20 * np.arange(count) / 1000, abs=1e-3)


@pytest.mark.parametrize("movable", [True, False])
def test_more_parts_than_a_verdict_tells_apart_are_refused_in_words(tmp_path: Path, movable: bool) -> None:
    most = read_truth(crowd(tmp_path / "most", truth.MOST_PARTS, movable=movable), "front", 0, 2)
    assert (most.labels if movable else most.still_labels).max() == truth.MOST_PARTS
    with pytest.raises(VerdictError, match=r"255 .*tells 254 of"):
        read_truth(crowd(tmp_path / "more", truth.MOST_PARTS + 1, movable=movable), "front", 0, 2)
