"""systemd as a role meets it: a `systemctl` of the test's that keeps its units' state in a file."""

from __future__ import annotations

import json
from pathlib import Path

# Knows the units that are in the directory at the last daemon-reload.
SYSTEMCTL = """
home = os.environ["FAKE_SYSTEMD"] + "/"
words = [word for word in sys.argv[1:] if not word.startswith("-")]
open(home + "calls", "a").write(" ".join(sys.argv[1:]) + "\\n")
state = json.load(open(home + "state"))
verb, unit = words[0], (words + [""])[1]
if verb == "daemon-reload":
    state["known"] = sorted(os.listdir(os.environ["FAKE_UNITS"]))
elif verb == "show":
    known = unit in state["known"]
    print("LoadState=" + ("loaded" if known else "not-found"))
    print("ActiveState=" + ("active" if unit in state["active"] else "inactive"))
elif verb == "is-enabled":
    print("enabled" if unit in state["enabled"] else "disabled")
    json.dump(state, open(home + "state", "w"))
    sys.exit(0 if unit in state["enabled"] else 1)
elif verb in ("enable", "start", "restart", "disable", "stop"):
    if unit not in state["known"]:
        sys.exit("Unit %s not found." % unit)
    of = state["enabled" if verb in ("enable", "disable") else "active"]
    if unit in of:
        of.remove(unit)
    if verb in ("enable", "start", "restart"):
        of.append(unit)
elif verb in ("list-unit-files", "is-active", "is-system-running"):
    pass
else:
    sys.exit("what is " + " ".join(sys.argv[1:]))
json.dump(state, open(home + "state", "w"))
"""


class FakeSystemd:
    """What `systemctl` keeps below a directory, and what was asked of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        (home / "state").write_text('{"known": [], "enabled": [], "active": []}')

    @property
    def state(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads((self.home / "state").read_text())
        return found

    def take_calls(self) -> str:
        """What was asked of systemctl since the last time."""
        path = self.home / "calls"
        text = path.read_text() if path.exists() else ""
        path.write_text("")
        return text
