"""What the verbs of the VM pair report, and what they remember."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.lab.models import LookAlike

ProcessState = Literal["running", "paused", "unknown", "absent"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VmRecord(_Model):
    """How the pair was last asked for: cables, pulled rails, SSH ports, and the longest time of each phase."""

    cables: int = 2
    pulled: tuple[str, ...] = ()
    ssh_ports: dict[str, int] = {}
    phases_s: dict[str, float] = {}


class VmPort(_Model):
    """One port. `plugged` is what the lab set; the rest is what the node says, None where it does not answer."""

    name: str
    cage: int
    cable: int
    plugged: bool
    rdma: str
    carrier: bool | None = None
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    rdma_state: str | None = None


class VmNode(_Model):
    """One VM; its process is "unknown" where the emulator runs and does not answer."""

    name: str
    process: ProcessState
    pid: int | None
    ssh_port: int | None
    ssh: bool
    ports: tuple[VmPort, ...]


class VmStatus(_Model):
    """The VM pair as it is now. `changed` is what the verb had to do; empty for `lab status --vm` and an idle `up`."""

    schema_id: Literal["dspark-ops/lab-vm/v1"] = Field("dspark-ops/lab-vm/v1", serialization_alias="schema")
    state: Literal["up", "partial", "down"]
    problems: tuple[str, ...]
    acceleration: Literal["kvm", "tcg"]
    snapshot: bool
    cables: int | None
    ssh_config: Path | None
    nodes: tuple[VmNode, ...]
    look_alikes: tuple[LookAlike, ...]
    changed: tuple[str, ...] = ()
    phases_s: dict[str, float]

    @property
    def up(self) -> bool:
        """Both VMs run, answer over SSH and have their four soft-RoCE devices."""
        return self.state == "up"
