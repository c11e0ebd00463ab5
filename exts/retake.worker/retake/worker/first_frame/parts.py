# SPDX-License-Identifier: Apache-2.0
"""Where a model's files are, which revision they are, and under which terms. Reads files; imports no torch.

A part is found in this order: the configured folder or hub id, else `$RETAKE_MODELS/<name>`, else `models/<name>`.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from retake.core.errors import InputError
from retake.core.files import sha256_bytes
from retake.core.licences import load_table

MODELS_VARIABLE = "RETAKE_MODELS"
SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class ModelPart:
    """One downloadable piece of a backend, as it is published."""

    repo: str
    """Hub id."""
    licence: str
    """The publisher's terms for exactly this repository."""
    note: str = ""
    """What to know when fetching it (branch, single file)."""
    folder: str = ""
    """Folder name under $RETAKE_MODELS where it is not the repository's."""

    @property
    def name(self) -> str:
        """Folder name under $RETAKE_MODELS."""
        return self.folder or self.repo.rpartition("/")[2]


@dataclass(frozen=True)
class Found:
    """A part that is there (or that the user allowed to fetch, with its revision pinned)."""

    source: str
    """Folder path, or hub id."""
    revision: str
    """The hub's commit, or `files:<hash>` of a folder that does not say."""
    licence: str
    """Empty where nobody states one."""
    is_hub: bool = False

    @property
    def folder(self) -> Path:
        """The local folder."""
        return Path(self.source)


def find(part: ModelPart, given: str, revision: str, licence: str, option: str) -> Found:
    """The part's files. `option` is the setting's name, for messages.

    Raises InputError when nothing is there (how to get it, what works without), and for a hub id without a pinned
    revision: a branch moves, and the same seeds would stop giving the same frames.
    """
    folder = Path(given).expanduser() if given else _default_folder(part)
    if folder.is_dir():
        stated = licence or card_licence(folder) or ("" if given else part.licence)
        return Found(str(folder), revision or folder_revision(folder), stated)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", given) and not given.startswith((".", "/")):
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise InputError(
                f"{option} {given!r} is a hub id; pin its revision to a commit (40 hex digits), found {revision!r}. "
                "The commit stands on the model's page under 'Files and versions'"
            )
        return Found(given, revision, licence or (part.licence if given == part.repo else ""), is_hub=True)
    raise InputError(absent_text(part, folder, option))


def absent_text(part: ModelPart, folder: Path, option: str) -> str:
    """What to do about a model that is not there."""
    return (
        f"no model folder {folder.absolute()} (setting {option!r}). Get it once: "
        f"`hf download {part.repo} --revision COMMIT --local-dir {folder}`{f' ({part.note})' if part.note else ''}; "
        f"or set ${MODELS_VARIABLE} to the folder that holds {part.name!r}. "
        "Works now, without a model: backend 'procedural' (CPU), and 'folder' for pictures of your own"
    )


def _default_folder(part: ModelPart) -> Path:
    return Path(os.environ.get(MODELS_VARIABLE) or "models").expanduser() / part.name


def card_licence(folder: Path) -> str:
    """The licence that a model card (README.md) states in its header; empty where there is none."""
    card = folder / "README.md"
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    try:
        data = yaml.safe_load(head.group(1)) if head else None
    except yaml.YAMLError:
        return ""
    if not isinstance(data, Mapping):
        return ""
    stated = str(data.get("license_name") if data.get("license") == "other" else data.get("license") or "")
    return load_table().name_of(stated)


def folder_revision(folder: Path) -> str:
    """The commit a hub download left beside the files, else a fingerprint of the files themselves.

    The fingerprint covers names, sizes and small files whole, and of each large file three samples: reading tens of
    GB at every start would cost minutes. Two trainings of one model differ in every sample.
    """
    commits = {
        lines[0].strip()
        for path in sorted((folder / ".cache" / "huggingface" / "download").rglob("*.metadata"))
        if (lines := path.read_text("utf-8", "replace").splitlines())
    }
    if len(commits) == 1:
        return commits.pop()
    parts: list[bytes] = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not any(name.startswith(".") for name in inner.parts):
            parts += [inner.as_posix().encode(), str(path.stat().st_size).encode(), _sample(path)]
    return f"files:{sha256_bytes(b'|'.join(parts))[:16]}"


def _sample(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= 3 * SAMPLE_BYTES:
            return stream.read()
        taken = []
        for start in (0, size // 2, size - SAMPLE_BYTES):
            stream.seek(start)
            taken.append(stream.read(SAMPLE_BYTES))
        return b"".join(taken)


def weights(folder: Path) -> dict[str, int]:
    """Number of parameters per component folder ("" for files at the top), from the headers of its safetensors files."""
    found: dict[str, int] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        inner = path.relative_to(folder).parts
        if any(name.startswith(".") for name in inner):
            continue
        component = inner[0] if len(inner) > 1 else ""
        found[component] = found.get(component, 0) + _parameters(path)
    return found


def _parameters(path: Path) -> int:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > 100_000_000:
            raise InputError(f"{path} is no safetensors file")
        header = json.loads(stream.read(length))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for extent in entry["shape"]:
                count *= int(extent)
            total += count
    return total
