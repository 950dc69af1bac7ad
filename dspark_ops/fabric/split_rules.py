"""Whether a measured split is what the cables can give. Pure: the numbers of `split`, findings out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dspark_ops.config.models import Role, Site
from dspark_ops.fabric.error_counters import severity_of
from dspark_ops.fabric.split import DeviceSplit, NodeSplit, SplitResult
from dspark_ops.report.models import Finding, Remedy

# Enough that the sampling and the control traffic do not decide: a test of ours, and a look at a serving pair.
PROOF_FLOOR_BYTES = 1_000_000_000
LIVE_FLOOR_BYTES = 100_000_000
EVEN_POINTS = 5.0
STARVED_PERCENT = 10.0
STRAY_PERCENT = 1.0
MATCH_PERCENT = 1.0
# Below this a rail carried nothing but control traffic, and a ratio of it says nothing.
MATCH_FLOOR_BYTES = 10_000_000
HALF_LINK_GBPS = (
    110  # 105 to 111.7 Gb/s measured over one Gen5 x4 link (graham33/nixos-dgx-spark; eugr/spark-vllm-docker)
)

COUNTED = "fabric.split"
DEVICES = "fabric.split_devices"
HALVES = "fabric.split_halves"
ONE_HALF = "fabric.split_one_half"
STRAY = "fabric.split_stray"
MATCH = "fabric.split_match"
ERRORS = "fabric.link_errors"

_SHOW_NCCL = ("dspark-ops", "fabric", "show", "--nccl")
_BOTH_HALVES = (
    "Give NCCL both twins of every plugged cage: NCCL_IB_HCA must list a roceP2p1... device beside each rocep1... one "
    "(`fabric show --nccl` prints the list of each node); then restart both ranks in a window."
)

_LINK = Remedy(
    text="Check MTU 9000 at both ends (`dspark-ops fabric verify`), reseat the cable, reboot both nodes; then measure "
    "again.",
    command=("dspark-ops", "fabric", "verify"),
    remedy_class="M",
)
_UNREAD = Remedy(
    text="Read /sys/class/infiniband/*/ports/1/hw_counters there by hand; without it the NIC or its driver is gone.",
    remedy_class="M",
)


def judge_split(result: SplitResult, *, floor_bytes: int, look_alikes: Iterable[Role] = ()) -> tuple[Finding, ...]:
    """The split of each node. Nothing is judged of a node whose readings do not compare, or that was idle."""
    imitated = frozenset(look_alikes)
    found: list[Finding] = []
    for node in result.nodes:
        about = list(_node(node, floor_bytes))
        found += [f.model_copy(update={"look_alike": node.role in imitated}) for f in about]
    return tuple(found)


def _node(node: NodeSplit, floor_bytes: int) -> Iterable[Finding]:
    why = _inconclusive(node, floor_bytes)
    if why is not None:
        yield Finding(
            id=COUNTED,
            node=node.role,
            status="unknown",
            title="The bytes of the rails can be compared",
            observed=f"inconclusive: {why[0]}",
            expected=f"at least {floor_bytes / 1e6:g} MB between two readings of the same counters",
            remedy=Remedy(text=why[1], remedy_class="M"),
        )
        return
    one_half = _one_half(node)
    if one_half is not None:
        yield one_half
    yield _devices(node, caused=one_half is not None)
    halves = _halves(node, caused=one_half is not None)
    if halves is not None:
        yield halves
    yield _stray(node)


def _inconclusive(node: NodeSplit, floor_bytes: int) -> tuple[str, str] | None:
    if node.reset is not None:
        return f"counters reset: {node.reset}", "Measure again; a reload or a reboot between two readings voids both."
    if node.unreadable is not None:
        packets = sum((d.xmit_packets or 0) + (d.rcv_packets or 0) for d in node.devices)
        seen = f" ({packets} packets in both directions)" if packets else ""
        return (
            f"{node.unreadable}{seen}",
            "Soft-RoCE counts no bytes, so it has no split to read; on a ConnectX-7 look at its ports/1/counters.",
        )
    if not node.expected:
        return "no rail is ACTIVE and selected", "Look at the cables and the ports: `dspark-ops fabric show`."
    if node.sum_bytes is None or node.sum_bytes < floor_bytes:
        return (
            f"idle: {(node.sum_bytes or 0) / 1e6:.3g} MB over all rails",
            "Measure while the pair answers a long prompt, or let `dspark-ops fabric test` make the traffic.",
        )
    return None


def _one_half(node: NodeSplit) -> Finding | None:
    """Both PCIe halves have an ACTIVE rail, and one of them carries next to nothing."""
    railed = [d for d in node.devices if d.rail is not None and d.half is not None and d.sum_bytes is not None]
    usable = {half for half in node.halves if any(d.half == half and _live(d) for d in railed)}
    if usable != {"A", "B"}:
        return None
    full = max(node.halves, key=lambda half: node.halves[half])
    empty: Literal["A", "B"] = "B" if full == "A" else "A"
    if node.halves[empty] >= STARVED_PERCENT:
        return None
    # The rank was told to leave that half out: it works as told, at half speed. Otherwise planned rails are dead.
    told = not any(d.expected for d in railed if d.half == empty)
    cages = {cage: share for cage, share in node.cages.items() if share >= STARVED_PERCENT}
    looks = f"; between the cables it looks even ({_percents(node.cages, 'cage ')})" if len(cages) > 1 else ""
    why = ", and NCCL_IB_HCA of the running rank leaves that half out" if told else ""
    return Finding(
        id=ONE_HALF,
        node=node.role,
        status="warn" if told else "fail",
        title="Traffic uses both PCIe halves of the NIC",
        observed=f"half {full} carries {node.halves[full]:.0f} %, half {empty} {node.halves[empty]:.0f} %{looks}: "
        f"every byte crosses one PCIe x4 link, about {HALF_LINK_GBPS} Gb/s at most{why}",
        expected="45 to 55 % on each half",
        remedy=Remedy(text=_BOTH_HALVES, command=_SHOW_NCCL, remedy_class="C"),
    )


def _live(device: DeviceSplit) -> bool:
    return device.active is True


def _devices(node: NodeSplit, *, caused: bool) -> Finding:
    fair = 100.0 / len(node.expected)
    shares = {d.hca: d.share_percent or 0.0 for d in node.expected}
    worst: Literal["ok", "warn", "fail"] = "ok"
    if any(abs(share - fair) > EVEN_POINTS for share in shares.values()):
        worst = "warn"
    if any(share < STARVED_PERCENT for share in shares.values()):
        worst = "fail"
    return Finding(
        id=DEVICES,
        node=node.role,
        status=worst,
        title="Every expected device carries its share",
        observed=_percents(shares),
        expected=f"{fair:.3g} % each, give or take {EVEN_POINTS:g} points",
        remedy=None
        if worst == "ok"
        else Remedy(
            text="Compare NCCL_IB_HCA of the running rank with the rails, and the channel count of its log (an odd "
            "count cannot be even).",
            command=_SHOW_NCCL,
            remedy_class="C",
        ),
        caused_by=ONE_HALF if caused and worst != "ok" else None,
    )


def _halves(node: NodeSplit, *, caused: bool) -> Finding | None:
    """Judged where as many expected devices sit on one half as on the other; else even halves are not to be had."""
    count = {half: sum(d.half == half for d in node.expected) for half in ("A", "B")}
    if not caused and (count["A"] != count["B"] or count["A"] == 0):
        return None
    even = all(abs(share - 50.0) <= EVEN_POINTS for share in node.halves.values()) and len(node.halves) == 2
    return Finding(
        id=HALVES,
        node=node.role,
        status="ok" if even else "warn",
        title="The two PCIe halves carry the same",
        observed=_percents(node.halves, "half "),
        expected="45 to 55 % on each half",
        remedy=None if even else Remedy(text=_BOTH_HALVES, command=_SHOW_NCCL, remedy_class="C"),
        caused_by=ONE_HALF if caused and not even else None,
    )


def _stray(node: NodeSplit) -> Finding:
    strays = {
        d.hca: d.share_percent
        for d in node.devices
        if not d.expected and d.share_percent is not None and d.share_percent > STRAY_PERCENT
    }
    return Finding(
        id=STRAY,
        node=node.role,
        status="warn" if strays else "ok",
        title="Nothing goes over devices that are not expected to carry",
        observed=_percents(strays) if strays else "nothing",
        expected=f"at most {STRAY_PERCENT:g} %",
        remedy=Remedy(
            text="Find who uses that device: another rank, another NCCL_IB_HCA, or a rail that the site does not name.",
            command=("dspark-ops", "fabric", "show"),
            remedy_class="M",
        )
        if strays
        else None,
    )


def judge_match(site: Site, result: SplitResult, *, look_alike: bool = False) -> Finding | None:
    """What one end of a rail sent is what the other end received; None when only one node was asked."""
    head, worker = result.of("head"), result.of("worker")
    if head is None or worker is None:
        return None
    # The two nodes are read at the same time, but not for exactly as long.
    longer, shorter = (
        max(head.interval_s or 0, worker.interval_s or 0),
        min(head.interval_s or 0, worker.interval_s or 0),
    )
    allowed = MATCH_PERCENT + (100.0 * (longer - shorter) / longer if shorter > 0 else 0.0)
    seen, bad = [], []
    for rail in site.fabric.rails if head.comparable and worker.comparable else ():
        ours, theirs = (next((d for d in n.devices if d.rail == rail.name), None) for n in (head, worker))
        for out, into in ((ours, theirs), (theirs, ours)):
            if out is None or into is None or out.xmit_bytes is None or into.rcv_bytes is None:
                continue
            most = max(out.xmit_bytes, into.rcv_bytes)
            if most < MATCH_FLOOR_BYTES:
                continue
            off = 100.0 * abs(out.xmit_bytes - into.rcv_bytes) / most
            text = f"{rail.name} {out.role} to {into.role}: {off:.2g} % apart"
            seen.append(text)
            if off > allowed:
                bad.append(f"{text} ({out.xmit_bytes / 1e6:.0f} MB sent, {into.rcv_bytes / 1e6:.0f} MB received)")
    if not seen:
        return Finding(
            id=MATCH,
            node="pair",
            status="skip",
            severity="advised",
            title="What one end of a rail sends is what the other end receives",
            observed=f"no rail carried {MATCH_FLOOR_BYTES / 1e6:g} MB in a direction, or its bytes cannot be compared",
            look_alike=look_alike,
        )
    return Finding(
        id=MATCH,
        node="pair",
        status="warn" if bad else "ok",
        title="What one end of a rail sends is what the other end receives",
        observed="; ".join(bad or seen),
        expected=f"within {allowed:.2g} % on every rail",
        severity="advised",
        remedy=Remedy(
            text="The rails are not paired as the site says, or packets are lost: look at the cables and the errors.",
            command=("dspark-ops", "fabric", "show"),
            remedy_class="M",
        )
        if bad
        else None,
        look_alike=look_alike,
    )


def judge_errors(result: SplitResult, *, look_alikes: Iterable[Role] = ()) -> tuple[Finding, ...]:
    """The error counters of each node, by their growth between the readings."""
    imitated = frozenset(look_alikes)
    return tuple(_errors(node, look_alike=node.role in imitated) for node in result.nodes if node.reset is None)


def _errors(node: NodeSplit, *, look_alike: bool) -> Finding:
    by_class: dict[str, list[str]] = {"fail": [], "warn": [], "info": []}
    for device in node.devices:
        for name, growth in device.errors.items():
            by_class[severity_of(name) or "info"].append(f"{device.hca} {name} +{growth}")
    unread = [d.hca for d in node.expected if d.error_counters is False]
    status: Literal["ok", "warn", "fail", "unknown"] = "ok"
    if by_class["fail"]:
        status = "fail"
    elif unread or not node.devices:
        status = "unknown"
    elif by_class["warn"]:
        status = "warn"
    told = by_class["fail"] + by_class["warn"]
    unknown = f"no error counters on {', '.join(unread)}" if unread else "no RDMA device was read"
    return Finding(
        id=ERRORS,
        node=node.role,
        status=status,
        title="No error counter grows under load",
        observed="; ".join(told) or (unknown if status == "unknown" else "none grew"),
        expected="no growth between the readings",
        remedy=None if status == "ok" else _UNREAD if status == "unknown" else _LINK,
        evidence=("for information: " + "; ".join(by_class["info"]))[:400] if by_class["info"] else None,
        look_alike=look_alike,
    )


def _percents(shares: dict[str, float] | dict[int, float] | dict[Literal["A", "B"], float], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{key} {share:.1f} %" for key, share in shares.items())
