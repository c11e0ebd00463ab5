# SPDX-License-Identifier: Apache-2.0
"""The procedural painter: simulated frames in another world, as first frames (`procedural`) and as takes (`composite`).

Needs no model, no network, no GPU. Contracts and measuring are elsewhere: `variants` and `takes` name its backends by
"module:attribute" and know nothing of how it paints.
"""
