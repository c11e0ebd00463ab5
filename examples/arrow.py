# SPDX-License-Identifier: Apache-2.0
"""The arrow, stage by stage, as a notebook-style script: run it whole, or cell by cell where `# %%` is understood.

`python examples/arrow.py [RUN]` simulates a pick-and-drop (needs the extras `newton` and `video`) and works in RUN, runs/py
unless named. Running it again does only what is missing.
"""

# %%
import sys

from retake.core import stages

RUN = sys.argv[1] if len(sys.argv) > 1 else "runs/py"

# %% Episode: the simulator owns the physics
episode = stages.capture(RUN, preset="short")
print(f"{len(episode)} frames at {episode.header.fps:g} fps, cameras: {[c.name for c in episode.header.cameras]}")
assert stages.check(RUN).passed

# %% Skeleton: drawn from simulated state
for camera, skeleton in stages.skeleton(RUN).items():
    print(f"control video of {camera}: {skeleton.path}")

# %% Variants: every camera's first frame in two worlds
made = stages.variants(RUN, 2)
for variant in made.variants:
    print(f"{variant.id}: {variant.prompt}")

# %% Takes: one video per world and camera
for take in stages.takes(RUN, seeds=[42]):
    print(f"{take.id}: {take.frames} frames, {take.video}")

# %% Verdicts: does each video do what the simulation did?
for name, standing in stages.verify(RUN).items():
    print(f"{name}: {standing.status} {standing.reason}")

# %% The page, and with the extra `export` a dataset: stages.export(RUN, "datasets/mine")
print(stages.report(RUN))
