# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning OSCAR on sim-supervised pairs: simulated motion and physics on one side, the picture of it on the other.

`step` is the reference's training step, `data` windows of run folders and datasets, `objects` what tells the model about
simulated objects, `trainer` the loop with checkpoints, `evaluate` whether it helped. Names are imported on use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retake.core.errors import MissingDependencyError

if TYPE_CHECKING:
    from .config import LinearSchedule as LinearSchedule
    from .config import LoraSettings as LoraSettings
    from .config import ObjectSupervision as ObjectSupervision
    from .config import TuneConfig as TuneConfig
    from .step import Batch as Batch
    from .step import StepResult as StepResult
    from .step import Tuner as Tuner

_HOME = {
    "Batch": "step",
    "LinearSchedule": "config",
    "LoraSettings": "config",
    "ObjectSupervision": "config",
    "StepResult": "step",
    "TuneConfig": "config",
    "Tuner": "step",
}
__all__ = ["Batch", "LinearSchedule", "LoraSettings", "ObjectSupervision", "StepResult", "TuneConfig", "Tuner"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_HOME[name]}", __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("retake"):
            raise
        raise MissingDependencyError(f"{name} needs {error.name}; install the extras `oscar` and `tune`") from error
    return getattr(module, name)
