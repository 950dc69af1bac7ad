"""A Hugging Face hub as a node meets it: the files of one commit, each by range and held to what was promised."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import Any

from ansible.module_utils.dspark_model_layout import require_safe

_CHUNK = 1 << 20
_DOCUMENT_MAX = 64 << 20
_HOPS = 5
PAUSE_MAX_S = 30.0
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
INDEX = "model.safetensors.index.json"


class HubError(Exception):
    """The hub or what it sent is not what it should be. check: the id of what it is about."""

    def __init__(self, message: str, check: str) -> None:
        super().__init__(f"{message} [{check}]")
        self.check = check


class CutError(Exception):
    """The connection failed or was silent: tried again, a bounded number of times."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like another: its headers count, and where it leads must not get our token."""

    def redirect_request(self, *_args: object, **_more: object) -> None:
        return None


class Hub:
    """One repository at one commit. attempts: how often in a row nothing may come; silence_s: how long each time."""

    def __init__(
        self,
        endpoint: str,
        repo: str,
        revision: str,
        token: str | None = None,
        *,
        silence_s: float = 30.0,
        attempts: int = 5,
        pause_s: float = 1.0,
    ) -> None:
        self.endpoint, self.repo, self.revision = endpoint.rstrip("/"), repo, revision
        self.attempts, self.pause_s = attempts, pause_s
        self._token, self._silence_s = token, silence_s
        self._opener = urllib.request.build_opener(_NoRedirect())

    def manifest(self) -> dict[str, Any]:
        """The files of the commit with size, blob name and (LFS only) sha256; the index's shards are all among them.

        Raises:
            HubError: unreachable, refused, absent, another commit, or an index that names what is not there.
        """
        path = f"/api/models/{self.repo}/revision/{self.revision}?blobs=true"
        text = self._patiently(lambda: self._document(self.endpoint + path, "the revision"))
        try:
            told = json.loads(text)
            commit, files = told["sha"], [_file(sibling) for sibling in told["siblings"]]
        except (ValueError, KeyError, TypeError) as error:
            raise HubError(f"the answer of {self.endpoint} cannot be read: {error!r}", "weights.hub_answer") from error
        if commit != self.revision:
            raise HubError(f"{self.endpoint} gave the commit {commit}, asked for {self.revision}", "weights.changed")
        require_safe(files)
        self._require_shards(files)
        return {"version": 1, "repo": self.repo, "revision": self.revision, "files": files}

    def _require_shards(self, files: list[dict[str, Any]]) -> None:
        index = next((file for file in files if file["name"] == INDEX), None)
        names = {file["name"] for file in files}
        if index is None:
            if not any(name.endswith((".safetensors", ".bin", ".gguf")) for name in names):
                raise HubError(f"{self.repo} has no weights at {self.revision[:12]}", "weights.index")
            return
        text = self._patiently(lambda: self._document(self._address(INDEX), INDEX))
        try:
            missing = sorted(set(json.loads(text)["weight_map"].values()) - names)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubError(f"{INDEX} of {self.repo} cannot be read: {error!r}", "weights.index") from error
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise HubError(
                f"{INDEX} names {', '.join(missing[:3])}{more}, which {self.repo} does not have at "
                f"{self.revision[:12]}",
                "weights.index",
            )

    def _document(self, url: str, what: str) -> bytes:
        with self._open(url, {}, what)[0] as answer:
            try:
                text = answer.read(_DOCUMENT_MAX + 1)
            except (OSError, http.client.HTTPException) as error:
                raise CutError(f"{type(error).__name__}: {error}") from error
        if len(text) > _DOCUMENT_MAX:
            raise HubError(f"{what} is larger than {_DOCUMENT_MAX >> 20} MiB", "weights.hub_answer")
        return bytes(text)

    def _patiently(self, ask: Callable[[], bytes]) -> bytes:
        for attempt in range(self.attempts):
            try:
                return ask()
            except CutError as error:
                last = error
                time.sleep(min(self.pause_s * 2**attempt, PAUSE_MAX_S) if attempt + 1 < self.attempts else 0)
        raise HubError(
            f"{self.endpoint} does not answer after {self.attempts} attempts: {last}", "weights.hub_unreachable"
        )

    def _address(self, name: str) -> str:
        return f"{self.endpoint}/{self.repo}/resolve/{self.revision}/{urllib.parse.quote(name)}"

    def stream(self, file: dict[str, Any], offset: int, sink: Callable[[bytes], None]) -> None:
        """Give the file's bytes from `offset` on to `sink`; sink(b"") first when the server starts from the beginning.

        Raises:
            CutError: the connection failed; what came has been given.
            HubError: the hub has another file than it promised.
        """
        name, size = file["name"], int(file["size"])
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer, told = self._open(self._address(name), headers, name)
        with answer:
            _require_promise(file, told, self.revision)
            begin = _beginning(answer, name, offset, size)
            if begin != offset:
                sink(b"")
            left = size - begin
            while left:
                try:
                    chunk = answer.read1(min(_CHUNK, left))
                except (OSError, http.client.HTTPException) as error:
                    raise CutError(f"{type(error).__name__}: {error}") from error
                if not chunk:
                    raise CutError(f"the connection ended {left} bytes early")
                sink(chunk)
                left -= len(chunk)

    def _open(self, url: str, headers: dict[str, str], what: str) -> tuple[Any, dict[str, str]]:
        """The answer after redirects, and what the hub itself said of the file before it sent us elsewhere."""
        told: dict[str, str] = {}
        home = urllib.parse.urlsplit(self.endpoint)[:2]
        for _ in range(_HOPS):
            request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **headers})  # noqa: S310
            if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
                raise HubError(f"{what}: sent to {url[:80]}, which is no web address", "weights.hub_answer")
            at_home = urllib.parse.urlsplit(url)[:2] == home
            if self._token and at_home:
                request.add_unredirected_header("Authorization", f"Bearer {self._token}")
            try:
                answer = self._opener.open(request, timeout=self._silence_s)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code in (301, 302, 303, 307, 308) and error.headers.get("Location"):
                        told = _said(error.headers, at_home=at_home) | told
                        url = urllib.parse.urljoin(url, error.headers["Location"])
                        continue
                    raise self._refusal(error.code, what) from error
            except (OSError, http.client.HTTPException) as error:
                raise CutError(str(getattr(error, "reason", None) or error) or type(error).__name__) from error
            return answer, _said(answer.headers, at_home=at_home) | told
        raise HubError(f"{what}: redirected more than {_HOPS} times", "weights.hub_answer")

    def _refusal(self, status: int, what: str) -> Exception:
        where = f"{self.repo} at {self.revision[:12]}"
        if status in (401, 403):
            return HubError(
                f"{self.endpoint} answered {status} for {what} of {where}: expected a repository that this token may "
                f"read (HF_TOKEN of the operator's environment)",
                "weights.hub_denied",
            )
        if status in (404, 410):
            return HubError(f"{self.endpoint} has no {what} of {where} (it answered {status})", "weights.hub_absent")
        if status == 416:
            return HubError(f"{what}: the file is shorter than promised", "weights.changed")
        if status in (408, 425, 429) or status >= 500:
            return CutError(f"it answered {status}")
        return HubError(f"{self.endpoint} answered {status} for {what} of {where}", "weights.hub_answer")


