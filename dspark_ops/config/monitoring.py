"""The site's section `monitoring`: how long is kept, and who is told. `monitor install` brings it to the pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Port = Annotated[int, Field(ge=1024, le=65535)]


class EmailSite(BaseModel):
    """Alerts by mail. password_file: on the control host, holds the password and nothing else; None: no login."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    smarthost: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]
    sender: Annotated[str, Field(pattern=r"^[^\s@]+@[^\s@]+$")]
    to: Annotated[str, Field(pattern=r"^[^\s@]+@[^\s@]+$")]
    user: Annotated[str, Field(min_length=1)] | None = None
    password_file: Path | None = None


class MonitoringSite(BaseModel):
    """Prometheus and Alertmanager on the head, a node exporter on both. It installs nothing.

    retention_days, retention_gib: whichever is reached first. webhook_file, dead_man_file: files on the control host
    that hold one URL each; the URL is the secret, so it is not in the site file. None: nobody is told. kv_pool_tokens:
    what the KV cache of the certified boot holds; None: the largest of the last seven days. runbook_base: what stands
    before `docs/runbooks/...` in an alert; None: nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retention_days: Annotated[int, Field(ge=1, le=365)] = 15
    retention_gib: Annotated[int, Field(ge=1, le=1024)] = 4
    scrape_every_s: Annotated[int, Field(ge=5, le=60)] = 15
    prometheus_port: _Port = 9090
    alertmanager_port: _Port = 9093
    node_exporter_port: _Port = 9100
    webhook_file: Path | None = None
    dead_man_file: Path | None = None
    email: EmailSite | None = None
    kv_pool_tokens: Annotated[int, Field(ge=1)] | None = None
    runbook_base: Annotated[str, Field(pattern=r"^https?://\S+/$")] | None = None

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = (self.prometheus_port, self.alertmanager_port, self.node_exporter_port)
        if len(set(ports)) != len(ports):
            raise ValueError("expected three different ports for Prometheus, Alertmanager and the node exporter")
        return self


MONITORING_WHY: Mapping[str, str] = {
    "monitoring": "Prometheus and Alertmanager on the head, a node exporter on both. `dspark-ops monitor install` "
    "brings them there.",
    "monitoring.retention_days": "How long series are kept, unless retention_gib is reached first.",
    "monitoring.retention_gib": "How much of the head's disk they may take.",
    "monitoring.scrape_every_s": "From one reading of all targets to the next.",
    "monitoring.prometheus_port": "On the head's loopback.",
    "monitoring.alertmanager_port": "On the head's loopback.",
    "monitoring.node_exporter_port": "On the head's loopback, and on the worker's address of the first rail.",
    "monitoring.webhook_file": "A file on this machine that holds the URL to which alerts are posted; null: nowhere. "
    "Such a URL is a secret, so it is not in this file.",
    "monitoring.dead_man_file": "The same for the heartbeat: a service outside the pair that calls when it stops.",
    "monitoring.email": "Alerts by mail; leave it out for none.",
    "monitoring.email.smarthost": "HOST:PORT of the mail server; it must speak TLS.",
    "monitoring.email.sender": "From whom the mails are.",
    "monitoring.email.to": "Who gets them.",
    "monitoring.email.user": "For a server that wants a login.",
    "monitoring.email.password_file": "A file on this machine that holds its password.",
    "monitoring.kv_pool_tokens": "Tokens in the KV cache of the boot that was certified; an alert tells when a later "
    "one holds less. null: the largest of the last seven days.",
    "monitoring.runbook_base": "What stands before docs/runbooks/ in an alert, as the address of your copy of the "
    "docs; null: nothing. It ends with a slash.",
}
MONITORING_SHOWN: Mapping[str, Any] = {
    "monitoring.email.smarthost": "mail.example.net:587",
    "monitoring.email.sender": "pair@example.net",
    "monitoring.email.to": "you@example.net",
}
