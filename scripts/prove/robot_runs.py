# SPDX-License-Identifier: Apache-2.0
"""Proof of real robots end to end: six robots of `make zoo`, each from one command to an exported dataset.

The command is the one of docs/motion.md. Its run folder is kept in .cache/robot_runs and resumes as every run does; what is
counted is read from the run and from the dataset, never from this script.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.episode import open_episode
from retake.core.files import sha256_file, sha256_json, write_json
from retake.core.run_store import open_run

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "robot_runs"
SOURCES = ROOT / ".zoo" / "src"
ROBOT_DATA = "example_robot_data/cmeel.prefix/share/example-robot-data/robots"
WORLDS = ("bun_warehouse", "kitchen", "conveyor_blue")
SIZE = (320, 240)
TILE = (240, 180)


@dataclass(frozen=True)
class Case:
    """One robot: what it stands for, its description, and what the command needs beside the motion."""

    name: str
    stands_for: str
    option: str
    file: str
    more: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """Arguments of `retake run` without the run folder and the picture's size."""
        source = [
            f"--{self.option}",
            str(SOURCES / self.file),
            "--motion",
            str(ROOT / "data/motions" / f"{self.name}.csv"),
        ]
        return [*source, "--worlds", ",".join(WORLDS), *self.more]


CASES = (
    Case("so101", "one moving jaw", "urdf", f"{ROBOT_DATA}/so_arm_description/urdf/so101.urdf"),
    Case("ur5e_2f85", "arm and gripper from two files", "mjcf", "ur5e_2f85/ur5e_2f85.xml",
         ("--set", "capture.overrides.drives=fill")),
    Case("aloha", "bimanual", "mjcf", "gym_aloha/gym_aloha/assets/bimanual_viperx_transfer_cube.xml"),
    Case("fetch", "mobile", "urdf", "mani_skill/mani_skill/assets/robots/fetch/fetch.urdf"),
    Case("g1_hand", "humanoid with hands", "urdf", "newton-assets/g1_description/g1_29dof_with_hand_rev_1_0.urdf"),
    Case("xarm7", "suction cup, declared", "urdf", "mani_skill/mani_skill/assets/robots/xarm7/xarm7.urdf",
         ("--robot", str(ROOT / "data/robots/xarm7_ms.robot.yaml"))),
)  # fmt: skip


