"""The rehearsal pair for tests: brought up once per session and left up, unless DSPARK_LAB_KEEP=0."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.operator_cli import Operator
from tests.lab.real_tenants import Nodes

HEAD, WORKER = "spark-head", "spark-worker"
#: The modules whose tests find the pair serving, in the order in which they leave it so; the last one ends an engine.
#: A start of the engine takes half a minute.
SERVING = (
    "test_deploy",
    "test_image",
    "test_tenants_list",
    "test_releases_forward",
    "test_gate",
    "test_releases",
    "test_serving",
    "test_doctor",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what needs a serving pair run one after the other, where test_deploy has it serving first."""

    def place(item: pytest.Item) -> int | None:
        module = item.path.stem if item.path.parent == Path(__file__).parent else ""
        needed = {"serving", "started", "bench"} & set(getattr(item, "fixturenames", ()))
        return SERVING.index(module) if needed and module in SERVING else None

    moved = sorted((item for item in items if place(item) is not None), key=lambda item: place(item) or 0)
    if moved:
        first = next(number for number, item in enumerate(items) if place(item) is not None)
        rest = [item for item in items[first:] if place(item) is None]
        items[first:] = [*moved, *rest]


@dataclass(frozen=True)
class RehearsalPair:
    """The pair as a test reaches it: over SSH, through the lab's own ssh_config."""

    ssh_config: Path

    def run(self, node: str, script: str, *, check: bool = True, timeout_s: float = 60) -> str:
        """Run a shell script on a node; its output, stripped. With `check` a failure is a test failure."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), node, "bash", "-s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{node}: {script!r} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def succeeds(self, node: str, script: str, *, timeout_s: float = 60) -> bool:
        """Whether the script ends with 0 on the node; not, when it gives no answer in that time."""
        try:
            done = subprocess.run(
                ["ssh", "-F", str(self.ssh_config), node, "bash", "-s"],
                input=script,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


@pytest.fixture(scope="session")
def pair() -> Iterator[RehearsalPair]:
    """Both virtual Sparks, up and wired with two cables."""
    from dspark_ops.lab import pair as lab

    status = lab.up(engine=False)
    assert status.ssh_config is not None
    yield RehearsalPair(status.ssh_config)
    if os.environ.get("DSPARK_LAB_KEEP") == "0":
        lab.down()


@pytest.fixture(scope="session")
def vm_pair() -> Iterator[RehearsalPair]:
    """Both VMs, up, on the clean snapshot, and left so."""
    from dspark_ops.lab.vm import pair as lab

    began = time.monotonic()
    status = lab.up(install_prerequisites=True)
    if not any(change.endswith(("started", "snapshot taken")) for change in status.changed):
        lab.reset()
    sys.stderr.write(f"\nVM pair up after {time.monotonic() - began:.1f} s: {status.phases_s}\n")
    assert status.ssh_config is not None
    yield RehearsalPair(status.ssh_config)
    if os.environ.get("DSPARK_LAB_KEEP") == "0":
        lab.down()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is so, for at most ten seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "did not become true within 10 s"
            time.sleep(0.2)

    return wait


@pytest.fixture(scope="session")
def unprepared(pair: RehearsalPair, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """A site file that `init` wrote for the pair; whether its hosts are prepared is not known."""
    from dspark_ops.lab import pair as lab

    lab.up()  # with the engine's image: a deploy loads it
    site = tmp_path_factory.mktemp("site") / "site.yml"
    words = ("init", HEAD, WORKER, "--ssh-config", str(pair.ssh_config), "--profile", "rehearsal")
    made = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words, "--name", "lab", "--output", str(site)],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    Nodes(pair.ssh_config).clear()
    return Operator(site, pair.ssh_config)


@pytest.fixture(scope="session")
def operator(unprepared: Operator) -> Operator:
    """The same on hosts that `bootstrap` prepared."""
    done = unprepared.run("bootstrap", "--yes")
    assert done.rc == 0, done
    return unprepared


@pytest.fixture
def serving(operator: Operator) -> Operator:
    """The operator's pair, serving; a deploy that has nothing to do is quick."""
    done = operator.run("deploy", "--yes")
    assert done.rc == 0, done
    return operator


@pytest.fixture
def image_id(operator: Operator) -> str:
    """The id of the engine image that the site names."""
    from dspark_ops.config.load import load_site

    return load_site(operator.site).site.image.id


@pytest.fixture
def frozen_worker(pair: RehearsalPair) -> Iterator[None]:
    """The worker as a machine that hangs: it keeps its address and answers nothing."""
    from dspark_ops.lab.engine_host import find_docker
    from dspark_ops.lab.layout import WORKER as LAB_WORKER
    from dspark_ops.lab.layout import lab_paths

    found = find_docker(lab_paths().state)
    assert found is not None
    with closing(found.client()) as client:
        container = client.containers.get(LAB_WORKER.container)
        container.pause()
        try:
            yield
        finally:
            container.unpause()
