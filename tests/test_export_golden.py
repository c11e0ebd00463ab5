# SPDX-License-Identifier: Apache-2.0
"""Every number and word in the files of every dataset format, against what was written before: a file that changes by accident
is seen. Sizes, hashes, versions and the wording of the card are left out.

`python tests/test_export_golden.py` writes them anew where a format was changed on purpose.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from export_runs import make_run
from golden_values import compare, load, store, summed_up

from retake.core.export import ExportOptions, Selection, VideoOptions, export
from retake.core.export.isaaclab_env import LabTarget
from retake.core.export.records import FORMATS
from retake.core.export.split import Split
from retake.core.video import read_video

pq = pytest.importorskip("pyarrow.parquet")
h5py = pytest.importorskip("h5py")
GOLDEN = Path(__file__).parent / "golden" / "export" / "files.json"
SHARE = 0.005
UNSTEADY = ("sha256", "version", "uid", "bytes", "size_in_mb", "crf", "created", "seconds", "_md5", "hash", "digest")
CASES = {name: {} for name in FORMATS} | {"lerobot-v3 split": {"split": Split(val_runs=("r1",))}}


def contents(path: Path) -> Any:
    """What a file of a dataset says."""
    suffix = path.suffix
    if suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    if suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if suffix in (".yaml", ".yml"):
        return yaml.safe_load(path.read_text("utf-8"))
    if suffix == ".parquet":
        table = pq.read_table(path)
        return {name: _column(table[name].to_pylist()) for name in table.column_names}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            return dict(data)
    if suffix == ".npy":
        return np.load(path)
    if suffix in (".hdf5", ".h5"):
        return _group(path)
    if suffix == ".mp4":
        frames = list(read_video(path))
        return {"frames": len(frames), "pictures": _coarse(frames[0]), "last": _coarse(frames[-1])}
    return None


def _coarse(frame: np.ndarray) -> list[float]:
    """Means of a quarter of the picture each: encoders differ in details."""
    return [
        float(round(v, 1)) for v in cv2.resize(frame.astype(np.float32), (2, 2), interpolation=cv2.INTER_AREA).ravel()
    ]


def _column(values: list[Any]) -> Any:
    try:
        array = np.array(values)
    except ValueError:
        return values
    return array if array.dtype.kind in "biuf" else values


def _group(path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: out.update({name: item[()] if isinstance(item, h5py.Dataset) else {}}))
        names = [*out, "/"]
        out |= {f"{name} {key}": _plain(value) for name in names for key, value in file[name].attrs.items()}
    return out


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def files(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = _without_uid(str(path.relative_to(folder)))
        found |= {name: "is here"} | summed_up(_arrays(contents(path)), name)
    return {k: _without_uid(v) for k, v in found.items() if not _unsteady(k) and not _of_machine(v)}


def _without_uid(value: Any) -> Any:
    """Names of samples end in a hash of their video, which another processor encodes otherwise."""
    return re.sub(r"__[0-9a-f]{8}\b", "__uid", value) if isinstance(value, str) else value


def _unsteady(name: str) -> bool:
    """Another encoder or library gives another: also the extremes of encoded pictures."""
    return any(word in name.lower() for word in UNSTEADY) or bool(re.search(r"images\.\w+\.(min|max|q\d\d|std)", name))


def _arrays(value: Any) -> Any:
    """The same with lists of numbers as arrays, which take one line each."""
    if isinstance(value, dict):
        return {k: _arrays(v) for k, v in value.items()}
    if isinstance(value, list):
        numbers = len(value) > 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        return np.array(value, float) if numbers else [_arrays(v) for v in value]
    return value


def _of_machine(value: Any) -> bool:
    """Paths and hashes."""
    return isinstance(value, str) and (str(tempfile.gettempdir()) in value or (len(value) >= 64 and " " not in value))


def exported(case: str, folder: Path) -> dict[str, Any]:
    runs = [make_run(folder / f"r{k}", seed=k, frames=6 + k, takes=1, cameras=("front", "wrist")) for k in range(2)]
    target = LabTarget(3, "My-Task-v0")
    options = ExportOptions(case.split()[0], VideoOptions.of("h264"), isaaclab=target, **CASES[case])
    export(runs, folder / "d", options, Selection(include_sim=True))
    return files(folder / "d")


@lru_cache(maxsize=1)
def known() -> dict[str, dict[str, Any]]:
    return load(GOLDEN)


@pytest.mark.parametrize("case", CASES)
def test_a_dataset_holds_what_it_held(case: str, tmp_path: Path) -> None:
    assert not compare(exported(case, tmp_path), known()[case], SHARE)


if __name__ == "__main__":
    values = {}
    for one in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            values[one] = exported(one, Path(scratch))
    store(GOLDEN, values)
    sys.exit(0)
