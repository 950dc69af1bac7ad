"""/etc/dspark/supervise.json as the daemon reads it: what is wanted of the pair and how it is reached.

`supervise.control.document` makes the content on the control host and Ansible writes the file; this end parses it with
nothing but the standard library, and refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dspark_ops.supervise.node.places import LABEL, RANK_CONTAINER, ROLES, STATUS_PORT
from dspark_ops.supervise.node.strict import DocumentError, Fields, parse_object

SCHEMA = "dspark-ops/supervise-config/v1"
Wanted = Literal["serving", "stopped"]


@dataclass(frozen=True)
class Canary:
    """The completion whose text is known. expect must stand in the answer's content."""

    prompt: str
    expect: str
    max_tokens: int
    thinking: bool

    @classmethod
    def from_document(cls, document: object) -> Canary:
        fields = Fields(document, "api.canary")
        made = cls(
            prompt=fields.text("prompt"),
            expect=fields.text("expect"),
            max_tokens=fields.whole("max_tokens", 64, low=1, high=4096),
            thinking=fields.flag("thinking", False),
        )
        fields.done()
        if not made.expect:
            raise DocumentError("api.canary.expect is empty: any answer would pass")
        return made


@dataclass(frozen=True)
class Api:
    """The head's engine as the head asks it. key_file: holds a bearer token, None without one."""

    url: str
    model: str
    canary: Canary
    key_file: Path | None = None

    @classmethod
    def from_document(cls, document: object) -> Api:
        fields = Fields(document, "api")
        key_file = fields.text_or_none("key_file")
        made = cls(
            url=fields.text("url").rstrip("/"),
            model=fields.text("model"),
            canary=Canary.from_document(fields.raw("canary")),
            key_file=Path(key_file) if key_file else None,
        )
        fields.done()
        if not made.url.startswith("http://"):
            raise DocumentError(f"api.url is {made.url!r}, expected http://ADDRESS:PORT")
        return made


@dataclass(frozen=True)
class WorkerLink:
    """How the head reaches the worker's end. addresses: in the order they are tried, each after the name of its path.

    host_key_alias: the name under which the worker's host key is pinned, whichever address is used.
    """

    addresses: tuple[tuple[str, str], ...]
    user: str
    port: int
    identity: Path
    known_hosts: Path
    host_key_alias: str | None = None

    @classmethod
    def from_document(cls, document: object) -> WorkerLink:
        fields = Fields(document, "worker")
        made = cls(
            addresses=_addresses(fields.raw("addresses")),
            user=fields.text("user", "root"),
            port=fields.whole("port", 22, low=1, high=65535),
            identity=Path(fields.text("identity")),
            known_hosts=Path(fields.text("known_hosts")),
            host_key_alias=fields.text_or_none("host_key_alias"),
        )
        fields.done()
        return made


@dataclass(frozen=True)
class Gate:
    """The smoke gate after a start. completions: further ones beside the canary, alternately whole and streamed."""

    completions: int = 5

    @classmethod
    def from_document(cls, document: object) -> Gate:
        fields = Fields(document, "gate")
        made = cls(completions=fields.whole("completions", cls.completions, high=100))
        fields.done()
        return made


