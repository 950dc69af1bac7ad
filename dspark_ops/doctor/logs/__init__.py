"""Rules over the known lines of logs share what is here."""

from __future__ import annotations
