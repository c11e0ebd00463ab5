# SPDX-License-Identifier: Apache-2.0
"""One job of the worker: what reaches the backend, what the record says, what is kept, copied, made again or refused, and that
nothing else is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from worker_fakes import SleepyBackend, frame_of
from worker_support import Place, make_place, specs

from retake.core.errors import Cancelled, InputError, MissingDependencyError, TakeError, WorkerError
from retake.core.files import read_json, write_json
from retake.core.wire import VariantJob, VariantRequest
from retake.worker import execute as executing
from retake.worker.execute import Context, Loaded, LocalRunner, describe, execute
from retake.worker.settings import BackendSpec

CONTENT = "c" * 64
CLOCK = [1000.0]
"""What the time is, s, where a test turns it."""


class Knowing(SleepyBackend):
    """Takes note of everything that it is told."""

    made: list[Knowing] = []  # noqa: RUF012

    def __init__(self, load_s: float = 0.0, report: Any = None) -> None:
        super().__init__()
        CLOCK[0] += load_s
        self.told: list[Any] = []
        self.margin_bytes, self.report, self.closed = -1, report, 0
        Knowing.made.append(self)

    def use_card(self, card: str) -> None:
        self.told.append(("card", card))

    def use_tier(self, name: str) -> None:
        self.told.append(("tier", name, self.margin_bytes))
        self.tier = f"really {name}"

    def close(self) -> None:
        self.closed += 1


class Showing(SleepyBackend):
    """Has pictures of its own to show."""

    preview: Any = None

    def generate(self, request: Any, *given: Any) -> Any:
        self.preview(frame_of(99, 0))
        yield from super().generate(request, *given)


class Painter:
    """First frames of pictures alone: one colour by world and seed."""

    name, version, licence = "painter", "1", "Apache-2.0"
    needs_maps = False
    progress: Any = None

    def render(self, source: Any, world: Any, seed: int, check_cancel: Any = None) -> np.ndarray:
        self.progress(1, 2, f"painting {world.name}")
        return np.full_like(source.rgb, 20 * seed + source.index)


KNOWING = BackendSpec("knowing", "take", "test_worker_execute:Knowing", {"report": {"seen": 5}})
PAINTER = BackendSpec("painter", "variant", "test_worker_execute:Painter")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("execute"), frames=4)


def take(place: Place, name: str, loaded: Loaded | None = None, spec: BackendSpec | None = None, **more: Any) -> Any:
    """The record of a take of four frames; `context`, `preview`, … go on to `execute`, other keywords are settings."""
    ours = {key: more.pop(key) for key in ("context", "progress", "check_cancel", "preview") if key in more}
    job = place.job(more.pop("seed", 1), name, frames=4, **more)
    return execute(job, spec or specs()["sleepy"], loaded or Loaded(), **ours)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that goes on by a quarter of a second with every progress that is told to it."""
    monkeypatch.setattr(executing, "time", SimpleNamespace(monotonic=lambda: CLOCK[0]))

    def tick(done: int, total: int, note: str = "") -> None:
        CLOCK[0] += 0.25

    return tick


def test_what_surrounds_a_job_reaches_the_backend_and_the_record(place, clock):
    loaded, spec = Loaded(), replace(KNOWING, options={"load_s": 0.12345, "report": {"seen": 5}})
    record = take(
        place, "known", loaded, spec, context=Context("job 7", CONTENT, {}, "big", "GPU-1", 123, 3), progress=clock, mood=2
    )  # fmt: skip
    assert loaded.instance.told == [("card", "GPU-1"), ("tier", "big", 123)]
    assert record["run"] == {
        "tier": "really big", "attempt": 3, "load_s": 0.123, "total_s": 1.123, "settings": {"mood": 2},
        "options": dict(spec.options), "seen": 5,
    }  # fmt: skip
    assert record["extra"] == {"job": "job 7", "content": CONTENT, "code": executing.code_revision()}
    assert record == read_json(place.run / "takes/known/front/take.json")
    again = take(place, "known too", loaded, spec, context=Context("job 8", "d" * 64))
    assert loaded.instance.told == [("card", "GPU-1"), ("tier", "big", 123)], "nothing was chosen"
    assert loaded.instance.margin_bytes == 123
    assert (again["run"]["load_s"], again["run"]["attempt"]) == (0, 1)


def test_a_tier_that_nobody_takes_is_told_as_asked_and_a_margin_of_nothing_is_one(place):
    assert take(place, "plain", context=Context("j", "e" * 64, tier="cpu"))["run"]["tier"] == "cpu"
    loaded = Loaded()
    take(place, "margin", loaded, KNOWING, context=Context("j", "f" * 64, margin_bytes=0))
    assert loaded.instance.margin_bytes == 0


