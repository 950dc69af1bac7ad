"""What a rank's container was told, option by option: arguments and variables of what is deployed, not of the site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dspark_ops.config.engine_arguments import Option, take_apart
from dspark_ops.config.models import Role, Site
from dspark_ops.config.problem import Problem
from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, judge, need, rank_of

Problems = Callable[["Told"], Iterable[str]]
#: vLLM's short forms of what is judged here.
_SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-n": "--nnodes",
    "-r": "--node-rank",
}


@dataclass(frozen=True)
class Told:
    """One rank. Of an option that is given twice the last one counts, as for vLLM."""

    role: Role
    argv: tuple[str, ...]
    options: tuple[Option, ...]
    env: Mapping[str, str]

    @classmethod
    def of(cls, role: Role, argv: tuple[str, ...], env: Mapping[str, str]) -> Told:
        return cls(role, argv, _options(argv), env)

    def given(self, name: str) -> bool:
        """Whether the option is there, with or without a value."""
        return any(option.name == name and option.below is None for option in self.options)

    def last(self, name: str) -> str | None:
        """The option's value; None when it is absent or has none."""
        values = [o.values for o in self.options if o.name == name and o.below is None]
        return values[-1][-1] if values and values[-1] else None

    def whole(self, name: str) -> int | None:
        """The option's value as a whole number; None when it is no such number."""
        text = self.last(name) or ""
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None

    def number(self, name: str) -> float | None:
        """The option's value as a number; None when it is none."""
        try:
            return float(self.last(name) or "")
        except ValueError:
            return None

    def switch(self, name: str) -> bool | None:
        """True for `--name`, False for `--no-name`, whichever comes last; None when neither is given."""
        off = "--no-" + name.removeprefix("--")
        found = [option.name == name for option in self.options if option.name in (name, off)]
        return found[-1] if found else None

    def document(self, name: str) -> dict[str, Any] | None:
        """The option's JSON object, `--name.below=value` laid over it; None when it is absent or no object."""
        merged: dict[str, Any] | None = None
        for option in self.options:
            if option.name != name:
                continue
            found = option.document()
            if found is None:
                return None
            merged = found if option.below is None else {**(merged or {}), **found}
        return merged

    def drafted(self) -> int | None:
        """k, the drafted tokens of a step; None without speculation or where it cannot be told."""
        tokens = (self.document("--speculative-config") or {}).get("num_speculative_tokens")
        return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None


@lru_cache(maxsize=64)
def _options(argv: tuple[str, ...]) -> tuple[Option, ...]:
    """Taken apart once for the many rules that look at the same rank."""
    return tuple(take_apart(_SHORT.get(word, word) for word in argv)[0])


def told_ranks(view: PairView) -> tuple[Told, ...]:
    """The ranks that there are, running or not.

    Raises:
        FactMissingError: it is unknown whether there is one, or its arguments are.
        NotApplicableError: nothing is deployed.
    """
    found = [
        Told.of(node.role, need(rank.args or None, f"the arguments of the {node.role}'s rank"), rank.env)
        for node in view.facts.nodes
        if (rank := rank_of(node, view.site)) is not None
    ]
    if not found:
        raise NotApplicableError("nothing is deployed")
    return tuple(found)


def need_gpu(view: PairView) -> None:
    """End the rule where the profile computes without a GPU.

    Raises:
        NotApplicableError: it does.
    """
    if not view.profile.gpu:
        raise NotApplicableError(f"profile {view.profile.name} computes without a GPU")


def release_runs(view: PairView) -> bool:
    """Whether what runs is the release that the profile is made for, or nobody says that it is another one."""
    service = view.facts.head.service
    version = None if service is None else service.version
    return version is None or version.split("+")[0] == view.profile.vllm


def need_release(view: PairView) -> None:
    """End the rule where another vLLM runs than the one whose names and habits the profile knows.

    Raises:
        NotApplicableError: it does, which service.engine_version tells.
    """
    if not release_runs(view):
        raise NotApplicableError(f"another release than vLLM {view.profile.vllm} runs, as service.engine_version tells")


def need_own_executor(view: PairView) -> None:
    """End the rule where another executor than vLLM's own joins the ranks: it has ranks and addresses of its own.

    Raises:
        FactMissingError, NotApplicableError: as told_ranks; another executor is named.
    """
    for rank in told_ranks(view):
        executor = rank.last("--distributed-executor-backend")
        if executor not in (None, "mp"):
            raise NotApplicableError(f"the ranks are joined by {executor}")


def judge_told(view: PairView, problems: Problems, fine: str, expected: str) -> Outcome:
    """Judge every rank; a problem of all of them is told once, one of a single rank with its role.

    Raises:
        FactMissingError, NotApplicableError: as told_ranks.
    """
    ranks = told_ranks(view)
    found: dict[str, list[Role]] = {}
    for rank in ranks:
        for problem in problems(rank):
            found.setdefault(problem, []).append(rank.role)
    told = [text if len(roles) == len(ranks) else f"{roles[0]}: {text}" for text, roles in found.items()]
    return judge(told, fine, expected)


def site_as_told(site: Site, rank: Told) -> Site:
    """The site with the engine's part taken from a rank, so that the rules about a site judge what is deployed."""
    speculation = rank.document("--speculative-config")
    method = (speculation or {}).get("method")
    known = {"dspark", "mtp", "draft_model"}
    serve = site.serve.model_copy(
        update={
            "max_num_seqs": rank.whole("--max-num-seqs") or site.serve.max_num_seqs,
            "speculative": site.serve.speculative.model_copy(
                update={"method": method if method in known else "none", "tokens": rank.drafted()}
            ),
            "extra_args": rank.argv,
            "environment": dict(rank.env),
        }
    )
    return site.model_copy(update={"serve": serve})


def texts(problems: Iterable[Problem], *ids: str) -> list[str]:
    """The messages of the problems of these ids."""
    return [problem.message for problem in problems if problem.id in ids]
