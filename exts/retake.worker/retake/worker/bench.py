# SPDX-License-Identifier: Apache-2.0
"""`retake bench worker`: what the service costs. Baseline, in the same run: the same jobs in this process."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import CameraFrame, CameraSpec, EpisodeHeader, EpisodeWriter, Frame
from retake.core.errors import InputError
from retake.core.files import sha256_file, write_json
from retake.core.host import load_average
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import SKELETON_RECORD, VARIANT_FRAME, VARIANT_RECORD
from retake.core.run_reader import RunReader
from retake.core.takes.base import TakeRequest
from retake.core.variants.base import Variant, World
from retake.core.wire import TakeJob
from retake.core.worker_client import WorkerClient

SIZE = (64, 48)


class BenchBackend:
    """Two small frames at once: what is left is overhead."""

    name, version, domain, licence = "bench", "1", "composite", "Apache-2.0"

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """`request.frames` grey frames of the seed."""
        for index in range(request.frames):
            check_cancel()
            progress(index + 1, request.frames, "")
            yield np.full((SIZE[1], SIZE[0], 3), request.seed % 256, np.uint8)


def main(argv: list[str]) -> int:
    """Measure and print a table; `--json FILE` also writes it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="retake bench worker", description=__doc__)
    parser.add_argument("--jobs", type=int, default=60, help="jobs per measurement (default 60)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(argv)
    if not 5 <= options.jobs <= 100_000:
        raise InputError(f"--jobs {options.jobs} is not within 5 … 100000")
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        figures = measure(Path(folder), options.jobs)
    for name, value in figures.items():
        print(f"{name:<44} {value}")
    if options.json:
        write_json(options.json, figures)
    return 0


def measure(folder: Path, count: int) -> dict[str, Any]:
    """All figures, in ms where the name says so."""
    import subprocess

    import yaml

    from retake.worker.execute import LocalRunner
    from retake.worker.settings import BackendSpec

    spec = {"kind": "take", "target": "retake.worker.bench:BenchBackend"}
    make_inputs(folder / "root")
    runner = LocalRunner({"bench": BackendSpec("bench", "take", spec["target"])})
    runner.run(_job(folder, 0, "warm"))
    local = _times(count, lambda k: runner.run(_job(folder, 1000 + k, f"local-{k}")))
    (folder / "worker.yaml").write_text(
        yaml.safe_dump({"backends": {"bench": spec}, "waiting": {"disk_floor_gib": 0.0}}), "utf-8"
    )
    command = [
        sys.executable, "-m", "retake.worker", "--port", "0", "--state", str(folder / "state"), "--root", str(folder / "root"),
        "--config", str(folder / "worker.yaml"),
    ]  # fmt: skip
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline() or "{}")
        if not ready:
            raise InputError(
                f"the service did not start: {(folder / 'service.log').read_text('utf-8', 'replace')[-500:]}"
            )
        client = WorkerClient(ready["url"], Path(ready["token_file"]).read_text("ascii").strip(), timeout_s=30)
        cold = _first_progress(client, _job(folder, 1, "cold"))
        warm = [_first_progress(client, _job(folder, 2 + k, f"first-{k}")) for k in range(min(count, 30))]
        jobs = [_job(folder, 5000 + k, f"service-{k}") for k in range(count)]
        client.pause()
        ids = [record.id for record in client.submit(jobs)]
        began = time.monotonic()
        client.resume()
        while client.status().counts["queued"] or client.status().running:
            time.sleep(0.02)
        per_job = (time.monotonic() - began) / count
        made = [client.job(job_id) for job_id in ids]
        if any(record.state != "done" for record in made):
            raise InputError("a bench job failed; see the worker's log")
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
    return {
        "jobs": count,
        "in-process, ms per job (median)": round(1000 * statistics.median(local), 1),
        "in-process, ms per job (mean)": round(1000 * statistics.mean(local), 1),
        "service, ms per job (mean)": round(1000 * per_job, 1),
        "overhead, ms per job": round(1000 * (per_job - statistics.mean(local)), 1),
        "submit to first progress, warm, ms (median)": round(1000 * statistics.median(warm), 1),
        "submit to first progress, warm, ms (worst)": round(1000 * max(warm), 1),
        "submit to first progress, cold executor, ms": round(1000 * cold, 1),
        "load average": None if (load := load_average()) is None else round(load, 1),
        "cores": os.cpu_count(),
    }


def make_inputs(root: Path) -> None:
    """The least that a take job needs: a two-frame episode, a skeleton's identity, a first frame."""
    header = EpisodeHeader(
        "bench", 15, 1 / 480, (), (CameraSpec("front", "/World/Cam", SIZE, True, ("rgb",)),), joint_channels=()
    )
    K = np.array([[60.0, 0, SIZE[0] / 2], [0, 60.0, SIZE[1] / 2], [0, 0, 1]])
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    run = RunReader(root)
    with EpisodeWriter(run.episode, header) as writer:
        for index in range(2):
            writer.append(Frame(index / 15, (), np.zeros((0, 4, 4)), (CameraFrame(K, np.eye(4), image),)))
        writer.finish()
    write_json(run.skeleton("front") / SKELETON_RECORD, {"sha256": "0" * 64})
    frame = run.variant_folder("v") / VARIANT_FRAME
    frame.parent.mkdir(parents=True)
    cv2.imwrite(str(frame), image)
    variant = Variant(
        "v", World("v", "lab", "table", "box", "day"), 0, "", "", sha256_file(frame), "folder", "1", "Apache-2.0", {}
    )
    write_json(frame.parent / VARIANT_RECORD, {"schema": "retake.variant/1", **asdict(variant)})


def _job(folder: Path, seed: int, name: str) -> TakeJob:
    run = RunReader(folder / "root")
    request = TakeRequest(
        run.episode, "front", run.skeleton("front"), run.variant_folder("v"), "bench", seed=seed, frames=2
    )
    return TakeJob(request, run.take_folder(name), "bench")


def _times(count: int, call: Any) -> list[float]:
    found = []
    for k in range(count):
        began = time.monotonic()
        call(k)
        found.append(time.monotonic() - began)
    return found


def _first_progress(client: WorkerClient, job: TakeJob) -> float:
    """Seconds from submitting to the first sign of work, as a polling client sees it (5 ms steps)."""
    began = time.monotonic()
    [record] = client.submit([job])
    while record.done == 0 and record.state in ("queued", "running"):
        time.sleep(0.005)
        record = client.job(record.id)
    seen = time.monotonic() - began
    client.wait([record.id], poll_s=0.02)
    return seen
