# SPDX-License-Identifier: Apache-2.0
"""Proof of any robot: every robot of `make zoo` read, drawn and simulated, against libraries and facts of others.

Kinematics and limits: yourdfpy (URDF) and MuJoCo (MJCF) on the same description. End effectors: scripts/zoo/ends.csv, which
says per robot which links carry the hand and where it reaches and opens, from the descriptions; not blind, as its head says.
Simulation: a small sine on every leading joint, forward kinematics against the simulator's link poses in every frame.

One process per robot, its result kept in .cache/robots until the stage or the code that reads it changes, and what was
simulated until the code that simulates it does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.files import sha256_file, sha256_json, write_json

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "zoo"))
import make as zoo  # noqa: E402

CACHE = ROOT / ".cache" / "robots"
READ = ("exts/retake.usd/retake/usd", "exts/retake.core/retake/core/ends")
SOURCES = {"read": READ, "sine": (*READ, "exts/retake.newton/retake/newton", "exts/retake.core/retake/core/skeleton")}
"""Part of the measurement -> the code that it measures."""
TIMEOUT_S = 600
KEEP = "RETAKE_ROBOTS_KEEP"
"""Set to read every robot anew and keep what earlier code simulated; the table then says how many are."""
TILE = (200, 150)


def measured(robot: zoo.Robot) -> dict[str, Any]:
    """The result of one robot: each part from the cache where it still holds, else measured."""
    folder, out = zoo.folder(robot), CACHE / robot.name
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "result.json"
    result = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    keys = {part: key_of(part, folder) for part in SOURCES}
    stale = [part for part in SOURCES if result.get("keys", {}).get(part) != keys[part]]
    asked = [part for part in stale if not (part == "sine" and part in result and os.environ.get(KEEP))]
    if asked:
        for part in asked:
            result.pop(part, None)
        write_json(kept, result)
        started = time.monotonic()
        command = [sys.executable, str(ROOT / "scripts/zoo/measure.py"), str(folder), str(out), *asked]
        remove_episodes(out)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
            ended = f"exit code {done.returncode}: {done.stderr[-400:]}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            ended = f"not finished after {TIMEOUT_S} s"
        remove_episodes(out)
        result = json.loads(kept.read_text("utf-8"))
        for part in asked:
            result.setdefault(part, {"traceback": ended})
        result["keys"] = {**result.get("keys", {}), **{part: keys[part] for part in asked}}
        result["seconds"] = round(time.monotonic() - started, 1)
        write_json(kept, result)
    return {**result, "current": [part for part in SOURCES if part not in stale or part in asked]}


def key_of(part: str, folder: Path) -> str:
    """Of everything that a part of the measurement depends on."""
    files = sorted(p for source in SOURCES[part] for p in (ROOT / source).rglob("*.py"))
    more = ("scripts/zoo/measure.py", *(("scripts/zoo/ends.csv",) if part == "read" else ()))
    stage = sorted(p for p in (folder / "stage").rglob("*") if p.suffix in (".usda", ".usdc", ".usd"))
    inputs = [folder / "truth.npz", *stage]
    return sha256_json([sha256_file(p) for p in (*files, *(ROOT / m for m in more), *inputs)])


def remove_episodes(out: Path) -> None:
    """Episodes of a measurement; only what was measured of them is kept."""
    for episode in out.glob("episode_*"):
        shutil.rmtree(episode)


def judge_ends(found: list[dict[str, Any]], wanted: list[dict[str, str]]) -> tuple[bool, float | None, str]:
    """Whether exactly the wanted ends were found, the largest axis error (degrees; None where no axes are known), and why."""
    left, worst, why = list(found), None, []
    for row in wanted:
        names = row["links"].split("|")
        match = next((f for f in left if f["link"] in names), None)
        if match is None:
            why.append(f"no {names[0]}")
            continue
        left.remove(match)
        R = np.array(match["T"])[:3, :3]
        for column, text in ((R[:, 2], row["approach"]), (R[:, 1], row["opening"])):
            # Axes are those of the first link; a tool link was found without fingers, so it opens nowhere.
            if not text or match["link"] != names[0] or (text is row["opening"] and match["kind"] == "tool"):
                continue
            axis = np.array([float(x) for x in text.split()])
            cosine = float(column @ axis / np.linalg.norm(axis))
            cosine = abs(cosine) if text is row["opening"] else cosine
            angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
            worst = angle if worst is None else max(worst, angle)
    why += [f"also {f['link']}" for f in left]
    return not why, worst, ", ".join(why)


def prove(out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """Measure every converted robot (three with `quick`) and write robots.json, robots.md and the contact sheet."""
    robots = [r for r in zoo.robots() if (zoo.folder(r) / "converted.json").is_file()]
    absent = [r.name for r in zoo.robots() if r not in robots]
    if not robots:
        print("robots: the zoo is empty; `make zoo` fetches and converts it. Nothing is proved here.")
        return {}
    robots = robots[:3] if quick else robots
    wanted, rows = zoo.truth_of_ends(), []
    for number, robot in enumerate(robots, 1):
        result = measured(robot)
        rows.append(row_of(robot, result, wanted.get(robot.name, [])))
        print(f"{number}/{len(robots)} {robot.name}: {rows[-1]['outcome']}", flush=True)
    summary = summarise(rows, absent)
    write_json(out_dir / "robots.json", {"summary": summary, "rows": rows})
    sheet = out_dir.parent / "images" / "robots.jpg" if not quick else out_dir / "robots.jpg"
    cv2.imwrite(str(sheet), contact_sheet(robots), [cv2.IMWRITE_JPEG_QUALITY, 82])
    (out_dir / "robots.md").write_text(table(rows, summary), encoding="utf-8")
    return summary


def row_of(robot: zoo.Robot, result: dict[str, Any], wanted: list[dict[str, str]]) -> dict[str, Any]:
    """One line of the table."""
    read, sine = result.get("read", {}), result.get("sine", {})
    row: dict[str, Any] = {"robot": robot.name, "kind": robot.kind, "current": result.get("current", [])}
    row |= {k: read.get(k) for k in ("robots", "links", "dofs", "truth_dofs", "dofs_matched", "links_compared")}
    row |= {"fk_m": read.get("fk_m"), "limits": read.get("limits"), "driven": sine.get("driven")}
    row |= {"fk_simulator_m": sine.get("fk_simulator_m"), "lag": sine.get("lag"), "drives": sine.get("drives")}
    row["notes"] = len(sine.get("notes", ()))
    row["found"] = [f"{e['link']} ({e['kind']})" for e in read.get("ends", ())]
    right, degrees, why = judge_ends(read.get("ends", []), wanted)
    row |= {"ends_right": right if wanted else None, "axes_deg": degrees, "ends_why": why}
    declared = read.get("declared", {})
    right, degrees, why = judge_ends(declared.get("ends", []), wanted)
    row |= {"declared_right": right if wanted else None, "declared_lines": declared.get("lines"), "declared_why": why}
    row["declared_axes_deg"] = degrees
    tracebacks = [p["traceback"] for p in (read, sine) if "traceback" in p]
    said = [p["said"] for p in (read, sine) if "said" in p]
    row["traceback"], row["said"] = "\n".join(tracebacks), "; ".join(dict.fromkeys(said))
    row["outcome"] = "traceback" if tracebacks else "refused" if said else "captured"
    return row


def summarise(rows: list[dict[str, Any]], absent: list[str]) -> dict[str, Any]:
    """Counts and worst values."""
    outcomes = Counter(row["outcome"] for row in rows)
    judged = [row for row in rows if row["ends_right"] is not None]
    axes = [row["axes_deg"] for row in judged if row["ends_right"] and row["axes_deg"] is not None]
    return {
        "robots": len(rows), "not_here": absent, "read_by_this_very_code": sum("read" in row["current"] for row in rows),
        "simulated_by_this_very_code": sum("sine" in row["current"] for row in rows),
        **{k: outcomes.get(k, 0) for k in ("captured", "refused", "traceback")},
        "read": sum(bool(row["links"]) for row in rows),
        "fk_m_worst": max((row["fk_m"] for row in rows if row["fk_m"] is not None), default=None),
        "limits_worst": max((row["limits"] for row in rows if row["limits"] is not None), default=None),
        "simulated_within_1e-6_m": sum(row["fk_simulator_m"] is not None and row["fk_simulator_m"] <= 1e-6 for row in rows),
        "fk_simulator_m_worst": max((row["fk_simulator_m"] for row in rows if row["fk_simulator_m"]), default=None),
        "ends_judged": len(judged), "ends_right": sum(row["ends_right"] for row in judged),
        "axes_within_2_deg": sum(a <= 2 for a in axes), "axes_judged": len(axes),
        "declared_right": sum(bool(r["declared_right"]) and (r["declared_axes_deg"] or 0) <= 2 for r in judged),
        "declared_lines_at_most": max((r["declared_lines"] or 0 for r in judged), default=0),
    }  # fmt: skip


def contact_sheet(robots: list[zoo.Robot], columns: int = 8) -> np.ndarray:
    """BGR picture of all robots' last frames with skeletons, named."""
    tiles = []
    for robot in robots:
        image = cv2.imread(str(CACHE / robot.name / "picture.png"))
        tile = np.full((TILE[1], TILE[0], 3), 40, np.uint8) if image is None else cv2.resize(image, TILE)
        cv2.rectangle(tile, (0, 0), (TILE[0], 16), (0, 0, 0), -1)
        cv2.putText(tile, robot.name, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def plain(value: Any) -> str:
    """A value of the summary as text."""
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:.2e}" if isinstance(value, float) else str(value)


