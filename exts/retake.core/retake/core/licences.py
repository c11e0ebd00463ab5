# SPDX-License-Identifier: Apache-2.0
"""Whether stated terms allow commercial use: one answer for variants, takes, first-frame models, export and doctor.

The table and the policy are config/licences.yaml. Fails closed: what is not listed is not allowed. Names, also joined by
AND, need nothing; other SPDX expressions are parsed by `license-expression`, and refused without it (inside Kit).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from retake.core.codec import decode
from retake.core.config import config_path, load_yaml
from retake.core.errors import InputError

UNSTATED = ("", "unknown", "none", "not stated", "unstated", "other", "noassertion")
_NON_COMMERCIAL = re.compile(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|research[- ]only|academic", re.IGNORECASE)
_CHOICE = re.compile(r"\b(OR|WITH)\b|[()]")
_OPERANDS = re.compile(r"(?P<operator>\b(?:AND|OR|WITH)\b|[()])|(?:(?!\b(?:AND|OR|WITH)\b)[^()])+")
_REFUSED = "is not among the terms known to allow commercial use"


@dataclass(frozen=True)
class Terms:
    """One entry of the table."""

    commercial: bool | None = None
    """None where it follows from `weights`, `base` and `training_data`."""
    also: tuple[str, ...] = ()
    why: str = ""
    note: str = ""
    source: str = ""
    weights: str = ""
    base: str = ""
    training_data: str = ""
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """What counts beside a model's own terms."""

    training_data: Literal["must-allow", "not-counted"] = "must-allow"


@dataclass(frozen=True)
class Table:
    """config/licences.yaml."""

    terms: dict[str, Terms]
    policy: Policy = field(default_factory=Policy)
    exceptions: tuple[str, ...] = ()

    @cached_property
    def spellings(self) -> dict[str, str]:
        """Plain spelling → name. Raises InputError when one stands for two terms."""
        found: dict[str, str] = {}
        for name, terms in self.terms.items():
            for spelling in (name, *terms.also):
                if found.setdefault(_plain(spelling), name) != name:
                    raise InputError(f"the licence table: {spelling!r} stands for two terms")
        return found

    def name_of(self, text: str) -> str:
        """How the table writes a name; the text itself where it is unknown."""
        return self.spellings.get(_plain(text), text.strip())


@lru_cache(maxsize=1)
def load_table() -> Table:
    """The table. Raises InputError for one that is malformed."""
    path = config_path("licences.yaml")
    return decode(Table, load_yaml(path), str(path), noun="entry")


def _plain(text: str) -> str:
    """Without case, and with blanks and underscores as hyphens: model cards, SPDX and people write names differently."""
    return re.sub(r"[\s_-]+", "-", text.strip().lower())


def commercial_obstacle(licence: object, table: Table | None = None) -> str | None:
    """None when the terms allow commercial use, else the reason they do not count as allowing it."""
    known, text = table or load_table(), licence.strip() if isinstance(licence, str) else ""
    if _plain(text) in {_plain(name) for name in UNSTATED}:
        return "no licence is stated"
    if known.name_of(text) in known.terms:
        return _name_obstacle(text, known)
    if _CHOICE.search(text):
        return _expression_obstacle(text, known)
    parts = re.split(r"\bAND\b", text)
    if not all(part.strip() for part in parts):
        return f"{text!r} is no SPDX expression: AND stands between two terms"
    return next((reason for part in parts if (reason := _name_obstacle(part.strip(), known))), None)


def facts_of(licence: str, table: Table | None = None) -> tuple[str, ...]:
    """What is to be shown beside the terms: notes and facts of every name in them, in the order of the table."""
    known = table or load_table()
    names = {known.name_of(part) for part in re.split(r"\bAND\b|\bOR\b|\bWITH\b|[()]", licence)}
    shown = [(name, terms) for name, terms in known.terms.items() if name in names]
    return tuple(f"{name}: {text}" for name, terms in shown for text in (*terms.facts, *filter(None, (terms.note,))))


def joint_licence(licences: Iterable[str]) -> str:
    """The terms of several parts together, each named once as the table writes it; empty when any states none."""
    table, parts = load_table(), list(licences)
    if not all(part.strip() for part in parts):
        return ""
    names = dict.fromkeys(table.name_of(part) for part in parts)
    return " AND ".join(f"({name})" if " OR " in name else name for name in names)


def require_commercial(what: str, licence: str, only_commercial: bool, error: type[Exception]) -> None:
    """Raises `error` when commercial use is asked for and the terms of `what` are not known to allow it."""
    if only_commercial and (reason := commercial_obstacle(licence)):
        raise error(f"--only-commercial: {what}: {reason}; config/licences.yaml lists the terms that allow it")


def _name_obstacle(text: str, table: Table) -> str | None:
    terms = table.terms.get(table.name_of(text))
    if terms is None:
        return f"{text!r} forbids commercial use" if _NON_COMMERCIAL.search(text) else f"{text!r} {_REFUSED}"
    if terms.commercial is not None:
        return None if terms.commercial else f"{text!r}: {terms.why or 'it does not allow commercial use'}"
    for part, stated in (("weights", terms.weights), ("base model", terms.base)):
        if reason := commercial_obstacle(stated, table):
            return f"{text!r}: its {part}: {reason}"
    if not terms.training_data or table.policy.training_data == "not-counted":
        return None
    reason = commercial_obstacle(terms.training_data, table)
    return reason and f"{text!r}: its training data: {reason} (policy.training_data in config/licences.yaml)"


def _expression_obstacle(text: str, table: Table) -> str | None:
    try:
        from license_expression import Licensing
    except ImportError:
        return (
            f"{text!r} is an expression of several terms, which the package license-expression reads; it is not installed "
            "here: pip install license-expression"
        )
    # Names with blanks or '+' are not SPDX: they stand as words of their own while the expression is parsed.
    words: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        name = match[0].strip()
        if not name or match["operator"]:
            return match[0]
        words[f"LicenseRef-{len(words)}"] = name
        return f" LicenseRef-{len(words) - 1} "

    quoted = _OPERANDS.sub(placeholder, text)
    try:
        parsed: Any = Licensing().parse(quoted)
    except Exception as error:  # its errors share no base class
        return f"{text!r} is no SPDX expression: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return _node_obstacle(parsed, words, table)


def _node_obstacle(node: Any, words: dict[str, str], table: Table) -> str | None:
    if hasattr(node, "license_symbol"):
        exception = words[node.exception_symbol.key]
        if _plain(exception) not in {_plain(name) for name in table.exceptions}:
            return f"the exception {exception!r} {_REFUSED}"
        return _node_obstacle(node.license_symbol, words, table)
    if hasattr(node, "key"):
        return _name_obstacle(words[node.key], table)
    found = [_node_obstacle(part, words, table) for part in node.args]
    combine: Callable[[Iterable[bool]], bool] = any if node.operator.strip().upper() == "OR" else all
    return None if combine(reason is None for reason in found) else next(reason for reason in found if reason)
