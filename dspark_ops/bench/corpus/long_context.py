"""Class `long-context`: one fact in long notes, asked for first, then an account that leans on the whole."""

from __future__ import annotations

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import FIELDS, ROLES, Names, notes
from dspark_ops.bench.corpus.template import Asked


def needle(names: Names, chars: int, depth: float) -> Asked:
    """Notes of about `chars` characters with one fact at `depth` (0 to 1) of them."""
    thing, secret = f"{names.pick(ROLES)} {names.name()}", str(names.number(100_000, 999_999))
    fact = f"The {names.pick(FIELDS)} key of the {thing} is {secret}, and only this note says so."
    before = notes(names, int(chars * depth))
    after = notes(names, int(chars * (1 - depth)))
    return Asked(
        f"Read these notes.\n\n{before}\n\n{fact}\n\n{after}\n\nWhat key do the notes give for the {thing}? Say it in "
        "the first sentence. Then write at least 700 words of prose about the people, places and things of the notes: "
        "who dealt with what, where figures changed, and what was left undone.",
        Expected(kind="mentions", values=(secret,)),
    )
