"""`gateway status`: both units, the certificate's end and the router's own numbers, in one round trip to the head."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.load import LoadedSite
from dspark_ops.exitcodes import ExitCode
from dspark_ops.transport.base import Command, Http, NodeReading
from dspark_ops.transport.readonly import GATEWAY_CERTIFICATE
from dspark_ops.transport.ssh import open_runner

_UNITS = ("dspark-edge.service", "dspark-gateway.service")
_STATE = Command("gateway.units", ("systemctl", "show", "--property=Id,LoadState,ActiveState,SubState", *_UNITS))
_ENDS = Command("gateway.certificate", ("openssl", "x509", "-in", GATEWAY_CERTIFICATE, "-noout", "-enddate"), root=True)
_LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
UnitState = Literal["active", "inactive", "absent", "unknown"]


class Answers(BaseModel):
    """How often one backend answered for one reason since the router's start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    reason: str
    status: str
    count: int


class Money(BaseModel):
    """Spent and allowed in a window, in USD; spent None: the ledger could not be read, and the cloud is closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: str
    spent_usd: float | None
    budget_usd: float


class GatewayStatus(BaseModel):
    """The document of `gateway status`. certificate_ends None: it could not be read."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["dspark-ops/gateway-status/v1"] = Field("dspark-ops/gateway-status/v1", alias="schema")
    site: str
    reached: bool
    edge: UnitState
    router: UnitState
    router_answers: bool
    certificate_ends: datetime | None = None
    money: tuple[Money, ...] = ()
    answers: tuple[Answers, ...] = ()
    exit_code: int


def gateway_status(loaded: LoadedSite) -> GatewayStatus:
    """Look at the gateway of a site."""
    runner = open_runner(loaded.site, "head")
    numbers = Http("gateway.numbers", f"http://127.0.0.1:{loaded.site.gateway.router_port}/metrics")
    try:
        reading = runner.read((_STATE, _ENDS, numbers))
    finally:
        runner.close()
    return judged(loaded.site.name, reading, datetime.now(UTC))


def judged(site: str, reading: NodeReading, now: datetime) -> GatewayStatus:
    """A reading as a status. Pure.

    0: all is well. 1: a unit does not run or answer, or the certificate has ended. 3: it cannot be told.
    """
    if not reading.reachable:
        code = int(ExitCode.NO_VERDICT)
        return GatewayStatus(
            site=site, reached=False, edge="unknown", router="unknown", router_answers=False, exit_code=code
        )
    units = unit_states(reading.get(_STATE.id).text())
    text = reading.get("gateway.numbers").text()
    states = [units.get(name, "unknown") for name in _UNITS]
    ends = certificate_end(reading.get(_ENDS.id).text())
    bad = text is None or {"inactive", "absent"}.intersection(states) or (ends is not None and ends <= now)
    code = ExitCode.OK
    if "unknown" in states or ends is None:
        code = ExitCode.NO_VERDICT
    if bad and "unknown" not in states:
        code = ExitCode.VERDICT_BAD
    return GatewayStatus(
        site=site,
        reached=True,
        edge=states[0],
        router=states[1],
        router_answers=text is not None,
        certificate_ends=ends,
        money=_money(text or ""),
        answers=_answers(text or ""),
        exit_code=int(code),
    )


def certificate_end(text: str | None) -> datetime | None:
    """What `openssl x509 -enddate` says; None where it says something else."""
    found = re.fullmatch(r"notAfter=(.+ GMT)", (text or "").strip())
    try:
        return None if found is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(found[1]), UTC)
    except ValueError:
        return None


def unit_states(text: str | None) -> dict[str, UnitState]:
    """`systemctl show` of several units; a unit that is not loaded is absent."""
    states: dict[str, UnitState] = {}
    for block in (text or "").split("\n\n"):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in told:
            active: UnitState = "active" if told.get("ActiveState") == "active" else "inactive"
            states[told["Id"]] = "absent" if told.get("LoadState") == "not-found" else active
    return states


def render(status: GatewayStatus) -> str:
    """The status for people."""
    if not status.reached:
        return "the head could not be asked"
    lines = [f"edge    {status.edge}", f"router  {status.router}{'' if status.router_answers else ', does not answer'}"]
    ends = "unknown" if status.certificate_ends is None else f"{status.certificate_ends:%Y-%m-%d %H:%M} UTC"
    lines.append(f"certificate ends {ends}")
    for money in status.money:
        spent = "unknown" if money.spent_usd is None else f"{money.spent_usd:.4f}"
        lines.append(f"{money.window:7} {spent} of {money.budget_usd:g} USD spent in the cloud")
    lines += [f"{a.count:7} x {a.backend} {a.status} ({a.reason})" for a in status.answers]
    return "\n".join(lines)


def _samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return [(dict(_LABEL.findall(m["labels"] or "")), float(m["value"])) for m in found if m and m["name"] == name]


def _money(text: str) -> tuple[Money, ...]:
    spent = {labels["window"]: value for labels, value in _samples(text, "dspark_gateway_cloud_spent_usd")}
    budgets = _samples(text, "dspark_gateway_cloud_budget_usd")
    return tuple(
        Money(window=labels["window"], spent_usd=spent.get(labels["window"]), budget_usd=value)
        for labels, value in budgets
    )


def _answers(text: str) -> tuple[Answers, ...]:
    samples = _samples(text, "dspark_gateway_answers_total")
    return tuple(Answers(**labels, count=int(value)) for labels, value in samples)
