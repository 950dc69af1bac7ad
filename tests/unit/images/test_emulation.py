"""Whether another architecture's programs run: what is registered, what is tried, and what is said where it is not."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import ConfigError
from dspark_ops.images import emulation
from dspark_ops.lab import debian_root, prerequisites

# /proc/sys/fs/binfmt_misc/qemu-aarch64 of a Debian 12 machine with qemu-user-static 7.2 and binfmt-support 2.2.2.
_DEBIAN = """\
enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: PF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def _binfmt(tmp_path: Path, text: str) -> Path:
    (tmp_path / "status").write_text("enabled\n", encoding="ascii")
    (tmp_path / "register").write_text("", encoding="ascii")
    (tmp_path / "qemu-aarch64").write_text(text, encoding="ascii")
    return tmp_path


@pytest.fixture
def _plain_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(emulation.platform, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("_plain_user")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_DEBIAN, True),
        (_DEBIAN.replace("enabled", "disabled"), False),
        # Without F the interpreter is looked for inside the root, where it is not.
        (_DEBIAN.replace("PF", "P"), False),
        (_DEBIAN.replace("00b700", "00f300"), False),
        ("enabled\ninterpreter /bin/x\nflags: F\nextension .exe\n", False),
        ("", False),
    ],
)
def test_a_plain_user_is_told_by_what_is_registered(tmp_path: Path, text: str, expected: bool) -> None:
    assert emulation.can_execute("aarch64", binfmt=_binfmt(tmp_path, text)) is expected


@pytest.mark.usefixtures("_plain_user")
def test_where_nothing_is_mounted_nothing_is_promised(tmp_path: Path) -> None:
    assert not emulation.can_execute("aarch64", binfmt=tmp_path / "absent")
    assert emulation.can_execute("x86_64", binfmt=tmp_path / "absent")


@given(st.text())
def test_any_text_is_a_handler_or_none(text: str) -> None:
    found = emulation.parse_registration(text)
    if found is not None:
        assert len(found.mask) in (0, len(found.magic))
        found.takes(emulation.smallest_program("aarch64"))


@given(st.binary(min_size=1, max_size=40), st.integers(0, 60), st.data())
def test_a_handler_takes_what_its_magic_names_under_the_mask(magic: bytes, offset: int, data: st.DataObject) -> None:
    mask = data.draw(st.binary(min_size=len(magic), max_size=len(magic)))
    text = f"enabled\ninterpreter /q\nflags: F\noffset {offset}\nmagic {magic.hex()}\nmask {mask.hex()}\n"
    found = emulation.parse_registration(text)
    assert found is not None
    assert found.takes(bytes(offset) + magic + b"more")
    at = data.draw(st.integers(0, len(magic) - 1))
    flipped = bytearray(magic)
    flipped[at] ^= 0xFF
    assert found.takes(bytes(offset) + bytes(flipped)) is (mask[at] == 0)
    assert not found.takes((bytes(offset) + magic)[:-1])


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_root_tries_it_below_an_empty_root(monkeypatch: pytest.MonkeyPatch) -> None:
    native: emulation.Architecture = "x86_64" if os.uname().machine == "x86_64" else "aarch64"
    monkeypatch.setattr(emulation.platform, "machine", lambda: "another")
    assert emulation.can_execute(native)
    monkeypatch.setattr(emulation, "smallest_program", lambda _: b"\x7fELF of nothing")
    assert not emulation.can_execute(native)


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_the_smallest_program_is_an_executable_that_qemu_is_registered_for(
    tmp_path: Path, architecture: emulation.Architecture
) -> None:
    program = tmp_path / "program"
    program.write_bytes(emulation.smallest_program(architecture))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    handler = emulation.parse_registration(_DEBIAN)
    assert handler is not None
    assert handler.takes(program.read_bytes()) is (architecture == "aarch64")
    if os.uname().machine == architecture:
        assert subprocess.run([program], check=False, timeout=20).returncode == 0


def _root_that_cannot(monkeypatch: pytest.MonkeyPatch, answers: list[bool]) -> list[tuple[str, ...]]:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(emulation, "can_execute", lambda _: answers.pop(0))
    monkeypatch.setattr(emulation, "_run", lambda *command: ran.append(command))
    monkeypatch.setattr(prerequisites.Prerequisite, "present", lambda _: True)
    return ran


def test_an_absent_mount_is_made_and_the_emulator_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = _root_that_cannot(monkeypatch, [False, True])
    monkeypatch.setattr(emulation, "BINFMT", tmp_path)
    emulation.ensure_emulation("aarch64", install_prerequisites=False, progress=lambda _: None)
    assert [command[0] for command in ran] == ["mount", "update-binfmts"]
    assert ran[1] == ("update-binfmts", "--enable", "qemu-aarch64")


