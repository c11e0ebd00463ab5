# SPDX-License-Identifier: Apache-2.0
"""Proof of the verdicts on pictures whose painters share nothing with the estimators: path-traced and ray-traced films,
real video, composite takes. `make prove` runs it; writes docs/proof/verdicts.md and verdicts.json.

Figures are those of the held-out splits; `tune` is shown beside them because limits come from it. Counts are the videos
that were judged. Resumable: films, videos and rows are kept in the bench's cache. Called by itself it writes the tables from what
has been judged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from film_splits import SPLITS, UNSEEN
from painter_bench import CACHE, read_rows
from painters_figures import at_limits, at_points, evaluate
from painters_pages import (
    LOOKED_AT,
    STILL_UNSEEN,
    WANTED,
    composite_lines,
    disclosed,
    planted_lines,
    real_lines,
    split_lines,
    unseen_lines,
)
from painters_text import HEAD, LOOKS_TAKEN
from real_video import rows as real_rows

from retake.core.files import read_json, write_bytes, write_json
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.settings import load_settings

PROOF = Path(__file__).resolve().parents[2] / "docs" / "proof" / "verdicts.json"
LATE_MINUTES = float(os.environ.get("RETAKE_PROVE_MINUTES", "1e9"))


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Paint and judge what is missing (with --quick only what is there), evaluate, write the tables."""
    cache, folder = CACHE, Path(__file__).parent
    if not quick:
        deadline = time.monotonic() + 60 * LATE_MINUTES
        for split in reversed(SPLITS):
            for what in ("paint", "judge"):
                left = (deadline - time.monotonic()) / 60
                command = [
                    sys.executable,
                    str(folder / "painter_bench.py"),
                    what,
                    "--split",
                    split,
                    "--cache",
                    str(cache),
                ]
                subprocess.run([*command, "--minutes", f"{max(left, 0):.1f}"], check=True)
        left = max((deadline - time.monotonic()) / 60, 0)
        command = [sys.executable, str(folder / "composite_takes.py"), "--cache", str(cache)]
        subprocess.run([*command, "--minutes", f"{left:.1f}"], check=True)
    settings, rows = load_settings(), list(read_rows(cache / f"rows-{VERSION}.jsonl").values())
    again = {row["split"] for row in rows}
    # What the present version has not judged yet is shown as an earlier one judged it, and says so.
    rows += [row for row in read_rows(cache / "rows.jsonl").values() if row["split"] not in again]
    rows = [at_limits(row, settings) for row in rows]
    result: dict[str, Any] = {"calibration": settings.calibration.data, "splits": {}}
    # What this cache has no rows of stands as it was last written.
    earlier: dict[str, Any] = read_json(PROOF) if PROOF.is_file() else {"splits": {}}
    for split in SPLITS:
        mine = [r for r in rows if r["split"] == split]
        if mine or split in earlier["splits"]:
            result["splits"][split] = evaluate(mine, settings) if mine else earlier["splits"][split]
    lines = [HEAD, *disclosed(result["splits"]), LOOKS_TAKEN]
    for split in (
        "blind_three_since",
        "blind_three_next",
        "blind_three_final",
        "blind_three_hands",
        "blind_three_closing",
        "blind_three_after",
        "blind_three_fixed",
        "blind_three",
        "blind_three_more",
        "blind_three_travelling",
        "blind_three_large",
        "three",
        "vtk",
        "blind_mitsuba",
        "blind_newton",
        "mitsuba",
        "newton",
        "tune",
    ):
        if split in result["splits"]:
            lines += split_lines(split, result["splits"][split])
        else:
            lines += [f"## Split `{split}`", "", "Not judged yet.", ""]
    held = [
        r
        for r in rows
        if r["split"] in UNSEEN and (r["split"] not in LOOKED_AT or r["camera"] in STILL_UNSEEN.get(r["split"], ()))
    ]
    points, known = at_points(held, settings), earlier.get("operating_points", [])
    # A cache with a part of the unseen splits takes nothing from figures of more videos.
    result["operating_points"] = points if points and (not known or points[0]["clean"] >= known[0]["clean"]) else known
    result["real"] = real_rows(cache / "real") or earlier.get("real", [])
    # Rows that the present version has not judged stand as an earlier one judged them, and say so.
    present = {key: {"version": VERSION, **r} for key, r in read_rows(cache / f"composite-{VERSION}.jsonl").items()}
    composite = {r["key"]: r for r in earlier.get("composite", [])} if len(present) < WANTED else {}
    composite |= present
    result["composite"] = list(composite.values())
    unseen = {(str(r["version"]), r["key"]): r for r in earlier.get("composite_unseen", [])}
    for file in sorted(cache.glob("composite-unseen-*.jsonl")):
        version = file.stem.rsplit("-", 1)[1]
        unseen |= {(version, key): {**r, "version": version} for key, r in read_rows(file).items()}
    result["composite_unseen"] = list(unseen.values())
    planted = {(str(r["version"]), r["key"]): r for r in earlier.get("composite_faults", [])}
    for file in sorted(cache.glob("composite-faults-*.jsonl")):
        planted |= {(str(r["version"]), key): r for key, r in read_rows(file).items()}
    result["composite_faults"] = list(planted.values())
    lines += [*real_lines(result["real"]), *composite_lines(result["composite"])]
    lines += unseen_lines(result["composite_unseen"])
    lines += planted_lines(result["composite_faults"])
    write_json(out_dir / "verdicts.json", result)
    write_bytes(out_dir / "verdicts.md", "\n".join(lines).encode())
    return result


if __name__ == "__main__":
    prove(PROOF.parent, quick=True)
