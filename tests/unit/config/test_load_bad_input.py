"""Bad input: one clear message each, with file and line, and exit code 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_profile, load_site
from dspark_ops.errors import ConfigError

Load = Callable[..., LoadedSite]
Refused = Callable[..., ConfigError]


def test_the_sound_site_loads(load: Load) -> None:
    loaded = load()
    assert loaded.site.nodes.head.host == "spark-head"
    assert loaded.profile.name == "rehearsal"
    assert loaded.notes == ()


def test_unknown_key_names_line_and_nearest_key(refused: Refused, site_text: str, site_path: Path) -> None:
    error = refused(site_text.replace("api_port", "api_prot"))
    assert error.message == f"{site_path}:19: serve.api_prot: unknown key; did you mean serve.api_port?"


def test_unknown_key_in_the_wrong_section_names_the_right_one(refused: Refused, site_text: str) -> None:
    assert "did you mean serve.api_port?" in refused(site_text + "api_port: 8000\n").message


def test_unknown_key_with_nothing_near_lists_the_section(refused: Refused, site_text: str) -> None:
    message = refused(site_text + "guards: {zzz: 1}\n").message
    assert "guards.zzz: unknown key; the keys here are memory_floor_gib, disk_floor_gib, ready_timeout_s" in message


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("8000", '"8000"', ["serve.api_port", "whole number from 1 to 65535", 'text "8000" (remove the quotes)']),
        ("8000", "eighty", ["serve.api_port", "whole number", '"eighty"']),
        ("8000", "70000", ["serve.api_port", "whole number from 1 to 65535", "got 70000"]),
        ("8000", "8000.5", ["serve.api_port", "whole number", "8000.5"]),
        ("8000", "yes", ["serve.api_port", "whole number", "got yes (YAML reads it as true"]),
        ("8000", "12:30", ["serve.api_port", "12:30", "base 2, 8, 16 or 60"]),
        ("8000", "017500", ["serve.api_port", "017500", "plain decimal"]),
        ("8000", "0x1f40", ["serve.api_port", "0x1f40", "plain decimal"]),
        ("8000", "[8000]", ["serve.api_port", "whole number", "a list of 1"]),
        ("8000", "null", ["serve.api_port", "whole number", "nothing (null)"]),
        ("8000", "9" * 5000, ["serve.api_port"]),
        ("name: lab", "name: no", ["name", "expected text", "got no (YAML reads it as false; put quotes"]),
        ("name: lab", "name: 12", ["name", "expected text", "the number 12 (put quotes"]),
        ("name: lab", "name: Lab One", ["name", "lower-case letters, digits and dashes", '"Lab One"']),
        ("name: lab", "name: {a: 1}", ["name", "expected text", "a mapping with the keys a"]),
        ("version: 1", 'version: "1"', ["version", "expected 1", '"1"']),
        ("version: 1", "version: 2", ["version", "expected 1", "got 2"]),
        ("10.77.0.1/24", "10.77.0.1", ["fabric.rails.0.head.address", "with its prefix", '"10.77.0.1"']),
        ("10.77.0.1/24", "10.77.0.300/24", ["fabric.rails.0.head.address", "IPv4 address", '"10.77.0.300/24"']),
        ("10.77.0.1/24", "fe80::1/64", ["fabric.rails.0.head.address", "IPv4 address"]),
        ("host: spark-head", "host: -oProxyCommand=x", ["nodes.head.host", "expected a host name"]),
        ("host: spark-head", "host:", ["nodes.head.host", "expected text", "nothing (null)"]),
        ("reference: dspark-engine-rehearsal:abc", "reference: engine:latest", ["image.reference", "fixed tag"]),
        ("id: sha256:1", "id: sha256:z", ["image.id", "64 hexadecimal digits"]),
        ("  api_port: 8000", "  gpu_memory_utilization: .nan", ["gpu_memory_utilization", "finite number"]),
    ],
)
def test_wrong_value_names_key_line_expected_and_observed(
    refused: Refused, site_text: str, site_path: Path, old: str, new: str, parts: list[str]
) -> None:
    assert old in site_text
    text = site_text.replace(old, new, 1)
    message = refused(text).message
    line = text[: text.index(new)].count("\n") + 1
    assert message.startswith(f"{site_path}:{line}: "), message
    for part in parts:
        assert part in message
    assert len(message) < 400


def test_missing_key_names_the_section(refused: Refused, site_text: str, site_path: Path) -> None:
    message = refused(site_text.replace("  reference: dspark-engine-rehearsal:abc\n", "")).message
    assert message == f"{site_path}:15: image.reference: missing; expected text"


def test_missing_section(refused: Refused, site_text: str) -> None:
    text = site_text[: site_text.index("image:")]
    assert "image: missing; expected a section with the keys reference, id, archive" in refused(text).message


def test_missing_profile(refused: Refused, site_text: str) -> None:
    assert "profile: missing" in refused(site_text.replace("profile: rehearsal\n", "")).message


def test_unknown_profile_names_the_nearest(refused: Refused, site_text: str, site_path: Path) -> None:
    message = refused(site_text.replace("profile: rehearsal", "profile: rehersal")).message
    assert message == f'{site_path}:3: profile: unknown profile "rehersal"; did you mean rehearsal?'


def test_a_profile_is_no_path() -> None:
    with pytest.raises(ConfigError, match="unknown profile"):
        load_profile("../profiles/rehearsal")


def test_all_problems_of_a_file_are_reported_at_once(refused: Refused, site_text: str, site_path: Path) -> None:
    text = site_text.replace("8000", '"8000"').replace("name: lab", "name: no") + "colour: red\nname: again\n"
    lines = refused(text).message.splitlines()
    assert lines[0] == f"{site_path}: 4 problems"
    assert len(lines) == 5
    assert f"{site_path}:21: name: duplicate key; it is already on line 2" in lines[1]


def test_duplicate_keys_name_both_lines(refused: Refused, site_text: str, site_path: Path) -> None:
    message = refused(site_text + "  api_port: 8001\n").message
    assert message == f"{site_path}:20: serve.api_port: duplicate key; it is already on line 19"


def test_a_key_that_yaml_reads_as_a_boolean(refused: Refused, site_text: str) -> None:
    assert "a key that is text, got on (quote it)" in refused(site_text + "on: 1\n").message


def test_a_tag_is_refused(refused: Refused, site_text: str) -> None:
    assert (
        "is not used in a site file"
        in refused(site_text.replace("name: lab", "name: !!python/name:os.system x")).message
    )


def test_tab_names_line_and_column(refused: Refused, site_text: str, site_path: Path) -> None:
    message = refused(site_text.replace("  api_port", "\tapi_port")).message
    assert message.startswith(f"{site_path}:19:1: ")
    assert "a tab is used for indentation" in message


def test_syntax_error_names_line_and_column(refused: Refused, site_text: str, site_path: Path) -> None:
    message = refused(site_text.replace("{host: spark-head}", "{host: spark-head")).message
    assert message.startswith(f"{site_path}:6:")
    assert "not YAML" in message


def test_bom_and_crlf_are_read_as_if_they_were_not_there(load: Load, site_text: str) -> None:
    plain = load()
    for raw in (
        b"\xef\xbb\xbf" + site_text.encode(),
        site_text.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + site_text.replace("\n", "\r\n").encode(),
    ):
        loaded = load(raw)
        assert loaded.site == plain.site
        assert loaded.provenance["serve.api_port"].detail == "site.yml:19"


def test_lines_are_right_in_a_crlf_file(refused: Refused, site_text: str, site_path: Path) -> None:
    raw = b"\xef\xbb\xbf" + site_text.replace("api_port", "api_prot").replace("\n", "\r\n").encode()
    assert refused(raw).message.startswith(f"{site_path}:19: serve.api_prot")


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"# only a remark\n", "holds only comments"),
        (b"- a\n- b\n", "a mapping of `key: value` lines at the top, got a list of 2"),
        (b"hello\n", 'got "hello"'),
        (b"version: 1\nname: \xff\n", ":2: is not UTF-8 (byte 0xff)"),
        ("version: 1\n".encode("utf-16"), "is UTF-16"),
        (b"version: 1\nname: a\0b\n", ":2: holds a NUL byte"),
        (b"version: 1\nname: a\x07b\n", ":2: not YAML"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
        (b"[" * 5000, "nested too deeply"),
        (b"a: &a [*a, *a]\n", "values or 50 levels"),
        (b"# " + b"x" * 1_048_577, "larger than"),
    ],
)
def test_files_that_are_no_site(refused: Refused, site_path: Path, raw: bytes, part: str) -> None:
    message = refused(raw).message
    assert part in message
    assert "\n" not in message


def test_aliases_cannot_blow_up(refused: Refused) -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    assert "unfolds to more than" in refused(bomb).message


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yml: no such file") as caught:
        load_site(tmp_path / "absent.yml", environ={})
    assert caught.value.exit_code == 2
    assert "dspark-ops init" in (caught.value.hint or "")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory") as caught:
        load_site(tmp_path, environ={})
    assert str(tmp_path / "site.yml") in (caught.value.hint or "")


def test_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        load_site(tmp_path / "pipe", environ={})


@pytest.mark.parametrize("name", ["a\0b", "n" * 300, "site.yml/below"])
def test_impossible_paths(tmp_path: Path, name: str) -> None:
    (tmp_path / "site.yml").write_text("x")
    with pytest.raises(ConfigError):
        load_site(tmp_path / name, environ={})


def test_unreadable_file(site_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """root reads everything, so the refusal itself is simulated."""
    site_path.write_text("version: 1\n")

    def deny(self: Path, *_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ConfigError, match="not readable by this user"):
        load_site(site_path, environ={})
