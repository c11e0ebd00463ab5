# SPDX-License-Identifier: Apache-2.0
"""The page of a robustness analysis: every number stands where it belongs, and bars are as long as their numbers."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.robustness.analysis import SIGNIFICANCE
from retake.core.robustness.report import Picture, data_uri, write_report


def axis(name: str = "light", **change: Any) -> dict[str, Any]:
    return {
        "axis": name, "values": 3, "explained": 0.4, "effect": 0.1234, "p_value": SIGNIFICANCE / 2, "worst_value": "neon",
        "weakness": False, "confounded_with": [], **change,
    }  # fmt: skip


def world(name: str, divergence: float, per_frame: list[float]) -> dict[str, Any]:
    return {"run": "r<1>", "world": name, "divergence": divergence, "truth_error": 0.5, "per_frame": per_frame}


def content(**change: Any) -> dict[str, Any]:
    return {
        "policy": "a & b", "windows": 1, "frames_per_window": 5, "verdict": "Weak to light.", "sim_error": 0.25, "noise": 0.01,
        "score": {"value": 60.0, "low": 50.0, "high": 75.5}, "axes": [axis()], "action_entries": ["x", "grip"],
        "left_out": [], "worlds": [world("w0", 0.2, [0.1, 0.4]), world("w1", 0.4, [0.0, 0.2, 0.4])], **change,
    }  # fmt: skip


def page(tmp_path: Path, pictures: tuple[Picture, ...] = (), **change: Any) -> str:
    write_report(tmp_path / "report.html", content(**change), pictures)
    return (tmp_path / "report.html").read_text("utf-8")


def test_what_was_asked_is_said_in_the_singular_and_in_the_plural(tmp_path: Path) -> None:
    assert "2 takes over 1 simulated window, 5 frames each" in page(tmp_path)
    assert "2 takes over 3 simulated windows, 5 frames each" in page(tmp_path, windows=3)
    text = page(tmp_path, left_out=["yaw"])
    assert "<h1>Robustness of a &amp; b</h1>" in text
    assert "Entries compared: x, grip.\n Left out, because the demonstrations do not move them: yaw." in text
    assert "Left out" not in page(tmp_path)
    assert "error to the true actions is 0.250; asked the same thing twice it differs from itself by 0.0100" in text


@pytest.mark.parametrize(
    ("value", "colour"), [(100.0, "good"), (80.0, "good"), (79.9, "bar"), (50.0, "bar"), (49.9, "warn"), (0.0, "warn")]
)
def test_a_score_has_its_colour_and_its_place_on_the_ruler(tmp_path: Path, value: float, colour: str) -> None:
    low, high = max(value - 10, 0), min(value + 10, 100)
    text = page(tmp_path, score={"value": value, "low": low, "high": high})
    assert f"<b style='color:var(--{colour})'>{value:.0f}</b>" in text
    assert f"95 % interval {low:.1f} to {high:.1f}" in text
    start, end = (float(x) for x in re.search(r"<line x1='10' x2='(\d+)'", text).expand(r"10 \1").split())  # type: ignore[union-attr]

    def on_ruler(share: float) -> float:
        return start + (end - start) * share / 100

    bar = re.search(
        r"<line x1='([\d.]+)' x2='([\d.]+)' y1='14' y2='14' stroke='var\(--(\w+)\)' stroke-width='6' op", text
    )
    dot = re.search(r"<circle cx='([\d.]+)' cy='14' r='6' fill='var\(--(\w+)\)'", text)
    assert bar
    assert dot
    assert [float(x) for x in bar.groups()[:2]] == pytest.approx([on_ruler(low), on_ruler(high)], abs=0.06)
    assert float(dot[1]) == pytest.approx(on_ruler(value), abs=0.06)
    assert bar[3] == dot[2] == colour


def rows(text: str) -> list[str]:
    return [row for row in re.findall(r"<tr.*?</tr>", text) if "<td" in row]


def test_an_axis_says_what_it_explains_where_that_is_more_than_chance(tmp_path: Path) -> None:
    told = [
        axis("sure", weakness=True, confounded_with=["a", "b"]), axis("chance", p_value=SIGNIFICANCE), axis("alone", values=1),
        axis("two", values=2, explained=1.4), axis("less", explained=-0.2),
    ]  # fmt: skip
    sure, chance, alone, two, less = rows(page(tmp_path, axes=told))[:5]
    assert sure.startswith(
        "<tr class='weak'><td>sure<span class='tag'>weakness</span> <span class='soft'>= a, b</span></td>"
    )
    assert "<td class='n'>40%</td><td><div class='track'><div class='fill' style='width:40.0%'>" in sure
    assert "<td class='n'>0.123</td>" in sure
    assert sure.endswith("<td>neon</td></tr>")
    assert "<td class='n'>–</td><td><span class='soft'>40%, as chance would</span>" in chance
    assert "weak" not in chance
    assert alone == "<tr><td>alone</td><td colspan='5' class='soft'>the same in every world: not tested</td></tr>"
    assert "width:100.0%" in two
    assert "width:0.0%" in less


def test_takes_are_drawn_against_the_largest(tmp_path: Path) -> None:
    first, second = rows(page(tmp_path))[-2:]
    assert first.startswith("<tr><td>r&lt;1&gt;</td><td>w0</td><td class='n'>0.200</td>")
    assert "width:50.0%" in first
    assert "width:100.0%" in second
    assert "points='2.0,17.0 98.0,2.0'" in first
    assert "points='2.0,22.0 50.0,12.0 98.0,2.0'" in second
    (lone,) = rows(page(tmp_path, worlds=[world("w", 0.1, [0.3])]))[-1:]
    assert "points='2.0,2.0'" in lone, "beyond the largest is drawn as the largest"
    (still,) = rows(page(tmp_path, worlds=[world("w", 0.0, [0.0])]))[-1:]
    assert "width:0.0%" in still


@pytest.mark.parametrize(("count", "more"), [(200, ""), (201, "… and 1 more in report.json")])
def test_two_hundred_takes_are_listed(tmp_path: Path, count: int, more: str) -> None:
    text = page(tmp_path, worlds=[world(f"w{k}", 0.1, [0.1]) for k in range(count)])
    assert len(re.findall(r"<td>w\d+</td>", text)) == 200
    assert ("more in report.json" in text, more in text) == (bool(more), True)


def decoded(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


@given(st.integers(8, 700), st.integers(8, 300))
def test_a_picture_is_at_most_320_wide_and_keeps_its_shape_and_colour(width: int, height: int) -> None:
    found = decoded(data_uri(np.full((height, width, 3), (200, 90, 30), np.uint8)))
    assert found.shape[1] == min(width, 320)
    assert abs(found.shape[0] - height * min(320 / width, 1)) <= 0.5
    assert np.abs(found.mean((0, 1)) - (200, 90, 30)).max() < 6


def test_the_worst_worlds_are_shown_beside_the_simulation(tmp_path: Path) -> None:
    sim, take = (np.full((12, 16, 3), level, np.uint8) for level in (40, 200))
    text = page(tmp_path, (Picture("r", "w<x>", 0.98765, 7, sim, take),))
    card = re.search(r"<div class='card'>(.*?)</div>", text)
    assert card
    assert [decoded(uri).mean() > 100 for uri in re.findall(r"src='(.*?)'", card[1])] == [False, True]
    assert "<b>w&lt;x&gt;</b> <span class='soft'>r, frame 7</span><br>divergence 0.988" in card[1]


def test_nothing_on_the_page_is_wider_than_a_telephone(tmp_path):
    """Columns of cards shrink to the page, tables scroll within it, long names break."""
    text = page(tmp_path)
    assert not re.findall(r"minmax\(\d+px", text)
    assert re.search(r"max-width:760px\)\{table\{display:block;overflow-x:auto", text)
    assert re.search(r"td[^{}]*\{overflow-wrap:anywhere", text)
