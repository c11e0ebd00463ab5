# SPDX-License-Identifier: Apache-2.0
"""Fan-out over a Ray cluster of two nodes, one of which dies."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import arrow_driver
import pytest
import worker_scenarios as scenarios
from export_runs import tree
from worker_support import make_place, specs

from retake.core.errors import InputError, WorkerError
from retake.core.painter.composite import CompositeBackend

FULL = os.environ.get("RETAKE_FULL") == "1"
# Ray's own processes leave sockets and deprecated calls behind; none of them is ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::UserWarning"
    ),
]


@pytest.fixture(autouse=True)
def takes_of_every_seed(monkeypatch):
    """The composite reads no seed, so that a run asks it for one take; here it stands for a backend that does."""
    from retake.core.painter.composite import CompositeBackend

    monkeypatch.setattr(CompositeBackend, "reads_seed", True)


def test_a_lost_node_loses_nothing_and_two_are_twice_as_fast(tmp_path: Path, nobody_reaps: None) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[ray]'")
    found = scenarios.ray_lost_node(tmp_path, 60 if FULL else 8)
    assert found["actors_lost"] >= 1
    if FULL:  # a busy machine may cost any time
        assert found["speed_up_2_workers"] >= 1.8, found


def test_two_jobs_for_one_folder_and_a_missing_cluster_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[ray]'")
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


def test_the_arrow_over_ray_leaves_the_same_bytes_as_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[ray]'")
    monkeypatch.setattr(CompositeBackend, "parallel", False)  # no processes of our own beside Ray's
    small = [
        *arrow_driver.SMALL,
        "--set",
        "capture.overrides={frames: 4}",
        "--set",
        "check.force=true",
        "--set",
        "variants.gate=false",
    ]
    plain, over_ray = tmp_path / "plain/run", tmp_path / "ray/run"
    assert arrow_driver.main(["run", "--run", str(plain), *small, "--worlds", "bun_warehouse", "--seeds", "1,2"]) == 0
    shutil.copytree(plain, over_ray)
    shutil.rmtree(over_ray / "takes")
    shutil.rmtree(over_ray / "report")
    (over_ray / "report.html").unlink()
    assert arrow_driver.main(["run", "--run", str(over_ray), "--ray", "local"]) == 0
    assert "Takes: 2/2" in capsys.readouterr().err
    assert tree(over_ray) == tree(plain)
    assert len(list(over_ray.glob("takes/*/*/take.mp4"))) == 2


def test_without_a_cluster_the_arrow_says_so_and_a_finished_run_needs_none(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[ray]'")
    from retake.worker.ray_run import producer

    produce = producer("127.0.0.1:1")
    assert produce([], "composite") == []
    with pytest.raises(InputError, match="unknown take backend"):
        produce([(tmp_path / "t", make_place(tmp_path / "root").job(1).request)], "unheard")
