# SPDX-License-Identifier: Apache-2.0
"""Where a job may run: tiers against free memory, cards that NVML shows or does not, batches by model. Without torch."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import Cancelled, InputError, TakeError, VariantError
from retake.core.wire import GpuDevice, GpuProcess, JobRecord
from retake.worker import memory
from retake.worker.admission import Admission, Held, Turn
from retake.worker.batching import MOST_PASSES, Batch
from retake.worker.gpu import NvmlProbe, Placement, pick_tier, visible
from retake.worker.memory import GIB
from retake.worker.settings import BackendSpec, WaitingSettings, WorkerSettings

SPEC = BackendSpec("model", "take", "m:M", {}, (("resident", 10 * GIB), ("staged", 6 * GIB), ("streamed", 2 * GIB)))


def card(index: int = 0, total: float = 24, free: float = 20, ours: float = 0, uuid: str = "") -> GpuDevice:
    held = (GpuProcess(7, "python", int(ours * GIB), True),) if ours else ()
    return GpuDevice(
        index, "Card", int(total * GIB), int((total - free) * GIB), int(free * GIB), held, uuid or f"GPU-{index}"
    )


@given(st.floats(0, 48), st.floats(0, 4))
def test_the_fastest_tier_that_leaves_the_margin(free, margin):
    place = pick_tier(SPEC, (card(total=48, free=free),), margin)
    fitting = [name for name, need in SPEC.tiers if need <= int(free * GIB) - int(margin * GIB)]
    if fitting:
        assert place == Placement(fitting[0], "GPU-0")
    else:
        assert place.tier == ""
        assert "2.0 GiB" in place.reason


def test_the_card_with_most_room_is_named():
    assert pick_tier(SPEC, (card(0, free=3), card(1, free=12)), 1) == Placement("resident", "GPU-1")


@given(st.lists(st.floats(0, 48), min_size=1, max_size=4), st.integers(0, 3))
def test_a_model_stays_on_its_card_unless_another_one_runs_it_faster(free, holder):
    """Cards of different size: the best tier anywhere; the same tier elsewhere is no reason to move tens of gigabytes."""
    cards = tuple(card(index, total=48, free=amount) for index, amount in enumerate(free))
    place = pick_tier(SPEC, cards, 1, held_card=f"GPU-{holder}")
    alone = [pick_tier(SPEC, (one,), 1).tier for one in cards]
    names = [name for name, _ in SPEC.tiers]
    best = min((names.index(tier) for tier in alone if tier), default=None)
    if best is None:
        assert place.reason
        return
    assert place.tier == names[best]
    assert alone[int(place.card[4:])] == names[best]
    if holder < len(free) and alone[holder] == names[best]:
        assert place.card == f"GPU-{holder}"


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ("", Placement("resident", "GPU-1")), ("cuda", Placement("resident", "GPU-1")),
        ("cuda:0", Placement("streamed", "GPU-0")),
        ("cuda:1", Placement("resident", "GPU-1")), ("cuda:7", Placement("resident", "GPU-1")), ("cpu", Placement("cpu")),
    ],
)  # fmt: skip
def test_a_device_that_the_options_name_is_where_it_runs(device, place):
    spec = BackendSpec("model", "take", "m:M", {"device": device}, SPEC.tiers)
    assert pick_tier(spec, (card(0, free=3.5), card(1, free=12)), 1) == place
    assert pick_tier(spec, (), 1) == Placement("cpu" if device == "cpu" else "auto")


def test_without_nvml_the_backend_asks_for_itself():
    assert pick_tier(SPEC, (), 1) == Placement("auto")
    assert pick_tier(BackendSpec("plain", "take", "m:M"), (), 1) == Placement()


@pytest.mark.parametrize(
    ("cards", "held", "held_card", "tier"),
    [
        ((card(free=4, ours=9),), 0, "", "resident"),  # NVML knows whose memory it is
        ((card(free=4),), 9, "", "resident"),  # it does not (WDDM, WSL, a container): the executor says so itself
        ((card(free=4),), 9, "GPU-0", "resident"),
        ((card(0, free=4), card(1, free=3)), 9, "GPU-1", "resident"),  # on that card alone
        ((card(0, free=4), card(1, free=3)), 9, "", "streamed"),  # which card is not known: nothing is assumed
        ((card(free=4),), 0, "", "streamed"),
    ],
)
def test_the_executors_own_memory_counts_as_free(cards, held, held_card, tier):
    assert pick_tier(SPEC, cards, 1, held * GIB, held_card).tier == tier


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        (None, [0, 1, 2]), ("", []), ("2,0", [2, 0]), ("GPU-1", [1]), ("1,7,0", [1]), ("-1", []), ("1,-1,0", [1]),
        ("GPU-", []), ("GPU-2,GPU-", [2]),  # ambiguous
        ("0,0", []), ("GPU-1,GPU-1", []), ("2,0,2", []),  # CUDA shows nothing to who asks twice
        ("0,GPU-1", [0]), ("GPU-1,0", [1]), ("1st,2nd", [1, 2]), ("+2", [2]), (" 1 , 0 ", [1, 0]), ("all", []), ("none", []),
        ("0x1", [0]), ("NoDevFiles", []), (",", []), ("0,", [0]), ("01", [1]),
    ],
)  # fmt: skip
def test_cuda_visible_devices_is_obeyed(wish, left):
    assert [d.index for d in visible((card(0), card(1), card(2)), wish)] == left


class Nvml:
    """An NVML of one plain card and one that is cut into two MIG slices."""

    def __init__(self, processes: Any = None) -> None:
        self.processes = processes

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"card{index}"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if handle == "card0":
            raise RuntimeError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, number: int) -> str:
        if number == 2:
            raise RuntimeError("Not Found")
        return f"slice{number}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        total = {"card0": 24, "card1": 80}.get(handle, 20) * GIB
        return SimpleNamespace(total=total, used=total // 4, free=3 * total // 4)

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return handle.encode()

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return f"{'MIG' if handle.startswith('slice') else 'GPU'}-{handle}"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=1, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        raise RuntimeError("Not Supported")


def test_slices_stand_for_their_card(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    probe = NvmlProbe()
    probe._nvml = Nvml()
    assert [(d.uuid, d.total_bytes // GIB) for d in probe.read()] == [
        ("MIG-slice0", 20)
    ]  # a process sees one, the first
    assert probe.read()[0].processes[0].used_bytes == 0
    for wish, seen in (("MIG-slice1", "MIG-slice1"), ("MIG-slice1,MIG-slice0", "MIG-slice1"), ("1", "MIG-slice0"),
                       ("0", "GPU-card0"), ("0,1", "MIG-slice0")):  # fmt: skip
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wish)
        assert [d.uuid for d in probe.read()] == [seen]


def test_a_driver_that_stops_answering_is_asked_again(monkeypatch):
    """Nothing is raised into the dispatcher's loop, and NVML is started anew."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    probe, asked = NvmlProbe(), []

    class Lost(Nvml):
        def nvmlDeviceGetCount(self) -> int:
            if "nvmlInit" not in asked:
                raise RuntimeError("GPU is lost")
            return 1

        def nvmlShutdown(self) -> None:
            asked.append("nvmlShutdown")
            raise RuntimeError("Uninitialized")

        def nvmlInit(self) -> None:
            asked.append("nvmlInit")

    probe._nvml = Lost()
    assert probe.read() == ()
    assert [d.uuid for d in probe.read()] == ["GPU-card0"]
    assert asked == ["nvmlShutdown", "nvmlInit"]


