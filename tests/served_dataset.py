"""A hub on loopback for tests, which serves one dataset from a folder, as `datasets` and huggingface_hub ask for it."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "1" * 40


@contextlib.contextmanager
def served(folder, name):
    """Serve the folder as the dataset `name`. Gives the address and the list of requests."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.files, server.name, server.requests = files, name, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{self.server.name}", f"/datasets/{self.server.name}/resolve/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{REVISION}"):
            siblings = [{"rfilename": each} for each in self.server.files]
            self._send({"id": self.server.name, "sha": REVISION, "private": False, "siblings": siblings})
        elif path.startswith(f"{api}/tree/"):
            self._tree(path.removeprefix(f"{api}/tree/").partition("/")[2])
        elif path.startswith(files):
            self._file(path.removeprefix(files).partition("/")[2])
        else:
            self._send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send([self._entry(path) for path in body["paths"] if path in self.server.files])

    def _tree(self, folder):
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in self.server.files if path.startswith(prefix)]
        folders = {prefix + path.removeprefix(prefix).partition("/")[0] for path in inside}
        found = [self._entry(path) for path in sorted(folders)]
        self._send(found or {"error": "not found"}, 200 if found else 404, {"X-Error-Code": "EntryNotFound"})

    def _entry(self, path):
        content = self.server.files.get(path)
        if content is None:
            return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _file(self, path):
        content = self.server.files.get(path)
        if content is None:
            self._send({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        self._send(content, 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": REVISION})

    def _send(self, answer, status=200, headers=()):
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
