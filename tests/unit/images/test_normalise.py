"""The same inputs give the same image: dates, owners and the build's own traces go, what a container sees stays."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import NoVerdictError
from dspark_ops.images.normalise import EPOCH, normalise_archive, normalise_layer

_XATTR = {"SCHILY.xattr.security.capability": "\x01"}


def _layer(files: Mapping[str, bytes], *, mtime: float, uname: str = "root") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("etc")
        folder.type, folder.mode, folder.mtime, folder.uname = tarfile.DIRTYPE, 0o755, mtime, uname
        tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime, entry.uid, entry.uname = len(content), 0o640, mtime, 1000, uname
            entry.pax_headers = {"atime": str(mtime), **_XATTR}
            tar.addfile(entry, io.BytesIO(content))
        for kind, name, target in ((tarfile.SYMTYPE, "etc/sym", "a"), (tarfile.LNKTYPE, "etc/hard", next(iter(files)))):
            link = tarfile.TarInfo(name)
            link.type, link.linkname, link.mtime = kind, target, mtime
            tar.addfile(link)
    return out.getvalue()


def _saved(
    path: Path, layers: list[bytes], *, created: str, tags: tuple[str, ...] = ("r:t",), oci: bool = False
) -> Path:
    """A `docker save` archive; oci: as newer Engines lay it out."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "docker_version": "20.10.24",
        "container": created,
        "config": {"Env": ["A=b"], "Cmd": ["run"], "Hostname": created, "Labels": {"old": "x"}, "Image": created},
        "history": [{"created": created}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    raw = json.dumps(config).encode()
    config_name = (
        f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}" if oci else f"{hashlib.sha256(raw).hexdigest()}.json"
    )
    names = [f"blobs/sha256/{digest}" if oci else f"{digest}/layer.tar" for digest in digests]
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": names} for tag in tags]
    files = {config_name: raw, **dict(zip(names, layers, strict=True)), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def _labels(reference: str, captured: Mapping[str, bytes]) -> dict[str, str]:
    return {"of": reference, "seen": captured.get("etc/a", b"").decode("latin-1")}


def _normal(source: Path, target: Path, **more: Any) -> Any:
    more.setdefault("history", ("root", "packages", "stage"))
    return normalise_archive(source, target, labels=_labels, capture=frozenset({"etc/a"}), **more)


def test_builds_at_two_times_become_one_image(tmp_path: Path) -> None:
    made = []
    for run, mtime in (("one", 1_800_000_000.5), ("two", 1_900_000_000.25)):
        layers = [_layer({"etc/a": b"x"}, mtime=mtime, uname=run), _layer({"etc/b": b"y" * 9000}, mtime=mtime)]
        saved = _saved(tmp_path / f"{run}.tar", layers, created=run, oci=run == "two")
        made.append(_normal(saved, tmp_path / f"{run}.normal"))
    assert made[0] == made[1]
    assert (tmp_path / "one.normal").read_bytes() == (tmp_path / "two.normal").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.normal", "one.tar", "two.normal", "two.tar"]


def test_another_content_is_another_image(tmp_path: Path) -> None:
    made = [
        _normal(_saved(tmp_path / "s", [_layer({"etc/a": content}, mtime=1)], created="x"), tmp_path / "n")
        for content in (b"x", b"y")
    ]
    assert made[0][0].image_id != made[1][0].image_id
    assert made[0][0].layers != made[1][0].layers


def test_what_a_container_sees_is_kept_and_the_builds_traces_go(tmp_path: Path) -> None:
    saved = _saved(
        tmp_path / "s", [_layer({"etc/a": b"x"}, mtime=EPOCH + 5), _layer({"etc/b": b""}, mtime=7)], created="now"
    )
    [image] = _normal(saved, tmp_path / "n", rename=lambda reference: f"new-{reference}")
    with tarfile.open(tmp_path / "n") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        config_bytes = archive.extractfile(manifest[0]["Config"]).read()  # type: ignore[union-attr]
        layer = archive.extractfile(manifest[0]["Layers"][0]).read()  # type: ignore[union-attr]
    assert manifest[0]["RepoTags"] == ["new-r:t"] == [image.reference]
    assert image.image_id == f"sha256:{hashlib.sha256(config_bytes).hexdigest()}"
    assert image.layers[0] == f"sha256:{hashlib.sha256(layer).hexdigest()}"
    assert image.layer_bytes[0] == len(layer)
    config = json.loads(config_bytes)
    assert config["config"] == {"Env": ["A=b"], "Cmd": ["run"], "Labels": {"of": "r:t", "seen": "x"}}
    assert config["rootfs"]["diff_ids"] == list(image.layers)
    assert [item["created_by"] for item in config["history"]] == [
        "dspark-ops image build: root",
        "dspark-ops image build: packages",
    ]
    assert b"now" not in config_bytes
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entry = tar.getmember("etc/a")
        assert (entry.mtime, entry.mode, entry.uid, entry.uname) == (EPOCH, 0o640, 1000, "")
        assert entry.pax_headers == _XATTR
        assert tar.extractfile(entry).read() == b"x"  # type: ignore[union-attr]
        assert (tar.getmember("etc/sym").linkname, tar.getmember("etc/hard").islnk()) == ("a", True)


def test_a_file_older_than_the_date_keeps_its_own(tmp_path: Path) -> None:
    [image] = _normal(_saved(tmp_path / "s", [_layer({"etc/a": b""}, mtime=7)], created="x"), tmp_path / "n")
    with tarfile.open(tmp_path / "n") as archive:
        layer = archive.extractfile(f"{image.layers[0].removeprefix('sha256:')}.tar")
        with tarfile.open(fileobj=layer) as tar:
            assert tar.getmember("etc/a").mtime == 7


def test_images_share_their_layers_and_a_linked_layer_is_found(tmp_path: Path) -> None:
    layer = _layer({"etc/a": b"x"}, mtime=1)
    saved = _saved(tmp_path / "s", [layer], created="x", tags=("r:a", "r:b"))
    with tarfile.open(saved) as archive:
        old = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    with tarfile.open(saved, "a") as archive:
        link = tarfile.TarInfo("other/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{hashlib.sha256(layer).hexdigest()}/layer.tar"
        archive.addfile(link)
        old[1]["Layers"] = ["other/layer.tar"]
        raw = json.dumps(old).encode()
        fresh = tarfile.TarInfo("manifest.json")
        fresh.size = len(raw)
        archive.addfile(fresh, io.BytesIO(raw))
    first, second = _normal(saved, tmp_path / "n")
    assert first.layers == second.layers
    assert first.image_id != second.image_id  # their labels name them
    with tarfile.open(tmp_path / "n") as archive:
        assert len([name for name in archive.getnames() if name.endswith(".tar")]) == 1


def test_normalising_twice_changes_nothing(tmp_path: Path) -> None:
    saved = _saved(tmp_path / "s", [_layer({"etc/a": b"x"}, mtime=1e9 * 2)], created="x")
    first = _normal(saved, tmp_path / "n")
    assert _normal(tmp_path / "n", tmp_path / "m") == first
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no tar", json.dumps([]).encode()])
def test_something_else_is_told_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.write_bytes(content)
    with pytest.raises(NoVerdictError, match="not an archive as `docker save` writes it"):
        _normal(source, tmp_path / "n")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_layer_that_nothing_accounts_for_is_an_error(tmp_path: Path) -> None:
    saved = _saved(tmp_path / "s", [_layer({"etc/a": b"x"}, mtime=1)] * 2, created="x")
    with pytest.raises(NoVerdictError, match="only 1 are accounted for"):
        _normal(saved, tmp_path / "n", history=("root",))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@given(
    files=st.dictionaries(st.from_regex(r"\Aetc/[a-zä-ü0-9 ]{1,120}\Z"), st.binary(max_size=40), min_size=1, max_size=5)
)
def test_no_content_is_lost(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("normal")
    files.pop("etc/sym", None), files.pop("etc/hard", None)
    files["etc/first"] = b"1"
    [image] = _normal(_saved(folder / "s", [_layer(files, mtime=1)], created="x"), folder / "n")
    with tarfile.open(folder / "n") as archive:
        layer = archive.extractfile(f"{image.layers[0].removeprefix('sha256:')}.tar")
        with tarfile.open(fileobj=layer) as tar:
            seen = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isreg()}  # type: ignore[union-attr]
    assert seen == files


def test_a_root_has_the_digest_of_the_layer_that_it_becomes(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(_layer({"etc/a": b"x"}, mtime=1_900_000_000.5))
    diff_id = normalise_layer(tmp_path / "root", tmp_path / "normal")
    assert diff_id == f"sha256:{hashlib.sha256((tmp_path / 'normal').read_bytes()).hexdigest()}"
    [image] = _normal(_saved(tmp_path / "s", [(tmp_path / "normal").read_bytes()], created="x"), tmp_path / "n")
    assert image.layers == (diff_id,)
    (tmp_path / "root").write_bytes(b"no tar" * 200)
    with pytest.raises(NoVerdictError, match="is not a tar"):
        normalise_layer(tmp_path / "root", tmp_path / "other")


def test_the_order_in_which_an_engine_tells_its_images_does_not_count(tmp_path: Path) -> None:
    layer = _layer({"etc/a": b"x"}, mtime=1)
    made = []
    for run, tags in (("one", ("r:a", "r:b")), ("two", ("r:b", "r:a"))):
        made.append(_normal(_saved(tmp_path / run, [layer], created="x", tags=tags), tmp_path / f"{run}.normal"))
    assert set(made[0]) == set(made[1])
    assert (tmp_path / "one.normal").read_bytes() == (tmp_path / "two.normal").read_bytes()
