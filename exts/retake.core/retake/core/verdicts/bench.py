# SPDX-License-Identifier: Apache-2.0
"""`retake bench verify`: seconds to judge one take, against the take's own duration (real time is the baseline)."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from retake.core.episode import open_episode
from retake.core.files import write_json
from retake.core.host import load_average
from retake.core.verdicts.judge import examine
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.truth import forget


def main(argv: list[str]) -> int:
    """Judge a video several times, with and without the episode's cache; prints a table, writes JSON."""
    parser = argparse.ArgumentParser(
        prog="retake bench verify",
        description="How long a verdict takes. A factor above 1 is faster than the video plays.",
        epilog="example: retake bench verify take.mp4 --episode runs/demo/episode --camera front --json bench.json",
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--episode", type=Path, required=True)
    parser.add_argument("--camera", required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    episode, settings = open_episode(options.episode), load_settings()
    rows = []
    for name in ("first take of an episode", "further takes"):
        walls, cpus = [], []
        for _ in range(options.repeat):
            if name.startswith("first"):
                forget()
            wall, cpu = time.perf_counter(), time.process_time()
            judged = examine(options.video, episode, options.camera, config=settings)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        duration = judged.verdict.frames / judged.verdict.fps
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        rows.append(
            {"what": name, "wall_s": wall, "cpu_s": cpu, "video_s": duration, "real_time_factor": duration / wall,
             "real_time_factor_cpu": duration / cpu}
        )  # fmt: skip
        print(
            f"{name:<26} wall {wall:6.2f} s  cpu {cpu:6.2f} s  video {duration:.2f} s  {duration / wall:.2f}× real time"
        )
    result = {"cpus": os.cpu_count(), "load": load_average(), "frames": judged.verdict.frames,
              "size": list(judged.verdict.size), "rows": rows}  # fmt: skip
    if options.json:
        write_json(options.json, result)
    else:
        print(json.dumps(result))
    return 0
