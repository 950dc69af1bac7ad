"""A node between a stranger, its pair and a container: five network namespaces of the kernel, and the real nft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.config.models import Site
from dspark_ops.paths import data_dir
from tests.unit.exposure.programs import require

RAIL, MANAGEMENT = "enp1s0f0np0", "enP7s7"
# 22 stands for SSH, 8443 for the gateway, 8000 and 25000 for the engine, 41234 for any port that NCCL or Gloo took.
PORTS = (22, 8443, 8000, 25000, 41234, 9100, 53)
_SERVE = """
import json, selectors, socket, sys
select = selectors.DefaultSelector()
for host, port in json.loads(sys.argv[1]):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((host, port))
    listener.listen()
    select.register(listener, selectors.EVENT_READ, True)
print("ready", flush=True)
while True:
    for key, _ in select.select():
        if key.data:
            select.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
        else:
            said = key.fileobj.recv(64)
            if said:
                key.fileobj.sendall(said)
            else:
                select.unregister(key.fileobj)
                key.fileobj.close()
"""
_KNOCK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def knock(target):
    host, port, source = target
    try:
        socket.create_connection((host, port), timeout=0.7, source_address=(source, 0) if source else None).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"
    except OSError as error:
        return str(error)
    return "open"
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(knock, json.loads(sys.argv[1])))))
"""


def run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin or "", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def nft() -> None:
    """The real nft; network namespaces need root."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    require(install=False)


@dataclass
class World:
    """node: the node's namespace; the others: who knocks at it."""

    mark: str

    def name(self, who: str) -> str:
        return f"dx{self.mark}-{who}"

    def at(self, who: str, *argv: str, stdin: str | None = None) -> str:
        return run("ip", "netns", "exec", self.name(who), *argv, stdin=stdin)

    def load(self, rules: str) -> None:
        self.at("node", "nft", "-f", "-", stdin=rules)

    def knock(self, who: str, *targets: tuple[str, int], source: str | None = None) -> list[str]:
        """What a client in this namespace meets: open, refused, silent, or an error's words."""
        asked = json.dumps([[host, port, source] for host, port in targets])
        said: list[str] = json.loads(self.at(who, sys.executable, "-I", "-S", "-c", _KNOCK, asked))
        return said


@pytest.fixture(scope="module")
def world(nft: None) -> Iterator[World]:
    """The node listens on every address and port of PORTS; docker0 publishes port 3000 of a container by DNAT."""
    made = World(str(os.getpid()))
    links = (
        ("stranger", MANAGEMENT, ("192.168.50.1/24", "fd50::1/64"), ("192.168.50.9/24", "fd50::9/64")),
        ("peer", RAIL, ("10.77.0.1/24",), ("10.77.0.2/24", "10.77.0.99/24")),
        ("container", "docker0", ("172.17.0.1/16",), ("172.17.0.2/16",)),
    )
    with ExitStack() as stack:
        for who in ("node", "stranger", "peer", "container"):
            run("ip", "netns", "add", made.name(who))
            stack.callback(run, "ip", "netns", "del", made.name(who))
            made.at(who, "ip", "link", "set", "lo", "up")
        for who, device, own, other in links:
            run(
                "ip",
                "link",
                "add",
                device,
                "netns",
                made.name("node"),
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                made.name(who),
            )
            for side, name, addresses in (("node", device, own), (who, "eth0", other)):
                for address in addresses:
                    more = ("nodad",) if ":" in address else ()
                    made.at(side, "ip", "addr", "add", address, "dev", name, *more)
                made.at(side, "ip", "link", "set", name, "up")
            made.at(who, "ip", "route", "add", "default", "via", own[0].split("/")[0])
        made.at("node", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        made.load(
            "table ip nat { chain pre { type nat hook prerouting priority dstnat;"
            " tcp dport 3000 dnat to 172.17.0.2:80; }; }"
        )
        everywhere = [(host, port) for port in PORTS for host in ("0.0.0.0", "::")]
        for who, bound in (("node", everywhere), ("container", [("0.0.0.0", 80)]), ("stranger", [("0.0.0.0", 7)])):
            argv = ["ip", "netns", "exec", made.name(who), sys.executable, "-I", "-S", "-c", _SERVE, json.dumps(bound)]
            server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            stack.callback(server.wait)
            stack.callback(server.kill)
            assert server.stdout is not None
            stack.callback(server.stdout.close)
            assert server.stdout.readline() == "ready\n"
        yield made


def site(**exposure: object) -> Site:
    """The example site with this section."""
    loaded = load_site(data_dir("inventories") / "example" / "site.yml", environ={}).site
    document = loaded.model_dump(mode="json")
    document["exposure"] = {**document["exposure"], **exposure}
    return Site.model_validate(document)
