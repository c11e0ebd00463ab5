# SPDX-License-Identifier: Apache-2.0
"""What a run returns: frames, how they were made, and what it cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from diffusers.utils import BaseOutput
from torch import Tensor

from .fit import FitRecord
from .windows import Seam, Window, windows_to_json


@dataclass
class RunStats:
    """Counts and times of one call. Encodes are counted in pixel frames; seconds by stage, wall clock."""

    evaluations: int = 0
    text_encodes: int = 0
    prompts_from_cache: int = 0
    first_frame_frames: int = 0
    skeleton_frames: int = 0
    decoded_latent_frames: int = 0
    resumed_steps: int = 0
    """Steps taken over from a try that ran out of memory."""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_device_bytes: int = 0


@dataclass
class OscarPipelineOutput(BaseOutput):
    """The takes of one call.

    frames: "np" uint8 RGB (N, T, H, W, 3); "pt" float32 (N, T, 3, H, W) in [0, 1]; "latent" float32 (N, 16, t, h, w).
    seeds: one per take. tier: the memory tier that ran. kernels: "reference" or "fused".
    first_frame_fits, skeleton_fit: how pictures were sized.
    windows: what part of the skeleton each pass saw. seams: per take, one per change of window.
    approximations: names of opt-in approximate modes that were on; empty for an exact run. retried: after an
    out-of-memory error.
    """

    frames: np.ndarray | Tensor
    seeds: tuple[int, ...] = ()
    tier: str = ""
    kernels: str = "reference"
    retried: bool = False
    exact_first_frame: bool = False
    first_frame_fits: tuple[FitRecord, ...] = ()
    skeleton_fit: FitRecord | None = None
    windows: tuple[Window, ...] = ()
    seams: tuple[tuple[Seam, ...], ...] = ()
    approximations: tuple[str, ...] = ()
    stats: RunStats = field(default_factory=RunStats)

    def report(self) -> dict[str, Any]:
        """Everything but the frames, as plain JSON values (a non-finite number becomes null)."""
        return {
            "seeds": list(self.seeds),
            "tier": self.tier,
            "kernels": self.kernels,
            "retried": self.retried,
            "exact_first_frame": self.exact_first_frame,
            "approximations": list(self.approximations),
            "first_frame_fits": [fit.to_json() for fit in self.first_frame_fits],
            "skeleton_fit": self.skeleton_fit.to_json() if self.skeleton_fit else None,
            "windows": windows_to_json(self.windows),
            "seams": [
                [
                    {"frame": s.frame, "psnr_db": _finite(s.psnr_db), "jump": _finite(s.jump), "ok": s.ok}
                    for s in take
                ]
                for take in self.seams
            ],
            "stats": asdict(self.stats),
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
