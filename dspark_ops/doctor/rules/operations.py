"""What decides whether the pair is still well next month: logs, journals, upgrades, what a boot brings back."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, judge, need, ok
from dspark_ops.doctor.registry import node_rule
from dspark_ops.doctor.rules.hardware import on_hardware
from dspark_ops.doctor.rules.software import installed_drivers
from dspark_ops.facts.docker_settings import LOG_FOLDER
from dspark_ops.facts.rank import LABEL, RANK_CONTAINER
from dspark_ops.facts.unit_states import UPGRADE_UNITS, unit_named

_ENGINES = frozenset({"docker-ce", "docker.io", "containerd.io"})


@node_rule("operations.journal_kept")
def journal_kept(view: NodeView) -> Outcome:
    """The journal outlives a power cut, so that there is something to read afterwards."""
    on_hardware(view.node, "the journal")
    if need(need(view.node.kernel, "the kernel").journal_kept, "/var/log/journal"):
        return ok("the journal is kept in /var/log/journal")
    return fail("the journal is kept in memory only", "a journal in /var/log/journal")


def _unattended(view: NodeView) -> list[str]:
    """The units that upgrade packages by themselves, when all that it takes is active."""
    units = [unit_named(need(view.node.units, "the units"), name) for name in UPGRADE_UNITS]
    active = [unit.name for unit in units if unit is not None and unit.active == "active"]
    return active if len(active) == len(UPGRADE_UNITS) else []


@node_rule("operations.upgrades_while_serving")
def upgrades_while_serving(view: NodeView) -> Outcome:
    """Nothing upgrades the driver under a running engine."""
    drivers = installed_drivers(need(view.node.packages, "the packages"))
    if not drivers:
        raise NotApplicableError("the driver is no Debian package")
    active, moving = _unattended(view), [package.name for package in drivers if not package.held]
    if active and moving:
        return fail(f"{' and '.join(active)} may upgrade {moving[0]}", "the driver held, or no unattended upgrade")
    return ok("the driver is held" if not moving else "no unattended upgrade runs")


@node_rule("operations.engine_upgrades")
def engine_upgrades(view: NodeView) -> Outcome:
    """No unattended upgrade of Docker stops the rank."""
    packages = need(view.node.packages, "the packages")
    moving = [p.name for p in packages if p.name in _ENGINES and p.installed and not p.held]
    if not moving:
        return ok("Docker is held, or is no Debian package")
    active = _unattended(view)
    if not active:
        return ok("no unattended upgrade runs")
    if need(need(view.node.docker_settings, "the Engine's settings").live_restore, "live-restore"):
        return ok("containers outlive a restart of the Engine (live-restore)")
    return fail(
        f"{' and '.join(active)} may upgrade {moving[0]}, which stops the rank",
        "Docker held, live-restore on, or no unattended upgrade",
    )


@node_rule("operations.docker_at_boot")
def docker_at_boot(view: NodeView) -> Outcome:
    """The Docker Engine comes back with the machine."""
    units = need(view.node.units, "the units")
    found = [u for u in (unit_named(units, name) for name in ("docker.service", "docker.socket")) if u is not None]
    if not found:
        raise NotApplicableError("Docker is no unit of this system")
    if any(unit.enablement == "enabled" for unit in found):
        return ok("the Engine starts with the machine")
    return fail("neither docker.service nor docker.socket is enabled", "the Engine enabled at boot")


@node_rule("operations.container_logs")
def container_logs(view: NodeView) -> Outcome:
    """No container's log eats the disk."""
    folder = need(need(view.node.docker, "the Docker Engine").root_dir, "the Engine's directory")
    if not LOG_FOLDER.startswith(folder.rstrip("/") + "/"):
        raise NotApplicableError(f"the Engine keeps its logs in {folder}, which is not looked at")
    limit = view.limits["max_size"]
    logs = need(view.node.container_logs, "the logs of the containers")
    names = {row.id: row.name for row in view.node.containers or ()}
    large = [
        f"the log of {names.get(log.container, log.container[:12])} takes {log.size_bytes / 1024**3:.1f} GiB"
        for log in logs
        if log.size_bytes / 1024**3 > limit
    ]
    return judge(large, f"{len(logs)} logs, none of them large", f"at most {limit:g} GiB a log")


@node_rule("operations.leftover_containers")
def leftover_containers(view: NodeView) -> Outcome:
    """An earlier attempt left no container of ours behind."""
    rows = need(view.node.containers, "the containers")
    left = [
        f"{row.name} is {row.state}"
        for row in rows
        if row.labels.get(f"{LABEL}site") == view.site.name and row.name != RANK_CONTAINER
    ]
    return judge(left, "no other container of this site", f"{RANK_CONTAINER} alone")


@node_rule("operations.rank_log_readable")
def rank_log_readable(view: NodeView) -> Outcome:
    """What the rank says is kept where it can be read after it died."""
    view.rank()
    driver = need(need(view.node.rank_settings, "the rank's container").log_driver, "the rank's log driver")
    if driver == "none":
        return fail("the rank's log driver is none: nothing that it says is kept", "json-file, local or journald")
    return ok(f"the log goes to {driver}")
