# SPDX-License-Identifier: Apache-2.0
"""Proofs of the Dataset stage at full counts: laws, kills, lerobot's own reader, 1,000 × 8 takes, planted weaknesses.

Resumable: every part's result is kept in docs/proof/export.json (or the folder given) and not measured again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

import numpy as np  # noqa: E402
from export_runs import make_header, make_run, tree, write_episode, write_take  # noqa: E402

from retake.core.export import ExportOptions, Selection, VideoOptions, export  # noqa: E402
from retake.core.export.encode import read_segment  # noqa: E402
from retake.core.export.reader import Dataset  # noqa: E402
from retake.core.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json  # noqa: E402
from retake.core.run_layout import TAKE_RECORD, TAKE_VIDEO, VARIANT_RECORD, VERDICT_RECORD, RunLayout  # noqa: E402
from retake.core.run_reader import RunReader  # noqa: E402

H264 = VideoOptions.of("h264")
NEW_COLUMNS = ("test_export_language.py", "test_export_layouts.py", "test_export_convert.py", "test_export_readers.py")


def prove(out_dir: Path, quick: bool = False, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run what is not there yet (`only`: these parts); returns and writes all results."""
    path = out_dir / "export.json"
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    parts: dict[str, Callable[[bool, Path], dict[str, Any]]] = {
        "laws": laws,
        "kills": kills,
        "lerobot": lerobot,
        "scale": scale,
        "robustness": robustness,
    }
    for name, part in parts.items():
        if results.get(name, {}).get("quick") == quick or (only and name not in only):
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="retake-prove-") as folder:
            result = {**part(quick, Path(folder)), "quick": quick}
        result["seconds"] = round(time.monotonic() - started, 1)
        # Read again: another process may have proved another part meanwhile.
        results = {**(read_json(path) if path.exists() else {}), name: result}
        write_json(path, results)
        print(f"{name}: {json.dumps(results[name], ensure_ascii=False)[:400]}", flush=True)
    write_bytes(out_dir / "export.md", _markdown(results).encode())
    return results


def laws(quick: bool, work: Path) -> dict[str, Any]:
    """The laws of tests/test_export*.py and tests/test_robustness.py with hypothesis' full counts."""
    tests = ["test_export.py", "test_export_formats.py", "test_export_mix.py", "test_robustness.py", *NEW_COLUMNS]
    environment = {**os.environ, "RETAKE_FULL": "0" if quick else "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *[str(ROOT / "tests" / t) for t in tests]],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {"passed": done.returncode == 0, "summary": done.stdout.strip().splitlines()[-1]}


def kills(quick: bool, work: Path) -> dict[str, Any]:
    """SIGKILL at random instants of an export, until it is through; every format, same bytes as undisturbed."""
    draw, wanted_kills = random.Random(5), 2 if quick else 8
    runs = [make_run(work / f"r{i}", takes=3, seed=i, frames=10) for i in range(3)]
    out: dict[str, Any] = {}
    for fmt in ("lerobot-v3", "lerobot-v2.1", "oscar", "hdf5-isaaclab"):
        export(runs, work / "whole", ExportOptions(fmt, H264))
        wanted = tree(work / "whole")
        target, killed, finished, equal = work / "d", 0, 0, True
        code = "import sys; from retake.core.export.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [
            sys.executable,
            "-c",
            code,
            *map(str, runs),
            "--out",
            str(target),
            "--codec",
            "h264",
            "--quiet",
            "--format",
            fmt,
        ]
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        undisturbed_s = time.monotonic() - started
        equal &= tree(target) == wanted
        shutil.rmtree(target)
        while killed < wanted_kills:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(undisturbed_s * draw.uniform(0.25, 0.9))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
            if target.exists():
                finished += 1
                equal &= tree(target) == wanted
                shutil.rmtree(target)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        equal &= tree(target) == wanted
        shutil.rmtree(target)
        shutil.rmtree(work / "whole")
        out[fmt] = {"kills": killed, "finished_exports": finished + 1, "same_bytes": equal}
    return {"formats": out, "passed": all(v["same_bytes"] for v in out.values())}


