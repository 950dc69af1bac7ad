"""What anybody on the network or on the machine could use: open ports, passwords, secrets in the open."""

from __future__ import annotations

from ipaddress import ip_address

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, judge, need, ok
from dspark_ops.doctor.registry import node_rule
from dspark_ops.doctor.rules.software import TOOLKIT
from dspark_ops.facts.file_modes import SOCKET
from dspark_ops.facts.listeners import ListenerFacts
from dspark_ops.facts.nvidia_driver import numbers_of
from dspark_ops.facts.packages import version_of

_ON = frozenset({"1", "true", "yes", "on"})


def open_to_lan(view: NodeView, ports: set[int]) -> list[ListenerFacts]:
    """The sockets on these ports that are neither on the loopback nor on one of the node's rails."""
    rails = {str(rail.of(view.role).address.ip) for rail in view.site.fabric.rails}
    listeners = need(view.node.listeners, "the listening ports")
    return [item for item in listeners if item.port in ports and _reachable(item.address, rails)]


def _reachable(address: str, rails: set[str]) -> bool:
    if address in rails:
        return False
    try:
        return not ip_address(address).is_loopback
    except ValueError:
        return True


def _named(found: list[ListenerFacts]) -> list[str]:
    seen = {item.port: f"port {item.port} ({item.process or 'unknown process'}) on {item.address}" for item in found}
    return list(seen.values())


def _limit_ports(view: NodeView) -> set[int]:
    return {int(value) for value in view.limits.values()}


@node_rule("security.docker_tcp")
def docker_tcp(view: NodeView) -> Outcome:
    """The Docker Engine takes no orders over the network without a certificate."""
    found = _named(open_to_lan(view, _limit_ports(view)))
    return judge(found, "the Engine listens on no open port", "the Engine on its local socket only")


@node_rule("security.docker_socket")
def docker_socket(view: NodeView) -> Outcome:
    """Not every user of the machine may order the Docker Engine about."""
    folders = need(need(view.node.modes, "the permissions").folders, "the permissions")
    socket = next((item for item in folders if item.path == SOCKET), None)
    if socket is None:
        raise NotApplicableError(f"there is no {SOCKET}")
    if socket.others_write:
        return fail(f"{SOCKET} can be written by everybody ({socket.mode:o})", "root and the group docker only")
    return ok(f"{SOCKET} has mode {socket.mode:o}")


@node_rule("security.ray_ports")
def ray_ports(view: NodeView) -> Outcome:
    """Ray, which runs what it is sent, is not open to the network."""
    found = _named(open_to_lan(view, _limit_ports(view)))
    return judge(found, "no port of Ray is open", "Ray not running, or on the loopback or a rail")


@node_rule("security.open_servers")
def open_servers(view: NodeView) -> Outcome:
    """No other model server is open to the network without a key."""
    # The pair's own API may have such a port: service.exposure and security.api_key judge it.
    found = _named(open_to_lan(view, _limit_ports(view) - _own_ports(view)))
    return judge(found, "no such port is open", "such servers on the loopback")


def _own_ports(view: NodeView) -> set[int]:
    return {view.site.serve.api_port} if view.role == "head" else set()


@node_rule("security.api_key")
def api_key(view: NodeView) -> Outcome:
    """An API that the network can reach asks for a key."""
    if view.role != "head":
        raise NotApplicableError("the API is on the head")
    found = open_to_lan(view, {view.site.serve.api_port})
    if not found:
        return ok("the API is on the loopback or a rail, or does not listen")
    rank = view.running_rank()
    if rank.env.get("VLLM_API_KEY") or any(word.split("=")[0] == "--api-key" for word in rank.args):
        return ok(f"the API listens on {found[0].address} and asks for a key")
    return fail(f"the API listens on {found[0].address} and asks for no key", "a key, or the loopback")


@node_rule("security.key_in_arguments")
def key_in_arguments(view: NodeView) -> Outcome:
    """No secret stands in an argument list, where every user and every bug report can read it."""
    found = [f"{p.what} (pid {p.pid}) shows {p.secret}" for p in need(view.node.noted, "the processes") if p.secret]
    return judge(found, "no argument list shows a secret", "secrets in files of mode 0600 or in the environment")


@node_rule("security.dev_mode")
def dev_mode(view: NodeView) -> Outcome:
    """The engine's doors for developers, which run code by remote call, are shut."""
    value = view.rank().env.get("VLLM_SERVER_DEV_MODE", "")
    if value.lower() in _ON:
        return fail(f"VLLM_SERVER_DEV_MODE is {value} in the rank", "not defined, or 0")
    return ok("VLLM_SERVER_DEV_MODE is not set")


@node_rule("security.privileged_rank")
def privileged_rank(view: NodeView) -> Outcome:
    """The rank's container is no way to become root on the node."""
    view.rank()
    settings = need(view.node.rank_settings, "the rank's container")
    problems = ["it is privileged"] if need(settings.privileged, "whether it is privileged") else []
    problems += ["the Engine's socket is mounted in it"] if need(settings.socket_mounted, "its mounts") else []
    return judge(problems, "neither privileged nor with the Engine's socket", "a container with its devices only")


@node_rule("security.token_files")
def token_files(view: NodeView) -> Outcome:
    """No token of a hub can be read by every user of the machine."""
    modes = need(view.node.modes, "the permissions")
    found = [f"{path} can be read by everybody" for path in need(modes.open_tokens, "the token files")]
    return judge(found, f"{len(modes.tokens or ())} token files, none of them open", "token files of mode 0600")


@node_rule("security.folders")
def own_folders(view: NodeView) -> Outcome:
    """Only root writes where bootstrap, the journals and the weights' records are."""
    seen = need(need(view.node.modes, "the permissions").folders, "the permissions")
    ours = [item for item in seen if item.path != SOCKET]
    if not ours:
        raise NotApplicableError("bootstrap has made no folders here")
    problems = [
        f"{item.path} ({item.mode:o}, owner {item.owner})" for item in ours if item.others_write or item.owner != 0
    ]
    return judge(problems, f"{len(ours)} folders are root's", "folders that root owns and nobody else may write")


@node_rule("security.ssh_passwords")
def ssh_passwords(view: NodeView) -> Outcome:
    """The SSH server takes keys, not passwords."""
    sshd = need(view.node.sshd, "the SSH server's settings")
    root = ", for root too" if sshd.root_login == "yes" else ""
    if sshd.passwords:
        return fail(f"the SSH server accepts passwords{root}", "PasswordAuthentication no")
    if need(sshd.prompts, "whether the SSH server asks for a password by PAM"):
        return fail(
            f"the SSH server asks for passwords by keyboard-interactive and PAM{root}",
            "KbdInteractiveAuthentication no",
        )
    return ok("passwords are refused")


@node_rule("security.container_toolkit")
def container_toolkit(view: NodeView) -> Outcome:
    """The NVIDIA container toolkit is not one that lets an image become root on the node."""
    version = version_of(need(view.node.packages, "the packages"), TOOLKIT)
    if version is None:
        raise NotApplicableError(f"{TOOLKIT} is no package here")
    floor = tuple(int(view.limits[part]) for part in ("major", "minor", "patch"))
    if numbers_of(version.split("-")[0]) >= floor:
        return ok(f"{TOOLKIT} {version}")
    return fail(f"{TOOLKIT} is {version}", f"{'.'.join(map(str, floor))} or newer")