def test_a_mount_that_is_there_is_left_and_a_second_run_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = _root_that_cannot(monkeypatch, [False, True, True])
    monkeypatch.setattr(emulation, "BINFMT", _binfmt(tmp_path, _DEBIAN))
    for _ in range(2):
        emulation.ensure_emulation("aarch64", install_prerequisites=False, progress=lambda _: None)
    assert [command[0] for command in ran] == ["update-binfmts"]


def test_a_handler_without_f_is_named_when_it_does_not_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _root_that_cannot(monkeypatch, [False, False])
    binfmt = _binfmt(tmp_path, _DEBIAN.replace("PF", "P"))
    handlers = emulation.registrations(binfmt)
    monkeypatch.setattr(emulation, "BINFMT", binfmt)
    monkeypatch.setattr(emulation, "registrations", lambda: handlers)
    with pytest.raises(ConfigError, match=r"aarch64-binfmt-P, flags P; expected one with flag F"):
        emulation.ensure_emulation("aarch64", install_prerequisites=False, progress=lambda _: None)


def test_without_leave_to_install_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _root_that_cannot(monkeypatch, [False])
    monkeypatch.setattr(prerequisites.Prerequisite, "present", lambda _: False)
    with pytest.raises(ConfigError, match="qemu-aarch64-static") as caught:
        emulation.ensure_emulation("aarch64", install_prerequisites=False, progress=lambda _: None)
    assert "binfmt-support qemu-user-static" in (caught.value.hint or "")


@pytest.mark.usefixtures("_plain_user")
def test_registering_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "can_execute", lambda _: False)
    with pytest.raises(ConfigError, match="needs root"):
        emulation.ensure_emulation("aarch64", install_prerequisites=True, progress=lambda _: None)


def test_a_container_that_may_not_mount_is_told_where_to_do_it() -> None:
    with pytest.raises(ConfigError, match=r"`false --now` ended with 1: it said nothing") as caught:
        emulation._run("false", "--now")
    assert "--privileged" in (caught.value.hint or "")


def _asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **options: Any) -> tuple[list[str], dict[str, str]]:
    """What mmdebstrap is called with, arguments and environment; it says nothing and writes a tar."""
    seen: dict[str, Any] = {}

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.update(command=command, env=env)
        Path(command[-2]).write_bytes(b"tar")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian_root.shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(debian_root, "KEYRING", Path(__file__))
    monkeypatch.setattr(debian_root, "debian_sources", lambda _: ())
    monkeypatch.setattr(debian_root, "apt_proxies", lambda: ('Acquire::http::Proxy "http://proxy.invalid"',))
    monkeypatch.setattr(debian_root, "machine_certificates", lambda: {"machine-1.crt": "PEM"})
    monkeypatch.setattr(debian_root.subprocess, "run", run)
    debian_root.build_debian_root(tmp_path / "root.tar", ("python3", "hello"), log=tmp_path / "log", **options)
    return seen["command"], seen["env"]


def test_the_labs_roots_are_asked_for_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    command, environment = _asked(monkeypatch, tmp_path)
    assert "--variant=minbase" in command
    assert "--include=python3,hello" in command
    assert any(word.startswith("--customize-hook=") and "update-ca-certificates" in word for word in command)
    assert not any(word.startswith(("--architectures", "--skip", "--extract-hook", "--setup-hook")) for word in command)
    assert "SOURCE_DATE_EPOCH" not in environment


def test_an_arm64_root_is_unpacked_here_and_set_up_below_a_chroot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "can_execute", lambda _: True)
    command, environment = _asked(
        monkeypatch, tmp_path, architecture="arm64", trust_machine=False, early_files={"etc/x": "1"}
    )
    assert "--architectures=arm64" in command
    assert "--include=python3,hello,usr-is-merged" in command
    early, set_up, last = (word for word in command if word.startswith("--extract-hook="))
    assert "early" in early
    assert set_up.index("--unpack") < set_up.index('chroot "$1" dpkg --force-unsafe-io --configure') < len(set_up)
    assert "'--path-exclude=/usr/share/doc/*'" in set_up
    assert set_up.endswith("exit 1; fi")
    assert "etc/resolv.conf" in last
    assert "Proxy/d" in last
    assert environment["SOURCE_DATE_EPOCH"] == "1700000000"


def test_an_arm64_root_is_refused_where_it_cannot_be_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "can_execute", lambda _: False)
    with pytest.raises(ConfigError, match="executes aarch64 programs, and this one does not") as caught:
        _asked(monkeypatch, tmp_path, architecture="arm64")
    assert "--install-prerequisites" in (caught.value.hint or "")
    assert not (tmp_path / "root.tar").exists()
