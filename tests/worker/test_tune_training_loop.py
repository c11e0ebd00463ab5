# SPDX-License-Identifier: Apache-2.0
"""The training loop's rhythm: what is drawn, validated, pictured and saved when, who stops it and what it goes on from. Model,
VAE and curves are stand-ins. Of retake.worker.tune.trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retake.core.errors import Cancelled, InputError
from retake.worker.tune import checkpoints, pictures, trainer
from retake.worker.tune.clips import Clip
from retake.worker.tune.config import ObjectSupervision, TuneConfig
from retake.worker.tune.distributed import World
from retake.worker.tune.latents import Encoded
from retake.worker.tune.settings import RunSettings
from retake.worker.tune.trainer import Trainer

torch.set_num_threads(1)


def clip(name: str, frames: int = 9, **more: Any) -> Clip:
    none = lambda: None  # noqa: E731
    return Clip(**{
        "uid": name, "episode": name, "domain": "sim", "camera": "front", "caption": f"word {name}", "frames": frames,
        "fps": 10.0, "events": (), "rgb": none, "skeleton": none, "physics": none, "terms": "CC0-1.0", **more,
    })  # fmt: skip


class Tuner:
    """Writes down what it is given; its loss is the step's number."""

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.transformer = SimpleNamespace()
        self.optimizer = SimpleNamespace(iteration=0)
        self.steps: list[Any] = []
        self.seen: list[Any] = []
        self.before_update: Any = None

    def step_accumulated(self, batches: list[Any], sync: Any) -> Any:
        self.steps.append((self.generator.initial_seed(), batches, self.before_update))
        self.optimizer.iteration += 1
        return SimpleNamespace(
            loss=float(len(self.steps)), grad_norm=0.5, lr=0.25, object_error=None, background_error=2.0
        )

    def predict(self, batch: Any, *, dropout: bool) -> Any:
        assert dropout is False
        assert batch.weight is None
        self.seen.append(batch)
        return SimpleNamespace(squared_error=batch.epsilon**2 * float(batch.u[0]))


class Curves:
    made: list[Any] = []  # noqa: RUF012 - emptied before each test

    def __init__(self, folder: Path) -> None:
        self.steps, self.values, self.pictures, self.closed = [], {}, [], 0
        Curves.made.append(self)

    def add_step(self, step: int, **values: Any) -> None:
        self.steps.append((step, values))

    def add(self, step: int, **values: Any) -> None:
        self.values[step] = values

    def add_picture(self, step: int, picture: Any) -> None:
        self.pictures.append((step, picture))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that were saved."""
    saved: list[int] = []
    real = checkpoints.save
    monkeypatch.setattr(Curves, "made", [])
    monkeypatch.setattr(trainer, "Curves", Curves)
    monkeypatch.setattr(checkpoints, "capture", lambda tuner: {"trained": {"w": torch.ones(1)}})
    monkeypatch.setattr(checkpoints, "restore", lambda tuner, found: setattr(tuner, "restored", found.step))
    monkeypatch.setattr(
        checkpoints, "save", lambda folder, step, *more: saved.append(step) or real(folder, step, *more)
    )
    return saved


def encoded(choice: Any) -> Encoded:
    """Latents that show the window's start; objects in the clips that name them (`o`), in free fall in those that fall (`f`)."""
    shape, start = (1, 2, 3, 2, 2), float(choice.window.start)
    cells = torch.arange(12.0).reshape(1, 3, 2, 2) if "o" in choice.clip.uid else None
    falling = None if cells is None else cells * ("f" in choice.clip.uid) * (1 + start)
    return Encoded(torch.full(shape, start), torch.full(shape, start + 0.5), torch.ones(1, 3), cells, falling)


def make(
    folder: Path, train: Any = None, held: Any = (), world: Any = None, decode: Any = None, **told: Any
) -> Trainer:
    settings = RunSettings(**{"steps": 7, "frames": 9, "size": (16, 16), "stride": 4, "picture_steps": 0, **told})
    said: list[str] = []
    made = Trainer(
        Tuner(), settings, folder, cache=SimpleNamespace(read=encoded),  # pyright: ignore[reportArgumentType]
        text_of=lambda caption: said.append(caption) or torch.full((1, 2, 3), float(len(caption))),
        train=train or [clip("a", 33)], validation=held, base="golden", world=world, decode=decode,
    )  # fmt: skip
    made.said = said  # pyright: ignore[reportAttributeAccessIssue]
    return made


