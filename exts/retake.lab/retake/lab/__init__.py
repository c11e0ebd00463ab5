# SPDX-License-Identifier: Apache-2.0
"""Episodes from environments of Isaac Lab. What needs Isaac Lab, torch or gymnasium is imported on use."""

from __future__ import annotations

from typing import Any

_WHERE = {
    "LabRecorder": "retake.lab.recorder",
    "RecordRequest": "retake.lab.request",
    "RetakeRecorderCfg": "retake.lab.terms",
    "RetakeRecorder": "retake.lab.terms",
    "RetakeRecorderManagerCfg": "retake.lab.terms",
    "RetakeWrapper": "retake.lab.wrapper",
    "prepare": "retake.lab.preparation",
}
__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_WHERE))}")
    import importlib

    from retake.core.errors import MissingDependencyError

    try:
        return getattr(importlib.import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"retake.lab.{name} needs {error.name}; run it with the Python that has Isaac Lab (`make lab-env` makes one)"
        ) from error
