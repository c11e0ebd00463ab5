# SPDX-License-Identifier: Apache-2.0
"""Laws of judging on the fault bench's own videos: brightness and contrast, re-encoding and a second run change nothing.

    python scripts/prove/verdict_laws.py --videos 60      # resumable; one line per video in .cache/verdicts/laws.jsonl

Takes final videos evenly from the clean ones and from every fault, judges each as it is, again, with gains of 0.75 to
1.1 and offsets of -8 to 12 levels, and re-encoded at CRF 23 and 28.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fault_bench import Job, jobs, video_of

from retake.core.episode import open_episode
from retake.core.verdicts import Verdict, judge, load_settings
from retake.core.verdicts.records import VERSION
from retake.core.video import read_video, write_video


def chosen(cache: Path, count: int) -> list[Job]:
    """Painted final videos: half clean, half faulty, dealt evenly over views, worlds and faults."""
    painted = [j for j in jobs("final", 20, 2) if video_of(cache, j).exists()]
    halves = []
    for clean in (True, False):
        mine = [j for j in painted if (j.kind == "clean") == clean]
        mine.sort(key=lambda j: zlib.crc32(j.key.encode()))
        halves.append(mine[: count // 2])
    return halves[0] + halves[1]


def verdict_of(frames: np.ndarray, job: Job, cache: Path, fps: float) -> Verdict:
    """The verdict of some frames of a job."""
    episode = open_episode(cache / "episodes" / f"{job.robot}_{job.seed}")
    return judge(frames, episode, job.camera, fps=fps, config=load_settings())


def statuses(verdict: Verdict) -> dict[str, str]:
    """Overall and every check."""
    return {"overall": verdict.overall, **{c.name: c.status for c in verdict.checks}}


def check_laws(job: Job, cache: Path, folder: Path) -> dict:
    """What changed under each law, by name of the law; empty lists where nothing did."""
    rng = np.random.default_rng(job.look_seed)
    frames = np.stack(list(read_video(video_of(cache, job))))
    fps = open_episode(cache / "episodes" / f"{job.robot}_{job.seed}").header.fps
    first = verdict_of(frames, job, cache, fps)
    changed: dict[str, list[str]] = {}
    again = verdict_of(frames, job, cache, fps)
    changed["twice"] = [] if again.to_json() == first.to_json() else ["json"]
    others = {}
    for name in ("darker", "brighter"):
        gain, offset = (
            (rng.uniform(0.75, 1), rng.uniform(-8, 0))
            if name == "darker"
            else (rng.uniform(1, 1.1), rng.uniform(0, 12))
        )
        others[name] = np.clip(frames.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)
    for crf in (23, 28):
        path = folder / f"again{crf}.mp4"
        write_video(path, frames, fps, crf=crf)
        others[f"crf{crf}"] = np.stack(list(read_video(path)))
    base = statuses(first)
    for name, pixels in others.items():
        found = statuses(verdict_of(pixels, job, cache, fps))
        changed[name] = [f"{k}: {base[k]} -> {found[k]}" for k in base if base[k] != found[k]]
    return {"key": job.key, "version": VERSION, "kind": job.kind, "overall": first.overall, "changed": changed}


def summary(path: Path) -> dict:
    """Counts per law: videos, verdicts that changed, single checks that changed."""
    rows = (
        [r for r in map(json.loads, path.read_text().splitlines()) if r["version"] == VERSION] if path.exists() else []
    )
    out: dict = {"videos": len(rows), "clean": sum(r["kind"] == "clean" for r in rows), "laws": {}}
    for law in ("twice", "darker", "brighter", "crf23", "crf28"):
        lists = [r["changed"][law] for r in rows]
        out["laws"][law] = {
            "verdicts_changed": sum(any(c.startswith(("overall", "json")) for c in one) for one in lists),
            "checks_changed": sum(len([c for c in one if not c.startswith("overall")]) for one in lists),
            "which": sorted({f"{r['key']} {c}" for r in rows for c in r["changed"][law]})[:12],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/verdicts"))
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=1e9)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    path, deadline = options.cache / "laws.jsonl", time.monotonic() + 60 * options.minutes
    known = path.read_text().splitlines() if path.exists() else []
    done = {r["key"] for r in map(json.loads, known) if r["version"] == VERSION}
    with path.open("a") as stream, tempfile.TemporaryDirectory() as folder:
        for job in chosen(options.cache, options.videos):
            if job.key not in done and time.monotonic() < deadline:
                stream.write(json.dumps(check_laws(job, options.cache, Path(folder))) + "\n")
                stream.flush()
    print(json.dumps(summary(path), indent=1))


if __name__ == "__main__":
    main()
