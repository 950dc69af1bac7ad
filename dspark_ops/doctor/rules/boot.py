"""The start of a rank, by its own log: what stopped it, and what it came up with."""

from __future__ import annotations

import re

from dspark_ops.doctor.logs.seen import READY, head_view, hit_of, log_of, start_lost, started_s, unseen, whole
from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, need, ok
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.ranks import arguments
from dspark_ops.facts.log_hits import LogHit

_TOKENS = re.compile(r"KV cache size: ([\d,]{1,20}) tokens")
_MOE = re.compile(r"Using '?([A-Za-z0-9_]{1,40})'? (?:Mxfp4 )?MoE backend")


@node_rule("boot.port_free")
def port_free(view: NodeView) -> Outcome:
    """Neither the API's port nor the rendezvous port was taken."""
    return unseen(view, "boot.port_free", "no port was taken", "ports that nobody else listens on", start=True)


@node_rule("boot.weights_found")
def weights_found(view: NodeView) -> Outcome:
    """The weights were where the rank looked for them."""
    return unseen(view, "boot.weights_found", "the weights were found", "the weights on both nodes", start=True)


@node_rule("boot.files_readable")
def files_readable(view: NodeView) -> Outcome:
    """No file was refused to the rank."""
    return unseen(view, "boot.files_readable", "no file was refused", "files that the rank may use", start=True)


@node_rule("boot.tokenizer_found")
def tokenizer_found(view: NodeView) -> Outcome:
    """The tokenizer was there and whole."""
    return unseen(view, "boot.tokenizer_found", "the tokenizer was found", "the model's tokenizer", start=True)


@node_rule("boot.shard_whole")
def shard_whole(view: NodeView) -> Outcome:
    """Every file of the weights could be opened."""
    return unseen(view, "boot.shard_whole", "every file could be opened", "files that are whole", start=True)


@node_rule("boot.weight_names")
def weight_names(view: NodeView) -> Outcome:
    """The loader knew every tensor."""
    return unseen(view, "boot.weight_names", "every tensor is known", "a loader for this checkpoint", start=True)


@node_rule("boot.code_whole")
def code_whole(view: NodeView) -> Outcome:
    """No module of the image is of another version than the rest."""
    return unseen(view, "boot.code_whole", "the code fits together", "one version of the code", start=True)


@node_rule("boot.attention_backend")
def attention_backend(view: NodeView) -> Outcome:
    """The image knows the attention backend."""
    return unseen(view, "boot.attention_backend", "the backend is known", "a name that this image knows", start=True)


@node_rule("boot.model_runner")
def model_runner(view: NodeView) -> Outcome:
    """The model runner that was chosen can do what was asked for."""
    return unseen(view, "boot.model_runner", "the runner fits", "the runner that this release needs", start=True)


@node_rule("boot.kernel_build")
def kernel_build(view: NodeView) -> Outcome:
    """Every kernel that was needed could be built."""
    return unseen(view, "boot.kernel_build", "no kernel failed to build", "kernels that build on this node", start=True)


@node_rule("boot.free_memory")
def free_memory(view: NodeView) -> Outcome:
    """The memory that the rank asks for was free."""
    return unseen(view, "boot.free_memory", "the memory was free", "the memory free at the start", start=True)


@node_rule("boot.shared_memory")
def shared_memory(view: NodeView) -> Outcome:
    """The shared memory of the container was large enough."""
    return unseen(
        view, "boot.shared_memory", "the shared memory was large enough", "room in the shared memory", start=True
    )


@node_rule("boot.kv_cache_fits")
def kv_cache_fits(view: NodeView) -> Outcome:
    """A request of the full length fits into the KV cache."""
    return unseen(
        view, "boot.kv_cache_fits", "the KV cache was made", "room for one request of full length", start=True
    )


