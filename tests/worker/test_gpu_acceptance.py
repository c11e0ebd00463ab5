# SPDX-License-Identifier: Apache-2.0
"""The acceptance script on tiny models and the CPU: every part runs or says why not, and what is there is written at once."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_acceptance.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_acceptance", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_acceptance"] = module
    spec.loader.exec_module(module)
    return module


def test_parts_run_on_tiny_models_and_are_written(script, tmp_path):
    everything = os.environ.get("RETAKE_FULL") == "1"
    parts = () if everything else ("environment", "ceilings", "attention", "determinism", "pretended_memory", "float8")
    out = tmp_path / "gpu.json"
    found = script.run(torch.device("cpu"), True, out, 600.0, parts)
    assert json.loads(out.read_text()) == json.loads(json.dumps(found, default=str))
    assert found["ceilings"]["matmul_bf16_tflops"] > 0
    assert found["determinism"]["equal"] is True
    assert found["attention"]["native"]["seconds"] > 0
    assert "need a CUDA device" in found["pretended_memory"]
    assert found["float8"]["of_exact"] > 0
    assert not [name for name, value in found.items() if isinstance(value, str) and value.startswith("failed")]
    text = "\n".join(script.table(found))
    assert "ceilings" in text
    if not everything:
        assert "whole_take: no time left" in text


def test_a_failing_part_does_not_end_the_others_and_time_is_kept(script, tmp_path, monkeypatch, capsys):
    def broken(b: Any) -> dict[str, Any]:
        raise RuntimeError("CUDA error: misaligned address")

    def absent(b: Any) -> dict[str, Any]:
        raise script.UnavailableError("no such thing here")

    monkeypatch.setattr(
        script, "PARTS", {"one": (broken, 5), "two": (absent, 5), "three": (lambda b: {"left": b.left()}, 5)}
    )
    found = script.run(torch.device("cpu"), True, tmp_path / "g.json", 100.0)
    assert found["one"] == "failed: RuntimeError: CUDA error: misaligned address"
    assert found["two"] == "not here: no such thing here"
    assert 0 < found["three"]["left"] <= 5
    assert "misaligned" in capsys.readouterr().err
    short = script.run(torch.device("cpu"), True, tmp_path / "h.json", 0.0)
    assert {short[name] for name in ("one", "two", "three")} == {"no time left"}


def test_what_is_asked_wrongly_is_refused(script, tmp_path, capsys):
    for arguments, words in (
        (["--tiny", "--device", "cpu"], "name another --out"),
        (["--only", "magic", "--tiny", "--device", "cpu", "--out", str(tmp_path / "o.json")], "valid: environment"),
        *([] if torch.cuda.is_available() else [(["--out", str(tmp_path / "o.json")], "no CUDA device is here")]),
    ):
        with pytest.raises(SystemExit):
            script.main(arguments)
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no wheels"):
        script.carried(tmp_path)
