# SPDX-License-Identifier: Apache-2.0
"""First frames by diffusion models: depth, edges and masks of the simulator in, one locked picture out (docs/first_frame.md)."""
