"""The fabric as text: a drawing of the cables, a table of the ports, the NCCL environment with its reasons."""

from __future__ import annotations

from dspark_ops.config.models import ROLES, Role
from dspark_ops.fabric.view import CableView, FabricView, PortView, RailView

_WIRE = 13


def render_fabric(view: FabricView) -> str:
    """The whole document for people. Pure."""
    hosts = {node.role: node.host for node in view.nodes}
    blocks = [_drawing(view, hosts), _table(view)]
    if view.nccl is not None:
        blocks += [_nccl(view, role, hosts) for role in ROLES]
    blocks.append("\n".join(f"note: {note}" for note in view.notes))
    return "\n\n".join(block for block in blocks if block)


def _drawing(view: FabricView, hosts: dict[Role, str]) -> str:
    width = max((len(port.netdev) for port in view.ports), default=0)
    left = 16 + width
    lines = [f"{'head ' + hosts.get('head', ''):<{left + _WIRE + 4}}worker {hosts.get('worker', '')}"]
    drawn: set[tuple[Role, str]] = set()
    for number, cable in enumerate(view.cables, start=1):
        rails = [rail for rail in view.rails if _rides(view, rail, cable)]
        for index, rail in enumerate(rails):
            drawn |= {("head", rail.head), ("worker", rail.worker)}
            ours, theirs = _port(view, "head", rail.head), _port(view, "worker", rail.worker)
            told = ""
            if index == 0:
                crossed = ", CROSSED" if cable.crossed else ""
                told = f"   cable {number} ({', '.join(cable.evidence)}){crossed}"
            silent = "-" if ours.carrier is not True or theirs.carrier is not True else "="
            wire = f"o{rail.name.center(_WIRE - 2, silent)}o"
            unplanned = "  not in the site" if rail.planned is False else ""
            cage_l = f"cage {ours.cage}" if index == 0 else ""
            cage_r = f"cage {theirs.cage}" if index == 0 else ""
            lines.append(
                f"{cage_l:<8}half {ours.half}  {ours.netdev:<{width}} {wire} {theirs.netdev:<{width}}  "
                f"half {theirs.half}  {cage_r:<6}{told}{unplanned}".rstrip()
            )
    for role in ROLES:
        loose = [port for port in view.ports_of(role) if (role, port.netdev) not in drawn]
        for port in loose:
            state = {True: "carrier, far end not known", False: "no cable", None: "carrier unknown"}[port.carrier]
            text = f"cage {port.cage}  half {port.half}  {port.netdev:<{width}}  {state}"
            lines.append(text if role == "head" else " " * (left + _WIRE + 4) + text)
    return "\n".join(lines)


def _rides(view: FabricView, rail: RailView, cable: CableView) -> bool:
    head = _port(view, "head", rail.head)
    worker = _port(view, "worker", rail.worker)
    return (head.cage, worker.cage) == (cable.head_cage, cable.worker_cage)


def _port(view: FabricView, role: Role, netdev: str) -> PortView:
    return next(port for port in view.ports if port.role == role and port.netdev == netdev)


def _table(view: FabricView) -> str:
    names = {("head", rail.head): rail.name for rail in view.rails}
    names |= {("worker", rail.worker): rail.name for rail in view.rails}
    rows = [("node", "rail", "port", "address", "mtu", "rdma", "state", "gid", "pcie", "after a boot")]
    for port in view.ports:
        gids = ["/".join(map(str, indexes)) if indexes else "none" for indexes in port.gid_indexes.values()]
        rows.append(
            (
                port.role,
                names.get((port.role, port.netdev), "-"),
                port.netdev,
                " ".join(port.addresses) or "-",
                _shown(port.mtu),
                port.hca or "-",
                (port.rdma_state or "?").rpartition(" ")[2],
                " ".join(gids) or "-",
                port.pcie or "?",
                port.owner or "?",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _shown(value: int | None) -> str:
    return "?" if value is None else str(value)


def _nccl(view: FabricView, role: Role, hosts: dict[Role, str]) -> str:
    settings = (view.nccl or {}).get(role, ())
    width = max((len(_assignment(s.name, s.value)) for s in settings), default=0)
    lines = [f"NCCL environment of the {role} ({hosts.get(role, '')})"]
    lines += [f"  {_assignment(s.name, s.value):<{width}}  # {s.reason}" for s in settings]
    return "\n".join(lines)


def _assignment(name: str, value: str | None) -> str:
    return f"{name} unset" if value is None else f"{name}={value}"
