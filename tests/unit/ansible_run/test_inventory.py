"""The inventory of a run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from dspark_ops.ansible_run.inventory import common_ssh_args, render_inventory
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import SshSite


def _pair(loaded: LoadedSite, control: Path = Path("/s/cp/abc")) -> dict[str, Any]:
    document = render_inventory(
        loaded.site, {"head": {"rank": 0}, "worker": {"rank": 1, "ansible_host": "evil"}}, control_dir=control
    )
    pair: dict[str, Any] = json.loads(json.dumps(document))["pair"]
    return pair


def test_both_ranks_are_hosts_of_the_pair_with_their_own_variables(loaded: LoadedSite) -> None:
    assert _pair(loaded)["hosts"] == {
        "head": {"rank": 0, "ansible_host": "spark-head"},
        "worker": {"rank": 1, "ansible_host": "spark-worker"},
    }


def test_ssh_uses_the_sites_configuration_checks_keys_and_asks_nothing(loaded: LoadedSite) -> None:
    words = shlex.split(_pair(loaded)["vars"]["ansible_ssh_common_args"])
    assert words[:2] == ["-F", str(loaded.site.ssh.config)]
    assert {"StrictHostKeyChecking=yes", "BatchMode=yes", "ConnectTimeout=3"} <= set(words)


def test_connections_are_shared_unless_the_socket_path_would_be_too_long(loaded: LoadedSite) -> None:
    short, long = Path("/s" * 30), Path("/s" * 60)
    assert "ControlPersist" in _pair(loaded, short)["vars"]["ansible_ssh_args"]
    assert "ControlPath=none" in _pair(loaded, long)["vars"]["ansible_ssh_args"]


def test_a_blank_in_a_path_stays_in_its_argument(loaded: LoadedSite) -> None:
    config = Path("/home/me/my sites/ssh config")
    site = loaded.site.model_copy(update={"ssh": loaded.site.ssh.model_copy(update={"config": config})})
    assert common_ssh_args(site)[:2] == ["-F", str(config)]
    text = render_inventory(site, {}, control_dir=Path("/s"))["pair"]["vars"]["ansible_ssh_common_args"]
    assert shlex.split(text) == common_ssh_args(site)


def test_without_a_configuration_the_operators_own_is_used(loaded: LoadedSite) -> None:
    site = loaded.site.model_copy(update={"ssh": SshSite(connect_timeout_s=0.2)})
    words = common_ssh_args(site)
    assert "-F" not in words
    # ssh counts whole seconds, and takes 0 for no limit.
    assert "ConnectTimeout=1" in words


def test_nothing_secret_is_in_it(loaded: LoadedSite) -> None:
    """Keys stay in the agent and the SSH configuration; root is sudo without a password."""
    text = json.dumps(_pair(loaded)).lower()
    assert not [word for word in ("password", "passphrase", "private_key", "become_pass", "token") if word in text]
