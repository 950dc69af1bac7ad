"""From what was found on two nodes to a site that the catalogue can judge by. Nothing is wished for: it says what is.

What cannot be told is named in the findings of the pair, and what the site's shape demands all the same stands there
as a placeholder that no check is judged by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_address
from pathlib import Path
from typing import Any

from dspark_ops.config.discover import NodeSeen
from dspark_ops.config.load import LoadedSite, load_profile, profile_names
from dspark_ops.config.models import ROLES, ImageSite, Profile, RailEnd, RailSite, Role, ServeSite, Site
from dspark_ops.doctor.foreign.command_line import ServerLine, read_argv, read_shell_text
from dspark_ops.doctor.foreign.model import FoundNode, FoundPair, FoundServer
from dspark_ops.errors import RefusedError
from dspark_ops.fabric.cabling import sightings
from dspark_ops.fabric.ports import FabricPort
from dspark_ops.fabric.rails import PortPair, pair_ports

#: The provisional site's name; nothing on the nodes carries it.
NAME = "found"
NO_IMAGE = "sha256:" + "0" * 64
_PLACEHOLDER = (IPv4Interface("192.0.2.1/30"), IPv4Interface("192.0.2.2/30"))
_NO_NETDEV = "rail-unknown"
_IMAGE_NAME = re.compile(r"\S+:[\w][\w.-]{0,127}")


@dataclass(frozen=True)
class FoundRails:
    """The rails as they are. invented: addresses of rails that have none; why_not: they could not be told at all."""

    rails: tuple[RailSite, ...]
    invented: tuple[str, ...] = ()
    why_not: str | None = None
    notes: tuple[str, ...] = ()


def build(
    hosts: Mapping[Role, str],
    found: Mapping[Role, FoundNode],
    seen: Mapping[Role, NodeSeen] | None,
    images: Mapping[Role, str | None],
    *,
    ssh_config: Path | None = None,
    connect_timeout_s: float = 10.0,
    swapped: bool = False,
) -> tuple[LoadedSite, FoundPair]:
    """The provisional site and what it rests on. seen: both nodes' ports; None where one was not reached.

    images: by role, the id of the image that the found container runs.
    """
    lines = {role: line_of(found[role].server) for role in ROLES}
    head = lines["head"] or lines["worker"]
    profile = choose_profile(head, seen)
    rails = rails_of(seen, _meeting_point(head))
    image_id = images["head"] or images["worker"]
    serve, unsaid = _serve(head, profile)
    document: dict[str, Any] = {
        "name": NAME,
        "profile": profile.name,
        "ssh": {"config": None if ssh_config is None else str(ssh_config), "connect_timeout_s": connect_timeout_s},
        "nodes": {role: {"host": hosts[role]} for role in ROLES},
        "fabric": {"rails": [rail.model_dump(mode="json") for rail in rails.rails]},
        "image": _image(found, image_id).model_dump(mode="json"),
        "model": _model(head, profile),
        "serve": {},
    }
    document["serve"] = {name: value for name, value in _bounded(serve).items() if value is not None}
    if "guards" in profile.site:
        document["guards"] = profile.site["guards"]
    site = Site.model_validate(document)
    # As it is, even where dspark-ops itself would refuse to serve so.
    site = site.model_copy(update={"serve": site.serve.model_copy(update=_beyond(serve, site.serve))})
    pair = FoundPair(
        head=found["head"],
        worker=found["worker"],
        profile=profile.name,
        swapped=swapped,
        rails_known=rails.why_not is None,
        why_no_rails=rails.why_not,
        invented=rails.invented,
        unsaid=tuple(unsaid),
        off_rail=_off_rail(head, rails),
        other_model=_other_model(head),
        closed="the API speaks TLS"
        if any(line is not None and line.has("--ssl-certfile") for line in lines.values())
        else None,
        notes=(*rails.notes, *_notes(found, lines)),
    )
    return LoadedSite(site, profile, Path(f"{hosts['head']}+{hosts['worker']}"), {}), pair


def line_of(server: FoundServer | None) -> ServerLine | None:
    """The command line of a found server, read again."""
    return None if server is None else read_argv(server.argv) or read_shell_text(" ".join(server.argv))


def choose_profile(line: ServerLine | None, seen: Mapping[Role, NodeSeen] | None) -> Profile:
    """The profile that is nearest to what runs: by speculation, then by the KV cache's type."""
    if seen is not None and all(node.rehearsed for node in seen.values()):
        return load_profile("rehearsal")
    spoken = line.speculative if line is not None else {}
    method, dtype = spoken.get("method"), line.text("--kv-cache-dtype") if line is not None else None
    ranked: list[tuple[int, str]] = []
    for name in profile_names():
        wanted: Any = load_profile(name).site.get("serve", {})
        if not load_profile(name).gpu:
            continue
        same = 2 * ((wanted.get("speculative") or {}).get("method") == method) + (wanted.get("kv_cache_dtype") == dtype)
        ranked.append((-same, "" if name == "current" else name))
    return load_profile(min(ranked)[1] or "current")


