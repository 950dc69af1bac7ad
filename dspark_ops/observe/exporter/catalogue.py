"""Every series of the exporter, said once: its name, kind, labels and meaning. Nothing else may be exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "info", "histogram"]

#: The states of the supervisor: one is 1, all others are 0.
STATES = ("starting", "gate", "serving", "suspect", "draining", "stopping", "cooling", "failed")
#: Xids after which a restart harms; each is exported from the start, so that the first one is an increase.
FATAL_XIDS = (48, 79, 94, 95, 119, 140, 154)
#: Bounds in seconds: a death is told in seconds, a wedge in minutes; a pair is loaded in minutes.
DETECT_BOUNDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
RECOVER_BOUNDS = (30.0, 60.0, 120.0, 180.0, 300.0, 450.0, 600.0, 900.0, 1800.0)

_RAIL = ("rail", "netdev", "hca")


@dataclass(frozen=True)
class Series:
    """One metric. name: of its sample; the family of a counter or an info has it without its ending."""

    name: str
    kind: Kind
    source: str
    text: str
    labels: tuple[str, ...] = ()


def _gauge(source: str, name: str, text: str, *labels: str) -> Series:
    return Series(f"dspark_{name}", "gauge", source, text, labels)


def _counter(source: str, name: str, text: str, *labels: str) -> Series:
    return Series(f"dspark_{name}_total", "counter", source, text, labels)


def _info(source: str, name: str, text: str, *labels: str) -> Series:
    return Series(f"dspark_{name}_info", "info", source, text, labels)


_OWN = (
    _info("exporter", "exporter", "The exporter and where it runs.", "version", "site", "role"),
    _gauge("exporter", "exporter_start_timestamp_seconds", "When the exporter started."),
    _gauge("exporter", "source_up", "1 while a source was read lately and could be told.", "source"),
    _gauge("exporter", "source_age_seconds", "Since a source was last read with success; absent: never.", "source"),
    _gauge("exporter", "source_duration_seconds", "How long the last reading of a source took.", "source"),
    _counter("exporter", "source_errors", "Readings of a source that failed.", "source"),
)
_SUPERVISOR = (
    _gauge("supervisor", "supervisor_state", "1 for the state of the pair's supervisor.", "state"),
    _info(
        "supervisor", "supervisor_epoch", "The epoch of the pair's present start, and its release.", "epoch", "release"
    ),
    _gauge("supervisor", "supervisor_state_since_timestamp_seconds", "When the present state began."),
    _gauge("supervisor", "supervisor_held", "1 while a hold keeps the supervisor from acting."),
    _gauge("supervisor", "supervisor_hold_left_seconds", "Until the hold ends by itself."),
    _gauge("supervisor", "supervisor_latched", "1 while the supervisor gave up and waits for a person."),
    _gauge("supervisor", "supervisor_may_serve", "1 while requests may be given to the local engine."),
    _gauge("supervisor", "supervisor_step_age_seconds", "Since the supervisor's last decision."),
    _gauge("supervisor", "supervisor_state_saved", "0 while the supervisor cannot write its state down."),
    _gauge(
        "supervisor", "supervisor_alerts", "Alerts that the supervisor gives now; page: at once, at any hour.", "page"
    ),
    _gauge("supervisor", "canary_ok", "1 while the last completion of the canary was right; absent: none lately."),
    _counter(
        "supervisor",
        "supervisor_restarts",
        "Starts of the pair by its supervisor since that was installed.",
        "cause",
    ),
    _gauge("supervisor", "supervisor_last_detect_seconds", "From the last fault to its detection."),
    _gauge("supervisor", "supervisor_last_recover_seconds", "From the last detection to serving again."),
    Series(
        "dspark_supervisor_detect_seconds",
        "histogram",
        "supervisor",
        "From a fault to its detection, of the recoveries that this exporter saw.",
    ),
    Series(
        "dspark_supervisor_recover_seconds",
        "histogram",
        "supervisor",
        "From a detection to serving again, of the recoveries that this exporter saw.",
    ),
)
_RAILS = (
    _info("rails", "rail", "A rail of the site file.", *_RAIL, "address", "cage", "half"),
    _gauge("rails", "rail_present", "1 for a rail whose network device exists.", *_RAIL),
    _gauge("rails", "rail_carrier", "1 for a rail with a carrier; absent: the device is down and cannot tell.", *_RAIL),
    _counter("rails", "rail_carrier_changes", "How often the carrier came or went.", *_RAIL),
    _gauge("rails", "rail_mtu_bytes", "MTU of the network device.", *_RAIL),
    _gauge("rails", "rail_wanted_mtu_bytes", "MTU of the site file.", *_RAIL),
    _gauge("rails", "rail_speed_bits_per_second", "Speed of the cage; absent without a cable.", *_RAIL),
    _gauge("rails", "rail_port_state_id", "State of the RDMA port: 1 down, 2 init, 3 armed, 4 active.", *_RAIL),
    _gauge("rails", "rail_port_physical_state_id", "Physical state: 2 polling, 3 disabled, 5 link up.", *_RAIL),
    _gauge("rails", "rail_gid_index", "Index of the RoCE v2 entry of the rail's own IPv4 address.", *_RAIL),
    _gauge("rails", "rail_roce_v2_ipv4_gids", "RoCE v2 entries with an IPv4 address; one is sound.", *_RAIL),
    _counter("rails", "rail_transmit_bytes", "Bytes sent by RDMA, as the port counts them.", *_RAIL),
    _counter("rails", "rail_receive_bytes", "Bytes received by RDMA, as the port counts them.", *_RAIL),
    _gauge("rails", "rail_share_ratio", "Share of the rails' bytes, both directions, over the last interval.", *_RAIL),
    _gauge("rails", "rail_balance_ratio", "Least busy rail to busiest over the last interval; absent: too few bytes."),
    _gauge("rails", "rail_interval_bytes", "Bytes of all rails, both directions, over the last interval."),
    _gauge("rails", "rail_pcie_width_lanes", "Lanes that the PCIe function of the rail uses.", *_RAIL),
    _gauge("rails", "rail_pcie_speed_transfers_per_second", "Speed of its PCIe link, transfers a lane.", *_RAIL),
)
_RDMA = (
    _counter(
        "rdma",
        "rdma_counter",
        "A counter of an RDMA port; class: fail and warn are errors when they grow.",
        "hca",
        "port",
        "rail",
        "set",
        "counter",
        "class",
    ),
    _gauge("rdma", "rdma_setting", "A value of an RDMA port that is no count.", "hca", "port", "set", "setting"),
)
_PCIE = (_counter("pcie", "pcie_aer_errors", "Errors that a PCIe function reported.", "device", "driver", "severity"),)
_MEMORY = (
    _gauge("memory", "memory_available_bytes", "MemAvailable, the only number to trust on unified memory."),
    _gauge("memory", "memory_total_bytes", "MemTotal."),
    _gauge("memory", "memory_floor_bytes", "The floor of the site file."),
    _gauge("memory", "memory_floor_margin_bytes", "MemAvailable above the floor; negative below it."),
)
_GPU = (
    _gauge("gpu", "gpu_power_watts", "Power draw.", "gpu"),
    _gauge("gpu", "gpu_utilization_ratio", "Utilization, 0 to 1.", "gpu"),
    _gauge("gpu", "gpu_temperature_celsius", "Temperature.", "gpu"),
    _gauge("gpu", "gpu_sm_clock_hertz", "Clock of the multiprocessors.", "gpu"),
    _gauge("gpu_holders", "gpu_holders", "Processes that compute on the GPU; owner: ours or foreign.", "owner"),
)
_KERNEL = (
    _counter("kernel", "xid", "Xid errors in the kernel's messages since the boot.", "xid"),
    _counter("kernel", "kernel_event", "Kernel messages of a kind since the boot.", "event"),
    _counter("kernel", "kernel_messages_lost", "Kernel messages that were overwritten before they were read."),
)
_ENGINE = (
    _gauge("engine", "engine_start_timestamp_seconds", "When the process that answers for the engine started."),
    _gauge("engine", "kv_pool_tokens", "Tokens that the KV cache of this start holds; basis: how it is told.", "basis"),
    _gauge("engine", "kv_pool_blocks", "Blocks of the KV cache."),
    _gauge("engine", "kv_block_size_tokens", "Tokens of a block."),
    _gauge("engine", "acceptance_ratio", "Accepted of drafted tokens over the last interval; absent: no drafts."),
    _gauge(
        "engine",
        "acceptance_position_ratio",
        "Drafts whose token of a position was accepted, over the last interval.",
        "position",
    ),
    _gauge("engine", "acceptance_drafts", "Drafts of the last interval."),
    _gauge("engine", "steps_per_second", "Engine steps with outputs over the last interval."),
    _gauge("engine", "tokens_per_step", "Generated tokens of a step over the last interval; absent: no step."),
    _gauge("engine", "engine_interval_seconds", "How long the last interval of the engine's figures was."),
    _gauge("model", "model_max_len", "Window of the served model, in tokens.", "model"),
    _gauge("model", "model_wanted_max_len", "Window of the site file, in tokens."),
)
_GATEWAY = (
    _counter(
        "gateway",
        "gateway_requests",
        "Requests that the gateway answered; backend: local, cloud or none.",
        "backend",
        "reason",
        "status",
    ),
    _counter("gateway", "gateway_backend_answers", "Requests that a backend answered, told from zero on.", "backend"),
    _counter(
        "gateway",
        "gateway_failover_answers",
        "Requests that the cloud answered although the pair's window holds them, told from zero on.",
    ),
    _gauge("gateway", "gateway_cloud_share_ratio", "Cloud's share of what a model answered in the last interval."),
    _gauge(
        "gateway", "gateway_spend_usd", "Spent for the cloud in the last hour and day, reservations in it.", "window"
    ),
    _gauge("gateway", "gateway_budget_usd", "What may be spent in any hour and day.", "window"),
    _gauge("gateway", "gateway_ledger_usable", "1 while the books can be kept; without them the cloud is closed."),
)
_DOCTOR = (
    _gauge("doctor", "doctor_last_results", "Results of the doctor's last run by status.", "status"),
    _gauge("doctor", "doctor_last_failing", "1 for a check that failed and is not ignored.", "id", "node", "severity"),
    _gauge("doctor", "doctor_last_run_timestamp_seconds", "When the doctor's last run ended."),
)

SERIES: dict[str, Series] = {
    series.name: series
    for group in (
        _OWN,
        _SUPERVISOR,
        _RAILS,
        _RDMA,
        _PCIE,
        _MEMORY,
        _GPU,
        _KERNEL,
        _ENGINE,
        _GATEWAY,
        _DOCTOR,
    )
    for series in group
}
