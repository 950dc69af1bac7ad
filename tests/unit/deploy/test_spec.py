from __future__ import annotations

import json

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import NODE_RANK, ROLES, Role
from dspark_ops.deploy.spec import RankSpec, render_argv, render_env, render_pair
from tests.unit.deploy.conftest import SiteMaker


def test_the_ranks_differ_in_rank_and_headless_and_nothing_else(loaded: LoadedSite) -> None:
    head, worker = (render_argv(loaded.site, loaded.profile, role) for role in ROLES)
    assert set(head) ^ set(worker) == {"--node-rank=0", "--node-rank=1", "--headless"}
    assert "--master-addr=10.77.0.1" in worker
    assert "--headless" not in head
    assert NODE_RANK == {"head": 0, "worker": 1}


def test_each_node_gets_its_own_address_and_all_three_socket_interfaces(loaded: LoadedSite) -> None:
    head = render_env(loaded.site, loaded.profile, "head")
    worker = render_env(loaded.site, loaded.profile, "worker")
    assert (head["VLLM_HOST_IP"], worker["VLLM_HOST_IP"]) == ("10.77.0.1", "10.77.0.2")
    assert worker["GLOO_SOCKET_IFNAME"] == worker["TP_SOCKET_IFNAME"] == "enp1s0f1np1"
    assert worker["NCCL_SOCKET_IFNAME"] == "=enp1s0f1np1"
    assert head["NCCL_IB_HCA"] == "=rocep1s0f0,roceP2p1s0f0"
    assert worker["NCCL_IB_HCA"] == "=rocep1s0f1,roceP2p1s0f1"


def test_the_gid_index_is_absent_unless_pinned_and_nothing_is_defined_empty(
    loaded: LoadedSite, make_site: SiteMaker
) -> None:
    for role in ROLES:
        env = render_env(loaded.site, loaded.profile, role)
        assert "NCCL_IB_GID_INDEX" not in env
        assert all(env.values())
    pinned = make_site("fabric.gid_index=3")
    assert render_env(pinned.site, pinned.profile, "head")["NCCL_IB_GID_INDEX"] == "3"


def test_the_release_follows_from_what_the_ranks_are_given(make_site: SiteMaker) -> None:
    def release(*overrides: str) -> str:
        loaded = make_site(*overrides)
        return render_pair(loaded.site, loaded.profile)["head"].release

    first = release()
    assert first == release()
    assert first != release("serve.max_model_len=2048")
    assert first != release("fabric.gid_index=3")
    # What no rank is told does not make another release.
    assert first == release("guards.ready_timeout_s=99")


def test_the_epoch_changes_labels_and_not_the_spec(specs: dict[Role, RankSpec]) -> None:
    one, two = specs["head"].document("e1"), specs["head"].document("e2")
    assert one["labels"]["io.dspark-ops.spec"] == two["labels"]["io.dspark-ops.spec"]
    assert one["labels"]["io.dspark-ops.epoch"] != two["labels"]["io.dspark-ops.epoch"]
    one["labels"] = two["labels"] = None
    assert one == two


def test_speculation_is_one_json_argument(make_site: SiteMaker) -> None:
    loaded = make_site(
        "serve.speculative.method=draft_model",
        "serve.speculative.tokens=3",
        "serve.speculative.draft_model=/models/draft",
    )
    (argument,) = (a for a in render_argv(loaded.site, loaded.profile, "head") if a.startswith("--speculative-config"))
    assert json.loads(argument.partition("=")[2]) == {
        "method": "draft_model",
        "num_speculative_tokens": 3,
        "model": "/models/draft",
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_spec_has_no_restart_policy_and_carries_our_labels(specs: dict[Role, RankSpec], role: Role) -> None:
    document = specs[role].document("e")
    assert "restart" not in json.dumps(document)
    assert document["labels"]["io.dspark-ops.site"] == "desk"
    assert document["labels"]["io.dspark-ops.role"] == role


def test_weights_from_a_hub_cache_are_mounted_read_only_and_never_fetched_by_the_engine(make_site: SiteMaker) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    loaded = make_site(f"model.hub={{repo: lab/tiny, revision: {commit}}}")
    spec = render_pair(loaded.site, loaded.profile)["worker"]
    (mount,) = spec.mounts
    assert mount["source"] == "/var/lib/dspark/hub/models--lab--tiny"
    assert mount["read_only"] is True
    assert spec.command[2] == f"{mount['target']}/snapshots/{commit}"
    assert spec.env["HF_HUB_OFFLINE"] == "1"
