# SPDX-License-Identifier: Apache-2.0
"""The comparison of cameras, proven: worlds of the CPU painter over episodes of several cameras, as they are and with faults
of one camera planted. Writes docs/proof/views.md.

    python scripts/prove/views.py episodes --split tune         both demo robots, two and three cameras
    python scripts/prove/views.py make --split tune --minutes 5
    python scripts/prove/views.py marks                         how far a point of the world is from where a camera shows it
    python scripts/prove/views.py carry                         what one camera's picture tells of another's
    python scripts/prove/views.py backends                      how well cameras agree, backend by backend
    python scripts/prove/views.py table
    python scripts/prove/views.py sheet                         eight worlds through three cameras, to look at
    python scripts/prove/views.py subjects                      subjects before and after they had shapes

All but `held` is what the comparison may be changed by (`views_material.SPLITS` says of each what it was). `held` is for the
table: other episodes and other worlds, judged once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from views_backends import backends, tell_backends
from views_carry import carried, tell_carry
from views_faults import make, read_rows, rows_of, severity, tell_split
from views_marks import marks, tell_marks
from views_material import CACHE, ROOT, SPLITS, episodes, folder_of
from views_sheets import sheet, subjects

PROOF = ROOT / "docs" / "proof" / "views.md"


def table(_: argparse.Namespace) -> None:
    """docs/proof/views.md from the rows."""
    lines = ["# One world, all cameras", "", "`scripts/prove/views.py` writes this file.", ""]
    for split in reversed(SPLITS):
        rows = [r for r in read_rows(rows_of(split)) if severity(r) is not None]
        if any(r["fault"] == "clean" for r in rows):
            lines += tell_split(split, rows)
    lines += [
        "What cannot be told: an object that no second camera sees from the same side, and another seed of surfaces whose "
        "grain is none of the seed's (checks, ribs, weave, laminate).", "",
    ]  # fmt: skip
    for name, tell in (("backends", tell_backends), ("marks", tell_marks), ("carry", tell_carry)):
        path = CACHE / f"{name}.json"
        if path.is_file():
            lines += tell(json.loads(path.read_text("utf-8")))
    PROOF.write_text("\n".join(lines), "utf-8")
    print(PROOF)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words = parser.add_subparsers(required=True)
    calls = (
        ("episodes", episodes), ("make", make), ("table", table), ("marks", marks), ("carry", carried),
        ("backends", backends), ("sheet", sheet), ("subjects", subjects),
    )  # fmt: skip
    for name, call in calls:
        sub = words.add_parser(name)
        sub.set_defaults(call=call)
        if name in ("episodes", "make"):
            sub.add_argument("--split", choices=sorted(SPLITS), default="tune")
        if name in ("marks", "carry", "backends", "sheet", "subjects"):
            what = "folder of episodes with several cameras (default: those of `held`)"
            sub.add_argument("--episodes", type=Path, default=folder_of("held"), help=what)
        if name in ("marks", "backends"):
            sub.add_argument("--worlds", type=int, default=2 if name == "marks" else 3)
        if name == "make":
            sub.add_argument("--worlds", type=int, default=240)
            sub.add_argument("--minutes", type=float, default=5)
            sub.add_argument(
                "--parts", type=int, default=1, help="every which world, so that several may run side by side"
            )
            sub.add_argument("--part", type=int, default=0)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
