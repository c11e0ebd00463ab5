# SPDX-License-Identifier: Apache-2.0
"""What a run folder holds, as typed records: the one reader that report, gallery, panel, exporter and re-roll share.

A verdict counts only for the very video it names, and a take only while its episode and first frame are the run's:
`RunReader.standing` says so in one word and one sentence, the same to everybody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retake.core.codec import decode
from retake.core.episode.layout import COMPLETE, HEADER
from retake.core.errors import RetakeError, RunError, TakeError, VariantError
from retake.core.files import read_json, remembered
from retake.core.run_layout import (
    SKELETON_RECORD,
    TAKE_RECORD,
    VARIANT_FRAME,
    VARIANT_RECORD,
    VERDICT_RECORD,
    RunLayout,
    is_older,
    name_of,
)
from retake.core.takes.base import Take
from retake.core.takes.make import read_take, video_fault
from retake.core.variants.base import Variant
from retake.core.variants.make import read_variant

MANIFEST = "run.json"
VERDICT_SCHEMA, VIEWS_SCHEMA = "retake.verdict/1", "retake.views/1"
Status = Literal["pass", "fail", "unsure", "not judged", "outdated", "damaged"]
STATUSES: tuple[Status, ...] = ("pass", "fail", "unsure", "not judged", "outdated", "damaged")


@dataclass(frozen=True)
class StoredVariant:
    """A Variant in its folder."""

    folder: Path
    record: Variant

    @property
    def id(self) -> str:
        """Its name in the run."""
        return self.record.id

    @property
    def frame(self) -> Path:
        """The picture."""
        return self.folder / VARIANT_FRAME

    @property
    def camera(self) -> str:
        """The camera it shows; empty where the record states none."""
        return str(self.record.source.get("camera") or "")

    def document(self) -> dict[str, Any]:
        """All of variant.json, also recipe and gate."""
        return read_json(self.folder / VARIANT_RECORD)


@dataclass(frozen=True)
class StoredCheck:
    """One judged property."""

    name: str
    status: Literal["pass", "fail", "unsure", "skipped"]
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict as it stands on disk (docs/verdicts.md)."""

    folder: Path
    status: Literal["pass", "fail", "unsure"]
    video_sha256: str
    probability: float
    episode_sha256: str = ""
    version: str = ""
    reasons: tuple[str, ...] = ()
    checks: tuple[StoredCheck, ...] = ()

    def document(self) -> dict[str, Any]:
        """All of verdict.json, also series and events."""
        return read_json(self.folder / VERDICT_RECORD)


@dataclass(frozen=True)
class StoredViews:
    """Whether the cameras of one world's takes show one world, as it stands on disk (docs/verdicts.md)."""

    status: Literal["pass", "fail", "unsure"]
    videos: dict[str, str]
    """Camera → the SHA-256 of the video that was compared."""
    failed: tuple[str, ...] = ()
    """Cameras that do not belong to the others."""
    unsure: tuple[str, ...] = ()
    """Cameras of which a required check could not be told."""
    reasons: tuple[str, ...] = ()
    version: str = ""

    def of(self, take: Take) -> bool:
        """Whether it speaks of this very video."""
        return self.videos.get(take.camera) == take.video_sha256


@dataclass(frozen=True)
class Standing:
    """What a run says of one of its takes."""

    status: Status
    reason: str
    """Why it is not `pass`, in words; empty for a pass."""
    verdict: StoredVerdict | None
    """The verdict behind it; None when none counts."""


@dataclass(frozen=True)
class Damaged:
    """A take or variant that cannot be read."""

    kind: Literal["take", "variant"]
    id: str
    folder: Path
    reason: str


