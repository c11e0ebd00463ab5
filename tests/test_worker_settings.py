# SPDX-License-Identifier: Apache-2.0
"""config/worker.yaml: what it says, what a user's file changes of it, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from retake.core.errors import InputError
from retake.worker.settings import BackendEntry, BackendSpec, WorkerSettings, load_settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queue: 3", "queue needs a mapping of settings; found 3"),
        ("queue: {max_atempts: 3}", "unknown setting 'max_atempts'"),
        ("queue: {max_attempts: many}", "queue.max_attempts needs a whole number"),
        ("backends: {x: {kind: take}}", "module:Class"),
        ("backends: {x: {kind: film, target: 'a:B'}}", "valid: take, variant"),
        ("backends: {x: {kind: take, target: 'a:B', tiers: {big: -3}}}", "GiB of GPU memory"),
        ("backends: [1]", "mapping of names"),
        ("- 1", "needs a mapping of settings"),
        ("{", "not readable YAML"),
    ],
)
def test_a_wrong_configuration_is_explained(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        load_settings(file)


def test_the_shipped_configuration_mirrors_the_defaults() -> None:
    shipped = asdict(load_settings())
    assert {k: v for k, v in shipped.items() if k != "backends"} == {
        k: v for k, v in asdict(WorkerSettings()).items() if k != "backends"
    }
    assert {"oscar", "composite", "procedural"} <= set(shipped["backends"])


def test_a_users_file_changes_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("queue: {max_attempts: 7}\nbackends: {mine: {kind: variant, target: 'a:B', tiers: {big: 0.5}}}")
    plain, mine = load_settings(), load_settings(file)
    assert mine.queue.max_attempts == 7
    assert mine.queue.max_crashes == plain.queue.max_crashes
    assert (mine.executor, mine.waiting, mine.service) == (plain.executor, plain.waiting, plain.service)
    assert set(mine.backend_specs()) == {*plain.backend_specs(), "mine"}
    assert mine.backend_specs()["mine"] == BackendSpec("mine", "variant", "a:B", {}, (("big", 2**29),))


def test_a_backend_is_a_class_of_a_module_and_its_tiers_take_memory() -> None:
    for target in ("a.b", "a:", ":B", ""):
        with pytest.raises(InputError, match='target must be "module:Class"'):
            BackendEntry("take", target).spec("x")
    for gib in (0.0, -1.0):
        with pytest.raises(InputError, match="> 0"):
            BackendEntry("take", "a:B", {}, {"big": 3.0, "small": gib}).spec("x")
    spec = BackendEntry("take", "a:B", {"o": 1}, {"big": 3.0, "small": 1e-9}).spec("x")
    assert spec == BackendSpec("x", "take", "a:B", {"o": 1}, (("big", 3 * 2**30), ("small", 1)))
