"""Site and profile to the exact container of each rank: argument list, environment, release id. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from dspark_ops.config.models import NODE_RANK, ROLES, Profile, Role, Site
from dspark_ops.fabric.nccl import nccl_environment
from dspark_ops.facts.rank import LABEL, RANK_CONTAINER
from dspark_ops.weights.spec import OFFLINE_ENVIRONMENT, mount_of

_GIB = 1 << 30
#: Where the compile caches of an image are mounted in its containers.
CACHE_ROOT = "/var/cache/dspark"


@dataclass(frozen=True)
class RankSpec:
    """Everything that makes one rank's container what it is, but for the epoch of its start."""

    role: Role
    image_id: str
    command: tuple[str, ...]
    env: dict[str, str]
    mounts: tuple[dict[str, Any], ...]
    devices: tuple[str, ...]
    gpus: bool
    shm_size_bytes: int
    site: str
    release: str = ""
    ulimits: dict[str, int] = field(default_factory=dict)
    cap_add: tuple[str, ...] = ()
    volumes: tuple[dict[str, str], ...] = ()

    def identity(self) -> dict[str, Any]:
        """What decides whether a running container is this one (the release id follows from both ranks' identities)."""
        return {
            "role": self.role,
            "site": self.site,
            "image_id": self.image_id,
            "command": list(self.command),
            "env": dict(sorted(self.env.items())),
            "mounts": list(self.mounts),
            "devices": list(self.devices),
            "gpus": self.gpus,
            "shm_size_bytes": self.shm_size_bytes,
            "ulimits": self.ulimits,
            "cap_add": list(self.cap_add),
            "volumes": list(self.volumes),
        }

    def digest(self) -> str:
        return _digest(self.identity())

    def document(self, epoch: str) -> dict[str, Any]:
        """The variable `rank_service_spec` of the Ansible role."""
        return {
            "name": RANK_CONTAINER,
            "image_id": self.image_id,
            "command": list(self.command),
            "env": dict(self.env),
            "mounts": list(self.mounts),
            "volumes": list(self.volumes),
            "devices": list(self.devices),
            "shm_size_bytes": self.shm_size_bytes,
            "ulimits": dict(self.ulimits),
            "cap_add": list(self.cap_add),
            "gpus": self.gpus,
            "network": "host",
            "ipc": "private",
            "labels": {
                f"{LABEL}site": self.site,
                f"{LABEL}role": self.role,
                f"{LABEL}release": self.release,
                f"{LABEL}epoch": epoch,
                f"{LABEL}spec": self.digest(),
            },
        }


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def render_pair(site: Site, profile: Profile) -> dict[Role, RankSpec]:
    """Both ranks' containers, sharing one release id that follows from all that they are given."""
    bare = {role: _rank(site, profile, role) for role in ROLES}
    release = "r-" + _digest([bare[role].identity() for role in ROLES])[:12]
    return {role: replace(spec, release=release) for role, spec in bare.items()}


def _rank(site: Site, profile: Profile, role: Role) -> RankSpec:
    return RankSpec(
        role=role,
        image_id=site.image.id,
        command=render_argv(site, profile, role),
        env=render_env(site, profile, role),
        mounts=mount_of(site)[0],
        devices=("/dev/infiniband",) if profile.gpu else (),
        gpus=profile.gpu,
        shm_size_bytes=site.serve.shm_size_gib * _GIB,
        site=site.name,
        # RDMA pins its buffers: without these NCCL falls back to sockets, or fails to register memory.
        ulimits={"stack": 64 << 20, "memlock": -1} if profile.gpu else {"stack": 64 << 20},
        cap_add=("IPC_LOCK",) if profile.gpu else (),
        volumes=({"name": cache_volume(site.image.id), "target": CACHE_ROOT},) if profile.image.caches else (),
    )


def cache_volume(image_id: str) -> str:
    """The volume of one image's compile caches: what another build compiled is never loaded.

    A volume of the node's own Engine, so never on a network file system that both ranks share.
    """
    return f"dspark-cache-{image_id.removeprefix('sha256:')[:12]}"


def render_argv(site: Site, profile: Profile, role: Role) -> tuple[str, ...]:
    """The argument list of one rank. The ranks differ in node rank, `--headless` and nothing else."""
    serve = site.serve
    head = site.fabric.rails[0].head.address.ip
    argv = [
        "vllm",
        "serve",
        str(mount_of(site)[1]),
        f"--served-model-name={site.model.served_name}",
        f"--host={serve.api_host}",
        f"--port={serve.api_port}",
        "--tensor-parallel-size=2",
        "--distributed-executor-backend=mp",
        "--nnodes=2",
        f"--node-rank={NODE_RANK[role]}",
        f"--master-addr={head}",
        f"--master-port={serve.master_port}",
        f"--distributed-timeout-seconds={serve.distributed_timeout_s}",
        f"--max-model-len={serve.max_model_len}",
        f"--max-num-seqs={serve.max_num_seqs}",
        f"--kv-cache-dtype={serve.kv_cache_dtype}",
    ]
    if serve.max_num_batched_tokens is not None:
        argv.append(f"--max-num-batched-tokens={serve.max_num_batched_tokens}")
    if serve.gpu_memory_utilization is not None:
        argv.append(f"--gpu-memory-utilization={serve.gpu_memory_utilization}")
    if serve.kv_cache_memory_mib is not None:
        argv.append(f"--kv-cache-memory-bytes={serve.kv_cache_memory_mib * (1 << 20)}")
    speculative = render_speculative(site)
    if speculative is not None:
        argv.append(f"--speculative-config={json.dumps(speculative, separators=(',', ':'))}")
    # An option that the site gives takes the place of the profile's: no silent "the last one wins".
    given = {word.partition("=")[0] for word in serve.extra_args if word.startswith("--")}
    argv.extend(word for word in profile.serve_args if word.partition("=")[0] not in given)
    argv.extend(serve.extra_args)
    if role == "worker":
        argv.append("--headless")
    return tuple(argv)


def render_speculative(site: Site) -> dict[str, Any] | None:
    """The JSON of `--speculative-config`, or None without speculation."""
    wanted = site.serve.speculative
    if wanted.method == "none":
        return None
    config: dict[str, Any] = {"method": wanted.method, "num_speculative_tokens": wanted.tokens}
    if wanted.draft_model is not None:
        config["model"] = str(wanted.draft_model)
    if wanted.draft_sample_method is not None:
        config["draft_sample_method"] = wanted.draft_sample_method
    return config


def render_env(site: Site, profile: Profile, role: Role) -> dict[str, str]:
    """The environment of one rank: what is per node is per node, and what is unset is absent, never empty."""
    return (
        dict(profile.environment)
        | {name: f"{CACHE_ROOT}/{place}" for name, place in profile.image.caches.items()}
        | nccl_environment(site, role)
        | (OFFLINE_ENVIRONMENT if site.model.hub is not None else {})
        | {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(site.serve.execute_timeout_s)}
        | site.serve.environment
    )
