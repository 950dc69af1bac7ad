"""Rules across fields of a Site. Each is pure, has an id, and names the key that an operator would change."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network
from itertools import combinations

from dspark_ops.config.deploy_invariants import DEPLOY_INVARIANTS
from dspark_ops.config.engine_invariants import ENGINE_INVARIANTS
from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.config.problem import Invariant, Problem

PLACEHOLDER_IMAGE_ID = "sha256:" + "0" * 64


def nodes_differ(site: Site, _profile: Profile) -> Iterator[Problem]:
    head, worker = (site.nodes.of(role).host.lower().rstrip(".") for role in ROLES)
    if head == worker:
        yield Problem(
            "cfg.same_host",
            "nodes.worker.host",
            f"head and worker are the same host {site.nodes.worker.host!r}; expected two machines",
        )


def rail_ends_share_a_subnet(site: Site, _profile: Profile) -> Iterator[Problem]:
    for index, rail in enumerate(site.fabric.rails):
        key = f"fabric.rails.{index}.worker.address"
        head, worker = rail.head.address, rail.worker.address
        if head.network != worker.network:
            yield Problem(
                "cfg.rail_subnet",
                key,
                f"rail {rail.name}: head {head} and worker {worker} are in different subnets; expected one",
            )
        elif head.ip == worker.ip:
            yield Problem("cfg.rail_same_address", key, f"rail {rail.name}: both ends have the address {head.ip}")


def rail_subnets_are_separate(site: Site, _profile: Profile) -> Iterator[Problem]:
    """Two NICs of a node in one subnet make routes ambiguous; NCCL then hangs or uses one rail."""
    for (_, first), (index, second) in combinations(enumerate(site.fabric.rails), 2):
        networks = _networks(first.head.address.network, first.worker.address.network)
        others = _networks(second.head.address.network, second.worker.address.network)
        for ours, theirs in ((a, b) for a in networks for b in others if a.overlaps(b)):
            yield Problem(
                "cfg.rail_overlap",
                f"fabric.rails.{index}.head.address",
                f"rail {second.name}'s subnet {theirs} overlaps rail {first.name}'s {ours}; expected one subnet a rail",
            )
            break


def _networks(*networks: IPv4Network) -> tuple[IPv4Network, ...]:
    return tuple(dict.fromkeys(networks))


def rail_addresses_are_usable(site: Site, _profile: Profile) -> Iterator[Problem]:
    for key, role, rail_name, address in _rail_addresses(site):
        network, ip = address.network, address.ip
        what = None
        if network.prefixlen < 31 and ip == network.network_address:
            what = f"the network address of {network}"
        elif network.prefixlen < 31 and ip == network.broadcast_address:
            what = f"the broadcast address of {network}"
        elif ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
            what = "not an address that a port can have"
        if what is not None:
            yield Problem("cfg.rail_address", key, f"rail {rail_name}: {role} address {ip} is {what}")
        elif ip.is_link_local:
            yield Problem(
                "cfg.rail_link_local",
                key,
                f"rail {rail_name}: {ip} is link-local; twins then share a subnet, a static private subnet is expected",
                "note",
            )


def _rail_addresses(site: Site) -> Iterator[tuple[str, Role, str, IPv4Interface]]:
    for index, rail in enumerate(site.fabric.rails):
        for role in ROLES:
            yield f"fabric.rails.{index}.{role}.address", role, rail.name, rail.of(role).address


def rail_names_are_unique(site: Site, _profile: Profile) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, rail in enumerate(site.fabric.rails):
        if rail.name in seen:
            yield Problem("cfg.rail_name", f"fabric.rails.{index}.name", f"the rail name {rail.name!r} is used twice")
        seen.add(rail.name)


def rail_ports_are_unique(site: Site, _profile: Profile) -> Iterator[Problem]:
    for role in ROLES:
        seen: dict[tuple[str, str], str] = {}
        for index, rail in enumerate(site.fabric.rails):
            end = rail.of(role)
            for kind, value in (("netdev", end.netdev), ("hca", end.hca)):
                if value is None:
                    continue
                if (kind, value) in seen:
                    first = seen[kind, value]
                    yield Problem(
                        f"cfg.rail_{kind}",
                        f"fabric.rails.{index}.{role}.{kind}",
                        f"{role}: {kind} {value} carries rail {first} and rail {rail.name}; expected one rail a port",
                    )
                seen.setdefault((kind, value), rail.name)


def rails_come_in_pairs(site: Site, _profile: Profile) -> Iterator[Problem]:
    """Each PCIe half of a cage carries about 110 Gb/s; one twin alone leaves half of the cable unused."""
    count = len(site.fabric.rails)
    if count % 2:
        yield Problem(
            "cfg.rail_count",
            "fabric.rails",
            f"{count} rail{'s' if count > 1 else ''}; a cable has two (its twins), one alone fills half of it",
            "note",
        )


def mtu_is_jumbo(site: Site, _profile: Profile) -> Iterator[Problem]:
    mtu = site.fabric.mtu
    if mtu < 4192:
        text = f"MTU {mtu} makes the RoCE MTU smaller than 4096 (4192 is needed); 9000 is expected on the rails"
        yield Problem("cfg.mtu", "fabric.mtu", text, "note")
    elif mtu != 9000:
        yield Problem("cfg.mtu", "fabric.mtu", f"MTU {mtu}; every measurement was made with 9000", "note")


def gid_index_is_unset(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.fabric.gid_index is not None:
        yield Problem(
            "cfg.gid_index",
            "fabric.gid_index",
            f"pins NCCL_IB_GID_INDEX={site.fabric.gid_index}; indexes move; unset, NCCL finds the right one",
            "note",
        )


def management_is_not_a_rail(site: Site, _profile: Profile) -> Iterator[Problem]:
    """A network change on the rail would cut the session that makes it."""
    rails = {str(address.ip): name for _, _, name, address in _rail_addresses(site)}
    for role in ROLES:
        host = site.nodes.of(role).host
        if host in rails:
            yield Problem(
                "cfg.host_on_rail",
                f"nodes.{role}.host",
                f"{host} is the address of rail {rails[host]}; expected the management address, rails are reconfigured",
            )


def ports_differ(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.serve.api_port == site.serve.master_port:
        yield Problem(
            "cfg.port_clash",
            "serve.master_port",
            f"api_port and master_port are both {site.serve.api_port}; the head listens on both",
        )


def speculation_is_legal(site: Site, profile: Profile) -> Iterator[Problem]:
    speculative = site.serve.speculative
    base = "serve.speculative"
    if speculative.method == "none":
        for name in ("tokens", "draft_model", "draft_sample_method"):
            if getattr(speculative, name) is not None:
                yield Problem(
                    "cfg.speculative_unused",
                    f"{base}.{name}",
                    f"{name} is set while method is none; set a method or null",
                )
        return
    legal = profile.legal_k.get(speculative.method)
    if legal is None:
        known = ", ".join(["none", *profile.legal_k])
        yield Problem(
            "cfg.speculative_method",
            f"{base}.method",
            f"profile {profile.name} does not support {speculative.method}; expected one of {known}",
        )
    elif speculative.tokens not in legal:
        got = "it is missing" if speculative.tokens is None else f"got {speculative.tokens}"
        options = ", ".join(str(k) for k in legal)
        yield Problem(
            "cfg.k_illegal",
            f"{base}.tokens",
            f"k for {speculative.method} under profile {profile.name} is one of {options}; {got}",
        )
    if speculative.method == "draft_model" and speculative.draft_model is None:
        yield Problem("cfg.draft_model", f"{base}.draft_model", "method draft_model needs the draft model's path")
    if speculative.method != "draft_model" and speculative.draft_model is not None:
        yield Problem(
            "cfg.speculative_unused",
            f"{base}.draft_model",
            f"draft_model is set while method is {speculative.method}, which brings its own draft; set null",
        )


def kv_budget_is_one_number(site: Site, profile: Profile) -> Iterator[Problem]:
    utilisation, memory = site.serve.gpu_memory_utilization, site.serve.kv_cache_memory_mib
    if utilisation is not None and memory is not None:
        yield Problem(
            "cfg.kv_budget",
            "serve.kv_cache_memory_mib",
            "gpu_memory_utilization and kv_cache_memory_mib are both set; the engine obeys one, set the other to null",
        )
    if profile.gpu and utilisation is None and memory is None:
        yield Problem(
            "cfg.kv_budget",
            "serve.gpu_memory_utilization",
            "gpu_memory_utilization and kv_cache_memory_mib are both unset; the engine would take 0.9 of all memory",
        )


def batch_sizes_fit(site: Site, profile: Profile) -> Iterator[Problem]:
    serve = site.serve
    tokens = serve.max_num_batched_tokens
    key = "serve.max_num_batched_tokens"
    if tokens is None:
        return
    if tokens < serve.max_num_seqs:
        text = f"{tokens} is below max_num_seqs {serve.max_num_seqs}; the engine refuses to start"
        yield Problem("cfg.batched_tokens", key, text)
    if "--no-enable-chunked-prefill" in profile.serve_args and tokens < serve.max_model_len:
        text = (
            f"{tokens} is below max_model_len {serve.max_model_len} without chunked prefill; the engine will not start"
        )
        yield Problem("cfg.batched_tokens", key, text)
    if tokens > serve.max_num_seqs * serve.max_model_len:
        text = (
            f"{tokens} is more than max_num_seqs x max_model_len = {serve.max_num_seqs * serve.max_model_len} can fill"
        )
        yield Problem("cfg.batched_tokens", key, text, "note")


def image_is_named(site: Site, _profile: Profile) -> Iterator[Problem]:
    if site.image.id == PLACEHOLDER_IMAGE_ID:
        yield Problem(
            "cfg.image_placeholder",
            "image.id",
            "is the example's placeholder; `docker image inspect --format {{.Id}} REFERENCE` prints the real one",
            "note",
        )


INVARIANTS: tuple[Invariant, ...] = (
    nodes_differ,
    management_is_not_a_rail,
    rail_names_are_unique,
    rail_ports_are_unique,
    rail_addresses_are_usable,
    rail_ends_share_a_subnet,
    rail_subnets_are_separate,
    rails_come_in_pairs,
    mtu_is_jumbo,
    gid_index_is_unset,
    image_is_named,
    *DEPLOY_INVARIANTS,
    ports_differ,
    batch_sizes_fit,
    kv_budget_is_one_number,
    speculation_is_legal,
    *ENGINE_INVARIANTS,
)

__all__ = ["INVARIANTS", "PLACEHOLDER_IMAGE_ID", "Problem", "check_site"]


def check_site(site: Site, profile: Profile) -> tuple[Problem, ...]:
    """Every problem of every rule, in the order of the file's sections."""
    return tuple(problem for invariant in INVARIANTS for problem in invariant(site, profile))
