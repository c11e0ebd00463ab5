# SPDX-License-Identifier: Apache-2.0
"""Importing Newton and Warp quietly, with kernels cached where the user's caches live."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from retake.core.errors import MissingDependencyError, install_hint


def cache_dir() -> Path:
    """Where compiled kernels are kept: WARP_CACHE_PATH, else XDG_CACHE_HOME/retake/warp, else ~/.cache/retake/warp."""
    if own := os.environ.get("WARP_CACHE_PATH"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retake" / "warp"


@lru_cache(maxsize=1)
def load() -> tuple[ModuleType, ModuleType]:
    """The modules `newton` and `warp`, initialised once. Raises MissingDependencyError naming the extra."""
    try:
        import warp as wp
    except ImportError as error:
        raise MissingDependencyError(_missing(error)) from error
    os.environ.setdefault("WARP_CACHE_PATH", str(cache_dir()))
    wp.config.kernel_cache_dir = str(cache_dir())
    wp.config.log_level = wp.LOG_ERROR
    # Adjoint code would double what is compiled on the first run; nothing here differentiates.
    wp.config.enable_backward = False
    # Warp leaves the folder of its precompiled headers to the interpreter's end, which reports that as untidy.
    warnings.filterwarnings("ignore", r"Implicitly cleaning up <TemporaryDirectory '.*wp_pch_", ResourceWarning)
    with _without_stderr():
        wp.init()
    try:
        with _without_collector():
            import mujoco_warp  # noqa: F401  # Newton's MuJoCo solver imports it in any case, later

            import newton
    except ImportError as error:
        raise MissingDependencyError(_missing(error)) from error
    return newton, wp


def versions() -> str:
    """Simulator version for the episode header: the three packages that determine a trajectory."""
    return ", ".join(f"{name} {version(name)}" for name in ("newton", "mujoco", "warp-lang"))


def _missing(error: ImportError) -> str:
    return f"the embedded simulator needs the extra 'newton' ({error}); install it: {install_hint('newton')}"


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Import without garbage collection, then exempt what was imported from it.

    Warp's code generator keeps most of a million objects for ever. Measured on two cores: imports take a quarter less
    time, and the interpreter ends in 0.2 s instead of 3 to 6 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Warp's native start-up reports a missing CUDA driver on file descriptor 2 whatever its log level says."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
