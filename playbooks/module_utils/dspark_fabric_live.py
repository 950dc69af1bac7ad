"""The live network of a node: read it, compare it with what it was, put back what is missing with plain `ip`.

Runs in the module and, installed beside the revert program, without Ansible: only the standard library.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

SERVICES = ("systemd-networkd.service", "NetworkManager.service")
# What a network manager changes beside addresses, and what decides whether a port has a link-local address.
_SYSCTLS = ("disable_ipv6", "addr_gen_mode", "accept_ra")
_FLEETING = {"linkdown", "dead", "offload", "rt_trap", "pervasive"}
_IP_TIMEOUT_S = 5.0

Live = dict[str, Any]


def run(*argv: str, timeout_s: float = _IP_TIMEOUT_S) -> tuple[bool, str]:
    """Run a program; whether it ended well, and its output or its error."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{argv[0]}: {error}"
    return done.returncode == 0, done.stdout if done.returncode == 0 else (done.stderr or done.stdout).strip()


def read() -> Live:
    """Every port that is not a container's, the IPv4 routes that somebody set, and which managers run.

    Raises OSError when `ip` does not answer: without that nothing could be put back.
    """
    good, out = run("ip", "-j", "addr", "show")
    if not good:
        raise OSError(f"`ip addr` failed: {out}")
    raw = [link for link in json.loads(out) if "LOOPBACK" not in link.get("flags", ())]
    good, routes = run("ip", "-4", "-o", "route", "show", "table", "main")
    if not good:
        raise OSError(f"`ip route` failed: {routes}")
    active = [name for name in SERVICES if run("systemctl", "is-active", "--quiet", name)[0]]
    links = {link["ifname"]: _link(link) for link in raw if not _of_a_container(link)}
    return {"links": links, "routes": _routes(routes), "services": active}


def _of_a_container(link: dict[str, Any]) -> bool:
    """A port that comes and goes with containers: it belongs to a bridge of theirs, or is one."""
    names = (str(link.get("ifname", "")), str(link.get("master") or ""))
    return any(name.startswith(("docker", "br-", "veth", "virbr", "cni", "cali", "flannel")) for name in names)


def _link(raw: dict[str, Any]) -> dict[str, Any]:
    addresses = []
    for told in raw.get("addr_info", []):
        lifetime = int(told.get("valid_life_time", 4294967295))
        addresses.append(
            {
                "address": f"{told['local']}/{told['prefixlen']}",
                "scope": told.get("scope", "global"),
                "lifetime_s": None if lifetime == 4294967295 else lifetime,
                "broadcast": told.get("broadcast"),
                "prefix_route": not told.get("noprefixroute", False),
            }
        )
    name = raw["ifname"]
    return {
        "mtu": int(raw["mtu"]),
        "up": "UP" in raw.get("flags", ()),
        "addresses": addresses,
        "sysctls": {key: _sysctl(name, key) for key in _SYSCTLS},
    }


def _sysctl(name: str, key: str) -> str | None:
    try:
        return Path("/proc/sys/net/ipv6/conf", name, key).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _routes(text: str) -> list[str]:
    """Routes in the words of `ip route`, which it also takes; those the kernel makes come with their address."""
    found = []
    for line in text.splitlines():
        words = [word for word in line.replace("\\", " ").split() if word not in _FLEETING]
        if words and not _follows(words, "proto", "kernel") and "redirect" not in words:
            found.append(" ".join(words))
    return sorted(found)


def _follows(words: list[str], first: str, second: str) -> bool:
    return any(pair == (first, second) for pair in itertools.pairwise(words))


def _of_the_network(told: dict[str, Any]) -> bool:
    """An IPv6 address that a router or privacy extensions gave: it comes and goes by itself."""
    return ":" in told["address"] and told["lifetime_s"] is not None


def differences(was: Live, given: dict[str, list[str]], netdevs: list[str], now: Live) -> list[str]:
    """What of the journalled state is not so any more, as sentences.

    netdevs: the ports of the change. On them nothing may be left over; elsewhere only what the change gave counts.
    """
    found = []
    for name, before in was["links"].items():
        link = now["links"].get(name)
        if link is None:
            found.append(f"{name} is gone")
            continue
        if link["mtu"] != before["mtu"]:
            found.append(f"{name} has MTU {link['mtu']}, it had {before['mtu']}")
        if link["up"] != before["up"]:
            found.append(f"{name} is {'up' if link['up'] else 'down'}, it was {'up' if before['up'] else 'down'}")
        had = [a["address"] for a in before["addresses"] if not _of_the_network(a)]
        has = [a["address"] for a in link["addresses"] if not _of_the_network(a)]
        found += [f"{name} lacks {address}" for address in had if address not in has]
        extra = [a for a in has if a not in had and (name in netdevs or a in given.get(name, ()))]
        found += [f"{name} still has {address}" for address in extra]
    found += [f"the route `{route}` is missing" for route in was["routes"] if route not in now["routes"]]
    left = [r for r in now["routes"] if r not in was["routes"] and any(_follows(r.split(), "dev", n) for n in netdevs)]
    return found + [f"the route `{route}` is left over" for route in left]


