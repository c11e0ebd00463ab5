# SPDX-License-Identifier: Apache-2.0
"""The command line with one more simulator, `scene` (tests/scenes.py): small analytic episodes in well under a second.

As a script: `python arrow_driver.py run --run DIR …` is `retake run …` with that simulator, and small takes are made in
processes of their own as large ones are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenes import make_scene_episode

from retake.core import cli, pipeline
from retake.core.episode import Episode, EpisodeWriter, open_episode
from retake.core.takes import fan_out

SMALL = ["--set", "capture.simulator=scene", "--set", "skeleton.size=[64, 48]", "--set", "verdicts.enabled=false"]


def simulate(
    out_dir: Path,
    *,
    preset: str,
    seed: int,
    stage: Path | None,
    overrides: dict[str, Any],
    progress: Callable[[int, int], None],
) -> Episode:
    """A scene episode, written again frame by frame so that progress, cancellation and kills hit the middle."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = make_scene_episode(Path(folder) / "e", frames=overrides.get("frames", 30), size=(80, 60), seed=seed)
        source = made if isinstance(made, Episode) else open_episode(Path(folder) / "e")
        with EpisodeWriter(out_dir, source.header) as writer:
            for done, frame in enumerate(source.frames(), 1):
                writer.append(frame)
                progress(done, len(source))
            return writer.finish()


def main(argv: list[str]) -> int:
    pipeline.SIMULATORS["scene"] = "arrow_driver:simulate"
    return cli.main(argv)


if __name__ == "__main__":
    sys.modules["arrow_driver"] = sys.modules["__main__"]
    fan_out.WORTH_PROCESSES_PX = 0
    sys.exit(main(sys.argv[1:]))
