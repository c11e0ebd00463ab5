# SPDX-License-Identifier: Apache-2.0
"""The one reader of a run folder: whatever became of its records, report, gallery, panel and exporter say the same."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from export_runs import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.errors import ExportError, TakeError
from retake.core.export.collect import plan
from retake.core.export.found import Selection
from retake.core.files import read_json, write_json
from retake.core.report import make_report
from retake.core.run_reader import STATUSES, RunReader
from retake.core.run_store import open_run
from retake.core.verdicts.run import damaged_takes
from retake.worker.gallery import Gallery
from retake.worker.roots import Roots

TAKES = 3
RECORDS = ("kept", "missing", "cut short", "a list", "another schema", "without a field", "a wrong type")
VERDICTS = (*RECORDS, "of another video", "against another episode", "fail", "unsure", "of no known status")


@dataclass(frozen=True)
class Fate:
    """What became of one take, its variant and its verdict."""

    take: str = "kept"
    video: str = "kept"
    variant: str = "kept"
    verdict: str = "kept"
    episode: str = "kept"
    camera: str = "kept"

    def status(self) -> str:
        """What everybody must say; empty when the take is not finished."""
        if self.take == "missing":
            return ""
        if (self.take, self.video, self.camera) != ("kept",) * 3:
            return "damaged"
        if self.episode == "another" or self.variant not in ("kept", "missing"):
            return "outdated"
        if self.verdict in ("fail", "unsure"):
            return self.verdict
        return "pass" if self.verdict == "kept" else "not judged"


FATES = st.builds(
    Fate,
    st.sampled_from(("kept",) * 9 + RECORDS),
    st.sampled_from(("kept",) * 7 + ("missing", "changed")),
    st.sampled_from(("kept",) * 7 + (*RECORDS, "another frame")),
    st.sampled_from(VERDICTS),
    st.sampled_from(("kept",) * 7 + ("another",)),
    st.sampled_from(("kept",) * 7 + ("unknown",)),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three judged takes, and a report already drawn once (what it plays is kept)."""
    path = make_run(tmp_path_factory.mktemp("base") / "run", takes=TAKES, frames=2, size=(32, 32))
    write_json(path / "run.json", {"schema": "retake.run/2", "name": "run", "config": {}, "stages": {}})
    make_report(open_run(path))
    return path


@pytest.fixture(scope="module")
def panel() -> Iterator[Any]:
    """The panel's ports; they need Kit's modules to be there, not to do anything."""
    kit, stage, ui = (pytest.importorskip(f"fakes.{name}") for name in ("kit", "stage", "ui"))
    with kit.FakeKit("6.x", stage.random_motion(stage.make_stage(cameras=1), 3), lag=0):
        ui.FakeUi().install()
        sys.modules.pop("retake.ui.kit_ports", None)
        yield importlib.import_module("retake.ui.kit_ports").KitStarter(None)
        sys.modules.pop("retake.ui.kit_ports", None)


def spoil(path: Path, how: str, field: str) -> None:
    """Do to a record what a fate says."""
    if how == "kept":
        return
    if how == "missing":
        path.unlink()
        return
    data = read_json(path)
    text = {
        "cut short": path.read_text("utf-8")[:-9],
        "a list": "[]",
        "another schema": json.dumps({**data, "schema": "retake.other/9"}),
        "without a field": json.dumps({k: v for k, v in data.items() if k != field}),
        "a wrong type": json.dumps({**data, field: [1]}),
        "of another video": json.dumps({**data, "video_sha256": "f" * 64}),
        "against another episode": json.dumps({**data, "episode_sha256": "f" * 64}),
        "another frame": json.dumps({**data, "frame_sha256": "f" * 64}),
        "of no known status": json.dumps({**data, "status": "perhaps"}),
    }.get(how) or json.dumps({**data, "status": how})
    path.write_text(text, "utf-8")


def apply(run: Path, index: int, fate: Fate) -> str:
    """Do it to one take of the run; returns the take's name."""
    name = f"v{index:03d}/front"
    video, record = run / "takes" / name / "take.mp4", run / "takes" / name / "take.json"
    if fate.episode == "another":
        data = read_json(record)
        write_json(record, {**data, "inputs": {**data["inputs"], "episode": "e" * 64}})
    if fate.camera == "unknown":
        write_json(record, {**read_json(record), "camera": "elsewhere"})
    if fate.video == "missing":
        video.unlink()
    elif fate.video == "changed":
        content = video.read_bytes()
        video.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    spoil(record, fate.take, "video_sha256")
    spoil(run / "variants" / f"{index:03d}" / "front" / "variant.json", fate.variant, "frame_sha256")
    spoil(run / "verdicts" / name / "verdict.json", fate.verdict, "probability")
    return name


def of_report(run: Path) -> dict[str, str]:
    page = make_report(open_run(run)).read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data = json.loads(found[1])
    takes = [take for variant in data["variants"] for take in variant["takes"]]
    rows = [*takes, *data["orphans"], *(d for d in data["damaged"] if d["kind"] == "take")]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["status"] for row in rows}


