"""Random installed releases and random stacks of change sets on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from dspark_ops.images.changes import ChangeSet, FileChange, with_record
from dspark_ops.images.changes.diff import make_patch
from dspark_ops.images.changes.model import sha256_hex
from dspark_ops.images.changes.record import new_record

DIST_INFO = "base_pkg-1.2.3.dist-info"
RECORD = f"{DIST_INFO}/RECORD"
BROUGHT = "extra_pkg-1.0.0.dist-info"

LINES = st.lists(
    st.sampled_from([b"", b"a = 1", b"b = 2\r", b"\xff\xfe", b"@@ -1 +1 @@", b"--- x", b"+", b"-"]), max_size=9
)
CONTENT = st.builds(lambda lines, end: b"\n".join(lines) + end, LINES, st.sampled_from([b"", b"\n", b"last"]))
NAMES = st.sampled_from([f"base/{name}.py" for name in "abcdef"] + ["base/sub/deep.py", "base/data,odd.txt"])
ADDED = st.sampled_from(["base/new.py", "base/fresh/one.py", "base/fresh/two.bin", "other/mod.py"])


@dataclass(frozen=True)
class Case:
    """levels[n]: every file of the tree with n sets of the stack applied, RECORDs left out."""

    levels: tuple[dict[str, bytes], ...]
    stack: tuple[ChangeSet, ...]

    @property
    def touched(self) -> set[str]:
        return {change.path for changes in self.stack for change in changes.files}


@st.composite
def cases(draw: st.DrawFn, *, brings: bool | None = None) -> Case:
    """A tree, and one to three sets that edit and add files; with `brings` they bring a distribution of their own."""
    level = draw(st.dictionaries(NAMES, CONTENT, min_size=1, max_size=5))
    level[f"{DIST_INFO}/METADATA"] = b"Metadata-Version: 2.1\nName: base-pkg\nVersion: 1.2.3\n"
    levels, sets = [level], []
    own = draw(st.booleans()) if brings is None else brings
    editable = sorted(level)
    for number in range(draw(st.integers(1, 3))):
        after = dict(level)
        for path in draw(st.lists(st.sampled_from(editable), max_size=3, unique=True)):
            after[path] = draw(CONTENT)
        for path in draw(st.lists(ADDED, max_size=2, unique=True)):
            after.setdefault(path, draw(CONTENT))
        if own and number == 0:
            after[f"{BROUGHT}/METADATA"] = b"Metadata-Version: 2.1\nName: extra-pkg\nVersion: 1.0.0\n"
        # A mark that grows: no two levels are the same.
        after[editable[0]] = b"level %d\n" % number + after[editable[0]]
        sets.append(change_set(f"set-{number}", level, after))
        levels.append(after)
        level = after
    return Case(tuple(levels), with_record(sets))


def change_set(name: str, before: dict[str, bytes], after: dict[str, bytes]) -> ChangeSet:
    """The set that leads from one to the other."""
    files = []
    for path, new in sorted(after.items()):
        old = before.get(path)
        if old is None:
            files.append(FileChange(path, None, sha256_hex(new), content=new))
        elif old != new:
            files.append(FileChange(path, sha256_hex(old), sha256_hex(new), patch=make_patch(path, old, new)))
    return ChangeSet(name, "base-pkg", "1.2.3", tuple(files))


def install(root: Path, files: dict[str, bytes]) -> None:
    """The tree as an installer leaves it: the files, and the RECORD that lists them."""
    for path, content in {**files, RECORD: new_record(RECORD, files)}.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below root; empty directories as well, by a name that ends in a slash."""
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    empty = (p for p in root.rglob("*") if p.is_dir() and not any(p.iterdir()))
    return {**found, **{f"{p.relative_to(root)}/": b"" for p in empty}}


def times(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of everything: unchanged only where nothing was written."""
    return {str(p): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in [root, *root.rglob("*")]}
