# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what each stage of the arrow costs here, as a table and as docs/proof/bench.json.

Every stage runs in a process of its own, so that peak memory is its own. Ratios name a baseline of the same run: the
skeleton against a loop that draws each frame with forward kinematics by a URDF library (as the public demo does) and
against drawing alone, painting against encoding the same frame. Times are wall clock on this machine; compare ratios, not
seconds, between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RETAKE = [sys.executable, "-m", "retake.core.cli"]
STAGES = ("capture", "check", "skeleton", "variants", "takes", "report")


def measured(command: list[str], one_core: bool = False) -> tuple[float, float]:
    """Wall seconds and peak memory (GiB, largest process of the tree) of a command. one_core: bound to one where the system can
    do that; threads of a numeric library that wait for each other would count as work."""
    bound = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}) if hasattr(os, 'sched_setaffinity') else None\n"
    # A user's second run finds the compiled modules of the first, whatever this process was told.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = (
        "import os, resource, subprocess, sys, time\n"
        + (bound if one_core else "")
        + "t = time.perf_counter(); r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)\n"
        "if r.returncode: sys.exit(r.stderr.decode()[-2000:])\n"
        "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)} failed:\n{done.stderr}")
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def encode_rate(run: Path) -> float:
    """Frames per second of H.264 encoding alone, 640x480."""
    from retake.core.episode import open_episode
    from retake.core.run_store import open_run
    from retake.core.video import write_video

    episode = open_episode(open_run(run).episode)
    frames = [episode.image("front", "rgb", k) for k in range(len(episode))]
    started = time.perf_counter()
    write_video(run.parent / "encode.mp4", frames, 15)
    return len(frames) / (time.perf_counter() - started)


def verdict_rows(run: Path) -> list[tuple[str, str, float, str]]:
    """Seconds of one core that judging a take costs, file to verdict, the episode's geometry read afresh and known."""
    from retake.core.run_store import open_run

    opened = open_run(run)
    take = next(take for take in opened.takes() if take.camera == "front")
    out = run.parent / "verdict.json"
    measured(
        [*RETAKE, "bench", "verify", str(take.video), "--episode", str(opened.episode), "--camera", "front", "--json", str(out)],
        one_core=True,
    )  # fmt: skip
    found = json.loads(out.read_text("utf-8"))
    note = f"{found['frames']} frames of {'x'.join(map(str, found['size']))}, "
    return [
        (f"verdict, {row['what']}", "s of one core", row["cpu_s"], note + "file to verdict") for row in found["rows"]
    ]


LARGE = (
    "capture.overrides={cameras: [{name: front, size: [640, 480], mount: fixed}, "
    "{name: wrist, size: [640, 480], mount: body}]}"
)
"""Both cameras of the demo in one size."""


def painter_rows(folder: Path) -> list[tuple[str, str, float, str]]:
    """Milliseconds of one core that the CPU painter takes for a 640x480 frame after the first, of the standing camera (its
    scenery is shaded once) and of the one on the hand (everything moves); against encoding the same frames as PNG."""
    import cv2

    from retake.core.episode import open_episode
    from retake.core.painter.procedural import ProceduralBackend
    from retake.core.run_store import open_run
    from retake.core.variants.base import source_frame
    from retake.core.variants.worlds import load_catalogue

    cv2.setNumThreads(1)
    measured([*RETAKE, "capture", str(folder), "--preset", "short", "--set", LARGE])
    episode = open_episode(open_run(folder).episode)
    world = load_catalogue().preset("garden")
    rows = []
    for camera in episode.header.cameras:
        sources = [source_frame(episode, camera.name, t) for t in range(0, len(episode), 8)]
        dresser = ProceduralBackend().dresser(sources[0], world, 0)
        dresser.render(sources[0])
        started = time.process_time()
        frames = [dresser.render(source) for source in sources[1:]]
        painted = time.process_time()
        for frame in frames:
            cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        spent = [
            (end - start) / len(frames) * 1e3 for start, end in ((started, painted), (painted, time.process_time()))
        ]
        size = "x".join(map(str, camera.size))
        note = f"{size}, after the first; {spent[0] / spent[1]:.1f} times what encoding it as PNG costs ({spent[1]:.1f} ms)"
        rows.append((f"painting a frame, {camera.name}", "ms of one core", spent[0], note))
    return rows


def bookkeeping_ms(run: Path) -> float:
    """Capture bookkeeping per frame outside rendering and disk: `check_frame`, packing and hashing the state record."""
    from retake.core.episode import EpisodeWriter, open_episode
    from retake.core.episode.records import check_frame
    from retake.core.files import sha256_bytes
    from retake.core.run_store import open_run

    episode = open_episode(open_run(run).episode)
    frames = [episode.frame(k) for k in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        writer = EpisodeWriter(Path(folder) / "e", episode.header)
        started = time.perf_counter()
        for _ in range(20):
            for index, frame in enumerate(frames):
                check_frame(frame, episode.header, index)
                sha256_bytes(writer._pack(frame))
        return (time.perf_counter() - started) / 200 * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof" / "bench.json")
    options = parser.parse_args()
    rows: list[tuple[str, str, float, str]] = []
    folder = Path(tempfile.mkdtemp(prefix="retake-bench-"))
    try:
        run = folder / "run"
        total = 0.0
        frames = 81
        for stage in STAGES:
            seconds, memory = measured(
                [*RETAKE, stage, str(run), *(["--preset", "short"] if stage == "capture" else [])]
            )
            total += seconds
            rows.append((stage, "s", seconds, f"peak {memory:.2f} GiB"))
            if stage == "capture":
                rows.append(("capture per frame (2 cameras)", "ms", seconds / frames * 1e3, "rendering included"))
            print(f"{stage:<10} {seconds:7.1f} s   peak {memory:.2f} GiB", flush=True)
        rows.append(("stages one by one", "s", total, ""))
        rows.append(("capture bookkeeping per frame", "ms", bookkeeping_ms(run), "without rendering and disk"))
        rows.append(("H.264 encoding", "frames/s", encode_rate(run), "640x480"))
        rows += verdict_rows(run)
        rows += painter_rows(folder / "large")
        seconds, memory = measured([*RETAKE, "run", "--run", str(folder / "warm"), "--preset", "short"])
        rows.append(("whole arrow, warm caches, from scratch", "s", seconds, f"peak {memory:.2f} GiB"))
        again, _ = measured([*RETAKE, "run", "--run", str(folder / "warm"), "--preset", "short"])
        rows.append(("untouched re-run", "s", again, ""))
        skeleton = folder / "skeleton.json"
        measured([sys.executable, str(ROOT / "scripts" / "bench_skeleton.py"), "--json", str(skeleton)])
        comparison: dict[str, Any] = json.loads(skeleton.read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    width = max(len(name) for name, *_ in rows)
    table = ["| what | value | note |", "|---|---:|---|"]
    table += [f"| {name} | {value:.2f} {unit} | {note} |" for name, unit, value, note in rows]
    print("\n".join(f"{name:<{width}}  {value:9.2f} {unit:<9} {note}" for name, unit, value, note in rows))
    print(json.dumps(comparison, indent=2))
    result = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "rows": [{"what": n, "unit": u, "value": round(v, 3), "note": note} for n, u, v, note in rows],
        "skeleton": comparison,
        "peak_memory_of_bench_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    options.out.with_suffix(".md").write_text("# Bench\n\n" + "\n".join(table) + "\n", "utf-8")
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
