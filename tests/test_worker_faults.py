# SPDX-License-Identifier: Apache-2.0
"""Faults: processes killed, disk full, database damaged. Each ends with every take there exactly once, equal to an
undisturbed run. Counts are small here; `make prove` runs the same functions with the full ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import worker_scenarios as scenarios

FULL = os.environ.get("RETAKE_FULL") == "1"


def test_executor_killed_at_random_points(tmp_path: Path) -> None:
    assert scenarios.executor_kills(tmp_path, 50 if FULL else 3)["kills"] >= 3


def test_a_broken_cuda_context_is_one_jobs_fault(tmp_path: Path) -> None:
    assert scenarios.poisoned_contexts(tmp_path, 60 if FULL else 6)["faults"] >= 2


def test_service_killed_in_mid_job(tmp_path: Path) -> None:
    assert scenarios.service_kills(tmp_path, 20 if FULL else 2)["in_mid_job"] >= 1


def test_plug_pulled(tmp_path: Path) -> None:
    scenarios.service_kills(tmp_path, 10 if FULL else 1, everything=True)


def test_disk_full_while_writing(tmp_path: Path) -> None:
    scenarios.disk_full(tmp_path)


@pytest.mark.parametrize("with_backup", [True, False])
def test_database_damaged(tmp_path: Path, with_backup: bool) -> None:
    rounds = 5 if FULL else 1
    assert scenarios.corrupted(tmp_path, rounds, with_backup=with_backup)["noticed"] == rounds


def test_two_clients_submit_the_same_jobs(tmp_path: Path) -> None:
    scenarios.two_clients(tmp_path, 500 if FULL else 30)


def test_many_jobs(tmp_path: Path) -> None:
    found = scenarios.big_queue(tmp_path, 10_000 if FULL else 1000)
    # Processor time, so that a busy machine does not fail it; the proof states wall-clock figures, too.
    assert found["submit_per_cpu_s"] >= 500
    assert found["service_memory_mb"] < 200


def test_cancel_within_five_seconds(tmp_path: Path) -> None:
    found = scenarios.cancel_times(tmp_path, 5 if FULL else 1)
    assert found["deaf_worst_s"] < 5
    assert found["listening_worst_s"] < 5


def test_release_gives_the_memory_back(tmp_path: Path) -> None:
    scenarios.release_memory(tmp_path)


def test_api_fuzzed_from_its_own_description(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="the API fuzzer is not installed; `make sync` brings it")
    found = scenarios.fuzz(tmp_path, 10_000 if FULL else 150)
    assert found["cases"] >= (10_000 if FULL else 100)
