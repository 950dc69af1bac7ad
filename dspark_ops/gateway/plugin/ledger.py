"""What the cloud has cost, in a file that survives a restart: reserve before sending, give back what was not used.

A reservation is written down as spent before the request leaves. A process that dies before it settles has spent it:
the books may say too much, never too little. A file that cannot be read or written closes the cloud.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = "dspark-ops/gateway-ledger/v1"
_HOUR_MIN, _DAY_MIN = 60, 1440
#: Kept beyond a day, so that a clock that is set back by hours finds what was spent.
_KEPT_MIN = 2 * _DAY_MIN


class LedgerError(Exception):
    """The books cannot be read or written."""


@dataclass(frozen=True)
class Reservation:
    """Money set aside in the bucket of one minute (since the epoch). prompt: the hash that counts repetitions."""

    minute: int
    micro_usd: int
    prompt: str


@dataclass(frozen=True)
class Spent:
    """In the last 60 minutes and 24 hours, in millionths of a USD; reservations count as spent."""

    hour_micro_usd: int
    day_micro_usd: int


@dataclass(frozen=True)
class Limits:
    """In millionths of a USD; repeats: how often the same prompt may be sent within 60 minutes."""

    hour_micro_usd: int
    day_micro_usd: int
    repeats: int


@dataclass(frozen=True)
class Exhausted:
    """Why nothing is sent. reason: budget-hour, budget-day or loop."""

    reason: str
    spent: Spent
    retry_after_s: int


class Ledger:
    """The books of one gateway. Safe between threads and processes: a lock file beside it, and a rename at the end."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock

    def reserve(self, micro_usd: int, limits: Limits, prompt: bytes) -> Reservation | Exhausted:
        """Set money aside, or say why not. prompt: what two requests of a loop have in common; only its hash is kept.

        Raises:
            LedgerError: nothing was set aside, and nothing may be sent.
        """
        with self._locked() as books:
            now = int(self._clock() // 60)
            if _brought_back(books, now):
                self._write(books)
            spent = _spent(books, now)
            print_ = hmac.new(bytes.fromhex(books["salt"]), prompt, hashlib.sha256).hexdigest()[:32]
            repeats = [at for at in books["prompts"].get(print_, []) if at > now - _HOUR_MIN]
            if len(repeats) >= limits.repeats:
                return Exhausted("loop", spent, _until(min(repeats), now, _HOUR_MIN))
            if spent.hour_micro_usd + micro_usd > limits.hour_micro_usd:
                return Exhausted("budget-hour", spent, _until(_oldest(books, now, _HOUR_MIN), now, _HOUR_MIN))
            if spent.day_micro_usd + micro_usd > limits.day_micro_usd:
                return Exhausted("budget-day", spent, _until(_oldest(books, now, _DAY_MIN), now, _DAY_MIN))
            key = str(now)
            books["minutes"][key] = books["minutes"].get(key, 0) + micro_usd
            books["prompts"][print_] = [*repeats, now]
            _forget(books, now)
            self._write(books)
            return Reservation(now, micro_usd, print_)

    def settle(self, reservation: Reservation, micro_usd: int) -> None:
        """Book what it really cost in place of what was set aside; more is booked too.

        Raises:
            LedgerError: then the whole reservation stays spent.
        """
        if micro_usd == reservation.micro_usd:
            return
        with self._locked() as books:
            if _rebooked(books, reservation, micro_usd):
                self._write(books)

    def release(self, reservation: Reservation) -> None:
        """Take a reservation out of the books, money and repetition: the request has had no effect.

        Raises:
            LedgerError: then it stays spent.
        """
        with self._locked() as books:
            changed = _rebooked(books, reservation, 0)
            repeats = books["prompts"].get(reservation.prompt, [])
            if reservation.minute in repeats:
                repeats.remove(reservation.minute)
                changed = True
            if changed:
                self._write(books)

    def spent(self) -> Spent:
        """What was spent until now.

        Raises:
            LedgerError: it cannot be read.
        """
        with self._locked() as books:
            return _spent(books, int(self._clock() // 60))

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        try:
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"{self.path}: no lock: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._read()
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {"schema": SCHEMA, "salt": secrets.token_hex(16), "minutes": {}, "prompts": {}}
        except (OSError, UnicodeDecodeError) as error:
            raise LedgerError(f"{self.path} cannot be read: {error}") from error
        try:
            return _checked(json.loads(text))
        except ValueError as error:
            raise LedgerError(
                f"{self.path} is no ledger ({error}); move it away and today's spending is forgotten"
            ) from error

    def _write(self, books: dict[str, Any]) -> None:
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                json.dump(books, out, separators=(",", ":"), sort_keys=True)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be written: {error.strerror}") from error


def _checked(books: Any) -> dict[str, Any]:
    if not isinstance(books, dict) or books.get("schema") != SCHEMA:
        raise ValueError("another schema")
    if set(books) != {"schema", "salt", "minutes", "prompts"}:
        raise ValueError("other keys")
    bytes.fromhex(books["salt"] if isinstance(books["salt"], str) else "-")
    numbers = [*books["minutes"].values(), *(at for ats in books["prompts"].values() for at in ats)]
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        raise ValueError("a number is none")
    for key in books["minutes"]:
        int(key)
    return books


def _spent(books: dict[str, Any], now: int) -> Spent:
    """Buckets after now count: a clock that was set back does not forget."""
    minutes = {int(key): value for key, value in books["minutes"].items()}
    hour = sum(value for at, value in minutes.items() if at > now - _HOUR_MIN)
    return Spent(hour, sum(value for at, value in minutes.items() if at > now - _DAY_MIN))


def _rebooked(books: dict[str, Any], reservation: Reservation, micro_usd: int) -> bool:
    """Put a cost in the place of a reservation; False where its minute is not in the books any more."""
    key = str(reservation.minute)
    if key not in books["minutes"]:
        return False
    books["minutes"][key] = max(0, books["minutes"][key] + micro_usd - reservation.micro_usd)
    return True


def _brought_back(books: dict[str, Any], now: int) -> bool:
    """Date what is more than a day ahead to now: a clock was wrong, and what it wrote would close the cloud for years.

    Whether anything was. The money was spent at the latest now, so it counts as long as it can.
    """
    late = [key for key in books["minutes"] if int(key) > now + _DAY_MIN]
    for key in late:
        books["minutes"][str(now)] = books["minutes"].get(str(now), 0) + books["minutes"].pop(key)
    ahead = [print_ for print_, ats in books["prompts"].items() if any(at > now + _DAY_MIN for at in ats)]
    for print_ in ahead:
        books["prompts"][print_] = [min(at, now) for at in books["prompts"][print_]]
    return bool(late or ahead)


def _oldest(books: dict[str, Any], now: int, window: int) -> int:
    return min((int(key) for key, value in books["minutes"].items() if value and int(key) > now - window), default=now)


def _until(oldest: int, now: int, window: int) -> int:
    """Seconds until the oldest entry leaves the window, at least one minute."""
    return 60 * max(1, min(window, oldest + window - now))


def _forget(books: dict[str, Any], now: int) -> None:
    for key in [key for key in books["minutes"] if int(key) <= now - _KEPT_MIN]:
        del books["minutes"][key]
    for print_, ats in list(books["prompts"].items()):
        if not any(at > now - _HOUR_MIN for at in ats):
            del books["prompts"][print_]
