# SPDX-License-Identifier: Apache-2.0
"""How a command line names a policy: the same options for `retake robustness` and `retake closed-loop`."""

from __future__ import annotations

import argparse

from retake.core.errors import InputError
from retake.core.robustness.policies import open_policy
from retake.core.robustness.policy import KeyMap, Policy

FORMS = """policies:
  my_package.policy:act          a function Observation -> actions (H, A), or a class with infer
  policy.py:act                  the same, in a file
  outputs/train/pretrained_model a LeRobot policy folder (give its interpreter with --policy-python)
  openpi://localhost:8000        an openpi policy server
  gr00t://localhost:5555         a GR00T N1.6 server (gr00t-n1.5:// for the older wire)
"""


def add_policy_options(out: argparse.ArgumentParser) -> None:
    """Which policy, and how to reach it."""
    add = out.add_argument
    add("--policy", required=True, help="see below")
    add("--map", nargs="+", default=(), metavar="CAMERA=KEY", help="the policy's key of a camera")
    add("--state-key", default="", help="the policy's key of the state vector (openpi)")
    add(
        "--policy-python",
        default="",
        metavar="PATH",
        help="interpreter that has lerobot (or torch), for a policy folder",
    )
    add("--timeout", type=float, default=60.0, metavar="S", help="longest wait for one answer")


LONGEST_S = 86400.0
"""No wait for an answer is longer than a day: more is a slip, and infinity is none that the system can wait."""


def check_timeout(seconds: float) -> None:
    """Raise InputError for a wait that is none."""
    if not 0 < seconds <= LONGEST_S:
        raise InputError(f"--timeout is {seconds:g}; expected seconds above zero, at most {LONGEST_S:g}")


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy that the options name. Raises as `open_policy` does, InputError for a malformed --map."""
    pairs = [text.partition("=") for text in args.map]
    if bad := [f"{a}{s}{b}" for a, s, b in pairs if not (a and b)]:
        raise InputError(f"--map {bad[0]!r}: expected CAMERA=KEY")
    check_timeout(args.timeout)
    keys = KeyMap({a: b for a, _, b in pairs}, args.state_key)
    return open_policy(args.policy, python=args.policy_python, mapping=keys, timeout_s=args.timeout)