def test_a_card_that_cannot_be_asked_is_left_out(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    class Half(Nvml):
        def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
            if index == 1:
                raise RuntimeError("GPU is lost")
            return super().nvmlDeviceGetHandleByIndex(index)

    probe = NvmlProbe()
    probe._nvml = Half()
    assert [d.uuid for d in probe.read()] == ["GPU-card0"]


@pytest.mark.parametrize(
    ("error", "exhausted", "broken"),
    [
        (MemoryError(), True, False),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("shapes (3, 4) and (5, 6) cannot be multiplied"), False, False),
        (ValueError("CUDA is a word"), False, False),
        (RuntimeError("CUDA driver error: invalid argument"), False, True),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), False, True),
        (RuntimeError("No CUDA GPUs are available"), False, True),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), False, True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True, False),
        (RuntimeError("cuModuleLoadData failed: CUDA_ERROR_OUT_OF_MEMORY"), True, False),
        (RuntimeError("launch failed: CUDA_ERROR_LAUNCH_FAILED"), False, True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True, False),
    ],
)
def test_errors_are_told_apart(error, exhausted, broken):
    assert (memory.is_out_of_memory(error), memory.is_broken_context(error)) == (exhausted, broken)


def test_a_fault_is_seen_through_the_words_of_a_backend():
    broken, full = RuntimeError("CUDA error: unspecified launch failure"), RuntimeError("CUDA out of memory")

    def told(cause: BaseException, *, explicit: bool) -> Exception:
        try:
            try:
                raise cause
            except RuntimeError as error:
                if explicit:
                    raise TakeError("the model failed") from error
                raise TakeError("the model failed")  # noqa: B904 - what a backend of somebody else may do
        except TakeError as error:
            return error

    for explicit in (True, False):
        assert memory.fault_of(told(broken, explicit=explicit)) == "context"
        assert memory.fault_of(told(full, explicit=explicit)) == "memory"
    assert memory.fault_of(TakeError("the model failed")) == ""
    # the card ran full, and cleaning up found it broken: the process must go
    full.__context__ = broken
    assert memory.fault_of(full) == "context"
    broken.__context__ = full  # a ring ends
    assert memory.fault_of(full) == "context"


