"""Keys on their way: files that nobody else reads, and content that no result, diff or argument list shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.exposure.credentials import Credential, checked, role_variables, unit_line
from tests.unit.roles.conftest import Call, call, on_path

__all__ = ["call", "on_path"]
SECRET = "sk-planted-0123456789abcdef"  # noqa: S105
# Turns the content round, so that a sealed file does not hold it; -p of systemd-run is the trial.
_CREDS = """#!/bin/sh
echo "systemd-creds $*" >> {calls}
if [ "$1" = encrypt ]; then printf SEALED; rev; else rev < "$3" | sed 's/DELAES//' ; fi
"""
_RUN = '#!/bin/sh\necho "systemd-run $*" >> {calls}\n{says}\n'


@pytest.fixture
def machine(tmp_path: Path, on_path: Callable[[str, str], None]) -> Callable[[bool], Path]:
    """A node on which encrypted credentials work, or do not; where the calls of its programs are written down."""

    def made(works: bool) -> Path:
        calls = tmp_path / "calls"
        on_path("systemd-creds", _CREDS.format(calls=calls))
        on_path("systemd-run", _RUN.format(calls=calls, says="printf trial" if works else "exit 243"))
        return calls

    return made


def file(tmp_path: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_good_file_is_named_and_not_read_into_the_variables(tmp_path: Path) -> None:
    path = file(tmp_path)
    assert role_variables([Credential("cloud_key", path)]) == {
        "credentials_wanted": [{"name": "cloud_key", "file": str(path)}]
    }


def test_a_file_of_ansible_vault_may_be_readable(tmp_path: Path) -> None:
    checked(Credential("key", file(tmp_path, "$ANSIBLE_VAULT;1.1;AES256\n6162\n", 0o644)))


@pytest.mark.parametrize(
    ("name", "text", "mode", "said"),
    [
        ("key", SECRET, 0o644, "can be read by others"),
        ("key", SECRET, 0o620, "can be read by others"),
        ("key", "\n", 0o600, "expected a key"),
        ("key", "x" * 70000, 0o600, "expected a key"),
        ("../key", SECRET, 0o600, "names no credential"),
        ("a:b", SECRET, 0o600, "names no credential"),
    ],
)
def test_a_file_that_is_no_good_is_refused_without_its_content(
    tmp_path: Path, name: str, text: str, mode: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        checked(Credential(name, file(tmp_path, text, mode)))
    assert SECRET not in caught.value.message + (caught.value.hint or "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        checked(Credential("key", tmp_path / "none"))


@pytest.mark.parametrize("works", [True, False])
def test_it_is_encrypted_where_that_works_and_root_alone_reads_it(
    tmp_path: Path, call: Call, machine: Callable[[bool], Path], works: bool
) -> None:
    calls, folder = machine(works), tmp_path / "credentials"
    given = {"credential": "cloud_key", "content": SECRET, "folder": str(folder)}
    foretold = call("dspark_credential", check=True, **given)
    assert foretold["changed"]
    assert not folder.exists()
    first, second = call("dspark_credential", **given), call("dspark_credential", **given)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["encrypted"] is works
    assert first["line"] == unit_line("cloud_key", encrypted=works, folder=str(folder)) == second["line"]
    assert [path.name for path in folder.iterdir()] == ["cloud_key.cred" if works else "cloud_key"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    holds = any(SECRET.encode() in path.read_bytes() for path in folder.iterdir())
    assert holds is not works
    for told in (json.dumps([foretold, first, second]), calls.read_text()):
        assert SECRET not in told


def test_another_key_and_none(tmp_path: Path, call: Call, machine: Callable[[bool], Path]) -> None:
    machine(True)
    given = {"credential": "k", "folder": str(tmp_path / "c")}
    call("dspark_credential", content=SECRET, **given)
    assert call("dspark_credential", content=SECRET + "2", **given)["changed"]
    assert not call("dspark_credential", content=SECRET + "2", **given)["changed"]
    assert "[credential.empty]" in call("dspark_credential", content="", **given)["msg"]
    plain = call("dspark_credential", content=SECRET, encryption="never", **given)
    assert plain["line"].startswith("LoadCredential=")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["k"]
    assert call("dspark_credential", state="absent", **given)["changed"]
    assert not call("dspark_credential", state="absent", **given)["changed"]
    assert list((tmp_path / "c").iterdir()) == []
