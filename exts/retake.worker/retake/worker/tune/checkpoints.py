# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or absent, hold everything the next step depends on, and say where they come from.

```
checkpoints/step-000100/
  trained.safetensors     what is trained, in float32 (masters), and the average beside it
  optimizer.safetensors   AdamW's two moments per tensor, and the random generator's state
  state.json              step, settings, provenance (base revision, data hashes, terms), losses so far
```

Plain tensors and JSON: loading one runs no code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from retake.core.errors import InputError, TakeError
from retake.core.files import atomic_directory, read_json, write_json

SCHEMA = "retake.tune/1"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int
    state: dict[str, Any]


def save(folder: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Checkpoint:
    """Write `folder/step-<step>` at once or not at all. Raises TakeError when the disk refuses; older ones stay."""
    target = folder / f"step-{step:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_directory(target) as temporary:
            for name, tensors in parts.items():
                plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                save_file(plain, temporary / f"{name}.safetensors")
            write_json(temporary / "state.json", {"schema": SCHEMA, "step": step, **state})
    except (OSError, SafetensorError) as error:
        raise TakeError(
            f"the checkpoint of step {step} could not be written to {folder} ({error}); earlier checkpoints are whole: free "
            "some room and give the same command again"
        ) from error
    return Checkpoint(target, step, {"schema": SCHEMA, "step": step, **state})


def find(folder: Path) -> list[Checkpoint]:
    """Complete checkpoints below `folder`, oldest first. Raises InputError for one of another schema."""
    found = []
    for path in sorted(folder.glob("step-*")) if folder.is_dir() else []:
        match = _NAME.fullmatch(path.name)
        if match is None or not (path / "state.json").is_file():
            continue
        state = read_json(path / "state.json")
        if state.get("schema") != SCHEMA:
            raise InputError(f"{path} has schema {state.get('schema')!r}; this version of Retake reads {SCHEMA!r}")
        found.append(Checkpoint(path, int(match[1]), state))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest."""
    import shutil

    for checkpoint in find(folder)[: -keep or None]:
        shutil.rmtree(checkpoint.path, ignore_errors=True)


def capture(tuner: Any) -> dict[str, dict[str, Tensor]]:
    """Everything of a tuner (its `optimizer` and `generator`) that the next step depends on, beside the frozen weights."""
    state = tuner.optimizer.state_dict()
    trained = {f"weight.{name}": value for name, value in state["masters"].items()}
    if state["ema"] is not None:
        trained |= {f"average.{name}": value for name, value in state["ema"].items()}
    names = list(state["masters"])
    moments: dict[str, Tensor] = {"generator": tuner.generator.get_state()}
    for index, slots in state["adam"]["state"].items():
        moments |= {f"{slot}.{names[index]}": torch.as_tensor(value) for slot, value in slots.items()}
    return {"trained": trained, "optimizer": moments}


def restore(tuner: Any, checkpoint: Checkpoint, prefix: str = "") -> None:
    """A tuner as it was; `prefix`: of its files, where a checkpoint holds several.

    Raises InputError where the checkpoint is damaged or of other trained weights.
    """
    try:
        trained = load_file(checkpoint.path / f"{prefix}trained.safetensors")
        moments = load_file(checkpoint.path / f"{prefix}optimizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{checkpoint.path} is damaged ({error}); remove this folder and the checkpoint before it is used"
        ) from error
    state = tuner.optimizer.state_dict()
    names = list(state["masters"])
    weights = {name.removeprefix("weight."): t for name, t in trained.items() if name.startswith("weight.")}
    if set(weights) != set(names):
        odd = sorted(set(weights) ^ set(names))
        raise InputError(
            f"{checkpoint.path} holds {len(weights)} trained tensors, this run trains {len(names)} (they differ in "
            f"{', '.join(odd[:3])}…): it is of another base model or of other LoRA settings"
        )
    average = {name.removeprefix("average."): t for name, t in trained.items() if name.startswith("average.")}
    slots = sorted({key.split(".", 1)[0] for key in moments} - {"generator"})
    adam = {  # a weight that never had a gradient has no moments
        index: {slot: moments[f"{slot}.{name}"] for slot in slots}
        for index, name in enumerate(names)
        if slots and f"{slots[0]}.{name}" in moments
    }
    tuner.optimizer.load_state_dict(
        {
            "iteration": checkpoint.state["iteration"],
            "masters": weights,
            "adam": {**state["adam"], "state": adam},
            "ema": average or None,
        }
    )
    tuner.generator.set_state(moments["generator"])