def table(rows: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """The proof as Markdown."""

    def number(value: float | None, form: str = ".1e") -> str:
        return "–" if value is None else format(value, form)

    lines = [
        "# Proof: real robots", "",
        "Written by `make prove` over the robots of `make zoo`; nothing of them is in the repository.",
        "Kinematics and limits against yourdfpy and MuJoCo on the same description, 20 positions each; end effectors against",
        "scripts/zoo/ends.csv; a second of a small sine on every leading joint, link poses against its kinematics throughout.",
        "",
        "The truth of end effectors is not blind: it was written from the robots' descriptions by who wrote the search, the",
        "search was developed on these robots, and seven rows were corrected after the two had disagreed (their places in the",
        "descriptions are cited in the file). `ends right` says what holds on these robots, not how often it holds on others.",
        "Joints count from the pose that a stage authors; MuJoCo's own values are compared less their `ref` (one joint of",
        "fetch_mj, whose limits the converter writes with `ref` in them).",
        "Rows not counted in `simulated by this very code` were simulated before something in the reader, the simulator or the",
        "skeleton changed, whatever it was; reading and end effectors are measured anew.",
        "", "| | |", "|---|---|",
        *(f"| {k.replace('_', ' ')} | {plain(v)} |" for k, v in summary.items()),
        "", "![all robots, last frame of the sine, with skeleton](../images/robots.jpg)", "",
        "| robot | links | dofs | FK m | limits | ends found, nothing declared | ends | axes ° | declared | sine | FK sim m | "
        "drives | driven | notes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        ends = "–" if row["ends_right"] is None else "right" if row["ends_right"] else row["ends_why"]
        found = ", ".join(row["found"]) or "none"
        declared = f"{row['declared_lines']} lines" if row["declared_right"] else row["declared_why"] or "–"
        lines.append(
            f"| {row['robot']} | {row['links']} | {row['dofs']} | {number(row['fk_m'])} | {number(row['limits'])} | {found} | "
            f"{ends} | {number(row['axes_deg'], '.1f')} | {declared} | {row['outcome']} | {number(row['fk_simulator_m'])} | "
            f"{row['drives'] or '–'} | {row['driven'] if row['driven'] is not None else '–'} | {row['notes']} |"
        )
    if refused := [row for row in rows if row["said"]]:
        lines += ["", "Refused, with which sentence:", ""]
        lines += [f"- **{row['robot']}**: {' '.join(row['said'].split()).replace(str(CACHE), '')}" for row in refused]
    return "\n".join([*lines, ""])
