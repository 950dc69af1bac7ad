"""The commented example site, generated from the models: every key, its default, and why one would touch it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dspark_ops.config.gateway import GATEWAY_SHOWN, GATEWAY_WHY
from dspark_ops.config.models import Site
from dspark_ops.config.monitoring import MONITORING_SHOWN, MONITORING_WHY
from dspark_ops.config.wording import annotation_at, expected, is_optional, section_at
from dspark_ops.config.yaml_source import Key, parse

WIDTH = 110

# Why each key exists. `[]` stands for the items of a list; a contract test holds this against the models.
WHY: Mapping[str, str] = {
    "version": "The version of this file's layout.",
    "name": "Names locks, labels and reports; two sites on one control host need two names.",
    "profile": "A known-good model, engine release and argument list: a file of images/profiles/.",
    "ssh": "How both nodes are reached. Host keys are always checked.",
    "ssh.config": "An OpenSSH client configuration, relative to this file; null means your own ~/.ssh/config.",
    "ssh.connect_timeout_s": "Longer for nodes behind a slow jump host.",
    "nodes": "The pair. Use the management address or alias: rails are reconfigured, sessions over them would break.",
    "nodes.head": "Rank 0; it serves the API.",
    "nodes.head.host": "A host name, an address or an SSH alias.",
    "nodes.worker": "Rank 1.",
    "nodes.worker.host": "Must be another machine than the head.",
    "fabric": "The QSFP cables between the two. A rail is one port pair; one cable has two rails, two cables four.",
    "fabric.mtu": "On every rail, both ends. RoCE packets of 4096 bytes need at least 4192.",
    "fabric.gid_index": "null leaves NCCL_IB_GID_INDEX unset, so that NCCL finds the RoCEv2 IPv4 entry itself. "
    "Indexes move when addresses do: pin one only to work around a bug.",
    "fabric.rails": "In order; the first also carries the bootstrap sockets. One subnet a rail: two ports of a node in "
    "one subnet make routes ambiguous.",
    "fabric.rails.[].name": "For people: p0a is cage 0, PCIe half A.",
    "fabric.rails.[].head": "The end on the head.",
    "fabric.rails.[].head.netdev": "The port's interface name.",
    "fabric.rails.[].head.hca": "Its RDMA device; null where the host shows none.",
    "fabric.rails.[].head.address": "Static, with its prefix.",
    "fabric.rails.[].worker": "The end on the worker, in the same subnet.",
    "fabric.rails.[].worker.netdev": "Differs from the head's when a cable is crossed.",
    "fabric.rails.[].worker.hca": "Its RDMA device; null where the host shows none.",
    "fabric.rails.[].worker.address": "Another address of the same subnet.",
    "image": "The serving image: the same bytes on both ranks.",
    "image.reference": "A name with a fixed tag; latest is refused.",
    "image.id": "`docker image inspect --format {{.Id}} REFERENCE`; a tag can move, an id cannot.",
    "image.archive": "A `docker save` file on this machine, loaded where a node lacks the id; null means it is there.",
    "model": "The weights.",
    "model.path": "Where they are inside the container.",
    "model.served_name": "What clients put into `model`.",
    "model.mount": "The host directory shown at model.path; null when they are in the image.",
    "model.hub": "A Hugging Face repository for `model fetch`, `verify` and `sync`; leave it out when you keep the "
    "weights yourself. Its snapshot takes the place of model.path; set model.mount to null with it.",
    "model.hub.repo": "OWNER/NAME on the hub.",
    "model.hub.revision": "The commit; a branch can move, a commit cannot.",
    "model.hub.cache": "The hub's cache directory on both nodes.",
    "model.hub.endpoint": "Another hub, as a mirror; null: the hub's own, or HF_ENDPOINT of the node.",
    "serve": "What the ranks are told. The rest of the argument list belongs to the profile.",
    "serve.api_host": "127.0.0.1 keeps the API on the head; the engine has no authentication of its own.",
    "serve.api_port": "The API's port on the head.",
    "serve.master_port": "Where the ranks meet, on the first rail of the head.",
    "serve.max_model_len": "Longest prompt and answer together, in tokens.",
    "serve.max_num_seqs": "Requests decoded at the same time; more wait in the queue.",
    "serve.max_num_batched_tokens": "Tokens of one engine step; larger steps cost KV cache. null: the engine's own.",
    "serve.kv_cache_dtype": "Must suit the model's attention; auto follows the weights.",
    "serve.gpu_memory_utilization": "Share of unified memory for the engine. Set this or kv_cache_memory_mib.",
    "serve.kv_cache_memory_mib": "KV cache of each rank as a fixed size. Set this or gpu_memory_utilization.",
    "serve.shm_size_gib": "Shared memory of the container.",
    "serve.distributed_timeout_s": "How long the ranks wait for each other when they start.",
    "serve.execute_timeout_s": "How long a step may take before the engine gives up; a cut cable is seen only then.",
    "serve.speculative": "Speculative decoding.",
    "serve.speculative.method": "dspark and mtp use what the checkpoint brings (its DSpark stages, its MTP layer), "
    "draft_model a second model.",
    "serve.speculative.tokens": "k, the drafted tokens of a step; the profile says which are legal.",
    "serve.speculative.draft_model": "The draft model's path inside the container; for method draft_model alone.",
    "serve.speculative.draft_sample_method": "How the draft is sampled; null: the engine's own.",
    "serve.extra_args": "More words for `vllm serve`, as --option=value; they take the place of the profile's own.",
    "serve.environment": "More variables for the ranks, checked against the names that the release knows.",
    "guards": "Floors below which a verb refuses to go on.",
    "guards.memory_floor_gib": "MemAvailable that must be left on each node beside the engine.",
    "guards.disk_floor_gib": "Free disk that must be left after an image is loaded.",
    "guards.ready_timeout_s": "How long a start may take until the first correct completion.",
    "guards.reclaim": "Consent to drop the page cache and compact memory on both nodes where the need is not met.",
    "tenants": "Others who hold the GPU or large memory: what may be done with them. `tenants list` shows them.",
    "tenants.policy": "refuse: never evict. ask: each time, `deploy --evict` is the consent. evict-listed: those of "
    "evict without asking, all others as under ask.",
    "tenants.evict": "As `tenants list` prints them: container:comfyui on either node, head/container:comfyui on one.",
    "tenants.large_memory_gib": "From how much memory on a holder without the GPU is a tenant.",
    "gate": "What has the last word on a release that is ready, builtin or command: exit 0 keeps it, all else brings "
    "the previous release back.",
    "gate.command": "A program of yours on this machine and its arguments; no shell. A relative one is looked for "
    "beside this file. It finds DSPARK_API_URL, DSPARK_MODEL and DSPARK_RELEASE.",
    "gate.builtin": "Our own: smoke (ten cold requests, minutes) or release (66 bursts and more, over an hour). Set "
    "this or command.",
    "gate.timeout_s": "Then it is ended, and that counts as a failure.",
    "exposure": "What may be reached from beyond the loopback and the fabric, after `dspark-ops exposure apply`.",
    "exposure.management_sources": "Networks that may log in over SSH; null leaves that as it is. Your own address "
    "must be among them, else it is refused.",
    "exposure.gateway_port": "The one port of the head that serves; null: the gateway's own.",
    "exposure.gateway_sources": "Networks whose clients may use the gateway; null: everybody who reaches the head.",
    "exposure.allow": "Further ports, as tcp/9100, head/udp/5000 or worker/tcp/3000@192.168.1.0/24. Docker's published "
    "ports count by the number that the client uses.",
    "exposure.health_route": "The one route that may answer without a key; null: none may. `exposure routes` holds it.",
    "supervise": "Patience and budget of the supervisor on the head. `dspark-ops supervise install` brings it there.",
    "supervise.canary_every_s": "From one small completion to the next: a rank that died while idle is noticed by it.",
    "supervise.canary_timeout_s": "When a completion counts as not answered; long prompts hold it up.",
    "supervise.wedge_after_s": "How long running requests, generation and KV cache stand still together before it is a "
    "wedge; more than canary_timeout_s.",
    "supervise.drain_s": "What running requests are given before an orderly restart.",
    "supervise.restarts": "Starts by itself within window_s; then it gives up, says so and waits for a person.",
    "supervise.window_s": "See restarts; six hours.",
    "supervise.forgive_after_s": "Serving for so long gives the budget back; a start alone does not.",
    "supervise.boot_delay_s": "How long it waits at most after a boot of the head, by chance.",
    "supervise.alert_webhook": "Where the head posts what needs a person, as JSON; null: nowhere. No password in it.",
    **MONITORING_WHY,
    **GATEWAY_WHY,
    "profiles": "By profile, what differs from the rest of this file while that profile is in use (`profile`, or "
    "--profile NAME): these keys in their usual shape, but not version, name, profile, nodes, fabric and profiles. "
    "They lie over the rest of the file, below environment and --set.",
}

# Values shown, commented out, where there is no default to show.
_SHOWN: Mapping[str, Any] = {
    "model.hub.repo": "OWNER/NAME",
    "model.hub.revision": "0" * 40,
    "gate.command": ["gates/answers.sh"],
    **MONITORING_SHOWN,
    **GATEWAY_SHOWN,
    "profiles": {"fp8-mtp": {"image": {"reference": "dspark-engine:fp8-mtp", "id": "sha256:" + "0" * 64}}},
}

_EXAMPLE: Mapping[str, Any] = {
    "version": 1,
    "name": "example",
    "profile": "current",
    "nodes": {"head": {"host": "spark-head.lan"}, "worker": {"host": "spark-worker.lan"}},
    "fabric": {
        "rails": [
            {
                "name": name,
                "head": {"netdev": netdev, "hca": hca, "address": f"10.77.{subnet}.1/24"},
                "worker": {"netdev": netdev, "hca": hca, "address": f"10.77.{subnet}.2/24"},
            }
            for subnet, (name, netdev, hca) in enumerate(
                [("p0a", "enp1s0f0np0", "rocep1s0f0"), ("p0b", "enP2p1s0f0np0", "roceP2p1s0f0")]
            )
        ]
    },
    "image": {"reference": "dspark-engine:0.32.0-example", "id": "sha256:" + "0" * 64},
}

_HEADER = """\
Example site. Copy it, or let `dspark-ops init HEAD WORKER` write one with what it finds.
Check it with `dspark-ops validate --site FILE`; --show prints where every value comes from.
A line that is commented out shows the default: the profile's where it has one, else the built-in.
Where a whole section is commented out there is none by default, and its required keys show examples.
Environment (DSPARK__SERVE__API_PORT=8001) and --set serve.api_port=8001 win over this file.
Write plain decimal numbers; put quotes around text that looks like a number, yes, no, on or off.
"""


def render_sample(defaults: Mapping[str, Any], *, explicit: bool = False) -> str:
    """The example as YAML text. defaults: the profile's `site`. explicit: write the defaults as real lines."""
    lines = [f"# {line}" for line in _HEADER.splitlines()]
    lines += _section(Site, (), _EXAMPLE, defaults, explicit)
    return "\n".join(lines) + "\n"


