"""The faults of the lab tests name checks that exist, and are what the lab tests say they are. No node."""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase

import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from tests.lab.doctor_bench import Fault
from tests.lab.doctor_faults import ALL, BY_NAME, CORE, PAIRS
from tests.lab.test_doctor_faults_weights import FAULTS as WEIGHTS

CATALOGUE = load_catalogue()
EVERY = (*ALL, *WEIGHTS)


def test_there_are_forty_faults_that_break_something_real_and_ten_pairs_of_them() -> None:
    assert len(BY_NAME) == len(ALL)
    assert len([fault for fault in EVERY if not fault.imitated]) >= 40
    assert len(PAIRS) >= 10
    assert all(name in BY_NAME for pair in PAIRS for name in pair)
    assert 8 <= len(CORE) <= 14
    assert not [fault.name for fault in CORE if fault.serving]


@pytest.mark.parametrize("fault", EVERY, ids=[fault.name for fault in EVERY])
def test_a_fault_names_checks_of_the_catalogue_and_can_be_undone(fault: Fault) -> None:
    assert fault.roots
    for identity, node in fault.roots:
        assert (CATALOGUE[identity].scope == "pair") == (node == "pair")
        assert not CATALOGUE[identity].active or fault.active
    for glob in fault.follow:
        assert any(fnmatchcase(identity, glob) for identity in CATALOGUE), glob
    if fault.made is None and not fault.site:
        assert fault.harm
    assert bool(fault.harm) == bool(fault.undo)
    for script in (fault.harm, fault.undo):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
