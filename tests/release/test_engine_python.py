"""The fixture itself: what it promises to the other release tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.conftest import EnginePython

pytestmark = [pytest.mark.release, pytest.mark.timeout(300)]

_SCRIPT = """
import sys, torch, named_by_the_tree
from pathlib import Path
print(torch.__version__, named_by_the_tree.VALUE, sys.argv[1:], Path("/sys/class/net").exists() and
      sorted(p.name for p in Path("/sys/class/net").iterdir()))
"""


def test_a_tree_comes_first_and_the_container_has_no_network(tmp_path: Path, engine_python: EnginePython) -> None:
    (tmp_path / "named_by_the_tree.py").write_text("VALUE = 584\n", encoding="utf-8")
    done = engine_python([tmp_path], _SCRIPT, "one", "two")
    assert done.returncode == 0, done.stderr
    assert " 584 ['one', 'two'] ['lo']" in done.stdout
