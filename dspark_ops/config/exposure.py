"""The site's section `exposure`: what of the two nodes may be reached from beyond the loopback and the fabric.

It turns nothing on; `exposure apply` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Network = IPv4Network | IPv6Network
_ALLOWED = re.compile(
    r"(?:(?P<role>head|worker)/)?(?P<protocol>tcp|udp)/(?P<port>[1-9][0-9]{0,4})(?:@(?P<source>\S+))?"
)


@dataclass(frozen=True)
class AllowedPort:
    """One port that stays reachable. role None: on both nodes. source None: from everywhere."""

    role: Literal["head", "worker"] | None
    protocol: Literal["tcp", "udp"]
    port: int
    source: Network | None = None


class ExposureSite(BaseModel):
    """management_sources, gateway_sources: networks; None is everybody. gateway_port: None is the gateway's own.

    allow: further ports, as tcp/9100, head/udp/5000 or worker/tcp/3000@192.168.1.0/24. health_route: the one route that
    may answer without a key; None: none may.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    management_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    gateway_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    gateway_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    allow: tuple[str, ...] = ()
    health_route: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]*$")] | None = None

    @field_validator("management_sources", "gateway_sources")
    @classmethod
    def _sources_are_networks(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            network(text)
        return value

    @field_validator("allow")
    @classmethod
    def _allowed_are_ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            allowed_port(text)
        return value


def network(text: str) -> Network:
    """A network or one address.

    Raises:
        ValueError: in words for the operator.
    """
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            f"expected networks as 192.168.1.0/24 or fd00::/64, without bits beyond the prefix; {text!r} is none"
        ) from None


def allowed_port(text: str) -> AllowedPort:
    """One entry of `allow`.

    Raises:
        ValueError: in words for the operator.
    """
    match = _ALLOWED.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(
            f"expected ports as tcp/9100, head/udp/5000 or worker/tcp/3000@192.168.1.0/24; {text!r} is none"
        )
    source = network(match["source"]) if match["source"] is not None else None
    return AllowedPort(match["role"], match["protocol"], int(match["port"]), source)  # type: ignore[arg-type]
