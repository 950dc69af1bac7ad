"""dspark_container: what it asks of docker, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import Call

IMAGE = "sha256:" + "1" * 64
SPEC: dict[str, Any] = {
    "name": "dspark-rank",
    "image_id": IMAGE,
    "command": ["vllm", "serve", "/models/x", "--host=127.0.0.1"],
    "env": {"A": "b c", "Q": 'it\'s "x"'},
    "mounts": [{"source": "/data", "target": "/models/x", "read_only": True}],
    "devices": ["/dev/infiniband"],
    "shm_size_bytes": 1 << 30,
    "ulimits": {"memlock": -1},
    "cap_add": ["IPC_LOCK"],
    "gpus": True,
    "network": "host",
    "ipc": "private",
    "labels": {
        "io.dspark-ops.site": "desk",
        "io.dspark-ops.role": "head",
        "io.dspark-ops.release": "r-1",
        "io.dspark-ops.epoch": "e-1",
        "io.dspark-ops.spec": "abc",
    },
}
# An Engine in a file: keeps at most one container, refuses to start when told to, records every call.
DOCKER = """
home = os.environ["FAKE_DOCKER"]
state = json.load(open(home + "/state"))
args = sys.argv[1:]
open(home + "/calls", "a").write(json.dumps(args) + "\\n")
def save():
    json.dump(state, open(home + "/state", "w"))
def die(text):
    sys.stderr.write(text + "\\n")
    sys.exit(1)
if state.get("down"):
    die("Cannot connect to the Docker daemon")
box = state["container"]
if args[:2] == ["container", "inspect"]:
    if box is None:
        die("Error response from daemon: No such container: " + args[2])
    print(json.dumps([box]))
elif args[0] == "create":
    labels = dict(args[i + 1].split("=", 1) for i, a in enumerate(args) if a == "--label")
    image = next(a for a in args if a.startswith("sha256:"))
    state["container"] = {"Id": "c2", "Image": image, "Config": {"Labels": labels},
                          "State": {"Status": "created", "Running": False, "ExitCode": 0}}
    save()
elif args[0] == "start":
    if state.get("refuse"):
        die("OCI runtime create failed: no such device")
    box["State"] = {"Status": "running", "Running": True, "ExitCode": 0}
    save()
elif args[0] == "stop":
    box["State"] = {"Status": "exited", "Running": False, "ExitCode": 0}
    save()
elif args[0] == "rm":
    state["container"] = None
    save()
