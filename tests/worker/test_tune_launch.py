# SPDX-License-Identifier: Apache-2.0
"""Around a training: where pictures are decoded, which processes a cluster starts, what a saved model says of its data, and who a
process is among others. Of retake.worker.tune.launch, ray_train, distributed and checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from retake.core.errors import InputError, MissingDependencyError, TakeError
from retake.worker.tune import checkpoints, distributed, launch
from retake.worker.tune.distributed import World
from retake.worker.tune.ray_train import train_on_ray

torch.set_num_threads(1)


# -- pictures -------------------------------------------------------------------------------------------------------------


class Pipe:
    """Where its VAE is, and whether it works in tiles."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.vae = SimpleNamespace(device=torch.device("cpu"), to=lambda where: self.told.append(str(where)))

    def enable_vae_tiling(self) -> None:
        self.told.append("tiles")

    def disable_vae_tiling(self) -> None:
        self.told.append("whole")


@pytest.mark.parametrize(("device", "told"), [
    ("cpu", ["cpu", "decode"]), ("cuda:0", ["cuda:0", "tiles", "decode", "whole", "cpu"]),
])  # fmt: skip
@pytest.mark.parametrize("fails", [False, True])
def test_a_full_card_decodes_in_tiles_and_gets_its_room_back(monkeypatch, device, told, fails):
    pipe: Any = Pipe()

    def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
        pipe.told.append("decode")
        if fails:
            raise torch.OutOfMemoryError("full")
        return torch.zeros(1, 3, 5, 2, 2)

    monkeypatch.setattr(launch.vae_stage, "decode", decode)
    if fails:
        with pytest.raises(torch.OutOfMemoryError):
            launch.decode_on(pipe, torch.zeros(1), torch.device(device))
    else:
        assert launch.decode_on(pipe, torch.zeros(1), torch.device(device)).shape == (5, 2, 2, 3)
    assert pipe.told == told


def test_a_saved_model_names_the_motions_it_was_trained_on(tmp_path):
    assert launch.training_episodes(tmp_path) == []
    (tmp_path / "tuned.json").write_text('{"step": 3}')
    assert launch.training_episodes(tmp_path) == []
    (tmp_path / "tuned.json").write_text('{"episodes": ["a", "b"]}')
    assert launch.training_episodes(tmp_path) == ["a", "b"]


