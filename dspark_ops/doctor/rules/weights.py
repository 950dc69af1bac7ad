"""The weights by their names and sizes: whole, the same on both nodes, and of the model that the site serves."""

from __future__ import annotations

import re

from dspark_ops.doctor.outcome import (
    FactMissingError,
    NodeView,
    NotApplicableError,
    Outcome,
    PairView,
    fail,
    judge,
    need,
    ok,
    rank_of,
)
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.facts.snapshot import NodeFacts
from dspark_ops.facts.weights import CONFIG, INDEX, ModelConfig, WeightsFacts, directory_of
from dspark_ops.weights.model import INCOMPLETE

_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_SHOWN = 3
_GIB = 1 << 30


def _facts(view: PairView, node: NodeFacts) -> WeightsFacts:
    """What the node has of the weights.

    Raises:
        FactMissingError: it could not be read.
        NotApplicableError: the weights are in the image.
    """
    if directory_of(view.site) is None:
        raise NotApplicableError("the weights are in the image")
    return need(node.weights, f"the weights of the {node.role}")


def _files(view: PairView, node: NodeFacts) -> dict[str, int]:
    """The files, of which there are some.

    Raises:
        FactMissingError, NotApplicableError: as _facts; nothing is there, which weights.present judges.
    """
    files = need(_facts(view, node).files, f"the weights of the {node.role}")
    if not files:
        raise NotApplicableError(f"the {node.role} has no weights")
    return files


def _shards(view: NodeView) -> dict[str, int]:
    """The safetensors files.

    Raises:
        FactMissingError, NotApplicableError: as _files, and there is no shard.
    """
    _files(view, view.node)
    shards = _facts(view, view.node).shards
    if not shards:
        raise NotApplicableError("there is no shard, which weights.present tells")
    return shards


