# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of README and docs run as they stand, on small scenes.

Every shell and Python block says on the line above it how it is tested: `<!-- run: SETUP -->` names one of the set-ups
below, `<!-- not run: REASON -->` says what it would need; its imports, names of extras and commands are still checked.
RUN stands for runs/demo, EPISODE for an episode folder outside a run.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core import cli, pipeline
from retake.core.config import RunConfig
from retake.core.episode import open_episode
from retake.core.errors import MissingDependencyError
from retake.core.files import read_json, write_json
from retake.core.report import serve

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/decisions").glob("*.md")), *sorted(ROOT.glob("exts/*/docs/*.md")),
]  # fmt: skip
TESTED = ("sh", "bash", "python")
OTHER = ("text", "yaml", "json", "toml", "xml")
MARK = re.compile(r"<!-- (?P<how>run|not run): (?P<what>.+) -->")
JUDGED = {"verify": {0, 3, 4}, "variants": {0, 3}, "bench": {0, 3, 4}}
"""Exit codes that say something about the small scene and nothing about the command."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        lines = page.read_text("utf-8").splitlines()
        inside = None
        for number, line in enumerate(lines):
            if not line.lstrip().startswith("```"):
                continue
            if inside is None:
                inside = number
                continue
            mark = lines[inside - 1].strip() if inside else ""
            language = lines[inside].strip().removeprefix("```")
            text = "\n".join(lines[inside + 1 : number])
            found.append(Block(page.relative_to(ROOT).as_posix(), inside + 1, language, mark, text))
            inside = None
        assert inside is None, f"{page}: a block is not closed"
    return found


BLOCKS = blocks()
CODE = [block for block in BLOCKS if block.language in TESTED]
RUN = [block for block in CODE if block.mark.startswith("<!-- run")]
NOT_RUN = [block for block in CODE if block.mark.startswith("<!-- not run")]


def test_every_block_says_how_it_is_tested():
    for block in BLOCKS:
        assert block.language in (*TESTED, *OTHER), f"{block}: state the language, one of {TESTED + OTHER}"
    for block in CODE:
        found = MARK.fullmatch(block.mark)
        assert found, f"{block}: the line above it must be '<!-- run: SETUP -->' or '<!-- not run: REASON -->'"
        assert found["how"] == "not run" or found["what"] in SETUPS, f"{block}: no set-up {found['what']!r}"
    assert len(RUN) >= 12
    for page in PAGES:
        indented = re.findall(r"^\n    (?:retake|make|pip) .*", page.read_text("utf-8"), re.M)
        assert not indented, f"{page.name}: a command outside a fenced block is not tested: {indented[0].strip()}"


# -- set-ups ------------------------------------------------------------------------------------------------------------


def tiny(out_dir: Path, *, seed: int, overrides: dict[str, Any], progress: Any, **more: Any) -> Any:
    """In place of the embedded simulator: the smallest scene that passes its check and fits every codec."""
    made = make_scene_episode(out_dir, frames=overrides.get("frames", 30), size=(96, 72), seed=seed)
    progress(len(made), len(made))
    return made


def accept(run: Path) -> None:
    """Every verdict of a run passes: what a scene of 96x72 px gets says nothing about the commands around it."""
    for path in run.glob("verdicts/*/*/verdict.json"):
        record = read_json(path)
        write_json(path, {**record, **{key: "pass" for key in ("status", "overall") if key in record}})


