# SPDX-License-Identifier: Apache-2.0
"""Planted unit mistakes of recordings: each is refused or corrected with a sentence. Writes docs/proof/units.{json,md}."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from unit_mistakes import MISTAKES, outcome  # noqa: E402

from retake.core.files import write_bytes, write_json  # noqa: E402


def prove(out_dir: Path, quick: bool = False, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every mistake through the import; returns and writes the outcomes."""
    rows = []
    for mistake in MISTAKES:
        with tempfile.TemporaryDirectory(prefix="retake-units-") as folder:
            what, text = outcome(mistake, Path(folder))
        expected = "refused" if mistake.likely else "right"
        rows.append({
            "mistake": mistake.name, "outcome": what, "said": text,
            "as_expected": what == expected and mistake.likely in text,
        })  # fmt: skip
    results = {"mistakes": rows, "passed": all(row["as_expected"] for row in rows)}
    write_json(out_dir / "units.json", results)
    lines = [
        "# Units of recorded joints", "",
        f"{len(rows)} planted mistakes through `retake import lerobot`: {sum(r['outcome'] == 'refused' for r in rows)} refused, "
        f"{sum(r['outcome'] == 'right' for r in rows)} read right, {sum(r['outcome'] == 'WRONG' for r in rows)} wrong.", "",
        "| planted | outcome | what was said |", "|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {r['mistake']} | {r['outcome']} | {r['said'].replace('|', '/')} |" for r in rows]
    write_bytes(out_dir / "units.md", ("\n".join(lines) + "\n").encode())
    print(f"units: {len(rows)} mistakes, passed {results['passed']}", flush=True)
    return results


if __name__ == "__main__":
    prove(ROOT / "docs" / "proof", "--quick" in sys.argv)
