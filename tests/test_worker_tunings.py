# SPDX-License-Identifier: Apache-2.0
"""Trainings as the worker shows them: found in the roots, how far they are, curves, pictures, and asked to stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_api_support import Api
from worker_support import environment, make_place, make_tuning

from retake.worker.tune.folder import only_writer


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root")) as made:
        yield made


def listed(api: Api) -> list[dict[str, Any]]:
    answer = api.ask("GET", "/api/tunings")
    assert answer.status_code == 200, answer.text
    return answer.json()["tunings"]


def test_a_training_is_shown_as_it_stands(api: Api) -> None:
    assert listed(api) == []
    folder = make_tuning(api.place.root / "project" / "drop")
    [shown] = listed(api)
    assert (shown["name"], shown["state"], shown["step"], shown["steps"], shown["checkpoint"]) == (
        "drop",
        "stopped",
        10,
        100,
        8,
    )
    assert shown["what"] == "LoRA rank 32, lr 3e-05, objects x5"
    assert (shown["seconds_per_step"], shown["eta_s"]) == (2.0, None)
    assert shown["latest"] == {"loss": pytest.approx(0.991), "validation_falling": 0.5}
    assert shown["command"].endswith("retake tune run runs/a --out drop")
    with only_writer(folder):
        [shown] = listed(api)
        assert (shown["state"], shown["eta_s"]) == ("running", 180.0)
    (folder / "state.json").write_text('{"step": 100}')
    [shown] = listed(api)
    assert (shown["state"], shown["step"]) == ("finished", 100)


def test_curves_are_thinned_and_pictures_shown(api: Api) -> None:
    make_tuning(api.place.root / "drop", steps=2000)
    [shown] = listed(api)
    curves = api.ask("GET", f"/api/tunings/{shown['key']}/curves").json()["curves"]
    assert len(curves["loss"]) == 300
    assert curves["loss"][-1][0] == 1999
    assert curves["validation_falling"] == [[8, 0.5]]
    picture = api.ask("GET", f"/api/tunings/{shown['key']}/picture/{shown['pictures'][0]}")
    assert (picture.status_code, picture.headers["content-type"], picture.content[:4]) == (200, "image/png", b"\x89PNG")
    for path in ("picture/step-000009.png", "picture/..", "picture/..%2f..%2fmodel.json"):
        assert api.ask("GET", f"/api/tunings/{shown['key']}/{path}").status_code in (404, 405), path
    assert api.ask("GET", "/api/tunings/nothing/curves").status_code == 404


def test_only_a_running_training_is_asked_to_stop(api: Api, tmp_path: Path) -> None:
    folder = make_tuning(api.place.root / "drop")
    [shown] = listed(api)
    refused = api.ask("POST", f"/api/tunings/{shown['key']}/stop")
    assert refused.status_code == 409
    assert refused.json()["error"] == "drop is stopped; only a running training can be stopped"
    with only_writer(folder):
        assert api.ask("POST", f"/api/tunings/{shown['key']}/stop").status_code == 200
        assert (folder / "stop").exists()
        (folder / "stop").unlink()
        (folder / "stop").symlink_to(tmp_path / "elsewhere")
        assert api.ask("POST", f"/api/tunings/{shown['key']}/stop").status_code == 403
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_read_or_leads_elsewhere_is_left_out(api: Api, tmp_path: Path) -> None:
    root = api.place.root
    (make_tuning(root / "no json") / "model.json").write_text("{")
    (make_tuning(root / "no settings") / "model.json").write_text("{}")
    (make_tuning(root / "half settings") / "model.json").write_text('{"settings": {"steps": "many"}}')
    outside = make_tuning(tmp_path / "outside")
    (root / "link").symlink_to(outside)
    assert listed(api) == []


@pytest.mark.parametrize(("settings", "says"), [
    ({"steps": 5, "step": {"lora": None, "objects": {"weight": 0, "control": "embed"}}}, "all weights, object control embed"),
    ({"steps": 5, "student": {"steps": 4}, "step": {"lr": 1e-6}}, "student of 4 steps (experimental), lr 1e-06"),
])  # fmt: skip
def test_what_is_trained_is_said_in_a_few_words(api: Api, settings: dict[str, Any], says: str) -> None:
    make_tuning(api.place.root / "drop", settings=settings)
    assert listed(api)[0]["what"] == says


def test_no_torch_is_needed(api: Api) -> None:
    """The service's process stays small: reading trainings must not import torch."""
    import subprocess
    import sys

    code = "import sys, retake.worker.tunings; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
