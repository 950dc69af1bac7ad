"""Over TLS a server is believed by the file that is given, and by nothing else."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dspark_ops.errors import ConfigError
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import Answer, ChatRequest
from tests.unit.openai_api.raw_server import PLAIN, chunked, document, serving

ASKED = ChatRequest(model="tiny", messages=({"role": "user", "content": "hello"},), max_tokens=16)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of its own for 127.0.0.1, as PEM, and what a server needs of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = tmp_path / "ca.pem", tmp_path / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


def ask(context: ssl.SSLContext, ca: Path | None) -> list[Answer]:
    async def work() -> list[Answer]:
        async with (
            serving(lambda request: [document({})] if request.method == "GET" else chunked(PLAIN), context) as server,
            ApiClient(server.url, zero=0.0, ca=ca) as client,
        ):
            return [await client.chat(ASKED, timeout_s=20), *await client.burst([ASKED] * 2, timeout_s=20)]

    return asyncio.run(work())


def test_the_given_certificate_is_trusted(certificate: tuple[Path, ssl.SSLContext]) -> None:
    pem, context = certificate
    assert [(answer.failure, answer.n) for answer in ask(context, pem)] == [(None, 6)] * 3


def test_an_unknown_certificate_is_not(certificate: tuple[Path, ssl.SSLContext]) -> None:
    _, context = certificate
    answers = ask(context, None)
    assert {answer.failure.kind for answer in answers if answer.failure} == {"connect"}
    assert len([answer for answer in answers if answer.failure]) == 3


@pytest.mark.parametrize("text", [None, "no certificate\n"])
def test_a_file_without_certificates_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="PEM"):
        ApiClient("https://127.0.0.1:1", zero=0.0, ca=path)
