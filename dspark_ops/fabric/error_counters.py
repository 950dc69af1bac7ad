"""Which RDMA counters tell of trouble when they grow. Their value means nothing: only the growth between two readings.

Classes after NVIDIA's "Understanding mlx5 Linux Counters and Status Parameters" and an unhealthy sample (NVIDIA/nccl
issue 394). `*_cqe_flush_error` grows at every orderly teardown, `lifespan` is a period in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Severity = Literal["fail", "warn", "info"]

FAIL = frozenset(
    {
        "out_of_sequence",
        "packet_seq_err",
        "local_ack_timeout_err",
        "rnr_nak_retry_err",
        "implied_nak_seq_err",
        "link_downed",
        "symbol_error",
        "port_rcv_errors",
        "rx_icrc_encapsulated",
    }
)
WARN = frozenset(
    {
        "roce_adp_retrans",
        "roce_adp_retrans_to",
        "port_xmit_discards",
        "out_of_buffer",
        "req_cqe_error",
        "resp_cqe_error",
        "rx_discards_phy",
        "rx_symbol_err_phy",
    }
)
INFO = frozenset(
    {
        "np_ecn_marked_roce_packets",
        "np_cnp_sent",
        "rp_cnp_handled",
        "port_xmit_wait",
        "rx_corrected_bits_phy",
        "duplicate_request",
    }
)
# A setting, not a count: it may go down, and a change of it means that the driver was loaded anew.
GAUGES = frozenset({"lifespan"})


def severity_of(name: str) -> Severity | None:
    """The class of a counter; None for one that counts ordinary work, or is not known."""
    if name in FAIL:
        return "fail"
    if name in WARN or name.startswith(("roce_slow_restart", "rx_err_lane_")):
        return "warn"
    return "info" if name in INFO else None


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The classed counters that grew, by how much; one that was not in the first reading cannot be compared."""
    return {
        name: value - before[name]
        for name, value in sorted(after.items())
        if severity_of(name) is not None and name in before and value > before[name]
    }
