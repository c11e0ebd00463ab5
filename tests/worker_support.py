# SPDX-License-Identifier: Apache-2.0
"""A place with a real (tiny) episode, skeleton and first frame, jobs about it, and a service in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import yaml
from worker_fakes import SIZE, frame_of

from retake.core.codec import merged
from retake.core.episode import CameraFrame, CameraSpec, EpisodeHeader, EpisodeWriter, Frame, RobotState
from retake.core.files import read_json, sha256_file
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec
from retake.core.skeleton import make_skeleton
from retake.core.takes.base import TakeRequest
from retake.core.variants.base import Variant, World
from retake.core.wire import JobRecord, TakeJob
from retake.core.worker_client import WorkerClient
from retake.worker.settings import BackendSpec, WorkerSettings, load_settings

HERE = Path(__file__).parent
FAKES = {
    "sleepy": {"kind": "take", "target": "worker_fakes:SleepyBackend"},
    "heavy": {"kind": "take", "target": "worker_fakes:SleepyBackend", "options": {"ballast_mb": 200}},
    "gpu": {
        "kind": "take",
        "target": "worker_fakes:SleepyBackend",
        "options": {"gpu": "x"},
        "tiers": {"big": 10, "small": 4},
    },
    "broken": {"kind": "take", "target": "worker_fakes:BrokenBackend"},
    "nowhere": {"kind": "take", "target": "no_such_module:Backend"},
}
CONFIG: dict[str, Any] = {
    "backends": FAKES,
    "queue": {"retry_delay_s": 0.05, "backup_s": 0.2},
    "executor": {"cancel_grace_s": 0.5},
    "waiting": {"disk_floor_gib": 0.0},
}


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "it") -> Any:
    """Poll until true; returns the value."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.02)
    return value


@dataclass(frozen=True)
class Place:
    """A root with one run in it."""

    root: Path
    frames: int = 6

    @property
    def run(self) -> Path:
        return self.root / "run"

    def job(self, seed: int = 1, name: str = "", **change: Any) -> TakeJob:
        """A take job of the sleepy backend; keywords are settings, or fields of the job."""
        fields = {k: change.pop(k) for k in ("priority", "max_attempts", "backend", "output") if k in change}
        frames = change.pop("frames", self.frames)
        request = TakeRequest(
            self.run / "episode", "front", self.run / "skeleton" / "front", self.run / "variants" / "v0" / "front",
            f"a packet, seed {seed}", seed=seed, frames=frames, settings=change,
        )  # fmt: skip
        output = fields.pop("output", self.run / "takes" / (name or f"v0-s{seed}") / "front")
        return TakeJob(request, output, **{"backend": "sleepy", **fields})

    def takes(self) -> dict[str, str]:
        """Finished takes: world and seed → hash of the video, each checked against its sidecar."""
        found = {}
        for sidecar in sorted(self.run.glob("takes/*/front/take.json")):
            data = read_json(sidecar)
            video = sha256_file(sidecar.parent / "take.mp4")
            assert video == data["video_sha256"], f"{sidecar} does not belong to its video"
            found[sidecar.parent.parent.name] = video
        return found

    def leftovers(self) -> list[str]:
        """Files in the takes folder that are neither take nor sidecar, and folders without a take."""
        folder = self.run / "takes"
        stray = [str(p) for p in folder.rglob("*") if p.is_file() and p.name not in ("take.mp4", "take.json")]
        return (
            stray + [str(p) for p in folder.iterdir() if p.is_dir() and not (p / "front" / "take.json").exists()]
            if folder.exists()
            else []
        )


def make_place(root: Path, frames: int = 6, size: tuple[int, int] = SIZE, variants: int = 1) -> Place:
    """Write a tiny episode, its skeleton and first frames under root/run."""
    run = root / "run"
    robot = RobotSpec(
        "arm", "/World/arm",
        (LinkSpec("base", "/World/arm/base"), LinkSpec("hand", "/World/arm/hand"), LinkSpec("left", "/World/arm/left")),
        (
            JointSpec("turn", "revolute", 0, 1, (0.0, 0.0, 1.0), np.eye(4), np.eye(4), -2.0, 2.0, 3.0, 80.0),
            JointSpec("finger", "prismatic", 1, 2, (0.0, 1.0, 0.0), np.eye(4), np.eye(4), 0.0, 0.04, 0.2, 20.0),
        ),
        (GripperSpec("grip", "hand", np.eye(4), ("finger",), (0.04,), (0.0,)),),
    )  # fmt: skip
    header = EpisodeHeader(
        "pick up the packet", 15, 1 / 480, (robot,), (CameraSpec("front", "/World/Cam", size, True, ("rgb",)),),
        joint_channels=(), seed=3, settings={"licence": "Apache-2.0"},
    )  # fmt: skip
    K = np.array([[60.0, 0, size[0] / 2], [0, 60.0, size[1] / 2], [0, 0, 1]])
    with EpisodeWriter(run / "episode", header) as writer:
        for index in range(frames):
            poses = np.tile(np.eye(4), (3, 1, 1))
            poses[:, 2, 3] = 1.0
            poses[1, 0, 3], poses[2, 0, 3] = 0.1 + 0.01 * index, 0.2 + 0.01 * index
            state = RobotState(np.array([0.1 * index, 0.02]), poses, np.array([0.5]))
            camera = CameraFrame(K, np.eye(4), frame_of(7, index, size))
            writer.append(Frame(index / 15, (state,), np.zeros((0, 4, 4)), (camera,)))
        episode = writer.finish()
    make_skeleton(episode, "front", run / "skeleton" / "front")
    for v in range(variants):
        folder = run / "variants" / f"v{v}" / "front"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "frame.png"), frame_of(11 + v, 0, size))
        world = World(f"v{v}", "lab", "table", "packet", "day")
        variant = Variant(
            f"v{v}/front", world, 0, f"a packet on a table, variant {v}", "", sha256_file(folder / "frame.png"), "folder", "1",
            "Apache-2.0", {},
        )  # fmt: skip
        (folder / "variant.json").write_text(json.dumps({"schema": "retake.variant/1", **asdict(variant)}))
    return Place(root, frames)


