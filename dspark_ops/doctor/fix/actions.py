"""What `doctor --fix` can do, as a closed list: each action is a verb or a playbook of ours, never a shell line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.launch import Wishes
from dspark_ops.deploy.launch import deploy as deploy_verb
from dspark_ops.doctor.catalogue import Check
from dspark_ops.doctor.fix.baseline import apply_baseline
from dspark_ops.doctor.fix.redeploy import redeploy
from dspark_ops.fabric.apply import apply as apply_rails
from dspark_ops.images.sync import sync as sync_image
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress
from dspark_ops.tenants.restore import restore_verb
from dspark_ops.weights.verbs import fetch as fetch_model
from dspark_ops.weights.verbs import sync as sync_model

Consent = Callable[[str], None]


class ActionId(StrEnum):
    """The actions, in the order in which they are carried out: what others stand on comes first."""

    BASELINE = "baseline"
    RAILS = "rails"
    IMAGE_SYNC = "image-sync"
    MODEL_FETCH = "model-fetch"
    MODEL_SYNC = "model-sync"
    DEPLOY = "deploy"
    START = "start"
    TENANTS = "tenants-restore"


ORDER: tuple[ActionId, ...] = tuple(ActionId)
# What does the other's work too.
SUBSUMES: Mapping[ActionId, ActionId] = {
    ActionId.MODEL_FETCH: ActionId.MODEL_SYNC,
    ActionId.DEPLOY: ActionId.START,
}


@dataclass(frozen=True)
class Conduct:
    """How an action is carried out. consent is given the action's own plan just before its first change.

    check: it says what it would change and changes nothing. diff: changed text is kept in the report.
    """

    consent: Consent
    progress: Progress
    check: bool = False
    diff: bool = False


Carry = Callable[[LoadedSite, Conduct], Report]


@dataclass(frozen=True)
class Action:
    """One action. does: what it does to both nodes, for people.

    least: A may run because it was asked to fix; C only for findings that were named with --consent, whatever class
    their own remedy has: it stops a serving rank, moves the network or starts what belongs to others.
    stands_on: checks that must not be bad, because the action needs what they judge.
    """

    does: str
    least: Literal["A", "C"]
    stands_on: tuple[str, ...]
    carry: Carry


def _rails(loaded: LoadedSite, how: Conduct) -> Report:
    return apply_rails(loaded, consent=how.consent, progress=how.progress, check=how.check, diff=how.diff)


def _image(loaded: LoadedSite, how: Conduct) -> Report:
    return sync_image(loaded, consent=how.consent, progress=how.progress, check=how.check, diff=how.diff)


def _fetch(loaded: LoadedSite, how: Conduct) -> Report:
    """Quick, as the next: what the doctor judges of weights are names and sizes."""
    return fetch_model(loaded, consent=how.consent, progress=how.progress, check=how.check, diff=how.diff, quick=True)


def _sync(loaded: LoadedSite, how: Conduct) -> Report:
    return sync_model(loaded, consent=how.consent, progress=how.progress, check=how.check, diff=how.diff, quick=True)


def _deploy(loaded: LoadedSite, how: Conduct) -> Report:
    return redeploy(loaded, consent=how.consent, progress=how.progress, check=how.check, diff=how.diff)


def _start(loaded: LoadedSite, how: Conduct) -> Report:
    """Tenants are never asked to leave by a fix: where they stand in the way, the start refuses."""
    wishes = Wishes(load_image=False, check=how.check, diff=how.diff)
    return deploy_verb(loaded, verb="start", consent=how.consent, progress=how.progress, wishes=wishes)


def _tenants(loaded: LoadedSite, how: Conduct) -> Report:
    return restore_verb(loaded, keys=(), consent=how.consent, progress=how.progress, check=how.check, diff=how.diff)


def _baseline(loaded: LoadedSite, how: Conduct) -> Report:
    return apply_baseline(loaded, consent=how.consent, progress=how.progress, check=how.check, diff=how.diff)


_HOSTS = ("reach.ssh", "host.sudo")
_ENGINES = (*_HOSTS, "host.docker_engine")

ACTIONS: Mapping[ActionId, Action] = {
    ActionId.BASELINE: Action(
        "prepare both hosts: packages, Docker running, directories, linger, logind, kernel settings",
        "A",
        _HOSTS,
        _baseline,
    ),
    ActionId.RAILS: Action(
        "give every rail its address and MTU on both nodes, lasting; it reverts by itself unless proven",
        "C",
        _HOSTS,
        _rails,
    ),
    ActionId.IMAGE_SYNC: Action("bring the image from the head to the worker over a rail", "A", _ENGINES, _image),
    ActionId.MODEL_FETCH: Action(
        "bring what is missing of the pinned weights to the head, and from there to the worker", "A", _HOSTS, _fetch
    ),
    ActionId.MODEL_SYNC: Action("bring the weights from the head to the worker over the rails", "A", _HOSTS, _sync),
    ActionId.DEPLOY: Action(
        "stop what ranks of ours run, start the site's release on both, wait for a correct completion",
        "C",
        _ENGINES,
        _deploy,
    ),
    ActionId.START: Action(
        "stop a rank that runs alone, start both, wait for a correct completion", "C", _ENGINES, _start
    ),
    ActionId.TENANTS: Action("start again the tenants that had to leave, as they were", "C", _ENGINES, _tenants),
}

_BY_CHECK: Mapping[str, ActionId] = {
    # Their remedies are shell lines for people; a playbook does the same.
    "host.docker_engine": ActionId.BASELINE,
    "host.packages_whole": ActionId.BASELINE,
    "operations.docker_at_boot": ActionId.BASELINE,
    # The whole of bootstrap is named for people; this part of it is the baseline's.
    "fabric.arp_settings": ActionId.BASELINE,
}
# A verb cures these only after the site was edited by hand.
_SITE_FIRST = frozenset({"fabric.gid_index_valid", "fabric.rails_complete", "fabric.twin_subnets"})
_BY_VERB: Mapping[tuple[str, ...], ActionId] = {
    ("fabric", "apply"): ActionId.RAILS,
    ("image", "sync"): ActionId.IMAGE_SYNC,
    ("model", "fetch"): ActionId.MODEL_FETCH,
    ("model", "sync"): ActionId.MODEL_SYNC,
    ("deploy",): ActionId.DEPLOY,
    ("start",): ActionId.START,
    ("tenants", "restore"): ActionId.TENANTS,
}
_RAIL_DOMAINS = ("fabric", "nic")


def action_for(check: Check) -> ActionId | None:
    """The action that carries out a check's remedy, or None when a person has to.

    A remedy's command names its verb; one with options of its own (as `--evict`) is more than a fix may decide.
    """
    if check.remedy.remedy_class == "M" or check.id in _SITE_FIRST:
        return None
    if check.id in _BY_CHECK:
        return _BY_CHECK[check.id]
    command = check.remedy.command or ()
    if command[:1] != ("dspark-ops",):
        return None
    verb, options = _split(command[1:])
    if options not in ((), ("--site", "{site}")):
        return None
    if verb == ("bootstrap",):
        return ActionId.RAILS if check.domain in _RAIL_DOMAINS else ActionId.BASELINE
    return _BY_VERB.get(verb)


def _split(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The verb's words, and what follows from the first option on."""
    for place, word in enumerate(words):
        if word.startswith("-"):
            return words[:place], words[place:]
    return words, ()
