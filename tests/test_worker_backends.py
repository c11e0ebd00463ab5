# SPDX-License-Identifier: Apache-2.0
"""Backends by name: whose they are, how they are made, and why one cannot work here."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from retake.core.errors import InputError, MissingDependencyError
from retake.worker import backends
from retake.worker.settings import BackendSpec


class Particular:
    """Works with a model alone."""

    @staticmethod
    def obstacle(model: str = "", **more: Any) -> str:
        return "" if model else "no model"


def test_other_packages_add_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "retake.backends": [
            EntryPoint("mine", "m:T", "retake.backends"), EntryPoint("variant.dresser", "m:V", "retake.backends"),
            EntryPoint("take.shooter", "m:S", "retake.backends"), EntryPoint("odd.name", "m:O", "retake.backends"),
            EntryPoint("own", "m:Not", "retake.backends"),
        ],
        "retake.image_backends": [EntryPoint("painter", "m:P", "retake.image_backends")],
        "retake.video_backends": [EntryPoint("film", "m:F", "retake.video_backends")],
    }  # fmt: skip
    monkeypatch.setattr(backends, "entry_points", lambda group: points.get(group, []))
    table = backends.registry({"own": BackendSpec("own", "take", "o:O")})
    assert {name: (spec.kind, spec.target) for name, spec in table.items()} == {
        "mine": ("take", "m:T"), "dresser": ("variant", "m:V"), "painter": ("variant", "m:P"), "own": ("take", "o:O"),
        "shooter": ("take", "m:S"), "odd.name": ("take", "m:O"), "film": ("take", "m:F"),
    }  # fmt: skip
    assert all(spec.name == name for name, spec in table.items())
    assert backends.find(table, "dresser", "variant").target == "m:V"
    for name in ("own", "nobody"):
        with pytest.raises(InputError, match="valid: dresser, painter"):
            backends.find(table, name, "variant")


def test_a_backend_is_made_with_its_options_or_the_odd_one_is_named() -> None:
    loaded = backends.create(BackendSpec("s", "take", "worker_fakes:SleepyBackend", {"sleep_s": 0.5}))
    assert loaded._sleep_s == 0.5
    with pytest.raises(InputError, match="does not take options"):
        backends.create(BackendSpec("s", "take", "worker_fakes:SleepyBackend", {"colour": 1}))
    with pytest.raises(MissingDependencyError, match=r"pip install .*oscar"):
        backends.create(BackendSpec("oscar", "take", "no_such_module:Backend"))


def test_everything_that_decides_its_pixels_is_a_backends_identity() -> None:
    one = BackendSpec("s", "take", "a:B", {"revision": "r1"})
    others = [
        BackendSpec("s", "take", "a:B", {"revision": "r2"}), BackendSpec("t", "take", "a:B", {"revision": "r1"}),
        BackendSpec("s", "take", "a:C", {"revision": "r1"}),
    ]  # fmt: skip
    assert len({backends.identity(spec) for spec in (one, *others)}) == 4
    moved = BackendSpec("s", "take", "a:B", {"revision": "r1"}, (("big", 5),))
    assert backends.identity(moved) == backends.identity(one), "where it runs changes nothing"
    assert backends.spec_from_json(backends.spec_to_json(moved)) == moved


def test_what_stands_in_the_way_of_a_backend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backends.obstacle(BackendSpec("s", "take", "worker_fakes:SleepyBackend")) == ""
    assert "no_such_module" in backends.obstacle(BackendSpec("s", "take", "no_such_module.deep:Backend"))
    own = BackendSpec("own", "take", "retake.worker.backends:Particular")
    monkeypatch.setattr(backends, "Particular", Particular, raising=False)
    assert backends.obstacle(own) == "no model"
    assert backends.obstacle(BackendSpec("own", "take", own.target, {"model": "m", "size": 1})) == ""
    assert backends.obstacle(BackendSpec("s", "take", "retake.worker.settings:BackendSpec")) == "", (
        "it says nothing of it"
    )
    assert "retake.worker.nothing" in backends.obstacle(BackendSpec("s", "take", "retake.worker.nothing:X"))
