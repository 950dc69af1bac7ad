"""Following a remedy makes no other check wrong."""

from __future__ import annotations

import pytest

from dspark_ops.deploy.spec import render_pair
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.engine import run_checks
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts

SETTING = {i: c.remedy.command for i, c in load_catalogue().items() if "--set" in (c.remedy.command or ())}


@pytest.mark.parametrize("says", [(), ("serve.shm_size_gib=64",)])
@pytest.mark.parametrize("check", SETTING)
def test_no_command_deploys_what_the_site_file_does_not_say(check: str, says: tuple[str, ...]) -> None:
    command = SETTING[check] or ()
    given = [command[at + 1] for at, word in enumerate(command) if word == "--set"]
    plain, changed = load_case_site(*says), load_case_site(*says, *given)
    for role in ("head", "worker"):
        wanted, deployed = (render_pair(s.site, s.profile)[role].release for s in (plain, changed))
        assert wanted == deployed, f"after {' '.join(command)} service.release_current asks for the opposite"


def test_a_smaller_shared_memory_is_set_in_the_file() -> None:
    too_large, mended = ("serve.shm_size_gib=64",), ("serve.shm_size_gib=16",)
    sizes = [[["head", "rank", "shm_size_bytes"], 64 << 30], [["worker", "rank", "shm_size_bytes"], 64 << 30]]
    bad = run_checks(pair_facts({"site": too_large, "given": True, "set": sizes}), load_case_site(*too_large))
    assert {f.id for f in bad.findings if f.status in ("warn", "fail", "unknown")} == {"memory.shm_size"}
    (remedy, *_) = [f.remedy for f in bad.findings if f.id == "memory.shm_size"]
    assert remedy is not None
    assert "site file" in remedy.text
    assert remedy.remedy_class == "M"
    sizes = [[path, 16 << 30] for path, _ in sizes]
    good = run_checks(pair_facts({"site": mended, "given": True, "set": sizes}), load_case_site(*mended))
    assert not {f.id for f in good.findings if f.status in ("warn", "fail", "unknown")}


def test_an_api_that_was_not_asked_is_one_root() -> None:
    report = run_checks(pair_facts({"set": [[["head", "service"], None]]}), load_case_site())
    bad = [f for f in report.findings if f.status in ("warn", "fail", "unknown")]
    assert {f.id for f in bad if f.caused_by is None} == {"service.health"}
    assert "service.exposure" in {f.id for f in report.findings if f.status == "ok"}
