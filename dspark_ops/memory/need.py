"""What one rank of a release needs: weights, KV cache, graphs, runtime; each with where its number is from. Pure."""

from __future__ import annotations

from typing import Literal

from dspark_ops.config.models import Profile, Role, Site
from dspark_ops.facts.model import Fact

_MIB_PER_GIB = 1024
PartName = Literal["weights", "KV cache", "graphs", "runtime"]


class Part(Fact):
    """One part of the need in GiB. None is not known, and never counted as nothing."""

    name: PartName
    gib: float | None
    source: str

    def text(self) -> str:
        return f"{self.name} {'unknown' if self.gib is None else f'{self.gib:.1f}'}"


class Need(Fact):
    """What a rank needs.

    claim_gib: what the engine asks for as a whole before it begins, `gpu_memory_utilization` x MemTotal: the parts are
    inside it, and a start with less available fails even where the parts are smaller. None where it does not ask.
    """

    role: Role
    parts: tuple[Part, ...]
    claim_gib: float | None = None
    claim_source: str | None = None

    @property
    def parts_gib(self) -> float:
        """The sum of the parts that are known."""
        return sum(part.gib for part in self.parts if part.gib is not None)

    @property
    def gib(self) -> float:
        """The whole; a lower bound where `at_least`."""
        return max(self.parts_gib, self.claim_gib or 0.0)

    @property
    def unknown(self) -> tuple[PartName, ...]:
        return tuple(part.name for part in self.parts if part.gib is None)

    @property
    def at_least(self) -> bool:
        """Whether it may be more: a part is unknown and no claim covers it."""
        return bool(self.unknown) and self.claim_gib is None

    def text(self) -> str:
        """In words, as `at least 2.1 GiB (weights 0.1, KV cache 0.1, graphs unknown, runtime 1.9)`."""
        more = "at least " if self.at_least else ""
        inside = ", ".join(part.text() for part in self.parts)
        if self.claim_gib is not None and self.claim_gib >= self.parts_gib:
            return f"{more}{self.gib:.1f} GiB ({self.claim_source}; of it {inside})"
        return f"{more}{self.gib:.1f} GiB ({inside})"


def need_of(site: Site, profile: Profile, role: Role, *, total_gib: float | None = None) -> Need:
    """The need of one rank; `total_gib` is the node's MemTotal, without which a share of it is not known.

    With `serve.kv_cache_memory_mib` the KV cache is that. With `serve.gpu_memory_utilization` the engine takes that
    share as a whole and the KV cache is what the rest leaves. vLLM checks the share at its start on a GPU also where
    the KV cache is given in bytes.
    """
    rule, serve = profile.memory, site.serve
    share = serve.gpu_memory_utilization
    pinned = serve.kv_cache_memory_mib
    claim, claim_source = None, None
    if share is not None and (pinned is None or profile.gpu) and total_gib is not None:
        claim, claim_source = share * total_gib, f"{share:g} of MemTotal {total_gib:.1f} GiB"
    beside = (rule.weights_gib, rule.graphs_gib, rule.runtime_gib)
    kv_gib, kv_source = None, "neither serve.kv_cache_memory_mib nor serve.gpu_memory_utilization says it"
    if pinned is not None:
        kv_gib, kv_source = pinned / _MIB_PER_GIB, "serve.kv_cache_memory_mib"
    elif claim is not None and None not in beside:
        kv_gib = max(0.0, claim - sum(part or 0.0 for part in beside))
        kv_source = "what the other parts leave of the share"
    elif share is not None:
        kv_source = "what the engine leaves of its share; not known before it runs"
    known = f"images/profiles/{profile.name}.yml"

    def told(gib: float | None) -> str:
        return known if gib is not None else f"{known} does not say"

    return Need(
        role=role,
        parts=(
            Part(name="weights", gib=rule.weights_gib, source=told(rule.weights_gib)),
            Part(name="KV cache", gib=kv_gib, source=kv_source),
            Part(name="graphs", gib=rule.graphs_gib, source=told(rule.graphs_gib)),
            Part(name="runtime", gib=rule.runtime_gib, source=told(rule.runtime_gib)),
        ),
        claim_gib=claim,
        claim_source=claim_source,
    )
