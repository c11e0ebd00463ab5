# SPDX-License-Identifier: Apache-2.0
"""The same training run on a Ray cluster: Ray starts the processes and starts them again when one dies; we do the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retake.core.errors import InputError, MissingDependencyError, TakeError, install_hint


def train_on_ray(
    work: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    *,
    processes: int,
    storage: Path,
    gpus: bool,
    address: str = "local",
    restarts: int = 3,
) -> None:
    """Run `work(arguments)` in `processes` processes that share a process group (NCCL with `gpus`, else gloo).

    `work` calls `launch.train` or makes a `Trainer`; checkpoints lie on storage that all nodes share, so a restarted group
    goes on from the newest one. Raises InputError, MissingDependencyError, or TakeError when Ray gave up.
    """
    if processes < 1:
        raise InputError(f"processes is {processes}; valid: 1 or more")
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise MissingDependencyError(f"Ray Train needs {error.name}: {install_hint('ray-train')}") from error
    own = not ray.is_initialized()
    if own:
        ray.init(address=None if address == "local" else address, include_dashboard=False, logging_level=logging.ERROR,
                 log_to_driver=False, configure_logging=False)  # fmt: skip
    try:
        trainer = TorchTrainer(
            work,
            train_loop_config=arguments,
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpus),
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            run_config=RunConfig(
                storage_path=str(storage.absolute()), failure_config=FailureConfig(max_failures=restarts)
            ),
        )
        result = trainer.fit()
        if result.error is not None:
            raise TakeError(f"training on Ray failed after {restarts} restarts: {result.error}")
    finally:
        if own:
            ray.shutdown()


def train_from_folders(arguments: dict[str, Any]) -> None:
    """What each process of `retake tune run --ray` does: `launch.train` with these keywords."""
    from .launch import train

    train(**arguments)
