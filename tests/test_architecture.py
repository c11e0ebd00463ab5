# SPDX-License-Identifier: Apache-2.0
"""What import-linter cannot see: what really loads, what versions say, what the tree may hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "omni",
    "carb",
    "pxr",
    "isaacsim",
    "isaaclab",
    "newton",
    "warp",
    "torch",
    "diffusers",
    "transformers",
    "starlette",
    "pyarrow",
    "av",
}


def modules_of(package: str) -> list[str]:
    folder = ROOT / f"exts/retake.{package}/retake/{package}"
    names = []
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(ROOT / f"exts/retake.{package}").with_suffix("").parts
        names.append(".".join(p for p in parts if p != "__init__"))
    return names


def test_core_imports_alone_and_loads_nothing_heavy():
    """Every core module in a clean interpreter with only core on the path, as in Kit."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules_of('core')!r}: importlib.import_module(name)\n"
        f"print(sorted(set(m.split('.')[0] for m in sys.modules) & {FORBIDDEN!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(ROOT / "exts/retake.core"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


def test_versions_agree_across_manifests():
    wanted = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert wanted is not None
    manifests = [ROOT / "extension.toml", *sorted(ROOT.glob("exts/*/config/extension.toml"))]
    assert len(manifests) == 9
    for manifest in manifests:
        found = re.search(r'^version = "([^"]+)"', manifest.read_text(), re.M)
        assert found is not None, manifest
        assert found[1] == wanted[1], manifest
    assert f"## [{wanted[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_retake_is_a_namespace_package():
    assert not list(ROOT.glob("exts/*/retake/__init__.py"))


@pytest.mark.parametrize("package", ["core", "usd", "newton", "isaac", "ui", "worker", "lab", "loop"])
def test_every_source_file_names_its_licence(package):
    for file in (ROOT / f"exts/retake.{package}").rglob("*.py"):
        text = file.read_text("utf-8")
        assert not text or text.startswith("# SPDX-License-Identifier: Apache-2.0"), file


def test_no_tracked_file_is_a_link_to_somewhere_else():
    """A link to an environment of one machine is nothing in a clone, and stands in the way of making it."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []


def test_import_rules_hold():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