def lerobot(quick: bool, work: Path) -> dict[str, Any]:
    """The exported dataset in lerobot 0.4.4: every frame, action, statistic and a window."""
    python = ROOT / ".lerobot-env/bin/python"
    if not python.exists():
        return {"passed": None, "note": "not run: no .lerobot-env (`make lerobot-env`)"}
    count, frames = (2, 12) if quick else (6, 81)
    runs = [make_run(work / f"r{i}", seed=i, takes=2, frames=frames, size=(160, 120)) for i in range(count)]
    export(runs, work / "d", ExportOptions("lerobot-v3"), Selection(include_sim=True, language=False))
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(work), "HF_HOME": str(work / "hf"), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    reader = ROOT / "tests/lerobot_reader.py"
    done = subprocess.run(
        [str(python), str(reader), str(work / "d"), str(work / "got.npz")],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    meta = json.loads(done.stdout.splitlines()[-1])
    data, worst, exact, statistics = Dataset(work / "d"), np.inf, True, 0.0
    with np.load(work / "got.npz") as got:
        arrays = {k: got[k] for k in got.files}
    for row, full in zip(data.episodes(), data.full_rows(), strict=True):
        part = slice(row.index * frames, (row.index + 1) * frames)
        columns = data.columns(row)
        exact &= all(np.array_equal(arrays[k][part], columns[k]) for k in ("observation.state", "action", "timestamp"))
        seen = np.round(arrays["observation.images.front"][part].transpose(0, 2, 3, 1) * 255)
        mine = np.stack(list(read_segment(row.videos["observation.images.front"])))
        exact &= np.array_equal(seen, mine)
        run = next(r for r in runs if r.name == row.provenance["run"])
        source = _source_frames(run, row, frames)
        error = ((source.astype(float) - seen) ** 2).mean((1, 2, 3))
        worst = min(worst, float((10 * np.log10(255**2 / np.maximum(error, 1e-9))).min()))
        for key in ("observation.state", "action"):
            for name in ("min", "max", "mean", "std"):
                gap = np.abs(np.asarray(full["stats"][key][name]) - meta["stats"][key][row.index][name])
                statistics = max(statistics, float(gap.max()))
    return {
        "passed": bool(exact and worst > 30 and statistics < 1e-5),
        "episodes": meta["episodes"],
        "frames_read": meta["frames"],
        "actions_states_timestamps_equal": bool(exact),
        "worst_frame_psnr_db": round(worst, 2),
        "largest_statistics_gap": statistics,
        "reader": "lerobot 0.4.4 beside torch 2.13.0; its frame decoder replaced by PyAV",
    }


def _source_frames(run: Path, row: Any, frames: int) -> np.ndarray:
    from retake.core.episode import open_episode
    from retake.core.video import read_video

    if row.provenance["domain"] == "sim":
        episode = open_episode(RunReader(run).episode)
        return np.stack([episode.image("front", "rgb", k) for k in range(frames)])
    return np.stack(list(read_video(RunReader(run).take_folder(row.provenance["take_id"]) / TAKE_VIDEO)))


def scale(quick: bool, work: Path) -> dict[str, Any]:
    """1,000 episodes × 8 takes: rate, memory over time, time to open. The export runs in a process of its own."""
    episodes, takes, frames = (40, 8, 4) if quick else (1000, 8, 4)
    started = time.monotonic()
    template = make_run(work / "template", takes=takes, frames=frames)
    videos = [RunReader(template).take_folder(f"v{w:03d}/front") / TAKE_VIDEO for w in range(takes)]
    shas = [sha256_file(v) for v in videos]
    runs = []
    for i in range(episodes):
        run = work / "runs" / f"run{i:04d}"
        episode = write_episode(RunReader(run).episode, make_header(i), frames, seed=i)
        for w in range(takes):
            _cheap_take(run, template, episode, w, videos[w], shas[w])
        runs.append(run)
    made_s = time.monotonic() - started
    code = (
        "import json,resource,sys,time\nfrom pathlib import Path\n"
        "from retake.core.export import ExportOptions, VideoOptions, export\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20\n"
        "trace=[]\n"
        "def progress(done,total,note):\n"
        "    if done % max(total//20,1)==0: trace.append([done, round(rss(),1)])\n"
        "t=time.monotonic()\n"
        "runs=sorted(Path(sys.argv[1]).iterdir())\n"
        "(r,)=export(runs, sys.argv[2], ExportOptions(video=VideoOptions.of('h264')), progress=progress)\n"
        "print(json.dumps({'seconds': time.monotonic()-t, 'episodes': r.episodes, 'trace': trace,"
        " 'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(work / "runs"), str(work / "d")], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    started = time.monotonic()
    data = Dataset(work / "d")
    opening_s = time.monotonic() - started
    trace = result["trace"]
    writing = [m for done_, m in trace if done_ > 0]
    growth = writing[-1] - writing[0] if len(writing) > 1 else 0.0
    size = sum(p.stat().st_size for p in (work / "d").rglob("*") if p.is_file())
    return {
        "passed": bool(result["peak_mib"] < 1024 and len(data) == episodes * takes and opening_s < 1),
        "episodes": len(data),
        "source_episodes": episodes,
        "frames_per_take": frames,
        "takes_per_second": round(len(data) / result["seconds"], 1),
        "export_seconds": round(result["seconds"], 1),
        "peak_mib": round(result["peak_mib"], 1),
        "growth_while_writing_mib": round(growth, 1),
        "trace_mib": trace,
        "opening_seconds": round(opening_s, 4),
        "dataset_mib": round(size / 2**20, 1),
        "making_inputs_seconds": round(made_s, 1),
    }


def _cheap_take(run: Path, template: Path, episode: Any, world: int, video: Path, sha: str) -> None:
    """A take whose video is a link to a shared one: the identity differs by its episode."""
    name = f"v{world:03d}/front"
    here, there = RunLayout(run), RunLayout(template)
    folder = here.take_folder(name)
    folder.mkdir(parents=True)
    os.link(video, folder / TAKE_VIDEO)
    data = json.loads((there.take_folder(name) / TAKE_RECORD).read_text("utf-8"))
    data["inputs"]["episode"] = episode.content_sha256
    (folder / TAKE_RECORD).write_text(json.dumps(data), "utf-8")
    for target, source, record in (
        (here.variant_folder(f"{world:03d}/front"), there.variant_folder(f"{world:03d}/front"), VARIANT_RECORD),
        (here.verdict_folder(name), there.verdict_folder(name), VERDICT_RECORD),
    ):
        target.mkdir(parents=True)
        shutil.copy(source / record, target)
    assert data["video_sha256"] == sha


def robustness(quick: bool, work: Path) -> dict[str, Any]:
    """Planted weaknesses over several sets of worlds: is the right axis named, and no other; is invariance seen?"""
    import test_robustness as planted

    from retake.core.robustness import robustness as report
    from retake.core.robustness.policies import CallablePolicy

    right = extra = total = invariant = blind = 0
    for seed in range(2 if quick else 10):
        run = work / f"run{seed}"
        episode = write_episode(RunReader(run).episode, make_header(seed), 3, seed)
        for i, world in enumerate(planted.worlds(16, seed)):
            write_take(run, episode, i, pixels=lambda k, w=world: planted.paint(w))
            sidecar = RunLayout(run).variant_folder(f"{i:03d}/front") / VARIANT_RECORD
            variant = read_json(sidecar)
            write_json(sidecar, {**variant, "world": {**variant["world"], **world, "name": f"world {i}"}})
        for axis in planted.AXES:
            found = report([run], planted.weak_to(axis), work / f"o{seed}{axis}", frames=2).analysis
            named = {a.axis for a in found.axes if a.weakness}
            right, extra, total = right + (axis in named), extra + bool(named - {axis}), total + 1
        found = report(
            [run], CallablePolicy(lambda o: np.tile(o.state, (3, 1)), "blind"), work / f"b{seed}", frames=2
        ).analysis
        blind, invariant = blind + 1, invariant + (found.score.value == 100 and not any(a.weakness for a in found.axes))
    return {
        "passed": right == total and invariant == blind,
        "planted": total,
        "named_right": right,
        "named_another_too": extra,
        "invariant_policies": blind,
        "seen_as_invariant": invariant,
    }


def _markdown(results: dict[str, Any]) -> str:
    lines = ["# Datasets and robustness", "", "| proof | holds | measured |", "|---|---|---|"]
    for name, result in results.items():
        shown = {k: v for k, v in result.items() if k not in ("passed", "quick", "trace_mib")}
        holds = {True: "yes", False: "NO", None: "not measured"}[result.get("passed")]
        text = "; ".join(f"{k.replace('_', ' ')} {json.dumps(v, ensure_ascii=False)}" for k, v in shown.items())
        lines.append(f"| {name}{' (reduced)' if result['quick'] else ''} | {holds} | {text.replace('|', '/')} |")
    if trace := results.get("scale", {}).get("trace_mib"):
        lines += [
            "",
            "Memory while exporting (episodes written: resident MiB): " + ", ".join(f"{d}: {m}" for d, m in trace),
        ]
    return "\n".join(
        [*lines, "", f"Checksum of the figures: {sha256_bytes(json.dumps(results, sort_keys=True).encode())[:16]}", ""]
    )


if __name__ == "__main__":
    prove(ROOT / "docs" / "proof", "--quick" in sys.argv, tuple(a for a in sys.argv[1:] if not a.startswith("-")))
