# SPDX-License-Identifier: Apache-2.0
"""Retake's pure core: Episode → Skeleton → Variants → Takes → Verdicts → Dataset.

Each arrow is a module of that name; this file imports nothing, so that Kit pays only for what it uses.
"""
