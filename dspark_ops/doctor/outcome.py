"""What a rule can answer, and what it may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dspark_ops.config.models import Profile, Role, Site
from dspark_ops.facts.rank import RankFacts
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.report.models import Status

T = TypeVar("T")


class FactMissingError(Exception):
    """A fact that the rule needs was not read: the check's status is unknown, never ok and never fail."""


class NotApplicableError(Exception):
    """The rule has nothing to judge here: the check is skipped, with this reason."""


@dataclass(frozen=True)
class Outcome:
    """A rule's answer. advice replaces the catalogue's remedy text where the facts know better."""

    status: Status
    observed: str
    expected: str | None = None
    evidence: str | None = None
    advice: str | None = None


def ok(observed: str) -> Outcome:
    """As it should be; observed says what was seen."""
    return Outcome("ok", observed)


def warn(observed: str, expected: str, *, evidence: str | None = None) -> Outcome:
    """Works, and will cause trouble or cost something."""
    return Outcome("warn", observed, expected, evidence)


def fail(observed: str, expected: str, *, evidence: str | None = None, advice: str | None = None) -> Outcome:
    """Wrong."""
    return Outcome("fail", observed, expected, evidence, advice)


def judge(problems: Sequence[str], fine: str, expected: str) -> Outcome:
    """ok with `fine` when there is no problem, else fail with all of them in one line."""
    return fail("; ".join(problems), expected) if problems else ok(fine)


def need(value: T | None, what: str) -> T:
    """The value, or the end of the rule: `what` was not read.

    Raises:
        FactMissingError: the value is None.
    """
    if value is None:
        raise FactMissingError(f"{what} could not be read")
    return value


@dataclass(frozen=True)
class PairView:
    """What a rule of the pair sees: both nodes' facts, the site, its profile, the check's thresholds."""

    facts: PairFacts
    site: Site
    profile: Profile
    limits: Mapping[str, float] = field(default_factory=dict)

    def rehearsal(self) -> bool:
        """True when a node says that it is a rehearsal."""
        return any(n.system is not None and n.system.look_alikes is not None for n in self.facts.nodes)


@dataclass(frozen=True)
class NodeView(PairView):
    """What a rule of a node sees: the same, and which node it is about."""

    role: Role = "head"

    @property
    def node(self) -> NodeFacts:
        return self.facts.of(self.role)

    @property
    def peer_role(self) -> Role:
        return "worker" if self.role == "head" else "head"

    @property
    def peer(self) -> NodeFacts:
        return self.facts.of(self.peer_role)

    def rank(self) -> RankFacts:
        """This node's rank container, running or not.

        Raises:
            FactMissingError: it is unknown whether there is one.
            NotApplicableError: there is none, or the one of that name is not ours.
        """
        found = rank_of(self.node, self.site)
        if found is None:
            raise NotApplicableError("nothing is deployed on this node")
        return found

    def running_rank(self) -> RankFacts:
        """This node's rank container, which runs.

        Raises:
            FactMissingError: that is unknown.
            NotApplicableError: it does not run.
        """
        found = self.rank()
        if not found.running:
            raise NotApplicableError(f"the rank does not run (container {found.state})")
        return found


def rank_of(node: NodeFacts, site: Site) -> RankFacts | None:
    """The rank container of this site on a node, or None when there is none.

    Raises:
        FactMissingError: it is unknown whether there is one.
    """
    if not node.rank_known:
        raise FactMissingError(f"the rank's container on the {node.role} could not be read")
    if node.rank is None or node.rank.label("site") != site.name:
        return None
    need(node.rank.state, f"the state of the rank's container on the {node.role}")
    return node.rank
