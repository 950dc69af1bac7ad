"""The healthy pair of the check fixtures, and the small changes that each case lays over it.

A case: {"status", "node": head, worker or pair, "set": [[path, value], …], "remove": [path, …], "site": ["key=value"],
"active", "says": [texts that the finding must hold], "beside": [other checks of which the change makes roots]}. A path
is a list; in a list of objects a word picks the one with that name, path, id, port, rail, index, pid, address or
destination, and "+" appends.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES
from dspark_ops.deploy.spec import render_pair
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.report.models import Finding

CHECKS = Path(__file__).parents[2] / "checks"
_NAMES = ("name", "path", "id", "port", "rail", "destination", "index", "pid", "address")


@cache
def load_case_site(*overrides: str) -> LoadedSite:
    """The site of the fixtures with overrides as on the command line, untouched by the environment."""
    return load_site(CHECKS / "site.yml", overrides=overrides, environ={})


def base_document() -> dict[str, Any]:
    """The healthy pair; both ranks were given what the site renders to."""
    return copy.deepcopy(_base())


@cache
def _base() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CHECKS / "base.json").read_text(encoding="utf-8"))
    loaded = load_case_site()
    for role, spec in render_pair(loaded.site, loaded.profile).items():
        rank = document[role]["rank"]
        rank["args"] = list(spec.command)
        rank["env"] = dict(spec.env)
        rank["labels"]["io.dspark-ops.release"] = spec.release
        rank["image_id"] = rank["made_from"] = spec.image_id
        rank["mounts"] = [
            *({"kind": "bind", **mount} for mount in spec.mounts),
            *({"kind": "volume", "source": v["name"], "target": v["target"], "read_only": False} for v in spec.volumes),
        ]
        _run_what_was_given(document, role)
    return document


def _run_what_was_given(document: dict[str, Any], role: str) -> None:
    rank = document[role]["rank"]
    program = ["/usr/local/bin/python3.12", "/usr/local/bin/vllm", *rank["args"][1:]]
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


def pair_facts(case: dict[str, Any] | None = None) -> PairFacts:
    """The facts of a case; without one, of the healthy pair."""
    base = _base()
    document = _lay_over(base, case or {})
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


__all__ = ["CHECKS", "ROLES", "all_cases", "base_document", "cases", "load_case_site", "pair_facts"]