# -- the rhythm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "every", "save"), [(7, 3, 2), (6, 3, 2), (1, 5, 5), (5, 1, 5), (4, 9, 1), (6, 2, 4)])
@pytest.mark.parametrize("validation", [(), (clip("v"),)])
def test_validation_and_saving_keep_their_time_and_end_with_the_last_step(
    tmp_path, kept, steps, every, save, validation
):
    run = make(tmp_path, held=validation, steps=steps, validate_every=every, save_every=save, keep=9)
    said: list[Any] = []
    ended = run.run(lambda *words: said.append(words))
    done = range(1, steps + 1)
    at = [n for n in done if n % every == 0 or n == steps] if validation else []
    assert [found["step"] for found in ended.validation] == at
    assert kept == [n for n in done if n % save == 0 or n == steps]
    assert said == [(n, steps, f"loss {n:.4f}") for n in done]
    assert (ended.step, ended.losses, run.last_loss) == (steps, tuple(map(float, done)), steps)
    [curves] = Curves.made
    assert curves.steps == [(n - 1, {
        "loss": n, "grad_norm": 0.5, "lr": 0.25, "object_error": None, "background_error": 2.0
    }) for n in done]  # fmt: skip
    assert list(curves.values) == at
    assert all(set(values) == {"validation_error"} for values in curves.values.values())
    assert curves.closed == 1


@pytest.mark.parametrize(("stop", "saved"), [(0, []), (1, [1]), (2, [2]), (3, [2, 3]), (4, [2, 4]), (5, [2, 4, 5])])
def test_a_training_that_is_stopped_keeps_what_it_learnt_once(tmp_path, kept, stop, saved):
    left = [stop]

    def cancel() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Cancelled("stop")

    run = make(tmp_path, save_every=2)
    with pytest.raises(Cancelled, match="stop"):
        run.run(cancel=cancel)
    assert (kept, len(run.tuner.steps)) == (saved, stop)
    assert Curves.made[0].closed == 1
    again = make(tmp_path, save_every=2)
    assert again.run().step == 7
    assert len(again.tuner.steps) == 7 - stop
    assert getattr(again.tuner, "restored", 0) == stop
    assert [step for step, _ in Curves.made[1].steps] == list(range(stop, 7))
    assert make(tmp_path).run().losses == (), "nothing is left to do"


class Others(World):
    """A process among others, which say what they measured."""

    def __init__(self, says: float = 0.0, rank: int = 0, size: int = 1) -> None:
        object.__setattr__(self, "says", says)
        super().__init__(rank, size)

    def mean(self, value: float) -> float:
        return value + self.says  # pyright: ignore[reportAttributeAccessIssue]

    def wait(self) -> None:
        pass


def test_all_processes_stop_where_one_is_asked_to(tmp_path, kept):
    with pytest.raises(Cancelled, match="another process of this training was asked to stop"):
        make(tmp_path, world=Others(0.5)).run()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, world=Others(0.5)).run(cancel=lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert kept == []


def test_one_process_alone_writes(tmp_path, kept):
    run = make(tmp_path / "run", world=Others(rank=1, size=2), held=[clip("v")])
    assert run.run().step == 7
    assert (kept, Curves.made, (tmp_path / "run").exists()) == ([], [], False)


CHANGED = {
    "step": TuneConfig(lr=1.0), "batch": 2, "accumulate": 2, "frames": 5, "size": (32, 16), "fit": "pad", "stride": 3,
    "domains": {"sim": 2.0}, "balance": True, "validation": 0.5, "data_seed": 1, "shuffle_objects": True,
}  # fmt: skip
FREE = {"steps": 9, "keep": 1, "save_every": 3, "validate_every": 2, "picture_steps": 4}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(RunSettings)])
def test_a_training_goes_on_with_the_settings_that_decide_what_it_learns(tmp_path, name):
    make(tmp_path, steps=2).run()
    if name in FREE:
        assert make(tmp_path, **{"steps": 3, name: FREE[name]}).run().step == (9 if name == "steps" else 3)
        return
    with pytest.raises(
        InputError, match=rf"step-000002 was made with other settings \({name}: .* then, .* now\); go on"
    ):
        make(tmp_path, **{"steps": 3, name: CHANGED[name]}).run()


