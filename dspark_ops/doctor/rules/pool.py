"""The KV pool by arithmetic: whether the site's context fits what memory leaves, and whether the engine agrees."""

from __future__ import annotations

from pathlib import Path

from dspark_ops.config.load import LoadedSite
from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, fail, need, ok
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.rules.metrics import counted
from dspark_ops.doctor.told import need_gpu
from dspark_ops.errors import ConfigError
from dspark_ops.kv.setting import Levers, Setting, setting_of

_GIB = 1 << 30
_MIB = 1 << 20
#: The planner asks for a loaded site; nothing of it is read from a file here.
_NOWHERE = Path()


def _setting(view: PairView) -> Setting:
    """The site's setting as the planner takes it.

    Raises:
        NotApplicableError: the planner does not know this model or this layout.
    """
    need_gpu(view)
    try:
        return setting_of(LoadedSite(view.site, view.profile, _NOWHERE, {}), Levers())
    except ConfigError as error:
        raise NotApplicableError(f"the pool cannot be planned: {error}") from error


@pair_rule("config.kv_pool")
def kv_pool(view: PairView) -> Outcome:
    """One request of the site's context fits the pool that memory leaves on the smaller node."""
    setting = _setting(view)
    pool_bytes = _pool_bytes(view)
    found = setting.capacity(pool_bytes)
    told = f"a pool of {pool_bytes} bytes ({pool_bytes / _GIB:.1f} GiB) for {setting.max_model_len} tokens of context"
    if found.fits:
        return ok(told)
    longest = f"{found.longest_model_len} tokens" if found.longest_model_len else "no context at all"
    return fail(f"{told} is too small", f"serve.max_model_len of at most {longest}, or a larger pool")


def _pool_bytes(view: PairView) -> int:
    """What is left for the pool: as the site fixes it, else the engine's share less weights and runtime."""
    serve, memory = view.site.serve, view.profile.memory
    if serve.kv_cache_memory_mib is not None:
        return serve.kv_cache_memory_mib * _MIB
    totals = [
        need(need(node.memory, f"the memory of the {node.role}").total_gib, f"MemTotal of the {node.role}")
        for node in view.facts.nodes
    ]
    left = _known(serve.gpu_memory_utilization) * min(totals) - _known(memory.weights_gib) - _known(memory.runtime_gib)
    return max(0, int(left * _GIB))


def _known(part: float | None) -> float:
    if part is None:
        raise NotApplicableError("what the engine takes beside the pool is not known for this profile")
    return part


@pair_rule("runtime.kv_geometry")
def kv_geometry(view: PairView) -> Outcome:
    """The engine counts as many tokens as its blocks hold in the site's layout: another layout shows here."""
    setting = _setting(view)
    cache = need(counted(view).cache, "the cache's description")
    blocks, tokens = need(cache.blocks, "the blocks of the pool"), need(cache.size_tokens, "the tokens of the pool")
    planned = setting.capacity(blocks * setting.capacity(blocks).block_bytes).tokens
    limit = view.limits["max_deviation"]
    told = f"{tokens} tokens in {blocks} blocks, planned {planned}"
    if abs(tokens - planned) > limit * planned:
        return fail(told, f"within {limit:.0%} of the plan")
    return ok(told)
