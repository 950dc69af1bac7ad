"""The catalogue for people: a list, one check explained, and the reference page made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.doctor.catalogue import CatalogueFile, Check
from dspark_ops.doctor.engine import fill_command
from dspark_ops.doctor.known import KnownFailure
from dspark_ops.report.text import shell_line

_CLASSES = {"A": "automatic", "C": "needs consent", "M": "by hand"}
_EFFECTS = {
    "blocks": "a bad result blocks the pair",
    "slows": "a bad result makes the pair slow",
    "risks": "a bad result is a risk",
}
_PEER = ", on either node"
Known = Mapping[str, Sequence[KnownFailure]]


def render_list(checks: Sequence[Check]) -> str:
    """One line a check: id, severity, what it makes sure of."""
    width = max((len(check.id) for check in checks), default=0)
    return "\n".join(
        f"{check.id:<{width}}  {check.severity:<8}  {check.title}{' (only with --active)' if check.active else ''}"
        for check in checks
    )


def render_explanation(check: Check, known: Known | None = None) -> str:
    """Everything the catalogue says of one check. known: the failures that each check finds."""
    lines = [
        f"{check.id}: {check.title}",
        f"{check.severity}, judged {'once for the pair' if check.scope == 'pair' else 'on each node'}"
        + (", only with --active" if check.active else ""),
        _EFFECTS[check.effect],
        "",
        check.why.strip(),
        "",
        f"reads: {'; '.join(check.reads)}",
    ]
    lines += [
        f"threshold {name}: {limit.value:g} {limit.unit} ({limit.source}, {limit.date.isoformat()})"
        for name, limit in check.thresholds.items()
    ]
    lines.append(f"remedy ({_CLASSES[check.remedy.remedy_class]}): {check.remedy.text.strip()}")
    if check.remedy.command:
        lines.append(f"  $ {_command(check.remedy.command)}")
    if check.depends_on:
        lines.append(f"depends on: {', '.join(check.depends_on)}{_PEER if check.with_peer else ''}")
    lines += [f"finds {failure.id}: {failure.symptom}" for failure in (known or {}).get(check.id, ())]
    lines.append(f"evidence: {'; '.join(check.evidence)}")
    return "\n".join(lines)


def document_list(checks: Sequence[Check]) -> list[dict[str, object]]:
    """The checks as JSON objects, keys as in the catalogue."""
    return [check.model_dump(mode="json", by_alias=True) for check in checks]


def render_reference(files: Sequence[CatalogueFile], catalogue: Mapping[str, Check], known: Known | None = None) -> str:
    """`docs/reference/checks.md`: every check, by domain. Made from the catalogue; not edited by hand."""
    lines = [
        "# Checks of `dspark-ops doctor`",
        "",
        "<!-- Made from checks/*.yml by dspark_ops.doctor.pages.render_reference; a test keeps it current. -->",
        "",
        f"{len(catalogue)} checks. A *required* one can fail; an *advised* one warns at most. Unknown is never good.",
        "A bad result *blocks* the pair, *slows* it, or is a *risk*.",
        "Remedies: *automatic*, *needs consent*, *by hand*.",
        "What others have described, and which check finds it: [known failures](known-failures.md).",
    ]
    for file in files:
        lines += ["", f"## {file.domain}", "", file.about.strip(), ""]
        lines += ["| id | makes sure that | severity | effect | per |", "|---|---|---|---|---|"]
        lines += [
            f"| [`{c.id}`](#{c.id.replace('.', '')}) | {_cell(c.title)} | {c.severity} | {c.effect} | {c.scope} |"
            for c in file.checks
        ]
        for check in file.checks:
            lines += _section(check, known or {})
    return "\n".join(lines) + "\n"


def _section(check: Check, known: Known) -> list[str]:
    lines = ["", f"### {check.id}", "", f"{check.title}.", "", check.why.strip(), ""]
    if check.active:
        lines.append("- Makes traffic: runs only with `--active`.")
    lines.append("- Reads: " + ", ".join(f"`{read}`" for read in check.reads))
    lines += [
        f"- Threshold `{name}`: {limit.value:g} {limit.unit} ({limit.source}, {limit.date.isoformat()})"
        for name, limit in check.thresholds.items()
    ]
    command = f" `{_command(check.remedy.command)}`" if check.remedy.command else ""
    lines.append(f"- Remedy ({_CLASSES[check.remedy.remedy_class]}): {check.remedy.text.strip()}{command}")
    if check.depends_on:
        named = ", ".join(f"`{i}`" for i in check.depends_on)
        lines.append(f"- Depends on: {named}{_PEER if check.with_peer else ''}")
    if check.id in known:
        lines.append("- Finds: " + ", ".join(failure.id for failure in known[check.id]))
    lines.append("- Evidence: " + "; ".join(check.evidence))
    return lines


def _command(command: tuple[str, ...]) -> str:
    """A remedy's command with names that stand for the site file and the node."""
    return shell_line(fill_command(command, site="site.yml", host="NODE", ssh_config=None))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
