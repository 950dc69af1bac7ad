"""Where the supervisor's files are on a node, and the names that both ends of the link use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RANK_CONTAINER = "dspark-rank"
LABEL = "io.dspark-ops."
ROLES = ("head", "worker")
STATUS_PORT = 8017


@dataclass(frozen=True)
class Places:
    """Directories and files of the daemon; tests give others."""

    config: Path = Path("/etc/dspark/supervise.json")
    state_dir: Path = Path("/var/lib/dspark/supervise")
    run_dir: Path = Path("/run/dspark")

    @property
    def socket(self) -> Path:
        return self.run_dir / "supervise.sock"

    @property
    def state(self) -> Path:
        return self.state_dir / "state.json"

    @property
    def journal(self) -> Path:
        return self.state_dir / "journal.jsonl"

    @property
    def evidence(self) -> Path:
        return self.state_dir / "evidence"

    @property
    def lock(self) -> Path:
        return self.state_dir / "lock"
