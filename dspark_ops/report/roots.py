"""What needs a person, by root cause: one entry a cause, and below it the names of what only follows from it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dspark_ops.report.models import Finding, Remedy, Status

# The worst first.
URGENCY: tuple[Status, ...] = ("fail", "unknown", "warn")


@dataclass(frozen=True)
class Root:
    """A root cause. findings: its own bad results, one a node; empty when it was not asked for. followers: the rest."""

    id: str
    findings: tuple[Finding, ...]
    followers: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst of its own results; unknown where it has none."""
        own = [URGENCY.index(f.status) for f in self.findings]
        return URGENCY[min(own)] if own else "unknown"

    @property
    def title(self) -> str:
        return self.findings[0].title if self.findings else "not asked for in this run"

    @property
    def ignored(self) -> bool:
        return bool(self.findings) and all(f.ignored for f in self.findings)

    @property
    def expected(self) -> tuple[str, ...]:
        """What its results expected, each text once."""
        return tuple(dict.fromkeys(f.expected for f in self.findings if f.expected))

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What to do, each remedy once."""
        return tuple(dict.fromkeys(f.remedy for f in self.findings if f.remedy is not None))

    @property
    def follower_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.id for f in self.followers))

    def follower_line(self, *, names: int | None = None) -> str | None:
        """One sentence for what follows, or None when nothing does. More than `names` are counted by domain."""
        found = self.follower_ids
        if not found:
            return None
        if names is None or len(found) <= names:
            return f"{len(found)} more follow from {self.id}: {', '.join(found)}"
        domains = Counter(identity.split(".", 1)[0] for identity in found)
        told = ", ".join(f"{number} {domain}" for domain, number in domains.items())
        return f"{len(found)} more follow from {self.id}: {told}"


def group_roots(findings: Sequence[Finding]) -> tuple[Root, ...]:
    """The root causes, worst first. What is ignored is no root, unless something that counts follows from it."""
    bad = [f for f in findings if f.status in URGENCY]
    followers: dict[str, list[Finding]] = {}
    for finding in bad:
        if finding.caused_by is not None and not finding.ignored:
            followers.setdefault(finding.caused_by, []).append(finding)
    own: dict[str, list[Finding]] = {}
    for finding in bad:
        if finding.caused_by is None and (not finding.ignored or finding.id in followers):
            own.setdefault(finding.id, []).append(finding)
    roots = [
        Root(identity, tuple(own.get(identity, ())), tuple(followers.get(identity, ())))
        for identity in dict.fromkeys((*own, *followers))
    ]
    return tuple(sorted(roots, key=_urgency))


def _urgency(root: Root) -> tuple[int, bool]:
    """A root counts as what is worst of it and of what follows; among failures, what only slows the pair comes last."""
    concerned = [f for f in (*root.findings, *root.followers) if not f.ignored] or list(root.findings)
    worst = min(URGENCY.index(f.status) for f in concerned)
    return worst, all(f.effect == "slows" for f in concerned if f.status == URGENCY[worst])
