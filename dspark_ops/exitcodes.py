"""The exit codes of every verb; the docs page and the contract test read them from here."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process's exit status says. The same with and without `--json`."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "done, ready, or slow; warnings allowed"
    VERDICT_BAD = 1, "a verdict was reached and it is bad"
    USAGE = 2, "usage or configuration error; nothing was contacted"
    NO_VERDICT = 3, "no verdict: unreachable, a required fact unknown, zero checks ran"
    REFUSED = 4, "refused by a guard: foreign tenant, memory floor, edited file, ambiguous fabric"
    RESTORED = 5, "apply failed and the previous state was restored"
    RESTORE_INCOMPLETE = 6, "apply failed and the restore is incomplete; the report says what is left"
    INTERRUPTED = 130, "interrupted; what was restored is in the report"