def scalar(value: object) -> str:
    """One value as YAML that reads back as the same value."""
    if value is None:
        return "null"
    if isinstance(value, Mapping | tuple) and not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(item) for item in value) + "]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9/][A-Za-z0-9/_.:-]*[A-Za-z0-9]", text):
        document = parse(text, "scalar")
        if document.data == text and not document.complaints:
            return text
    return '"' + "".join(_quoted(char) for char in text) + '"'


def _quoted(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def comment(text: str, indent: int) -> list[str]:
    """A comment wrapped to the width of the file."""
    pad = " " * indent + "# "
    return textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)


def _section(
    model: type[BaseModel], at: tuple[str, ...], given: Mapping[str, Any], defaults: Mapping[str, Any], explicit: bool
) -> list[str]:
    lines: list[str] = []
    pad = "  " * len([part for part in at if part != "[]"])
    for name, info in model.model_fields.items():
        key = (*at, name)
        if not at:
            lines.append("")
        lines += comment(_remark(key), len(pad))
        plain: Key = tuple(0 if part == "[]" else part for part in key)
        inner, known = section_at(Site, plain), defaults.get(name)
        if inner is not None and known is None and name not in given and is_optional(Site, plain):
            lines += [f"{pad}{name}: null"] if explicit else [f"{pad}# {name}:", *_section(inner, key, {}, {}, False)]
        elif inner is not None:
            below = given.get(name, {})
            shown = _section(inner, key, below, known if isinstance(known, Mapping) else {}, explicit)
            lines += [f"{pad}{name}:", *shown]
        elif isinstance(given.get(name), list):
            lines += [f"{pad}{name}:", *_items(key, given[name])]
        else:
            value = given.get(name, known if known is not None else _default(info.default))
            live = name in given or explicit
            if not live:
                value = _SHOWN.get(".".join(key), value)
            lines += _entry(name, value, pad if live else f"{pad}# ")
    return lines


