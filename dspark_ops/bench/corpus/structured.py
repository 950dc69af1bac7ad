"""Class `structured`: facts in sentences, to be given back as JSON, SQL or a table."""

from __future__ import annotations

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import FIELDS, PLACES, ROLES, Names
from dspark_ops.bench.corpus.template import Asked


def _facts(names: Names, count: int) -> tuple[list[str], str]:
    """Sentences about tagged things and the first tags."""
    tags, lines = [], []
    for _ in range(count):
        tag, field = names.code(), names.pick(FIELDS)
        who, kind, place, value = names.name(), names.pick(ROLES), names.pick(PLACES), names.number(2, 9000)
        tags.append(tag)
        lines.append(
            names.pick(
                [
                    f"{who} says that {kind} {tag} in the {place} has a {field} of {value}.",
                    f"With a {field} of {value}, {tag} is {who}'s {kind}; it stands in the {place}.",
                    f"The {place} holds {tag}, a {kind} whose {field} {who} gives as {value}.",
                ]
            )
        )
    return tags, " ".join(lines)


def _asked(names: Names, form: str) -> Asked:
    tags, facts = _facts(names, names.number(18, 24))
    return Asked(f"{facts}\n\n{form}", Expected(kind="mentions", values=tuple(tags[:3])))


def json_objects(names: Names) -> Asked:
    """A JSON list."""
    return _asked(
        names,
        f"Give this as a JSON list, one object per thing in the order of the text, with the keys tag, kind, place, "
        f"{names.word()} (the person), measure and value, and a key summary with a sentence of your own. JSON only.",
    )


def json_tree(names: Names) -> Asked:
    """JSON grouped in depth."""
    return _asked(
        names,
        f"Give this as one JSON object: places at the top, under each the kinds, under each kind the things by tag "
        f"with person, measure, value and {names.word()}, a short remark on whether the value looks high. JSON only.",
    )


def sql_schema(names: Names) -> Asked:
    """A schema, data and queries."""
    schema = names.word()
    return _asked(
        names,
        f"Write PostgreSQL for this: a normalised schema named {schema} with constraints, the statements that insert "
        "the facts, and six queries of growing difficulty with a comment on what each answers. SQL only.",
    )


def markdown_table(names: Names) -> Asked:
    """A table and a commentary in rows."""
    return _asked(
        names,
        f"Give this as a Markdown table with the columns tag, kind, place, person, measure, value and {names.word()} "
        "(a remark of at least eight words, a different one in each row). The table only.",
    )


def yaml_document(names: Names) -> Asked:
    """YAML with comments."""
    return _asked(
        names,
        f"Give this as YAML: a list named {names.word()}, sorted by value, each thing with tag, kind, place, person, "
        "measure, value, and a description of two sentences as a folded block. YAML only.",
    )


def xml_document(names: Names) -> Asked:
    """XML with attributes."""
    return _asked(
        names,
        f"Give this as XML with the root element {names.word()}: one element per thing in the order of the text, tag "
        "and kind as attributes, the rest as children, and a child note with a sentence of your own. XML only.",
    )


TEMPLATES = (json_objects, json_tree, sql_schema, markdown_table, yaml_document, xml_document)
