"""What the monitoring of a site looks like: who is scraped where, and what the role is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import ConfigError
from dspark_ops.facts.service import api_url
from dspark_ops.observe.exporter_config import SUPERVISOR_URL, exporter_address


@dataclass(frozen=True)
class Target:
    """One address that Prometheus on the head asks. address: ADDRESS:PORT as seen from the head."""

    address: str
    role: Role


@dataclass(frozen=True)
class Job:
    """Targets of one kind; every series of them carries its name."""

    name: str
    targets: tuple[Target, ...]


def node_exporter_address(site: Site, role: Role) -> str:
    """`ADDRESS:PORT` of a node's exporter: the head's loopback, or the worker's end of the first rail."""
    address = "127.0.0.1" if role == "head" else str(site.fabric.rails[0].worker.address.ip)
    return f"{address}:{site.monitoring.node_exporter_port}"


def jobs(site: Site, *, supervisor: bool) -> tuple[Job, ...]:
    """All that is scraped. The names are those that the rules and dashboards ask for.

    supervisor: whether it is installed on the head; what is not there is not asked, or it would be missing for ever.
    """
    wanted = site.monitoring

    def on_head(name: str, address: str) -> Job:
        return Job(name, (Target(address, "head"),))

    return (
        on_head("vllm", urlsplit(api_url(site)).netloc),
        Job("dspark", tuple(Target(exporter_address(site, role), role) for role in ROLES)),
        *([on_head("dspark-supervisor", urlsplit(SUPERVISOR_URL).netloc)] if supervisor else []),
        Job("node", tuple(Target(node_exporter_address(site, role), role) for role in ROLES)),
        on_head("prometheus", f"127.0.0.1:{wanted.prometheus_port}"),
        on_head("alertmanager", f"127.0.0.1:{wanted.alertmanager_port}"),
    )


def monitoring_variables(site: Site, *, supervisor: bool) -> dict[str, object]:
    """What the role is told on both nodes. Of secrets only the files that hold them. supervisor: as for `jobs`."""
    wanted = site.monitoring
    email = wanted.email
    return {
        "monitoring_site": site.name,
        "monitoring_jobs": [
            {
                "name": job.name,
                "targets": [{"address": target.address, "role": target.role} for target in job.targets],
            }
            for job in jobs(site, supervisor=supervisor)
        ],
        "monitoring_scrape_every_s": wanted.scrape_every_s,
        "monitoring_retention_days": wanted.retention_days,
        "monitoring_retention_gib": wanted.retention_gib,
        "monitoring_prometheus_port": wanted.prometheus_port,
        "monitoring_alertmanager_port": wanted.alertmanager_port,
        "monitoring_kv_pool_tokens": wanted.kv_pool_tokens,
        "monitoring_runbook_base": wanted.runbook_base or "",
        "monitoring_webhook_file": _path(wanted.webhook_file),
        "monitoring_dead_man_file": _path(wanted.dead_man_file),
        "monitoring_email": None
        if email is None
        else {
            "smarthost": email.smarthost,
            "sender": email.sender,
            "to": email.to,
            "user": email.user,
            "password_file": _path(email.password_file),
        },
    }


def monitoring_host_variables(site: Site) -> dict[Role, Mapping[str, object]]:
    """What the role is told on each node alone."""
    return {
        role: {
            "monitoring_server": role == "head",
            "monitoring_node_exporter_address": node_exporter_address(site, role),
        }
        for role in ROLES
    }


def check_secrets(site: Site) -> None:
    """Each file that holds a secret can be read and holds what it is for; its content is never told.

    Raises:
        ConfigError: naming the file and its key.
    """
    wanted = site.monitoring
    for key, path in (("webhook_file", wanted.webhook_file), ("dead_man_file", wanted.dead_man_file)):
        if path is not None:
            text = _read(path, f"monitoring.{key}")
            if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc or len(text.split()) != 1:
                raise ConfigError(
                    f"monitoring.{key}: {path} does not hold one http or https URL", hint="write the URL alone into it"
                )
    email = wanted.email
    if email is None:
        return
    if email.password_file is not None:
        _read(email.password_file, "monitoring.email.password_file")
    if (email.user is None) != (email.password_file is None):
        raise ConfigError(
            "monitoring.email: a login is user and password_file together, and one of them is missing",
            hint="give both, or neither for a server that wants no login",
        )


def _read(path: Path, key: str) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConfigError(
            f"{key}: {path} cannot be read: {reason}", hint="name a file that is there, or null"
        ) from None
    if not text:
        raise ConfigError(f"{key}: {path} is empty", hint="write the secret into it, or set the key to null")
    return text


def _path(path: Path | None) -> str:
    return "" if path is None else str(path)
