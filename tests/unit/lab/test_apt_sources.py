"""Debian archives are taken from the machine's apt, and nobody else's are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.lab import apt_sources
from dspark_ops.lab.apt_sources import debian_sources

KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEB822 = f"""# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEY}

Types: deb deb-src
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main
"""


@pytest.fixture
def etc_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(apt_sources.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(apt_sources, "_codename", lambda: "bookworm")
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def found(etc_apt: Path, suite: str = "bookworm") -> list[tuple[str, str]]:
    return [(s.uri, s.suite) for s in debian_sources(suite, etc_apt=etc_apt)]


def test_deb822_with_two_suites_and_a_security_archive(etc_apt: Path) -> None:
    (etc_apt / "sources.list.d/debian.sources").write_text(DEB822)
    assert found(etc_apt) == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://mirror.example/debian-security", "bookworm-security"),
    ]


def test_one_line_form_and_comments(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(
        "# deb http://old.example/debian bookworm main\n"
        f"deb [arch=amd64 signed-by={KEY}] http://m.example/debian bookworm main\n"
    )
    assert found(etc_apt) == [("http://m.example/debian", "bookworm")]


def test_another_vendors_archive_disabled_ones_and_source_packages_are_left_out(etc_apt: Path) -> None:
    (etc_apt / "sources.list.d/debian.sources").write_text(DEB822)
    (etc_apt / "sources.list.d/vendor.list").write_text(
        "deb https://v.example/apt vendor-bookworm main\n"
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://v.example/apt bookworm main\n"
    )
    (etc_apt / "sources.list.d/off.sources").write_text(DEB822.replace("mirror.", "off.") + "Enabled: no\n")
    assert all("mirror.example" in uri for uri, suite in found(etc_apt) if suite.endswith("security"))
    assert not any("v.example" in uri for uri, _ in found(etc_apt))


def test_the_machines_codename_is_exchanged_for_the_suite(etc_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_sources, "_codename", lambda: "trixie")
    (etc_apt / "sources.list").write_text("deb http://m.example/debian trixie main\n")
    assert found(etc_apt) == [("http://m.example/debian", "bookworm")]


def test_a_machine_without_a_debian_archive_is_told_what_to_set(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text("deb http://m.example/ubuntu noble main\n")
    with pytest.raises(ConfigError) as caught:
        debian_sources("bookworm", etc_apt=etc_apt)
    assert "no Debian archive for bookworm" in caught.value.message
    assert apt_sources.MIRROR_VARIABLE in (caught.value.hint or "")


def test_every_line_is_pinned_to_debians_keyring(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text("deb http://m.example/debian bookworm main\n")
    (source,) = debian_sources("bookworm", etc_apt=etc_apt)
    assert source.line() == f"deb [signed-by={KEY}] http://m.example/debian bookworm main"
