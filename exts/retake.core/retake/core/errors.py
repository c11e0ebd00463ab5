# SPDX-License-Identifier: Apache-2.0
"""Every error Retake raises on purpose. A message says what was asked, what was found and what would be valid.

`exit_code` is what the command line returns for an error of that class (documented in docs/cli.md).
"""

from __future__ import annotations

from collections.abc import Iterable


class RetakeError(Exception):
    """Base of all errors a user can act on; the command line prints its text without a traceback."""

    exit_code = 2


class InputError(RetakeError):
    """An argument, a configuration value or a file given by the user is wrong."""


class StageError(RetakeError):
    """A USD stage lacks what Retake needs (articulation, camera, units)."""


class EpisodeError(RetakeError):
    """An episode folder is unreadable, of another schema version, incomplete or tampered with."""


class EpisodeCheckError(RetakeError):
    """An episode was read well but its motion fails the episode check (limits, kinematics, task)."""

    exit_code = 5


class SkeletonError(RetakeError):
    """A skeleton cannot be drawn from what was given."""


class VariantError(RetakeError):
    """A variant cannot be made."""


class TakeError(RetakeError):
    """A take cannot be made."""


class VerdictError(RetakeError):
    """A take cannot be judged."""


class ExportError(RetakeError):
    """A dataset cannot be written or read."""


class RunError(RetakeError):
    """A run folder is in use, foreign, or from another schema version."""


class WorkerError(RetakeError):
    """The worker cannot be reached or refused the request."""


class MissingDependencyError(RetakeError):
    """An optional package is not installed; the text names the extra that brings it."""


class Cancelled(RetakeError):  # noqa: N818 - a request that was granted, not a fault
    """The user asked to stop; what is on disk can be resumed."""

    exit_code = 130


def unknown_name(what: str, asked: str, valid: Iterable[str]) -> str:
    """The text of an 'unknown name' error: what was asked and every valid choice."""
    return f"unknown {what} {asked!r}; valid: {', '.join(sorted(valid)) or '(none)'}"


def install_hint(extra: str) -> str:
    """How to get the packages of an extra. Retake is on no package index: in a checkout only `.[extra]` works; the
    distribution's name works where a wheel of it is (`pip install --find-links`, an index of one's own)."""
    return (
        f"pip install '.[{extra}]' in Retake's checkout ('isaac-retake[{extra}]' where you installed it from a wheel)"
    )
