# SPDX-License-Identifier: Apache-2.0
"""Opt-in modes that trade exactness for time or memory. Each is off by default and named in every output it touched.

No quality claim is made for any of them: they run on the test network, and await measurement with real weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from retake.core.errors import InputError, unknown_name

from .schedule import DEFAULT_STEPS
from .transformer import OscarTransformer3DModel

MODES = ("first-block-cache", "fp8")
DEFAULT_THRESHOLD = 0.05  # diffusers' default for FirstBlockCache


def enable(transformer: OscarTransformer3DModel, name: str, threshold: float = DEFAULT_THRESHOLD) -> str:
    """Turn a mode on; the label for the output. Raises InputError.

    "first-block-cache": blocks 2.. are skipped in a step whose first block changed little since the last one computed.
    "fp8": block weights are kept in float8 (e4m3) and widened for each product: half the weight memory.
    """
    if name not in MODES:
        raise InputError(unknown_name("approximate mode", name, MODES))
    if name == "first-block-cache":
        from diffusers.hooks import FirstBlockCacheConfig

        if transformer.is_cache_enabled:
            raise InputError("first-block-cache is on already")
        if not 0 < threshold < 1:
            raise InputError(f"threshold is {threshold}; valid: above 0, below 1 (0.05 skips little, 0.2 much)")
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
        return f"first-block-cache:{threshold:g}"
    # without this, `dtype` would answer float8 for the whole model
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=transformer.dtype)
    return "fp8"


def disable(transformer: OscarTransformer3DModel, active: Sequence[str]) -> None:
    """Undo what can be undone. Raises InputError for fp8, whose rounding is permanent."""
    if "fp8" in active:
        raise InputError("fp8 rounded the weights; load the pipeline again for exact takes")
    if transformer.is_cache_enabled:
        transformer.disable_cache()


def fewer_steps(steps: int) -> tuple[str, ...]:
    """The label of a run with fewer steps than OSCAR's own."""
    return (f"steps:{steps}",) if steps < DEFAULT_STEPS else ()
