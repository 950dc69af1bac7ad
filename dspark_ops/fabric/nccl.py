"""The NCCL environment of one rank, rendered from the rails, each variable with its reason. Pure.

Meanings as in NVIDIA/nccl 2.30 docs/userguide/source/env.rst; the values for one and for two cables are the sets that
public two-Spark kits ran with (MiaAI-Lab DeepSeek-v4-Flash-DSpark-2x-DGX-Spark; Reederey87 dgx-spark-2x).
"""

from __future__ import annotations

from dataclasses import dataclass

from dspark_ops.config.models import Role, Site

GID_INDEX = "NCCL_IB_GID_INDEX"
SOCKET_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


@dataclass(frozen=True)
class Setting:
    """One variable. value None: truly unset, absent from the environment; never an empty string."""

    name: str
    value: str | None
    reason: str


def nccl_settings(site: Site, role: Role) -> tuple[Setting, ...]:
    """Every variable that decides how the ranks of this site meet, for one node, the unset ones included."""
    rails = site.fabric.rails
    first = rails[0].of(role)
    two_cables = len(rails) == 4
    return (
        _hca(site, role),
        Setting(
            "NCCL_SOCKET_IFNAME",
            f"={first.netdev}",
            f"bootstrap over rail {rails[0].name}, not the LAN; exact name, because without = it is a prefix",
        ),
        Setting("GLOO_SOCKET_IFNAME", first.netdev, "Gloo does not read NCCL's variable and would go over the LAN"),
        Setting("TP_SOCKET_IFNAME", first.netdev, "the tensor-parallel group's own variable; one name, per node"),
        Setting("VLLM_HOST_IP", str(first.address.ip), f"this node's address on rail {rails[0].name}"),
        Setting("NCCL_NET", "IB", "fail instead of falling back to sockets, which are ten times slower"),
        _gid_index(site, role),
        Setting("NCCL_IB_ADDR_FAMILY", "AF_INET", "the GID of the rail's IPv4 address, never an fe80 one"),
        Setting("NCCL_IB_ROCE_VERSION_NUM", "2", "RoCE v2 entries only"),
        *_merge(two_cables),
        Setting(
            "NCCL_IB_SUBNET_AWARE_ROUTING",
            None,
            "unset: every rail is a subnet of its own; 1 is for twins that share one",
        ),
        Setting("NCCL_NET_GDR_LEVEL", None, "unset: GB10 has no GPUDirect RDMA, and GDR 0 in the log is normal"),
    )


def nccl_environment(site: Site, role: Role) -> dict[str, str]:
    """The variables that are set; what is unset is absent."""
    return {setting.name: setting.value for setting in nccl_settings(site, role) if setting.value is not None}


def _hca(site: Site, role: Role) -> Setting:
    ends = [(rail.name, rail.of(role).hca) for rail in site.fabric.rails]
    missing = [name for name, hca in ends if hca is None]
    if missing:
        return Setting(
            "NCCL_IB_HCA",
            None,
            f"unset: the site names no RDMA device for {', '.join(missing)}; NCCL takes all it finds",
        )
    names = ",".join(hca for _, hca in ends if hca)
    return Setting("NCCL_IB_HCA", f"={names}", f"exactly the {len(ends)} rails; both PCIe halves of every cable")


def _gid_index(site: Site, role: Role) -> Setting:
    pinned = site.fabric.gid_index
    if pinned is None:
        return Setting(
            GID_INDEX, None, "unset: NCCL finds the entry of each device; indexes move, and devices can differ"
        )
    return Setting(GID_INDEX, str(pinned), f"pinned by fabric.gid_index; must hold on every device of the {role}")


def _merge(two_cables: bool) -> tuple[Setting, ...]:
    if not two_cables:
        return (
            Setting("NCCL_IB_MERGE_NICS", None, "unset: the twins of one cable sit in two PCI domains and do not fuse"),
            Setting("NCCL_NETDEVS_POLICY", None, "unset: two devices are used as they are"),
            Setting("NCCL_CROSS_NIC", None, "unset: NCCL's own choice"),
        )
    return (
        Setting("NCCL_IB_MERGE_NICS", "0", "four rails named one by one: no fusing of the two cages of a PCIe half"),
        Setting("NCCL_NETDEVS_POLICY", "ALL", "all four rails, not just as many as NCCL thinks one GPU needs"),
        Setting("NCCL_CROSS_NIC", "0", "a rail cannot reach another rail"),
    )