def put_back(was: Live, given: dict[str, list[str]], netdevs: list[str]) -> list[str]:
    """Make the live state what it was, with plain `ip`; the errors of its programs. Needs no network manager."""
    try:
        now = read()
        errors = []
        for name, before in was["links"].items():
            if name in now["links"]:
                extra = set(given.get(name, ()))
                errors += _put_link(name, before, now["links"][name], extra if name not in netdevs else None)
        return errors + _put_routes(was["routes"], read()["routes"], netdevs)
    except (OSError, ValueError) as error:
        return [str(error)]


def _put_link(name: str, before: Live, link: Live, only: set[str] | None) -> list[str]:
    """One port. only: the addresses that may be removed; None: all that were not there before."""
    errors = _put_sysctls(name, before["sysctls"], link["sysctls"])
    has, had = [a["address"] for a in link["addresses"]], [a["address"] for a in before["addresses"]]
    new = [a["address"] for a in link["addresses"] if a["address"] not in had and not _of_the_network(a)]
    commands = [["addr", "del", a, "dev", name] for a in new if only is None or a in only]
    if link["mtu"] != before["mtu"]:
        commands.append(["link", "set", "dev", name, "mtu", str(before["mtu"])])
    if link["up"] != before["up"]:
        commands.append(["link", "set", "dev", name, "up" if before["up"] else "down"])
    # The kernel may have made the link-local address anew meanwhile: `replace` does not mind.
    lost = [told for told in before["addresses"] if told["address"] not in has and not _of_the_network(told)]
    commands += [["addr", "replace", told["address"], "dev", name, *_words(told)] for told in lost]
    return errors + _ip(commands)


def _put_routes(had: list[str], has: list[str], netdevs: list[str]) -> list[str]:
    missing = [route for route in had if route not in has]
    # A gateway is reached over a route of its own: those without a gateway first.
    commands = [["-4", "route", "replace", *r.split()] for r in sorted(missing, key=lambda words: " via " in words)]
    extra = [route for route in has if route not in had]
    left = [route for route in extra if any(_follows(route.split(), "dev", name) for name in netdevs)]
    return _ip([*commands, *(["-4", "route", "del", *route.split()] for route in left)])


def _ip(commands: list[list[str]]) -> list[str]:
    errors = []
    for words in commands:
        good, said = run("ip", *words)
        if not good:
            errors.append(f"ip {' '.join(words)}: {said}")
    return errors


def _words(told: dict[str, Any]) -> list[str]:
    words = ["scope", told["scope"]]
    if not told["prefix_route"]:
        words.append("noprefixroute")
    if told["lifetime_s"] is not None:
        # A lease must not outlive itself only because we put it back.
        words += ["valid_lft", str(told["lifetime_s"]), "preferred_lft", str(told["lifetime_s"])]
    return [*words, "broadcast", told["broadcast"]] if told["broadcast"] else words


def _put_sysctls(name: str, before: dict[str, str | None], now: dict[str, str | None]) -> list[str]:
    errors = []
    for key, value in before.items():
        if value is not None and now.get(key) != value:
            try:
                Path("/proc/sys/net/ipv6/conf", name, key).write_text(value, encoding="ascii")
            except OSError as error:
                errors.append(f"{name}: {key} could not be set to {value}: {error.strerror}")
    return errors


def apply_commands(backend: str, netdevs: list[str]) -> list[list[str]]:
    """What has a backend take its files as they are now."""
    if backend == "netplan":
        return [["netplan", "apply"]]
    present = [name for name in netdevs if Path("/sys/class/net", name).exists()]
    return [["networkctl", "reload"], *([["networkctl", "reconfigure", *present]] if present else [])]


class Running:
    """A backend that takes its files: waited for with patience, then let go on, at last ended."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.error: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self.error = f"{argv[0]}: {error.strerror}"

    def wait(self, seconds: float) -> bool:
        """Whether it ended within the time; `error` then says how, when it failed."""
        if self.process is None:
            return True
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self.error = None if code == 0 else f"`{' '.join(self.argv)}` ended with {code}"
        return True

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.error = f"`{' '.join(self.argv)}` did not end and was killed"
