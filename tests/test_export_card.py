# SPDX-License-Identifier: Apache-2.0
"""The dataset card from the provenance of a dataset: counts, pictures, terms, what was rejected and what is known of limits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from retake.core.export import card, tables
from retake.core.export.records import Schema, Slice, Vector, VideoOptions
from retake.core.export.writer import MARKER, PROVENANCE, REJECTED
from retake.core.files import write_json

ARM, GRIP = Slice("arm", 0, 6, "arm", "rad", "ur5"), Slice("grip", 6, 7, "gripper", "0..1", "ur5")
SCHEMA = Schema(
    15, "ur5", {"observation.state": Vector("float32")}, {"observation.images.front": (64, 48)}, (ARM, GRIP),
    own_action_slices=(ARM,),
)  # fmt: skip


def row(**change: Any) -> dict[str, Any]:
    return {
        "uid": "u", "run": "r", "take_id": "t", "domain": "composite", "world": "w", "window_length": 8, "trajectory_id": "a",
        "motion_source": "simulated", "action_source": "targets", "verdict_status": "pass", "licence_source": "Apache-2.0",
        "backend": "composite", "licence_model": "Apache-2.0", "first_frame_backend": "procedural",
        "licence_first_frame": "Apache-2.0", **change,
    }  # fmt: skip


def staging(folder: Path, base: Path | None = None, pictures: int = 0, **marker: Any) -> Any:
    """What a card reads of a dataset under way."""
    write_json(folder / MARKER, marker)
    shown = [{"picture": {"file": f"card/{k:03d}.jpg", "label": f"w{k}"}} for k in range(pictures)]
    return SimpleNamespace(dataset=folder, base=base, entries=lambda: [*shown, {}])


def written(
    folder: Path, rows: list[dict[str, Any]], fmt: str = "lerobot-v3", rejected: Any = (), **more: Any
) -> list[str]:
    tables.write_jsonl(folder / PROVENANCE, rows)
    tables.write_jsonl(folder / REJECTED, rejected)
    card.write_card(staging(folder, **more), SCHEMA, fmt, VideoOptions.of("h264"), "val")
    return (folder / "README.md").read_text("utf-8").splitlines()


def test_one_of_a_thing_is_singular_and_everything_is_counted(tmp_path: Path) -> None:
    assert "# 1 episode, 1 trajectory" in written(tmp_path, [row()])
    rows = [row(), row(trajectory_id="b", window_length=5), row(trajectory_id=None, uid="x"), row(window_length=None)]
    lines = written(tmp_path, rows)
    assert "# 4 episodes, 3 trajectories" in lines
    assert "| episodes / frames | 4 / 21 |" in lines
    assert "| trajectories (source episodes) | 3 |" in lines
    assert "| fps, robot | 15, ur5 |" in lines
    assert "| cameras | observation.images.front 64x48 |" in lines
    mixed = [row(motion_source="recorded", run="q"), row(action_source="next-state"), row(motion_source=None), row()]
    lines = written(tmp_path, mixed)
    assert "| motion | 1 recorded, 2 simulated, 1 unknown |" in lines
    assert "| actions | 1 next-state, 3 targets |" in lines
    assert "**Recorded, not simulated:** 1 episodes of runs q." in lines


@pytest.mark.parametrize("fmt", list(card.NAMES))
def test_only_datasets_of_lerobot_have_its_front_matter(tmp_path: Path, fmt: str) -> None:
    lines = written(tmp_path, [row()], fmt)
    of_lerobot = fmt.startswith("lerobot")
    assert ("- LeRobot" in lines) == ("configs:" in lines) == of_lerobot
    assert any(line.startswith("| video | ") for line in lines) == of_lerobot
    assert any("Merged quantiles" in line for line in lines) == (fmt == "lerobot-v3")
    assert any("and in the `retake/` columns" in line for line in lines) == (fmt == "lerobot-v3")
    assert any(line.endswith(f"format: {card.NAMES[fmt]}; split: val.") for line in lines)
    assert not any("objects drawn as" in line for line in lines)
    drawn = written(tmp_path, [row()], fmt, object_control="masks")
    assert "| control video | skeleton, and objects drawn as masks |" in drawn


@pytest.mark.parametrize(("count", "cells"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1])])
def test_pictures_stand_three_in_a_row(tmp_path: Path, count: int, cells: list[int]) -> None:
    lines = written(tmp_path, [row()], pictures=count)
    shown = [line for line in lines if "<img" in line]
    assert [line.count("<img") for line in shown] == cells
    assert all(line.count("|") == 4 for line in shown)
    assert ("## Worlds" in lines) == bool(count)
    again = tmp_path / "more"
    further = written(again, [row()], pictures=1, base=tmp_path)
    assert sum(line.count("<img") for line in further) == count + 1, "an appended dataset shows those it had"


def test_worlds_are_listed_by_their_number_of_episodes_up_to_forty(tmp_path: Path) -> None:
    rows = [row(world=f"w{k:02d}") for k in range(42) for _ in range(3 if k == 7 else 2 if k == 41 else 1)]
    lines = written(tmp_path, rows)
    start = lines.index("| world | episodes |") + 2
    assert lines[start : start + 3] == ["| w07 (composite) | 3 |", "| w41 (composite) | 2 |", "| w00 (composite) | 1 |"]
    assert lines[start + 40] == "| … 2 more worlds | 2 |"
    forty = written(tmp_path, rows[: 40 + 2])
    assert not any("more worlds" in line for line in forty)
    kinds = [
        row(domain="sim"),
        row(domain="recorded"),
        row(domain=None),
        row(world=None, variant_id="v1", domain="generated"),
    ]
    assert {"| sim | 1 |", "| recorded | 1 |", "| w (other) | 1 |", "| v1 (generated) | 1 |"} <= set(
        written(tmp_path, kinds)
    )


def test_entries_of_state_and_action_are_told_apart(tmp_path: Path) -> None:
    lines = written(tmp_path, [row()])
    start = lines.index("| entry | meaning | unit |") + 2
    assert lines[start : start + 3] == [
        "| state[0:6] | arm of ur5 | rad |", "| state[6:7] | grip of ur5 | 0..1 |", "| action[0:6] | arm of ur5 | rad |",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "key"),
    [({}, "apache-2.0"), ({"licence_source": "MIT"}, "other"), ({"licence_model": None}, "other"),
     ({name: "LicenseRef-X" for name in ("licence_source", "licence_model", "licence_first_frame")}, "other"),
     ({"take_id": "", "licence_source": "MIT"}, "mit")],
)  # fmt: skip
def test_a_dataset_has_a_licence_of_its_own_where_everything_has_that(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    assert f"license: {key}" in written(tmp_path, [row(**change)])


def test_terms_are_told_for_each_source_once(tmp_path: Path) -> None:
    lines = written(tmp_path, [row(), row(licence_model="", model="big", first_frame_model="flux"), row()])
    start = lines.index("| of | terms | commercial use |") + 2
    told = lines[start : lines.index("", start)]
    assert [line.split(" | ")[0] for line in told] == [
        "| first-frame model flux", "| first-frame model procedural", "| simulated assets or recording", "| video model big",
        "| video model composite",
    ]  # fmt: skip
    assert told[-1].endswith("| Apache-2.0 | yes |")
    assert "| not stated | no: " in told[3]


def test_reasons_are_listed_by_how_often_they_rejected(tmp_path: Path) -> None:
    rejected = [{"run": "r", "take": str(k), "reason": why} for k, why in enumerate(("a|b", "lag", "c", "lag"))]
    lines = written(tmp_path, [row()], rejected=rejected)
    start = lines.index("| reason | takes |") + 2
    assert lines[start : start + 3] == ["| lag | 2 |", "| a\\|b | 1 |", "| c | 1 |"]
    assert "Nothing." in written(tmp_path, [row()])


@pytest.mark.parametrize(
    ("change", "limit"),
    [({"verdict_status": "fail"}, "1 episodes were exported without a passed verdict"),
     ({"domain": "generated"}, "Generated pixels follow"), ({"domain": "composite"}, "Composite episodes show"),
     ({"action_source": "next-state"}, "Some actions are the next measured state"),
     ({"episode_check": "failed: contact"}, "1 episodes come from a simulation that failed")],
)  # fmt: skip
def test_a_limit_is_told_where_it_applies(tmp_path: Path, change: dict[str, Any], limit: str) -> None:
    plain = row(domain="sim")
    assert not any(
        line.startswith(f"- {limit}") for line in written(tmp_path, [plain, row(domain="sim", verdict_status=None)])
    )
    assert any(line.startswith(f"- {limit}") for line in written(tmp_path, [plain, {**plain, **change}, plain]))


def test_every_world_gets_one_picture_and_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    schema = Schema(15, "r", {}, {"observation.images.a": (64, 48), "observation.images.b": (64, 48)})
    shown: list[str] = []

    def episode(world: str, cameras: str) -> Any:
        def frames(key: str) -> Any:
            shown.append(key)
            return iter([np.full((90, 160, 3), 200, np.uint8), np.zeros((90, 160, 3), np.uint8)])

        return SimpleNamespace(
            provenance={"world": world, "domain": "composite", "camera_names": cameras}, frames=frames
        )

    pictures = card.Pictures(staging(tmp_path), schema)
    for number, (world, cameras) in enumerate([("x", "b"), ("y", "b,a"), ("x", "a"), ("z", ""), ("u", "other")]):
        entry = pictures.added({"n": number}, episode(world, cameras))
        assert ("picture" in entry) == (number != 2)
        pictures.note(entry)
    assert shown == [f"observation.images.{name}" for name in ("b", "b", "a", "a")]
    found = cv2.imread(str(tmp_path / "card" / "000.jpg"))
    assert found.shape == (180, 320, 3)
    assert found.mean() > 190
    for number in range(card.MAX_PICTURES):
        pictures.note(pictures.added({}, episode(f"further {number}", "a")))
    assert len(list((tmp_path / "card").iterdir())) == card.MAX_PICTURES
    none = card.Pictures(staging(tmp_path / "bare"), Schema(15, "r", {}, {}))
    assert "picture" not in none.added({}, episode("x", "a"))
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / MARKER, {"pictures": [{"label": "x (composite)", "file": "card/000.jpg"}]})
    kept = card.Pictures(staging(tmp_path / "new", base=tmp_path / "old"), schema)
    assert "picture" not in kept.added({}, episode("x", "a"))
    assert kept.added({}, episode("y", "a"))["picture"]["file"] == "card/001.jpg"
