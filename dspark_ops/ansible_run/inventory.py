"""From a Site to the inventory document of a run: hosts head and worker in the group pair, reached by OpenSSH. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspark_ops.config.models import ROLES, Role, Site

# A socket path holds 107 bytes; ssh appends 17 while it binds, Ansible names the socket with 10, and one is the slash.
_CONTROL_DIR_MAX = 107 - 17 - 10 - 1


def render_inventory(
    site: Site, host_variables: Mapping[Role, Mapping[str, object]], *, control_dir: Path
) -> dict[str, Any]:
    """The inventory of one run, ready to be written as JSON (which is YAML).

    Host keys are always checked. Connections are shared through sockets in `control_dir`, unless its path is too long
    for a socket: then each task opens its own.
    """
    common = common_ssh_args(site)
    sharing = _sharing(control_dir)
    hosts: dict[str, Any] = {}
    for role in ROLES:
        own = dict(host_variables.get(role, {}))
        own["ansible_host"] = site.nodes.of(role).host
        hosts[role] = own
    return {
        "pair": {
            "hosts": hosts,
            "vars": {
                "ansible_connection": "ansible.builtin.ssh",
                "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_ssh_common_args": shlex.join(common),
                "ansible_ssh_args": shlex.join(sharing),
                "ansible_control_path_dir": str(control_dir),
            },
        }
    }


def common_ssh_args(site: Site) -> list[str]:
    """The options that every ssh of ours is given: the site's configuration, no questions, keys checked, no hanging."""
    config = ["-F", str(site.ssh.config)] if site.ssh.config is not None else []
    return [
        *config,
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        f"ConnectTimeout={max(1, round(site.ssh.connect_timeout_s))}",
        "-o",
        "ServerAliveInterval=5",
        "-o",
        "ServerAliveCountMax=6",
    ]


def _sharing(control_dir: Path) -> list[str]:
    if len(str(control_dir).encode()) > _CONTROL_DIR_MAX:
        return ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    return ["-o", "ControlMaster=auto", "-o", "ControlPersist=30s"]