def rails_of(seen: Mapping[Role, NodeSeen] | None, meeting_point: IPv4Address | None) -> FoundRails:
    """The rails by cable and link, with the addresses that are there; the one over which the ranks meet first."""
    if seen is None:
        return _no_rails("not both nodes were reached")
    ports = {role: seen[role].ports() for role in ROLES}
    try:
        pairing = pair_ports(ports["head"], ports["worker"], sightings(ports, seen))
    except RefusedError as error:
        return _no_rails(error.message)
    addressed = [(pair, ends) for pair in pairing.pairs if (ends := _common(pair)) is not None]
    if not addressed:
        bare = [
            _rail(pair, (IPv4Interface(f"192.0.2.{4 * n + 1}/30"), IPv4Interface(f"192.0.2.{4 * n + 2}/30")))
            for n, pair in enumerate(pairing.pairs)
        ]
        invented = tuple(str(rail.of(role).address.ip) for rail in bare for role in ROLES)
        note = "no rail has addresses of one subnet at both ends, so what depends on them is not judged"
        return FoundRails(tuple(bare), invented, None, (*pairing.notes, note))
    addressed.sort(key=lambda item: meeting_point is None or item[1][0].ip != meeting_point)
    idle = [p.head.label for p in pairing.pairs if all(p is not q for q, _ in addressed)]
    notes = [f"rail {', '.join(idle)} has no addresses of one subnet at both ends and is left out"] if idle else []
    return FoundRails(tuple(_rail(pair, ends) for pair, ends in addressed), (), None, (*pairing.notes, *notes))


def _no_rails(why: str) -> FoundRails:
    end = {
        role: RailEnd(netdev=_NO_NETDEV, hca=None, address=address)
        for role, address in zip(ROLES, _PLACEHOLDER, strict=True)
    }
    rail = RailSite(name="unknown", head=end["head"], worker=end["worker"])
    return FoundRails((rail,), (*(str(a.ip) for a in _PLACEHOLDER), _NO_NETDEV), why)


def _rail(pair: PortPair, ends: tuple[IPv4Interface, IPv4Interface]) -> RailSite:
    return RailSite(
        name=pair.head.label,
        head=RailEnd(netdev=pair.head.netdev, hca=pair.head.hca, address=ends[0]),
        worker=RailEnd(netdev=pair.worker.netdev, hca=pair.worker.hca, address=ends[1]),
    )


def _common(pair: PortPair) -> tuple[IPv4Interface, IPv4Interface] | None:
    """The first addresses of both ends that share a network."""
    for ours in _usable(pair.head):
        for theirs in _usable(pair.worker):
            if ours.network == theirs.network and ours.ip != theirs.ip:
                return ours, theirs
    return None


def _usable(port: FabricPort) -> list[IPv4Interface]:
    return [address for address in port.addresses if address.network.prefixlen <= 31 and not address.ip.is_loopback]


def _meeting_point(line: ServerLine | None) -> IPv4Address | None:
    try:
        return IPv4Address((line.text("--master-addr") if line is not None else None) or "")
    except ValueError:
        return None


def _off_rail(line: ServerLine | None, rails: FoundRails) -> str | None:
    """The address at which the ranks meet, where it is that of no rail."""
    told = line.text("--master-addr") if line is not None else None
    ends = {str(rail.head.address.ip) for rail in rails.rails}
    return told if told is not None and rails.why_not is None and not rails.invented and told not in ends else None


def _serve(line: ServerLine | None, profile: Profile) -> tuple[dict[str, Any], list[str]]:
    """The site's `serve` as the command line says it, and which keys it does not say."""
    defaults: Any = profile.site.get("serve", {})
    if line is None:
        return dict(defaults), []
    said: dict[str, Any] = {
        "api_host": _host(line.text("--host")),
        "api_port": line.whole("--port") or 8000,
        "master_port": line.whole("--master-port") or 29501,
        "max_model_len": line.whole("--max-model-len"),
        "max_num_seqs": line.whole("--max-num-seqs"),
        "max_num_batched_tokens": line.whole("--max-num-batched-tokens"),
        "kv_cache_dtype": line.text("--kv-cache-dtype") or "auto",
        "gpu_memory_utilization": line.number("--gpu-memory-utilization"),
        "kv_cache_memory_mib": None if (n := line.whole("--kv-cache-memory-bytes")) is None else n >> 20,
        "distributed_timeout_s": line.whole("--distributed-timeout-seconds"),
        "speculative": _speculative(line),
    }
    unsaid = [name for name in ("max_model_len", "max_num_seqs") if said[name] is None]
    for name in unsaid:
        said[name] = defaults.get(name)
    return said, unsaid


