"""The operator's own certificate: what the edge could not serve is refused here, before the head is asked."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dspark_ops.config.load import load_profile, load_site
from dspark_ops.config.sample import render_sample
from dspark_ops.errors import ConfigError
from dspark_ops.gateway import install as module
from dspark_ops.gateway.certificate import check_pair
from tests.gateway.certificate import self_signed

MINE, MINE_KEY = self_signed("head.lan")
OTHER, OTHER_KEY = self_signed("other.lan")


def written(folder: Path, certificate: bytes, key: bytes) -> tuple[Path, Path]:
    paths = folder / "tls.pem", folder / "tls.key"
    for path, content in zip(paths, (certificate, key), strict=True):
        path.write_bytes(content)
    return paths


def with_passphrase(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"words"),
    )


@pytest.mark.parametrize("certificate", [MINE, MINE + OTHER], ids=["alone", "chain"])
def test_a_certificate_with_its_key_passes(tmp_path: Path, certificate: bytes) -> None:
    check_pair(*written(tmp_path, certificate, MINE_KEY))


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        (MINE, OTHER_KEY, r"not the key of the first certificate .*head\.lan"),
        (OTHER + MINE, MINE_KEY, r"not the key of the first certificate .*other\.lan"),
        (b"no PEM", MINE_KEY, "holds no certificate"),
        (MINE, b"no PEM", "holds no private key"),
        (MINE, MINE, "holds no private key"),
        (MINE, with_passphrase(MINE_KEY), "has a passphrase"),
    ],
    ids=["another's key", "chain in the wrong order", "no certificate", "no key", "certificate as key", "passphrase"],
)
def test_what_the_edge_could_not_serve_is_refused(tmp_path: Path, certificate: bytes, key: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_pair(*written(tmp_path, certificate, key))
    assert "PRIVATE KEY" not in caught.value.message


def test_a_certificate_that_has_ended_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ended at"):
        check_pair(*written(tmp_path, MINE, MINE_KEY), now=datetime.now(UTC) + timedelta(days=2))


def test_a_vaulted_key_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = written(tmp_path, MINE, OTHER_KEY)
    password = tmp_path / "password"
    password.write_text("words\n")
    vault = str(Path(sys.executable).with_name("ansible-vault"))
    argv = [vault, "encrypt", "--vault-password-file", str(password), str(key)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    with pytest.raises(ConfigError, match="cannot be decrypted"):
        check_pair(certificate, key)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    with pytest.raises(ConfigError, match="not the key"):
        check_pair(certificate, key)
    certificate.write_bytes(OTHER)
    check_pair(certificate, key)
    assert key.read_bytes().startswith(b"$ANSIBLE_VAULT;"), "it is still encrypted"


def test_install_refuses_it_before_it_runs_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = written(tmp_path, MINE, OTHER_KEY)
    site = tmp_path / "site.yml"
    site.write_text(render_sample(load_profile("current").site))
    loaded = load_site(
        site, environ={}, overrides=[f"gateway.certificate={certificate}", f"gateway.certificate_key={key}"]
    )

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a playbook was run")

    monkeypatch.setattr(module, "run_playbook", never)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(ConfigError, match="not the key"):
        module.install(loaded, consent=lambda _: None, progress=lambda _: None)
