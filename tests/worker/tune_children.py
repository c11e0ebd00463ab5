# SPDX-License-Identifier: Apache-2.0
"""Trainings in processes of their own, forked from one that has torch and the training loop imported already.

Importing them takes a process seconds, a training of these sizes a fraction of one. What is forked holds nothing else yet.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["retake.worker.oscar.pipeline", "retake.worker.tune.trainer", "torch.utils.tensorboard.writer"]
)


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it had printed."""

    code: int | None
    out: str
    err: str


def _seeded_trainer(folder: Path, **changes: Any) -> Any:
    import torch
    from tune_clips import make_trainer

    torch.manual_seed(5)
    return make_trainer(folder, **changes)


# -- one process, killed at any moment --------------------------------------------------------------------------------


def _train_alone(folder: Path, steps_done: Connection) -> None:
    trainer = _seeded_trainer(folder, steps=400, save_every=1, keep=2)
    trainer.run(progress=lambda done, total, note: steps_done.send(done))


def start_alone(folder: Path) -> tuple[BaseProcess, Connection]:
    """A training of 400 steps that keeps every one, and the end that each finished step is told at."""
    steps_done, told = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_train_alone, args=(folder, told), daemon=True)
    process.start()
    told.close()
    return process, steps_done


# -- two processes of one group ---------------------------------------------------------------------------------------


def train(world: Any, folder: Path, how: str, steps: int) -> None:
    """Up to `steps`, sharded or replicated; the main process prints the losses of the steps that it did."""
    found = _seeded_trainer(folder, world=world, shard=how == "shard", steps=steps).run()
    if world.is_main:
        print(json.dumps(found.losses))


def train_until_one_ends(world: Any, folder: Path, how: str) -> None:
    """The second process is killed, or asked to stop, after two steps."""
    from retake.core.errors import Cancelled

    trainer = _seeded_trainer(folder, world=world, steps=4)

    def progress(done: int, total: int, note: str) -> None:
        if done == 2 and world.rank == 1 and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def cancel() -> None:
        if world.rank == 1 and how == "stop" and trainer.tuner.optimizer.iteration == 2:
            raise Cancelled("asked")

    try:
        trainer.run(progress, cancel)
    except Cancelled as error:
        print(error)


def _join(environment: dict[str, str], streams: tuple[Path, Path], does: Callable[..., None], arguments: Any) -> None:
    os.environ.update(environment)
    sys.stdout, sys.stderr = (open(path, "w") for path in streams)  # noqa: SIM115 - the process's own, to its end
    import torch

    from retake.worker.tune.distributed import join_world, leave_world

    does(join_world(torch.device("cpu")), *arguments)
    leave_world()


def two(scratch: Path, does: Callable[..., None], *arguments: Any) -> list[Ended]:
    """How the two processes of one group ended that `does` with their world and these arguments."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started, streams = [], []
    for rank in range(2):
        environment = {
            "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        streams.append((scratch / f"out{rank}", scratch / f"err{rank}"))
        process = FORKS.Process(target=_join, args=(environment, streams[-1], does, arguments), daemon=True)
        process.start()
        started.append(process)
    for process in started:
        process.join(timeout=400)
    return [
        Ended(process.exitcode, *(path.read_text() if path.is_file() else "" for path in paths))
        for process, paths in zip(started, streams, strict=True)
    ]
