"""`exposure show`, `apply` and `remove`: both nodes closed to strangers or neither, and never a lost box."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.reach import reach
from dspark_ops.errors import DsparkError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.exposure.policy import NodePolicy, both, closed_by_the_site
from dspark_ops.exposure.render import role_variables
from dspark_ops.exposure.seen import PROBES, SeenNode, filter_state, read_node
from dspark_ops.fabric.proven_change import counted, judged, render_plan
from dspark_ops.fabric.transaction import NotProvenError
from dspark_ops.report.models import Change, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.base import Connect, Probe
from dspark_ops.transport.ssh import read_pair

PLAYBOOK = "exposure.yml"
REVERT_AFTER_S = 45
#: What a revert and a slow login add to the node's own timer.
MARGIN_S = 20.0
#: Where nobody listens: a refusal tells as well as an answer that the rails let the pair through.
_RAIL_PORT = 9
_PASSES = frozenset({"open", "refused"})
Consent = Callable[[str], None]


def policies(site: Site) -> tuple[dict[Role, NodePolicy], dict[Role, SeenNode]]:
    """What the site wants of each node, with what its nodes have now.

    Raises:
        NoVerdictError: a node cannot be read, or its SSH port cannot be told.
    """
    readings = read_pair(site, PROBES)
    lost = [f"{role}: {readings[role].error or 'not reached'}" for role in ROLES if not readings[role].reachable]
    if lost:
        raise NoVerdictError("\n".join(lost), hint="look at the node, or try `ssh` by hand")
    seen = {role: read_node(site, role, readings[role]) for role in ROLES}
    found = {role: node.policy(site) for role, node in seen.items()}
    blind = [role for role in ROLES if not any(port.rule == "ssh" for port in found[role].ports)]
    if blind:
        raise NoVerdictError(
            f"the SSH port of {' and '.join(blind)} cannot be told: neither `ss` nor the session shows it",
            hint="allow sudo without a password there, so that `ss` shows who listens",
        )
    return found, seen


def apply(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    allow_lockout: bool = False,
    revert_after_s: int = REVERT_AFTER_S,
) -> Report:
    """Close both nodes to strangers, persistently; prove that they can still be reached, or open both again.

    allow_lockout: consent to rules that shut out the address that this host comes from.
    revert_after_s: a node that is not confirmed after this time puts itself back.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on either.
        RefusedError: the rules would lock this host out, our file was edited, declined, or busy.
    """
    site = loaded.site
    recorder = Recorder("exposure apply", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        with recorder.phase("reach"):
            reach(site, recorder)
        with recorder.phase("look") as note:
            wanted, seen = policies(site)
            before = _over_the_rails(site)
            note.detail = "; ".join(f"{role}: {filter_state(seen[role], wanted[role])}" for role in ROLES)
        play = _playing(loaded, wanted, exposure_allow_lockout=allow_lockout, exposure_revert_after_s=revert_after_s)
        with recorder.phase("plan") as note:
            planned = _shown(judged(play("precheck", "exposure", check=True)), diff)
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{counted(len(planned))} would be made; nothing was changed"
            )
        if planned:
            consent("\n".join([render_plan(site, planned), *(f"  note: {text}" for text in closed_by_the_site(site))]))
        steps: dict[str, Callable[[], str | None]] = {
            "apply": lambda: _step(recorder, play, diff, "exposure"),
            "prove": lambda: _prove(site, before),
            "confirm": lambda: _step(recorder, play, diff, "confirm"),
        }
        if not planned:
            del steps["apply"]
        return _carry_out(recorder, play, steps, revert_after_s)


def remove(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Take table, file, unit and program off both nodes; what other packet filters do is as it was."""
    recorder = Recorder("exposure remove", loaded.site.name, progress)
    # Ansible holds the arguments of every entry of the role, also of those that this run skips.
    play = _playing(loaded, offline(loaded.site))
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            reach(loaded.site, recorder)
        with recorder.phase("plan") as note:
            planned = _shown(judged(play("remove", check=True)), diff)
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{counted(len(planned))} would be made; nothing was changed"
            )
        if not planned:
            return recorder.report("unchanged", ExitCode.OK, "no packet filter of ours is there; zero changes")
        consent(render_plan(loaded.site, planned))
        with recorder.phase("remove"):
            result = play("remove")
        recorder.changes.extend(_shown(result, diff))
        if not result.ok:
            left = [f"{f.node or 'pair'}: {f.message}" for f in result.failures] or ["a node was lost"]
            again = "dspark-ops exposure remove"
            return recorder.report(
                "restore-incomplete", ExitCode.RESTORE_INCOMPLETE, "not all was removed", next_step=again, left=left
            )
        return recorder.report("changed", ExitCode.OK, counted(len(recorder.changes)))


