"""The API of the head: hints of health, and the completion that proves it."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, fail, judge, need, ok, rank_of
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.facts.service import ServiceFacts, api_url


def serving(view: PairView) -> ServiceFacts:
    """What the API answered.

    Raises:
        FactMissingError: it was not asked.
        NotApplicableError: the head's rank does not run, so nobody should answer.
    """
    _should_listen(view)
    service = need(view.facts.head.service, "the API")
    need(service.asked or None, "the API")
    return service


def _should_listen(view: PairView) -> None:
    """Nothing, where the head's rank runs.

    Raises:
        NotApplicableError: it does not.
    """
    rank = rank_of(view.facts.head, view.site)
    if rank is None:
        raise NotApplicableError("nothing is deployed on the head")
    if not rank.running:
        raise NotApplicableError(f"the head's rank does not run (container {rank.state})")


def answering(view: PairView) -> ServiceFacts:
    """As `serving`, and the API answers at all; that it does not is the business of service.health."""
    service = serving(view)
    if service.health_status is None:
        raise NotApplicableError("the API does not answer")
    return service


@pair_rule("service.health")
def health(view: PairView) -> Outcome:
    """`/health` of the head answers 200."""
    service = serving(view)
    url = f"{api_url(view.site)}/health"
    if service.health_status == 200:
        return ok(f"{url} answers 200")
    if service.health_status is None:
        return fail(f"{url} does not answer: {service.health_error or 'no reason given'}", "200")
    return fail(f"{url} answers {service.health_status}", "200")


@pair_rule("service.models_endpoint")
def models_endpoint(view: PairView) -> Outcome:
    """`/v1/models` names the site's model with the site's context length."""
    models = need(answering(view).models, "/v1/models")
    name, length = view.site.model.served_name, view.site.serve.max_model_len
    found = next((model for model in models if model.id == name), None)
    expected = f"{name} with {length} tokens"
    if found is None:
        return fail(f"the API serves {', '.join(m.id for m in models) or 'no model'}", expected)
    if need(found.max_model_len, "max_model_len of /v1/models") != length:
        return fail(f"{name} is served with {found.max_model_len} tokens", expected)
    return ok(expected)


@pair_rule("service.engine_version")
def engine_version(view: PairView) -> Outcome:
    """The running vLLM is the one that the profile was made for."""
    version = need(answering(view).version, "/version")
    wanted = view.profile.vllm
    # A build adds its own suffix: 0.32.0+cpu is 0.32.0.
    if version.split("+")[0] == wanted:
        return ok(f"vLLM {version}")
    return fail(f"vLLM {version} runs", f"{wanted}, as profile {view.profile.name}")


@pair_rule("service.exposure")
def exposure(view: PairView) -> Outcome:
    """The API listens where the site says, and nowhere wider."""
    _should_listen(view)  # by its sockets alone: that nobody asked the API is the business of service.health
    listeners = need(view.facts.head.listeners, "the listening ports of the head")
    port, wanted = view.site.serve.api_port, view.site.serve.api_host
    found = [item for item in listeners if item.port == port]
    if not found:
        raise NotApplicableError(f"nothing listens on port {port}")
    if wanted.is_unspecified:
        return ok(f"port {port} is open on every interface, as the site says")
    problems = [
        f"port {port} listens on {'every interface' if item.on_all else item.address}"
        for item in found
        if item.address != str(wanted)
    ]
    return judge(problems, f"{wanted}:{port}", f"{wanted} only (serve.api_host)")


@pair_rule("service.canary")
def canary(view: PairView) -> Outcome:
    """A completion with known text comes back right: the only proof that both ranks compute."""
    service = serving(view)
    need(service.canary_asked or None, "the completion")
    wanted = view.profile.canary.expect
    if service.canary is None:
        return fail(f"no completion: {service.canary_error or 'no reason given'}", f"{wanted!r} in the answer")
    if wanted not in service.canary:
        return fail(f"the completion is {service.canary[:200]!r}", f"{wanted!r} in the answer")
    return ok("the completion is right")
