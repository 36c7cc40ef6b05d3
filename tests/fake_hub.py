"""A Hugging Face Hub on this machine: what huggingface_hub asks to make, fill and read repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

#: Its one user, and that user's token.
USER, TOKEN = "user", "hf_of_the_user"


@dataclass
class Repository:
    """Files by commit, and commits by branch, tag or hash."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], message: str, branch: str = "main") -> str:
        whole = self.files(branch) | files
        sha = hashlib.sha1(repr((sorted(whole.items()), message)).encode()).hexdigest()
        self.commits[sha], self.refs[branch] = whole, sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits.get(self.refs.get(revision, revision), {})


class FakeHub:
    """The server.

    ``repositories`` by name; ``blobs`` are what was uploaded by LFS; ``requests`` are those that came; ``broken`` is a
    status that all are answered with.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.broken = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"  # another host, as on the Hub: gets no token
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, files: dict[str, bytes], private: bool = False) -> Repository:
        repository = self.repositories[name] = Repository(private)
        repository.commit(files, "initial commit")
        return repository


class _RefusalError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        try:
            if self.hub.broken:
                raise _RefusalError(self.hub.broken, message="out of order")
            sent = self.headers.get("Authorization")
            if sent not in (None, f"Bearer {TOKEN}"):
                raise _RefusalError(401, message="Invalid credentials in Authorization header")
            self.known = sent is not None
            for method, pattern, answer in _ROUTES:
                if self.command in method and (found := re.fullmatch(pattern, path)):
                    return answer(self, body, *map(unquote, found.groups()))
            raise _RefusalError(404, message=f"no such page {path}")
        except _RefusalError as refused:
            self.answer({"error": str(refused)}, refused.status, {"X-Error-Code": refused.code})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status >= 400:
            message = content["error"]
            headers = {**(headers or {}), "X-Error-Message": message}
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def repository(self, name: str, write: bool = False) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.known):
            raise (
                _RefusalError(404, "RepoNotFound", "Repository not found")
                if self.known
                else _RefusalError(401, message="Invalid username or password.")
            )
        if write:
            self.may_write(name.partition("/")[0])
        return found

    def may_write(self, owner: str) -> None:
        if not self.known:
            raise _RefusalError(401, message="Invalid username or password.")
        if owner != USER:
            raise _RefusalError(403, message=f"You don't have the rights to create a model under the namespace {owner}")

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or USER
        self.may_write(owner)
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repositories:
            self.answer({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
            return
        private = bool(asked.get("private") or asked.get("visibility") == "private")
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs"}, private)
        self.answer({"url": f"{self.hub.url}/{name}", "name": name})

    def check_card(self, body: bytes) -> None:
        found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        about = yaml.safe_load(found[1]) if found else {}
        if about.get("license") == "no-such-licence":
            self.answer({"errors": [{"message": '"license" must be one of [apache-2.0, mit]'}], "error": "bad"}, 400)
            return
        self.answer({"errors": [], "warnings": [] if about.get("license") else [{"message": "empty metadata"}]})

    def branch(self, _: bytes, name: str, branch: str) -> None:
        repository = self.repository(name, write=True)
        if branch in repository.refs:
            raise _RefusalError(409, message="Reference already exists")
        repository.refs[branch] = repository.refs["main"]
        self.answer({})

    def preupload(self, body: bytes, name: str, _: str) -> None:
        self.repository(name, write=True)
        files = [
            {"path": each["path"], "shouldIgnore": False, "oid": None}
            | {"uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular"}
            for each in json.loads(body)["files"]
        ]
        self.answer({"files": files})

    def batch(self, body: bytes, name: str) -> None:
        self.repository(name, write=True)
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.storage}/lfs/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def blob(self, body: bytes, digest: str) -> None:
        assert not self.known
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == digest
            self.hub.blobs[digest] = body
        self.answer(b"" if self.command == "PUT" else self.hub.blobs[digest])

    def commit(self, body: bytes, name: str, branch: str) -> None:
        repository = self.repository(name, write=True)
        if branch not in repository.refs:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        lines = [json.loads(line) for line in body.splitlines()]
        files = {}
        for line in lines:
            about = line["value"]
            if line["key"] == "file":
                files[about["path"]] = base64.b64decode(about["content"])
            elif line["key"] == "lfsFile":
                files[about["path"]] = self.hub.blobs[about["oid"]]
        sha = repository.commit(files, lines[0]["value"]["summary"], branch)
        self.answer({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(name)
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    def info(self, _: bytes, name: str, revision: str = "main") -> None:
        sha, files = self.at(name, revision)
        card = re.match(rb"---\n(.*?)\n---\n", files.get("README.md", b""), re.DOTALL)
        about = yaml.safe_load(card[1]) if card else {}
        siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
        told = {"tags": about.get("tags", []), "cardData": about, "private": self.hub.repositories[name].private}
        self.answer({"_id": "0", "id": name, "modelId": name, "sha": sha, "siblings": siblings, **told})

    def resolve(self, _: bytes, name: str, revision: str, file: str) -> None:
        sha, files = self.at(name, revision)
        if self.hub.repositories[name].gated:
            raise _RefusalError(403, "GatedRepo", f"Access to model {name} is restricted")
        if file not in files:
            raise _RefusalError(404, "EntryNotFound", "Entry not found")
        data = files[file]
        digest = hashlib.sha256(data).hexdigest()
        if not file.endswith(".safetensors"):
            self.answer(data, headers={"ETag": f'"{digest}"', "X-Repo-Commit": sha})
            return
        self.hub.blobs[digest] = data
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"', "X-Repo-Commit": sha}
        self.answer(b"", 302, {"Location": f"{self.hub.storage}/lfs/{digest}", **linked})


_NAME = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.check_card),
    ("POST", f"/api/models/{_NAME}/branch/([^/]+)", _Handler.branch),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/{_NAME}[.]git/info/lfs/objects/batch", _Handler.batch),
    ("GET PUT", "/lfs/([0-9a-f]{64})", _Handler.blob),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
    ("GET", f"/api/models/{_NAME}", _Handler.info),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", _Handler.info),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