@dataclass(frozen=True)
class Config:
    """The whole file. ranks: both containers' documents without an epoch, None before the first deploy.

    settings: the thresholds, parsed by `core.settings`. node_ports: what a rank on the head needs, and what has to be
    free before it starts. webhook: where what needs a person is posted as JSON, None for the journal alone.
    evidence_keep: bundles that stay.
    """

    site: str
    wanted: Wanted
    api: Api
    worker: WorkerLink
    gate: Gate
    ranks: Mapping[str, Mapping[str, Any]] | None
    settings: Mapping[str, Any]
    node_ports: tuple[int, ...] = ()
    status_port: int = STATUS_PORT
    webhook: str | None = None
    evidence_keep: int = 10

    @classmethod
    def from_document(cls, document: object) -> Config:
        """Raises: DocumentError, naming the field."""
        fields = Fields(document, "the configuration")
        fields.text("schema", one_of=(SCHEMA,))
        site = fields.text("site")
        ranks = _ranks(fields.raw("ranks"), site)
        wanted = fields.text("wanted", one_of=("serving", "stopped"))
        if wanted == "serving" and ranks is None:
            raise DocumentError("the configuration wants the pair to serve but has no ranks (null)")
        settings = fields.raw("settings")
        if not isinstance(settings, dict):
            raise DocumentError("the configuration.settings is not an object")
        ports = fields.raw("node_ports") if fields.has("node_ports") else []
        if not isinstance(ports, list) or not all(type(port) is int and 0 < port < 65536 for port in ports):
            raise DocumentError("the configuration.node_ports is not a list of ports")
        webhook = fields.text_or_none("webhook")
        if webhook is not None and not webhook.startswith(("http://", "https://")):
            raise DocumentError("the configuration.webhook is neither null nor an http or https URL")
        made = cls(
            site=site,
            wanted="serving" if wanted == "serving" else "stopped",
            api=Api.from_document(fields.raw("api")),
            worker=WorkerLink.from_document(fields.raw("worker")),
            gate=Gate.from_document(fields.raw("gate")) if fields.has("gate") else Gate(),
            ranks=ranks,
            settings=settings,
            node_ports=tuple(ports),
            status_port=fields.whole("status_port", STATUS_PORT, high=65535),
            webhook=webhook,
            evidence_keep=fields.whole("evidence_keep", 10, low=1, high=1000),
        )
        fields.done()
        return made

    @property
    def api_port(self) -> int | None:
        """The engine's port on the head, from the URL under which it is asked."""
        tail = self.api.url.rpartition(":")[2]
        return int(tail) if tail.isascii() and tail.isdecimal() else None

    @property
    def head_ports(self) -> tuple[int, ...]:
        """What a rank on the head listens on."""
        own = () if self.api_port is None else (self.api_port,)
        return tuple(dict.fromkeys((*own, *self.node_ports)))

    @property
    def release(self) -> str | None:
        """The id of the adopted release."""
        return None if self.ranks is None else str(self.ranks["head"]["labels"].get(f"{LABEL}release") or "") or None

    def spec(self, role: str, epoch: str) -> dict[str, Any]:
        """The document of one rank under the epoch of a start.

        Raises:
            DocumentError: there are no ranks.
        """
        if self.ranks is None:
            raise DocumentError("no release was adopted, so there is nothing to start; run `dspark-ops deploy`")
        rank = self.ranks[role]
        return {**rank, "labels": {**rank["labels"], f"{LABEL}epoch": epoch}}


def load_config(path: Path) -> Config:
    """Read the file.

    Raises:
        DocumentError: it cannot be read or is not what it must be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} cannot be read: {error}") from None
    try:
        return Config.from_document(parse_object(text, "it"))
    except DocumentError as error:
        raise DocumentError(f"{path}: {error}; `dspark-ops supervise install` writes it again") from None


def _addresses(raw: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, list) or not raw:
        raise DocumentError("worker.addresses is not a list of one or more addresses")
    addresses = []
    for index, item in enumerate(raw):
        entry = Fields(item, f"worker.addresses[{index}]")
        addresses.append((entry.text("path", one_of=("management", "fabric")), entry.text("address")))
        entry.done()
    if any(address.startswith("-") or not address for _, address in addresses):
        raise DocumentError("worker.addresses holds an address that is empty or begins with a dash")
    return tuple(addresses)


def _ranks(document: object, site: str) -> Mapping[str, Mapping[str, Any]] | None:
    """Both ranks' documents; every one must be ours by name and labels."""
    if document is None:
        return None
    fields = Fields(document, "ranks")
    ranks = {role: fields.raw(role) for role in ROLES}
    fields.done()
    for role, rank in ranks.items():
        if not isinstance(rank, dict) or not isinstance(rank.get("labels"), dict):
            raise DocumentError(f"ranks.{role} is not a container's document with labels")
        for key in ("image_id", "command"):
            if not rank.get(key):
                raise DocumentError(f"ranks.{role} has no {key!r}")
        if rank.get("name") != RANK_CONTAINER:
            raise DocumentError(f"ranks.{role}.name is {rank.get('name')!r}, expected {RANK_CONTAINER!r}")
        for key, expected in ((f"{LABEL}site", site), (f"{LABEL}role", role)):
            if rank["labels"].get(key) != expected:
                raise DocumentError(f"ranks.{role}.labels[{key}] is {rank['labels'].get(key)!r}, expected {expected!r}")
    return ranks
