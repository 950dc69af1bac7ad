"""A gateway as a site would have it, and the policy's own settings of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.gateway import CloudSite, GatewaySite
from dspark_ops.gateway.clients import Client, key_hash
from dspark_ops.gateway.plugin.settings import Policy, parse
from dspark_ops.gateway.render import policy_document
from dspark_ops.gateway.settings import GatewaySettings, Places


def cloud_site(**more: Any) -> CloudSite:
    told: dict[str, Any] = {
        "base_url": "https://cloud.example/v1",
        "model": "vendor/flash",
        "key_file": Path("/keys/cloud.key"),
        "max_context": 200_000,
        "input_usd_per_million": 0.15,
        "output_usd_per_million": 0.3,
        "day_usd": 10.0,
        "hour_usd": 2.0,
        "request_usd": 1.0,
    }
    return CloudSite(**(told | more))


def settings_with(cloud: CloudSite | None, **more: Any) -> GatewaySettings:
    clients = (
        Client(name="alice", key_sha256=key_hash("dsk-alice")),
        Client(name="private", key_sha256=key_hash("dsk-private"), local_only=True),
    )
    return GatewaySettings(GatewaySite(cloud=cloud, **more), "flash", 1_048_576, clients)


def policy_with(cloud: CloudSite | None, **more: Any) -> Policy:
    return parse(policy_document(settings_with(cloud, **more), Places()))


@pytest.fixture
def settings() -> GatewaySettings:
    return settings_with(cloud_site())


@pytest.fixture
def policy() -> Policy:
    return policy_with(cloud_site())
