"""Code that a model wrote: it runs, and what it must not do ends it and nothing else."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dspark_ops.gates.code_run import run_code


def test_results_come_back_per_call_with_their_errors() -> None:
    code = "import math\ndef f(x):\n    print('hello')\n    return [math.sqrt(x), {'a': None}]\n"
    outcome = run_code(code, "f", [[4], [-1], [9]])
    assert outcome.error is None
    assert outcome.values == ([2.0, {"a": None}], None, [3.0, {"a": None}])
    assert outcome.errors[0] is None
    assert "ValueError" in str(outcome.errors[1])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f():\n    while True: pass", "signal"),
        ("def f():\n    return len('x' * (1 << 40))", "MemoryError"),
        ("def f():\n    return 'x' * (8 << 20)", "gave no results"),
        ("def f(:", "SyntaxError"),
        ("g = 1", "defines no function"),
        ("import numpy\ndef f(): return 1", "ModuleNotFoundError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "gave no results"),
        ("import os\ndef f(): return os.system('true')", "was ended"),
        ("import os\ndef f(): return os.posix_spawn('/bin/true', ['true'], {})", "was ended"),
        ("import os\ndef f(): return os.fork()", "was ended"),
        ("import ctypes\ndef f(): return ctypes.CDLL(None).getpid()", "was ended"),
    ],
)
def test_what_it_must_not_do(code: str, said: str) -> None:
    outcome = run_code(code, "f", [[]])
    # On a machine that gives it hardly any time, the wall's clock ends it before the processor's does.
    found = outcome.error or str(outcome.errors[0])
    assert said in found or (said == "signal" and "no end within" in found), outcome


def test_it_writes_no_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    target = tmp_path / "written"
    for code in (f"open({str(target)!r}, 'w')", f"__import__('os').open({str(target)!r}, 0o101)"):
        assert "was ended" in str(run_code(f"def f():\n    {code}", "f", [[]]).error)
    assert not target.exists()


def test_it_reaches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        came: list[bool] = []

        def listen() -> None:
            try:
                server.accept()[0].close()
                came.append(True)
            except TimeoutError:
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        # The C module itself: Python's own wrapper may not be readable for nobody.
        code = f"import _socket\ndef f():\n    _socket.socket().connect(('127.0.0.1', {server.getsockname()[1]}))"
        outcome = run_code(code, "f", [[]])
        thread.join()
    # Where the library itself is out of reach for nobody's rights, the import is what fails.
    assert outcome.error is not None
    assert "was ended" in outcome.error or "ModuleNotFoundError" in outcome.error
    assert not came


def test_it_does_not_see_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    outcome = run_code("import os\ndef f(): return sorted(os.environ)", "f", [[]])
    assert "PLANTED" not in outcome.values[0]