def test_the_executor_says_what_it_holds_whatever_became_of_its_job(tmp_path, monkeypatch):
    """Else its own memory stands in the way of its next job where NVML does not tell processes apart."""
    from retake.worker import executor

    raised: list[BaseException] = []

    def execute(*_: Any) -> Any:
        raise raised[0]

    for name, answer in (("execute", execute), ("job_from_json", lambda _: SimpleNamespace(request=None, output=tmp_path)),
                         ("spec_from_json", lambda _: SPEC), ("held_device_bytes", lambda: 9 * GIB)):  # fmt: skip
        monkeypatch.setattr(executor, name, answer)
    message = {"id": "a", "job": {}, "backend": {}, "content": "", "tier": "", "card": "", "margin_bytes": 0, "attempt": 1,
               "reuse": "", "roots": [str(tmp_path)], "preview": str(tmp_path / "p.jpg")}  # fmt: skip
    for error, event, says in (
        (Cancelled("stopped"), "cancelled", {"held": 9 * GIB}),
        (InputError("wrong"), "failed", {"held": 9 * GIB, "again": False, "broken": False}),
        (VariantError("ran out of memory"), "failed", {"held": 9 * GIB, "again": True, "out_of_memory": True}),
        (RuntimeError("CUDA error: unspecified launch failure"), "failed", {"broken": True, "again": True}),
    ):
        raised[:] = [error]
        out = io.StringIO()
        executor.Executor(out, io.StringIO())._run(message)
        said = json.loads(out.getvalue())
        assert said["event"] == event
        assert {key: said.get(key) for key in says} == says
        assert ("held" in said) is ("held" in says)


# -- batches by model -------------------------------------------------------------------------------------------------


def record(number: int, backend: str, priority: int = 0) -> JobRecord:
    known = {
        "id": f"job{number}",
        "kind": "take",
        "backend": backend,
        "state": "queued",
        "priority": priority,
        "output": Path("/"),
    }
    fields = {name: known.get(name, default_of(name)) for name in JobRecord.__dataclass_fields__}
    return JobRecord(**fields)


def default_of(name: str) -> Any:
    import dataclasses

    field = JobRecord.__dataclass_fields__[name]
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ""


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=40))
def test_models_are_not_swapped_for_every_job_and_nobody_waits_for_ever(backends):
    queue, batch, loaded, loads, waited = [record(i, b) for i, b in enumerate(backends)], Batch(), "", 0, 0
    order, passes = [], {r.id: 0 for r in queue}
    while queue:
        chosen = batch.order(queue)[0]
        for earlier in queue[: queue.index(chosen)]:
            passes[earlier.id] += 1
        batch.started(chosen)
        loads += chosen.backend != loaded
        loaded = chosen.backend
        queue.remove(chosen)
        order.append(chosen.id)
    assert sorted(order) == sorted(passes)
    waited = max(passes.values())
    assert waited <= MOST_PASSES
    plain = 1 + sum(a != b for a, b in itertools.pairwise(backends))
    assert loads <= plain
    if len(backends) <= MOST_PASSES:
        assert loads == len(set(backends))


def test_a_higher_priority_goes_first_whatever_is_loaded():
    batch = Batch()
    batch.started(record(0, "a"))
    queue = [record(1, "b", priority=5), record(2, "a")]
    assert batch.order(queue)[0].id == "job1"
    batch.unloaded()
    assert [r.id for r in batch.order([record(3, "b"), record(4, "a")])] == ["job3", "job4"]


# -- whose turn it is -------------------------------------------------------------------------------------------------


class Turns:
    """An Admission over a queue, a card and a disk that a test decides."""

    def __init__(self, *queue: JobRecord, free: float = 20, disk: float = 100, ours: float = 0) -> None:
        self.queue, self.free, self.disk, self.asked = list(queue), free, disk, []
        settings = WorkerSettings(waiting=WaitingSettings(memory_wait_s=60, memory_margin_gib=1, disk_floor_gib=2))
        backends = {"model": SPEC, "plain": BackendSpec("plain", "take", "m:M")}
        store: Any = SimpleNamespace(queued=lambda limit: self.queue[:limit])
        self.admission = Admission(store, settings, backends, self, lambda folder: int(self.disk * GIB))
        self.ours = ours

    def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
        self.asked.append(ours)
        if self.free < 0:  # no card answers
            return ()
        return (card(total=48, free=self.free, ours=self.ours),)

    def next(self, now: float = 0, held: Held = Held()) -> Turn:  # noqa: B008
        return self.admission.next(now, held)


