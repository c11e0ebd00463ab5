# SPDX-License-Identifier: Apache-2.0
"""Roots: the folders a client may name paths in. Whatever else it names is refused, also behind a symbolic link."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from retake.core.errors import InputError
from retake.core.run_layout import subfolders

DEPTH = 3
"""How deep below a root results are looked for: the root itself, <root>/<run>, <root>/<project>/<run>."""


class OutsideRootsError(InputError):
    """A path leads out of the configured roots."""


@dataclass(frozen=True)
class Roots:
    """Real paths of the allowed folders."""

    folders: tuple[Path, ...]

    @staticmethod
    def of(folders: Iterable[Path | str]) -> Roots:
        """Roots from existing folders. Raises InputError for a missing one, for `/`, and for none at all."""
        real = []
        for folder in folders:
            path = Path(folder)
            if not path.is_dir():
                raise InputError(f"--root {folder}: no such folder; give an existing folder that holds runs")
            resolved = path.resolve()
            if resolved == Path(resolved.anchor):
                raise InputError(
                    f"--root {folder}: the whole file system is no root; name the folder that holds your runs"
                )
            real.append(resolved)
        if not real:
            raise InputError("the worker needs at least one --root DIR: it touches files in there and nowhere else")
        return Roots(tuple(dict.fromkeys(real)))

    def holding(self, wanted: Callable[[Path], bool]) -> list[Path]:
        """Every wanted folder in the roots, at most `DEPTH` levels deep; below one no further is looked for."""
        found: list[Path] = []
        for root in self.folders:
            level = [root]
            for _ in range(DEPTH):
                below: list[Path] = []
                for folder in level:
                    if wanted(folder):
                        found.append(folder)
                    else:
                        below += subfolders(folder)
                level = below
        return list(dict.fromkeys(found))

    def inside(self, path: Path | str, what: str = "path") -> Path:
        """The real path, all links followed. Raises OutsideRootsError when it leaves the roots, InputError if malformed."""
        text = str(path)
        if not text or "\0" in text or len(text) > 4096:
            raise InputError(f"{what}: expected an absolute path of at most 4096 characters; found {text[:80]!r}")
        if not Path(text).is_absolute():
            raise InputError(f"{what} {text[:200]!r} is relative; the worker takes absolute paths")
        try:
            resolved = Path(os.path.realpath(text))
        except (OSError, RuntimeError, ValueError) as error:  # too long a name, a loop of links, undecodable
            raise InputError(f"{what} {text[:200]!r} cannot be resolved: {error}") from error
        if not any(resolved == root or str(resolved).startswith(f"{root}{os.sep}") for root in self.folders):
            raise OutsideRootsError(
                f"{what} {text[:200]!r} leads outside the worker's roots ({', '.join(map(str, self.folders))}); "
                "start the worker with a --root that holds it"
            )
        return resolved

    def folder(self, path: Path | str, what: str, must_hold: str = "") -> Path:
        """An existing folder inside the roots that holds a certain file. Raises InputError otherwise."""
        real = self.inside(path, what)
        try:
            if not real.is_dir():
                raise InputError(f"{what} {str(path)[:200]!r} is no folder")
            if must_hold and not (real / must_hold).is_file():
                raise InputError(
                    f"{what} {str(path)[:200]!r} holds no {must_hold}; it is not finished, or not a {what}"
                )
            if must_hold:
                self.inside(real / must_hold, what)
        except OSError as error:
            raise InputError(f"{what} {str(path)[:200]!r} cannot be read: {error.strerror}") from error
        return real
