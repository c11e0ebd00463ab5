# SPDX-License-Identifier: Apache-2.0
"""The actuator gap: how far real joints are from simulated ones, and a model of them to simulate with."""
