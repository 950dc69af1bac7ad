"""One systemd service, of the system manager or of a user's own: whether it runs, whether a boot starts it."""

from __future__ import annotations

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading

_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "FragmentPath", "Restart", "TriggeredBy")


class UnitFacts(Fact):
    """A unit as `systemctl show` tells. None: not said. triggered_by: sockets, timers and paths that start it."""

    name: str
    load: str | None = None
    active: str | None = None
    enablement: str | None = None
    fragment: str | None = None
    restart: str | None = None
    triggered_by: tuple[str, ...] = ()


def unit_probe(name: str, uid: int | None = None) -> Command:
    """Ask the system manager, or that user's own without a login of his."""
    show: tuple[str, ...] = ("systemctl", "show", f"--property={','.join(_PROPERTIES)}", name)
    if uid is not None:
        numbers = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        show = ("setpriv", *numbers, "env", f"XDG_RUNTIME_DIR=/run/user/{uid}", "systemctl", "--user", *show[1:])
    return Command(probe_id(name, uid), show, root=True)


def probe_id(name: str, uid: int | None) -> str:
    """What the probe of a unit is called."""
    return f"unit.{'' if uid is None else uid}.{name}"


def parse_show(text: str | None) -> UnitFacts | None:
    """The properties, one `Name=value` a line; None when the unit's own name is not among them."""
    found = dict(line.split("=", 1) for line in (text or "").splitlines() if "=" in line)
    if not found.get("Id"):
        return None
    return UnitFacts(
        name=found["Id"],
        load=found.get("LoadState") or None,
        active=found.get("ActiveState") or None,
        enablement=found.get("UnitFileState") or None,
        fragment=found.get("FragmentPath") or None,
        restart=found.get("Restart") or None,
        triggered_by=tuple(found.get("TriggeredBy", "").split()),
    )


def read_unit(reading: NodeReading, name: str, uid: int | None) -> UnitFacts | None:
    """The unit of a reading; None when its manager could not be asked."""
    return parse_show(reading.get(probe_id(name, uid)).text())
