"""The site's section `gateway`: local first, cloud second. It turns nothing on; `gateway install` does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

_Port = Annotated[int, Field(ge=1, le=65535)]
_TLS_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


class CloudSite(BaseModel):
    """The second backend: an OpenAI-compatible provider, paid by the token. No key stands here, only where it is.

    base_url: with its version, as https://api.example.com/v1. key_file: on the control host, plain or by ansible-vault.
    max_context: what the provider declares, prompt and answer together, in tokens. Prices in USD per million tokens.
    day_usd, hour_usd: what may be spent in any 24 hours and any 60 minutes. request_usd: what one request may cost at
    most. repeats: how often the same prompt may go to the cloud within an hour.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    model: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:/-]+$")]
    key_file: Path
    max_context: Annotated[int, Field(ge=16)]
    input_usd_per_million: Annotated[float, Field(ge=0, le=1000)]
    output_usd_per_million: Annotated[float, Field(ge=0, le=1000)]
    day_usd: Annotated[float, Field(gt=0, le=100_000)]
    hour_usd: Annotated[float, Field(gt=0, le=100_000)]
    request_usd: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    repeats: Annotated[int, Field(ge=1, le=1000)] = 20
    timeout_s: Annotated[int, Field(ge=5, le=3600)] = 600


class GatewaySite(BaseModel):
    """What clients talk to on the head: TLS edge, router and the shim before the engine.

    names: in the certificate that is made on the head; certificate and key: the operator's own instead, both as PEM.
    clients: the file of client names and key hashes, which `gateway key` keeps; None is
    `gateway-clients.json` beside the site file. max_context: what the local engine is
    taken to hold, in tokens; None is serve.max_model_len. answer_tokens: reserved for an answer where a request names
    no max_tokens. rate_per_minute, concurrent: of one client. local_only_suffix: behind the served name, it names the
    route that never leaves. status_fall: failed checks of the status port until the local engine counts as down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: IPv4Address = IPv4Address("0.0.0.0")  # noqa: S104 - the one port that is meant to be reached
    port: _Port = 8443
    router_port: _Port = 4000
    shim_port: _Port = 8018
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    certificate_key: Path | None = None
    clients: Path | None = None
    max_context: Annotated[int, Field(ge=16)] | None = None
    answer_tokens: Annotated[int, Field(ge=1, le=131_072)] = 8192
    body_mib: Annotated[int, Field(ge=1, le=256)] = 16
    rate_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 240
    concurrent: Annotated[int, Field(ge=1, le=1000)] = 32
    local_timeout_s: Annotated[int, Field(ge=30, le=7200)] = 1800
    local_only_suffix: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=30)] = "-local"
    status_fall: Annotated[int, Field(ge=1, le=30)] = 3
    cloud: CloudSite | None = None

    @field_validator("names")
    @classmethod
    def _names_are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _TLS_NAME.fullmatch(name):
                raise ValueError(f"expected host names or addresses, without port; {name!r} is none")
        return value


#: Why each key exists, for the commented example.
GATEWAY_WHY: Mapping[str, str] = {
    "gateway": "Local first, cloud second: what clients talk to on the head, once `dspark-ops gateway "
    "install` has run.",
    "gateway.address": "Where the edge listens on the head; all else of the gateway is on loopback.",
    "gateway.port": "The edge's port, TLS.",
    "gateway.router_port": "LiteLLM's, on loopback.",
    "gateway.shim_port": "Before the engine, on loopback: up and down follow the supervisor's word.",
    "gateway.names": "Host names and addresses for the certificate that is made on the head; empty: the head's own.",
    "gateway.certificate": "Your own certificate chain instead, as PEM on this machine.",
    "gateway.certificate_key": "Its key, as PEM on this machine, plain or by ansible-vault.",
    "gateway.clients": "Names and key hashes of the clients, kept by `dspark-ops gateway key`; null: "
    "gateway-clients.json beside this file.",
    "gateway.max_context": "Tokens of prompt and answer that go to the pair; null: serve.max_model_len.",
    "gateway.answer_tokens": "Reserved for the answer where a request names no max_tokens.",
    "gateway.body_mib": "A larger request is refused at the edge.",
    "gateway.rate_per_minute": "Requests of one client.",
    "gateway.concurrent": "Requests of one client at the same time.",
    "gateway.local_timeout_s": "A long prompt may take so long to its first token; a hang is the "
    "supervisor's business.",
    "gateway.local_only_suffix": "The served name with it is a route that never leaves the pair.",
    "gateway.status_fall": "Failed checks, one a second, until the pair counts as down; with 1 a restart of the "
    "supervisor cuts streams.",
    "gateway.cloud": "The second backend; leave it out and nothing ever leaves.",
    "gateway.cloud.base_url": "Of an OpenAI-compatible provider, with its version.",
    "gateway.cloud.model": "As the provider calls it; best the same model as the pair's.",
    "gateway.cloud.key_file": "Holds the provider's key, on this machine, plain (mode 0600) or by ansible-vault.",
    "gateway.cloud.max_context": "Tokens of prompt and answer that the provider takes.",
    "gateway.cloud.input_usd_per_million": "Price of a million prompt tokens.",
    "gateway.cloud.output_usd_per_million": "Price of a million answer tokens.",
    "gateway.cloud.day_usd": "What any 24 hours may cost; then nothing goes to the cloud.",
    "gateway.cloud.hour_usd": "What any 60 minutes may cost.",
    "gateway.cloud.request_usd": "What one request may cost at most.",
    "gateway.cloud.repeats": "The same prompt goes to the cloud so often in an hour: an agent's loop ends there.",
    "gateway.cloud.timeout_s": "How long the provider may be silent.",
}

#: Values shown, commented out, where there is no default to show.
GATEWAY_SHOWN: Mapping[str, object] = {
    "gateway.cloud.base_url": "https://api.example.com/v1",
    "gateway.cloud.model": "vendor/model",
    "gateway.cloud.key_file": "cloud.key",
    "gateway.cloud.max_context": 1_048_576,
    "gateway.cloud.input_usd_per_million": 0.15,
    "gateway.cloud.output_usd_per_million": 0.3,
    "gateway.cloud.day_usd": 10.0,
    "gateway.cloud.hour_usd": 2.0,
}
