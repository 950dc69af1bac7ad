"""What `ethtool` prints of a port: speed, cable, negotiation, flow control, error correction, driver, firmware."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact, whole_number

_SPEED = re.compile(r"(\d{1,7})Mb/s")
_LINK = re.compile(r"(yes|no)(?: \((.+)\))?")
_FIRMWARE = re.compile(r"(\S+)(?: \(([A-Za-z0-9]+)\))?")
_LANE = re.compile(r"rx_err_lane_(\d)_phy")
_SWITCH = {"on": True, "off": False}


class PortSettings(Fact):
    """`ethtool IF`. speed_mbps: None also for "Unknown!". reason: why there is no link. fec: the advertised modes.

    autoneg: whether the port negotiates its speed; None where it does not say.
    """

    speed_mbps: int | None = None
    lanes: int | None = None
    port: str | None = None
    link: bool | None = None
    reason: str | None = None
    fec: tuple[str, ...] = ()
    autoneg: bool | None = None


class PortPause(Fact):
    """`ethtool -a IF`: whether the port heeds (rx) and sends (tx) pause frames."""

    rx: bool | None = None
    tx: bool | None = None


class PortDriver(Fact):
    """`ethtool -i IF`. psid: the board that the firmware is built for."""

    driver: str | None = None
    version: str | None = None
    firmware: str | None = None
    psid: str | None = None
    bus: str | None = None


class PortModule(Fact):
    """`ethtool -m IF`: the plug."""

    identifier: str | None = None
    transceiver: str | None = None


def parse_settings(text: str | None) -> PortSettings | None:
    """None when the text holds none of the settings."""
    said = _pairs(text)
    speed = _SPEED.fullmatch(said.get("Speed", ""))
    link = _LINK.fullmatch(said.get("Link detected", ""))
    fec = said.get("Advertised FEC modes", "")
    if not {"Speed", "Link detected", "Port"} & said.keys():
        return None
    return PortSettings(
        speed_mbps=int(speed[1]) if speed else None,
        lanes=whole_number(said.get("Lanes")),
        port=said.get("Port") or None,
        link=link[1] == "yes" if link else None,
        reason=link[2] if link else None,
        fec=() if fec == "Not reported" else tuple(fec.split()),
        autoneg=_SWITCH.get(said.get("Auto-negotiation", "").lower()),
    )


def parse_pause(text: str | None) -> PortPause | None:
    """None when the text tells neither direction."""
    said = _pairs(text)
    rx, tx = (_SWITCH.get(said.get(key, "").lower()) for key in ("RX", "TX"))
    return None if rx is None and tx is None else PortPause(rx=rx, tx=tx)


def parse_fec(text: str | None) -> str | None:
    """The error correction in force, of `ethtool --show-fec IF`: RS, BaseR, Off …; None when the text does not tell."""
    said = _pairs(text)
    return said.get("Active FEC encoding") or said.get("Active FEC encodings") or None


def parse_driver(text: str | None) -> PortDriver | None:
    """None when the text is not that."""
    said = _pairs(text)
    if "driver" not in said:
        return None
    firmware = _FIRMWARE.fullmatch(said.get("firmware-version", ""))
    return PortDriver(
        driver=said["driver"] or None,
        version=said.get("version") or None,
        firmware=firmware[1] if firmware else None,
        psid=firmware[2] if firmware else None,
        bus=said.get("bus-info") or None,
    )


def parse_module(text: str | None) -> PortModule | None:
    """None when the text is not that."""
    said = _pairs(text)
    if "Identifier" not in said and "Transceiver type" not in said:
        return None
    return PortModule(identifier=said.get("Identifier") or None, transceiver=said.get("Transceiver type") or None)


def parse_statistics(text: str | None) -> dict[str, int] | None:
    """Counter to value, from `ethtool -S IF`; None when there is none."""
    numbers = {name: whole_number(value) for name, value in _pairs(text).items()}
    return {name: value for name, value in numbers.items() if value is not None} or None


def worst_lane(statistics: dict[str, int]) -> int | None:
    """The lane with the most errors: when one stands out, the cable is bad or badly seated. None without any error."""
    lanes = {int(match[1]): value for name, value in statistics.items() if (match := _LANE.fullmatch(name))}
    return max(lanes, key=lambda lane: lanes[lane]) if any(lanes.values()) else None


def _pairs(text: str | None) -> dict[str, str]:
    """`key: value` lines; of a repeated key the first one."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            found.setdefault(key.strip(), value.strip())
    return found
