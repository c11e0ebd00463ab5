# SPDX-License-Identifier: Apache-2.0
"""`retake robustness`."""

from __future__ import annotations

import argparse
from pathlib import Path

from retake.core.errors import InputError
from retake.core.export.collect import Selection
from retake.core.progress import Bar, silent
from retake.core.robustness.policies import open_policy
from retake.core.robustness.policy import KeyMap
from retake.core.robustness.run import robustness

_EXAMPLES = """policies:
  my_package.policy:act          a function Observation -> actions (H, A), or a class with infer and reset
  policy.py:act                  the same, in a file
  outputs/train/pretrained_model a LeRobot policy folder (give its interpreter with --policy-python)
  openpi://localhost:8000        an openpi policy server
  gr00t://localhost:5555         a GR00T N1.6 server (gr00t-n1.5:// for the older wire)

example:
  retake robustness runs/a runs/b --policy openpi://localhost:8000 --map front=observation/exterior_image_1_left --out rob
"""


def parser() -> argparse.ArgumentParser:
    """Arguments of `retake robustness`."""
    out = argparse.ArgumentParser(
        prog="retake robustness",
        description="How much a policy's actions change when only the pixels change: one score, its causes, the worst worlds.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = out.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN")
    add("--policy", required=True, help="see below")
    add("--out", required=True, type=Path, help="folder of report.html and report.json")
    add("--frames", type=int, default=8, help="frames asked per window (default 8)")
    add("--camera", nargs="+", default=(), metavar="NAME")
    add("--map", nargs="+", default=(), metavar="CAMERA=KEY", help="the policy's key of a camera")
    add("--state-key", default="", help="the policy's key of the state vector (openpi)")
    add("--policy-python", default="", metavar="PATH", help="interpreter that has lerobot, for a policy folder")
    add("--timeout", type=float, default=60.0, metavar="S", help="longest wait for one answer")
    add("--unverified", action="store_true", help="also takes without a passed verdict (failed ones never)")
    add("--action", choices=("commanded", "next-state"), default="commanded")
    add("--seed", type=int, default=0, help="of bootstrap and permutations")
    add("--min-score", type=float, default=None, metavar="X", help="exit with 3 when the score is lower (for CI)")
    add("--quiet", action="store_true")
    return out


def main(argv: list[str]) -> int:
    """`retake robustness RUN… --policy P --out DIR`; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)
    pairs = [text.partition("=") for text in args.map]
    if bad := [f"{a}{s}{b}" for a, s, b in pairs if not (a and b)]:
        raise InputError(f"--map {bad[0]!r}: expected CAMERA=KEY")
    keys = KeyMap({a: b for a, _, b in pairs}, args.state_key)
    policy = open_policy(args.policy, python=args.policy_python, mapping=keys, timeout_s=args.timeout)
    try:
        report = robustness(
            args.runs,
            policy,
            args.out,
            frames=args.frames,
            selection=Selection(cameras=tuple(args.camera), unverified=args.unverified, action_source=args.action),
            seed=args.seed,
            progress=silent if args.quiet else Bar("robustness"),
        )
    finally:
        if callable(close := getattr(policy, "close", None)):
            close()
    score = report.analysis.score
    print(f"score {score.value:.1f} (95 % {score.low:.1f} … {score.high:.1f}). {report.analysis.verdict}")
    print(report.html)
    return 3 if args.min_score is not None and score.value < args.min_score else 0
