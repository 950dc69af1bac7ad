"""Chains of layers, and archives of both forms that are picked apart and put together by the node's own code."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.images.layers import chain_ids, lacking
from tests.unit.roles.conftest import PLAYBOOKS, load

node = load(PLAYBOOKS / "module_utils/dspark_image_archive.py", "dspark_image_archive")

BASE, TOP = b"base layer" * 5000, b"top layer" * 3000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(d)}" for d in (BASE, TOP)]}}).encode()
IMAGE = digest(CONFIG)


def tar_of(entries: list[tuple[str, bytes | str]]) -> io.BytesIO:
    """A tar with files in this order; text is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in entries:
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def legacy(*, config: bytes = CONFIG) -> io.BytesIO:
    """As Engines up to 24 save: directories of another id, the configuration behind the layers."""
    one, two, three = (c * 64 for c in "123")
    return tar_of(
        [
            (f"{two}/VERSION", b"1.0"),
            (f"{two}/json", b"{}"),
            (f"{two}/layer.tar", TOP),
            (f"{one}/layer.tar", BASE),
            (f"{three}/layer.tar", f"../{one}/layer.tar"),
            (f"{IMAGE}.json", config),
            ("manifest.json", b"[]"),
            ("repositories", b"{}"),
        ]
    )


def oci() -> io.BytesIO:
    """As Engines since 25 save: blobs by digest."""
    blobs = [(f"blobs/sha256/{digest(data)}", data) for data in (BASE, CONFIG, TOP, b"{}")]
    return tar_of([*blobs, ("index.json", b"{}"), ("manifest.json", b"[]"), ("oci-layout", b"{}")])


@pytest.mark.parametrize("made", [legacy, oci])
def test_only_the_wanted_layers_of_either_form_are_kept(made: Callable[[], io.BytesIO], tmp_path: Path) -> None:
    sizes = node.pick(made(), IMAGE, [digest(TOP)], tmp_path)
    assert sizes == {digest(TOP): len(TOP), "config": len(CONFIG)}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {digest(TOP): TOP, "config": CONFIG}


@pytest.mark.parametrize("made", [legacy, oci])
def test_a_layer_that_is_not_in_the_archive_is_named(made: Callable[[], io.BytesIO], tmp_path: Path) -> None:
    with pytest.raises(node.ArchiveError, match="f" * 64):
        node.pick(made(), IMAGE, [digest(TOP), "f" * 64], tmp_path)


# Docker Engine 20.10.24 on the rehearsal pair: `docker save dspark-engine-rehearsal:4485f7c0fed1`, the `json` of its
# two lower layers, and their diff_ids as `docker image inspect` gives them.
SAVED_CHAIN = (
    "3f9305dd18079f0c12ccd73e1d8aded3f3d5fb88f7b28b35270a8facd1ce8f46",
    "db7ec35a3913ae61ec08f4fae24704754e0b673ea1ea4985d88463903a1d476a",
    "537ea62ec1b67e2d4c1867bbcabc1da55893fa7e071ec726d544ee7c7a37116c",
)
SAVED_IDS = (
    "19f251b692216fd0e11112c49c3a4877efe9eddef29d89c1bbece51ce377f9e8",
    "5d7307a49454e695dda92551f99e26e10187799333d8d1a1e7478af0a526d8b8",
)
SAVED_REST = (
    '"created":"1970-01-01T00:00:00Z","container_config":{"Hostname":"","Domainname":"","User":"","AttachStdin":false,'
    '"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,'
    '"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null},"os":"linux"}'
)
SAVED_JSON = (
    f'{{"id":"{SAVED_IDS[0]}",{SAVED_REST}'.encode(),
    f'{{"id":"{SAVED_IDS[1]}","parent":"{SAVED_IDS[0]}",{SAVED_REST}'.encode(),
)


