# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning OSCAR on sim-supervised pairs: simulated motion and physics on one side, the picture of it on the other.

`step` is the reference's training step, `data` windows of run folders and datasets, `objects` what tells the model about
simulated objects, `trainer` the loop with checkpoints, `evaluate` whether it helped. Names are imported on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retake.core.plugins import lazy_names

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

__getattr__ = lazy_names(__name__, _HOME, "install the extras `oscar` and `tune`")
