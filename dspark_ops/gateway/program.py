"""The policy as one zipapp, byte for byte the same from the same sources. LiteLLM is its venv's."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

_PACKAGE = "dspark_gateway"
_MAIN = f"from {_PACKAGE}.launch import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def zipapp() -> bytes:
    """`python -I gateway.pyz policy.json` starts the router."""
    sources = {"__main__.py": _MAIN.encode()}
    for path in sorted((Path(__file__).parent / "plugin").glob("*.py")):
        sources[f"{_PACKAGE}/{path.name}"] = path.read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sources.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()