# -- Ray ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ray Train as far as it is asked."""
    made = SimpleNamespace(here=False, options=None, ended=0, trainers=[], error=None)
    modules = {name: ModuleType(name) for name in ("ray", "ray.train", "ray.train.torch")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    root: Any = modules["ray"]
    root.is_initialized = lambda: made.here
    root.init = lambda **options: setattr(made, "options", options)
    root.shutdown = lambda: setattr(made, "ended", made.ended + 1)
    train: Any = modules["ray.train"]
    for name in ("FailureConfig", "RunConfig", "ScalingConfig"):
        setattr(train, name, lambda **told: told)
    torch_part: Any = modules["ray.train.torch"]
    torch_part.TorchConfig = lambda **told: told

    def trainer(work: Any, **told: Any) -> Any:
        made.trainers.append((work, told))

        def fit() -> Any:
            if isinstance(made.error, BaseException):
                raise made.error
            return SimpleNamespace(error=made.error)

        return SimpleNamespace(fit=fit)

    torch_part.TorchTrainer = trainer
    return made


@pytest.mark.parametrize(("gpus", "backend"), [(True, "nccl"), (False, "gloo")])
def test_a_cluster_starts_as_many_processes_as_asked_and_again_where_they_die(
    ray, tmp_path, monkeypatch, gpus, backend
):
    monkeypatch.chdir(tmp_path)
    work = lambda arguments: None  # noqa: E731
    train_on_ray(work, {"a": 1}, processes=1, storage=Path("s"), gpus=gpus, restarts=5)
    ((found, told),) = ray.trainers
    assert found is work
    assert told == {
        "train_loop_config": {"a": 1}, "scaling_config": {"num_workers": 1, "use_gpu": gpus},
        "torch_config": {"backend": backend},
        "run_config": {"storage_path": str(tmp_path / "s"), "failure_config": {"max_failures": 5}},
    }  # fmt: skip
    assert ray.options["address"] is None
    assert not any(ray.options[name] for name in ("include_dashboard", "log_to_driver", "configure_logging"))
    assert ray.ended == 1
    ray.here, ray.options = True, None
    train_on_ray(work, {}, processes=2, storage=tmp_path, gpus=gpus, address="auto")
    assert (ray.options, ray.ended) == (None, 1), "a cluster of somebody else goes on"
    ray.here = False
    train_on_ray(work, {}, processes=2, storage=tmp_path, gpus=gpus, address="head:1")
    assert ray.options["address"] == "head:1"


def test_a_training_that_ray_gave_up_is_an_error_and_its_cluster_is_ended(ray, tmp_path, monkeypatch):
    for error, kind, says in (
        ("it died", TakeError, "failed after 3 restarts: it died"),
        (OSError("odd"), OSError, "odd"),
    ):
        ray.error = error
        with pytest.raises(kind, match=says):
            train_on_ray(lambda arguments: None, {}, processes=1, storage=tmp_path, gpus=False)
    assert ray.ended == 2
    with pytest.raises(InputError, match="processes is 0"):
        train_on_ray(lambda arguments: None, {}, processes=0, storage=tmp_path, gpus=False)
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(MissingDependencyError, match="Ray Train needs"):
        train_on_ray(lambda arguments: None, {}, processes=1, storage=tmp_path, gpus=False)


# -- among other processes --------------------------------------------------------------------------------------------------


class Group:
    """The other process: what it adds to a sum, and what was asked of the group."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backend: str = "gloo") -> None:
        self.told: list[Any] = []
        self.here = True
        answers = {
            "is_available": lambda: True, "is_initialized": lambda: self.here, "get_rank": lambda: 1, "get_world_size": lambda: 2,
            "get_backend": lambda: backend, "barrier": lambda: self.told.append("barrier"),
            "all_reduce": lambda tensor: tensor.add_(3.0), "init_process_group": lambda kind: self.told.append(kind),
            "broadcast": lambda tensor, rank: tensor.fill_(7.0 + rank),
            "destroy_process_group": lambda: self.told.append("left"),
        }  # fmt: skip
        for name, answer in answers.items():
            monkeypatch.setattr(distributed.dist, name, answer)


def test_processes_average_what_they_measure_and_learn(monkeypatch):
    group = Group(monkeypatch)
    alone, two = World(), World(1, 2)
    assert (alone.is_main, two.is_main, World(0, 2).is_main) == (True, False, True)
    assert (alone.mean(5.0), two.mean(5.0)) == (5.0, 4.0)
    alone.wait()
    assert group.told == []
    two.wait()
    assert group.told == ["barrier"]
    parameters: dict[str, Any] = {name: torch.nn.Parameter(torch.zeros(2)) for name in "ab"}
    parameters["a"].grad = torch.ones(2)
    distributed.average_gradients(parameters, alone)
    assert parameters["a"].grad.tolist() == [1, 1]
    distributed.average_gradients(parameters, two)
    assert parameters["a"].grad.tolist() == [2, 2]
    assert parameters["b"].grad is None
    distributed.replicate(parameters, alone)
    assert parameters["a"].tolist() == [0, 0]
    distributed.replicate(parameters, two)
    assert [parameters[name].tolist() for name in "ab"] == [[7, 7], [7, 7]], "the first one's"


def test_a_process_joins_the_group_that_its_launcher_describes(monkeypatch):
    group = Group(monkeypatch)
    assert distributed.join_world(torch.device("cpu")) == World(1, 2)
    group.here = False
    for size, joined in (("", False), ("1", False), ("2", True)):
        group.told.clear()
        monkeypatch.setenv("WORLD_SIZE", size) if size else monkeypatch.delenv("WORLD_SIZE", raising=False)
        assert distributed.join_world(torch.device("cuda")) == (World(1, 2) if joined else World())
        assert group.told == (["nccl"] if joined else [])
    distributed.join_world(torch.device("cpu"))
    assert group.told[-1] == "gloo"
    distributed.leave_world()
    assert group.told[-1] == "gloo", "there is nothing to leave"
    group.here = True
    distributed.leave_world()
    assert group.told[-1] == "left"
    with pytest.raises(InputError, match="at least two processes"):
        distributed.shard(None, World())


def test_gradients_are_exchanged_with_the_last_pass():
    told: list[bool] = []
    sharded = SimpleNamespace(set_requires_gradient_sync=told.append)
    for last in (False, True):
        with distributed.no_sync(last, sharded):
            pass
        with distributed.no_sync(last, object()):
            pass
    assert told == [False, True]


# -- checkpoints ------------------------------------------------------------------------------------------------------------


def test_the_newest_checkpoints_are_kept_and_half_made_ones_not_counted(tmp_path):
    for step in (5, 100, 20, 1_000_000):
        made = checkpoints.save(tmp_path, step, {"trained": {"w": torch.ones(2)}}, {"base": "b"})
        assert (made.step, made.state) == (step, {"schema": checkpoints.SCHEMA, "step": step, "base": "b"})
    (tmp_path / "step-000200").mkdir()  # of a process that died
    (tmp_path / "step-77").mkdir()
    (tmp_path / "step-77" / "state.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    assert [one.step for one in checkpoints.find(tmp_path)] == [5, 20, 100, 1_000_000]
    assert checkpoints.find(tmp_path / "nowhere") == []
    checkpoints.prune(tmp_path, 9)
    assert len(checkpoints.find(tmp_path)) == 4
    checkpoints.prune(tmp_path, 2)
    assert [one.step for one in checkpoints.find(tmp_path)] == [100, 1_000_000]
    assert (tmp_path / "step-000200").is_dir()
    state = tmp_path / "step-000100" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "schema": "other/9"}))
    with pytest.raises(InputError, match="has schema 'other/9'"):
        checkpoints.find(tmp_path)