def test_three_differences_are_told_and_other_data_is_told_by_its_hash(tmp_path):
    make(tmp_path, steps=2).run()
    with pytest.raises(InputError, match="other settings") as caught:
        make(tmp_path, steps=3, batch=2, data_seed=3, fit="pad", accumulate=4).run()
    assert [name in str(caught.value) for name in ("accumulate", "batch", "data_seed", "fit")] == [
        True,
        True,
        True,
        False,
    ]
    with pytest.raises(InputError, match=r"other data \([0-9a-f]{16} then, [0-9a-f]{16} now\)"):
        make(tmp_path, train=[clip("b")], steps=3).run()
    other = make(tmp_path, steps=3)
    other.base = "another"
    with pytest.raises(InputError, match=r"other base weights \(golden then, another now\)"):
        other.run()


# -- a step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2)])
def test_a_step_is_so_many_batches_of_its_own_windows_and_noise(tmp_path, batch, accumulate, rank, size):
    run = make(tmp_path, world=Others(rank=rank, size=size), batch=batch, accumulate=accumulate)
    for step in (0, 5):
        run._step(step)
        seed, batches, _ = run.tuner.steps[-1]
        assert [len(given.x0) for given in batches] == [batch] * accumulate
        drawn = run.sampler.draw(step, batch * accumulate, rank, size)
        assert [float(x[0, 0, 0, 0]) for given in batches for x in given.x0] == [one.window.start for one in drawn]
        assert seed == step * size + rank
    assert len(run.said) == 1, "a caption is encoded once"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_noise_of_every_process_and_step_is_its_own(tmp_path):
    seeds = set()
    for seed in (0, 1, 2):
        for rank in range(3):
            run = make(tmp_path, world=Others(rank=rank, size=3), step=TuneConfig(seed=seed))
            for step in range(5):
                run._step(step)
            seeds |= {given for given, _, _ in run.tuner.steps}
    assert len(seeds) == 45


@pytest.mark.parametrize("sharded", [False, True])
def test_gradients_are_averaged_where_the_weights_are_not_cut(tmp_path, sharded, monkeypatch):
    averaged: list[Any] = []
    monkeypatch.setattr(trainer, "average_gradients", lambda parameters, world: averaged.append((parameters, world)))
    run = make(tmp_path)
    if sharded:
        run.tuner.transformer.set_requires_gradient_sync = None
    run._step(0)
    before = run.tuner.steps[0][2]
    assert (before is None) == sharded
    if before is not None:
        before("p")
        assert averaged == [("p", run.world)]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_objects_weigh_in_their_place_or_in_places_drawn_by_the_step(tmp_path, shuffle, weight):
    step = TuneConfig(objects=ObjectSupervision(weight=weight, release_boost=3.0))
    run = make(tmp_path, [clip("of", 33)], shuffle_objects=shuffle, step=step)
    choices = [run.sampler.choices[k] for k in (0, 1)]
    first, again, other = (run.batch(choices, n).weight for n in (4, 4, 5))
    if not weight:
        assert first is None
        return
    cells = torch.stack([torch.arange(12.0).reshape(3, 2, 2)] * 2)
    falling = cells * torch.tensor([1.0, 1.0 + choices[1].window.start])[:, None, None, None]
    plain = (1 + weight * (cells + 2 * falling))[:, None]
    assert torch.equal(first, again)
    assert torch.equal(first, plain) != shuffle
    assert torch.equal(first, other) != shuffle
    assert torch.equal(first.flatten(3).sort(-1).values, plain.flatten(3).sort(-1).values), "both are moved alike"
    assert make(tmp_path, [clip("a")]).batch(make(tmp_path, [clip("a")]).sampler.choices).weight is None


