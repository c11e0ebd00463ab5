# SPDX-License-Identifier: Apache-2.0
"""Faults of a card, injected into real takes on a pretended CUDA machine. Tests run some places, the proof all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from oscar_golden import golden_call, pipeline, pixels
from pretend_cuda import World, machine

from retake.core.errors import TakeError
from retake.worker import memory
from retake.worker.oscar import sampler
from retake.worker.oscar.tiers import TIERS, find_tier, next_tier

STEPS, SEEDS, FRAMES = 3, (1, 2), 9
"""Two windows of five frames, two takes, four evaluations each."""
MESSAGES = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
)
BROKEN = ("CUDA error: an illegal memory access was encountered", "CUDA error: no CUDA-capable device is detected")


def call(**changes: Any) -> dict[str, Any]:
    return golden_call(
        skeleton=pixels()["skeleton"][:FRAMES], num_frames=5, height=32, width=32, num_inference_steps=STEPS,
        seed=list(SEEDS), **changes,
    )  # fmt: skip


class Fault:
    """Raises once, at the `at`-th operation of the `nth` visit of a place ("encode", "decode", "step 0", …)."""

    def __init__(self, world: World, place: str, nth: int = 0, at: int = 5, error: Any = None) -> None:
        self.world, self.place, self.nth, self.at = world, place, nth, at
        self.error = error or torch.OutOfMemoryError(MESSAGES[0])
        self.fired = False
        self.stays = False
        """Whether every later operation fails, too: a broken context."""
        self._visits: dict[str, int] = {}
        self._thread = threading.local()
        """Where a thread is and how many operations it did there: decodes run beside the steps of the next take."""

    def enter(self, place: str) -> None:
        self._visits[place] = self._visits.get(place, -1) + 1
        self._thread.here, self._thread.visit, self._thread.done = place, self._visits[place], 0

    def operation(self, name: str) -> None:
        if self.fired:
            if self.stays:
                raise self.error
            return
        thread = self._thread
        if getattr(thread, "here", "") == self.place and thread.visit == self.nth:
            thread.done += 1
            if thread.done >= self.at:
                self.fired = True
                raise self.error


@contextmanager
def injected(monkeypatch: Any, pipe: Any, fault: Fault) -> Iterator[None]:
    """The fault follows the pipeline's stages and the sampler's steps."""
    stage, evaluate = pipe.stage, sampler.evaluate

    @contextmanager
    def staged(name: str, *modules: Any) -> Iterator[None]:
        fault.enter(name)
        with stage(name, *modules):
            yield

    def step(*arguments: Any) -> Any:
        fault.enter(f"step {arguments[5]}")
        return evaluate(*arguments)

    pipe.stage = staged
    monkeypatch.setattr(sampler, "evaluate", step)
    fault.world.before = fault.operation
    try:
        yield
    finally:
        fault.world.before = lambda name: None
        monkeypatch.setattr(sampler, "evaluate", evaluate)
        del pipe.stage


@cache
def undisturbed(tier: str) -> np.ndarray:
    pipe = pipeline()
    pipe.enable_memory_tier(tier, "cpu")
    return pipe(**call()).frames


def places() -> list[tuple[str, int]]:
    """Every stage and every step of every take and window."""
    takes, windows = len(SEEDS), 2
    steps = [(f"step {step}", visit) for step in range(STEPS + 1) for visit in range(takes * windows)]
    return [
        *(("encode", visit) for visit in range(windows)),
        *steps,
        *(("decode", visit) for visit in range(takes * windows)),
    ]


def out_of_memory(monkeypatch: Any, tier: str, place: str, visit: int, at: int, message: str) -> dict[str, Any]:
    """One failed allocation: the run goes one tier down and on from what is finished; every take is there once."""
    error = torch.OutOfMemoryError(message) if "Tried" in message else RuntimeError(message)
    with machine(monkeypatch) as world:
        pipe = pipeline()
        pipe.enable_memory_tier(tier, "cuda")
        fault = Fault(world, place, visit, at, error)
        lower = next_tier(find_tier(tier))
        with injected(monkeypatch, pipe, fault):
            refused = ""
            try:
                out = pipe(**call())
            except TakeError as error_:
                out, refused = None, str(error_)
        assert fault.fired, f"{place} {visit} was never reached"
        if out is None:  # the last tier says so, and the next call works
            assert lower is None
            assert "smallest tier" in refused
            out = pipe(**call())
        else:
            assert out.retried
            assert lower is not None
            assert out.tier == lower.name
        result = {"tier": tier, "place": place, "resumed_steps": out.stats.resumed_steps,
                  "evaluations": out.stats.evaluations, "frames": np.array(out.frames)}  # fmt: skip
        assert out.frames.shape[:2] == (len(SEEDS), FRAMES)
        assert world.races == []
        error.__traceback__ = None  # its frames hold the failed run's tensors
        del out
        pipe.release_memory()
        pipe.transformer._rope_cache.clear()
        assert world.live[0] <= 4096, f"{world.live[0]} bytes stay behind"
    return result


def steps_before(place: str) -> int:
    """Steps of the take at work that are done when a place is reached: none while encoding, all before decoding."""
    return STEPS + 1 if place == "decode" else int(place.partition(" ")[2] or 0)


@cache
def staged_bytes() -> int:
    """Most bytes of the card that a take needs where stages visit it one after the other."""
    with pytest.MonkeyPatch.context() as patch, machine(patch) as world:
        pipe = pipeline()
        pipe.enable_memory_tier("staged", "cuda")
        world.peak[0] = 0
        pipe(**call())
        return world.peak[0]


def memory_taken(monkeypatch: Any, tier: str, place: str) -> dict[str, Any]:
    """Another process takes all but what the staged tier needs of the card when a place is reached, and keeps it."""
    free_bytes = staged_bytes() + 200_000
    with machine(monkeypatch) as world:
        pipe = pipeline()
        pipe.enable_memory_tier(tier, "cuda")
        fault = Fault(world, place)
        taken: list[int] = []

        def take(name: str) -> None:
            try:
                Fault.operation(fault, name)
            except torch.OutOfMemoryError:
                taken.append(1)
                world.others[0] = world.capacity[0] - free_bytes

        fault.operation = take  # type: ignore[method-assign]
        with injected(monkeypatch, pipe, fault):
            out = pipe(**call())
        assert taken
        result = {"tier": tier, "place": place, "ended_in": out.tier, "frames": np.array(out.frames)}
        assert world.peak[0] <= world.capacity[0]
    return result


def broken_context(monkeypatch: Any, place: str, message: str) -> dict[str, Any]:
    """A broken context is no lack of memory: it is raised at once, told apart, and no tier is blamed."""
    with machine(monkeypatch) as world:
        pipe = pipeline()
        pipe.enable_memory_tier("resident", "cuda")
        fault = Fault(world, place, error=RuntimeError(message))
        with injected(monkeypatch, pipe, fault), pytest.raises(RuntimeError) as raised:
            pipe(**call())
        assert memory.is_broken_context(raised.value)
        assert not memory.is_out_of_memory(raised.value)
        assert pipe.tier.name == "resident"
    return {"place": place, "message": message}


TIER_NAMES = tuple(tier.name for tier in TIERS)

FOUND: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    ("a new prompt fails on small cards: no plan placed a lazy text encoder", {
        "worker/test_cuda_wiring.py": ("test_a_lazy_text_encoder_is_placed_by_what_is_free",
                                       "test_an_encoder_that_runs_out_of_memory_loses_nothing"),
        "worker/test_oscar_backend.py": ("test_an_encoder_that_does_not_fit_is_run_on_the_cpu",)}),
    ("the CPU is used although CUDA is there", {
        "worker/test_cuda_wiring.py": ("test_without_a_word_the_card_is_used",),
        "test_worker_memory.py": ("test_without_nvml_the_backend_asks_for_itself",
                                  "test_nvml_is_part_of_the_worker_where_cards_are")}),
    ("one broken context fails the whole queue; a library's failed allocation is not seen as out of memory", {
        "test_worker_faults.py": ("test_a_broken_cuda_context_is_one_jobs_fault",),
        "test_worker_memory.py": ("test_errors_are_told_apart", "test_a_fault_is_seen_through_the_words_of_a_backend")}),
    ("several cards, containers, MIG: the plan is of one card and the work on another; the executor stands in its own way", {
        "worker/test_oscar_backend.py": ("test_the_chosen_card_is_the_one_that_runs",),
        "test_worker_memory.py": ("test_the_executors_own_memory_counts_as_free",
                                  "test_the_executor_says_what_it_holds_whatever_became_of_its_job",
                                  "test_cuda_visible_devices_is_obeyed", "test_slices_stand_for_their_card"),
        "worker/test_gpu_choice.py": ("test_cuda_visible_devices_means_what_torch_says_it_means",
                                      "test_first_frames_are_planned_for_the_card_they_run_on",
                                      "test_a_ray_actor_knows_its_own_memory_and_names_its_card")}),
    ("`cuda:1` computes in float32", {"worker/test_oscar_backend.py": ("test_every_card_is_bfloat16",)}),
    ("attention kernel and compiling are the bench's alone", {
        "worker/test_cuda_wiring.py": ("test_what_the_bench_selects_is_what_runs",)}),
    ("streamed weights move both ways, unpinned, one after the other", {
        "worker/test_oscar_streaming.py": ("test_weights_move_once_per_forward_and_never_back",),
        "worker/test_cuda_wiring.py": ("test_weights_visit_once_per_stage",)}),
    ("a new stream for every window", {"worker/test_cuda_wiring.py": ("test_one_decode_stream_for_all_windows",)}),
    ("what decides last bits is chosen by the moment and not recorded", {
        "worker/test_oscar_backend.py": ("test_what_is_pinned_is_part_of_the_identity_and_not_overruled",
                                         "test_modes_are_pinned_labelled_and_checked", "test_a_take_says_what_it_ran_with"),
        "worker/test_cuda_wiring.py": ("test_options_of_the_backend",)}),
    ("plans are for one size; out of memory starts the take anew", {
        "worker/test_cuda_wiring.py": ("test_a_plan_is_for_the_jobs_own_size_and_leaves_the_margin",),
        "worker/test_cuda_faults.py": ("test_out_of_memory_costs_no_take_and_no_finished_step",)}),
    ("fp8 stores weights and does not compute in it", {
        "worker/test_oscar_speed.py": ("test_float8_products_are_products",
                                       "test_float8_is_compute_is_labelled_and_is_refused_by_old_cards")}),
    ("the text encoder visits for every prompt; skeletons are encoded for every job; backends alternate", {
        "worker/test_cuda_wiring.py": ("test_the_encoder_visits_once_for_all_prompts",),
        "worker/test_oscar_pipeline.py": ("test_takes_of_their_own_share_the_skeleton_encode",),
        "test_worker_memory.py": ("test_models_are_not_swapped_for_every_job_and_nobody_waits_for_ever",)}),
    ("another tokenizer's padding would go unnoticed", {
        "worker/test_oscar_convert.py": ("test_padding_other_than_the_references_is_noted",)}),
)  # fmt: skip
"""Each fault that reading the path found, and the tests (file below tests/ -> functions) that fail where it is back."""
