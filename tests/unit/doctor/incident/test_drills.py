"""Logs that a real pair printed while a fault was made: the fault is named, or nothing is; never another one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dspark_ops.config.models import ROLES
from dspark_ops.doctor.incident.model import IncidentReport
from dspark_ops.doctor.incident.run import incident_of
from tests.unit.doctor.incident.stories import LOGS, stamp

#: Fault to (id, node it is seen on first); None: these two logs alone cannot tell.
WANTED: dict[str, tuple[str, str] | None] = {
    "api_port_busy": ("boot.port_free", "head"),
    "bad_model": ("boot.weights_found", "worker"),
    "corrupt_shard": ("boot.shard_whole", "worker"),
    "dtype_differs": ("boot.kv_specs_agree", "head"),
    "gloo_missing_if": ("boot.gloo_interface", "worker"),
    "head_alone_60": ("boot.rendezvous", "head"),
    "ip_worker_nonlocal": ("boot.host_address", "worker"),
    "kill_tp1_busy": ("log.worker_alive", "worker"),
    "kill_worker_busy": None,
    "kv_small": ("boot.kv_cache_fits", "head"),
    "link_busy": None,
    "master_port_busy": ("boot.port_free", "head"),
    "model_differs": ("log.ranks_agree", "worker"),
    "rank_twice": ("boot.rank_role", "worker"),
    "shm_small": ("boot.shared_memory", "head"),
}
FOLDERS = (LOGS / "drills", LOGS.parent / "vllm-faults")
QUIET = ("baseline", "spec_tp2", "term_head")


def drill(name: str, folder: Path, *, end: str = "\n") -> Path:
    """The logs of a drill as Docker would have printed them; column 1 of the capture is the time."""
    folder.mkdir(parents=True, exist_ok=True)
    for role in ROLES:
        source = next((p for f in FOLDERS if (p := f / f"{name}-{role}.log").is_file()), None)
        if source is None:
            continue
        lines = []
        for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.match(r" *(\d+\.\d+) ?(.*)", line)
            if found is not None:
                lines.append(f"{stamp(float(found[1]), True)} {found[2]}{end}")
        (folder / f"{role}.log").write_bytes("".join(lines).encode())
    return folder


def said(report: IncidentReport) -> tuple[str, str] | None:
    cause = report.cause
    return None if cause is None or cause.check is None else (cause.check, cause.nodes[0])


def test_every_capture_is_judged() -> None:
    assert {p.name.rsplit("-", 1)[0] for folder in FOLDERS for p in folder.glob("*.log")} == {*WANTED, *QUIET}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", WANTED)
def test_the_fault_is_named(name: str, end: str, tmp_path: Path) -> None:
    report = incident_of(drill(name, tmp_path, end=end))
    assert said(report) == WANTED[name]
    assert report.exit_code == (3 if WANTED[name] is None else 1)
    assert report.others == ()


@pytest.mark.parametrize("name", QUIET)
def test_a_sound_pair_gives_nothing(name: str, tmp_path: Path) -> None:
    report = incident_of(drill(name, tmp_path))
    assert (report.verdict, report.exit_code) == ("nothing", 0)


@pytest.mark.parametrize("name", sorted(name for name, wanted in WANTED.items() if wanted is not None))
def test_one_log_alone_names_the_fault_or_nothing(name: str, tmp_path: Path) -> None:
    folder = drill(name, tmp_path)
    wanted = WANTED[name]
    assert wanted is not None
    (folder / f"{'head' if wanted[1] == 'worker' else 'worker'}.log").unlink(missing_ok=True)
    assert said(incident_of(folder)) == wanted


@pytest.mark.parametrize("keep", [0.5, 0.9])
@pytest.mark.parametrize("name", WANTED)
def test_a_log_that_ends_early_names_no_other_fault(name: str, keep: float, tmp_path: Path) -> None:
    folder = drill(name, tmp_path)
    for path in folder.glob("*.log"):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])
    # A rank that waits in vain is the only other thing that can be seen of a fault whose own line is cut off.
    assert said(incident_of(folder)) in (
        None,
        WANTED[name],
        ("log.worker_alive", "worker"),
        ("boot.rendezvous", "head"),
    )
