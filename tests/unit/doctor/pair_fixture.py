"""The healthy pair of the check fixtures, and the small changes that each case lays over it.

A case: {"status", "node": head, worker or pair, "set": [[path, value], …], "remove": [path, …], "site": ["key=value"],
"profile": {"without": [options], "with": [words], "environment": {name: value}, "vllm": release}, "given": true where
both ranks were given what that site and profile render to and not the base's, "pair": another healthy pair than the
base's (pair_<name>.json: what differs), "idle": the roles on which nothing was started, "active", "says": [texts that
the finding must hold], "beside": [other checks of which the change makes roots]}. A path is a list; in a list of
objects a word picks the one with that name, path, id, port, rail, index, pid, address or destination, and "+" appends.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES
from dspark_ops.deploy.spec import render_pair
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.releases.model import hide_argv
from dspark_ops.report.models import Finding

CHECKS = Path(__file__).parents[2] / "checks"
_NAMES = ("name", "path", "id", "port", "rail", "destination", "index", "pid", "address")


@cache
def load_case_site(*overrides: str) -> LoadedSite:
    """The site of the fixtures with overrides as on the command line, untouched by the environment."""
    return load_site(CHECKS / "site.yml", overrides=overrides, environ={})


def case_site(case: dict[str, Any]) -> LoadedSite:
    """The site of a case, with what the case says of its profile: another one may render other words."""
    loaded = load_case_site(*_other_pair(case).get("site", ()), *case.get("site", ()))
    changed = case.get("profile")
    if changed is None:
        return loaded
    dropped = changed.get("without", ())
    words = (word for word in loaded.profile.serve_args if word.partition("=")[0] not in dropped)
    update = {
        "serve_args": (*words, *changed.get("with", ())),
        "environment": loaded.profile.environment | changed.get("environment", {}),
        "vllm": changed.get("vllm", loaded.profile.vllm),
    }
    return replace(loaded, profile=loaded.profile.model_copy(update=update))


def _other_pair(case: dict[str, Any]) -> dict[str, Any]:
    """What the pair of a case has otherwise than the base's, its site included; nothing where it is the base's."""
    name = case.get("pair")
    return {} if name is None else json.loads((CHECKS / f"pair_{name}.json").read_text(encoding="utf-8"))


def base_document() -> dict[str, Any]:
    """The healthy pair; both ranks were given what the site renders to."""
    return copy.deepcopy(_base())


@cache
def _base() -> dict[str, Any]:
    return _rendered(load_case_site())


def _rendered(loaded: LoadedSite) -> dict[str, Any]:
    """The healthy pair, its ranks as a site renders them."""
    document: dict[str, Any] = json.loads((CHECKS / "base.json").read_text(encoding="utf-8"))
    for role, spec in render_pair(loaded.site, loaded.profile).items():
        rank = document[role]["rank"]
        rank["args"] = list(spec.command)
        rank["env"] = dict(spec.env)
        rank["labels"]["io.dspark-ops.release"] = spec.release
        rank["image_id"] = rank["made_from"] = spec.image_id
        rank["shm_size_bytes"] = spec.shm_size_bytes
        rank["mounts"] = [
            *({"kind": "bind", **mount} for mount in spec.mounts),
            *({"kind": "volume", "source": v["name"], "target": v["target"], "read_only": False} for v in spec.volumes),
        ]
        _run_what_was_given(document, role)
    return document


def _run_what_was_given(document: dict[str, Any], role: str) -> None:
    rank = document[role]["rank"]
    # As a process list shows it: split at every blank, and without what is secret.
    words = " ".join(hide_argv(tuple(rank["args"][1:]))).split()
    program = ["/usr/local/bin/python3.12", "/usr/local/bin/vllm", *words]
    document[role]["rank_processes"] = [{"pid": rank["main_pid"], "words": program}]


def _lay_over(document: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The document with a case's changes."""
    changed = copy.deepcopy(document)
    for path, value in case.get("set", ()):
        parent, last = _walk(changed, path)
        if isinstance(parent, list) and isinstance(last, str):
            if last == "+":
                parent.append(value)
                continue
            last = _position(parent, last)
        parent[last] = value
    for path in case.get("remove", ()):
        parent, last = _walk(changed, path)
        del parent[_position(parent, last) if isinstance(parent, list) else last]
    return changed


