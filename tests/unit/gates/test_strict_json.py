"""Strict JSON: what any reader agrees on is read, what two readers may read differently is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.gates.strict_json import NotStrict, difference, read, same, short

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_VALUES = st.recursive(
    _LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=20
)


@settings(deadline=None)
@given(_VALUES, st.booleans(), st.sampled_from(["", " ", "\n\t "]))
def test_what_json_writes_is_read_back(value: Any, ascii_only: bool, blanks: str) -> None:
    text = f"{blanks}{json.dumps(value, ensure_ascii=ascii_only)}{blanks}"
    assert same(read(text), value)
    assert difference(read(text), value) is None


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_value_or_a_refusal(text: str) -> None:
    try:
        value = read(text)
    except NotStrict:
        return
    assert same(value, json.loads(text))


@settings(deadline=None)
@given(_VALUES, _VALUES)
def test_a_difference_is_found_where_there_is_one(a: Any, b: Any) -> None:
    assert (difference(a, b) is None) == same(a, b)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid"),
        ("{", "invalid"),
        ("{'a': 1}", "invalid"),
        ('{"a": 1,}', "invalid"),
        ('{"a": 1} {', "trailing-bytes"),
        ('{"a": 1}\x00', "trailing-bytes"),
        ('{"a": 1, "a": 1}', "duplicate-key"),
        ('{"x": {"a": 1, "a": 2}}', "duplicate-key"),
        ('{"a": NaN}', "constant"),
        ("-Infinity", "constant"),
        ("[" * 100000, "depth"),
        ("9" * 6000, "invalid"),
    ],
)
def test_refused(text: str, code: str) -> None:
    with pytest.raises(NotStrict) as caught:
        read(text)
    assert caught.value.code == code


def test_types_are_values_too() -> None:
    assert not same(True, 1)
    assert not same(0, False)
    assert not same("1", 1)
    assert not same(None, False)
    assert same(1, 1.0)
    assert not same(2**53 + 1, float(2**53))
    assert same({"a": 1, "b": [2]}, {"b": [2], "a": 1})


def test_a_difference_is_shown_where_it_is() -> None:
    assert difference({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}) == ("$.a[1].b", '"x"', '"y"')
    assert difference({"a": 1}, {"a": 1, "b": 2}) == ("$.b", "absent", "2")
    assert difference({"a": 1, "b": 2}, {"a": 1}) == ("$.b", "2", "absent")
    assert difference([1], [1, 2]) == ("$", "1 elements", "2 elements")
    at, observed, expected = difference("a" * 5000 + "x" + "b" * 100, "a" * 5000 + "y" + "b" * 100) or ("", "", "")
    assert at == "$ from character 4990"
    assert "x" in observed
    assert "y" in expected
    assert len(short("a" * 5000)) < 120