def retake(*arguments: str | Path) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, one recording."""
    root = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pipeline.SIMULATORS, "newton", "test_docs:tiny")
        assert (
            retake(
                "run", "--run", root / "demo", "--set", "skeleton.size=[64, 48]", "--worlds", "kitchen,bun_warehouse"
            )
            == 0
        )
    return root


def new(folder: Path, material: Path) -> dict[str, Any]:
    """A new folder: small pictures, nothing else."""
    return {}


def demo(folder: Path, material: Path) -> dict[str, Any]:
    """The run runs/demo, a recording, a video and pictures of it, and worlds as docs/variants.md shows them."""
    shutil.copytree(material / "demo", folder / "runs/demo")
    shutil.copytree(material / "demo/episode", folder / "recordings/one")
    take = next((material / "demo").glob("takes/*/*/take.mp4"))
    shutil.copy(take, folder / "take.mp4")
    world = take.parent.parent.name.rpartition("-")[0]
    frame = material / "demo/variants" / world / take.parent.name / "frame.png"
    (folder / "pictures").mkdir()
    for target in ("frame.png", "pictures/kitchen.png"):
        shutil.copy(frame, folder / target)
    own = [b for b in BLOCKS if b.page == "docs/variants.md" and b.language == "yaml" and "presets:" in b.text]
    (folder / "my_worlds.yaml").write_text(own[0].text)
    return {}


def exports(folder: Path, material: Path) -> dict[str, Any]:
    """Accepted takes in runs/demo, a, b, c."""
    pytest.importorskip("pyarrow")
    export_runs = importlib.import_module("export_runs")
    for seed, name in enumerate(("demo", "a", "b", "c")):
        export_runs.make_run(folder / "runs" / name, seed=seed, takes=2)
    return {}


def mix(folder: Path, material: Path) -> dict[str, Any]:
    """Two datasets."""
    exports(folder, material)
    export_runs = importlib.import_module("export_runs")
    export_runs.make_run(folder / "runs/many", seed=9, takes=9, frames=4)
    for run, name in (("many", "droid"), ("b", "demo")):
        assert retake("export", f"runs/{run}", "--out", f"datasets/{name}", "--quiet") == 0
    return {}


def policy(folder: Path, material: Path) -> dict[str, Any]:
    """Runs of several worlds and a policy that looks at nothing."""
    exports(folder, material)
    (folder / "policy.py").write_text(
        "import numpy as np\n\n\ndef act(observation):\n    return np.tile(observation.state, (2, 1))\n"
    )
    return {}


def teleop(folder: Path, material: Path) -> dict[str, Any]:
    """A LeRobot dataset of four demonstrations, its robot and its calibration; pictures of three worlds."""
    pytest.importorskip("pyarrow")
    from retake.core.export.urdf_out import robot_urdf

    runs = []
    for seed in range(4):
        small = ["--set", "capture.overrides={frames: 40}", "--seed", str(seed)]  # slow enough for its joints
        assert retake("capture", f"sim{seed}", *small) == 0
        runs.append(f"sim{seed}")
    assert retake("export", *runs, "--include-sim", "--out", "datasets/teleop", "--quiet") == 0
    episode = open_episode("sim0/episode")
    robot, camera = episode.header.robots[0], episode.camera("front", 0)
    (folder / "panda.urdf").write_text(robot_urdf(robot), "utf-8")
    T_camera_world = camera.T_camera_world @ episode.link_poses(robot.name)[0, 0]
    front = {"K": camera.K.tolist(), "T_camera_world": T_camera_world.tolist()}
    write_json(folder / "cameras.json", {"front": front})
    (folder / "pictures").mkdir()
    for name in RunConfig().variants.presets:
        cv2.imwrite(str(folder / f"pictures/{name}.png"), 255 - episode.image("front", "rgb", 0))
    return {"K": camera.K, "T_camera_world": T_camera_world}


def episode(folder: Path, material: Path) -> dict[str, Any]:
    """A bare episode folder."""
    shutil.copytree(material / "demo/episode", folder / "episode")
    return {}


def skeleton(folder: Path, material: Path) -> dict[str, Any]:
    """An episode, and its states as plain arrays."""
    made = make_scene_episode(folder / "e", frames=5, size=(80, 60))
    name = made.header.robots[0].name
    links = made.link_poses(name)
    camera = made.camera("front", 0)
    end = made.header.robots[0].grippers[0]
    hand = [link.name for link in made.header.robots[0].links].index(end.ee_link)
    ee_pose = links[:, hand] @ end.T_link_ee
    return {
        "episode": made, "link_positions": links[:, :, :3, 3], "ee_pose": ee_pose,
        "gripper_openness": np.full(len(made), 0.5), "camera_intrinsic": camera.K,
        "camera_extrinsic": camera.T_camera_world,
    }  # fmt: skip


def sample(folder: Path, material: Path) -> dict[str, Any]:
    """An OSCAR sample folder of 81 frames."""
    made = importlib.import_module("test_oscar_episode")
    made.make_source(folder / "sample", frames=81)
    return {}


SETUPS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "new": new, "demo": demo, "exports": exports, "mix": mix, "policy": policy, "teleop": teleop, "episode": episode,
    "skeleton": skeleton, "sample": sample,
}  # fmt: skip


# -- running ------------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, words of each; comments gone, `&&` and continuations understood."""
    joined = re.sub(r"\\\n\s*", " ", text)
    out = []
    for line in joined.splitlines():
        words = shlex.split(line, comments=True)
        while words:
            cut = words.index("&&") if "&&" in words else len(words)
            out.append(words[:cut])
            words = words[cut + 1 :]
    return [words for words in out if words]


