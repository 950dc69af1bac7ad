"""The rendered rules in the kernel: who gets in, who does not, and that nobody else's table is touched."""

from __future__ import annotations

import subprocess
import sys

from dspark_ops.exposure.policy import policy_of
from dspark_ops.exposure.render import render
from dspark_ops.exposure.seen import rule_count
from tests.unit.exposure.conftest import PORTS, World, site

OWN, OWN6, FABRIC = "192.168.50.1", "fd50::1", "10.77.0.1"


def rules(**exposure: object) -> str:
    return render(policy_of(site(**exposure), "head", [22]))


def remove(world: World) -> None:
    world.load("table inet dspark_exposure\ndelete table inet dspark_exposure\n")


def test_without_our_table_everything_is_open(world: World) -> None:
    """The premise: what the other tests see closed is closed by us."""
    assert set(world.knock("stranger", *((OWN, port) for port in PORTS), *((OWN6, port) for port in PORTS))) == {"open"}
    assert world.knock("stranger", (OWN, 3000), ("172.17.0.2", 80), (FABRIC, 8000)) == ["open"] * 3


def test_a_stranger_reaches_ssh_and_the_gateway_and_nothing_else(world: World) -> None:
    world.load(rules())
    for own in (OWN, OWN6):
        said = dict(zip(PORTS, world.knock("stranger", *((own, port) for port in PORTS)), strict=True))
        assert said == {port: "open" if port in (22, 8443) else "silent" for port in PORTS}, own
    # Neither over the rail's address, nor where Docker publishes, nor straight to the container.
    assert world.knock("stranger", (FABRIC, 8000), (OWN, 3000), ("172.17.0.2", 80)) == ["silent"] * 3
    remove(world)


def test_nft_lists_as_many_rules_as_it_was_given(world: World) -> None:
    wanted = rules(management_sources=["10.0.0.0/8", "fd50::/64"], allow=["tcp/9100@192.168.50.0/24", "udp/53"])
    world.load(wanted)
    listed = world.at("node", "nft", "-s", "list", "table", "inet", "dspark_exposure")
    assert rule_count(listed) == rule_count(wanted) > 20
    remove(world)


def test_the_pair_reaches_every_port_over_the_rail_and_only_the_pair(world: World) -> None:
    world.load(rules())
    assert set(world.knock("peer", *((FABRIC, port) for port in PORTS))) == {"open"}
    assert world.knock("peer", (FABRIC, 4)) == ["refused"], "a closed port says so at once"
    assert world.knock("peer", (FABRIC, 3000)) == ["open"], "what Docker publishes too"
    assert world.knock("peer", (FABRIC, 8000), (FABRIC, 22), source="10.77.0.99") == ["silent", "open"]
    assert world.knock("peer", (OWN, 8000)) == ["silent"], "the management address is no rail"
    assert set(world.knock("node", ("127.0.0.1", 8000), (OWN, 8000), ("::1", 8000))) == {"open"}
    remove(world)


def test_a_container_and_the_node_still_reach_out(world: World) -> None:
    world.load(rules())
    assert world.knock("container", ("192.168.50.9", 7)) == ["open"]
    assert world.knock("node", ("192.168.50.9", 7), ("172.17.0.2", 80)) == ["open"] * 2
    assert world.knock("container", ("172.17.0.1", 8000), ("172.17.0.1", 8443)) == ["silent", "open"]
    assert "3 received" in world.at("stranger", "ping", "-c3", "-i0.2", "-W2", OWN)
    assert "1 received" in world.at("stranger", "ping", "-6", "-c1", "-W2", OWN6), "neighbours are found over ICMPv6"
    remove(world)


def test_what_the_site_allows_is_open_to_whom_it_names(world: World) -> None:
    world.load(
        rules(
            management_sources=["10.0.0.0/8", "fd50::/64"],
            gateway_sources=["192.168.50.9"],
            allow=["tcp/9100@192.168.50.0/24", "tcp/3000", "worker/tcp/8000"],
        )
    )
    said = world.knock("stranger", (OWN, 22), (OWN6, 22), (OWN, 8443), (OWN6, 8443), (OWN, 9100), (OWN6, 9100))
    assert said == ["silent", "open", "open", "silent", "open", "silent"]
    assert world.knock("stranger", (OWN, 3000), (OWN, 8000)) == ["open", "silent"], "Docker's by the client's number"
    assert world.knock("stranger", ("172.17.0.2", 80)) == ["silent"]
    remove(world)


def test_established_connections_go_on(world: World) -> None:
    """One that was open before the rules came carries bytes both ways after them; a new one does not open."""
    talk = (
        "import socket,sys\n"
        f"with socket.create_connection(({OWN!r}, 8000), timeout=5) as link:\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    link.sendall(b'still here')\n"
        "    print(link.recv(64).decode(), flush=True)\n"
    )
    argv = ["ip", "netns", "exec", world.name("stranger"), sys.executable, "-I", "-S", "-c", talk]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        world.load(rules())
        assert world.knock("stranger", (OWN, 8000)) == ["silent"]
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "still here\n"
    remove(world)


def test_other_tables_are_as_they_were_and_a_second_load_is_no_second_table(world: World) -> None:
    world.load("table inet other { chain in { type filter hook input priority 0; tcp dport 8443 drop; }; }")
    before = world.at("node", "nft", "list", "table", "inet", "other")
    world.load(rules())
    once = world.at("node", "nft", "-s", "list", "ruleset")
    world.load(rules())
    assert world.at("node", "nft", "-s", "list", "ruleset") == once
    assert world.at("node", "nft", "list", "table", "inet", "other") == before
    assert world.knock("stranger", (OWN, 8443)) == ["silent"], "what another table drops stays dropped"
    remove(world)
    assert "dspark_exposure" not in world.at("node", "nft", "list", "ruleset")
    assert world.at("node", "nft", "list", "table", "inet", "other") == before
    world.load("delete table inet other")


def test_multicast_dns_and_dhcp_come_in(world: World) -> None:
    """Datagrams that a network needs are delivered; one to another port is not."""
    hear = (
        "import socket,struct,sys\n"
        "heard=[]\n"
        "socks=[]\n"
        "for port in (5353, 68, 5000):\n"
        "    s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    s.bind(('', port)); s.settimeout(1.5); socks.append(s)\n"
        f"mreq=socket.inet_aton('224.0.0.251')+socket.inet_aton({OWN!r})\n"
        "socks[0].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreq)\n"
        "print('ready', flush=True)\n"
        "for s in socks:\n"
        "    try: heard.append(s.recv(9).decode())\n"
        "    except TimeoutError: heard.append('-')\n"
        "print(' '.join(heard), flush=True)\n"
    )
    say = (
        "import socket\n"
        "def send(source, target, word):\n"
        "    s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    s.bind(('192.168.50.9', source)); s.sendto(word, target)\n"
        "s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('192.168.50.9'))\n"
        "s.sendto(b'mdns', ('224.0.0.251', 5353))\n"
        f"send(67, ({OWN!r}, 68), b'dhcp')\n"
        f"send(0, ({OWN!r}, 5000), b'other')\n"
    )
    world.load(rules())
    argv = ["ip", "netns", "exec", world.name("node"), sys.executable, "-I", "-S", "-c", hear]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        world.at("stranger", sys.executable, "-I", "-S", "-c", say)
        assert listener.stdout.readline() == "mdns dhcp -\n"
    remove(world)
