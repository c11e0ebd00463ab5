# SPDX-License-Identifier: Apache-2.0
"""`retake provenance EDITED --from ORIGINAL …`: put provenance back that another tool's edit dropped.

LeRobot's delete, split and merge keep the features of frames and drop other columns of meta/episodes and files they do
not know. `source.uid`, a feature, says which record an episode has; the records are in the original's
meta/retake_provenance.jsonl.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.errors import ExportError
from retake.core.export import encode, tables
from retake.core.export.provenance import column_kinds, uid_number
from retake.core.export.reader import Dataset
from retake.core.export.records import SOURCE_UID
from retake.core.export.writer import MARKER, PROVENANCE
from retake.core.files import write_bytes


@dataclass(frozen=True)
class Restored:
    """What became of an edited dataset."""

    episodes: int
    found: int
    """Episodes whose record was found."""


def restore(edited: Path | str, originals: Sequence[Path | str]) -> Restored:
    """Write meta/retake_provenance.jsonl, meta/retake.json and (v3.0) the `retake/…` columns of an edited dataset.

    Raises ExportError when the dataset has no `source.uid`, or when no original holds any of its records. Nothing else of
    the dataset is touched.
    """
    data = Dataset(edited)
    if SOURCE_UID not in data.schema.vectors:
        raise ExportError(
            f"{data.root} has no feature {SOURCE_UID!r}, so nothing says which records its episodes have; exports of Retake "
            "carry it"
        )
    sources = [Dataset(path) for path in originals]
    known = {uid_number(str(row["uid"])): row for source in sources for row in source.provenance() if row.get("uid")}
    records: list[dict[str, Any]] = []
    for row in data.episodes():
        number = int(data.columns(row)[SOURCE_UID][0])
        records.append({k: v for k, v in known.get(number, {}).items() if k != "episode_index"})
    found = sum(bool(record) for record in records)
    if not found:
        names = ", ".join(str(source.root) for source in sources)
        raise ExportError(
            f"no record of {data.root}'s {len(records)} episodes is in {names}; name the datasets it was made from"
        )
    if data.version == "v3.0":
        write_columns(data.root, records)
    tables.write_jsonl(data.root / PROVENANCE, ({"episode_index": i, **r} for i, r in enumerate(records)))
    marker = next((s.root / MARKER for s in sources if (s.root / MARKER).is_file()), None)
    if marker is not None and not (data.root / MARKER).exists():
        write_bytes(data.root / MARKER, marker.read_bytes())
    return Restored(len(records), found)


def write_columns(root: Path, records: Sequence[dict[str, Any]]) -> None:
    """The `retake/…` columns of every file of meta/episodes, anew; other columns stay as they are."""
    pa = encode.require("pyarrow")
    kinds = column_kinds(records)
    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    left: Iterator[dict[str, Any]] = iter(records)
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        groups = []
        for group in tables.row_groups(path):
            kept = [name for name in group.column_names if not name.startswith("retake/")]
            mine = [next(left) for _ in range(len(group))]
            table = group.select(kept)
            for key, kind in kinds.items():
                table = table.append_column(f"retake/{key}", pa.array([r.get(key) for r in mine], types[kind]))
            groups.append(table)
        if groups:
            tables.write_tables(path, groups, groups[0].schema)


def main(argv: list[str]) -> int:
    """`retake provenance EDITED --from ORIGINAL …`; returns the exit code. Raises RetakeError."""
    parser = argparse.ArgumentParser(
        prog="retake provenance",
        description="Put provenance back that lerobot-edit-dataset (delete, split, merge) dropped from a copy of an export.",
    )
    parser.add_argument("edited", type=Path, help="the edited dataset; its meta/ is written to")
    parser.add_argument("--from", dest="originals", nargs="+", type=Path, required=True, metavar="ORIGINAL")
    args = parser.parse_args(argv)
    result = restore(args.edited, args.originals)
    print(f"{args.edited}: provenance of {result.found} of {result.episodes} episodes")
    return 0