def _config(view: NodeView) -> ModelConfig:
    files = _files(view, view.node)
    if CONFIG not in files:
        raise NotApplicableError(f"there is no {CONFIG}, which weights.present tells")
    return need(_facts(view, view.node).config, f"the model's {CONFIG}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@node_rule("weights.present")
def present(view: NodeView) -> Outcome:
    """The node has the weights of the site: a description and at least one shard."""
    facts = _facts(view, view.node)
    files = need(facts.files, "the weights")
    if not files and rank_of(view.node, view.site) is None:
        raise NotApplicableError("there are no weights yet, and nothing is deployed")
    missing = [] if CONFIG in files else [CONFIG]
    if not facts.shards:
        missing.append("*.safetensors")
    return judge(
        [f"{facts.directory} has no {name}" for name in missing],
        f"{len(facts.shards or ())} shards in {facts.directory}",
        f"{CONFIG} and the shards in {facts.directory}",
    )


@node_rule("weights.shards")
def shards(view: NodeView) -> Outcome:
    """No shard of a numbered set is missing."""
    sets: dict[tuple[str, int], set[int]] = {}
    for name in _shards(view):
        match = _NUMBERED.fullmatch(name)
        if match is not None:
            sets.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    if not sets:
        raise NotApplicableError("the shards are not numbered")
    missing = [
        f"{stem}-{number:05d}-of-{total:05d}.safetensors"
        for (stem, total), there in sorted(sets.items())
        for number in range(1, total + 1)
        if number not in there
    ]
    count = sum(total for _, total in sets)
    return judge([f"missing: {_some(missing)}"] if missing else [], f"all {count} shards", f"all {count} shards")


@node_rule("weights.index_size")
def index_size(view: NodeView) -> Outcome:
    """The shards are together at least as large as the tensors that the index promises."""
    there = _shards(view)
    if INDEX not in _files(view, view.node):
        if len(there) == 1:
            raise NotApplicableError("one shard needs no index")
        return fail(f"{len(there)} shards and no {INDEX}", f"{INDEX}")
    wanted = need(_facts(view, view.node).index_total_bytes, f"the total of {INDEX}")
    found = sum(there.values())
    if found < wanted:
        told = f"the shards have {found} of {wanted} bytes, {(wanted - found) / _GIB:.2f} GiB too few"
        return fail(told, f"at least {wanted} bytes, as {INDEX} says")
    return ok(f"{found / _GIB:.1f} GiB")


@node_rule("weights.pointers")
def pointers(view: NodeView) -> Outcome:
    """No shard is a pointer to a file that was never fetched, or empty."""
    limit = view.limits["min_bytes"]
    small = [f"{name} ({size} bytes)" for name, size in sorted(_shards(view).items()) if size < limit]
    return judge([_some(small)] if small else [], "no shard is a stub", f"shards of at least {limit:g} bytes")


@pair_rule("weights.parity")
def parity(view: PairView) -> Outcome:
    """Both nodes have the same files in the same sizes: the ranks never compare their models."""
    head, worker = (_files(view, node) for node in view.facts.nodes)
    differing = [
        f"{name}: head {_size(head, name)}, worker {_size(worker, name)}"
        for name in sorted(head.keys() | worker.keys())
        if head.get(name) != worker.get(name)
    ]
    return judge(
        [_some(differing)] if differing else [], f"{len(head)} files agree", "the same files in the same sizes"
    )


def _size(files: dict[str, int], name: str) -> str:
    return str(files[name]) if name in files else "absent"


@node_rule("weights.unfinished")
def unfinished(view: NodeView) -> Outcome:
    """Nothing is left of a download that was broken off."""
    facts = _facts(view, view.node)
    names = [*need(facts.files, "the weights"), *(facts.blobs or ())]
    left = sorted(name for name in names if name.endswith((INCOMPLETE, ".part", ".aria2", ".lock")))
    return judge([f"left over: {_some(left)}"] if left else [], "nothing unfinished", "no unfinished download")


@node_rule("weights.ref")
def ref(view: NodeView) -> Outcome:
    """refs/main of the hub cache names the pinned commit, in forty characters and no newline."""
    hub = view.site.model.hub
    if hub is None:
        raise NotApplicableError("the weights are not in a hub cache")
    facts = _facts(view, view.node)
    if not facts.ref_known:
        raise FactMissingError("refs/main could not be read")
    if not facts.files:
        raise NotApplicableError("there are no weights yet")
    expected = f"{hub.revision}, without a newline"
    if facts.ref is None:
        return fail("there is no refs/main", expected)
    if facts.ref == hub.revision:
        return ok(hub.revision[:12])
    if facts.ref.strip() == hub.revision:
        return fail(f"refs/main has {len(facts.ref.encode())} bytes: something stands around the commit", expected)
    return fail(f"refs/main is {facts.ref.strip()[:40]!r}", expected)


@node_rule("weights.record")
def record(view: NodeView) -> Outcome:
    """Every file has the size that the fetch recorded for the pinned commit."""
    if view.site.model.hub is None:
        raise NotApplicableError("the weights are not kept by us")
    files = _files(view, view.node)
    facts = _facts(view, view.node)
    if facts.record_error is not None:
        return fail(f"the record of the weights is no use: {facts.record_error}", "a record of the pinned commit")
    if facts.recorded is None:
        return fail("there is no record of the weights", "a record of the pinned commit")
    wrong = [
        f"{name} {files[name]} of {size} bytes" if name in files else f"{name} missing"
        for name, size in sorted(facts.recorded.items())
        if files.get(name) != size
    ]
    return judge([_some(wrong)] if wrong else [], f"{len(facts.recorded)} files as recorded", "every file as recorded")


@node_rule("weights.tokenizer")
def tokenizer(view: NodeView) -> Outcome:
    """The tokenizer lies beside the weights."""
    files = _files(view, view.node)
    missing = [name for name in ("tokenizer.json", "tokenizer_config.json") if name not in files]
    return judge([f"missing: {', '.join(missing)}"] if missing else [], "it is there", "the tokenizer's two files")


@node_rule("weights.model_type")
def model_type(view: NodeView) -> Outcome:
    """The weights are of the model family that the profile serves."""
    if not view.profile.gpu:
        raise NotApplicableError(f"profile {view.profile.name} serves a model of its own")
    found = need(_config(view).model_type, f"model_type of {CONFIG}")
    return ok(found) if found.startswith("deepseek_v4") else fail(f"model_type is {found}", "deepseek_v4")


@node_rule("weights.draft")
def draft(view: NodeView) -> Outcome:
    """The weights bring the draft that the site's speculation needs."""
    method = view.site.serve.speculative.method
    if method not in ("dspark", "mtp"):
        raise NotApplicableError("the site's speculation needs no draft in the weights")
    config = _config(view)
    if config.draft_layers is None:
        raise NotApplicableError(f"{CONFIG} does not say how many draft layers there are")
    if config.draft_layers == 0:
        return fail(f"{CONFIG} names no draft layers", f"weights with the draft that {method} needs")
    return ok(f"{config.draft_layers} draft layers")


@node_rule("weights.context")
def context(view: NodeView) -> Outcome:
    """The served context is one that the weights' positions were scaled for."""
    limit = need(_config(view).context_tokens, f"the context length of {CONFIG}")
    wanted = view.site.serve.max_model_len
    if wanted > limit:
        return fail(f"serve.max_model_len is {wanted}", f"at most {limit}, as {CONFIG} says")
    return ok(f"{wanted} of {limit} tokens")
