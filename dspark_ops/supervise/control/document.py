"""/etc/dspark/supervise.json: what the supervisor on the head is told, made from the site, the profile and a release.

The shape is that of `supervise.node.config`, the daemon's own parser, which is asked here too before anything leaves
this machine. `settings` has the thresholds under the names of `supervise.core.settings.Settings`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Documents
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.rank import LABEL
from dspark_ops.facts.service import api_url
from dspark_ops.facts.supervisor import SupervisorFacts
from dspark_ops.supervise.control.places import HOST_ALIAS, KEY, KNOWN_HOSTS
from dspark_ops.supervise.control.settings import settings_of
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.node.config import SCHEMA, Config

Wanted = Literal["serving", "stopped"]


@dataclass(frozen=True)
class Door:
    """The worker's sshd as the worker itself counts: the address that the operator's login came to, and its port."""

    address: str
    port: int


@dataclass(frozen=True)
class Adopted:
    """What the supervisor keeps running: both containers' documents by role; none before the first deploy."""

    wanted: Wanted = "stopped"
    release: str | None = None
    documents: Mapping[Role, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def words(self) -> str:
        """For a plan."""
        if self.release is None:
            return "nothing yet; the next deploy tells it what to keep"
        return f"release {self.release}" if self.wanted == "serving" else f"release {self.release} stopped"


NOTHING = Adopted()


@dataclass(frozen=True)
class Told:
    """What the file on the head says."""

    site: str
    adopted: Adopted
    door: Door


def adopt(documents: Documents) -> Adopted:
    """A release that is to run."""
    return Adopted("serving", documents.release, documents.per_role)


def kept_stopped(before: Adopted) -> Adopted:
    """The same release, and that it is not to run."""
    return Adopted("stopped", before.release, before.documents)


def render(loaded: LoadedSite, adopted: Adopted, door: Door, total_gib: Mapping[Role, float | None]) -> dict[str, Any]:
    """The file's content. total_gib: MemTotal of each node, None where it is not known. Pure.

    Raises:
        NoVerdictError: the daemon could not read it: a bug of ours.
    """
    site, canary = loaded.site, loaded.profile.canary
    ranks = {role: without_epoch(adopted.documents[role]) for role in ROLES} if adopted.documents else None
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "site": site.name,
        "wanted": adopted.wanted,
        "ranks": ranks,
        "api": {
            "url": api_url(site),
            "model": site.model.served_name,
            "canary": {
                "prompt": canary.prompt,
                "expect": canary.expect,
                "max_tokens": canary.max_tokens,
                "thinking": canary.thinking,
            },
        },
        "worker": {
            "addresses": [
                {"path": "management", "address": door.address},
                {"path": "fabric", "address": str(site.fabric.rails[0].worker.address.ip)},
            ],
            "user": "root",
            "port": door.port,
            "identity": KEY,
            "known_hosts": KNOWN_HOSTS,
            "host_key_alias": HOST_ALIAS,
        },
        "node_ports": [site.serve.api_port, site.serve.master_port],
        "settings": settings_of(loaded, total_gib),
        "webhook": site.supervise.alert_webhook,
    }
    try:
        Config.from_document(document)
        Settings.from_document(document["settings"])
    except ValueError as error:
        raise NoVerdictError(
            f"the supervisor could not read its configuration: {error}", hint="this is a bug of dspark-ops"
        ) from None
    return document


def read_told(text: str | None) -> Told | None:
    """What a file of the head says. None: it is not there, damaged, or of another version."""
    try:
        document = json.loads(text or "")
        config = Config.from_document(document)
    except (ValueError, RecursionError):
        return None
    management = [address for path, address in config.worker.addresses if path == "management"]
    if not management:
        return None
    ranks = {} if config.ranks is None else {role: dict(config.ranks[role]) for role in ROLES}
    return Told(
        site=config.site,
        adopted=Adopted(config.wanted, release_of(ranks), ranks),
        door=Door(management[0], config.worker.port),
    )


def kept_site(seen: SupervisorFacts) -> str | None:
    """The site that a supervisor keeps, by its configuration or else its own words; None where neither tells."""
    told = read_told(seen.config)
    return told.site if told is not None else seen.site


def refuse_another(site: str, keeps: str | None) -> None:
    """One head has one supervisor, of one site. keeps: the site that it keeps; None where that is not known.

    Raises:
        RefusedError: it is another site's.
    """
    if keeps is not None and keeps != site:
        raise RefusedError(
            f"the supervisor on the head keeps site {keeps!r}, not {site!r}; nothing was changed",
            hint="use that site's file; `dspark-ops supervise remove` with it takes the supervisor away",
        )


def release_of(documents: Mapping[Role, Mapping[str, Any]]) -> str | None:
    """The release that both documents bear; None for none."""
    return str(documents["head"]["labels"].get(f"{LABEL}release")) if documents else None


def without_epoch(document: Mapping[str, Any]) -> dict[str, Any]:
    """The epoch is the supervisor's own: every start of it has a new one."""
    labels = {key: value for key, value in document["labels"].items() if key != f"{LABEL}epoch"}
    return {**document, "labels": labels}
