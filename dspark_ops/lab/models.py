"""What `lab up`, `lab status` and `lab down` report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LookAlike(_Model):
    """One thing a node shows that is not real: what, why, and which real state it follows."""

    what: str
    why: str
    follows: str


class PortStatus(_Model):
    """One CX7 function. `cable` is the cable that should be in its cage, None for an empty cage."""

    name: str
    cage: int
    half: Literal["A", "B"]
    cable: int | None
    plugged_as_wanted: bool
    admin_up: bool
    carrier: bool
    mtu: int | None
    addresses: tuple[str, ...]


class NodeStatus(_Model):
    """One virtual Spark; `container` is Docker's state word, or "absent".

    memory_gib: what it is held to; None when it is held to nothing (the Engine has no memory cgroups), or is absent.
    """

    name: str
    container: str
    management_ip: str | None
    ssh: bool
    memory_gib: float | None = None
    ports: tuple[PortStatus, ...]


class EngineStatus(_Model):
    """The Docker Engine that carries the pair. `own`: started by the lab and ended by `lab down`."""

    own: bool
    socket: Path


class LabStatus(_Model):
    """The pair as it is now. `changed` is what `lab up` had to do; empty for `lab status` and for an idle `up`."""

    schema_id: Literal["dspark-ops/lab/v1"] = Field("dspark-ops/lab/v1", serialization_alias="schema")
    state: Literal["up", "partial", "down"]
    problems: tuple[str, ...]
    engine: EngineStatus | None
    cables: int | None
    ssh_config: Path | None
    engine_image: str | None
    nodes: tuple[NodeStatus, ...]
    look_alikes: tuple[LookAlike, ...]
    changed: tuple[str, ...] = ()
    phases_s: dict[str, float]

    @property
    def up(self) -> bool:
        """Both nodes answer over SSH and every port is wired as wanted."""
        return self.state == "up"


class DownReport(_Model):
    """What `lab down` took away, and the build cache that it kept (None when there is none)."""

    schema_id: Literal["dspark-ops/lab-down/v1"] = Field("dspark-ops/lab-down/v1", serialization_alias="schema")
    removed: tuple[str, ...]
    left: tuple[str, ...]
    cache: Path | None
    cache_bytes: int | None