# -- validation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", range(1, 14))
def test_about_three_windows_of_each_clip_are_validated(tmp_path, windows):
    run = make(tmp_path, held=[clip("v", 9 + 4 * (windows - 1)), clip("w")])
    found = list(run._validation_windows())
    starts = [choice.window.start for number, choice in found if number == 0]
    apart = 4 * max(1, windows // 3)
    assert starts == list(range(0, 4 * windows, apart))
    assert [(number, choice.clip.uid) for number, choice in found][-1] == (1, "w")


def test_errors_are_measured_at_fixed_noise_over_what_is_predicted(tmp_path):
    run = make(tmp_path, held=[clip("v", 13), clip("o"), clip("of", 13)])
    found = run.validate()
    sums: dict[str, list[float]] = {"error": [], "object": [], "falling": []}
    windows = list(run._validation_windows())
    assert [(number, choice.window.start) for number, choice in windows] == [(0, 0), (0, 4), (1, 0), (2, 0), (2, 4)]
    seen = iter(run.tuner.seen)
    for number, choice in windows:
        parts = encoded(choice)
        for index, u in enumerate((0.2, 0.5, 0.8)):
            given = next(seen)
            noise = torch.Generator().manual_seed(1000 * number + 10 * choice.window.start + index)
            assert torch.equal(given.epsilon, torch.randn((1, 2, 3, 2, 2), generator=noise))
            assert float(given.u) == pytest.approx(u)
            assert torch.equal(given.control, parts.control)
            assert float(given.text[0, 0, 0]) == len(choice.clip.caption)
            squared = (given.epsilon**2 * u).mean(1)[:, 1:]
            sums["error"].append(float(squared.mean()))
            for name, share in (("object", parts.cells), ("falling", parts.falling)):
                if share is not None and share.any():
                    sums[name].append(float((squared * share[:, 1:]).sum() / share[:, 1:].sum()))
    assert found == pytest.approx({name: sum(values) / len(values) for name, values in sums.items()})
    assert (len(sums["object"]), len(sums["falling"])) == (9, 6)
    assert set(make(tmp_path, held=[clip("v")]).validate()) == {"error"}
    assert run.validate() == found


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was sampled, and the sheets that were drawn of it."""
    made: list[Any] = []
    monkeypatch.setattr(
        pictures, "sample", lambda tuner, batch, steps: made.append(("sample", steps)) or batch.x0 + 100
    )

    def draw(shown: Any, decode: Any, steps: int) -> str:
        decode()
        made.append([(float(one.truth.max()), float(one.made.max()), one.cells is None) for one in shown])
        return "sheet"

    monkeypatch.setattr(pictures, "draw", draw)
    return made


def test_two_clips_are_pictured_at_the_window_with_most_of_a_fall(tmp_path, drawn):
    videos = [clip("v", 13), clip("of", 13), clip("of2", 17), clip("o", 17)]
    run = make(tmp_path, held=videos, decode=lambda: None, picture_steps=3, steps=4, validate_every=2)
    run.run()
    sheet = [(8.0, 108.0, False), (4.0, 104.0, False)]
    assert drawn == [("sample", 3), ("sample", 3), sheet] * 2
    assert Curves.made[0].pictures == [(2, "sheet"), (4, "sheet")]
    drawn.clear()
    assert make(tmp_path, held=videos[3:], decode=lambda: None, picture_steps=3)._picture() == "sheet"
    assert drawn == [("sample", 3), [(0.0, 100.0, False)]], "of equal windows the first"


def test_pictures_are_drawn_where_they_are_asked_for_and_can_be(tmp_path, drawn):
    def full() -> None:
        raise torch.OutOfMemoryError("full")

    assert make(tmp_path, held=[clip("v")], picture_steps=3)._picture() is None
    assert make(tmp_path, held=[clip("v")], picture_steps=0, decode=lambda: None)._picture() is None
    assert drawn == []
    other = make(tmp_path, held=[clip("v")], picture_steps=3, decode=lambda: None, world=Others(rank=1, size=2))
    assert other._picture() is None
    assert drawn == [("sample", 3)], "every process samples, one draws"
    drawn.clear()
    run = make(tmp_path, held=[clip("v")], picture_steps=3, decode=full)
    assert (run._picture(), run._picture(), run.decode) == (None, None, None)
    assert drawn == [("sample", 3), ("sample", 3)], "it goes on sampling beside the others"


def test_a_checkpoint_says_what_was_learnt_from(tmp_path):
    clips = [clip("b", terms="x", episode="2"), clip("a", terms="x", episode="1"), clip("c", episode="1")]
    run = make(tmp_path, clips, steps=1)
    run.run()
    [found] = checkpoints.find(tmp_path / "checkpoints")
    assert (found.state["terms"], found.state["episodes"], found.state["base"]) == (
        ["CC0-1.0", "x"],
        ["1", "2"],
        "golden",
    )
    assert (found.state["iteration"], found.state["data_sha256"]) == (1, run.data_sha256)
    assert run.data_sha256 == make(tmp_path, clips[::-1]).data_sha256 != make(tmp_path, clips[1:]).data_sha256
