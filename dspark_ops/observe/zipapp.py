"""The exporter as one file: our modules and prometheus_client's, byte for byte the same from the same versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
from pathlib import Path, PurePosixPath

from dspark_ops import __version__
from dspark_ops.errors import ConfigError

#: What the exporter imports of this package; a test runs it with nothing else.
_OURS = ("__init__.py", "fabric/__init__.py", "fabric/error_counters.py", "observe/__init__.py", "observe/exporter/")
_CLIENT = "prometheus_client"
# Parts for web frameworks that the nodes do not have.
_LEFT_OUT = ("aiohttp", "bridge", "django", "twisted")
_PACKAGE = Path(__file__).resolve().parents[1]


def build_exporter() -> bytes:
    """The zipapp. Entries are sorted, stored without compression, and carry no time of their own.

    Raises:
        ConfigError: prometheus_client is not installed as plain files.
    """
    files = {f"dspark_ops/{name}": text for name, text in _own_files().items()} | _client_files()
    files["__main__.py"] = b"from dspark_ops.observe.exporter.__main__ import main\n\nraise SystemExit(main())\n"
    files["bundle.json"] = json.dumps(
        {
            "dspark_ops": __version__,
            _CLIENT: importlib.metadata.version(_CLIENT),
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        },
        indent=1,
    ).encode()
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/python3 -I\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3
            archive.writestr(entry, content)
    return buffer.getvalue()


def write_exporter(path: Path) -> str:
    """Write the zipapp and give its sha256."""
    content = build_exporter()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _own_files() -> dict[str, bytes]:
    found = {}
    for name in _OURS:
        paths = sorted((_PACKAGE / name).glob("*.py")) if name.endswith("/") else [_PACKAGE / name]
        for path in paths:
            found[path.relative_to(_PACKAGE).as_posix()] = path.read_bytes()
    return found


def _client_files() -> dict[str, bytes]:
    """prometheus_client's modules and its licence, from where it is installed."""
    found = {}
    for entry in importlib.metadata.files(_CLIENT) or ():
        parts = PurePosixPath(entry.as_posix()).parts
        module = parts[0] == _CLIENT and entry.suffix == ".py" and parts[1] not in _LEFT_OUT
        licence = parts[0].endswith(".dist-info") and entry.name in ("LICENSE", "NOTICE")
        if not module and not licence:
            continue
        try:
            content = Path(str(entry.locate())).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{_CLIENT} is not installed as plain files: {entry} {error.strerror}", hint="install it again with pip"
            ) from None
        found["/".join(parts) if module else f"{_CLIENT}/{entry.name}"] = content
    if f"{_CLIENT}/registry.py" not in found:
        raise ConfigError(f"{_CLIENT} is not installed with its files", hint="install it again with pip")
    return found
