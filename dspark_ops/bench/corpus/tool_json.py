"""Class `tool-json`: one call of one tool with given values; its answer has its natural length."""

from __future__ import annotations

from typing import Any

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import FIELDS, PLACES, ROLES, Names
from dspark_ops.bench.corpus.template import Asked


def _tool(name: str, about: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": about,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            },
        },
    }


def _asked(names: Names, text: str, name: str, about: str, values: dict[str, Any], schema: dict[str, Any]) -> Asked:
    decoy = _tool(names.identifier(), "Says how the weather is. Not needed here.", {"place": {"type": "string"}})
    tools = [_tool(name, about, schema), decoy]
    names.rng.shuffle(tools)
    return Asked(
        f"{text} Call the tool `{name}` once with exactly these values and say nothing else.",
        Expected(kind="call", values=(name,), arguments=values),
        tools=tuple(tools),
    )


_STRING, _INTEGER = {"type": "string"}, {"type": "integer"}


def order(names: Names) -> Asked:
    """A flat call."""
    values = {
        "buyer": names.name(),
        "article": names.code(),
        "count": names.number(2, 900),
        "place": names.pick(PLACES),
        "remark": f"{names.word()} {names.word()} before day {names.number(2, 300)}",
    }
    text = "; ".join(f"{key}: {value}" for key, value in values.items())
    schema = {key: _INTEGER if isinstance(value, int) else _STRING for key, value in values.items()}
    return _asked(names, f"Place an order. {text}.", names.identifier(), "Places an order.", values, schema)


def batch(names: Names) -> Asked:
    """A list of objects."""
    items = [{"tag": names.code(), "value": names.number(1, 9999)} for _ in range(names.number(6, 12))]
    listed = ", ".join(f"{item['tag']} is {item['value']}" for item in items)
    item_schema = {
        "type": "object",
        "properties": {"tag": _STRING, "value": _INTEGER},
        "required": ["tag", "value"],
        "additionalProperties": False,
    }
    field = names.pick(FIELDS)
    return _asked(
        names,
        f"Record these readings of {field}, in this order: {listed}.",
        names.identifier(),
        "Records readings.",
        {"field": field, "readings": items},
        {"field": _STRING, "readings": {"type": "array", "items": item_schema}},
    )


def lookup(names: Names) -> Asked:
    """A query with a nested filter."""
    values = {
        "table": names.word(),
        "where": {"column": names.pick(FIELDS), "least": names.number(1, 500), "most": names.number(501, 9000)},
        "columns": names.words(names.number(4, 9)),
    }
    where = values["where"]
    assert isinstance(where, dict)  # noqa: S101 - for the type checker
    schema = {
        "table": _STRING,
        "where": {
            "type": "object",
            "properties": {"column": _STRING, "least": _INTEGER, "most": _INTEGER},
            "required": ["column", "least", "most"],
            "additionalProperties": False,
        },
        "columns": {"type": "array", "items": _STRING},
    }
    text = (
        f"Find rows of the table {values['table']} whose {where['column']} is at least {where['least']} and at most "
        f"{where['most']}; give the columns {', '.join(values['columns'])}, in this order."
    )
    return _asked(names, text, names.identifier(), "Finds rows.", values, schema)


def plan(names: Names) -> Asked:
    """Names and steps."""
    steps = [f"{names.word()} the {names.pick(ROLES)} {names.code()}" for _ in range(names.number(5, 9))]
    values = {"title": f"{names.name()} {names.number(10, 99)}", "urgent": names.number(0, 1) == 1, "steps": steps}
    listed = "; ".join(steps)
    text = (
        f"Make a plan titled {values['title']}, {'' if values['urgent'] else 'not '}urgent, with the steps: {listed}."
    )
    schema = {"title": _STRING, "urgent": {"type": "boolean"}, "steps": {"type": "array", "items": _STRING}}
    return _asked(names, text, names.identifier(), "Makes a plan.", values, schema)


TEMPLATES = (order, batch, lookup, plan)