def _idle(document: dict[str, Any], roles: list[str]) -> dict[str, Any]:
    """Nodes before a start: no container, nothing of it on the GPU, in memory, in a log or on a port."""
    for role in roles:
        node = document[role]
        ours = set(node["rank"]["pids"])
        for gone in ("rank", "rank_processes", "rank_rdma", "rank_settings", "engine_log"):
            node[gone] = None
        node["gpu"]["processes"] = []
        node["noted"] = [item for item in node["noted"] if item["pid"] not in ours]
        node["listeners"] = [item for item in node["listeners"] if item["pid"] not in ours]
        node["containers"] = [item for item in node["containers"] if item["name"] != RANK_CONTAINER]
        node["container_logs"] = []
        # As an idle kit was seen: 110.3 of 121.7 GiB available.
        node["memory"] |= {"mem_available_kib": 115669068, "mem_free_kib": 110628044, "unaccounted_kib": 3145728}
    if "head" in roles:
        for gone in ("service", "metrics", "replies"):
            document["head"][gone] = None
    return document


def pair_facts(case: dict[str, Any] | None = None) -> PairFacts:
    """The facts of a case; without one, of the healthy pair."""
    case = case or {}
    base = _rendered(case_site(case)) if case.get("given") else _base()
    base = _lay_over(base, {"set": _other_pair(case).get("set", ())})
    if case.get("idle"):
        base = _idle(base, case["idle"])
    document = _lay_over(base, case)
    for role in ROLES:
        # A process has the arguments of its container, unless the case is about just that.
        now, was = document[role], base[role]
        same = now.get("rank_processes") == was["rank_processes"]
        if same and now.get("rank") and now["rank"].get("args") not in (None, was["rank"]["args"]):
            _run_what_was_given(document, role)
    return PairFacts.model_validate_json(json.dumps(document))


def mismatches(case: dict[str, Any], name: str, finding: Finding) -> list[str]:
    """What of a finding is not as a case, a file of that name, says it has to be."""
    told = finding.model_dump_json() + " ".join((finding.remedy and finding.remedy.command) or ())
    wrong = [f"{text!r} is not in {told}" for text in case.get("says", ()) if text not in told]
    if finding.status != case["status"]:
        wrong.append(f"expected {case['status']}: {finding!r}")
    if finding.observed.startswith("the rule broke"):
        wrong.append(finding.observed)
    if name.startswith("bad_") and not (finding.status in ("warn", "fail") and finding.expected):
        wrong.append(f"a bad case is a warning or a failure that says what was expected: {finding!r}")
    if finding.status in ("warn", "fail", "unknown") and not (finding.remedy and finding.remedy.text):
        wrong.append(f"no remedy: {finding!r}")
    return wrong


def unreachable(role: str, error: str = "node-b: no answer within 10 s") -> dict[str, Any]:
    """A node that was not reached."""
    host = "node-a" if role == "head" else "node-b"
    return {"role": role, "host": host, "reachable": False, "error": error, "hint": "is it powered on?"}


def cases(check: str) -> list[Path]:
    """The fixture files of a check."""
    return sorted((CHECKS / check).glob("*.json"))


def all_cases() -> list[Path]:
    """Every fixture file of every check."""
    return sorted(p for p in CHECKS.glob("*/*.json"))


def _walk(document: Any, path: list[Any]) -> tuple[Any, Any]:
    here = document
    for word in path[:-1]:
        here = here[_position(here, word)] if isinstance(here, list) else here[word]
    return here, path[-1]


def _position(items: list[Any], word: Any) -> int:
    if isinstance(word, int) and not any(
        isinstance(i, dict) and word in (i.get("port"), i.get("index")) for i in items
    ):
        return word
    for position, item in enumerate(items):
        if isinstance(item, dict) and any(item.get(name) == word for name in _NAMES):
            return position
    raise KeyError(word)


__all__ = ["CHECKS", "ROLES", "all_cases", "base_document", "case_site", "cases", "load_case_site", "pair_facts"]