def prove(out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """Run every robot whose description is here (one with `quick`) and write robot_runs.json, .md and the sheet."""
    here = [case for case in CASES if (SOURCES / case.file).is_file()]
    if not here:
        print("robot_runs: no descriptions in .zoo/src; `make zoo` fetches them. Nothing is proved here.")
        return {}
    rows = [run(case) for case in (here[:1] if quick else here)]
    absent = [case.name for case in CASES if case not in here]
    summary = {
        "robots": len(rows), "not_here": absent,
        **{k: sum(row[k] for row in rows) for k in ("episodes", "takes", "accepted", "exported_episodes")},
    }  # fmt: skip
    write_json(out_dir / "robot_runs.json", {"summary": summary, "rows": rows})
    picture = (out_dir if quick else out_dir.parent / "images") / "robot_runs.jpg"
    cv2.imwrite(str(picture), np.vstack([strip(case) for case in here[: len(rows)]]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    (out_dir / "robot_runs.md").write_text(table(rows, summary), encoding="utf-8")
    return summary


def run(case: Case) -> dict[str, Any]:
    """The row of one robot: kept until its command or what judges and simulates it changes."""
    out, kept = CACHE / case.name, CACHE / f"{case.name}.json"
    sources = sorted(
        p for f in ("retake.newton/retake/newton", "retake.usd/retake/usd", "retake.core/retake/core/verdicts")
        for p in (ROOT / "exts" / f).rglob("*.py")
    )  # fmt: skip
    motion = ROOT / "data/motions" / f"{case.name}.csv"
    key = sha256_json([case.command, sha256_file(motion), sha256_file(SOURCES / case.file), *map(sha256_file, sources)])
    if kept.is_file() and (row := json.loads(kept.read_text("utf-8")))["key"] == key:
        return row
    started = time.monotonic()
    size = f"capture.overrides.cameras=[{{name: front, size: [{SIZE[0]}, {SIZE[1]}]}}]"
    said = _retake("run", "--run", str(out), *case.command, "--set", size)
    row: dict[str, Any] = {"robot": case.name, "stands_for": case.stands_for, "key": key, "seconds": 0.0, "said": said}
    row |= {"episodes": 0, "takes": 0, "accepted": 0, "exported_episodes": 0, "frames": 0, "ends": [], "verdicts": {}}
    if not said:
        found = open_run(out)
        episode = open_episode(found.episode)
        standings = {take.id: found.standing(take) for take in found.takes()}
        row |= {"episodes": 1, "takes": len(standings), "frames": len(episode)}
        row["verdicts"] = {name: s.status for name, s in standings.items()}
        row["accepted"] = sum(s.status == "pass" for s in standings.values())
        row["ends"] = [f"{g.ee_link} ({g.kind})" for r in episode.header.robots for g in r.grippers]
        if row["accepted"]:
            data = CACHE / f"{case.name}_dataset"
            shutil.rmtree(data, ignore_errors=True)  # ours alone; what an older proof exported is counted anew
            row["said"] = _retake("export", str(out), "--out", str(data))
            meta = data / "meta" / "info.json"
            row["exported_episodes"] = json.loads(meta.read_text("utf-8"))["total_episodes"] if meta.is_file() else 0
    row["seconds"] = round(time.monotonic() - started, 1)
    write_json(kept, row)
    print(f"{case.name}: {row['accepted']} of {row['takes']} accepted, {row['exported_episodes']} exported", flush=True)
    return row


def _retake(*arguments: str) -> str:
    """Run the command line; empty, or the last lines of what it refused with."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("retake")), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return (
        ""
        if done.returncode == 0
        else " ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
    )


def strip(case: Case) -> np.ndarray:
    """Skeleton and takes of one robot at six tenths of the episode, BGR."""
    tiles, out = [], CACHE / case.name
    frames = sorted(out.glob("skeleton/front/frames/*.png"))
    tiles.append(cv2.imread(str(frames[len(frames) * 6 // 10])) if frames else None)
    for world in WORLDS:
        video = cv2.VideoCapture(str(next(iter(out.glob(f"takes/{world}-*/front/take.mp4")), "")))
        video.set(cv2.CAP_PROP_POS_FRAMES, video.get(cv2.CAP_PROP_FRAME_COUNT) * 6 // 10)
        tiles.append(video.read()[1])
    blank = np.full((TILE[1], TILE[0], 3), 40, np.uint8)
    row = np.hstack([blank if t is None else cv2.resize(t, TILE, interpolation=cv2.INTER_AREA) for t in tiles])
    cv2.putText(row, case.name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return row


def table(rows: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """The proof as Markdown."""
    lines = [
        "# Proof: real robots, end to end", "",
        "Written by `make prove` (scripts/prove/robot_runs.py): each robot from the one command of docs/motion.md, in three",
        f"worlds ({', '.join(WORLDS)}), pictures of {SIZE[0]}x{SIZE[1]}, composite takes, exported as LeRobot v3.",
        "Composite takes are exact by construction, so every one should be accepted.",
        "", "| | |", "|---|---|",
        *(f"| {k.replace('_', ' ')} | {', '.join(v) or 'none' if isinstance(v, list) else v} |" for k, v in summary.items()),
        "", "![skeleton and takes of each](../images/robot_runs.jpg)", "",
        "| robot | stands for | end effectors | episodes | frames | takes | accepted | exported | verdicts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        verdicts = ", ".join(sorted(set(row["verdicts"].values()))) or row["said"]
        lines.append(
            f"| {row['robot']} | {row['stands_for']} | {', '.join(row['ends'])} | {row['episodes']} | {row['frames']} | "
            f"{row['takes']} | {row['accepted']} | {row['exported_episodes']} | {verdicts} |"
        )
    return "\n".join([*lines, ""])
