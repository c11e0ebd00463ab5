# SPDX-License-Identifier: Apache-2.0
"""Several runs and several seeds in one call: M Episodes × N Variants × K seeds, here and handed to another producer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import arrow_driver
import pytest
from export_runs import tree

from retake.core import plugins
from retake.core.files import read_json
from retake.core.painter.composite import CompositeBackend
from retake.core.run_store import RunDirectory

FRAMES = ["--set", "capture.overrides={frames: 4}", "--set", "variants.gate=false", "--set", "check.force=true"]


@pytest.fixture(autouse=True)
def takes_of_every_seed(monkeypatch):
    """The composite reads no seed, so that a run asks it for one take; here it stands for a backend that does."""
    from retake.core.painter.composite import CompositeBackend

    monkeypatch.setattr(CompositeBackend, "reads_seed", True)


def arrow(*arguments: str | Path) -> int:
    return arrow_driver.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def dressed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of different motions with two variants each, and no takes."""
    root, runs = tmp_path_factory.mktemp("many"), []
    for seed in range(2):
        run = root / f"run{seed}"
        assert arrow("capture", run, *arrow_driver.SMALL, *FRAMES, "--seed", str(seed)) == 0
        assert arrow("skeleton", run) == 0
        assert arrow("variants", run, "--preset", "bun_warehouse,chips_conveyor") == 0
        runs.append(run)
    return runs


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompositeBackend, "parallel", False)


@pytest.fixture
def runs(dressed: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in dressed]


def takes(run: Path) -> dict[str, int]:
    return {p.parent.parent.name: read_json(p)["seed"] for p in sorted((run / "takes").glob("*/*/take.json"))}


def test_every_run_gets_every_variant_with_every_seed(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert arrow("takes", *runs, runs[0], "--seeds", "1,2") == 0, "a run that is named twice is one"
    assert "takes: 8 in" in capsys.readouterr().out
    wanted = {f"{world}-s{seed}": seed for world in ("bun_warehouse", "chips_conveyor") for seed in (1, 2)}
    assert takes(runs[0]) == takes(runs[1]) == wanted
    episodes = {read_json(p)["inputs"]["episode"] for run in runs for p in run.glob("takes/*/*/take.json")}
    assert len(episodes) == 2
    before = tree(runs[0] / "takes")
    assert arrow("takes", runs[0]) == 0, "the run remembers its seeds"
    assert tree(runs[0] / "takes") == before
    assert arrow("takes", runs[0], "--seed", "7") == 0, "one seed is one take again"
    assert len(takes(runs[0])) == 6


def test_a_cluster_gets_all_of_it_at_once(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[list[Any]] = []

    def producer(address: str) -> Any:
        def produce(jobs: Any, backend: str, **options: Any) -> Any:
            handed.append([address, backend, len({folder for folder, _ in jobs}), options["extra"]])
            return []

        return produce

    real = plugins.load
    monkeypatch.setattr(plugins, "load", lambda name, **o: producer if name.endswith(":producer") else real(name, **o))
    assert arrow("takes", *runs, "--seeds", "1,2,3", "--ray", "head:6379") == 0
    assert handed == [["head:6379", "composite", 12, {"episode_check": "failed, forced"}]]


@pytest.mark.parametrize(("seeds", "message"), [("[1, 1]", "each once"), ("[a]", "whole number"), ("[true]", "whole")])
def test_wrong_seeds_are_refused_before_anything_is_made(
    runs: list[Path], seeds: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert arrow("takes", *runs, "--set", f"takes.seeds={seeds}") == 2
    assert message in capsys.readouterr().err
    assert takes(runs[0]) == takes(runs[1]) == {}
    with pytest.raises(SystemExit):
        arrow("takes", *runs, "--seeds", "1,x")
    assert "such as 1,2,3" in capsys.readouterr().err
    assert RunDirectory(runs[0]).manifest()["config"]["takes"]["seeds"] == [], "a refused request is not remembered"
