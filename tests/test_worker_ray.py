# SPDX-License-Identifier: Apache-2.0
"""Fan-out over a Ray cluster of two nodes, one of which dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import worker_scenarios as scenarios
from worker_support import make_place, specs

from retake.core.errors import InputError, WorkerError

FULL = os.environ.get("RETAKE_FULL") == "1"
# Ray's own processes leave sockets and deprecated calls behind; none of them is ours.
pytestmark = [
    pytest.mark.xdist_group("worker_ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::UserWarning"
    ),
]


def test_a_lost_node_loses_nothing_and_two_are_twice_as_fast(tmp_path: Path, nobody_reaps: None) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'isaac-retake[ray]'")
    found = scenarios.ray_lost_node(tmp_path, 60 if FULL else 8)
    assert found["actors_lost"] >= 1
    assert found["speed_up_2_workers"] >= (1.8 if FULL else 1.5), (
        found
    )  # a busy machine may cost a little; the proof asks 1.8


def test_two_jobs_for_one_folder_and_a_missing_cluster_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'isaac-retake[ray]'")
    from retake.worker.ray_run import fan_out

    place = make_place(tmp_path / "root")
    with pytest.raises(InputError, match="same output"):
        fan_out([place.job(1), place.job(1)], "local", backends=specs())
    # Bound and not listening: an address where certainly nothing answers ("auto" would find any cluster of the machine).
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkerError, match="no Ray cluster"):
            fan_out([place.job(1)], address, backends=specs())
    assert place.takes() == {}