@node_rule("boot.kv_specs_agree")
def kv_specs_agree(view: NodeView) -> Outcome:
    """Both ranks have the same type of KV cache."""
    return unseen(view, "boot.kv_specs_agree", "no difference was told", "one type of KV cache", start=True)


@node_rule("boot.gloo_interface")
def gloo_interface(view: NodeView) -> Outcome:
    """Gloo found its network device and the other rank."""
    return unseen(view, "boot.gloo_interface", "Gloo found its device", "a rail's device on this node", start=True)


@node_rule("boot.host_address")
def host_address(view: NodeView) -> Outcome:
    """The rank listens on an address of its own node."""
    return unseen(view, "boot.host_address", "the address is this node's", "VLLM_HOST_IP of this node", start=True)


@node_rule("boot.rank_role")
def rank_role(view: NodeView) -> Outcome:
    """The worker did not take itself for the first rank."""
    if view.role == "head":
        raise NotApplicableError("the head is the first rank")
    return unseen(view, "boot.rank_role", "it was started as the worker", "--node-rank 1 on the worker", start=True)


@node_rule("boot.rendezvous")
def rendezvous(view: NodeView) -> Outcome:
    """The ranks met before the time limit."""
    return unseen(view, "boot.rendezvous", "nobody waited in vain", "both ranks at the rendezvous", start=True)


@node_rule("boot.ready_in_time")
def ready_in_time(view: NodeView) -> Outcome:
    """The engine was ready before its API server gave up."""
    return unseen(view, "boot.ready_in_time", "the limit was long enough", "a limit above the real time", start=True)


@node_rule("boot.graph_sizes")
def graph_sizes(view: NodeView) -> Outcome:
    """No size of CUDA graph was left out."""
    return unseen(view, "boot.graph_sizes", "no size was left out", "every reachable size captured", start=True)


@node_rule("boot.reasoning_tokens")
def reasoning_tokens(view: NodeView) -> Outcome:
    """The reasoning parser has its tokens."""
    return unseen(view, "boot.reasoning_tokens", "no complaint of the parser", "begin and end token given", start=True)


@node_rule("boot.variables_known")
def variables_known(view: NodeView) -> Outcome:
    """No VLLM_ variable is unknown to this vLLM."""
    return unseen(view, "boot.variables_known", "every variable is known", "variables of this release", start=True)


@node_rule("boot.graphs_captured")
def graphs_captured(view: NodeView) -> Outcome:
    """CUDA graphs were captured, where they were not given up on purpose."""
    if "--enforce-eager" in arguments(view.rank().args):
        raise NotApplicableError("the rank was told to run without graphs (--enforce-eager)")
    outcome = unseen(view, "boot.graphs_captured", "graphs were captured", "captured CUDA graphs", start=True)
    if outcome.status == "ok" and hit_of(view, "graphs_captured") is None:
        raise NotApplicableError("no line of the log tells of graphs")
    return outcome


@node_rule("boot.draft_weights")
def draft_weights(view: NodeView) -> Outcome:
    """No tensor of the draft model was skipped; told at level DEBUG only."""
    outcome = unseen(view, "boot.draft_weights", "no tensor was skipped", "every tensor loaded", start=True)
    if outcome.status == "ok" and view.rank().env.get("VLLM_LOGGING_LEVEL") != "DEBUG":
        raise NotApplicableError("told at level DEBUG only, and the rank logs less; the acceptance rate shows it too")
    return outcome


@node_rule("boot.moe_backend")
def moe_backend(view: NodeView) -> Outcome:
    """The kernels of the experts are those of --moe-backend."""
    wanted = next(iter(arguments(view.rank().args).get("--moe-backend", ())), "auto")
    if wanted == "auto":
        raise NotApplicableError("no kernels were asked for (--moe-backend)")
    log, hit = log_of(view), hit_of(view, "moe_backend")
    if hit is None:
        whole(view, log, start=True)
        raise NotApplicableError("no line of the log tells which kernels the experts have")
    found = _MOE.search(hit.last.text)
    name = need(found, "the name of the kernels in the log")[1]
    expected = f"{wanted}, as --moe-backend says"
    if not name.lower().startswith(wanted.lower().replace("-", "_")):
        return fail(f"the experts run on {name}", expected, evidence=hit.last.text)
    return ok(f"the experts run on {name}")


