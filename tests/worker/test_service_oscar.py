# SPDX-License-Identifier: Apache-2.0
"""The real pipeline (tiny weights) behind the service: exact first frame, progress per step, preview, tier, cancel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from oscar_golden import text_model
from worker_support import Place, make_place, settings_for, wait_for

from retake.core.errors import Cancelled, InputError
from retake.core.files import read_json
from retake.core.takes.base import TakeRequest
from retake.core.video import read_video
from retake.core.wire import TakeJob, job_to_json
from retake.worker.backends.oscar import LatentPainter, OscarBackend

SETTINGS: dict[str, Any] = {"steps": 3, "window": 5, "height": 64, "width": 64}


def request(place: Place, seed: int = 1, **settings: Any) -> TakeRequest:
    run = place.run
    return TakeRequest(
        run / "episode", "front", run / "skeleton" / "front", run / "variants" / "v0" / "front", "a packet", seed=seed, frames=5,
        settings={**SETTINGS, **settings},
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("oscar") / "root", 6, (64, 64))


@pytest.fixture(scope="module")
def backend() -> OscarBackend:
    return OscarBackend(str(text_model()), device="cpu", dtype="float32")


def test_a_take_begins_with_the_exact_first_frame_and_is_deterministic(place: Place, backend: OscarBackend) -> None:
    seen, shown = [], []
    backend.preview = shown.append
    frames = list(backend.generate(request(place), lambda done, total, note="": seen.append((done, total))))
    first = cv2.cvtColor(cv2.imread(str(place.run / "variants" / "v0" / "front" / "frame.png")), cv2.COLOR_BGR2RGB)
    assert len(frames) == 5
    assert np.abs(frames[0].astype(int) - first).max() <= 1, "the first frame is the given one"
    assert [done for done, _ in seen][-1] == 4, "three steps are four evaluations in OSCAR's count"
    assert shown
    assert all(p.dtype == np.uint8 and p.shape[2] == 3 for p in shown)
    again = list(backend.generate(request(place)))
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))
    other = list(backend.generate(request(place, seed=2)))
    assert not np.array_equal(frames[-1], other[-1])
    assert backend.tier
    assert backend.report["oscar"]["exact_first_frame"] is True


def test_wrong_settings_and_windows_are_refused(place: Place, backend: OscarBackend) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match=r"valid: .*guidance"):
        next(backend.generate(request(place, stepz=3)))
    with pytest.raises(InputError, match="the skeleton has 6"):
        next(backend.generate(replace(request(place), start=4)))
    with pytest.raises(InputError, match="retake oscar convert"):
        OscarBackend()


def test_cancel_is_heard_between_steps(place: Place, backend: OscarBackend) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        list(backend.generate(request(place), check_cancel=check))
    assert len(list(backend.generate(request(place)))) == 5, "and the next take is not affected"


def test_the_preview_map_recovers_a_linear_scene() -> None:
    rng = np.random.default_rng(0)
    first = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), (0, 0), 6)
    small = cv2.resize(first, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    latents = np.zeros((1, 16, 3, 8, 8), np.float32)
    latents[0, :3, :] = small.transpose(2, 0, 1)[:, None] / 20 - 5
    picture = LatentPainter(first).paint(latents)
    assert picture.shape == (64, 64, 3)
    shrunk = cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    assert np.abs(shrunk - small).mean() < 12


def test_a_take_through_the_service(place: Place, tmp_path: Path) -> None:
    from retake.worker.service import Service

    config, _ = settings_for(tmp_path)
    options = {"model": str(text_model()), "device": "cpu", "dtype": "float32", "revision": "tiny"}
    from retake.worker.settings import BackendSpec

    backends = {
        "oscar": BackendSpec(
            "oscar", "take", "retake.worker.backends.oscar:OscarBackend", options, (("resident", 1 << 30),)
        )
    }
    with Service(tmp_path / "state", [place.root], config, backends=backends) as service:
        job = TakeJob(request(place, seed=5), place.run / "takes" / "o", "oscar")
        [record], _ = service.submit([job_to_json(job)])
        wait_for(lambda: service.store.get(record.id).final, 120)
        final = service.store.get(record.id)
        assert final.state == "done", final.error
        side = read_json(place.run / "takes" / "o" / "take.json")
        assert (side["model"], side["revision"], side["domain"], side["seed"]) == ("OSCAR-2B", "tiny", "generated", 5)
        assert side["run"]["tier"]
        assert side["run"]["oscar"]["stats"]["evaluations"] > 0
        assert len(list(read_video(place.run / "takes" / "o" / "take.mp4"))) == 5
        pid = service.dispatcher.executor_state()[1]
        service.dispatcher.ask(service.dispatcher.release)
        import psutil

        assert not psutil.pid_exists(pid)
