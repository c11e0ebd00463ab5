# SPDX-License-Identifier: Apache-2.0
"""Reader x version x format: what other projects' readers make of our exports. `make readers`.

Real readers from the package index, each in a folder of its own (scripts/readers_env.py); what cannot be had is replayed
from its public source by tests/test_export_readers.py and named so. Writes docs/proof/readers.{json,md}.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
import readers_env  # noqa: E402
from export_runs import make_run  # noqa: E402

from retake.core.export import ExportOptions, Selection, VideoOptions, export  # noqa: E402
from retake.core.export.reader import Dataset  # noqa: E402
from retake.core.export.restore import restore  # noqa: E402
from retake.core.files import write_bytes, write_json  # noqa: E402

READER = ROOT / "scripts/readers/lerobot_any.py"
TORCHCODEC = "torchcodec-0.13.0"
FRAMES = 6
REPLAYED = (
    ("GR00T N1.5 (gr00t/data/dataset.py at 16d0dae)", "lerobot-v2.1", "test_gr00t_n15_slices_every_statistic_of_a_vector"),
    (
        "GR00T N1.6, N1.7 (gr00t/data/dataset/lerobot_episode_loader.py at 0035a8b)", "lerobot-v2.1",
        "test_gr00t_n16_groups_rows_and_task_texts",
    ),
)  # fmt: skip


def prove(out_dir: Path, quick: bool = False, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every reader on every format it knows; returns and writes the table."""
    lacking = readers_env.install()
    with tempfile.TemporaryDirectory(prefix="retake-readers-") as folder:
        rows = _rows(Path(folder), lacking)
    results = {
        "rows": rows,
        "passed": all(row["result"] in ("reads", "not had", "replayed", "refuses") for row in rows),
    }
    write_json(out_dir / "readers.json", results)
    lines = [
        "# Readers of exported datasets", "",
        f"Two runs of two cameras, {FRAMES} frames, simulated and generated episodes. LeRobot: every state, action, time, "
        "picture and task text, a window, the statistics, against our own reader; its frame decoder is PyAV here, with LeRobot's "
        "tolerance, where torchcodec is not named. Where this machine's Python is older than 3.12, LeRobot 0.6 runs with its "
        "generics written in the older form (scripts/readers_env.py). openpi's pinned lerobot (0cf8648, format v2.1) is on no "
        "index; 0.3.3 is the newest with that format. `make readers` writes this table.", "",
        "| reader | format | result | figures |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {r['reader']} | {r['format']} | {r['result']} | {r['figures']} |" for r in rows]
    write_bytes(out_dir / "readers.md", ("\n".join(lines) + "\n").encode())
    for row in rows:
        print(f"{row['reader']} | {row['format']} | {row['result']} | {row['figures']}", flush=True)
    return results


def _rows(work: Path, lacking: dict[str, str]) -> list[dict[str, str]]:
    runs = [
        make_run(work / f"r{i}", seed=i, takes=1, frames=FRAMES, size=(96, 64), cameras=("front", "wrist"))
        for i in range(2)
    ]
    sets = {
        "lerobot-v3 (AV1), language": ExportOptions("lerobot-v3"),
        "lerobot-v3 (AV1)": ExportOptions("lerobot-v3"),
        "lerobot-v3 (H.264)": ExportOptions("lerobot-v3", VideoOptions.of("h264")),
        "lerobot-v2.1": ExportOptions("lerobot-v2.1"),
        "hdf5-isaaclab": ExportOptions("hdf5-isaaclab"),
    }
    roots = {name: work / f"d{i}" for i, name in enumerate(sets)}
    for name, options in sets.items():
        export(runs, roots[name], options, Selection(include_sim=True, language="language" in name))
    out: list[dict[str, str]] = []

    def row(reader: str, fmt: str, check: Any) -> None:
        if reason := lacking.get(reader):
            out.append({"reader": reader, "format": fmt, "result": "not had", "figures": reason})
            return
        try:
            out.append({"reader": reader, "format": fmt, "result": "reads", "figures": check()})
        except Exception as error:
            out.append(
                {"reader": reader, "format": fmt, "result": "FAILS", "figures": f"{error}"[-300:].replace("\n", " ")}
            )

    row(
        "lerobot-0.6.1",
        "lerobot-v3 (AV1), language",
        lambda: _compare("lerobot-0.6.1", roots["lerobot-v3 (AV1), language"], work),
    )
    row(
        "lerobot-0.4.4",
        "lerobot-v3 (AV1), language",
        lambda: _refusal("lerobot-0.4.4", roots["lerobot-v3 (AV1), language"], work),
    )
    out[-1]["result"] = "refuses" if out[-1]["result"] == "reads" else out[-1]["result"]
    for reader in ("lerobot-0.6.1", "lerobot-0.4.4"):
        for name in ("lerobot-v3 (AV1)", "lerobot-v3 (H.264)"):
            row(reader, name, lambda r=reader, n=name: _compare(r, roots[n], work))
        row(
            reader,
            "lerobot-v3, then its own delete, split, merge",
            lambda r=reader: _edits(r, roots["lerobot-v3 (AV1)"], work),
        )
        row(
            reader,
            "lerobot-v2.1 through its own converter to v3.0",
            lambda r=reader: _converted(r, roots["lerobot-v2.1"], work),
        )
    row("lerobot-0.3.3", "lerobot-v2.1", lambda: _compare("lerobot-0.3.3", roots["lerobot-v2.1"], work))
    for reader in ("lerobot-0.6.1", "lerobot-0.4.4"):
        for name in ("lerobot-v3 (AV1)", "lerobot-v3 (H.264)"):
            check = lambda r=reader, n=name: _compare(r, roots[n], work, decoder=TORCHCODEC)  # noqa: E731
            row(reader, f"{name}, decoded by torchcodec as it chooses itself", check)
    for name in ("lerobot-v3 (AV1)", "lerobot-v3 (H.264)", "lerobot-v2.1"):
        row(TORCHCODEC, name, lambda n=name: _torchcodec(roots[n], work))
    row("decord-0.6.0", "lerobot-v2.1", lambda: _decord(roots["lerobot-v2.1"]))
    row("robomimic-0.3.0", "hdf5-isaaclab", lambda: _robomimic(roots["hdf5-isaaclab"]))
    out += [
        {"reader": reader, "format": fmt, "result": "replayed", "figures": f"tests/test_export_readers.py::{test}"}
        for reader, fmt, test in REPLAYED
    ]
    return out


