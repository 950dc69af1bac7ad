"""/etc/dspark/exporter.json: what this node is told. Parsed strictly: an unknown key or a wrong kind is an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, cast

SCHEMA = "dspark-ops/exporter/v1"
PORT = 9835


class ConfigError(ValueError):
    """The configuration cannot be used; says what was seen and what was expected."""


@dataclass(frozen=True)
class Rail:
    """One rail as this node sees it. hca: None where the site names none. mtu: of the site file, in bytes."""

    name: str
    netdev: str
    hca: str | None
    address: IPv4Address
    mtu: int


@dataclass(frozen=True)
class Config:
    """What is exported, and where. A source that is None is not configured and is not told of at all.

    interval_s: from one reading of a source to the next. stale_after_s: what is older is no longer exported.
    rank_arguments: words that the engine's argument list holds on this node and no other program's does.
    """

    site: str
    role: str
    listen: tuple[tuple[str, int], ...]
    interval_s: float
    stale_after_s: float
    rails: tuple[Rail, ...]
    memory_floor_bytes: int | None
    gpu: bool
    rank_arguments: tuple[str, ...]
    engine_url: str | None
    max_model_len: int | None
    supervisor_url: str | None
    gateway_url: str | None
    doctor_textfile: str | None


_TOP: dict[str, tuple[type, ...]] = {
    "schema": (str,),
    "site": (str,),
    "role": (str,),
    "listen": (list,),
    "interval_s": (int, float),
    "stale_after_s": (int, float),
    "rails": (list,),
    "memory_floor_bytes": (int, type(None)),
    "gpu": (bool,),
    "rank_arguments": (list,),
    "engine_url": (str, type(None)),
    "max_model_len": (int, type(None)),
    "supervisor_url": (str, type(None)),
    "gateway_url": (str, type(None)),
    "doctor_textfile": (str, type(None)),
}
_LISTEN: dict[str, tuple[type, ...]] = {"address": (str,), "port": (int,)}
_RAIL: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "netdev": (str,),
    "hca": (str, type(None)),
    "address": (str,),
    "mtu": (int,),
}


def parse_config(text: str) -> Config:
    """The configuration of a file's text.

    Raises:
        ConfigError: it is not JSON, or not of this shape.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration is not JSON: {error}") from None
    top = _shape(document, _TOP, "the configuration")
    if top["schema"] != SCHEMA:
        raise ConfigError(f"the configuration is {top['schema']!r}, expected {SCHEMA!r}: install the exporter again")
    if top["role"] not in ("head", "worker"):
        raise ConfigError(f"role is {top['role']!r}, expected head or worker")
    interval, stale = float(top["interval_s"]), float(top["stale_after_s"])
    if not 1 <= interval <= 3600 or not interval < stale <= 7200:
        raise ConfigError(
            f"interval_s {interval:g} and stale_after_s {stale:g}: expected 1 <= interval_s < stale_after_s"
        )
    listen = tuple(_listen(entry) for entry in top["listen"])
    if not listen:
        raise ConfigError("listen is empty, expected at least one address and port")
    words = top["rank_arguments"]
    if not all(isinstance(word, str) and word for word in words):
        raise ConfigError("rank_arguments: expected words")
    return Config(
        site=top["site"],
        role=top["role"],
        listen=listen,
        interval_s=interval,
        stale_after_s=stale,
        rails=tuple(_rail(entry) for entry in top["rails"]),
        memory_floor_bytes=top["memory_floor_bytes"],
        gpu=top["gpu"],
        rank_arguments=tuple(words),
        engine_url=_url(top["engine_url"], "engine_url"),
        max_model_len=top["max_model_len"],
        supervisor_url=_url(top["supervisor_url"], "supervisor_url"),
        gateway_url=_url(top["gateway_url"], "gateway_url"),
        doctor_textfile=top["doctor_textfile"],
    )


def _shape(value: object, keys: dict[str, tuple[type, ...]], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is {type(value).__name__}, expected an object")
    found = cast("dict[str, Any]", value)
    if set(found) != set(keys):
        missing, unknown = sorted(set(keys) - set(found)), sorted(set(found) - set(keys))
        raise ConfigError(f"{what}: missing keys {missing}, unknown keys {unknown}")
    for key, kinds in keys.items():
        item = found[key]
        # JSON's true is a number for Python; here it is none.
        if not isinstance(item, kinds) or (isinstance(item, bool) and bool not in kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ConfigError(f"{what}: {key} is {type(item).__name__}, expected {expected}")
    return found


def _listen(value: object) -> tuple[str, int]:
    entry = _shape(value, _LISTEN, "listen")
    address = _address(entry["address"], "listen")
    if address.is_unspecified or address.is_global:
        raise ConfigError(f"listen: {address} is reachable from outside, expected loopback or a private address")
    if not 0 <= entry["port"] <= 65535:
        raise ConfigError(f"listen: port {entry['port']}, expected 0 to 65535")
    return str(address), entry["port"]


def _rail(value: object) -> Rail:
    entry = _shape(value, _RAIL, "a rail")
    for key in ("netdev", "hca"):
        if entry[key] is not None and ("/" in entry[key] or entry[key] in ("", ".", "..")):
            raise ConfigError(f"a rail: {key} is {entry[key]!r}, expected the name of a device")
    return Rail(entry["name"], entry["netdev"], entry["hca"], _address(entry["address"], "a rail"), entry["mtu"])


def _address(text: str, what: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ConfigError(f"{what}: {text!r} is no IPv4 address") from None


def _url(text: str | None, key: str) -> str | None:
    if text is not None and not text.startswith("http://"):
        raise ConfigError(f"{key} is {text!r}, expected http://ADDRESS:PORT")
    return text.rstrip("/") if text is not None else None
