"""A hub of real HTTP: the few endpoints of huggingface.co that fetching a model needs, and its faults."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/]+)")
SHORT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")

REPO = "some/flux"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
ENTRY = """
[my-flux]
repository = "some/flux"
width = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
reward = "brightness"
"""
BESIDES = {
    "README.md": "# A model",
    "flux.safetensors": "the whole in one file, for other programs",
    "transformer/diffusion_pytorch_model.fp16.safetensors": "a variant",
    "text_encoder/pytorch_model.bin": "a pickle",
    "text_encoders/t5.safetensors": "no component",
    "vae/model.onnx": "for another library",
}
"""What a repository has beside what a model needs of it."""


@dataclass
class Hub:
    """Folders by the name of the repository they are, and what goes wrong.

    Attributes:
        repositories: folder of each.
        licence: that every card names.
        gated: repositories whose files only an accepted token opens.
        accepted: the tokens of those who accepted.
        breaks: for a path, after how many bytes its next answers break off.
        asked: method, path and range of each request.
    """

    repositories: dict[str, Path]
    licence: str | None = "apache-2.0"
    gated: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> set[str]:
        """The paths whose content was asked for."""
        return {
            found["path"]
            for method, path, _ in self.asked
            if method == "GET" and (found := FILE.fullmatch(path))
        }

    def commit(self, repo: str) -> str:
        return hashlib.sha1(repo.encode(), usedforsecurity=False).hexdigest()

    def revision(self, repo: str, named: str) -> bool:
        return named in {"main", self.commit(repo)}


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub, on a free port of this machine."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, headers included."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        found = API.fullmatch(path) or FILE.fullmatch(path) or SHORT.fullmatch(path)
        named = found.groupdict() if found else {}
        repo = named.get("repo", "")
        if repo not in self.hub.repositories:
            self.refuse(401, "RepoNotFound", "Invalid username or password.")
        elif not self.hub.revision(repo, named.get("revision", "main")):
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        elif "path" not in named:
            listed = self.tree(repo) if named.get("what") == "tree" else self.info(repo)
            self.send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})
        elif repo in self.hub.gated and self.token not in self.hub.accepted:
            self.refuse(403 if self.token else 401, "GatedRepo", f"Access to model {repo} is restricted.")
        else:
            self.file(repo, named["path"])

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    def files(self, repo: str) -> Iterator[tuple[str, Path]]:
        folder = self.hub.repositories[repo]
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file

    def info(self, repo: str) -> dict[str, Any]:
        card = {} if self.hub.licence is None else {"license": self.hub.licence}
        return {
            "id": repo,
            "sha": self.hub.commit(repo),
            "gated": "manual" if repo in self.hub.gated else False,
            "cardData": card,
            "siblings": [{"rfilename": name, "size": file.stat().st_size} for name, file in self.files(repo)],
        }

    def tree(self, repo: str) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": file.stat().st_size, "oid": etag(file)}
            for name, file in self.files(repo)
        ]

    def file(self, repo: str, path: str) -> None:
        file = self.hub.repositories[repo] / path
        if not file.is_file():
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        content = file.read_bytes()
        headers = {
            "X-Repo-Commit": self.hub.commit(repo),
            "ETag": f'"{etag(file)}"',
            "Accept-Ranges": "bytes",
        }
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, content[start:], headers, self.cut(path))

    def cut(self, path: str) -> int | None:
        """After how many bytes this answer breaks off; None: it does not."""
        left = self.hub.breaks.get(path)
        return left.pop(0) if left and self.command == "GET" else None

    def refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send(status, body, {"X-Error-Code": code, "X-Error-Message": message})

    def send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
