"""Cross-field rules: each names its id, the key's line and what was there; what is only odd is a note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.show import missing_files
from dspark_ops.errors import ConfigError

HUB = "{repo: org/weights, revision: " + "a" * 40 + "}"

Load = Callable[..., LoadedSite]
Refused = Callable[..., ConfigError]


def test_head_is_worker(refused: Refused, site_text: str, site_path: Path) -> None:
    message = refused(site_text.replace("host: spark-worker", "host: Spark-Head")).message
    assert message.startswith(f"{site_path}:6: nodes.worker.host: head and worker are the same host")
    assert message.endswith("[cfg.same_host]")


def test_overlapping_rail_subnets(refused: Refused, site_text: str, site_path: Path) -> None:
    text = site_text.replace("10.77.1.1/24", "10.77.0.3/24").replace("10.77.1.2/24", "10.77.0.4/24")
    message = refused(text).message
    assert message == (
        f"{site_path}:13: fabric.rails.1.head.address: rail p0b's subnet 10.77.0.0/24 overlaps rail p0a's "
        "10.77.0.0/24; expected one subnet a rail [cfg.rail_overlap]"
    )


def test_a_larger_subnet_that_holds_another(refused: Refused, site_text: str) -> None:
    text = site_text.replace("10.77.1.1/24", "10.77.1.1/16").replace("10.77.1.2/24", "10.77.1.2/16")
    assert "10.77.0.0/16 overlaps rail p0a's 10.77.0.0/24" in refused(text).message


@pytest.mark.parametrize("k", [9, 12])
def test_illegal_k_for_the_profile(refused: Refused, site_text: str, k: int) -> None:
    text = site_text + (f"  speculative:\n    method: draft_model\n    tokens: {k}\n    draft_model: /models/draft\n")
    message = refused(text).message
    assert ":22: serve.speculative.tokens: k for draft_model under profile rehearsal is one of 1, 2, 3" in message
    assert f"got {k} [cfg.k_illegal]" in message


def test_legal_k_for_the_profile(load: Load) -> None:
    overrides = ["serve.speculative={method: draft_model, tokens: 4, draft_model: /models/draft}"]
    assert load(overrides=overrides).site.serve.speculative.tokens == 4


@pytest.mark.parametrize("k", [1, 4, 6, 8])
def test_illegal_k_of_dspark(refused: Refused, k: int) -> None:
    message = refused(overrides=["profile=current", f"serve.speculative.tokens={k}"]).message
    assert "one of 3, 5, 7" in message
    assert "serve.kv_cache_memory_mib" not in message


@pytest.mark.parametrize(
    ("overrides", "rule", "key"),
    [
        (["fabric.rails.0.worker.address=10.78.0.2/24"], "cfg.rail_subnet", "fabric.rails.0.worker.address"),
        (["fabric.rails.0.worker.address=10.77.0.1/24"], "cfg.rail_same_address", "fabric.rails.0.worker.address"),
        (["fabric.rails.0.worker.address=10.77.0.0/24"], "cfg.rail_address", "fabric.rails.0.worker.address"),
        (["fabric.rails.0.head.address=10.77.0.255/24"], "cfg.rail_address", "fabric.rails.0.head.address"),
        (
            ["fabric.rails.0.head.address=127.0.0.1/24", "fabric.rails.0.worker.address=127.0.0.2/24"],
            "cfg.rail_address",
            "fabric.rails.0.head.address",
        ),
        (["fabric.rails.1.name=p0a"], "cfg.rail_name", "fabric.rails.1.name"),
        (["fabric.rails.1.head.netdev=enp1s0f0np0"], "cfg.rail_netdev", "fabric.rails.1.head.netdev"),
        (["fabric.rails.1.worker.hca=rocep1s0f0"], "cfg.rail_hca", "fabric.rails.1.worker.hca"),
        (["nodes.head.host=10.77.0.1"], "cfg.host_on_rail", "nodes.head.host"),
        (["serve.master_port=8000"], "cfg.port_clash", "serve.master_port"),
        (["serve.gpu_memory_utilization=0.5"], "cfg.kv_budget", "serve.kv_cache_memory_mib"),
        (["profile=current", "serve.gpu_memory_utilization=null"], "cfg.kv_budget", "serve.gpu_memory_utilization"),
        (["serve.max_num_seqs=64", "serve.max_num_batched_tokens=32"], "cfg.batched_tokens", "serve.max_num_batched"),
        (["serve.speculative.tokens=3"], "cfg.speculative_unused", "serve.speculative.tokens"),
        (["serve.speculative.draft_model=/m"], "cfg.speculative_unused", "serve.speculative.draft_model"),
        (["serve.speculative={method: dspark, tokens: 5}"], "cfg.speculative_method", "serve.speculative.method"),
        (["serve.speculative={method: draft_model, tokens: 5}"], "cfg.draft_model", "serve.speculative.draft_model"),
        (
            ["profile=current", "serve.speculative.draft_model=/m"],
            "cfg.speculative_unused",
            "serve.speculative.draft_model",
        ),
        (["profile=current", "serve.speculative.tokens=null"], "cfg.k_illegal", "serve.speculative.tokens"),
        (["profile=current", "serve.speculative.method=mtp"], "cfg.speculative_method", "serve.speculative.method"),
        (["profile=fp8-mtp", "serve.speculative.tokens=4"], "cfg.k_illegal", "serve.speculative.tokens"),
        (["profile=fp8-mtp", "serve.speculative.method=dspark"], "cfg.speculative_method", "serve.speculative.method"),
        (["profile=current", f"model.hub={HUB}"], "cfg.model_source", "model.mount"),
        (["tenants.evict=[container:a, head/unit:b, container:a]"], "cfg.tenant_twice", "tenants.evict.2"),
        (['gate={command: [""]}'], "cfg.gate_command", "gate.command.0"),
        (["gate.timeout_s=5"], "cfg.gate_one", "gate"),
        (["gate={command: [/bin/true], builtin: smoke}"], "cfg.gate_one", "gate.builtin"),
    ],
)
def test_broken_rules(refused: Refused, overrides: list[str], rule: str, key: str) -> None:
    message = refused(overrides=overrides).message
    assert f"[{rule}]" in message
    assert f": {key}" in message


def test_a_method_that_the_profile_lacks_names_those_it_has(refused: Refused) -> None:
    message = refused(overrides=["serve.speculative={method: dspark, tokens: 5}"]).message
    assert "profile rehearsal does not support dspark; expected one of none, draft_model" in message


def test_point_to_point_subnets_are_fine(load: Load, site_text: str) -> None:
    text = site_text.replace("10.77.0.1/24", "10.77.0.0/31").replace("10.77.0.2/24", "10.77.0.1/31")
    assert load(text).notes == ()


@pytest.mark.parametrize(
    ("overrides", "rule", "part"),
    [
        (["fabric.mtu=1500"], "cfg.mtu", "RoCE MTU smaller than 4096"),
        (["fabric.mtu=8000"], "cfg.mtu", "MTU 8000"),
        (["fabric.gid_index=3"], "cfg.gid_index", "NCCL_IB_GID_INDEX=3"),
        (["serve.max_num_batched_tokens=30000"], "cfg.batched_tokens", "24576"),
        (["image.id=sha256:" + "0" * 64], "cfg.image_placeholder", "placeholder"),
        (["guards.reclaim=true"], "cfg.reclaim", "may drop the page cache"),
        (["tenants.policy=evict-listed"], "cfg.tenants_unused", "same as ask"),
        (["tenants.evict=[container:a]"], "cfg.tenants_unused", "with ask nothing is evicted unasked"),
        (
            ["fabric.rails.0.head.address=169.254.1.1/24", "fabric.rails.0.worker.address=169.254.1.2/24"],
            "cfg.rail_link_local",
            "link-local",
        ),
    ],
)
def test_odd_but_allowed_is_a_note_with_its_source(load: Load, overrides: list[str], rule: str, part: str) -> None:
    notes = load(overrides=overrides).notes
    assert {note.id for note in notes} == {rule}
    assert part in notes[0].message
    assert (notes[0].where or "").startswith("--set ")


def test_a_single_rail_is_noted(load: Load, site_text: str) -> None:
    lines = site_text.splitlines(keepends=True)
    text = "".join(lines[:11] + lines[14:])
    assert [note.id for note in load(text).notes] == ["cfg.rail_count"]


def test_a_hub_takes_the_place_of_the_mount(load: Load) -> None:
    hub = load(overrides=["profile=current", f"model.hub={HUB}", "model.mount=null"]).site.model.hub
    assert hub is not None
    assert (hub.repo, str(hub.cache), hub.endpoint) == ("org/weights", "/var/lib/dspark/hub", None)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("model.hub={repo: weights, revision: main}", "model.hub.repo: expected a repository, as OWNER/NAME, got"),
        ("model.hub={repo: a/b, revision: main}", "model.hub.revision: expected a commit, 40 hexadecimal digits"),
        ("model.hub={repo: a/b, revision: main, cache: hub}", "model.hub.cache: expected an absolute path"),
        ("model.hub={repo: a/b, revision: main, endpoint: hub}", "model.hub.endpoint: expected the http or https URL"),
        ("model.hub=org/weights", "model.hub: expected a section with the keys repo, revision"),
        ("tenants.evict=[comfyui]", "tenants.evict.0: expected a tenant as `tenants list` prints it, as container:com"),
        ("tenants.policy=always", "tenants.policy: expected one of refuse, ask, evict-listed, got"),
        ("gate.command=[]", "gate.command: expected a list of words"),
        ("gate.builtin=certify", "gate.builtin: expected one of smoke, release, got"),
        ("profiles=3", "profiles: expected a section of names with a section below each, got 3"),
    ],
)
def test_what_a_new_section_wants_is_said_in_words(refused: Refused, override: str, part: str) -> None:
    assert part in refused(overrides=[override]).message


def test_a_gate_is_a_program_beside_the_site_file(load: Load, site_text: str, site_path: Path) -> None:
    loaded = load(site_text + "gate: {command: [gates/answers.sh, --quick]}\n")
    assert loaded.site.gate is not None
    assert loaded.site.gate.command == (str(site_path.parent / "gates/answers.sh"), "--quick")
    assert loaded.notes == ()
    assert [note.id for note in missing_files(loaded)] == ["cfg.gate_program"]
    program = site_path.parent / "gates/answers.sh"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    assert missing_files(loaded) == ()


def test_our_own_gate_needs_no_program(load: Load, site_text: str) -> None:
    loaded = load(site_text + "gate: {builtin: smoke}\n")
    assert loaded.site.gate is not None
    assert (loaded.site.gate.builtin, loaded.site.gate.command) == ("smoke", None)
    assert loaded.notes == ()
    assert missing_files(loaded) == ()


def test_a_release_gate_that_is_given_no_time_is_told(load: Load, site_text: str) -> None:
    assert [note.id for note in load(site_text + "gate: {builtin: release}\n").notes] == ["cfg.gate_time"]
    assert load(site_text + "gate: {builtin: release, timeout_s: 7200}\n").notes == ()


@pytest.mark.parametrize("text", ["gate:\n  # command: [x]\n", "model:\n  hub:\n    # repo: a/b\n", "tenants:\n"])
def test_a_section_that_may_be_absent_is_absent_with_all_lines_commented_out(
    load: Load, site_text: str, text: str
) -> None:
    assert load(site_text + text).site == load(site_text).site