"""


class Engine:
    """The fake Engine as a test sees it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.set(container=None)

    def set(self, **state: Any) -> None:
        (self.home / "state").write_text(json.dumps({"container": None, **state}))
        (self.home / "calls").write_text("")

    def verbs(self) -> list[str]:
        """The calls that change something."""
        calls = [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]
        return [call[0] for call in calls if call[0] != "container"]

    def created_with(self) -> list[str]:
        calls = [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]
        found: list[str] = next(call for call in calls if call[0] == "create")
        return found

    @property
    def container(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = json.loads((self.home / "state").read_text())["container"]
        return found


@pytest.fixture
def engine(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> Engine:
    on_path("docker", DOCKER)
    home = tmp_path / "engine"
    home.mkdir()
    monkeypatch.setenv("FAKE_DOCKER", str(home))
    return Engine(home)


def _box(running: bool = True, image: str = IMAGE, **labels: str) -> dict[str, Any]:
    status = "running" if running else "exited"
    given = {**SPEC["labels"], **{f"io.dspark-ops.{key}": value for key, value in labels.items()}}
    return {
        "Id": "c1",
        "Image": image,
        "Config": {"Labels": given},
        "State": {"Status": status, "Running": running, "ExitCode": 0},
    }


def test_first_start_then_nothing(engine: Engine, call: Call) -> None:
    foretold = call("dspark_container", spec=SPEC, check=True)
    assert foretold["changed"]
    assert engine.verbs() == []
    done = call("dspark_container", spec=SPEC)
    assert (done["changed"], done["steps"], engine.verbs()) == (True, ["create", "start"], ["create", "start"])
    assert foretold["diff"] == done["diff"]
    again = call("dspark_container", spec=SPEC)
    assert (again["changed"], engine.verbs()) == (False, ["create", "start"])


def test_the_container_is_created_from_the_spec_as_arguments_not_shell(engine: Engine, call: Call) -> None:
    call("dspark_container", spec=SPEC)
    args = engine.created_with()
    text = " ".join(args)
    assert args[-5:] == ["vllm", IMAGE, "serve", "/models/x", "--host=127.0.0.1"]
    assert args[args.index("--entrypoint") + 1] == "vllm"
    assert "A=b c" in args
    assert 'Q=it\'s "x"' in args
    for part in ("--restart no", "--pull never", "--network host", "--gpus all", "--ulimit memlock=-1:-1"):
        assert part in text
    assert "--mount type=bind,source=/data,target=/models/x,readonly" in text


@pytest.mark.parametrize(
    ("found", "state", "verbs"),
    [
        pytest.param(_box(epoch="e-0"), "started", ["stop", "rm", "create", "start"], id="another epoch"),
        pytest.param(_box(spec="old"), "matching", ["stop", "rm"], id="matching never starts"),
        pytest.param(_box(image="sha256:2"), "matching", ["stop", "rm"], id="another image"),
        pytest.param(_box(running=False), "started", ["rm", "create", "start"], id="ended"),
        pytest.param(_box(running=False), "matching", ["rm"], id="ended, matching"),
        pytest.param(_box(), "matching", [], id="as wanted"),
        pytest.param(_box(epoch="e-0"), "stopped", ["stop"], id="stop whatever epoch"),
        pytest.param(_box(running=False), "stopped", [], id="stopped already"),
        pytest.param(_box(), "absent", ["stop", "rm"], id="remove"),
        pytest.param(None, "stopped", [], id="nothing to stop"),
        pytest.param(None, "matching", [], id="nothing to match"),
    ],
)
def test_steps(engine: Engine, call: Call, found: dict[str, Any] | None, state: str, verbs: list[str]) -> None:
    engine.set(container=found)
    assert call("dspark_container", spec=SPEC, state=state, check=True)["changed"] == bool(verbs)
    assert engine.verbs() == []
    done = call("dspark_container", spec=SPEC, state=state)
    assert (done["changed"], engine.verbs()) == (bool(verbs), verbs)
    assert call("dspark_container", spec=SPEC, state=state)["changed"] is False


@pytest.mark.parametrize("state", ["started", "stopped", "absent", "matching"])
@pytest.mark.parametrize("labels", [{}, {"io.dspark-ops.site": "other"}], ids=["no label", "another site"])
def test_a_foreign_container_is_never_touched(engine: Engine, call: Call, state: str, labels: dict[str, str]) -> None:
    engine.set(container={**_box(), "Config": {"Labels": labels}})
    answer = call("dspark_container", spec=SPEC, state=state)
    assert answer["failed"]
    assert answer["msg"].endswith("[tenant.foreign_name]")
    assert engine.verbs() == []


def test_one_that_cannot_start_is_removed_again_and_says_why(engine: Engine, call: Call) -> None:
    engine.set(container=None, refuse=True)
    answer = call("dspark_container", spec=SPEC)
    assert answer["failed"]
    assert "no such device" in answer["msg"]
    assert engine.container is None


def test_an_engine_that_does_not_answer_is_not_an_absent_container(engine: Engine, call: Call) -> None:
    engine.set(container=None, down=True)
    answer = call("dspark_container", spec=SPEC, state="absent")
    assert answer["failed"]
    assert "[host.docker_down]" in answer["msg"]


def test_a_spec_without_our_label_is_refused(engine: Engine, call: Call) -> None:
    answer = call("dspark_container", spec={**SPEC, "labels": {"x": "y"}})
    assert answer["failed"]
    assert "io.dspark-ops.site" in answer["msg"]
    assert engine.verbs() == []
