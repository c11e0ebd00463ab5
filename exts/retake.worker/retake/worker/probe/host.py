# SPDX-License-Identifier: Apache-2.0
"""A trained probe, asked over standard streams: `python -m retake.worker.probe.host FOLDER`, started by core by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retake.core.export.records import IMAGE, STATE
from retake.core.robustness.lerobot_host import serve
from retake.worker.probe.data import small
from retake.worker.probe.model import Probe
from retake.worker.probe.train import open_probe


def answer(model: Probe, data: Mapping[str, Any]) -> np.ndarray:
    """(chunk, A) targets for one observation. Raises KeyError naming a camera that is missing, ValueError for another state."""
    images = []
    for name, size in model.shape.cameras.items():
        if IMAGE + name not in data:
            raise KeyError(f"the probe was trained with camera {name!r}, and the observation has none of that name")
        images.append(small(data[IMAGE + name], size))
    state = np.asarray(data[STATE])
    if state.shape != (len(model.shape.state_names),):
        raise ValueError(f"the probe was trained on a state of {len(model.shape.state_names)}; found {state.shape}")
    return model.act(images, state)


def load() -> Callable[[Mapping[str, Any]], np.ndarray]:
    """The probe that the command line names, as a function."""
    torch.set_num_threads(1)
    model = open_probe(Path(sys.argv[1]))
    return lambda data: answer(model, data)


if __name__ == "__main__":
    serve(load)
