"""How the bytes since the kept reading spread over the rails, without making any traffic."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, need, ok, warn
from dspark_ops.doctor.registry import node_rule
from dspark_ops.doctor.rules.nic import hardware, not_virtual
from dspark_ops.doctor.rules.nic_links import kept, since
from dspark_ops.fabric.counter_record import restarted_since
from dspark_ops.fabric.selection import split_ports
from dspark_ops.fabric.split import measure_split


@node_rule("fabric.rail_share")
def rail_share(view: NodeView) -> Outcome:
    """Every rail carried its share of what the running rank sent and received."""
    not_virtual(view.node)
    hardware(view.node)
    old, now = kept(view)
    view.running_rank()
    if restarted_since(view.node, old.read_at):
        raise NotApplicableError("the rank was started since the earlier reading")
    split = measure_split(split_ports(view.site, view.facts), {view.role: old.counters}, {view.role: now}).of(view.role)
    if split is None or split.reset is not None:
        raise NotApplicableError(f"the counters were reset: {split.reset if split else 'no reading'}")
    need(None if split.unreadable else split.devices, f"the bytes of the rails ({split.unreadable})")
    if not split.expected:
        raise NotApplicableError("no rail is ACTIVE and selected")
    total_mb = (split.sum_bytes or 0) / 1e6
    if total_mb < view.limits["floor"]:
        raise NotApplicableError(f"idle: {total_mb:.3g} MB since {since(old)}")
    fair = 100.0 / len(split.expected)
    shares = {device.hca: device.share_percent or 0.0 for device in split.expected}
    told = f"{', '.join(f'{name} {share:.1f} %' for name, share in shares.items())} since {since(old)}"
    expected = f"{fair:.3g} % each, give or take {view.limits['even']:g} points"
    if any(share < view.limits["starved"] for share in shares.values()):
        return fail(told, expected)
    if any(abs(share - fair) > view.limits["even"] for share in shares.values()):
        return warn(told, expected)
    return ok(told)
