# SPDX-License-Identifier: Apache-2.0
"""How much a policy's actions change when only the pixels change (docs/robustness.md).

`robustness(runs, policy, out)`: same observations and actions, N worlds; report.html and report.json.
"""

from retake.core.robustness.analysis import Attribution, Score, analyse
from retake.core.robustness.policies import open_policy
from retake.core.robustness.policy import Observation, Policy
from retake.core.robustness.run import RobustnessReport, robustness

__all__ = ["Attribution", "Observation", "Policy", "RobustnessReport", "Score", "analyse", "open_policy", "robustness"]
