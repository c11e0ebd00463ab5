# SPDX-License-Identifier: Apache-2.0
"""OSCAR-2B, the realism layer: from the released checkpoint to takes, on diffusers.

`from retake.worker.oscar import OscarPipeline`. Names are imported on use: planning windows or reading `--help` needs
no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retake.core.errors import install_hint
from retake.core.plugins import lazy_names

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

__getattr__ = lazy_names(__name__, _HOME, f"install the extra: {install_hint('oscar')}")
