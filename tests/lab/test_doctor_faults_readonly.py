"""The doctor changes nothing: both nodes before and after, and every command that was let through by the guard."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from dspark_ops.config.models import ROLES
from dspark_ops.transport import readonly, ssh
from dspark_ops.transport.base import Command, ForEach, Http, LogScan, Probe
from tests.lab.doctor_bench import Bench
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

#: What differs between two looks because somebody logged in, or because time passes; nothing else may.
PASSES = re.compile(
    r"kernel\.random\.|kernel\.ns_last_pid|kernel\.pty\.nr|fs\.(dentry-state|inode-nr|inode-state|file-nr|aio-nr)"
    r"|net\.netfilter\.nf_conntrack_count|session-\S+\.scope|user@\d+|user-runtime-dir@\d+|user-\d+\.slice"
)
#: Everything that a program could have left: names, inodes, owners, modes, sizes, and both times of every file.
LOOK = {
    "files": "find /etc /opt /root /home /var/lib/dspark /var/lib/dspark-ops /usr/local -xdev"
    r" -printf '%p %i %y %m %U:%G %s %T@ %C@\n' 2> /dev/null | sort; true",
    "containers": "docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.State}} {{.Image}}' | sort",
    "images": "docker image ls -a --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort",
    "networks": "docker network ls --no-trunc --format '{{.ID}} {{.Name}}' | sort; docker volume ls -q | sort",
    "addresses": "ip -d addr | sed -E 's/valid_lft.*//; s/[a-z_]+_timer +[0-9.]+//g'; ip -4 route;"
    " ip -6 route | sed 's/expires [0-9]*sec//'; ip rule",
    "firewall": "iptables -S; iptables -t nat -S",
    "sysctl": "sysctl -a 2> /dev/null | sort",
    "mounts": "cut -d' ' -f5- /proc/self/mountinfo | sort",
    "units": "systemctl list-units --all --plain --no-legend --type=service,timer,socket,mount"
    " | awk '{print $1, $2, $3}' | sort; systemctl list-unit-files --plain --no-legend | sort",
    "queues": "ls /dev/shm /dev/mqueue /run | sort; ipcs -a | sort",
}


def state_of(bench: Bench, role: str) -> dict[str, list[str]]:
    """The node as its own root sees it, less what passes."""
    return {
        name: [line for line in bench.root(role, script).splitlines() if not PASSES.search(line)]
        for name, script in LOOK.items()
    }


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there only before (-) or only after (+)."""
    found = {}
    for name, lines in before.items():
        lost, new = set(lines) - set(after[name]), set(after[name]) - set(lines)
        if lost or new:
            found[name] = sorted([f"- {line}" for line in lost] + [f"+ {line}" for line in new])
    return found


def commands(probes: Iterable[Probe]) -> list[tuple[str, ...]]:
    """The argument lists among the probes."""
    return [probe.argv for probe in probes if isinstance(probe, Command | ForEach | LogScan)]


@pytest.mark.parametrize("state", ["quiet", pytest.param("serving", marks=pytest.mark.soak)])
def test_the_doctor_changes_nothing_on_either_node(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    done = operator.run("stop" if state == "quiet" else "deploy", "--yes")
    assert done.rc == 0, done
    bench = Bench(operator)
    logged: list[Probe] = []
    guard = readonly.assert_read_only

    def log(probes: Iterable[Probe]) -> None:
        batch = list(probes)
        guard(batch)
        logged.extend(batch)

    monkeypatch.setattr(ssh, "assert_read_only", log)
    # A first look pays for what looking itself brings along (a login's own directories).
    for role in ROLES:
        state_of(bench, role)
    before = {role: state_of(bench, role) for role in ROLES}
    bench.judge()
    bench.judge(active=True)
    for words in ((), ("--active", "--verbose"), ("--json", "--strict")):
        assert operator.run("doctor", *words).rc in (0, 1)
    after = {role: state_of(bench, role) for role in ROLES}
    for role in ROLES:
        assert differences(before[role], after[role]) == {}, role

    ran = commands(logged)
    assert len(ran) > 50, "the log of the guard is the log of what was asked"
    for argv in ran:
        readonly.assert_read_only([Command("again", argv)])
    posts = {probe.url for probe in logged if isinstance(probe, Http) and probe.body is not None}
    assert all(url.endswith(("/v1/completions", "/v1/chat/completions")) for url in posts), posts
