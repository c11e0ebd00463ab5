# SPDX-License-Identifier: Apache-2.0
"""Proves retake.lab in the real Isaac Lab (`.lab-env`, CPU) and on fakes of what is not to be had here (Kit, 2.3).

python scripts/prove.py lab          writes docs/proof/lab.{json,md}; parts that hold for the same sources are not run again
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from retake.core.files import sha256_file, sha256_json, write_json

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".lab-env/bin/python"
CACHE = ROOT / ".cache/lab"
PAIRING = [f"pairing:{clones}:{part}" for part in range(3) for clones in (1, 2, 3)]
"""25 schedules each."""
PARTS = ["geometry", "round_trip", *PAIRING, "memory"]


HOST = ("exts/retake.lab/**/*.py", "tests/lab/*.py", "scripts/prove/lab_host.py",
        "exts/retake.core/retake/core/export/isaaclab*.py")  # fmt: skip
FAKES = ("exts/retake.lab/retake/**/*.py", "tests/lab_fakes.py", "tests/test_lab_recorder.py")


def sources(patterns: tuple[str, ...] = HOST) -> str:
    """Hash of what a job depends on."""
    found = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    return sha256_json({str(path.relative_to(ROOT)): sha256_file(path) for path in found})


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "WARP_CACHE_PATH": str(ROOT / ".lab-env/warp-cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }


def part(name: str, quick: bool) -> dict[str, Any]:
    """One part in a process of its own, unless it is known for these sources."""
    kept = name if name.startswith("pairing") else name.partition(":")[0]  # how long it may take is not what it is
    out, mark = CACHE / f"{kept.replace(':', '-')}{'-quick' if quick else ''}.json", sources()
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and (known := json.loads(out.read_text())).get("sources") == mark:
        return {key: value for key, value in known.items() if key != "sources"}
    started = time.monotonic()
    command = [str(PYTHON), str(ROOT / "scripts/prove/lab_host.py"), name, str(out), *(["quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode:
        return {"ok": False, "error": (done.stderr or done.stdout)[-1500:]}
    result = {"ok": True, "seconds": round(time.monotonic() - started, 1), **json.loads(out.read_text())}
    write_json(out, {**result, "sources": mark})
    return result


def tests(python: Path, paths: list[str], **variables: str) -> dict[str, Any]:
    """One pytest run."""
    started = time.monotonic()
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
        "--timeout",
        "7200",
        *paths,
    ]
    done = subprocess.run(command, cwd=ROOT, env={**environment(), **variables}, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-400:]
    passed = re.search(r"(\d+) passed", last)
    return {"ok": done.returncode == 0, "passed": int(passed[1]) if passed else 0,
            "seconds": round(time.monotonic() - started, 1), "summary": last}  # fmt: skip


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run every job that is not proved yet for its sources."""
    path = out_dir / "lab.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not PYTHON.exists():
        sys.exit("prove lab: .lab-env is missing; make lab-env")
    schedules = "12" if quick else "200"
    fakes = ["tests/test_lab_recorder.py"]
    jobs: dict[str, Any] = {
        **{name: (lambda name=name: part(name, quick)) for name in (PARTS[:2] if quick else PARTS)},
        "host tests": lambda: tests(PYTHON, ["tests/lab"]),
        "fakes": lambda: tests(Path(sys.executable), fakes, RETAKE_SCHEDULES=schedules),
    }
    for name, job in jobs.items():
        mark = sources(FAKES if name == "fakes" else HOST)
        if data.get(name, {}).get("ok") and data[name].get("sources") == mark:
            continue
        data[name] = {**job(), "sources": mark}
        print(f"{name}: {json.dumps(data[name])[:300]}", flush=True)
        data["platform"] = f"{platform.platform()}, {os.cpu_count()} cores"
        write_json(path, data)
        (out_dir / "lab.md").write_text(table(data), "utf-8")
    return data


def table(data: dict[str, Any]) -> str:
    """docs/proof/lab.md."""
    pairs = [data[name] for name in PAIRING if data.get(name, {}).get("ok")]
    look, memory, trip = (data.get(name, {}) for name in ("geometry", "memory", "round_trip"))
    total = {key: sum(p[key] for p in pairs) for key in ("schedules", "pictures", "mispaired", "resets")}
    lines = [
        "# Isaac Lab: recorded in the real host", "",
        f"Isaac Lab 3.0 without Kit (Newton physics and Warp renderer, CPU); {data.get('platform', '')}.",
        "Kit with PhysX and RTX, and Isaac Lab 2.3: on fakes only, not run in the real thing.", "",
        "| proof | | |", "|---|---|---|",
    ]  # fmt: skip
    for name, title in (
        ("host tests", "real host: states bit for bit, kinematics, masks, depth, resets, HDF5, mistakes"),
        ("fakes", "fakes of 2.3, 3 and RTX: random schedules, planted faults, bad input"),
    ):
        if found := data.get(name):
            state = "holds" if found["ok"] else "FAILS"
            lines.append(f"| {title} | {state} | {found['passed']} tests, {found['seconds']} s |")
    state = "not run" if not pairs else "FAILS" if total["mispaired"] else "holds"
    lines.append(
        f"| pictures with their own states, real host | {state} | {total['mispaired']} of {total['pictures']} pictures "
        f"mispaired, {total['schedules']} random schedules, {total['resets']} resets |"
    )
    lacking = [name for name in (*PARTS, "host tests", "fakes") if not data.get(name, {}).get("ok")]
    if lacking:
        lines += ["", f"Not run for these sources, or not whole: {', '.join(lacking)}."]
    rows = []
    if look.get("ok"):
        rows += [
            ("link against forward kinematics", f"{look['link m']:.2e} m"),
            ("wrist camera in its link's frame, drift", f"{look['wrist pose']:.2e}"),
            ("packet's mask > 1 px outside our projection of it", f"{look['object mask beyond 1 px']} px"),
            ("robot's mask > 1 px outside our projection of its meshes", f"{look['robot mask beyond 1 px']} px"),
            ("the meshes > 1 px outside the mask, nothing in front", f"{look['robot outline not in mask, px']} px"),
            ("depth of the table against its plane", f"{look['depth m']:.2e} m"),
        ]
        lines += ["", f"A pick-and-drop of two clones, {look['episodes kept']} episodes kept of {look['control steps']} "
                  f"control steps in {look['seconds']} s; {look['frames looked at']} frames looked at:"]  # fmt: skip
    if trip.get("ok"):
        rows += [
            (f"export, {key}", f"{value:.2e}")
            for key, value in trip.items()
            if isinstance(value, float) and key != "seconds"
        ]
    if rows:
        lines += ["", "| | worst |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]
    if memory.get("ok"):
        used = ", ".join(str(v) for v in memory["resident MiB"].values())
        lines += [
            "", f"{memory['clones']} clones, one recorded, {memory['steps']} control steps: resident MiB at each tenth {used}.",
            f"The recorder took {memory['recorder_ms_per_step']} ms of {memory['all_ms_per_step']} ms per control step "
            f"({memory['recorder_share']:.1%}), drawing {memory['cameras_ms_per_step']} ms.",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":  # one part alone, kept for the whole proof
    print(json.dumps(part(sys.argv[1], "--quick" in sys.argv), indent=1))