def _carry_out(
    recorder: Recorder,
    play: Callable[..., PlayResult],
    steps: Mapping[str, Callable[[], str | None]],
    revert_after_s: int,
) -> Report:
    proof: str | None = None
    try:
        for name, act in steps.items():
            with recorder.phase(name) as note:
                note.detail = act()
                proof = note.detail if name == "prove" else proof
    except (DsparkError, KeyboardInterrupt) as failure:
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", str(failure))
        left = _put_back(recorder, play, revert_after_s)
        if not left:
            why += "\nthe packet filter of both nodes is as it was"
        verdict: Verdict = "restore-incomplete" if left else "restored"
        code = ExitCode.RESTORE_INCOMPLETE if left else ExitCode.RESTORED
        if interrupted:
            verdict, code = "interrupted", ExitCode.INTERRUPTED
        return recorder.report(verdict, code, why, next_step="dspark-ops exposure audit", left=left)
    if not recorder.changes:
        return recorder.report("unchanged", ExitCode.OK, f"both nodes are closed as wanted; zero changes ({proof})")
    return recorder.report(
        "changed",
        ExitCode.OK,
        f"{counted(len(recorder.changes))}; {proof}",
        next_step="dspark-ops exposure audit",
    )


def _step(recorder: Recorder, play: Callable[..., PlayResult], diff: bool, tag: str) -> None:
    result = play(tag)
    recorder.changes.extend(_shown(result, diff))
    if result.unreachable:
        raise NotProvenError(f"{' and '.join(result.unreachable)} could not be reached any more")
    if result.failures:
        raise NotProvenError("\n".join(f"{f.node or 'pair'}: {f.message}" for f in result.failures))
    if not result.ok:
        raise NotProvenError(f"ansible-playbook ended with {result.rc}; its log: {result.log}")


def _rail_probes(site: Site) -> dict[Role, tuple[Probe, ...]]:
    other: dict[Role, Role] = {"head": "worker", "worker": "head"}
    return {
        role: (
            Connect(
                "exposure.rails", tuple((str(r.of(other[role]).address.ip), _RAIL_PORT) for r in site.fabric.rails)
            ),
        )
        for role in ROLES
    }


def _over_the_rails(site: Site) -> dict[Role, set[str]]:
    """Which addresses of the other node each node reaches over the rails now."""
    readings = read_pair(site, _rail_probes(site), timeout_s=20.0)
    return {role: _passing(readings[role].get("exposure.rails").files) for role in ROLES}


def _passing(said: Mapping[str, str] | None) -> set[str]:
    return {target.partition(" ")[0] for target, word in (said or {}).items() if word in _PASSES}


def _prove(site: Site, before: Mapping[Role, set[str]]) -> str:
    """Log in to both nodes anew, and see that no rail lost the other node.

    Raises:
        NotProvenError: naming each node or rail that failed.
    """
    readings = read_pair(site, _rail_probes(site), timeout_s=20.0)
    lost = [f"{role}: {readings[role].error or 'not reached'}" for role in ROLES if not readings[role].reachable]
    if lost:
        raise NotProvenError("this host cannot log in any more: " + "; ".join(lost))
    now = {role: _passing(readings[role].get("exposure.rails").files) for role in ROLES}
    gone = [f"{role} no longer reaches {address}" for role in ROLES for address in sorted(before[role] - now[role])]
    if gone:
        raise NotProvenError("TCP over the rails: " + "; ".join(gone))
    rails = min(len(now[role]) for role in ROLES)
    return f"both nodes take a new login; TCP crosses {rails} of {len(site.fabric.rails)} rails both ways"


def _put_back(recorder: Recorder, play: Callable[..., PlayResult], revert_after_s: int) -> list[str]:
    """Open both nodes again as they were; one that cannot be reached does it by itself and is waited for."""
    left: dict[str, str] = {}
    began = time.monotonic()
    try:
        with recorder.phase("revert"):
            while True:
                result = play("revert")
                left = {f.node or "pair": f.message for f in result.failures}
                left |= dict.fromkeys(result.unreachable, "cannot be reached; it puts itself back")
                if not result.unreachable or time.monotonic() - began > revert_after_s + MARGIN_S:
                    break
                time.sleep(3.0)
    except KeyboardInterrupt:
        return ["interrupted; a node that is not confirmed puts its packet filter back by itself"]
    except DsparkError as failure:
        left["pair"] = f"the revert could not be run ({failure.message}); the nodes put themselves back"
    return [f"{node}: {text}" for node, text in left.items()]


def _shown(result: PlayResult, diff: bool) -> tuple[Change, ...]:
    if diff:
        return result.changes
    return tuple(change.model_copy(update={"diff": None}) for change in result.changes)


def _playing(loaded: LoadedSite, wanted: Mapping[Role, NodePolicy], **variables: object) -> Callable[..., PlayResult]:
    hosts = {role: role_variables(policy) for role, policy in wanted.items()}

    def play(*tags: str, check: bool = False) -> PlayResult:
        return run_playbook(
            PLAYBOOK, loaded, variables=variables, host_variables=hosts, check=check, diff=True, tags=tags
        )

    return play


def offline(site: Site, port: int = 22) -> dict[Role, NodePolicy]:
    """The policies as they would be with SSH on this port: for `exposure show --offline`."""
    return both(site, dict.fromkeys(ROLES, frozenset({port})))
