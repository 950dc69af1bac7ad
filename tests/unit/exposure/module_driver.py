"""Runs steps of dspark_exposure and of its node program one after another in the namespace that it is started in.

usage: module_driver.py PLAYBOOKS STEPS: JSON list of [what, arguments]; prints the answers as a JSON list.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args


def step(module: Any, node: Any, what: str, given: dict[str, Any], paths: dict[str, str]) -> Any:
    if what == "live":
        return node.live()
    if what == "load":
        return node.load(rules_path=Path(paths["path"]), journal=Path(paths["journal"]))
    if what == "revert":
        token = given.get("token")
        return node.revert("timer", token, rules_path=Path(paths["path"]), journal=Path(paths["journal"]))
    if what == "flush":
        return node.run("nft", "flush", "ruleset")
    if what == "edit":
        return Path(paths["path"]).write_text(given["text"])
    if what == "entry":
        return node.entry_of(Path(paths["journal"]))
    check = given.pop("check", False)
    said = io.StringIO()
    arguments = {"state": what, **paths, **given, "_ansible_check_mode": check}
    with patch_module_args(arguments), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        module.main()
    return json.loads(said.getvalue())


def main() -> None:
    playbooks, steps, paths = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    ansible.module_utils.__path__.append(str(playbooks / "module_utils"))
    spec = importlib.util.spec_from_file_location("dspark_exposure", playbooks / "library" / "dspark_exposure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    json.dump([step(module, module.node, what, given, paths) for what, given in steps], sys.stdout)


if __name__ == "__main__":
    main()
