# SPDX-License-Identifier: Apache-2.0
"""The search for end effectors on robots it was not developed on: unseen.csv, read by `retake robot`, judged, and tabled.

The repositories are the user's to clone; nothing of them is in ours. FOLDER holds them as NAME or OWNER+NAME. The converters
are found as for every description (docs/motion.md). What a robot's description lacks (meshes that its repository leaves out) is
not needed for its tree, and said in the table.

usage: unseen.py FOLDER [--only NAME …]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "proof"
KEPT = ROOT / ".cache" / "unseen"
READERS = ("exts/retake.usd/retake/usd", "exts/retake.core/retake/core/ends", "exts/retake.newton/retake/newton")
TIMEOUT_S = 600
TRUTHS = {
    "before": "truth written before the search ran",
    "later": "likewise, drawn after the kinds that failed among those before had been mended",
    "after": "truth written or corrected after its answer was seen",
}


@dataclass(frozen=True)
class Robot:
    """One line of unseen.csv."""

    name: str
    repository: str
    file: str
    truth: str
    wanted: str
    """The cell `ends`: KIND:LINK|LINK;…, or `refused` for a description that is no robot's."""

    def wanted_ends(self) -> list[tuple[str, set[str]]]:
        """(kind, links that may stand for it) of every end effector."""
        parts = [part.partition(":") for part in self.wanted.split(";") if part]
        return [(kind, set(links.split("|"))) for kind, _, links in parts]


def robots() -> list[Robot]:
    with (Path(__file__).parent / "unseen.csv").open(encoding="utf-8", newline="") as lines:
        return [Robot(**row) for row in csv.DictReader(line for line in lines if not line.startswith("#"))]


def read(robot: Robot, folder: Path) -> dict[str, Any]:
    """What the search finds: ends as [kind, link, joints that move it], notes, and an error in words where it was refused."""
    owner, name = robot.repository.split("/")
    places = [folder / name / robot.file, folder / f"{owner}+{name}" / robot.file]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return {"absent": f"{robot.repository} is not in {folder}"}
    kept = KEPT / f"{robot.name}-{code_key(file)}.json"
    if kept.is_file():
        return json.loads(kept.read_text("utf-8"))
    started = time.monotonic()
    command = [str(Path(sys.executable).with_name("retake")), "robot", str(file), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not read within {TIMEOUT_S} s", "traceback": False}
    seconds = round(time.monotonic() - started, 1)
    if done.returncode:
        result: dict[str, Any] = {
            "error": done.stderr.strip().splitlines()[-1].replace(str(file), file.name),
            "traceback": "Traceback" in done.stderr,
        }
    else:
        answer = json.loads(done.stdout)
        ends = [
            [end.get("kind") or "gripper", end["ee_link"], len(end["finger_joints"])]
            for spec in answer["robots"]
            for end in spec["grippers"]
        ]
        result = {"ends": ends, "notes": answer["notes"]}
    result["seconds"] = seconds
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(result), "utf-8")
    return result


def code_key(file: Path) -> str:
    """Of a description and all code that reads it: what was found by other code is not taken for this one's."""
    sources = sorted(path for folder in READERS for path in (ROOT / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, file))).hexdigest()[:16]


def mistake(robot: Robot, result: dict[str, Any]) -> str:
    """What is wrong with what was found; empty where all is right."""
    if "error" in result:
        return "" if robot.wanted == "refused" and not result["traceback"] else result["error"]
    left, out = list(result["ends"]), []
    for kind, links in robot.wanted_ends():
        own = next((end for end in left if end[1] in links), None)
        if own is None:
            out.append(f"no end at {' or '.join(sorted(links))}")
            continue
        left.remove(own)
        if own[0] != kind:
            out.append(f"{own[1]} is a {kind}, found as {own[0]}")
    return "; ".join([*out, *(f"{link} ({kind}) is none" for kind, link, _ in left)])


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Proof: end effectors of robots that nothing was developed on", "",
        "`scripts/zoo/unseen.py FOLDER` over clones of the repositories of scripts/zoo/unseen.csv: `retake robot` on each",
        "description, nothing declared. A robot is right when every end effector is on the right link with the right kind, and",
        "none is found that is none.", "",
        "| robots | read | refused | tracebacks | right | right before anything was mended |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for truth, words in TRUTHS.items():
        own = [row for row in rows if row["truth"] == truth]
        right, first = (sum(not row[which] for row in own) for which in ("mistake", "first"))
        sums = [sum(key in row for row in own) for key in ("ends", "error")]
        lines.append(
            f"| {len(own)}: {words} | {sums[0]} | {sums[1]} | {sum(row.get('traceback', False) for row in own)} | "
            f"{right} | {first} |"
        )
    lines += ["", "| robot | repository | truth | found | mistake | at first |", "|---|---|---|---|---|---|"]
    for row in rows:
        found = ", ".join(f"{link} ({kind})" for kind, link, _ in row.get("ends", [])) or "–"
        lines.append(
            f"| {row['name']} | {row['repository']} | {row['truth']} | {found} | {row['mistake'] or '–'} | "
            f"{row['first'] or 'right'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clones of the repositories")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these, printed, without a table")
    options = parser.parse_args()
    before = OUT / "robots_unseen.json"
    first = {row["name"]: row["first"] for row in json.loads(before.read_text("utf-8"))} if before.is_file() else {}
    rows = []
    for robot in robots():
        if options.only and robot.name not in options.only:
            continue
        result = read(robot, options.folder)
        if "absent" in result:
            print(f"{robot.name:24} left out: {result['absent']}", flush=True)
            continue
        wrong = mistake(robot, result)
        rows.append({**asdict(robot), **result, "mistake": wrong, "first": first.get(robot.name, wrong)})
        print(f"{robot.name:24} {wrong or 'right'}", flush=True)
    if not options.only:
        before.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        (OUT / "robots_unseen.md").write_text(table(rows), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
