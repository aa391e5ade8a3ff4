"""Whether expressions of Prometheus fit what a stack really serves: names, labels and their values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

Series: TypeAlias = dict[str, list[dict[str, str]]]
"""The labels of each sample, by its name."""

COUNTERS = ("_total", "_bucket", "_sum", "_count")
OF_COUNTERS = frozenset({"rate", "irate", "increase"})

TARGET = ("job", "instance")
"""The labels that Prometheus itself adds to every sample, and to `up`."""


def series(scraped: Iterable[str]) -> Series:
    """Every sample of these pages, as Prometheus stores it."""
    target = dict.fromkeys(TARGET, "gateway")
    found: Series = defaultdict(list, {"up": [target]})
    for page in scraped:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found[sample.name].append({**sample.labels, **target})
    return found


def problems(text: str, known: Series) -> Iterator[str]:
    """Say what an expression names that is not there."""
    try:
        parsed: Any = promql.parse(text)
    except ValueError as error:
        yield f"{text}: {error}"
        return
    nodes: list[Any] = []
    promql.walk(parsed, nodes.append)
    for node in nodes:
        if isinstance(node, promql.VectorSelector) and not _matching(node, known):
            yield f"{text}: there is no {node.name}{node.matchers}"
        if isinstance(node, promql.Call) and node.func.name in OF_COUNTERS and not _is_counter(node):
            yield f"{text}: {node.func.name} is of a counter"
        if isinstance(node, promql.BinaryExpr) and _is_in_vain(node, known):
            yield f"{text}: its sides have no labels in common"
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            yield from (
                f"{text}: there is no label {label}"
                for label in set(node.modifier.labels) - labels(node.expr, known)
            )


def _is_counter(call: Any) -> bool:
    """Whether a function is given what only rises."""
    selector = getattr(call.args[0], "vector_selector", None)
    return selector is not None and selector.name.endswith(COUNTERS)


def _is_in_vain(node: Any, known: Series) -> bool:
    """Whether no sample of one side can meet one of the other: their labels differ, and none are chosen."""
    is_set = str(node.op) in {"and", "or", "unless"}
    is_chosen = node.modifier is not None and node.modifier.matching is not None
    if is_set or is_chosen or not (_is_vector(node.lhs) and _is_vector(node.rhs)):
        return False
    return labels(node.lhs, known) != labels(node.rhs, known)


def _is_vector(node: Any) -> bool:
    if isinstance(node, promql.BinaryExpr):
        return _is_vector(node.lhs) or _is_vector(node.rhs)
    return not isinstance(node, promql.NumberLiteral)


def _matching(selector: Any, known: Series) -> list[dict[str, str]]:
    """The samples that a selector finds."""
    return [
        sample
        for sample in known.get(selector.name, [])
        if all(_fits(matcher, sample) for matcher in selector.matchers.matchers)
    ]


def _fits(matcher: Any, sample: dict[str, str]) -> bool:
    """Whether a sample has the label, with a value that the matcher takes."""
    if matcher.name not in sample:
        return False
    value = sample[matcher.name]
    kinds = promql.MatchOp
    if matcher.op in (kinds.Equal, kinds.NotEqual):
        return (value == matcher.value) is (matcher.op == kinds.Equal)
    return bool(re.fullmatch(matcher.value, value)) is (matcher.op == kinds.Re)


def labels(node: Any, known: Series) -> set[str]:
    """The labels that what an expression yields can have."""
    if isinstance(node, promql.VectorSelector):
        return set().union(*known.get(node.name or "", []))
    inner = set[str]().union(*(labels(each, known) for each in _children(node)))
    if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
        return inner - {"le"}
    if not isinstance(node, promql.AggregateExpr):
        return inner
    modifier = node.modifier
    named = set(modifier.labels) if modifier else set()
    is_without = modifier is not None and modifier.type == promql.AggModifierType.Without
    return inner - named if is_without else named


def _children(node: Any) -> list[Any]:
    """What an expression is made of: numbers and texts have no labels."""
    match node:
        case promql.Call():
            return list(node.args)
        case promql.BinaryExpr():
            return [node.lhs, node.rhs]
        case promql.MatrixSelector():
            return [node.vector_selector]
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr():
            return [node.expr]
    return []


def shown(text: str, template: str, known: Series) -> Iterator[str]:
    """Say which labels a legend or an annotation shows that its expression does not have."""
    named = set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z_]+)", template)) - {"value"}
    yield from (f"{text}: shows {label}" for label in named - labels(promql.parse(text), known))
