"""Class `predictable`: what a drafter guesses. Run to show its figure beside the others', never as the headline."""

from __future__ import annotations

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import Names, notes
from dspark_ops.bench.corpus.template import Asked


def _asked(text: str, *values: str) -> Asked:
    return Asked(text, Expected(kind="mentions", values=values))


def count(names: Names) -> Asked:
    """Count up."""
    first = names.pick(["1", "1", "101", "1001"])
    last = int(first) + names.number(199, 299)
    return _asked(
        f"Count from {first} to {last}, one number per line, and write nothing else.", first, str(int(first) + 30)
    )


def count_down(names: Names) -> Asked:
    """Count down in steps."""
    first, step = names.number(900, 2400), names.number(1, 3)
    return _asked(f"Count down from {first} in steps of {step} for 300 numbers, one per line.", str(first - 20 * step))


def alphabet(names: Names) -> Asked:
    """The alphabet many times."""
    times = names.number(20, 40)
    return _asked(f"Write the alphabet {times} times, each time on its own line, and nothing else.")


def repeat_this(names: Names) -> Asked:
    """A given paragraph many times."""
    given = notes(names, 500)
    return _asked(f"Repeat this paragraph {names.number(8, 14)} times, word for word:\n\n{given}", given[:40])


def csv_rows(names: Names) -> Asked:
    """Made-up rows."""
    columns = ["id", *names.words(3), "date", "amount"]
    return _asked(
        f"Generate a CSV file of {names.number(80, 140)} made-up rows with the columns {', '.join(columns)}. CSV only.",
        columns[1],
    )


def table_of_squares(names: Names) -> Asked:
    """A table of powers."""
    first = names.number(2, 60)
    return _asked(
        f"A Markdown table of n, n squared and n cubed for n from {first} to {first + 120}. The table only.",
        str((first + 5) ** 2),
    )


def numbered_words(names: Names) -> Asked:
    """The peers' own headline prompt in its kind."""
    return _asked(f"Write 256 numbered lines with one noun each, beginning with {names.word()}.", "10")


def insert_rows(names: Names) -> Asked:
    """SQL of one shape."""
    table = names.word()
    return _asked(f"Write 90 INSERT statements for the table {table} (id, name, town) with made-up values.", table)


TEMPLATES = (count, count_down, alphabet, repeat_this, csv_rows, table_of_squares, numbered_words, insert_rows)
