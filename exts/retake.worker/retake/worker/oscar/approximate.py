# SPDX-License-Identifier: Apache-2.0
"""Opt-in modes that trade exactness for time or memory. Each is off by default and named in every output it touched.

`retake bench oscar --quality` says what each costs in latents, pixels and verdicts on the same seeds (see `quality`). No
claim is made for real weights on a card: none was measured there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from retake.core.errors import InputError, unknown_name

from . import backends, sparse
from .fp8 import multiply_in_float8
from .schedule import DEFAULT_STEPS
from .stepcache import Calibration, Residuals, check_calibration

DEFAULT_THRESHOLD = 0.05  # diffusers' default for FirstBlockCache
PERMANENT = ("fp8", "fp8-storage")
"""Modes that round weights, which nothing brings back."""


def enable(pipe: Any, name: str, **options: Any) -> str:
    """Turn a mode on; the label for the output. Raises InputError for what is unknown or cannot be here.

    "first-block-cache" (threshold): blocks 2.. are skipped in a step whose first block changed little.
    "step-cache" (calibration: Calibration or a file): steps whose change was measured to be small reuse the last one's.
    "guidance-interval" (low, high): guidance only while the flow's sigma (1 = noise, 0 = picture) is between these.
    "fp8": large products in float8. "fp8-storage": weights kept in float8 and widened for each product.
    "sage" (kernel): quantised attention of the package sageattention.
    "sparse-radial", "sparse-tile" (reach): self-attention over near tokens and the given frame.
    """
    if name not in MODES:
        raise InputError(unknown_name("approximate mode", name, MODES))
    begin, valid = _MODES[name]
    if unknown := sorted(set(options) - set(valid)):
        raise InputError(unknown_name(f"option of approximate mode {name!r}", unknown[0], valid or ("none",)))
    if any(label.partition(":")[0] == name for label in pipe.approximations):
        raise InputError(f"{name} is on already")
    return begin(pipe, name, **options)


def read_mode(text: str) -> tuple[str, dict[str, Any]]:
    """`MODE[:OPTION=VALUE,…]` of a command line as a mode and its options. Raises InputError."""
    name, _, rest = text.partition(":")
    if name not in MODES:
        raise InputError(unknown_name("approximate mode", name, MODES))
    options: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        key, sign, value = part.partition("=")
        if not sign or key not in _MODES[name][1]:
            raise InputError(
                f"--approximate {text!r}: {part!r} is no option of {name}; valid: "
                f"{', '.join(f'{one}=VALUE' for one in _MODES[name][1]) or 'none'}"
            )
        try:
            options[key] = json.loads(value)
        except ValueError:  # a word or a path
            options[key] = value
    return name, options


def disable(pipe: Any, active: Sequence[str]) -> None:
    """Undo what can be undone. Raises InputError for modes that rounded the weights."""
    if rounded := [label for label in active if label in PERMANENT]:
        raise InputError(f"{rounded[0]} rounded the weights; load the pipeline again for exact takes")
    transformer = pipe.transformer
    if transformer.is_cache_enabled:
        transformer.disable_cache()
    transformer.residuals, transformer.sparse, pipe.guidance_interval, pipe.calibration = None, None, None, None
    if any(label.startswith("sage") for label in active):
        backends.set_backend(transformer, "native")


def fewer_steps(steps: int) -> tuple[str, ...]:
    """The label of a run with fewer steps than OSCAR's own."""
    return (f"steps:{steps}",) if steps < DEFAULT_STEPS else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first_block_cache(pipe: Any, name: str, threshold: float = DEFAULT_THRESHOLD) -> str:
    from diffusers.hooks import FirstBlockCacheConfig

    if pipe.transformer.residuals is not None:
        raise InputError("first-block-cache and step-cache exclude each other; disable_approximations() first")
    if not (_is_number(threshold) and 0 < threshold < 1):
        raise InputError(f"threshold is {threshold}; valid: above 0, below 1 (0.05 skips little, 0.2 much)")
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    return f"{name}:{threshold:g}"


def _step_cache(pipe: Any, name: str, calibration: Any = None) -> str:
    if isinstance(calibration, (str, Path)):
        calibration = Calibration.load(Path(calibration))
    if not isinstance(calibration, Calibration):
        raise InputError("step-cache needs calibration=FILE, made by `retake bench oscar --calibrate FILE`")
    if pipe.transformer.is_cache_enabled:
        raise InputError("first-block-cache and step-cache exclude each other; disable_approximations() first")
    if calibration.revision != pipe.model_revision:
        check_calibration(calibration, pipe.model_revision, calibration.evaluations, calibration.guidance)
    pipe.calibration, pipe.transformer.residuals = calibration, Residuals(calibration.skips)
    return f"{name}:{len(calibration.skips)}/{calibration.evaluations}"


def _guidance_interval(pipe: Any, name: str, low: float = 0.0, high: float = 1.0) -> str:
    if not (_is_number(low) and _is_number(high) and 0 <= low < high <= 1):
        raise InputError(f"guidance-interval from {low} to {high}; give 0 <= low < high <= 1 (1 = noise, 0 = picture)")
    pipe.guidance_interval = (float(low), float(high))
    return f"{name}:{low:g}-{high:g}"


def _fp8(pipe: Any, name: str) -> str:
    multiply_in_float8(pipe.transformer, pipe.run_device)
    return name


def _fp8_storage(pipe: Any, name: str) -> str:
    # without compute_dtype, `dtype` would answer float8 for the whole model
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=pipe.transformer.dtype)
    return name


def _sage(pipe: Any, name: str, kernel: str = "sage") -> str:
    if kernel not in backends.QUANTISED_BACKENDS:
        raise InputError(unknown_name("kernel of mode 'sage'", kernel, backends.QUANTISED_BACKENDS))
    if reason := backends.obstacle(kernel):
        raise InputError(reason)
    backends.set_backend(pipe.transformer, kernel)
    return f"{name}:{kernel}"


def _sparse(pipe: Any, name: str, reach: int = 1) -> str:
    if pipe.transformer.sparse is not None:
        raise InputError("one sparse pattern at a time; disable_approximations() first")
    kind = name.partition("-")[2]
    sparse.check(kind, reach)
    pipe.transformer.sparse = (kind, reach)
    return f"{name}:{reach}"


_MODES: Mapping[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "first-block-cache": (_first_block_cache, ("threshold",)),
    "step-cache": (_step_cache, ("calibration",)),
    "guidance-interval": (_guidance_interval, ("low", "high")),
    "fp8": (_fp8, ()),
    "fp8-storage": (_fp8_storage, ()),
    "sage": (_sage, ("kernel",)),
    "sparse-radial": (_sparse, ("reach",)),
    "sparse-tile": (_sparse, ("reach",)),
}
MODES = tuple(_MODES)
