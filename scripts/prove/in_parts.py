# SPDX-License-Identifier: Apache-2.0
"""A proof made part by part: finished parts are kept beside the result, so an interrupted proof goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retake.core.files import write_bytes, write_json

Part = Callable[[bool], dict[str, Any]]
"""Given whether at reduced counts: the part's figures, with `holds`."""


def prove_in_parts(
    name: str, parts: Mapping[str, Part], code: str, out_dir: Path, quick: bool,
    table: Callable[[dict[str, Any]], list[str]], **facts: Any,
) -> dict[str, Any]:  # fmt: skip
    """Run what is not yet proved by this `code` (a hash); write NAME.json and NAME.md (`table` of the result).

    `facts` go into the result as they are. Raises SystemExit naming the parts that do not hold.
    """
    partial, key = out_dir / f"{name}.partial.json", [code, quick]
    done: dict[str, Any] = {}
    if partial.is_file():
        stored = json.loads(partial.read_text(encoding="utf-8"))
        done = stored["parts"] if stored.get("key") == key else {}
    for part, make in parts.items():
        if part not in done:
            print(f"  {part}", flush=True)
            done[part] = make(quick)
            write_json(partial, {"key": key, "parts": done})
    result = {"proof": name, "quick": quick, **facts, "holds": all(p["holds"] for p in done.values()), **done}
    write_json(out_dir / f"{name}.json", result)
    write_bytes(out_dir / f"{name}.md", ("\n".join(table(result)) + "\n").encode())
    partial.unlink(missing_ok=True)
    if not result["holds"]:
        raise SystemExit(f"does not hold: {', '.join(part for part in parts if not done[part]['holds'])}")
    return result