def test_one_model_is_loaded_at_a_time_and_kept_for_its_like():
    loaded = Loaded()
    first = loaded.get(KNOWING)
    assert loaded.get(replace(KNOWING)) is first
    other = loaded.get(replace(KNOWING, options={}))
    assert (first.closed, other.closed) == (1, 0)
    assert other is not first
    loaded.close()
    assert other.closed == 1
    assert (loaded.instance, loaded.spec) == (None, None)
    loaded.close()
    loaded.get(specs()["sleepy"])  # has nothing to close
    loaded.close()
    assert loaded.instance is None


def test_a_finished_result_is_told_and_no_model_loaded_for_it(place):
    context = Context("j", CONTENT)
    record, untouched = take(place, "kept", context=context), Loaded()
    assert take(place, "kept", untouched, context=replace(context, job_id="another")) == record
    assert untouched.instance is None


def test_a_damaged_result_of_the_same_request_is_made_again(place):
    context = Context("j", CONTENT)
    before = take(place, "hurt", context=context)
    video = place.run / "takes/hurt/front/take.mp4"
    for damage in (lambda: video.write_bytes(b"noise"), video.unlink):
        damage()
        assert take(place, "hurt", context=context)["video_sha256"] == before["video_sha256"]
        assert place.takes()["hurt"] == before["video_sha256"]


def test_the_result_of_another_request_is_never_replaced(place):
    take(place, "other", context=Context("j", CONTENT))
    before = place.takes()["other"]
    with pytest.raises(TakeError, match="another request"):
        take(place, "other", seed=2, context=Context("j", "d" * 64))
    assert place.takes()["other"] == before
    record = place.run / "takes/other/front/take.json"
    stated = record.read_text()
    for text in ("{", "[1]"):
        record.write_text(text)
        with pytest.raises(TakeError, match="is not readable JSON"):
            take(place, "other", context=Context("j", CONTENT))
    record.write_text(stated)


@pytest.mark.parametrize(("change", "says"), [
    ({}, ""), ({"seed": 2}, "seed 1, asked 2"), ({"mood": 3}, "settings"),
    ({"backend": "heavy"}, "backend 'sleepy', asked 'heavy'"),
])  # fmt: skip
def test_a_take_that_was_made_by_hand_is_kept_for_the_same_wish_alone(place, change, says):
    name = f"hand {says}"
    take(place, name)
    path = place.run / "takes" / name / "front" / "take.json"
    record = read_json(path)
    del record["extra"]
    write_json(path, record)
    before = place.takes()[name]
    if says:
        with pytest.raises(TakeError, match=says):
            take(place, name, context=Context("j", CONTENT), **change)
    else:
        take(place, name, context=Context("j", CONTENT))
    assert place.takes()[name] == before


def test_equal_content_is_copied_where_it_is_whole_and_made_where_it_is_not(place):
    context = Context("j", CONTENT)
    take(place, "source", context=context)
    source = place.run / "takes/source/front"

    def copied(name: str, asked: Context) -> tuple[Any, bool]:
        loaded = Loaded()
        record = take(place, name, loaded, context=replace(asked, reuse=source))
        assert place.takes()[name] == place.takes()["source"]
        return record, loaded.instance is None

    record, nothing_loaded = copied("copy", context)
    assert nothing_loaded
    assert (record["id"], record["copied_from"]) == ("copy/front", "source/front")
    assert record == read_json(place.run / "takes/copy/front/take.json")
    record, nothing_loaded = copied("not equal", Context("j", "d" * 64))
    assert not nothing_loaded
    assert "copied_from" not in record
    stated = read_json(source / "take.json")
    for name, damage in (
        ("no hash", {k: v for k, v in stated.items() if k != "video_sha256"}),
        ("other hash", {**stated, "video_sha256": "0" * 64}),
    ):
        write_json(source / "take.json", damage)
        loaded = Loaded()
        assert "copied_from" not in take(place, name, loaded, context=replace(context, reuse=source))
        assert loaded.instance is not None
    write_json(source / "take.json", stated)
    assert "copied_from" not in take(place, "gone", context=replace(context, reuse=place.run / "nowhere"))


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("why", ["error", "cancel"])
def test_what_fails_leaves_nothing(place, existed, why):
    folder = place.run / "takes" / f"fails {existed} {why}" / "front"
    if existed:
        folder.mkdir(parents=True)
        (folder / ".take.mp4.1.tmp").write_bytes(b"of an earlier one")

    def stop() -> None:
        if why == "cancel":
            raise Cancelled("enough")

    with pytest.raises(Cancelled if why == "cancel" else TakeError):
        take(place, f"fails {existed} {why}", check_cancel=stop, **({"error": "it rains"} if why == "error" else {}))
    assert folder.is_dir() == existed
    assert folder.parent.is_dir() == existed
    assert list(folder.glob("*")) == []


