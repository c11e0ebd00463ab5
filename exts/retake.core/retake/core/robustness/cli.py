# SPDX-License-Identifier: Apache-2.0
"""`retake robustness`."""

from __future__ import annotations

import argparse
from pathlib import Path

from retake.core.export.collect import Selection
from retake.core.progress import Bar, silent
from retake.core.robustness.options import FORMS, add_policy_options, policy_of
from retake.core.robustness.run import robustness

_EXAMPLES = f"""{FORMS}
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
    add_policy_options(out)
    add("--out", required=True, type=Path, help="folder of report.html and report.json")
    add("--frames", type=int, default=8, help="frames asked per window (default 8)")
    add("--camera", nargs="+", default=(), metavar="NAME")
    add("--unverified", action="store_true", help="also takes without a passed verdict (failed ones never)")
    add("--action", choices=("commanded", "next-state"), default="commanded")
    add("--seed", type=int, default=0, help="of bootstrap and permutations")
    add("--min-score", type=float, default=None, metavar="X", help="exit with 3 when the score is lower (for CI)")
    add("--quiet", action="store_true")
    return out


def main(argv: list[str]) -> int:
    """`retake robustness RUN… --policy P --out DIR`; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)
    policy = policy_of(args)
    try:
        report = robustness(
            args.runs,
            policy,
            args.out,
            frames=args.frames,
            selection=Selection(cameras=tuple(args.camera), unverified=args.unverified, action_source=args.action),
            seed=args.seed,
            timeout_s=args.timeout,
            progress=silent if args.quiet else Bar("robustness"),
        )
    finally:
        if callable(close := getattr(policy, "close", None)):
            close()
    score = report.analysis.score
    print(f"score {score.value:.1f} (95 % {score.low:.1f} … {score.high:.1f}). {report.analysis.verdict}")
    print(report.html)
    return 3 if args.min_score is not None and score.value < args.min_score else 0
