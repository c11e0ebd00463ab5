# SPDX-License-Identifier: Apache-2.0
"""The Replicator writer underneath every recording: which annotators it asks for, and where a frame goes.

A recording of our own attaches `delivering(capture)`; `writer.RetakeWriter` builds on the same class for scripts. Replicator's
base class exists only inside Kit, so the class is built on first use.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from retake.core.episode import CHANNELS
from retake.isaac.kit import require
from retake.isaac.payload import ANNOTATORS, CAMERA

VERSION = "0.1.0"


class Receiver(Protocol):
    """Who takes Replicator's payloads: a `LiveCapture`."""

    def deliver(self, data: Mapping[str, Any]) -> None:
        """One rendered frame."""
        ...


@cache
def delivery_class() -> Any:
    """The writer class (one per process). Raises MissingDependencyError outside Kit."""
    replicator = require("omni.replicator.core")

    class RetakeDelivery(replicator.Writer):
        """Hands every rendered frame to a receiver."""

        def __init__(self, receiver: Receiver | None = None, channels: Collection[str] = CHANNELS) -> None:
            """`receiver`: who takes the frames; None until there is one. What is not among `channels` is not rendered."""
            self.version = VERSION
            self.data_structure = "renderProduct"
            wanted = [ANNOTATORS[c] for c in CHANNELS if c == "rgb" or c in channels]
            self.annotators = [*map(_annotator, wanted), CAMERA]
            self._receiver = receiver

        def write(self, data: dict[str, Any]) -> None:
            """One rendered frame."""
            if self._receiver is not None:
                self._receiver.deliver(data)

        def write_metadata(self) -> None:
            """The episode's header is the metadata."""

    return RetakeDelivery


def _annotator(names: Sequence[str]) -> Any:
    """The first of some annotators that this Replicator knows; it raises what it likes for the others."""
    get = require("omni.replicator.core").AnnotatorRegistry.get_annotator
    for name in names[:-1]:
        try:
            return get(name)
        except Exception:
            continue
    return get(names[-1])


def delivering(receiver: Receiver, channels: Collection[str] = CHANNELS) -> Any:
    """A writer that only hands frames on."""
    return delivery_class()(receiver, channels)
