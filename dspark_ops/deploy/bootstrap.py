"""bootstrap: the host baseline and the fabric between the two, on both nodes or on neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Change, NodeReport, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.base import Command, NodeReading
from dspark_ops.transport.ssh import read_pair

Consent = Callable[[str], None]
# earlyoom kills at its default threshold an engine that merely starts: leave it, give it low thresholds, or remove it.
Earlyoom = Literal["leave", "configure", "absent"]

APPLY_PHASES = ("baseline", "fabric", "verify", "confirm")
# With nothing to change: a run that was killed before its confirmation has left a revert armed on the nodes.
SETTLE_PHASES = ("verify", "confirm")


class _PhaseFailedError(DsparkError):
    """A phase of applying failed; what it was about is undone by the caller."""


def host_variables(site: Site, users: Mapping[Role, str]) -> dict[Role, dict[str, object]]:
    """What each node is told: its own rails with the other end's address, and the login user. Pure."""
    found: dict[Role, dict[str, object]] = {}
    for role in ROLES:
        other: Role = "worker" if role == "head" else "head"
        ends = [(rail.name, rail.of(role), rail.of(other)) for rail in site.fabric.rails]
        found[role] = {
            "host_baseline_service_user": users[role],
            "host_baseline_rail_netdevs": [end.netdev for _, end, _ in ends],
            "fabric_rails": [
                {
                    "name": name,
                    "netdev": end.netdev,
                    "address": str(end.address),
                    "peer": str(far.address.ip),
                }
                for name, end, far in ends
            ],
        }
    return found


def bootstrap(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    earlyoom: Earlyoom = "leave",
) -> Report:
    """Prepare both hosts and the rails between them, and prove it with jumbo pings both ways.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on the other either.
        RefusedError: a precheck forbids it (somebody else configures a rail, a rank runs), declined, or busy.
    """
    site = loaded.site
    recorder = Recorder("bootstrap", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        with recorder.phase("reach"):
            users = _reach(site, recorder)
        run = _Bootstrap(loaded, recorder, host_variables(site, users), diff, earlyoom)
        with recorder.phase("precheck"):
            run.precheck()
        with recorder.phase("plan") as note:
            planned = run.predict()
            note.detail = _counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{_counted(len(planned))} would be made; nothing was changed"
            )
        if planned:
            consent(_render(site, planned))
        return run.apply(APPLY_PHASES if planned else SETTLE_PHASES)


def _reach(site: Site, recorder: Recorder) -> dict[Role, str]:
    """Log in to both nodes and see that sudo works there; the login users."""
    readings = read_pair(site, (Command("true", ("true",)),))
    recorder.nodes = tuple(
        NodeReport(
            role=role,
            host=site.nodes.of(role).host,
            reachable=readings[role].reachable,
            error=readings[role].error,
            round_trip_s=round(readings[role].elapsed_s, 3),
        )
        for role in ROLES
    )
    failures = [failure for role in ROLES if (failure := _why_not(site, role, readings[role])) is not None]
    if failures:
        raise NoVerdictError(
            "\n".join(text for text, _ in failures) + "\nnothing was changed on either node",
            hint="; ".join(dict.fromkeys(hint for _, hint in failures)),
        )
    return {role: readings[role].user or "" for role in ROLES}


def _why_not(site: Site, role: Role, reading: NodeReading) -> tuple[str, str] | None:
    if not reading.reachable:
        return f"{role}: {reading.error}", reading.hint or "look at the node"
    if not reading.sudo:
        where = f"{role} ({site.nodes.of(role).host})"
        return f"{where}: {reading.user} may not use sudo without a password", "allow it in /etc/sudoers.d there"
    return None


def _counted(number: int) -> str:
    return "1 change" if number == 1 else f"{number} changes"


def _render(site: Site, planned: tuple[Change, ...]) -> str:
    lines = [f"plan for site {site.name}: {_counted(len(planned))}"]
    lines += [f"  {change.node:<6} {change.what}" for change in planned]
    return "\n".join(lines)


