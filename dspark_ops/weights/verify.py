"""`model verify`: every file on both nodes by presence, size and sha256; the ref; nothing unfinished. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.report.models import Finding, Remedy, Report, judge
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.ssh import open_runner
from dspark_ops.weights.look import observe, prove
from dspark_ops.weights.meter import amount
from dspark_ops.weights.model import Manifest
from dspark_ops.weights.plan import require_hub
from dspark_ops.weights.reading import NodeWeights, read_weights
from dspark_ops.weights.state import Digests, FileState, blob_states, size_states, unfinished

_FETCH = Remedy(
    text="bring what is missing or wrong, and prove it", command=("dspark-ops", "model", "fetch"), remedy_class="C"
)
_SYNC = Remedy(text="mirror it again from the head", command=("dspark-ops", "model", "sync"), remedy_class="C")


def verify(loaded: LoadedSite, progress: Progress, *, quick: bool = False) -> Report:
    """Hold both nodes' weights against the record of the fetch. quick: sizes alone, nothing is hashed.

    Raises:
        DsparkError: the site names no repository.
    """
    site = loaded.site
    require_hub(site)
    recorder = Recorder("model verify", site.name, progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        with recorder.phase("observe"):
            readings = observe(site, runners, recorder)
        nodes = {role: read_weights(site, role, readings[role]) for role in ROLES if readings[role].reachable}
        manifest = next((node.record for node in nodes.values() if node.record is not None), None)
        digests: Mapping[Role, Digests] | None = None
        if manifest is not None and not quick:
            digests = prove(site, runners, manifest, nodes, recorder, tuple(nodes))
    finally:
        for runner in runners.values():
            runner.close()
    recorder.findings = judge_weights(manifest, nodes, digests)
    return _closed(recorder, manifest)


def judge_weights(
    manifest: Manifest | None, nodes: Mapping[Role, NodeWeights], digests: Mapping[Role, Digests] | None
) -> list[Finding]:
    """Every node held against the record; digests None: sizes alone."""
    found: list[Finding] = []
    for role, node in nodes.items():
        found.append(_record(node, manifest))
        if manifest is not None:
            found += [_files(manifest, node), _digest(manifest, node, None if digests is None else digests[role])]
            found += [_ref(manifest, node), _unfinished(node)]
    return found


def _finding(identity: str, node: NodeWeights, title: str, observed: str, expected: str, **more: object) -> Finding:
    return Finding.model_validate(
        {"id": f"weights.{identity}", "node": node.role, "title": title, "observed": observed, "expected": expected}
        | more
    )


def _record(node: NodeWeights, manifest: Manifest | None) -> Finding:
    title, expected = "What whole weights are is on record", "the record that a fetch leaves on both nodes"
    remedy = _SYNC if node.role == "worker" and manifest is not None else _FETCH
    if node.record_error is not None:
        return _finding("record", node, title, node.record_error, expected, status="unknown", remedy=remedy)
    if node.record is None:
        status = "unknown" if manifest is None else "fail"
        return _finding("record", node, title, "there is no record", expected, status=status, remedy=remedy)
    if node.record != manifest:
        said = "its record is another than the head's"
        return _finding("record", node, title, said, expected, status="fail", remedy=_FETCH)
    said = f"{len(node.record.files)} files, {amount(node.record.total_bytes)}"
    return _finding("record", node, title, said, expected, status="ok")


def _files(manifest: Manifest, node: NodeWeights) -> Finding:
    title, expected = "Every file is there in its size", f"{len(manifest.files)} files"
    states = [*size_states(manifest, node), *(s for s in blob_states(manifest, node, None) if not s.known)]
    return _judged("files", node, title, expected, states, f"{len(manifest.files)} files in their size")


def _digest(manifest: Manifest, node: NodeWeights, digests: Digests | None) -> Finding:
    title, expected = "Every file has its sha256", "the sha256 of the hub's metadata"
    if digests is None:
        said = "not hashed: --quick looks at sizes alone"
        return _finding("digest", node, title, said, expected, status="skip")
    # A file that is absent or of another size is told once, by weights.files.
    there = [file.blob for file in manifest.files if (node.blobs or {}).get(file.blob) == file.size]
    states = [state for state in blob_states(manifest, node, digests) if state.file.blob in there]
    return _judged("digest", node, title, expected, states, f"sha256 of {len(states)} files is right")


def _judged(
    identity: str, node: NodeWeights, title: str, expected: str, states: Sequence[FileState], fine: str
) -> Finding:
    bad = [state for state in states if state.known and state.why]
    unknown = [state for state in states if not state.known]
    remedy = _FETCH if node.role == "head" else _SYNC
    if bad:
        told = "; ".join(f"{state.file.name}: {state.why}" for state in bad)
        return _finding(identity, node, title, told, expected, status="fail", remedy=remedy)
    if unknown or not states:
        told = "; ".join(f"{state.file.name}: {state.why}" for state in unknown[:5]) or "no file could be looked at"
        return _finding(identity, node, title, told, expected, status="unknown", remedy=remedy)
    return _finding(identity, node, title, fine, expected, status="ok")


def _ref(manifest: Manifest, node: NodeWeights) -> Finding:
    title, expected = "refs/main names the commit", f"{manifest.revision} and no newline"
    if not node.ref_known:
        return _finding("ref", node, title, "it cannot be read", expected, status="unknown")
    if node.ref != manifest.revision:
        said = "it is absent" if node.ref is None else f"it says {node.ref!r}"
        remedy = _FETCH if node.role == "head" else _SYNC
        return _finding("ref", node, title, said, expected, status="fail", remedy=remedy)
    return _finding("ref", node, title, "it does", expected, status="ok")


def _unfinished(node: NodeWeights) -> Finding:
    title, expected = "Nothing is unfinished", "no .incomplete among the blobs"
    left = unfinished(node)
    if node.blobs is None:
        return _finding("incomplete", node, title, "the blobs cannot be read", expected, status="unknown")
    if left:
        remedy = _FETCH if node.role == "head" else _SYNC
        return _finding("incomplete", node, title, ", ".join(left), expected, status="fail", remedy=remedy)
    return _finding("incomplete", node, title, "none", expected, status="ok")


def _closed(recorder: Recorder, manifest: Manifest | None) -> Report:
    verdict, code = judge(recorder.findings, recorder.nodes)
    bad = [finding for finding in recorder.findings if finding.status == "fail"]
    if bad:
        message = "; ".join(f"{finding.node}: {finding.observed} [{finding.id}]" for finding in bad)
    elif code or manifest is None:
        message = "no verdict: not everything could be looked at"
    else:
        message = f"both nodes hold {manifest.repo} at {manifest.revision[:12]} whole"
    next_step = next((" ".join(f.remedy.command) for f in bad if f.remedy and f.remedy.command), None)
    return recorder.report(verdict, code, message, next_step=next_step)
