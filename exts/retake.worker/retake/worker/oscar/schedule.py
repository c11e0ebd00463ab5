# SPDX-License-Identifier: Apache-2.0
"""When and from what a take is denoised: OSCAR's UniPC schedule, its first-frame rule and its noise."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from retake.core.errors import InputError

FIRST_FRAME_TIMESTEP = 0.1  # what the network sees for the given frame, on the 0..1000 scale
TIMESTEP_SCALE = 0.001
DEFAULT_STEPS, DEFAULT_GUIDANCE, DEFAULT_SEED = 35, 6.0, 42

# Karras spacing between these sigmas always applies in OSCAR, so its `shift` option has no effect.
SCHEDULER_CONFIG: dict[str, Any] = {
    "prediction_type": "flow_prediction",
    "use_karras_sigmas": True,
    "use_flow_sigmas": True,
    "sigma_max": 200.0,
    "sigma_min": 0.01,
    "solver_order": 2,
    "solver_type": "bh2",
}


def make_scheduler() -> UniPCMultistepScheduler:
    """UniPC as OSCAR runs it: order 2, bh2, x0 prediction, corrector on every step but the first."""
    return UniPCMultistepScheduler(**SCHEDULER_CONFIG)


def start_schedule(scheduler: UniPCMultistepScheduler, steps: int, device: torch.device | str) -> Tensor:
    """Prepare `steps` steps, which in OSCAR mean steps + 1 evaluations; the integer timesteps (steps + 1,)."""
    with warnings.catch_warnings():  # diffusers hands a tensor to numpy's older protocol; the values are right
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        scheduler.set_timesteps(steps + 1, device=device)
    scheduler.set_begin_index(0)
    return scheduler.timesteps


def make_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 standard normal noise of OSCAR's latent shape: numpy's legacy generator, not multiplied by a sigma."""
    return torch.from_numpy(np.random.RandomState(check_seed(seed)).standard_normal(shape).astype(np.float32))


def check_seed(seed: Any) -> int:
    """A seed numpy's legacy generator takes. Raises InputError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**32:
        raise InputError(f"seed {seed!r} is not usable: give a whole number from 0 to 4294967295")
    return int(seed)


def window_seed(seed: int, window: int) -> int:
    """The seed of the window-th window of a long take: the take's own for the first, then far apart from neighbours."""
    return (check_seed(seed) + 7919 * window) % 2**32


def net_timesteps(timestep: int, frames: int, device: torch.device | str) -> Tensor:
    """(1, T) float32 timesteps the network sees, scaled: the given first frame, then every other frame."""
    values = torch.full((1, frames), float(timestep), dtype=torch.float32, device=device)
    values[:, 0] = FIRST_FRAME_TIMESTEP
    return values * TIMESTEP_SCALE