def check_words(words: list[str]) -> None:
    """What can be said of a command without running it: that the target, the extra or the command exists."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets), words
    elif words[:2] == ["pip", "install"]:
        known = re.findall(
            r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text().partition("optional-dependencies]")[2], re.M
        )
        for word in words[2:]:
            extra = re.fullmatch(r"(?P<what>\.|isaac-retake)\[(?P<extras>[\w,]+)\]", word)
            assert extra, f"{word}: write '.[extra]'; the distribution is on no index"
            assert extra["what"] == ".", f"{word}: from a checkout only '.[extra]' installs"
            assert set(extra["extras"].split(",")) <= set(known), words
    elif Path(words[0]).name == "retake":
        arguments = [words[1], *([words[2]] if words[1] == "import" else []), "--help"]
        try:
            code: Any = cli.main(arguments)
        except SystemExit as stopped:  # argparse's own way to end
            code = stopped.code
        assert code == 0, words


def run_words(words: list[str]) -> None:
    if Path(words[0]).name != "retake":
        return check_words(words)
    places = {"RUN": "runs/demo", "EPISODE": "recordings/one"}
    code = retake(*(places.get(word, word) for word in words[1:]))
    assert code in JUDGED.get(words[1], {0}), f"{shlex.join(words)}: exit code {code}"
    if words[1:2] == ["verify"] and Path(words[2]).is_dir():
        accept(Path(words[2]))
    return None


@pytest.mark.parametrize("block", RUN, ids=str)
def test_block_runs(block, tmp_path, material, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(pipeline.SIMULATORS, "newton", "test_docs:tiny")
    monkeypatch.setattr(serve, "serve", lambda *a, **k: 0)
    monkeypatch.setattr(cli, "Stop", lambda: type("Stop", (), {"check": staticmethod(lambda: None)})())
    found = MARK.fullmatch(block.mark)
    assert found
    names = SETUPS[found["what"]](tmp_path, material)
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), names)
        return
    for words in commands(block.text):
        run_words(words)


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_block_that_is_not_run_names_only_what_exists(block, capsys):
    if block.language == "python":
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retake."):
                for alias in node.names:
                    require(node.module, alias.name)
        return
    for words in commands(block.text):
        if words[1:3] not in (["oscar", "convert"], ["worker", "open"]):
            with contextlib.suppress(MissingDependencyError):  # an extra that is not installed here
                check_words(words)


def require(module: str | None, name: str) -> None:
    """That `from module import name` works, where the packages it needs are here."""
    assert importlib.util.find_spec(str(module)) is not None, module
    try:
        found = importlib.import_module(str(module))
    except ImportError:  # a package of an extra that is not installed here
        return
    with contextlib.suppress(MissingDependencyError):
        assert getattr(found, name) is not None
