"""Reading over SSH (paramiko): host keys checked, one session a node, one round trip for all probes."""

from __future__ import annotations

import base64
import json
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import paramiko
from paramiko.hostkeys import InvalidHostKey
from pydantic import ValidationError

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import NoVerdictError
from dspark_ops.transport.base import Command, NodeReading, Probe, ProbeResult
from dspark_ops.transport.readonly import assert_read_only

_MARK = "\x1edspark-ops "
Key = TypeVar("Key", bound=str)


@dataclass(frozen=True)
class SshTarget:
    """One node as the OpenSSH client configuration resolves it."""

    alias: str
    hostname: str
    port: int
    user: str | None
    identity_files: tuple[str, ...]
    known_hosts: tuple[str, ...]
    proxy_command: str | None
    connect_timeout_s: float


def resolve_target(host: str, config: Path | None, connect_timeout_s: float) -> SshTarget:
    """Look a host up in an OpenSSH configuration (None: the operator's own).

    Raises:
        NoVerdictError: the file cannot be read or parsed.
    """
    path = config or Path.home() / ".ssh/config"
    parsed = paramiko.SSHConfig()
    if config is not None or path.exists():
        try:
            parsed = paramiko.SSHConfig.from_path(str(path))
        except (OSError, UnicodeDecodeError, paramiko.ssh_exception.ConfigParseError) as error:
            raise NoVerdictError(
                f"the SSH configuration {path} cannot be read: {error}",
                hint="name another file in ssh.config of the site",
            ) from error
    options = parsed.lookup(host)
    known = options.get("userknownhostsfile", "~/.ssh/known_hosts")
    proxy = options.get("proxycommand")
    if proxy is None and options.get("proxyjump", "none") != "none":
        via = ["ssh", *(["-F", str(path)] if config else []), "-W", "%h:%p", options["proxyjump"]]
        proxy = shlex.join(via)
    port = int(options.get("port", 22))
    hostname = options["hostname"]
    if proxy is not None:
        proxy = proxy.replace("%h", hostname).replace("%p", str(port))
    return SshTarget(
        alias=host,
        hostname=hostname,
        port=port,
        user=options.get("user"),
        identity_files=tuple(str(Path(f).expanduser()) for f in options.get("identityfile", [])),
        known_hosts=tuple(str(Path(f).expanduser()) for f in [*known.split(), "/etc/ssh/ssh_known_hosts"]),
        proxy_command=proxy,
        connect_timeout_s=connect_timeout_s,
    )


