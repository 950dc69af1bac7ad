"""Text from a node as every fact, report and terminal can hold it: no half of a surrogate pair, written out or not."""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")
# The same as a JSON document escapes it: a high half that no low one follows, a low one that no high one precedes.
_ESCAPED = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def clean_text(text: str) -> str:
    """The text with U+FFFD in place of every lone half.

    A file name that is not UTF-8 comes as such a half, and a document may spell one out. Neither can be written as
    UTF-8, so a single one would end the report that quotes it.
    """
    if "\\u" in text:
        text = _ESCAPED.sub(r"\\ufffd", text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _HALF.sub("�", text)
    return text
