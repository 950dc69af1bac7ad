"""Who gives the rails their address and MTU after the next boot: one owner for each, and exactly the wanted."""

from __future__ import annotations

from dspark_ops.config.models import RailSite
from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, judge, need, ok, warn
from dspark_ops.doctor.registry import node_rule
from dspark_ops.facts.persistence import Owner


@node_rule("fabric.mtu_persisted")
def mtu_persisted(view: NodeView) -> Outcome:
    """Some file or profile gives every rail its MTU and its address again after a boot."""
    wanted = view.site.fabric.mtu
    problems, by = [], set()
    for rail in view.site.fabric.rails:
        end = rail.of(view.role)
        lasting = [o for o in _owners(view, rail) if not o.volatile]
        addresses = [address for owner in lasting for address in owner.addresses]
        # netplan reads its files by name; the last one that names an MTU wins, and addresses add up.
        mtus = [owner.mtu for owner in lasting if owner.mtu is not None]
        who = "; ".join(dict.fromkeys(owner.label for owner in lasting))
        if not lasting:
            problems.append(f"nothing configures {end.netdev} (rail {rail.name}) after a boot")
        elif not mtus or mtus[-1] != wanted:
            problems.append(f"{who} gives {end.netdev} MTU {mtus[-1] if mtus else 'none (1500)'}")
        elif str(end.address) not in addresses:
            problems.append(f"{who} does not give {end.netdev} the address {end.address}")
        by |= {owner.label for owner in lasting}
    fine = f"{', '.join(sorted(by))}: every rail gets its address and MTU {wanted}"
    return judge(problems, fine, f"a file or profile that gives each rail its address and MTU {wanted}")


@node_rule("fabric.persistence_owner")
def persistence_owner(view: NodeView) -> Outcome:
    """Every rail has one owner: dspark-ops, or another one that gives exactly the wanted."""
    files = need(view.node.netplan, "the netplan files")
    problems = [f"{file.path} is not valid netplan" for file in files if file.devices is None]
    modes: dict[str, None] = {}
    seen: dict[str, None] = {}
    for rail in view.site.fabric.rails:
        owners = _owners(view, rail)
        problems += _conflict(view, rail, [*owners, *_sleeping(view, rail)])
        seen |= {f"{o.label}{'' if o.ours else f' ({o.maker}), adopted as it is'}": None for o in owners}
        named = {o.path for o in owners}
        modes |= {f"{f.path} has mode {f.mode:04o}": None for f in files if f.path in named and (f.mode or 0) & 0o077}
    expected = f"one owner of each rail, dspark-ops or one that gives exactly the site's address and MTU {_mtu(view)}"
    if problems:
        return fail("; ".join(dict.fromkeys([*problems, *modes])), expected)
    if modes:
        return warn("; ".join(modes), "mode 0600: netplan files may hold passwords, and netplan says so at every run")
    if not seen:
        raise NotApplicableError("nothing configures a rail after a boot")
    return ok(f"one owner of each rail: {', '.join(seen)}")


def _owners(view: NodeView, rail: RailSite) -> list[Owner]:
    """The owners that have an effect: a file that only names the port, and what NetworkManager makes up, have none."""
    netdev = rail.of(view.role).netdev
    owners = need(view.node.owners_of(netdev), f"the files and profiles that configure {netdev}")
    return [owner for owner in owners if owner.idle is None and not owner.silent and not owner.automatic]


def _sleeping(view: NodeView, rail: RailSite) -> list[Owner]:
    """Profiles that give something else, from the day their manager runs: installing a desktop is enough."""
    end = rail.of(view.role)
    owners = view.node.owners_of(end.netdev) or ()
    return [owner for owner in owners if owner.dormant and not owner.gives_exactly(end.address, _mtu(view))]


def _conflict(view: NodeView, rail: RailSite, owners: list[Owner]) -> list[str]:
    end = rail.of(view.role)
    place = f"{end.netdev} (rail {rail.name})"
    if len(owners) > 1:
        told = ", ".join(map(_said, owners))
        managers = {o.manager for o in owners}
        word = "are fighting over" if len(managers) > 1 else "all configure"
        return [f"{len(owners)} owners {word} {place}: {told}"]
    if owners and not owners[0].ours and not owners[0].gives_exactly(end.address, _mtu(view)):
        return [f"{_said(owners[0])}, to {place}; wanted are {end.address}, MTU {_mtu(view)}"]
    return []


def _said(owner: Owner) -> str:
    return f"{owner.label} ({owner.maker}) {owner.gives}{f' ({owner.idle} now)' if owner.idle else ''}"


def _mtu(view: NodeView) -> int:
    return view.site.fabric.mtu
