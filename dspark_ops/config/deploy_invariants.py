"""Rules about a deploy beside the engine: where weights come from, whom it asks to leave, who judges it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from dspark_ops.config.models import Profile, Site
from dspark_ops.config.problem import Invariant, Problem

_RELEASE_GATE_S = 7200


def weights_have_one_source(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.model.hub is not None and site.model.mount is not None:
        yield Problem(
            "cfg.model_source",
            "model.mount",
            f"model.hub and model.mount ({site.model.mount}) are both given, and the ranks read one; which of the two? "
            "Set mount to null to serve the hub's snapshot, or hub to null to serve the directory",
        )


def gate_is_one_thing(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.gate is None:
        return
    if site.gate.command is None and site.gate.builtin is None:
        text = "names no gate; expected command (a program of yours) or builtin (smoke or release), one of the two"
        yield Problem("cfg.gate_one", "gate", text)
    elif site.gate.command is not None and site.gate.builtin is not None:
        both = f"command ({site.gate.command[0]}) and builtin ({site.gate.builtin})"
        text = f"{both} are both given; expected one of the two: set the other to null"
        yield Problem("cfg.gate_one", "gate.builtin", text)
    elif site.gate.builtin == "release" and site.gate.timeout_s < _RELEASE_GATE_S:
        text = (
            f"{site.gate.timeout_s} s may end a release gate before its verdict, which undoes the deploy: with prompts "
            f"of 20,000 tokens it asks 66 bursts of six in about 80 minutes; expected {_RELEASE_GATE_S} or more"
        )
        yield Problem("cfg.gate_time", "gate.timeout_s", text, "note")


def gate_is_a_program(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.gate is None or site.gate.command is None:
        return
    if not PurePath(site.gate.command[0]).is_absolute():
        yield Problem(
            "cfg.gate_command",
            "gate.command.0",
            f"{site.gate.command[0]!r} names no program; expected an absolute path, or one relative to the site file",
        )


def tenants_are_listed_once(site: Site, _profile: Profile) -> Iterator[Problem]:
    listed = site.tenants.evict
    for index, key in enumerate(listed):
        first = listed.index(key)
        if first < index:
            yield Problem(
                "cfg.tenant_twice",
                f"tenants.evict.{index}",
                f"{key} is listed already (entry {first}); expected each tenant once: remove one",
            )
    if site.tenants.policy != "evict-listed" and listed:
        yield Problem(
            "cfg.tenants_unused",
            "tenants.evict",
            f"is read under policy evict-listed alone; with {site.tenants.policy} nothing is evicted unasked",
            "note",
        )
    elif site.tenants.policy == "evict-listed" and not listed:
        text = "policy evict-listed with an empty evict is the same as ask; list the tenants, or set ask"
        yield Problem("cfg.tenants_unused", "tenants.policy", text, "note")


def reclaim_is_consented(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.guards.reclaim:
        text = "a deploy may drop the page cache and compact memory on both nodes; other programs read again from disk"
        yield Problem("cfg.reclaim", "guards.reclaim", text, "note")


def a_wedge_outlasts_a_canary(site: Site, _profile: Profile) -> Iterator[Problem]:
    """One sign that is still waiting for its own answer cannot confirm another."""
    wish = site.supervise
    if wish.wedge_after_s <= wish.canary_timeout_s:
        yield Problem(
            "cfg.supervise_wedge",
            "supervise.wedge_after_s",
            f"supervise.wedge_after_s is {wish.wedge_after_s}, expected more than canary_timeout_s "
            f"({wish.canary_timeout_s})",
        )


DEPLOY_INVARIANTS: tuple[Invariant, ...] = (
    weights_have_one_source,
    reclaim_is_consented,
    tenants_are_listed_once,
    gate_is_one_thing,
    gate_is_a_program,
    a_wedge_outlasts_a_canary,
)
