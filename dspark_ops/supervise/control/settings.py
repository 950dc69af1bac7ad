"""From the site to the thresholds of the daemon, under the daemon's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.memory.need import need_of

#: Of the time after which counters that stand still are a wedge, what is a window; the rest confirms it.
_WINDOW_SHARE = 0.75
#: An idle pair is proven by canaries alone: one that comes in time, after one that was lost, is early enough.
_PROOF_S = 180.0


def settings_of(loaded: LoadedSite, total_gib: Mapping[Role, float | None]) -> dict[str, Any]:
    """The daemon's `settings`; lengths of time in seconds, memory in GiB. total_gib: MemTotal by role, None unknown.

    What a rank needs is what a deploy asks of a node: the need of the release and the floor beside it.
    """
    site, wish = loaded.site, loaded.site.supervise
    need = max(need_of(site, loaded.profile, role, total_gib=total_gib[role]).gib for role in ROLES)
    window_s = wish.wedge_after_s * _WINDOW_SHARE
    return {
        "memory_needed_gib": round(need + site.guards.memory_floor_gib, 2),
        "memory_floor_gib": site.guards.memory_floor_gib,
        "canary_s": float(wish.canary_every_s),
        "canary_timeout_s": float(wish.canary_timeout_s),
        "proof_limit_s": max(_PROOF_S, 2.0 * wish.canary_every_s + wish.canary_timeout_s),
        "wedge_window_s": window_s,
        "wedge_confirm_s": wish.wedge_after_s - window_s,
        "drain_s": float(wish.drain_s),
        "start_limit_s": float(site.guards.ready_timeout_s),
        "boot_delay_s": float(wish.boot_delay_s),
        "budget": wish.restarts,
        "budget_window_s": float(wish.window_s),
        "reset_s": float(wish.forgive_after_s),
    }