def _entry(name: str, value: object, pad: str) -> list[str]:
    """`name: value` as one line, or a mapping with content over several; all of them behind the same pad."""
    if isinstance(value, Mapping) and value:
        below = [line for inner, part in value.items() for line in _entry(inner, part, f"{pad}  ")]
        return [f"{pad}{name}:", *below]
    return [f"{pad}{name}: {scalar(value)}"]


def _items(key: tuple[str, ...], items: list[Mapping[str, Any]]) -> Iterator[str]:
    """The first item with every key explained, the others in the short form."""
    for index, item in enumerate(items):
        if index:
            yield f"    - name: {item['name']}"
            for role in ("head", "worker"):
                inside = ", ".join(f"{name}: {scalar(value)}" for name, value in item[role].items())
                yield f"      {role}: {{{inside}}}"
            continue
        model = section_at(Site, (*key, 0))
        assert model is not None  # noqa: S101 - the only list of the site is one of sections
        shown = _section(model, (*key, "[]"), item, {}, explicit=True)
        yield from _as_item(shown)


def _as_item(lines: list[str]) -> Iterator[str]:
    """Indent a section's lines as one list item: the dash stands before the first key."""
    dashed = False
    for line in lines:
        if not dashed and not line.lstrip().startswith("#"):
            yield "    - " + line.lstrip()
            dashed = True
        else:
            yield "  " + line if dashed else line


def _remark(key: tuple[str, ...]) -> str:
    annotation = annotation_at(Site, tuple(0 if part == "[]" else part for part in key))
    why = WHY[".".join(key)]
    words = expected(annotation)
    if words in {"text", "a path", "1"} or words.startswith("a section"):
        return why
    return f"{why} ({words[0].upper()}{words[1:]}.)"


def _default(value: object) -> object:
    return None if value is PydanticUndefined else value
