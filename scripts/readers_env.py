# SPDX-License-Identifier: Apache-2.0
"""Readers of other projects, each in a folder of its own under `.readers`, over the shared packages of `.lerobot-env`.

Every reader is installed `--no-deps --target .readers/<name>`, so versions never meet. LeRobot 0.5 and later ask for
Python 3.12; where this interpreter is older, the few modules that use its generics (`type X = …`, `class A[T]`) are
written in the older form, and nothing else is changed (`retold`); the table says so.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".readers"
SHARED = ROOT / ".lerobot-env"
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lerobot-0.6.1": (
        ("--no-deps", "lerobot==0.6.1"), ("huggingface-hub>=1.5",), ("--no-deps", "datasets>=4.8,<5"),
    ),
    "lerobot-0.4.4": (("--no-deps", "lerobot==0.4.4"),),
    "lerobot-0.3.3": (("--no-deps", "lerobot==0.3.3"), ("--no-deps", "datasets==3.6.0")),
    "decord-0.6.0": (("--no-deps", "decord==0.6.0"),),
    "torchcodec-0.13.0": (("--no-deps", "torchcodec==0.13.0"),),
    "robomimic-0.3.0": (("--no-deps", "robomimic==0.3.0"), ("--no-deps", "h5py>=3.10"), ("termcolor", "tensorboardX")),
}  # fmt: skip
"""Reader → pip requests, one after the other; what they ask for beside is shared. Later torchcodec wheels of the package index
need CUDA's libraries; this one decodes on the CPU with the system's FFmpeg (libavcodec and its siblings, version 4 to 8)."""


def python() -> Path:
    """The interpreter of the shared packages."""
    return SHARED / "bin" / "python"


def install() -> dict[str, str]:
    """Make what is missing; returns reader → why it could not be had ("" where it is there)."""
    if not python().exists():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "lerobot_env.py")], check=True)
    version = subprocess.run(
        [str(python()), "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.split()
    old = tuple(map(int, version)) < (3, 12)
    out: dict[str, str] = {}
    for name, requests in READERS.items():
        target, failed = FOLDER / name, ""
        if not (target / ".done").exists():
            for request in requests:
                command = [str(python()), "-m", "pip", "install", "-q", "--target", str(target), *request]
                if old and "--no-deps" in request:
                    command.append("--ignore-requires-python")
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    failed = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            if failed:
                out[name] = failed
                continue
            if old:
                for path in target.rglob("*.py"):
                    text = path.read_text("utf-8", "replace")
                    if (new := retold(text)) != text:
                        path.write_text(new, "utf-8")
            (target / ".done").touch()
        out[name] = ""
    return out


def retold(text: str) -> str:
    """Python 3.12's generics in the form of 3.11: `type X = …`, `class A[T](…)`, `def f[T: B](…)`."""
    if not re.search(r"^\s*(type \w+ = |class \w+\[|(?:async )?def \w+\[)", text, re.M):
        return text
    variables: dict[str, str] = {}

    def named(group: str) -> list[str]:
        names = []
        for part in group.split(","):
            name, _, bound = part.strip().partition(":")
            variables[name.strip()] = bound.strip()
            names.append(name.strip())
        return names

    def a_class(match: re.Match[str]) -> str:
        indent, name, group, bases = match.groups()
        generic = f"_Generic[{', '.join(named(group))}]"
        inner = (bases or "").strip("()").strip()
        return f"{indent}class {name}({inner + ', ' if inner else ''}{generic}):"

    def a_function(match: re.Match[str]) -> str:
        named(match.group(2))
        return f"{match.group(1)}("

    text = re.sub(r"^(\s*)class (\w+)\[([^\]]+)\](\([^)]*\))?:", a_class, text, flags=re.M)
    text = re.sub(r"^(\s*(?:async )?def \w+)\[([^\]]+)\]\(", a_function, text, flags=re.M)
    text = re.sub(r"^(\s*)type (\w+) = ", r"\1\2 = ", text, flags=re.M)
    lines = ["from typing import Generic as _Generic, TypeVar as _TypeVar"]
    lines += [f'{name} = _TypeVar("{name}")' for name in variables]  # bounds are for type checkers
    at = max((m.end() for m in re.finditer(r"^from __future__ import .*$", text, re.M)), default=None)
    head = "\n".join(lines) + "\n"
    if at is not None:
        return text[:at] + "\n" + head + text[at:]
    doc = re.match(r'(?:\s*#.*\n)*\s*(?:"""(?:.|\n)*?"""\s*\n)?', text)
    end = doc.end() if doc else 0
    return text[:end] + head + text[end:]


if __name__ == "__main__":
    for reader, reason in install().items():
        print(f"{reader}: {reason or 'ready'}", flush=True)
