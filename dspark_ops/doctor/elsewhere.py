"""The doctor's options for a pair without a site, for a recording, and for a replay: which go together, and the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspark_ops.doctor.foreign.look import ForeignRequest
from dspark_ops.doctor.recording import session
from dspark_ops.doctor.recording.model import Manifest
from dspark_ops.doctor.run import Request
from dspark_ops.errors import ConfigError
from dspark_ops.report.models import Report


@dataclass(frozen=True)
class Elsewhere:
    """What the command line says of them. hosts: head and worker, or none."""

    hosts: tuple[str, ...] = ()
    ssh_config: Path | None = None
    user: str | None = None
    record: Path | None = None
    simulate: Path | None = None
    hide_names: bool = False

    @property
    def used(self) -> bool:
        """Whether the run is any of them."""
        return bool(self.hosts) or self.record is not None or self.simulate is not None

    def check(self, request: Request, *, changes: bool) -> None:
        """Everything that is wrong with the combination.

        Raises:
            ConfigError: naming what does not go together; nothing was contacted.
        """
        if self.hosts and len(self.hosts) != 2:
            raise ConfigError(
                f"{' '.join(self.hosts)}: expected two hosts, the head and the worker",
                hint="as in: dspark-ops doctor spark-a spark-b",
            )
        if self.simulate is not None and (self.hosts or self.record is not None):
            raise ConfigError("--simulate contacts no node; it takes no hosts and records nothing")
        if not self.hosts and (self.ssh_config is not None or self.user is not None):
            raise ConfigError("--ssh-config and --user go with HEAD WORKER", hint="a site names its own in ssh.config")
        if self.hide_names and self.record is None:
            raise ConfigError("--hide-names goes with --record")
        if self.used and changes:
            raise ConfigError(
                "--fix needs a site, and a pair that is there", hint="write one with `dspark-ops init HEAD WORKER`"
            )
        if request.overrides and (self.hosts or self.simulate is not None):
            raise ConfigError("--set changes a site file, and none is read here")

    def report(self, request: Request) -> Report:
        """Run it.

        Raises:
            ConfigError: a directory or an id is wrong.
            NoVerdictError: the recording cannot be written.
        """
        if self.simulate is not None:
            return session.simulate(request, self.simulate)
        manifest: Manifest | None
        if self.hosts:
            pair = ForeignRequest(self.hosts[0], self.hosts[1], self.ssh_config, self.user)
            report, manifest = session.foreign(pair, request, self.record, hide_names=self.hide_names)
        elif self.record is not None:
            report, manifest = session.record(request, self.record, hide_names=self.hide_names)
        else:
            raise ConfigError("nothing was asked for")
        return report if manifest is None or self.record is None else _told(report, self.record, manifest)


def _told(report: Report, directory: Path, manifest: Manifest) -> Report:
    hidden = ", ".join(f"{item.values} {item.kind}" for item in manifest.redacted) or "nothing"
    said = f"recorded in {directory} (replaced or hidden: {hidden}); read it before you pass it on"
    return report.model_copy(update={"message": f"{report.message}\n{said}"})