@dataclass(frozen=True)
class RunReader(RunLayout):
    """The contents of a run folder."""

    @property
    def episode(self) -> Path:
        """The captured Episode: in the folder, or where run.json says (`episode_path`, for one that lives elsewhere)."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if elsewhere := read_json(self.path / MANIFEST).get("episode_path"):
                return Path(elsewhere)
        return self.captured_episode

    @property
    def episode_sha256(self) -> str:
        """Content hash that the Episode states; empty where there is none."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return remembered(self.episode / COMPLETE, _content_sha256)
        return ""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the Episode's cameras; empty where there is none that can be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return remembered(self.episode / HEADER, _camera_names)
        return ()

    def has_skeleton(self, camera: str) -> bool:
        """Whether the control video of a camera is there."""
        return (self.skeleton(camera) / SKELETON_RECORD).exists()

    def takes(self) -> tuple[Take, ...]:
        """Every finished take whose record can be read, by name; `damaged` has the others."""
        return tuple(item for item in self._takes() if isinstance(item, Take))

    def take(self, name: str) -> Take:
        """One take. Raises TakeError when it is unknown or damaged."""
        folder = self.take_folder(name)
        if not (folder / TAKE_RECORD).exists():
            raise TakeError(f"{self.path} has no finished take {name!r}: {folder / TAKE_RECORD} is missing")
        return read_take(folder)

    def unfinished_takes(self) -> tuple[str, ...]:
        """Names of takes that are being made, or whose making was interrupted."""
        return tuple(name_of(folder) for folder in self.take_folders() if not (folder / TAKE_RECORD).exists())

    def variants(self) -> tuple[StoredVariant, ...]:
        """Every variant whose record can be read, by name; `damaged` has the others."""
        return tuple(item for item in self._variants() if isinstance(item, StoredVariant))

    def variant(self, name: str) -> StoredVariant | None:
        """One variant; None when there is none that can be read."""
        with contextlib.suppress(OSError, VariantError):
            return remembered(self.variant_folder(name) / VARIANT_RECORD, _stored_variant)
        return None

    def damaged(self) -> tuple[Damaged, ...]:
        """Takes and variants whose records cannot be read, each with the reason."""
        return tuple(item for item in (*self._variants(), *self._takes()) if isinstance(item, Damaged))

    def verdict_of(self, take: Take) -> StoredVerdict | None:
        """The verdict of this very video; None when there is none, or when it is of another one."""
        found = self._verdict(take)
        return found if isinstance(found, StoredVerdict) else None

    def standing(self, take: Take) -> Standing:
        """What is to be said of a take: its verdict, or why none counts."""
        if fault := video_fault(take) or self._camera_fault(take):
            return Standing("damaged", fault, None)
        made_from, now = take.inputs.get("episode"), self.episode_sha256
        if made_from and now and made_from != now:
            return Standing("outdated", "it was made from another episode than the run holds now", None)
        if fault := self._first_frame_fault(take):
            return Standing("outdated", fault, None)
        verdict = self._verdict(take)
        if isinstance(verdict, str):
            return Standing("not judged", verdict, None)
        views = self.views_of(take)
        if verdict.status != "fail" and views is not None and take.camera in views.failed:
            return Standing("fail", "; ".join(views.reasons), verdict)
        if verdict.status == "pass" and views is not None and take.camera in views.unsure:
            return Standing("unsure", "; ".join(views.reasons), verdict)
        return Standing(verdict.status, "; ".join(verdict.reasons), verdict)

    def views_of(self, take: Take) -> StoredViews | None:
        """What the comparison of its world's cameras said; None where there is none, or one of other videos."""
        with contextlib.suppress(OSError, RetakeError):
            found = remembered(self.views_record(take.id), _stored_views)
            return found if found.of(take) else None
        return None

    def _camera_fault(self, take: Take) -> str:
        """Why a take's camera is none of its episode's; empty when it is one, or when neither states any."""
        known = self.cameras
        return camera_fault(take.camera, known) if take.camera and known else ""

    def _first_frame_fault(self, take: Take) -> str:
        """Why a take's first frame is not its variant's; empty when it is, or when the variant was removed."""
        try:
            variant = remembered(self.variant_folder(take.variant) / VARIANT_RECORD, _stored_variant).record
        except FileNotFoundError:
            return ""
        except (OSError, VariantError) as error:
            return f"its variant cannot be read: {error}"
        if take.inputs.get("first_frame", variant.frame_sha256) == variant.frame_sha256:
            return ""
        return "its first frame is not the one its variant holds now; make the take again, or remove it"

    def _takes(self) -> list[Take | Damaged]:
        found: list[Take | Damaged] = []
        for folder in self.take_folders():
            if is_older(folder):
                found.append(Damaged("take", name_of(folder), folder, self._older(folder)))
            elif (folder / TAKE_RECORD).exists():
                try:
                    found.append(remembered(folder / TAKE_RECORD, _take))
                except (OSError, TakeError) as error:
                    found.append(Damaged("take", name_of(folder), folder, str(error)))
        return found

    def _variants(self) -> list[StoredVariant | Damaged]:
        found: list[StoredVariant | Damaged] = []
        for folder in self.variant_folders():
            if is_older(folder):
                found.append(Damaged("variant", name_of(folder), folder, self._older(folder)))
            elif (folder / VARIANT_RECORD).exists():
                try:
                    found.append(remembered(folder / VARIANT_RECORD, _stored_variant))
                except (OSError, VariantError) as error:
                    found.append(Damaged("variant", name_of(folder), folder, str(error)))
        return found

    def _older(self, folder: Path) -> str:
        return (
            f"{folder} is of the layout before a world had all its cameras; `retake migrate {self.path}` moves it to "
            f"{folder.parent.name}/<world>/<camera>"
        )

    def _verdict(self, take: Take) -> StoredVerdict | str:
        """The verdict that counts, or why there is none."""
        try:
            verdict = remembered(self.verdict_folder(take.id) / VERDICT_RECORD, _stored_verdict)
        except FileNotFoundError:
            return "it has no verdict"
        except (OSError, RetakeError) as error:
            return f"its verdict cannot be read: {error}"
        if verdict.video_sha256 != take.video_sha256:
            return "its verdict is of another video"
        if verdict.episode_sha256 and verdict.episode_sha256 != take.inputs.get("episode", verdict.episode_sha256):
            return "its verdict is against another episode"
        return verdict