def _speculative(line: ServerLine) -> dict[str, Any]:
    told = line.speculative
    method, tokens = told.get("method"), told.get("num_speculative_tokens")
    if method not in ("dspark", "mtp", "draft_model"):
        return {"method": "none"}
    number = int(tokens) if isinstance(tokens, int | str) and str(tokens).isdecimal() else None
    sampled = told.get("draft_sample_method")
    draft = told.get("model")
    return {
        "method": method,
        "tokens": number if number is not None and 1 <= number <= 32 else None,
        "draft_model": draft if isinstance(draft, str) and draft.startswith("/") else None,
        "draft_sample_method": sampled if sampled in ("greedy", "probabilistic") else None,
    }


def _bounded(said: Mapping[str, Any]) -> dict[str, Any]:
    """Only what the site's own bounds allow; the rest is laid over the checked site as it is."""
    kept = {}
    for name, value in said.items():
        field = ServeSite.model_fields.get(name)
        if field is None or value is None:
            continue
        try:
            ServeSite.model_validate({"max_model_len": 16, "max_num_seqs": 1, name: value})
            kept[name] = value
        except ValueError:
            continue
    return {"max_model_len": 16, "max_num_seqs": 1, **kept}


def _beyond(said: Mapping[str, Any], serve: ServeSite) -> dict[str, Any]:
    numbers = {
        name: value for name, value in said.items() if isinstance(value, int | float) and value != getattr(serve, name)
    }
    return {name: value for name, value in numbers.items() if not isinstance(value, bool)}


def _host(text: str | None) -> str:
    """The address that the API binds; vLLM's default is every interface."""
    if text is None:
        return "0.0.0.0"  # noqa: S104 - said, not bound
    if text == "localhost":
        return "127.0.0.1"
    try:
        address = ip_address(text)
    except ValueError:
        return "0.0.0.0"  # noqa: S104
    if isinstance(address, IPv4Address):
        return str(address)
    return "127.0.0.1" if address.is_loopback else "0.0.0.0"  # noqa: S104


def _model(line: ServerLine | None, profile: Profile) -> dict[str, Any]:
    wanted: Any = profile.site.get("model", {})
    if line is None or line.model is None:
        return {"path": wanted["path"], "served_name": wanted["served_name"]}
    name = (line.options.get("--served-model-name") or (line.model,))[0]
    path = line.model if line.model.startswith("/") and ".." not in line.model else f"/found/{line.model.strip('/')}"
    return {"path": path.replace("..", "_"), "served_name": re.sub(r"[^A-Za-z0-9._/-]", "_", name)[:100] or "unknown"}


def _other_model(line: ServerLine | None) -> str | None:
    """The model, when no name that it goes by is one of DeepSeek V4, and no parser either: a path may say anything."""
    if line is None or line.model is None:
        return None
    names = [line.model, *line.options.get("--served-model-name", ())]
    parsers = [line.text("--tokenizer-mode"), line.text("--tool-call-parser"), line.text("--reasoning-parser")]
    known = any(re.search(r"(?i)deepseek[-_ ]?v4|dsv4|ds4", name) for name in names) or "deepseek_v4" in parsers
    return None if known else line.model


def _image(found: Mapping[Role, FoundNode], image_id: str | None) -> ImageSite:
    named = (
        next((s.image for role in ROLES if (s := found[role].server) is not None and s.image), None) or "found:unnamed"
    )
    reference = named if _IMAGE_NAME.fullmatch(named) and not named.endswith(":latest") else "found:unnamed"
    return ImageSite(reference=reference, id=image_id or NO_IMAGE)


def _notes(found: Mapping[Role, FoundNode], lines: Mapping[Role, ServerLine | None]) -> Sequence[str]:
    notes = []
    for role in ROLES:
        node = found[role]
        if node.server is None and node.others:
            listed = ", ".join(server.where for server in node.others)
            notes.append(f"{role}: {len(node.others)} vLLM servers run, and which is the rank is not known: {listed}")
        elif node.server is not None and node.others:
            notes.append(f"{role}: also serves by vLLM: {', '.join(server.where for server in node.others)}")
        if node.server is None and node.ray:
            notes.append(f"{role}: Ray runs; workers that Ray starts carry no command line of vLLM and are not judged")
    served = [line for line in lines.values() if line is not None]
    if len(served) == 1 and served[0].nodes == 1:
        notes.append("only one node serves by vLLM, and was told of no second machine")
    return notes