@dataclass
class SshRunner:
    """A way to one node over SSH. The session is opened at the first use and kept until `close`.

    round_trips counts the programs started on the node, for those who promise one.
    """

    node: str
    target: SshTarget
    round_trips: int = 0
    _client: paramiko.SSHClient | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, probes: Sequence[Probe], *, timeout_s: float = 60.0) -> NodeReading:
        """Run all probes on the node in one round trip.

        An unreachable node gives a reading with reachable False and the reason; it never raises for that.
        """
        assert_read_only(probes)
        began = time.monotonic()
        payload = base64.b64encode(json.dumps([p.wire() for p in probes]).encode()).decode()
        source = resources.files("dspark_ops.transport").joinpath("collector.py").read_text(encoding="utf-8")
        program = f"{source}\nmain({payload!r})\n"
        try:
            sent = time.time()
            rc, out, err = self._execute("python3 -I -", program.encode(), timeout_s)
            came = time.time()
        except SshFailureError as failure:
            return NodeReading(
                node=self.node,
                reachable=False,
                error=failure.message,
                hint=failure.hint,
                elapsed_s=time.monotonic() - began,
            )
        return _parse_answer(self.node, rc, out, err, sent, came, time.monotonic() - began)

    def stream(self, command: Command) -> Iterator[str]:
        """Yield the lines (standard output and error) of a program that only reads, until it ends.

        Raises:
            NoVerdictError: the node cannot be reached, or the session was lost.
        """
        assert_read_only([command])
        try:
            channel = self._open_channel()
        except SshFailureError as failure:
            raise NoVerdictError(failure.message, hint=failure.hint) from None
        try:
            with channel:
                channel.set_combine_stderr(True)
                argv = ["sudo", "-n", *command.argv] if command.root else list(command.argv)
                channel.exec_command(shlex.join(argv))
                with channel.makefile("rb", -1) as lines:
                    for line in lines:
                        yield line.decode("utf-8", "replace").rstrip("\n")
        except (OSError, paramiko.SSHException, EOFError) as error:
            raise NoVerdictError(
                f"{self.target.alias}: the session was lost: {error or type(error).__name__}",
                hint="look at the node's console or try `ssh` by hand",
            ) from error

    def open_tunnel(self, host: str, port: int) -> paramiko.Channel:
        """A connection to `host:port` as the node reaches it, through this session.

        Raises:
            SshFailureError: the node cannot be reached, its sshd does not forward, or nothing listens there.
        """
        transport = self._transport()
        if transport is None or not transport.is_active():
            self._open_channel().close()  # a session is there now, or it says why not
            transport = self._transport()
        where = f"{host} port {port}"
        try:
            if transport is None:
                raise EOFError("the session has ended")
            timeout_s = self.target.connect_timeout_s
            return transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout_s)
        except paramiko.ChannelException as error:
            if error.code == 1:
                raise SshFailureError(
                    f"{self.target.alias}: sshd there does not forward to {where}: {error.text}",
                    "set `AllowTcpForwarding local` for this user in sshd_config of that node",
                ) from error
            raise SshFailureError(
                f"{self.target.alias}: no connection to {where} there: {error.text}", "does something listen there?"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise SshFailureError(
                f"{self.target.alias}: no way to {where} there: {error or type(error).__name__}",
                "look at sshd's log there",
            ) from error

    def close(self) -> None:
        """End the session; safe to call twice."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _execute(self, line: str, stdin: bytes, timeout_s: float) -> tuple[int, str, str]:
        channel = self._open_channel()
        with channel:
            self.round_trips += 1
            channel.settimeout(timeout_s)
            try:
                channel.exec_command(line)
                channel.sendall(stdin)
                channel.shutdown_write()
                with channel.makefile("rb") as reader, channel.makefile_stderr("rb") as errors:
                    out, err = reader.read(), errors.read()
                rc = channel.recv_exit_status()
            except (TimeoutError, OSError, paramiko.SSHException, EOFError) as error:
                self.close()
                raise SshFailureError(
                    f"{self.target.alias}: the session was lost or gave no answer within {timeout_s:g} s: "
                    f"{error or type(error).__name__}",
                    "look at the node's console or try `ssh` by hand",
                ) from error
        return rc, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def _open_channel(self) -> paramiko.Channel:
        """A channel on the kept session, or on a new one when that has died."""
        with self._lock:
            if self._client is not None:
                channel = self._channel_of(self._client)
                if channel is not None:
                    return channel
                self._client.close()
                self._client = None
            client = _connect(self.target)
            channel = self._channel_of(client)
            if channel is None:
                client.close()
                raise SshFailureError(
                    f"{self.target.alias}: the node accepts a login but opens no session", "look at sshd's log there"
                )
            self._client = client
            return channel

    def _transport(self) -> paramiko.Transport | None:
        with self._lock:
            return None if self._client is None else self._client.get_transport()

    def _channel_of(self, client: paramiko.SSHClient) -> paramiko.Channel | None:
        transport = client.get_transport()
        if transport is None or not transport.is_active():
            return None
        try:
            return transport.open_session(timeout=self.target.connect_timeout_s)
        except (paramiko.SSHException, OSError, EOFError):
            return None


class SshFailureError(Exception):
    """Why a node was not reached, in one sentence, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def _connect(target: SshTarget) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    for path in target.known_hosts:
        if Path(path).is_file():
            try:
                client.load_system_host_keys(path)
            except (OSError, ValueError, paramiko.SSHException, InvalidHostKey) as error:
                raise SshFailureError(
                    f"{target.alias}: the known-hosts file {path} cannot be read: {error}", "mend it"
                ) from error
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    options: dict[str, Any] = {"username": target.user} if target.user else {}
    keys = [f for f in target.identity_files if Path(f).is_file()]
    if keys:
        options["key_filename"] = keys
    if target.proxy_command:
        try:
            options["sock"] = paramiko.ProxyCommand(target.proxy_command)
        except (OSError, ValueError, IndexError) as error:
            client.close()
            raise SshFailureError(
                f"{target.alias}: the proxy command {target.proxy_command!r} cannot be started: {error}",
                "install its program here, or mend ProxyCommand in the SSH configuration",
            ) from error
    try:
        client.connect(
            target.hostname,
            target.port,
            timeout=target.connect_timeout_s,
            banner_timeout=target.connect_timeout_s,
            auth_timeout=target.connect_timeout_s,
            allow_agent=not keys,
            look_for_keys=not keys,
            **options,
        )
    except (paramiko.SSHException, OSError, EOFError) as error:
        client.close()
        raise _explain(target, error) from error
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(15)
    return client


def _explain(target: SshTarget, error: Exception) -> SshFailureError:
    """Say in one sentence why a login failed, and what to do."""
    name = target.alias if target.alias == target.hostname else f"{target.alias} ({target.hostname})"
    where = f"{name} port {target.port}"
    if isinstance(error, paramiko.BadHostKeyException):
        return SshFailureError(
            f"{where}: the host key has changed: expected {_fingerprint(error.expected_key)}, "
            f"the host shows {_fingerprint(error.key)}",
            "if the machine was installed anew, check the new key at its console, then "
            f"`ssh-keygen -R {error.hostname} -f {target.known_hosts[0]}` and log in once by hand",
        )
    if isinstance(error, paramiko.AuthenticationException):
        user = target.user or "your user"
        return SshFailureError(
            f"{where}: the login of {user} was refused: {error}",
            f"copy your key there: `ssh-copy-id {target.alias}`",
        )
    if isinstance(error, socket.gaierror):
        return SshFailureError(
            f"{where}: the name cannot be resolved", "use an address, or add it to the SSH configuration"
        )
    if isinstance(error, TimeoutError):
        return SshFailureError(
            f"{where}: no answer within {target.connect_timeout_s:g} s",
            "is it powered on and in this network?",
        )
    text = str(error)
    if "not found in known_hosts" in text:
        return SshFailureError(
            f"{where}: its host key is not known",
            f"log in once by hand and check the fingerprint: `ssh {target.alias}`",
        )
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        reasons = {getattr(e, "strerror", None) or type(e).__name__ for e in error.errors.values()}
        text = ", ".join(sorted(reasons))
    return SshFailureError(
        f"{where}: cannot connect: {text or type(error).__name__}", "is it powered on, and does sshd run?"
    )


def _fingerprint(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _parse_answer(node: str, rc: int, out: str, err: str, sent: float, came: float, elapsed_s: float) -> NodeReading:
    # split, not splitlines: the mark itself begins with a control character that splitlines takes for a line end
    line = next((part for part in out.split("\n") if part.startswith(_MARK)), None)
    if line is None:
        last = (err.strip().splitlines() or out.strip().splitlines() or [f"exit code {rc}, no output"])[-1]
        missing = rc == 127
        return NodeReading(
            node=node,
            reachable=False,
            error=f"{node}: the login works, but python3 there gave no answer: {last[:300]}",
            hint="install python3 on the node" if missing else "run `python3 -V` there by hand",
            elapsed_s=elapsed_s,
        )
    try:
        answer = json.loads(line[len(_MARK) :])
        clock = float(answer["clock_s"])
        return NodeReading(
            node=node,
            reachable=True,
            user=answer["user"],
            sudo=answer["sudo"],
            hostname=answer["hostname"],
            clock_s=clock,
            clock_error_s=max(0.0, sent - clock, clock - came),
            **_clock_offset(answer.get("began_s"), clock, sent, came),
            results={r["id"]: ProbeResult.model_validate(r) for r in answer["results"]},
            elapsed_s=elapsed_s,
        )
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        return NodeReading(
            node=node,
            reachable=False,
            error=f"{node}: the answer of the node cannot be parsed: {error}",
            hint="this is a bug of dspark-ops, or something rewrites the output of non-interactive logins there",
            elapsed_s=elapsed_s,
        )


def _clock_offset(began: object, ended: float, sent: float, came: float) -> dict[str, float]:
    """Node time minus ours. The program began after `sent` and ended before `came`: a bound on either side."""
    if not isinstance(began, int | float) or not sent <= came or not began <= ended:
        return {}
    least, most = ended - came, began - sent
    return {"clock_offset_s": (least + most) / 2, "clock_uncertainty_s": abs(most - least) / 2}


def open_runner(site: Site, role: Role) -> SshRunner:
    """A runner for one node of a site; nothing is contacted yet."""
    target = resolve_target(site.nodes.of(role).host, site.ssh.config, site.ssh.connect_timeout_s)
    return SshRunner(node=role, target=target)


def read_nodes(
    runners: Mapping[Key, SshRunner], probes: Mapping[Key, Sequence[Probe]], *, timeout_s: float = 60.0
) -> dict[Key, NodeReading]:
    """Read any number of nodes at the same time, one round trip each."""
    with ThreadPoolExecutor(max_workers=len(runners) or 1) as pool:
        pending = {key: pool.submit(r.read, probes[key], timeout_s=timeout_s) for key, r in runners.items()}
        return {key: future.result() for key, future in pending.items()}


def read_pair(
    site: Site, probes: Mapping[Role, Sequence[Probe]] | Sequence[Probe], *, timeout_s: float = 60.0
) -> dict[Role, NodeReading]:
    """Read both nodes of a site once and close the sessions. A sequence of probes is asked of both."""
    per_role: dict[Role, Sequence[Probe]] = (
        {role: probes.get(role, ()) for role in ROLES} if isinstance(probes, Mapping) else dict.fromkeys(ROLES, probes)
    )
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        return read_nodes(runners, per_role, timeout_s=timeout_s)
    finally:
        for runner in runners.values():
            runner.close()