def _file(sibling: dict[str, Any]) -> dict[str, Any]:
    lfs = sibling.get("lfs")
    if lfs:
        digest = str(lfs.get("sha256") or lfs["oid"]).removeprefix("sha256:")
        return {"name": str(sibling["rfilename"]), "size": int(lfs["size"]), "blob": digest, "sha256": digest}
    blob, size = str(sibling["blobId"]), int(sibling["size"])
    return {"name": str(sibling["rfilename"]), "size": size, "blob": blob, "sha256": None}


def _said(headers: Message, *, at_home: bool) -> dict[str, str]:
    """What the hub says of a file: only the hub itself, whose ETag is the blob's name; a store's is its own."""
    said = {}
    for name in ("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", *(("ETag",) if at_home else ())):
        if headers.get(name):
            said[name] = str(headers[name]).removeprefix("W/").strip('"')
    return said


def _require_promise(file: dict[str, Any], told: dict[str, str], revision: str) -> None:
    """Raises HubError when the answer is about another commit or another content than the metadata promised."""
    name = file["name"]
    commit = told.get("X-Repo-Commit", revision)
    etag = told.get("X-Linked-Etag", told.get("ETag", file["blob"]))
    size = told.get("X-Linked-Size", str(file["size"]))
    for what, found, expected in (
        ("commit", commit, revision),
        ("ETag", etag, file["blob"]),
        ("size", size, str(file["size"])),
    ):
        if found != expected:
            raise HubError(
                f"{name} changed while it was fetched: the hub now says {what} {found}, its metadata said {expected}",
                "weights.changed",
            )


def _beginning(answer: Any, name: str, offset: int, size: int) -> int:
    """Where the bytes of an answer begin.

    Raises:
        HubError: it is a part of a file of another size.
    """
    if answer.status == 206:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range") or "")
        if found is None or int(found[1]) != offset or int(found[3]) != size:
            told = answer.headers.get("Content-Range")
            raise HubError(f"{name}: got {told!r}, expected {offset} to the end of {size}", "weights.changed")
        return offset
    length = answer.headers.get("Content-Length")
    if length is not None and int(length) != size:
        raise HubError(
            f"{name} changed while it was fetched: {length} bytes are sent, its metadata said {size}", "weights.changed"
        )
    return 0
