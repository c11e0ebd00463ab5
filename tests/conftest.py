# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: hypothesis profiles (reduced by default, full with RETAKE_FULL=1).

The reduced one draws the same examples in every run, so that a fresh clone passes or fails by its code; the full one, of
`make prove`, draws new ones each time, as does the reduced one with RETAKE_RANDOM=1.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

with contextlib.suppress(ImportError):
    # USD learns schemas only before the first stage of a process is opened, whichever test does that.
    from retake.usd.stage import register_schemas

    register_schemas()

settings.register_profile(
    "reduced",
    max_examples=15,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("RETAKE_RANDOM") != "1",
)
settings.register_profile(
    "full", max_examples=300, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("full" if os.environ.get("RETAKE_FULL") == "1" else "reduced")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator whose seed is new in every run and printed with a failure; RETAKE_TEST_SEED repeats one."""
    seed = int(os.environ.get("RETAKE_TEST_SEED") or time.time_ns() % 2**32)
    print(f"RETAKE_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True, scope="session")
def shipped_stages_stay() -> Iterator[None]:
    """USD layers are shared by all stages of a process: what one test changes in memory another's `Save` could write."""
    stages = sorted((Path(__file__).parent.parent / "data" / "stages").rglob("*.usd*"))
    before = [path.read_bytes() for path in stages]
    yield
    changed = [path.name for path, content in zip(stages, before, strict=True) if path.read_bytes() != content]
    assert not changed, f"tests have written to {changed}"


@pytest.fixture
def nobody_reaps() -> Iterator[None]:
    """Orphans of killed processes stay zombies, as in a container whose first process reaps none (Linux; else nothing)."""
    PR_SET_CHILD_SUBREAPER = 36
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def pytest_collection_finish() -> None:
    """What importing and collecting made stays to the end; every `gc.collect` of the code under test would walk through it."""
    gc.collect()
    gc.freeze()


APPLICATIONS = ("base", "full", "python", "newton", "lab")
FOR_APPLICATIONS = ("test_isaac_", "test_ui_panel")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests on the fake Isaac Sim run for every application of it at full counts, and for one of them, in turn, otherwise."""
    if not metafunc.module.__name__.startswith(FOR_APPLICATIONS) or metafunc.definition.get_closest_marker(
        "any_application"
    ):
        return
    if os.environ.get("RETAKE_FULL") == "1":
        chosen = APPLICATIONS
    else:
        chosen = (APPLICATIONS[zlib.crc32(metafunc.definition.nodeid.encode()) % len(APPLICATIONS)],)
    metafunc.parametrize("application", chosen, indirect=True)


@pytest.fixture(autouse=True)
def application(request: pytest.FixtureRequest) -> Iterator[str]:
    """The application that FakeKit is in this test (fakes.profiles); a version that has no such is its smallest."""
    if not hasattr(request, "param"):
        yield ""
        return
    from fakes import kit

    kit.APPLICATION = request.param
    yield request.param
    kit.APPLICATION = kit.DEFAULT
