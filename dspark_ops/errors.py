"""The one error family. A message says what was observed and what was expected; a hint says what to do."""

from __future__ import annotations

from dspark_ops.exitcodes import ExitCode


class DsparkError(Exception):
    """Base of every error an operator can meet. Libraries raise it; only the CLI turns it into an exit."""

    exit_code: ExitCode = ExitCode.NO_VERDICT

    def __init__(self, message: str, *, hint: str | None = None, exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigError(DsparkError):
    """The command line or a site file is wrong; no host was contacted."""

    exit_code = ExitCode.USAGE


class NoVerdictError(DsparkError):
    """A host could not be reached, or a fact that the verb needs could not be read."""

    exit_code = ExitCode.NO_VERDICT


class RefusedError(DsparkError):
    """A guard stopped the verb before it changed anything."""

    exit_code = ExitCode.REFUSED


class RestoredError(DsparkError):
    """Applying failed; what was there before is there again."""

    exit_code = ExitCode.RESTORED


class RestoreIncompleteError(DsparkError):
    """Applying failed and something is left; the message lists it."""

    exit_code = ExitCode.RESTORE_INCOMPLETE
