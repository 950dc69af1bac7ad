"""The redaction of what has a shape: readings, sites, reports. Every text in them goes through the redactor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspark_ops.config.models import ROLES, Profile, Site
from dspark_ops.deploy.spec import render_pair
from dspark_ops.evidence import secrets
from dspark_ops.evidence.commands import spots_in
from dspark_ops.evidence.redaction import Redactor
from dspark_ops.transport.base import NodeReading


def learn_reading(redactor: Redactor, reading: NodeReading) -> None:
    """See what a reading holds, before anything of the pair is redacted."""
    for result in reading.results.values():
        for text in (result.stdout, result.stderr, result.error):
            redactor.learn(text or "")
        for path, content in (result.files or {}).items():
            redactor.learn(content, path=path)
    for text in (reading.error, reading.hint):
        redactor.learn(text or "")


def redact_reading(redactor: Redactor, reading: NodeReading) -> NodeReading:
    """The reading without secrets; numbers, times and the names of probes stay."""
    document = redact_document(redactor, reading.model_dump(mode="json", exclude={"node", "results"}))
    if reading.hostname is not None:
        document["hostname"] = redactor.name_of_host(reading.hostname)
    if reading.user is not None:
        document["user"] = redactor.name_of_user(reading.user)
    results = {
        identity: redact_document(redactor, result.model_dump(mode="json", exclude={"id"})) | {"id": identity}
        for identity, result in reading.results.items()
    }
    return NodeReading.model_validate(document | {"node": reading.node, "results": results})


def learn_document(redactor: Redactor, document: Any) -> None:
    """See what a document holds."""
    for kind, value in secrets.told_in(document):
        redactor.learn_secret(kind, value)
    for text in _texts(document):
        redactor.learn(text)


def redact_document(redactor: Redactor, document: Any) -> Any:
    """A JSON document without secrets; its shape, numbers and switches stay."""
    if isinstance(document, str):
        return redactor.text(document)
    if isinstance(document, list):
        return _redact_list(redactor, document)
    if isinstance(document, dict):
        return {redactor.text(str(key)): _redact_entry(redactor, str(key), value) for key, value in document.items()}
    return document


def redact_site(redactor: Redactor, site: Site, profile: Profile) -> Site:
    """The site without secrets. A release id is made of them: the id of what is left takes its place everywhere."""
    document = redact_document(redactor, site.model_dump(mode="json"))
    for role in ROLES:
        document["nodes"][role]["host"] = redactor.name_of_host(site.nodes.of(role).host)
    shown = Site.model_validate(document)
    if shown != site:
        real, redacted = render_pair(site, profile), render_pair(shown, profile)
        for role in ROLES:
            redactor.replace(real[role].release, redacted[role].release)
            redactor.replace(real[role].digest(), redacted[role].digest())
    return shown


def _redact_entry(redactor: Redactor, key: str, value: Any) -> Any:
    if isinstance(value, str) and secrets.is_secret_name(key):
        return redactor.hidden("variable", value)
    return redact_document(redactor, value)


def _redact_list(redactor: Redactor, items: list[Any]) -> list[Any]:
    words = [item if isinstance(item, str) else "" for item in items]
    given = dict.fromkeys(value for _, value in secrets.given_in(words))
    spots = spots_in(words)
    shown = []
    for index, item in enumerate(items):
        if index in spots:
            begin = spots[index]
            shown.append(item[:begin] + redactor.hidden("password of a program", item[begin:]))
        elif isinstance(item, str) and item in given:
            shown.append(redactor.hidden("argument", item))
        elif isinstance(item, str) and item.partition("=")[2] in given:
            name, _, value = item.partition("=")
            shown.append(f"{name}={redactor.hidden('argument', value)}")
        else:
            shown.append(redact_document(redactor, item))
    return shown


def _texts(document: Any) -> list[str]:
    if isinstance(document, str):
        return [document]
    if isinstance(document, Mapping):
        return [text for key, value in document.items() for text in (str(key), *_texts(value))]
    if isinstance(document, list | tuple):
        return [text for item in document for text in _texts(item)]
    return []