@dataclass
class _Bootstrap:
    """One bootstrap on two nodes that were reached."""

    loaded: LoadedSite
    recorder: Recorder
    per_host: dict[Role, dict[str, object]]
    diff: bool
    earlyoom: Earlyoom = "leave"

    def precheck(self) -> None:
        """Ask both nodes for what forbids it; nothing is changed."""
        result = self._play("precheck")
        _raise_lost(result)
        _raise_broken(result)
        if result.failures:
            lines = [f"  - {f.node}: {f.message}" for f in result.failures]
            raise RefusedError(
                "refused before anything was changed:\n" + "\n".join(lines),
                hint="`dspark-ops doctor` shows the whole picture",
            )

    def predict(self) -> tuple[Change, ...]:
        """What would change, from the playbook itself in check mode."""
        result = self._play("baseline", "fabric", check=True)
        _raise_lost(result)
        _raise_broken(result)
        if not result.ok:
            lines = [f"{f.node}: {f.task}: {f.message}" for f in result.failures]
            raise NoVerdictError("what would change cannot be told: " + "; ".join(lines), hint=f"see {result.log}")
        return self._shown(result)

    def apply(self, phases: Sequence[str]) -> Report:
        """The given phases in order; the fabric is put back on both nodes when anything of it fails."""
        begun = ""
        try:
            for phase in phases:
                begun = phase
                with self.recorder.phase(phase):
                    self._step(phase)
        except (DsparkError, KeyboardInterrupt) as failure:
            return self._undo(begun, failure)
        count = len(self.recorder.changes)
        if count == 0:
            return self.recorder.report(
                "unchanged", ExitCode.OK, "both hosts and all rails are as wanted; zero changes"
            )
        rails = len(self.loaded.site.fabric.rails)
        mtu = self.loaded.site.fabric.mtu
        return self.recorder.report(
            "changed",
            ExitCode.OK,
            f"{_counted(count)}; {rails} rails carry unfragmented pings of MTU {mtu} both ways",
            next_step="dspark-ops deploy",
        )

    def _undo(self, begun: str, failure: BaseException) -> Report:
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", str(failure))
        left = []
        if begun == "baseline":
            left.append("the host baseline may be partly applied; the next bootstrap finishes it")
        else:
            left += self._revert()
        if begun == "confirm":
            # Its journal is settled, so the revert passes it over.
            left.append("a node that was already confirmed keeps its new rails; the next bootstrap makes both alike")
        if not left:
            why += "\nthe rails of both nodes are as they were"
        verdict: Verdict = "restore-incomplete" if left else "restored"
        code = ExitCode.RESTORE_INCOMPLETE if left else ExitCode.RESTORED
        if interrupted:
            verdict, code = "interrupted", ExitCode.INTERRUPTED
        return self.recorder.report(verdict, code, why, next_step="dspark-ops doctor", left=left)

    def _revert(self) -> list[str]:
        """Put the rails back on both nodes; what could not be put back."""
        try:
            with self.recorder.phase("revert"):
                result = self._play("revert")
        except (DsparkError, KeyboardInterrupt):
            return ["the rails may not be back yet; an unconfirmed node puts them back by itself within 3 minutes"]
        left = [f"{f.node or 'pair'}: {f.message}" for f in result.failures if f.node not in result.unreachable]
        left += [
            f"{role}: not reached; it puts its rails back by itself within 3 minutes" for role in result.unreachable
        ]
        return left

    def _step(self, phase: str) -> None:
        result = self._play(phase)
        self.recorder.changes.extend(self._shown(result))
        if result.unreachable:
            raise _PhaseFailedError(f"{phase}: {' and '.join(result.unreachable)} could not be reached any more")
        if result.failures:
            raise _PhaseFailedError("\n".join(f"{phase}: {f.node or 'pair'}: {f.message}" for f in result.failures))
        if not result.ok:
            raise _PhaseFailedError(f"{phase}: ansible-playbook ended with {result.rc}; its log: {result.log}")

    def _play(self, *tags: str, check: bool = False) -> PlayResult:
        return run_playbook(
            "bootstrap.yml",
            self.loaded,
            variables={"fabric_mtu": self.loaded.site.fabric.mtu, "host_baseline_earlyoom": self.earlyoom},
            host_variables=self.per_host,
            check=check,
            diff=True,
            tags=tags,
        )

    def _shown(self, result: PlayResult) -> tuple[Change, ...]:
        if self.diff:
            return result.changes
        return tuple(change.model_copy(update={"diff": None}) for change in result.changes)


def _raise_lost(result: PlayResult) -> None:
    if result.unreachable:
        raise NoVerdictError(
            f"{' and '.join(result.unreachable)} could not be reached by Ansible; nothing was changed",
            hint=f"its own words are in {result.log}",
        )


def _raise_broken(result: PlayResult) -> None:
    """A run that failed as a whole, over time or by a crash, has judged nothing."""
    whole = [failure.message for failure in result.failures if failure.node is None]
    if whole or (not result.ok and not result.failures):
        raise NoVerdictError(
            "; ".join(whole) or f"ansible-playbook ended with {result.rc}", hint=f"its log: {result.log}"
        )
