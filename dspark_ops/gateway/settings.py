"""What a gateway is rendered from: the site's section with what it leaves open filled in. Pure, but for one reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dspark_ops.config.gateway import CloudSite, GatewaySite
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import ConfigError
from dspark_ops.gateway.clients import Client, read_clients

CLIENTS_FILE = "gateway-clients.json"


@dataclass(frozen=True)
class Places:
    """Directories and programs on the machine that the gateway runs on, and the ports of its neighbours.

    configuration: rendered files. state: the ledger. credentials: where the installer keeps the 0600 files that systemd
    hands to the units. user, router_user: who HAProxy and LiteLLM run as.
    """

    configuration: PurePosixPath = field(default=PurePosixPath("/etc/dspark/gateway"))
    state: PurePosixPath = field(default=PurePosixPath("/var/lib/dspark-gateway"))
    credentials: PurePosixPath = field(default=PurePosixPath("/etc/dspark/gateway/credentials"))
    program: PurePosixPath = field(default=PurePosixPath("/usr/local/lib/dspark/gateway.pyz"))
    venv: PurePosixPath = field(default=PurePosixPath("/usr/local/lib/dspark/gateway"))
    haproxy: PurePosixPath = field(default=PurePosixPath("/usr/sbin/haproxy"))
    user: str = "dspark-edge"
    router_user: str = "dspark-gateway"
    engine_port: int = 8000
    status_port: int = 8017


@dataclass(frozen=True)
class GatewaySettings:
    """site: the section. max_context: of the local engine. health_route: needs no key; None: there is none."""

    site: GatewaySite
    served_name: str
    max_context: int
    clients: tuple[Client, ...] = ()
    health_route: str | None = None

    @property
    def local_only_name(self) -> str:
        """The model name of the route that never leaves."""
        return self.served_name + self.site.local_only_suffix


def clients_path(loaded: LoadedSite) -> Path:
    """The file of clients of a site."""
    return loaded.site.gateway.clients or loaded.path.parent / CLIENTS_FILE


def settings_of(loaded: LoadedSite) -> GatewaySettings:
    """The settings of a site.

    Raises:
        ConfigError: fields that do not go together, or a file of clients that cannot be read.
    """
    site = loaded.site
    gateway = site.gateway
    _ports_differ(gateway, site.serve.api_port)
    if (gateway.certificate is None) != (gateway.certificate_key is None):
        raise ConfigError(
            "gateway.certificate and gateway.certificate_key: one is set and the other is not",
            hint="set both, or neither: then a certificate is made on the head",
        )
    if gateway.cloud is not None:
        _cloud_is_sound(gateway.cloud)
    limit = gateway.max_context or site.serve.max_model_len
    if limit > site.serve.max_model_len:
        raise ConfigError(
            f"gateway.max_context is {limit}, and the engine is started with serve.max_model_len "
            f"{site.serve.max_model_len}",
            hint="set it to null, or to what the engine takes or less",
        )
    return GatewaySettings(
        site=gateway,
        served_name=site.model.served_name,
        max_context=limit,
        clients=read_clients(clients_path(loaded)),
        health_route=site.exposure.health_route,
    )


def places_of(loaded: LoadedSite) -> Places:
    """The usual places, with the engine's port of the site."""
    return Places(engine_port=loaded.site.serve.api_port)


def _ports_differ(gateway: GatewaySite, api_port: int) -> None:
    ports = {
        "gateway.port": gateway.port,
        "gateway.router_port": gateway.router_port,
        "gateway.shim_port": gateway.shim_port,
        "serve.api_port": api_port,
        "the supervisor's status port": Places().status_port,
    }
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if port in seen:
            raise ConfigError(f"{seen[port]} and {name} are both {port}; the head listens on both", hint="change one")
        seen[port] = name


def _cloud_is_sound(cloud: CloudSite) -> None:
    host = cloud.base_url.split("://", 1)[1].split("/", 1)[0].rsplit(":", 1)[0]
    if cloud.base_url.startswith("http://") and host not in ("127.0.0.1", "localhost"):
        raise ConfigError(
            f"gateway.cloud.base_url is {cloud.base_url}: the key would travel in the clear", hint="use https"
        )
    if cloud.hour_usd > cloud.day_usd:
        raise ConfigError(
            f"gateway.cloud.hour_usd {cloud.hour_usd:g} is more than day_usd {cloud.day_usd:g}",
            hint="an hour is part of a day: make it smaller, or the day larger",
        )
    if cloud.request_usd > cloud.hour_usd:
        raise ConfigError(
            f"gateway.cloud.request_usd {cloud.request_usd:g} is more than hour_usd {cloud.hour_usd:g}: such a request "
            "could never be sent",
            hint="make it smaller, or the hour larger",
        )