def of_gallery(run: Path, cache: Path) -> dict[str, str]:
    return {s.to_json()["id"]: s.to_json()["verdict"] for s in Gallery(Roots.of([run]), cache, 100).takes()}


def of_exporter(run: Path, **selection: Any) -> tuple[set[str], dict[str, str]]:
    """(takes that are delivered, the others with the reason)."""
    try:
        found = plan([run], Selection(**selection))
    except ExportError as error:
        if "nothing to export" not in str(error):
            raise
        return set(), {}
    return {item.provenance["take_id"] for item in found.items}, {r.take: r.reason for r in found.rejected}


@settings(max_examples=400 if os.environ.get("RETAKE_FULL") == "1" else 25)
@given(st.lists(FATES, min_size=TAKES, max_size=TAKES))
def test_everybody_says_the_same_of_every_take(base, panel, tmp_path_factory, fates):
    run = tmp_path_factory.mktemp("r") / "run"
    shutil.copytree(base, run)
    names = [apply(run, index, fate) for index, fate in enumerate(fates)]
    wanted = {name: status for name, fate in zip(names, fates, strict=True) if (status := fate.status())}

    reader = RunReader(run)
    said = {take.id: reader.standing(take) for take in reader.takes()}
    broken = {d.id: d.reason for d in reader.damaged() if d.kind == "take"}
    assert {**{k: v.status for k, v in said.items()}, **dict.fromkeys(broken, "damaged")} == wanted
    for name, standing in said.items():
        assert standing.status in STATUSES
        assert (standing.verdict is not None) == (standing.status in ("pass", "fail", "unsure"))
        assert reader.verdict_of(reader.take(name)) == standing.verdict or standing.verdict is None
        assert standing.reason or standing.status in ("pass", "fail", "unsure")

    assert {broken.id for broken in damaged_takes(reader)} == {n for n, status in wanted.items() if status == "damaged"}
    assert of_report(run) == wanted
    assert of_gallery(run, run.parent) == wanted
    assert {row.name: row.verdict for row in panel.takes(run) if row.state == "done"} == wanted
    for unverified, good in ((False, {"pass"}), (True, {"pass", "unsure", "not judged"})):
        delivered, rejected = of_exporter(run, unverified=unverified)
        assert delivered == {name for name, status in wanted.items() if status in good}
        if delivered:
            assert set(rejected) == set(wanted) - delivered
            assert all(rejected.values())


def test_made_again_from_other_worlds_it_is_judged_again(base, tmp_path, panel):
    """The verdict of the old video is still there; nobody takes it for the new one's."""
    run = tmp_path / "run"
    shutil.copytree(base, run)
    folder = run / "takes" / "v000/front"
    other = run / "takes" / "v001/front"
    (folder / "take.mp4").write_bytes((other / "take.mp4").read_bytes())
    record = read_json(folder / "take.json")
    write_json(folder / "take.json", {**record, "video_sha256": read_json(other / "take.json")["video_sha256"]})
    assert of_report(run)["v000/front"] == of_gallery(run, tmp_path)["v000/front"] == "not judged"
    assert {r.name: r.verdict for r in panel.takes(run)}["v000/front"] == "not judged"
    assert of_exporter(run)[1]["v000/front"].startswith("its verdict is of another video")


@pytest.mark.parametrize("name", ["..", "../../x", "a/b/c", "a/..", "a\\b", "."])
@pytest.mark.parametrize("field", ["variant", "camera"])
def test_a_record_never_leads_out_of_the_run(base, tmp_path, field, name):
    run = tmp_path / "run"
    shutil.copytree(base, run)
    path = run / "takes" / "v000/front" / "take.json"
    write_json(path, {**read_json(path), field: name})
    with pytest.raises(TakeError, match="expected a plain name"):
        RunReader(run).take("v000/front")


def test_a_renamed_copy_of_a_take_is_a_take_of_its_own(base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(base, run)
    (run / "takes" / "v000").rename(run / "takes" / "mine")
    found = {take.id: RunReader(run).standing(take).status for take in RunReader(run).takes()}
    assert found == {"mine/front": "not judged", "v001/front": "pass", "v002/front": "pass"}


def test_what_is_being_made_is_no_take_yet(base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(base, run)
    (run / "takes" / "v002/front" / "take.json").unlink()
    (run / "takes" / ".half.tmp").mkdir()
    reader = RunReader(run)
    assert reader.unfinished_takes() == ("v002/front",)
    with pytest.raises(TakeError, match="no finished take 'v002/front'"):
        reader.take("v002/front")


def test_a_take_that_lies_on_another_disk_is_read_through_its_link(base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(base, run)
    (run / "takes" / "v000/front").rename(tmp_path / "elsewhere")
    (run / "takes" / "v000/front").symlink_to(tmp_path / "elsewhere")
    reader = RunReader(run)
    assert reader.standing(reader.take("v000/front")).status == "pass"
    assert "v000/front" in of_report(run)
    assert "v000/front" not in of_gallery(run, tmp_path), "outside the worker's roots"
    assert "v000/front" in of_gallery(tmp_path, tmp_path)