@pair_rule("boot.kv_cache_tokens")
def kv_cache_tokens(view: PairView) -> Outcome:
    """The KV cache that the head printed holds a request of the site's full length."""
    head = head_view(view)
    log, hit = log_of(head), hit_of(head, "kv_tokens")
    if hit is None:
        whole(head, log, start=True)
        raise NotApplicableError("no line of the log tells the size of the KV cache")
    found = need(_TOKENS.search(hit.last.text), "the size of the KV cache in the log")
    tokens, length = int(found[1].replace(",", "")), view.site.serve.max_model_len
    wanted = view.limits["requests"]
    if tokens < wanted * length:
        return fail(
            f"the KV cache holds {tokens} tokens, {tokens / length:.2f} requests of {length}",
            f"at least {wanted:g} of full length",
            evidence=hit.last.text,
        )
    return ok(f"{tokens} tokens, {tokens / length:.2f} requests of full length")


@pair_rule("boot.finished")
def finished(view: PairView) -> Outcome:
    """The head's API is ready, or its start is young enough to be still going on."""
    head = head_view(view)
    rank = head.running_rank()
    log = log_of(head)
    if hit_of(head, READY) is not None:
        return ok("the API is ready")
    if start_lost(head):
        raise NotApplicableError("the start is no longer in the rank's log")
    whole(head, log)
    age = need(view.facts.head.clock_s, "the head's clock") - need(started_s(rank), "the start of the head's rank")
    limit = view.limits["start_s"]
    if age <= limit:
        raise NotApplicableError(f"the start goes on since {age:.0f} s")
    return fail(f"started {age:.0f} s ago and not ready, without an error", f"ready within {limit:.0f} s")


@node_rule("boot.succeeded")
def succeeded(view: NodeView) -> Outcome:
    """The rank did not end before the API of the pair was ready."""
    rank = view.rank()
    if rank.running:
        return ok("the rank runs")
    if rank.ended_in_order:
        raise NotApplicableError("the rank was asked to end")
    head = head_view(view)
    log = log_of(head)
    if hit_of(head, READY) is not None:
        return ok("it ended after the API had been ready")
    if start_lost(head):
        raise NotApplicableError("the start is no longer in the head's log")
    whole(head, log)
    code = need(rank.exit_code, "the exit code of the rank")
    return fail(f"the rank ended with {code} before the API was ready", "a start that comes to its end")


@node_rule("boot.restart_loop")
def restart_loop(view: NodeView) -> Outcome:
    """The container was not started again and again: by Docker's own count, or within a short time by its log."""
    rank, log = view.rank(), log_of(view)
    limit, within_s = int(view.limits["starts"]), view.limits["within_s"]
    starts = 1 + need(rank.restart_count, "Docker's count of restarts")
    begun = [hit for name in ("engine_begins", "rank_begins") if (hit := log.hit(name)) is not None]
    starts = max([starts, *(hit.count for hit in begun if _crowded(hit, limit, within_s))])
    if starts >= limit:
        return fail(f"started {starts} times in one container", f"fewer than {limit} starts in {within_s:.0f} s")
    total = max([starts, *(hit.count for hit in begun)])
    return ok("not restarted" if total == 1 else f"started {total} times, far apart")


def _crowded(hit: LogHit, limit: int, within_s: float) -> bool:
    """The last starts lie close together; where their times are not told, their number is enough."""
    moments = [line.at_s for line in hit.lines[-limit:] if line.at_s is not None]
    return hit.count >= limit and (len(moments) < limit or moments[-1] - moments[0] <= within_s)
