# SPDX-License-Identifier: Apache-2.0
"""Variants: N realistic first frames of one episode."""

from retake.core.variants.backends import image_backend
from retake.core.variants.base import ImageBackend, SourceFrame, Variant, World, source_frame
from retake.core.variants.gated import Gated, make_gated_variants
from retake.core.variants.make import make_variant, make_variants, open_variant, select_worlds
from retake.core.variants.sampler import sample_worlds
from retake.core.variants.worlds import Catalogue, load_catalogue

__all__ = [
    "Catalogue",
    "Gated",
    "ImageBackend",
    "SourceFrame",
    "Variant",
    "World",
    "image_backend",
    "load_catalogue",
    "make_gated_variants",
    "make_variant",
    "make_variants",
    "open_variant",
    "sample_worlds",
    "select_worlds",
    "source_frame",
]
