"""Diffs: made and applied by us, read by nobody's rules but ours: strict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.images.changes import DocumentError
from dspark_ops.images.changes.diff import apply_hunks, make_patch, parse_patch, split_lines
from tests.unit.images.changes.made_trees import CONTENT

OLD = b"".join(b"line %d\n" % n for n in range(20))
NEW = OLD.replace(b"line 4\n", b"line four\n").replace(b"line 15\n", b"")


@given(CONTENT, CONTENT)
def test_a_diff_leads_there_and_back(old: bytes, new: bytes) -> None:
    patch = make_patch("x.py", old, new)
    if old == new:
        assert patch == b""
        return
    hunks = parse_patch("x.py", patch)
    assert apply_hunks("x.py", hunks, old) == new
    assert apply_hunks("x.py", hunks, new, backwards=True) == old


@given(st.binary(max_size=40))
def test_lines_lose_no_byte(content: bytes) -> None:
    assert b"".join(split_lines(content)) == content


@given(CONTENT, CONTENT, st.data())
def test_a_damaged_patch_never_does_something_else(old: bytes, new: bytes, data: st.DataObject) -> None:
    patch = make_patch("x.py", old, new)
    if not patch:
        return
    at = data.draw(st.integers(0, len(patch) - 1))
    damaged = patch[:at] + bytes([patch[at] ^ data.draw(st.integers(1, 255))]) + patch[at + 1 :]
    try:
        made = apply_hunks("x.py", parse_patch("x.py", damaged), old)
    except DocumentError:
        return
    # Only an added line can differ and still fit; the hash of the whole file catches it.
    assert len(split_lines(made)) >= 0
    assert apply_hunks("x.py", parse_patch("x.py", damaged), made, backwards=True) == old


def test_a_moved_hunk_does_not_fit() -> None:
    hunks = parse_patch("x.py", make_patch("x.py", OLD, NEW))
    with pytest.raises(DocumentError, match="hunk 1 does not fit at line 2"):
        apply_hunks("x.py", hunks, b"one more\n" + OLD)


def test_a_changed_context_line_does_not_fit() -> None:
    hunks = parse_patch("x.py", make_patch("x.py", OLD, NEW))
    with pytest.raises(DocumentError, match="hunk 2 does not fit"):
        apply_hunks("x.py", hunks, OLD.replace(b"line 13\n", b"line 13 \n"))


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (b"", "does not begin with"),
        (b"--- a/y.py\n+++ b/y.py\n@@ -1 +1 @@\n-a\n+b\n", "does not begin with"),
        (b"--- a/x.py\n+++ b/x.py\n", "changes nothing"),
        (b"--- a/x.py\n+++ b/x.py\n@@ -1,2 +1 @@\n-a\n+b\n", "ends too early"),
        (b"--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n c\n", "expected a hunk header"),
        (b"--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n-b\n+c\n", "more lines than"),
        (b"--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b", "ends too early"),
    ],
)
def test_a_malformed_patch_is_refused(patch: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        parse_patch("x.py", patch)
