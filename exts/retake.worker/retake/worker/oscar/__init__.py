# SPDX-License-Identifier: Apache-2.0
"""OSCAR-2B, the realism layer: from the released checkpoint to takes, on diffusers.

`from retake.worker.oscar import OscarPipeline`. Names are imported on use: planning windows or reading `--help` needs
no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retake.core.errors import MissingDependencyError, install_hint

if TYPE_CHECKING:
    from .output import OscarPipelineOutput as OscarPipelineOutput
    from .pipeline import OscarPipeline as OscarPipeline
    from .prompts import ProjectedPrompt as ProjectedPrompt
    from .prompts import PromptCache as PromptCache
    from .stages import SafetyChecker as SafetyChecker
    from .transformer import OscarTransformer3DModel as OscarTransformer3DModel

_HOME = {
    "OscarPipeline": "pipeline",
    "SafetyChecker": "stages",
    "OscarPipelineOutput": "output",
    "ProjectedPrompt": "prompts",
    "PromptCache": "prompts",
    "OscarTransformer3DModel": "transformer",
}
__all__ = [
    "OscarPipeline",
    "OscarPipelineOutput",
    "OscarTransformer3DModel",
    "ProjectedPrompt",
    "PromptCache",
    "SafetyChecker",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_HOME[name]}", __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("retake"):
            raise
        raise MissingDependencyError(
            f"{name} needs {error.name}; install the extra: {install_hint('oscar')}"
        ) from error
    return getattr(module, name)
