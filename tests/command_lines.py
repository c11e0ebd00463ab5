# SPDX-License-Identifier: Apache-2.0
"""What a command line takes: every option's names, default, values and kind, without its help."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "command_lines"


class Stopped(Exception):
    """A parser was about to read its arguments."""


def parser_of(entry: str, argv: Sequence[str] = ("x",)) -> argparse.ArgumentParser:
    """The parser of `module:function`, which makes it, or reads its arguments with it."""
    module, function = entry.split(":")
    seen: list[argparse.ArgumentParser] = []

    def stop(self: argparse.ArgumentParser, *ignored: Any, **also: Any) -> None:
        seen.append(self)
        raise Stopped

    kept = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_known_args = stop  # type: ignore[assignment,method-assign]
    try:
        call = getattr(importlib.import_module(module), function)
        made = call(list(argv)) if function in ("main", "mix", "bench") else call()
    except Stopped:
        return seen[0]
    finally:
        argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args = kept  # type: ignore[method-assign]
    return made


def told(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Option or argument -> what it is; of a command's words, each word's own."""
    out: dict[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            out |= {f"{word} {name}": line for word, sub in action.choices.items() for name, line in told(sub).items()}
            continue
        name = ", ".join(action.option_strings) or action.dest
        choices = None if action.choices is None else sorted(map(str, action.choices))
        facts = {
            "dest": action.dest, "default": _plain(action.default), "nargs": action.nargs, "required": action.required or None,
            "choices": choices, "const": _plain(action.const), "does": type(action).__name__,
            "type": getattr(action.type, "__name__", None),
        }  # fmt: skip
        out[name] = {k: v for k, v in facts.items() if v is not None and k != "does"} | {"does": facts["does"]}
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return (
        value
        if isinstance(value, bool | int | float | str) or value is None
        else str(value).replace(str(Path.home()), "~")
    )


def load(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def store(name: str, entries: Sequence[str]) -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    lines = []
    for entry in entries:
        own = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in told(parser_of(entry)).items())
        lines.append(f" {json.dumps(entry)}: {{\n{own}\n }}")
    (GOLDEN / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
