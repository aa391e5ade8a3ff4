"""With GATEWAY_METRICS=on a Prometheus on the same machine can ask every part of a stack."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import httpx
import msgspec
import pytest

from authz.alerts.alert import KINDS
from authz.stack.build import SOURCE
from authz.stack.discovery import free_port
from tests.authz.receiver import Receiver, receiving
from tests.up import promql
from tests.up.conftest import PREFIX
from tests.up.promql import Series
from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)

PARTS = {
    "authz/0": "gateway_decisions_total",
    "authz/1": "gateway_decisions_total",
    "metering": "gateway_lag_bytes",
    "caddy": "caddy_",
}


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """An alert of caddy/alerts.yaml."""

    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: str = msgspec.field(name="for", default="0s")


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """A group of alerts."""

    name: str
    rules: list[Rule]


class Target(msgspec.Struct):
    """What a panel of the dashboard asks for."""

    expr: str
    legendFormat: str = ""  # noqa: N815 (Grafana's name)


def rules() -> list[Rule]:
    """Every alert."""
    (group,) = msgspec.yaml.decode((SOURCE / "alerts.yaml").read_bytes(), type=dict[str, list[Group]])[
        "groups"
    ]
    return group.rules


def targets() -> list[Target]:
    """Everything that the dashboard asks for."""
    panels = json.loads((SOURCE / "grafana.json").read_bytes())["panels"]
    return msgspec.convert([target for panel in panels for target in panel["targets"]], list[Target])


def logs(stack: Stack) -> str:
    """Everything that the processes of a stack have logged."""
    return "".join(path.read_text() for path in (stack.state / "logs").iterdir())


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Where the stack posts its alerts."""
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def site(receiver: Receiver) -> Iterator[str]:
    """Where a running stack that has served, refused and settled is asked for its metrics."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        stack, port = Stack(Path(folder) / "s"), free_port()
        alerts = f"{receiver.url}/hook?key=SECRET"
        stack.up(GATEWAY_METRICS="on", GATEWAY_METRICS_PORT=str(port), GATEWAY_ALERT_URL=alerts)
        served = stack.chat_status()
        limited = stack.run("set-limits", "--tenant", "demo", "--tokens-per-day", "1")
        assert (200, 0) == (served, limited.returncode)
        until(lambda: 200 != stack.chat_status())
        try:
            yield f"http://127.0.0.1:{port}"
            until(lambda: "alerts.posted" in logs(stack))
            assert "SECRET" not in logs(stack)
        finally:
            stack.run("down")


@pytest.fixture(scope="module")
def known(site: str) -> Series:
    """What Prometheus would know of it, once metering has counted for the first time."""

    def scrape() -> Series:
        return promql.series(httpx.get(f"{site}/{part}").text for part in PARTS)

    until(lambda: "gateway_sequence_gaps_total" in scrape())
    return scrape()


def test_prometheus_can_ask_every_part(site: str) -> None:
    """Each part answers at its own path, and nothing else is there."""
    served = {part: httpx.get(f"{site}/{part}").text for part in PARTS}
    assert dict.fromkeys(PARTS, True) == {part: PARTS[part] in served[part] for part in PARTS}
    others = ("", "verify", "authz/0/verify", "authz/../verify", "authz/77", "readyz", "metrics")
    assert {404} == {httpx.get(f"{site}/{path}").status_code for path in others}


def test_dashboard_shows_what_there_is(known: Series) -> None:
    """Every expression of the dashboard parses, and its metrics and labels are served by a stack."""
    asked = targets()
    assert asked
    wrong = (promql.problems(each.expr, known) for each in asked)
    unlabelled = (promql.shown(each.expr, each.legendFormat, known) for each in asked)
    assert [] == list(chain.from_iterable((*wrong, *unlabelled)))


def test_alerts_ask_for_what_there_is(known: Series) -> None:
    """Every alert parses, its metrics and labels are served by a stack, and it says what to do."""
    alerts = rules()
    wrong = (promql.problems(each.expr, known) for each in alerts)
    unlabelled = (
        promql.shown(each.expr, text, known) for each in alerts for text in each.annotations.values()
    )
    assert [] == list(chain.from_iterable((*wrong, *unlabelled)))
    assert {("summary", "action")} == {tuple(each.annotations) for each in alerts}
    assert {"critical", "warning", "info"} == {each.labels["severity"] for each in alerts}


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(gateway_no_such)", "there is no gateway_no_such"),
        ('gateway_budgets{used="81"}', 'there is no gateway_budgets{used="81"}'),
        ('gateway_lag_bytes{backend="a"}', 'there is no gateway_lag_bytes{backend="a"}'),
        ("sum by (backend) (gateway_lag_bytes)", "there is no label backend"),
        ("sum by (le) (histogram_quantile(1, gateway_settle_seconds_bucket))", "there is no label le"),
        ("sum(gateway_lag_bytes", "unclosed left parenthesis"),
        ("increase(gateway_lag_bytes[1h])", "increase is of a counter"),
        ("gateway_budgets / gateway_disk_bytes", "its sides have no labels in common"),
        ("max(gateway_disk_bytes) > gateway_lag_bytes", "its sides have no labels in common"),
        ("gateway_disk_bytes + rate(gateway_lag_bytes)", "expected type matrix"),
    ],
)
def test_wrong_expressions_are_found(known: Series, expression: str, problem: str) -> None:
    """An expression that a stack can never satisfy is named, so that the two tests above can fail."""
    (found,) = promql.problems(expression, known)
    assert problem in found


def test_used_up_budget_and_disk_are_measured(site: str) -> None:
    """A used-up budget of the tenant counts at 80 and at 100 %, and the journal's disk has a size."""

    def samples() -> Iterator[tuple[str, float]]:
        for line in httpx.get(f"{site}/metering").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(("gateway_budgets", "gateway_disk")):
                yield name, float(value)

    until(lambda: (1, 1) == tuple(value for name, value in samples() if "budgets" in name))
    free, size = (dict(samples())[f"gateway_disk_{name}bytes"] for name in ("free_", ""))
    assert 0 < free <= size
    assert not math.isnan(size)


@pytest.mark.usefixtures("site")
def test_a_used_up_budget_is_posted_once(receiver: Receiver) -> None:
    """A stack with GATEWAY_ALERT_URL posts, by one of its two authz, that a budget is used up."""
    until(lambda: ("budget_used", "raised") in receiver.got)
    # A machine of which little disk is left is alerted, too.
    (body,) = [body for body in receiver.bodies if body["name"] == "budget_used"]
    assert ("budget_used", "raised", "demo", None) == (
        body["name"],
        body["state"],
        body["tenant"],
        body["key"],
    )
    assert body["value"] >= 100
    assert "/hook?key=SECRET" == receiver.paths[0]


def test_each_alert_is_a_rule_of_prometheus() -> None:
    """What is posted is an alert of Prometheus, too: of the same name, as severe."""
    severities = {each.alert: each.labels["severity"] for each in rules()}
    for kind in KINDS:
        name = "Gateway" + kind.name.title().replace("_", "")
        assert severities.get(name) == kind.severity, name
