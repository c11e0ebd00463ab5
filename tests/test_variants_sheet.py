# SPDX-License-Identifier: Apache-2.0
"""The contact sheet shows every frame in its place with its name below; the table says what was delivered, what not, and why."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retake.core.errors import VariantError
from retake.core.variants import sheet
from retake.core.variants.sheet import BAR_PX, GAP_PX, contact_sheet, gate_table

BACK, FONT = 24, cv2.FONT_HERSHEY_SIMPLEX


def plain(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), (40 + 10 * number, 200 - 10 * number, 120), np.uint8)


def place_of(picture: np.ndarray, colour: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((picture == colour).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize(("count", "columns", "width"), [(1, 6, 80), (5, 3, 80), (6, 6, 60), (7, 2, 50)])
def test_frames_stand_in_rows_with_a_gap_and_a_bar_between(count, columns, width):
    frames = [(f"w{k}", plain(k, (160, 120))) for k in range(count)]
    found = contact_sheet(frames, columns=columns, width=width)
    height, across = round(width * 0.75), min(columns, count)
    rows = -(-count // across)
    step_x, step_y = width + GAP_PX, height + BAR_PX + GAP_PX
    assert found.shape == (rows * step_y + GAP_PX, across * step_x + GAP_PX, 3)
    for k, (_, frame) in enumerate(frames):
        x, y = GAP_PX + (k % across) * step_x, GAP_PX + (k // across) * step_y
        assert place_of(found, frame[0, 0]) == (x, y, x + width, y + height)
        bar = found[y + height : y + height + BAR_PX, x : x + width]
        lit = np.argwhere((bar != BACK).any(-1))
        assert len(lit) > 10, "the name is below"
        assert lit[:, 0].max() < BAR_PX - 3
        if width >= 60:  # written two pixels from the left, six above the bar's end
            wanted = cv2.putText(
                np.full_like(bar, BACK), f"w{k}", (2, BAR_PX - 6), FONT, 0.4, (225, 225, 225), 1, cv2.LINE_AA
            )
            assert np.array_equal(bar, wanted)
    assert (found[:GAP_PX] == BACK).all()
    assert (found[:, :GAP_PX] == BACK).all()


@pytest.mark.parametrize(("size", "inside"), [((120, 160), (45, 60)), ((320, 120), (80, 30)), ((160, 120), (80, 60))])
def test_a_camera_of_another_shape_stands_in_the_middle_of_its_cell(size, inside):
    frames = [("a", plain(0, (160, 120))), ("b", plain(1, size))]
    found = contact_sheet(frames, columns=2, width=80)
    left, top, right, bottom = place_of(found, frames[1][1][0, 0])
    assert (right - left, bottom - top) == inside
    assert left + right == pytest.approx(2 * (2 * GAP_PX + 80) + 80, abs=1)
    assert top + bottom == pytest.approx(2 * GAP_PX + 60, abs=1)


def test_a_long_name_is_written_small_enough():
    found = contact_sheet([("a" * 60, plain(0, (160, 120))), ("b", plain(1, (160, 120)))], columns=2, width=80)
    bar = found[GAP_PX + 60 : GAP_PX + 60 + BAR_PX, GAP_PX + 80 : 2 * GAP_PX + 80]
    assert (bar == BACK).mean() > 0.9
    with pytest.raises(VariantError, match="no frames"):
        contact_sheet([])


@pytest.mark.parametrize(
    ("count", "given", "group", "columns", "width"),
    [(1, {}, 1, 1, 320), (4, {}, 1, 4, 320), (5, {}, 1, 5, 320), (40, {}, 1, 7, 285), (12, {}, 2, 4, 320),
     (3, {}, 4, 4, 320), (9, {"columns": 3, "width": 100}, 1, 3, 100), (100, {}, 1, 11, 181), (300, {}, 1, 19, 105)],
)  # fmt: skip
def test_a_sheet_is_wide_enough_for_its_frames_and_at_most_2000_px(
    monkeypatch, tmp_path, count, given, group, columns, width
):
    asked = {}

    def made(frames, **how):
        asked.update(how, names=[name for name, _ in frames])
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(sheet, "contact_sheet", made)
    monkeypatch.setattr(sheet, "read_frame", lambda path: path)
    variants = [type("V", (), {"id": f"v{k}"})() for k in range(count)]
    sheet.write_sheet(variants, tmp_path, tmp_path / "sheet.png", group=group, **given)
    assert (asked["columns"], asked["width"]) == (columns, width)
    assert asked["names"] == [v.id for v in variants]
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_how_different_worlds_are_is_told_with_the_nearest_pairs(monkeypatch, tmp_path):
    monkeypatch.setattr(sheet, "read_frame", lambda path: path)
    table = np.array([[0, 5, 2, 9], [5, 0, 7, 1], [2, 7, 0, 4], [9, 1, 4, 0.0]])
    monkeypatch.setattr(sheet, "distances", lambda frames: table[: len(frames), : len(frames)])
    monkeypatch.setattr(sheet, "coverage", lambda worlds, catalogue: {"worlds": worlds})
    variants = [type("V", (), {"id": f"v{k}", "world": k})() for k in range(4)]
    found = sheet.diversity(variants, tmp_path)
    assert found == {
        "variants": 4, "pair_distance": {"min": 1.0, "median": 4.5, "mean": pytest.approx(28 / 6)},
        "nearest": [["v3", "v1", 1.0], ["v2", "v0", 2.0], ["v3", "v2", 4.0]], "coverage": {"worlds": [0, 1, 2, 3]},
    }  # fmt: skip
    alone = sheet.diversity(variants[:1], tmp_path)
    assert (alone["pair_distance"], alone["nearest"]) == ({"min": None, "median": None, "mean": None}, [])


def record(**change):
    def entry(value, failed):
        checks = [
            {"name": "edges", "limit": ">= 0.85", "value": value},
            {"name": "tone", "limit": "<= 0.2", "value": 0.12345},
        ]
        return {"seed": 7, "failed": failed, "checks": checks}

    return {
        "gate": True, "delivered": {"a/front": entry(0.98765, []), "b/front": entry(0.9, [1, 2])},
        "missing": {"c": {"failed": [1, 2, 3], "cameras": {"c/front": ["too dark", "blurred"], "c/wrist": ["moved"]}}},
        "diversity": {"variants": 2, "pair_distance": {"min": 4.25, "median": 9.75}, "nearest": [["a", "b", 4.25]],
                      "coverage": {"surface": {"wood": 2, "steel": 0, "oak": 1}}}, **change,
    }  # fmt: skip


def test_the_table_of_the_gate_word_for_word():
    assert gate_table(record()).splitlines() == [
        "# Variants", "", "2 of 4 delivered.", "",
        "| missing | attempts | the last failed for |", "|---|---|---|",
        "| c/front | 3 | too dark; blurred |", "| c/wrist | 3 | moved |", "",
        "| world | seed | attempt | edges >= 0.85 | tone <= 0.2 |", "|---|---|---|---|---|",
        "| a/front | 7 | 1 | 0.988 | 0.123 |", "| b/front | 7 | 3 | 0.9 | 0.123 |", "",
        "Difference of two worlds (mean 8-bit difference of 32x24 Lab thumbnails): nearest 4.2 (a, b), median 9.8.", "",
        "| axis | values that occur |", "|---|---|", "| surface | wood 2, oak 1 |",
    ]  # fmt: skip
    bare = gate_table(record(gate=False, missing={}, diversity={**record()["diversity"], "variants": 1}))
    assert "2 of 2 delivered. Nothing was measured: the gate was off." in bare
    assert "missing" not in bare
    assert "Difference" not in bare
    none = gate_table(record(delivered={}, diversity={}))
    assert none.startswith("# Variants\n\n0 of 2 delivered.\n")
    assert "| world" not in none