def test_frames_are_shown_at_once_and_then_twice_a_second(place, clock):
    shown: list[Any] = []
    CLOCK[0] = 0.0
    take(place, "shown", progress=clock, preview=shown.append)
    assert len(shown) == 2
    assert all((image == frame_of(1, k)).all() for image, k in zip(shown, (0, 2), strict=True))
    own: list[Any] = []
    take(place, "own", spec=replace(KNOWING, target="test_worker_execute:Showing", options={}), preview=own.append)
    assert [(image == frame_of(99, 0)).all() for image in own] == [True]


def test_a_first_frame_is_made_of_the_world_that_is_named_or_described(place):
    loaded, told = Loaded(), []

    def paint(name: str, world: dict[str, Any], **change: Any) -> Any:
        request = VariantRequest(place.run / "episode", "front", world, gate=False, **change)
        return execute(
            VariantJob(request, place.run / "variants" / name / "front", "painter"), PAINTER, loaded,
            Context("j", name), lambda *said: told.append(said),
        )  # fmt: skip

    record = paint("kitchen", {"name": "kitchen"}, seed=2, index=3)
    assert (record["seed"], record["world"]["name"], record["source"]["frame"]) == (2, "kitchen", 3)
    assert record["content"] == "kitchen"
    assert told == [(0, 1, "rendering"), (1, 2, "painting kitchen"), (1, 1, "")]
    own = {key: value for key, value in record["world"].items() if key != "name"}
    assert paint("mine", {**own, "name": "mine"})["world"]["name"] == "mine"
    for world, says in (
        ({"name": "x", "sky": "blue"}, "unknown field 'sky'; valid: name, "),
        ({"environment": "lab"}, "give all of name, "),
    ):
        with pytest.raises(InputError, match=says):
            paint("odd", world)
    with pytest.raises(InputError, match="the episode has 4 frames"):
        paint("late", {"name": "kitchen"}, index=4)
    assert not (place.run / "variants" / "late").exists()


def test_jobs_run_without_a_service(place):
    runner = LocalRunner({**specs(), "knowing": KNOWING})
    job, told = place.job(1, "local", frames=4, backend="knowing"), []
    record = runner.run(job, lambda *said: told.append(said))
    assert (record["extra"]["job"], len(record["extra"]["content"])) == ("local", 64)
    assert told[-1][:2] == (4, 4)
    count, last = len(Knowing.made), Knowing.made[-1]
    assert runner.run(job) == record
    assert len(Knowing.made) == count
    with pytest.raises(InputError, match="unknown take backend 'painter'"):
        runner.run(replace(job, backend="painter"))
    runner.close()
    assert last.closed == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("wrong"), ("wrong", False)), (MissingDependencyError("no torch"), ("no torch", False)),
        (TakeError("odd"), ("odd", True)), (WorkerError("busy"), ("busy", True)),
        (OSError(28, "No space left", "/x"), ("No space left (/x)", True)),
        (OSError(28, "No space left"), ("No space left", True)),
        (OSError("strange"), ("OSError: strange", True)), (ValueError("x"), ("ValueError: x", True)),
    ],
)  # fmt: skip
def test_an_error_in_words_and_whether_it_may_pass(error, told):
    assert describe(error) == told


@pytest.mark.parametrize(
    ("files", "commit"),
    [
        ({"HEAD": "ref: refs/heads/main\n", "refs/heads/main": "0123456789abcdef\n"}, "0123456789ab"),
        ({"HEAD": "fedcba9876543210\n"}, "fedcba987654"),
        ({"HEAD": "ref: refs/heads/packed\n"}, ""),
        ({}, ""),
    ],
)
def test_the_code_is_named_with_its_commit_where_it_is_a_checkout(tmp_path: Path, monkeypatch, files, commit):
    for name, text in files.items():
        (tmp_path / ".git" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".git" / name).write_text(text)
    monkeypatch.setattr(executing, "__file__", str(tmp_path / "exts/retake.worker/retake/worker/execute.py"))
    executing.code_revision.cache_clear()
    version, _, found = executing.code_revision().partition("+")
    executing.code_revision.cache_clear()
    assert found == commit
    assert version