def settings_for(tmp: Path, **sections: dict[str, Any]) -> tuple[WorkerSettings, Path]:
    """Settings with the test backends, and the file that says so."""
    data = {k: {**CONFIG.get(k, {}), **sections.get(k, {})} for k in {*CONFIG, *sections}}
    path = tmp / "worker-test.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_settings(path), path


def specs() -> dict[str, BackendSpec]:
    """The test backends' specs."""
    return merged(WorkerSettings(), {"backends": FAKES}, "fakes").backend_specs()


def environment() -> dict[str, str]:
    """For child processes: the fakes are importable, native libraries use one thread."""
    paths = [str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }


@dataclass
class ServiceProcess:
    """`python -m retake.worker` as a user starts it."""

    place: Place
    state: Path
    config: Path
    roots: tuple[Path, ...] = ()
    process: Any = None
    client: Any = None
    url: str = ""
    extra: list[str] = field(default_factory=list)

    def start(self) -> WorkerClient:
        self.state.mkdir(parents=True, exist_ok=True)
        log = (self.state / "service.log").open("ab")
        roots = self.roots or (self.place.root,)
        command = [
            sys.executable,
            "-m",
            "retake.worker",
            "--port",
            "0",
            "--state",
            str(self.state),
            "--config",
            str(self.config),
        ]
        for root in roots:
            command += ["--root", str(root)]
        self.process = subprocess.Popen(
            [*command, *self.extra], stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
        )
        log.close()
        line = self.process.stdout.readline()
        assert line, f"service did not start: {(self.state / 'service.log').read_text()[-2000:]}"
        ready = json.loads(line)
        self.url = ready["url"]
        self.client = WorkerClient(ready["url"], Path(ready["token_file"]).read_text().strip(), timeout_s=10)
        return self.client

    def kill(self) -> None:
        """kill -9 of the service alone."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def kill_everything(self) -> None:
        """The plug is pulled: service and all its children, at once."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            process.suspend()  # nobody sees the others die
        for process in family:
            process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.terminate()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code

    def executor(self) -> psutil.Process | None:
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return None
        return next((c for c in children if _is_executor(c)), None)


def _is_executor(process: psutil.Process) -> bool:
    try:
        return "retake.worker.executor" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def all_done(client: WorkerClient, ids: Iterable[str], timeout_s: float = 60.0) -> tuple[JobRecord, ...]:
    """Wait; every job must be done."""
    records = client.wait(list(ids), poll_s=0.05, timeout_s=timeout_s)
    bad = [(r.id, r.state, r.error) for r in records if r.state != "done"]
    assert not bad, bad
    return records


TUNING = {
    "steps": 100,
    "step": {"lr": 3e-5, "lora": {"rank": 32, "alpha": 32}, "objects": {"weight": 4.0, "release_boost": 2.0, "control": "none"}},
}  # fmt: skip


def make_tuning(folder: Path, steps: int = 10, settings: dict[str, Any] | None = None) -> Path:
    """The folder of a training that has done `steps` steps, with a checkpoint of step 8 and a picture."""
    (folder / "curves" / "pictures").mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"base": "abc", "settings": settings or TUNING}))
    (folder / "command.json").write_text('{"command": "cd /data && retake tune run runs/a --out drop"}')
    (folder / "state.json").write_text('{"step": 8}')
    (folder / "curves" / "pictures" / "step-000008.png").write_bytes(
        cv2.imencode(".png", np.full((32, 96, 3), 120, np.uint8))[1].tobytes()
    )
    lines = [{"step": k, "loss": 1 - k / 1000, **({"seconds": 2.0} if k else {})} for k in range(steps)]
    lines.insert(8, {"step": 8, "validation_falling": 0.5})
    (folder / "curves" / "curves.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 10, "lo'
    )
    return folder
