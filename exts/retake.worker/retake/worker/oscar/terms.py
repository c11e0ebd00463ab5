# SPDX-License-Identifier: Apache-2.0
"""What is known, and not known, about the terms of the weights. Facts as of the specification in docs/oscar.md."""

from __future__ import annotations

from retake.core.licences import facts_of

# Every real part is above this (the VAE, the smallest, has 127 M parameters); test weights are far below.
FULL_SIZE_PARAMETERS = 50_000_000

_TERMS = """\
Terms of the weights, as far as they are known (read the model cards yourself; this is no legal advice):
  OSCAR-2B            code Apache-2.0. Of the weights:
{oscar}
  Cosmos-Predict2.5   the base model; NVIDIA Open Model License. Its diffusers pipeline states that disabling the
                      guardrail breaches that licence. Whether this binds the fine-tune is not known.
                      Retake has a `safety_checker` hook and ships no guardrail.
  Cosmos-Reason1-7B   the text encoder; NVIDIA's terms, on top of Qwen2.5-VL. Not verified here.
  Wan 2.1 VAE         published with Wan 2.1; see its model card.
Retake bundles none of these weights, and a converted folder is for your own use until you have read the terms."""


def terms() -> str:
    """The terms to show before anything is converted; what is known of OSCAR-2B is the licence table's."""
    facts = (fact.partition(": ")[2] for fact in facts_of("LicenseRef-OSCAR-2B"))
    return _TERMS.replace("{oscar}", "\n".join(f"{'':<22}- {fact}" for fact in facts))


def needs_acceptance(parameters: int) -> bool:
    """Whether a part of this size is a real model rather than test weights."""
    return parameters >= FULL_SIZE_PARAMETERS
