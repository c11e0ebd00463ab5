# SPDX-License-Identifier: Apache-2.0
"""Statistics, shares and times of a dataset, on samples so few that every number is told by counting."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import ExportError, InputError
from retake.core.export.canvas import Canvas, Tile, arrange
from retake.core.export.convert import UNITS, ConvertOptions, _retimed, _slices
from retake.core.export.mix import parse_source, shares
from retake.core.export.provenance import KINDS, column_kinds, record, uid_number
from retake.core.export.records import LanguageRows, Slice, Vector
from retake.core.export.sources import resized
from retake.core.export.split import Split, assign, parse_split
from retake.core.export.stats import ImageStats, merge, sampled_frames, vector_stats
from retake.core.export.urdf_out import rpy
from retake.core.geometry import axis_angle


def test_statistics_of_a_vector_are_values_of_the_sample():
    found = vector_stats(np.array([[4, 1], [1, 1], [3, 1], [2, 1]]))
    assert found == {
        "min": [1, 1], "max": [4, 1], "mean": [2.5, 1], "std": [pytest.approx(np.sqrt(1.25)), 0], "count": [4],
        "q01": [1, 1], "q10": [1, 1], "q50": [2, 1], "q90": [4, 1], "q99": [4, 1],
    }  # fmt: skip
    assert vector_stats(np.array([7.0]))["q99"] == [7]
    assert vector_stats(np.arange(10.0))["q90"] == [8]


def test_pictures_for_statistics_are_all_of_a_short_episode_and_fewer_of_a_long_one():
    for length, count in ((1, 1), (99, 99), (100, 100), (101, 100), (463, 100), (1000, 177), (300_000, 10_000)):
        found = sampled_frames(length)
        assert len(found) == count
        assert {min(found), max(found)} == {0, length - 1}


def test_statistics_of_pictures_are_those_of_their_pixels():
    stats = ImageStats(2)
    for value in (0, 255):
        frame = np.zeros((2, 2, 3), np.uint8)
        frame[0, 0] = (value, 51, 102)
        frame[..., 2] = 102
        stats.add(frame)
    red, green, blue = ({k: np.ravel(v) for k, v in stats.result().items()} for _ in range(3))
    # Red: seven zeros and one 255; green: six zeros and two 51; blue: 102 alone.
    assert [red[k][0] for k in ("min", "max", "mean", "q50", "q90")] == [0, 1, 0.125, 0, 1]
    assert red["std"][0] == pytest.approx(np.sqrt(7 / 64))
    assert [green[k][1] for k in ("min", "max", "q50", "q90")] == pytest.approx([0, 0.2, 0, 0.2])
    assert green["mean"][1] == pytest.approx(0.05)
    assert [blue[k][2] for k in ("min", "max", "mean", "q01", "q99")] == pytest.approx([0.4] * 5)
    assert red["count"] == [2]
    assert np.shape(stats.result()["mean"]) == (3, 1, 1)
    half = ImageStats(1)
    half.add(np.repeat(np.array([10, 20], np.uint8), 3).reshape(1, 2, 3))
    assert np.ravel(half.result()["q50"])[0] == pytest.approx(10 / 255), "half of the pixels are that dark"


@pytest.mark.parametrize(
    ("width", "height", "step"), [(299, 4, 1), (300, 4, 2), (4, 300, 2), (449, 4, 2), (450, 4, 3), (300, 300, 2)]
)
def test_large_pictures_are_looked_at_in_steps(width, height, step):
    rows, columns = np.indices((height, width))
    frame = np.where((rows % step == 0) & (columns % step == 0), 100, 200)[..., None].repeat(3, -1).astype(np.uint8)
    stats = ImageStats(1)
    stats.add(frame)
    assert np.ravel(stats.result()["max"])[0] == pytest.approx(100 / 255)


def test_of_a_long_episode_only_sampled_pictures_enter():
    stats, wanted = ImageStats(150), sampled_frames(150)
    for k in range(150):
        stats.add(np.full((1, 1, 3), 10 if k in wanted else 250, np.uint8))
    found = stats.result()
    assert found["count"] == [100]
    assert np.ravel(found["max"])[0] == pytest.approx(10 / 255)


def one(count, mean, std, low, median, high):
    values = {"min": low, "max": high, "mean": mean, "std": std, "count": count, "q01": low + 1, "q10": low + 1,
              "q50": median, "q90": high - 1, "q99": high - 1}  # fmt: skip
    return {name: [value] for name, value in values.items()}


def test_merged_statistics_weigh_by_count():
    """Means 0 of one and 4 of three: 3; variances (1 · (0 + 9) + 3 · (4 + 1)) / 4 = 6; medians 0 and 8: 6."""
    first, second = one(1, 0.0, 0.0, -5, 0, 3), one(3, 4.0, 2.0, -2, 8, 9)
    for order in ([first, second], [second, first]):
        found = merge(lambda own=order: ({"x": s} for s in own))["x"]
        assert found == {
            "min": [-5], "max": [9], "mean": [3], "std": [pytest.approx(np.sqrt(6))], "count": [4],
            "q01": [-4], "q10": [-4], "q50": [6], "q90": [8], "q99": [8],
        }  # fmt: skip
        assert list(found) == ["min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"]
    apart = merge(lambda: iter([{"x": first}, {"y": second}]))
    assert (apart["x"]["count"], apart["y"]["mean"]) == ([1], [4])


def test_further_cameras_stand_below_the_first_in_cells_of_half_its_size():
    sizes = {"a": (640, 480), "hand": (640, 480), "b": (320, 180), "c": (100, 200)}
    found = arrange(sizes, "hand")
    assert found == Canvas(
        (640, 960),
        (Tile("hand", 0, 0, 640, 480), Tile("a", 0, 480, 320, 240), Tile("b", 320, 510, 320, 180),
         Tile("c", 100, 720, 120, 240)),
    )  # fmt: skip
    assert arrange({"hand": (641, 481), "a": (2, 2)}, "hand").size == (642, 722)
    assert arrange({"hand": (640, 480), "a": (2000, 2)}, "hand").tiles[1] == Tile("a", 0, 599, 320, 1)
    with pytest.raises(ExportError, match="here is hand alone"):
        arrange({"hand": (640, 480)}, "hand")
    pictures = {"hand": np.full((4, 6, 3), 9, np.uint8), "a": np.full((2, 2, 3), 7, np.uint8)}
    placed = arrange({"hand": (6, 4), "a": (2, 2)}, "hand").place(pictures)
    assert placed.shape == (6, 6, 3)
    assert placed[..., 0].tolist() == [*[[9] * 6] * 4, *[[7, 7, 0, 0, 0, 0]] * 2]


def test_a_picture_is_averaged_when_it_shrinks_and_drawn_out_when_it_grows():
    frame = np.array([[0, 100, 20, 40], [200, 100, 60, 80]], np.uint8)[..., None].repeat(3, -1)
    assert resized(frame, (4, 2)) is frame
    assert resized(frame, (2, 1))[..., 0].tolist() == [[100, 50]]
    assert resized(frame, (2, 2))[..., 0].tolist() == [[50, 30], [150, 70]]
    grown = resized(frame, (8, 2))[0, :, 0].tolist()
    assert grown == [0, 25, 75, 80, 40, 25, 35, 40], "a quarter of the way from one middle to the next"
    assert resized(frame, (2, 4)).shape == (4, 2, 3)


def test_shares_are_rounded_to_the_largest_remainders():
    assert shares([0.9, 0.1], [90, 20], None) == [90, 10]
    assert shares([0.9, 0.1], [180, 5], None) == [45, 5]
    assert shares([0.5, 0.3, 0.2], [9, 9, 9], 11) == [6, 3, 2]
    assert shares([0.25, 0.25, 0.5], [9, 9, 9], 5) == [1, 1, 3]
    assert shares([0.4, 0.4, 0.2], [99, 99, 99], 4) == [2, 1, 1]
    assert shares([1.0], [3], 1) == [1]
    assert shares([1.0], [3], None) == [3]
    with pytest.raises(ExportError, match="a source has no episodes"):
        shares([0.5, 0.5], [3, 0], None)
    with pytest.raises(ExportError, match=r"1 episodes are too few for weights \[0\.9, 0\.1\]"):
        shares([0.9, 0.1], [1, 5], None)
    with pytest.raises(InputError, match="--episodes 0"):
        shares([1.0], [3], 0)
    with pytest.raises(ExportError, match=r"1 episodes are too few .*take at least 10"):
        shares([0.9, 0.1], [3, 3], 1)


@pytest.mark.parametrize(
    ("text", "told"), [("real=a/b:0.9", ("real", "a/b", 0.9)), ("x=C:/d:1", ("x", "C:/d", 1.0)), ("x=a:1.01", None),
                       ("x=a:0", None), ("=a:0.5", None), ("x=:0.5", None), ("x=a", None), ("x=a:b", None)]
)  # fmt: skip
def test_a_source_of_a_mixture_is_a_name_a_folder_and_a_weight(text, told):
    if told is None:
        with pytest.raises(InputError, match="expected NAME=DIR:WEIGHT"):
            parse_source(text)
    else:
        found = parse_source(text)
        assert (found.name, found.path.as_posix(), found.weight) == told


def test_words_stand_on_the_frame_nearest_in_time():
    said = [({"n": k},) for k in range(6)]
    rows = LanguageRows(({"timestamp": 0.1}, {"timestamp": float(np.float32(5 / 30))}), dict(enumerate(said)))
    found = _retimed(rows, 30, 15, 3)
    assert {frame: [r["n"] for r in said] for frame, said in found.events.items()} == {0: [0], 1: [1, 2], 2: [3, 4, 5]}
    assert [r["timestamp"] for r in found.persistent] == [float(np.float32(2 / 15))] * 2
    assert [*_retimed(rows, 30, 60, 99).events] == [0, 2, 4, 6, 8, 10]
    assert _retimed(rows, 30, 30, 3) is rows


ARM, HAND = Slice("arm", 0, 3, "arm", "rad", "r"), Slice("gripper", 3, 4, "gripper", "0..1", "r")
OLD = Vector("float32", ("a", "b", "c", "g"))


@pytest.mark.parametrize(
    ("names", "found"),
    [(("a", "b", "c", "g"), [("arm", 0, 3), ("gripper", 3, 4)]), (("b", "g"), [("arm", 0, 1), ("gripper", 1, 2)]),
     (("g", "c", "B"), [("gripper", 0, 1), ("arm", 1, 3)]),
     (("a", "g", "c"), [("arm", 0, 1), ("gripper", 1, 2), ("arm_2", 2, 3)]),
     (("a", "other"), [])],
)  # fmt: skip
def test_slices_follow_the_entries_that_stay(names, found):
    told = _slices((ARM, HAND), OLD, Vector("float32", names), {"b": "B"} if "B" in names else {})
    assert [(s.name, s.start, s.end) for s in told] == found
    assert _slices((ARM, HAND), OLD, None, {}) == _slices((), OLD, OLD, {}) == _slices((ARM,), None, OLD, {}) == ()


def test_units_are_brought_to_rad_metres_and_openness():
    numbers = {"deg": (180, np.pi), "mm": (250, 0.25), "0..100": (30, 0.3), "100..0": (30, 0.7), "1..0": (0.2, 0.8)}
    for unit, (number, told) in {**numbers, "rad": (2, 2), "m": (2, 2), "0..1": (0.4, 0.4)}.items():
        scale, shift = UNITS[unit]
        assert number * scale + shift == pytest.approx(told)
    assert ConvertOptions(fps=1).fps == 1
    with pytest.raises(InputError, match="--fps 0"):
        ConvertOptions(fps=0)
    with pytest.raises(InputError, match=r"retake import lerobot"):
        ConvertOptions(units={"a": "-100..100"})


def test_what_does_not_fit_a_column_of_provenance_is_none():
    def of(**values):
        return {k: v for k, v in record(values).items() if k in values}

    assert of(seed=2**63 - 1, steps="7") == {"seed": 2**63 - 1, "steps": 7}
    assert of(seed=2**63, steps="x", first_frame_seed=-(2**63)) == {
        "seed": None,
        "steps": None,
        "first_frame_seed": -(2**63),
    }
    assert of(guidance=float("inf"), resize_sx="0.5") == {"guidance": None, "resize_sx": 0.5}
    assert of(accepted=1, world=3, prompt="\ud800") == {"accepted": True, "world": "3", "prompt": "\\ud800"}
    full = record({}, {"b": 2, "a": None})
    assert [*full] == [*KINDS, "verdict/a", "verdict/b"]
    assert (full["verdict/a"], full["verdict/b"]) == (None, 2.0)
    assert all(v is None for k, v in full.items() if k in KINDS)
    with pytest.raises(KeyError, match="nobody"):
        record({"nobody": 1})
    assert [*column_kinds([{"verdict/z": 1.0}, {"verdict/c": 2.0, "run": "x"}])][len(KINDS) :] == [
        "verdict/c",
        "verdict/z",
    ]
    assert uid_number("u") == int(hashlib.sha256(b"u").hexdigest()[:13], 16) < 2**52


@given(st.integers(0, 999), st.integers(0, 99), st.floats(0.01, 0.99))
def test_a_trajectory_is_held_out_by_its_hash_and_the_seed_alone(name, seed, share):
    draw = int(hashlib.sha256(f"{seed}:t{name}".encode()).hexdigest()[:16], 16) / 2**64
    assert Split(share, seed=seed).of(f"t{name}") == ("val" if draw < share else "train")


def test_what_is_held_out_is_said_as_a_share_or_by_runs():
    assert parse_split("val=0.25", 3) == Split(0.25, seed=3)
    assert parse_split("val=@a, b,", 3) == Split(val_runs=("a", "b"), seed=3)
    assert parse_split(None, 3) == Split(seed=3)
    for text in ("val=0", "val=1", "train=0.5", "val=x", "val=@", "train=@a"):
        with pytest.raises(InputError, match="expected val=SHARE"):
            parse_split(text)
    assert (Split().active, Split(0.1).active, Split(val_runs=("a",)).active) == (False, True, True)
    held = [("t", "a"), ("t", "b"), ("u", "b")]
    for order in (held, held[::-1]):
        assert assign(order, Split(val_runs=("a",))) == {"t": "val", "u": "train"}


@given(st.floats(-3, 3), st.sampled_from([-np.pi / 2, -1.2, 0.0, 0.4, np.pi / 2]), st.floats(-3, 3))
def test_roll_pitch_and_yaw_give_the_rotation_back_at_the_poles_too(roll, pitch, yaw):
    x, y, z = np.eye(3)

    def turned(r, p, w):
        return axis_angle(z, w) @ axis_angle(y, p) @ axis_angle(x, r)

    R = turned(roll, pitch, yaw)
    found = rpy(R)
    assert turned(*(np.float64(v) for v in found)) == pytest.approx(R, abs=1e-6)
    assert found[1] == pytest.approx(pitch, abs=1e-6)
