"""What an image is made of, as CycloneDX 1.6: every Debian package of its root and every Python distribution."""

from __future__ import annotations

import email.parser
import hashlib
import re
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from dspark_ops.errors import NoVerdictError
from dspark_ops.images.normalise import EPOCH

if TYPE_CHECKING:
    from packageurl import PackageURL

_STATUS = "./var/lib/dpkg/status"
_WHEEL_HASH = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})$")


@dataclass(frozen=True)
class Part:
    """One package. sha256: of the wheel it came from, where the lock has it."""

    kind: str
    name: str
    version: str
    architecture: str | None = None
    sha256: str | None = None

    def purl(self) -> PackageURL:
        from packageurl import PackageURL

        if self.kind == "deb":
            return PackageURL("deb", "debian", self.name, self.version, {"arch": self.architecture or "all"})
        return PackageURL("pypi", None, self.name, self.version)


def debian_parts(root: Path) -> tuple[Part, ...]:
    """The packages of a Debian root tar, from its dpkg status.

    Raises:
        NoVerdictError: the tar holds no dpkg status.
    """
    with tarfile.open(root, "r:") as tar:
        for entry in tar:
            if entry.name in (_STATUS, _STATUS.removeprefix("./")):
                content = tar.extractfile(entry)
                text = content.read().decode("utf-8", "replace") if content else ""
                return tuple(sorted(_debian(text), key=lambda part: part.name))
    raise NoVerdictError(f"{root} holds no {_STATUS}; expected a Debian root")


def _debian(status: str) -> Iterable[Part]:
    for block in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            yield Part("deb", fields["Package"], fields["Version"], fields.get("Architecture"))


def python_parts(site: Path, locks: Sequence[bytes]) -> tuple[Part, ...]:
    """The distributions below a site-packages directory, each with its wheel's hash from the locks."""
    hashes = {}
    for line in b"\n".join(locks).decode("utf-8").splitlines():
        found = _WHEEL_HASH.match(line)
        if found:
            hashes[_normal(found["name"]), found["version"]] = found["sha256"]
    parts = []
    for metadata in site.glob("*.dist-info/METADATA"):
        headers = email.parser.HeaderParser().parsestr(metadata.read_text(encoding="utf-8", errors="replace"))
        name, version = _normal(str(headers["Name"])), str(headers["Version"])
        parts.append(Part("pypi", name, version, sha256=hashes.get((name, version))))
    return tuple(sorted(parts, key=lambda part: part.name))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def write_sbom(target: Path, *, name: str, version: str, parts: Sequence[Part]) -> str:
    """Write the document; its sha256. The same parts give the same bytes: date and serial number follow from them."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    seed = hashlib.sha256(repr((name, version, sorted(parts, key=repr))).encode()).digest()
    bom = Bom(serial_number=UUID(bytes=seed[:16], version=5))
    bom.metadata.timestamp = datetime.fromtimestamp(EPOCH, UTC)
    image = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref="image")
    bom.metadata.component = image
    for part in parts:
        purl = part.purl()
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)] if part.sha256 else None
        bom.components.add(
            Component(
                name=part.name,
                version=part.version,
                type=ComponentType.LIBRARY,
                purl=purl,
                bom_ref=purl.to_string(),
                hashes=hashes,
            )
        )
    bom.register_dependency(image, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
    target.write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()
