"""A W&B server for tests: it keeps the rows, files and alerts of one run, or answers every request with an error."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4
"""An API key of the right length."""

USER = {
    "id": "u", "name": "me", "username": "me", "entity": "me", "email": "me@here", "admin": False, "flags": "{}",
    "teams": {"edges": []}, "apiKeys": {"edges": []},
}  # fmt: skip
PROJECT = {"id": "p", "name": "backbones", "entity": {"id": "e", "name": "me"}}


class WandbServer(ThreadingHTTPServer):
    """Server on a free port of this machine."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.status = 200
        """Status of every answer; other than 200 without content."""
        self.loses_rows = False
        """Refuse rows, and nothing else."""
        self.run: dict[str, Any] | None = None
        """Variables of the request that made the run."""
        self.lines: list[str] = []
        self.files: dict[str, bytes] = {}
        self.alerts: list[tuple[str, str]] = []
        self.requests: list[bytes] = []
        self.keys: set[str] = set()
        """API keys that requests came with."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows received, in order, without what W&B adds."""
        return [{name: value for name, value in row.items() if name[0] != "_"} for row in map(json.loads, self.lines)]


@contextmanager
def serve(*, status: int = 200) -> Iterator[WandbServer]:
    """Run a server during the block."""
    with WandbServer() as server:
        server.status = status
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        content = self._read()
        if self.server.status != 200:
            self._answer(None, self.server.status)
        elif self.path == "/graphql":
            request = json.loads(content)
            self._answer({"data": self._look_up(request["query"], request.get("variables") or {})})
        elif self.path.endswith("/file_stream"):
            self._answer({}, 403 if self.server.loses_rows else self._append(json.loads(content)))
        else:
            self._answer({}, 404)

    def do_PUT(self) -> None:
        self.server.files[self.path.removeprefix("/upload/")] = self._read()
        self._answer({})

    def do_GET(self) -> None:
        self._answer({}, 404)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _read(self) -> bytes:
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            self.server.keys.add(base64.b64decode(credentials).decode().partition(":")[2])
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(content)
        return content

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _append(self, request: dict[str, Any]) -> int:
        history = (request.get("files") or {}).get("wandb-history.jsonl")
        if history:
            self.server.lines[history["offset"] :] = history["content"]
        return 200

    def _look_up(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        kinds: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "upsertBucket": self._create_run,
            "RunResumeStatus": lambda _: {"model": {**PROJECT, "bucket": self._status()}},
            "createRunFiles": self._offer_places,
            "notifyScriptableRunAlert": self._alert,
            "historyKeys": lambda _: {"project": {"run": self._public_run()}},
            "serverInfo": lambda _: {"serverInfo": {"features": []}},
            "viewer": lambda _: {"viewer": USER},
            "RunType": lambda _: {"RunType": {"fields": [{"name": "projectId"}]}},
        }
        return next((answer(variables) for kind, answer in kinds.items() if kind in query), {})

    def _create_run(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.server.run = self.server.run or variables
        bucket = {"id": "r", "name": variables["name"], "displayName": "run", "project": PROJECT}
        return {"upsertBucket": {"bucket": {**bucket, "config": variables["config"]}, "inserted": True}}

    def _offer_places(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _alert(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.server.alerts.append((variables["title"], variables["text"]))
        return {"notifyScriptableRunAlert": {"success": True}}

    def _status(self) -> dict[str, Any] | None:
        """Return what a run that is resumed asks for."""
        server = self.server
        if server.run is None:
            return None
        return {
            "id": "r", "name": server.run["name"], "displayName": "run", "summaryMetrics": "{}", "config": "{}",
            "historyLineCount": len(server.lines), "historyTail": json.dumps(server.lines[-1:]), "eventsTail": "[]",
            "logLineCount": 0, "eventsLineCount": 0, "tags": [], "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def _public_run(self) -> dict[str, Any]:
        """Return what W&B's public API asks for."""
        unset = dict.fromkeys(("sweepName", "group", "jobType", "commit", "description", "notes"))
        return unset | {
            "id": "r", "name": "run", "displayName": "run", "tags": [], "state": "finished", "config": "{}",
            "summaryMetrics": "{}", "systemMetrics": "{}", "createdAt": "", "heartbeatAt": "", "projectId": 1,
            "user": USER, "readOnly": False, "historyLineCount": len(self.server.lines),
            "historyKeys": {"lastStep": len(self.server.lines) - 1},
        }  # fmt: skip