def camera_fault(named: str, known: Sequence[str]) -> str:
    """Why the camera that a record names is none of its episode's (`known`); empty when it is one."""
    if named in known:
        return ""
    return f"its record names {f'camera {named!r}' if named else 'no camera'}; its episode has: {', '.join(known)}"


def _take(record: Path) -> Take:
    return read_take(record.parent)


def _stored_variant(record: Path) -> StoredVariant:
    return StoredVariant(record.parent, read_variant(record.parent))


def _stored_verdict(record: Path) -> StoredVerdict:
    try:
        data = read_json(record)
    except ValueError as error:
        raise RunError(f"{record} is not readable JSON: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != VERDICT_SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise RunError(f"{record} has schema {found!r}; this version of Retake reads {VERDICT_SCHEMA!r}")
    return decode(StoredVerdict, {**data, "folder": record.parent}, str(record), error=RunError, ignore_unknown=True)


def _stored_views(record: Path) -> StoredViews:
    try:
        data = read_json(record)
    except ValueError as error:
        raise RunError(f"{record} is not readable JSON: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != VIEWS_SCHEMA:
        raise RunError(f"{record} is no comparison of cameras that this version of Retake reads ({VIEWS_SCHEMA!r})")
    return decode(StoredViews, data, str(record), error=RunError, ignore_unknown=True)


def _camera_names(header: Path) -> tuple[str, ...]:
    return tuple(str(camera["name"]) for camera in read_json(header)["cameras"])


def _content_sha256(complete: Path) -> str:
    return str(read_json(complete)["content_sha256"])
