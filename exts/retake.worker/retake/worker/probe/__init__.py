# SPDX-License-Identifier: Apache-2.0
"""A small fixed policy as a measuring device (docs/closed_loop.md): what does a data set teach?

`data` packs a LeRobot data set, `model` is the policy, `train` trains it, `host` answers with it. Only `data` runs without torch.
"""