def _run(reader: str, *arguments: str | Path, script: Path | None = READER, beside: str = "") -> Any:
    """What a reader's process prints last, as JSON; `beside`: a second reader's packages. Raises RuntimeError with its last
    words."""
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": tempfile.gettempdir(), "HF_HOME": str(readers_env.FOLDER / f"hf-{reader}"),
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(str(readers_env.FOLDER / name) for name in (reader, beside) if name),
    }  # fmt: skip
    command = [str(readers_env.python()), *([str(script)] if script else []), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError("; ".join(done.stderr.strip().splitlines()[-3:]) or "no message")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _compare(reader: str, root: Path, work: Path, decoder: str = "") -> str:
    """LeRobot's items against our own reader; `decoder`: the reader that decodes in PyAV's place. Raises AssertionError
    naming what differs."""
    got_file = work / f"{reader}.npz"
    meta = _run(reader, "read-itself" if decoder else "read", root, got_file, beside=decoder)
    with np.load(got_file) as data:
        got = {key.replace("|", "/"): data[key] for key in data.files}
    ours, start, worst = Dataset(root), 0, 0.0
    for one in ours.episodes():
        part, columns = slice(start, start + one.length), ours.columns(one)
        for key in ("observation.state", "action", "timestamp"):
            assert np.array_equal(got[key][part], columns[key]), f"{key} of episode {one.index} differs"
        assert (got["source.uid"][part] == columns["source.uid"]).all(), "source.uid differs"
        for key in ours.schema.cameras:
            seen = np.round(got[key][part].transpose(0, 2, 3, 1) * 255)
            worst = max(worst, float(np.abs(seen - np.stack(list(ours.frames(one, key)))).max()))
        assert set(meta["tasks"][part]) == {one.task}, "task text differs"
        start += one.length
    assert meta["frames"] == start == ours.total_frames
    stats = meta["stats"]["action"]
    own = json.loads((root / "meta/stats.json").read_text("utf-8"))["action"]
    shared = sorted(set(stats) & set(own))
    for name in shared:
        assert np.allclose(stats[name], own[name], rtol=1e-5, atol=1e-6), f"statistic {name} differs"
    first = got["action"][[1, 2, 3]]
    assert np.array_equal(np.asarray(meta["window_action"], np.float32), first), "window differs"
    assert worst <= 2, f"pictures differ by {worst:.0f} of 255"
    said = ""
    if ours.schema.language:
        rows = list(ours.episodes())
        for one, item in ((rows[0], meta["language"][0]), (rows[-1], meta["language"][1])):
            theirs = [(r["role"], r["content"], r["style"], r["timestamp"]) for r in item["language_persistent"]]
            mine = [(r["role"], r["content"], r["style"], r["timestamp"]) for r in ours.language(one).persistent]
            assert theirs == mine, "language rows differ"
        said = "; language rows equal"
    equal = f"{start} frames of {meta['episodes']} episodes equal; pictures within {worst:.0f} of 255"
    return f"{equal}; statistics {', '.join(shared)}{said}"


def _refusal(reader: str, root: Path, work: Path) -> str:
    """What an older LeRobot says of language columns: `--no-language` is for it."""
    try:
        _run(reader, "read", root, work / "refused.npz")
    except RuntimeError as error:
        return f"{str(error)[-120:]} (exported with --no-language it reads)"
    raise AssertionError("it reads language columns; docs/datasets.md says it does not")


def _edits(reader: str, root: Path, work: Path) -> str:
    """LeRobot's delete, split and merge keep `source.uid`; provenance comes back through it."""
    out = work / f"edit-{reader}"
    result = _run(reader, "edit", root, out)
    original = {row.provenance["uid"]: row.provenance for row in Dataset(root).episodes()}
    said = []
    for name, one in result.items():
        found = restore(one["root"], [root])
        assert found.found == found.episodes == one["episodes"], f"{name}: {found.found} of {one['episodes']} records"
        for row in Dataset(one["root"]).episodes():
            assert row.provenance == original[row.provenance["uid"]], f"{name}: a record differs"
        said.append(f"{name} {one['episodes']}")
    dropped = [name for name, one in result.items() if not one["provenance_columns"]]
    return f"episodes: {', '.join(said)}; columns dropped by {', '.join(dropped) or 'none'}; all records restored"


def _converted(reader: str, root: Path, work: Path) -> str:
    """LeRobot's converter keeps our quantiles, and what it makes is read again."""
    target = work / f"convert-{reader}" / "retake" / "check"
    shutil.copytree(root, target)
    _run(reader, "convert", target)
    stats = json.loads((target / "meta/stats.json").read_text("utf-8"))
    assert {"q01", "q99"} <= set(stats["action"]), "no q01/q99 after the conversion"
    done = _run(reader, "read", target, work / "converted.npz")
    return f"v3.0 with {', '.join(sorted(stats['action']))}; {done['frames']} frames read"


def _torchcodec(root: Path, work: Path) -> str:
    """torchcodec on the CPU against our own decoding, every frame of every video."""
    data, worst = Dataset(root), 0.0
    for row in data.episodes():
        for key, segment in row.videos.items():
            out = work / "torchcodec.npz"
            _run(TORCHCODEC, "decode", segment.path, out)
            with np.load(out) as found:
                theirs = found["frames"]
            ours = np.stack(list(data.frames(row, key)))
            worst = max(
                worst, float(np.abs(theirs[segment.start : segment.start + segment.length].astype(int) - ours).max())
            )
    assert worst <= 2, f"pictures differ by {worst:.0f} of 255"
    return f"every frame of {len(data)} episodes, within {worst:.0f} of 255"


def _decord(root: Path) -> str:
    """GR00T N1.5's usual decoder on our videos."""
    data = Dataset(root)
    worst = 0.0
    for row in data.episodes():
        for key, segment in row.videos.items():
            code = (
                "import decord, json, sys; r = decord.VideoReader(sys.argv[1]); "
                "print(json.dumps(r.get_batch(range(len(r))).asnumpy().tolist()))"
            )
            theirs = np.array(_run("decord-0.6.0", "-c", code, segment.path, script=None))
            ours = np.stack(list(data.frames(row, key)))
            assert theirs.shape == ours.shape, f"{theirs.shape} frames; ours are {ours.shape}"
            worst = max(worst, float(np.abs(theirs - ours.astype(int)).max()))
    assert worst <= 4, f"pictures differ by {worst:.0f} of 255"
    return f"every frame of {len(data)} episodes, within {worst:.0f} of 255"


def _robomimic(root: Path) -> str:
    """robomimic's SequenceDataset on the HDF5."""
    code = """
import json, sys
import robomimic.utils.obs_utils as obs
from robomimic.utils.dataset import SequenceDataset
import h5py
path = sys.argv[1]
with h5py.File(path) as f:
    demos = list(f["data"]); keys = list(f["data"][demos[0]]["obs"])
low = [k for k in keys if not k.endswith("_rgb")]; rgb = [k for k in keys if k.endswith("_rgb")]
obs.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": low, "rgb": rgb}})
data = SequenceDataset(
    hdf5_path=path, obs_keys=keys, dataset_keys=["actions"], frame_stack=1, seq_length=2, hdf5_cache_mode=None,
    load_next_obs=False,
)
item = data[0]
print(json.dumps({"demos": len(demos), "samples": len(data), "actions": list(item["actions"].shape), "keys": len(item["obs"])}))
"""
    got = _run("robomimic-0.3.0", "-c", code, root / "dataset.hdf5", script=None)
    read = f"{got['samples']} samples of {got['demos']} demos, {got['keys']} observations, actions {got['actions']}"
    return f"{read} (without next_obs, as its behaviour cloning reads)"


if __name__ == "__main__":
    prove(ROOT / "docs" / "proof", "--quick" in sys.argv)