@pytest.mark.parametrize("place", [0, 1])
def test_an_unwanted_layer_of_a_real_engine_is_known_before_its_content(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    take = node._take
    monkeypatch.setattr(node, "_take", lambda *words: hashed.append(words[2]) or take(*words))
    name = SAVED_IDS[place]
    entries = [(f"{name}/json", SAVED_JSON[place]), (f"{name}/layer.tar", BASE), (f"{'9' * 64}/layer.tar", TOP)]
    archive = tar_of([*entries, (f"{IMAGE}.json", CONFIG)])
    sizes = node.pick(archive, IMAGE, [digest(TOP)], tmp_path, SAVED_CHAIN)
    assert sizes.keys() == {digest(TOP), "config"}
    assert len(hashed) == 2


@pytest.mark.parametrize("said", [SAVED_JSON[1], b"no JSON", b"[]", b"{}"])
def test_a_layer_that_cannot_be_told_beforehand_is_hashed(said: bytes, tmp_path: Path) -> None:
    entries = [(f"{SAVED_IDS[0]}/json", said), (f"{SAVED_IDS[0]}/layer.tar", TOP), (f"{IMAGE}.json", CONFIG)]
    assert digest(TOP) in node.pick(tar_of(entries), IMAGE, [digest(TOP)], tmp_path, SAVED_CHAIN)


def test_a_blob_whose_content_is_not_what_its_name_says_is_not_taken(tmp_path: Path) -> None:
    forged = tar_of([(f"blobs/sha256/{digest(TOP)}", BASE), (f"blobs/sha256/{IMAGE}", CONFIG)])
    with pytest.raises(node.ArchiveError, match=digest(TOP)):
        node.pick(forged, IMAGE, [digest(TOP)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_a_configuration_that_was_altered_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(node.ArchiveError, match="config"):
        node.pick(legacy(config=CONFIG + b" "), IMAGE, [], tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_an_archive_that_ends_early_leaves_no_half_file(keep: float, tmp_path: Path) -> None:
    whole = legacy().getvalue()
    with pytest.raises(node.ArchiveError):
        node.pick(io.BytesIO(whole[: int(len(whole) * keep)]), IMAGE, [digest(BASE), digest(TOP)], tmp_path)
    assert all(digest(path.read_bytes()) == path.name for path in tmp_path.iterdir())


def test_a_partial_archive_holds_the_given_layers_and_the_whole_chain_in_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "top").write_bytes(TOP)
    out = io.BytesIO()
    node.write_partial(out, IMAGE, CONFIG, {digest(TOP): tmp_path / "top"})
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert archive.getnames() == ["manifest.json", f"{IMAGE}.json", f"{digest(TOP)}/layer.tar"]
        member = archive.extractfile("manifest.json")
        assert member is not None
        [manifest] = json.loads(member.read())
    assert manifest["Layers"] == [f"{digest(data)}/layer.tar" for data in (BASE, TOP)]
    assert manifest["RepoTags"] is None
    with pytest.raises(node.ArchiveError, match="not that of image"):
        node.write_partial(io.BytesIO(), "0" * 64, CONFIG, {})


def test_chain_ids_are_those_of_the_oci_image_specification() -> None:
    one, two = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert chain_ids(()) == ()
    assert chain_ids((one, two)) == (one, "sha256:" + digest(f"{one} {two}".encode()))


LAYER = st.sampled_from([f"sha256:{c * 64}" for c in "abcd"])
LAYERS = st.lists(LAYER, max_size=5)


@given(LAYERS, st.lists(LAYERS, max_size=4))
def test_an_engine_lacks_what_is_above_the_longest_beginning_that_it_holds(
    wanted: list[str], present: list[list[str]]
) -> None:
    """Chain arithmetic says the same as comparing the beginnings of the lists."""
    common = max(
        (n for other in present for n in range(len(wanted) + 1) if other[:n] == wanted[:n]),
        default=0,
    )
    assert lacking(wanted, present) == tuple(wanted[common:])