def test_the_first_job_that_fits_starts_and_others_of_its_model_wait_behind_it():
    turns = Turns(record(1, "model"), record(2, "model"), record(3, "plain"), free=1)
    turn = turns.next()
    assert turn.start is not None
    assert (turn.start[0].id, turn.start[1].name, turn.start[2]) == ("job3", "plain", Placement())
    assert len(turns.asked) == 2, "the second job of the model that does not fit is not asked about"
    turns.queue.pop()
    assert turns.next().start is None
    assert turns.next().waiting.startswith("waiting for GPU memory")
    turns.free = 20
    turn = turns.next()
    assert turn.start is not None
    assert (turn.start[0].id, turn.start[2].tier, turn.waiting) == ("job1", "resident", "")


def test_an_unknown_backend_is_refused_and_stops_nobody():
    turn = Turns(record(1, "nothing"), record(2, "plain")).next()
    assert turn.refused == (("job1", "unknown backend 'nothing'; valid: model, plain"),)
    assert turn.start is not None
    assert turn.start[0].id == "job2"


def test_a_job_gives_up_after_its_time_and_not_before():
    turns = Turns(record(1, "model"), free=1)
    assert turns.next(10).refused == ()
    assert turns.next(70).refused == ()
    ((job, why),) = turns.next(70.5).refused
    assert job == "job1"
    assert why.startswith("gave up after 60 s: waiting for GPU memory")
    assert turns.next(71).refused == (), "asked for again it has its time again"


def test_the_time_of_waiting_begins_anew_when_something_could_start():
    turns = Turns(record(1, "model"), free=1)
    turns.next(0)
    turns.queue.append(record(2, "plain"))
    assert turns.next(50).start is not None
    turns.queue.pop()
    assert turns.next(100).refused == ()


def test_a_job_that_was_put_off_waits_for_its_time():
    turns = Turns(record(1, "plain"))
    turns.admission.put_off("job1", 20.0)
    assert turns.admission.has_put_off
    assert turns.next(19).start is None
    assert turns.next(19).waiting == ""
    assert turns.next(20).start is not None
    assert not turns.admission.has_put_off
    turns.admission.put_off("job1", 50.0)
    turns.admission.put_off_no_longer("job1")
    assert turns.next(21).start is not None


def test_a_disk_below_its_floor_holds_every_job():
    turns = Turns(record(1, "plain"), disk=1.5)
    turn = turns.next()
    assert turn.start is None
    assert turn.waiting.startswith("waiting for disk space: 1.50 GiB free")
    turns.disk = 2
    assert turns.next().start is not None


def test_what_the_executor_holds_counts_for_its_next_job():
    turns = Turns(record(1, "model"), free=4)
    streamed, resident = turns.next().start, turns.next(held=Held(7, 9 * GIB, "")).start
    assert streamed is not None
    assert resident is not None
    assert (streamed[2].tier, resident[2].tier) == ("streamed", "resident")
    assert turns.asked == [frozenset(), frozenset({7})]


def test_a_card_that_was_there_is_waited_for_and_no_job_goes_to_the_cpu_instead():
    turns = Turns(record(1, "model"), record(2, "plain"), free=-1)
    turn = turns.next()
    assert turn.start is not None
    assert turn.start[2] == Placement("auto")  # never seen one: the backend asks torch
    turns.free = 20
    turns.next()
    turns.free = -1
    turn = turns.next(10)
    assert turn.start is not None
    assert turn.start[0].id == "job2"  # others pass
    turns.queue.pop()
    assert turns.next(10).waiting.startswith("waiting for the GPU: NVML showed 1 before and shows none now")
    turns.free = 20
    turn = turns.next(20)
    assert turn.start is not None
    assert turn.start[2].tier == "resident"
    turns.free = -1
    turns.next(30)
    assert turns.next(91).refused[0][1].startswith("gave up after 61 s: waiting for the GPU")


@pytest.mark.parametrize(("system", "wanted"), [("Windows", True), ("Linux", True), ("Darwin", False)])
def test_nvml_is_part_of_the_worker_where_cards_are(system, wanted):
    """Without it the service sees no card, and every job is planned blind."""
    from packaging.requirements import Requirement

    text = (Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8")
    [line] = re.findall(r'"(nvidia-ml-py[^"]*)"', text)
    requirement = Requirement(line)
    assert requirement.marker is None or requirement.marker.evaluate({"platform_system": system}) is wanted
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text("utf-8").splitlines()
    [pin] = [Requirement(row.partition("#")[0]) for row in pins if row.startswith("nvidia-ml-py")]
    assert pin.marker is None or pin.marker.evaluate({"platform_system": system})
