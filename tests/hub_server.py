"""A hub on loopback for tests: it speaks what huggingface_hub asks to create a data set and to upload a folder.

Data come by git LFS, or as chunks by Xet, which hf_xet speaks; other files come with the commit.
"""

import base64
import contextlib
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pyarrow as pa

TOKEN = "hf_onlyForTheTests"
DATA = (".parquet", ".tar", ".npy", ".jpg")


class Hub(ThreadingHTTPServer):
    """`files` has the bytes of each path by data set, `private` who is, `stored` how often each LFS object came.

    `refuse` is a status for every request whose path holds `at`; `broken` LFS objects are answered by 500 first.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files, self.private, self.objects, self.stored = {}, {}, {}, {}
        self.refuse, self.at, self.broken, self.commits = None, "", 0, []
        self.chunks = []  # of Xet, in the order of their arrival

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_PUT(self):
        self._answer()

    def _answer(self):
        hub, path = self.server, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if hub.refuse and hub.at in path:
            return self._send({"error": "no"}, hub.refuse)
        if path.startswith("/objects/"):
            return self._object(path.removeprefix("/objects/"), body)
        if path.startswith(("/v1/", "/v2/")):
            return self._xet(path, body)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._send({"warnings": [], "errors": []})
        name = "/".join(path.removeprefix("/api").removeprefix("/datasets/").removesuffix(".git").split("/")[:2])
        name = name.removesuffix(".git")
        if name not in hub.files:
            return self._send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if "/xet-write-token/" in path:
            return self._xet_token()
        if "/preupload/" in path:
            return self._preupload(name, json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if "/commit/" in path:
            return self._commit(name, body)
        if "/tree/" in path:
            return self._send(
                [
                    {"type": "file", "path": each, "size": len(data), "oid": _oid(each, data)}
                    for each, data in sorted(hub.files[name].items())
                ]
            )
        siblings = [{"rfilename": each} for each in hub.files[name]]
        return self._send({"id": name, "private": hub.private[name], "sha": "0" * 40, "siblings": siblings})

    def _create(self, wanted):
        name = f"{wanted['organization']}/{wanted['name']}"
        if name.startswith("other/"):
            return self._send({"error": "You don't have the rights"}, 403)
        answer = {"url": f"{self.server.address}/datasets/{name}", "id": name}
        if name in self.server.files:
            return self._send(answer | {"error": "You already created this dataset repo"}, 409)
        self.server.files[name], self.server.private[name] = {}, wanted["visibility"] == "private"
        return self._send(answer)

    def _preupload(self, name, wanted):
        there = self.server.files[name]
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(DATA) else "regular",
                "shouldIgnore": False,
                "oid": _oid(each["path"], there.get(each["path"])),
            }
            for each in wanted["files"]
        ]
        return self._send({"files": files})

    def _batch(self, wanted):
        objects = []
        for each in wanted["objects"]:
            put = {"upload": {"href": f"{self.server.address}/objects/{each['oid']}"}}
            objects.append(each | ({} if each["oid"] in self.server.objects else {"actions": put}))
        return self._send({"transfer": "basic", "objects": objects})

    def _object(self, oid, body):
        if self.server.broken:
            self.server.broken -= 1
            return self._send({"error": "out of order"}, 400)
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.server.stored[oid] = self.server.stored.get(oid, 0) + 1
        return self._send({})

    def _commit(self, name, body):
        files = self.server.files[name]
        for key, value in ((line["key"], line["value"]) for line in map(json.loads, body.splitlines())):
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.objects.get(value["oid"]) or self._joined(value)
            elif key == "deletedFile":
                del files[value["path"]]
            elif key == "header":
                self.server.commits.append(value["summary"])
        return self._send(
            {"commitUrl": f"{self.server.address}/datasets/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}
        )

    def _xet_token(self):
        return self._send({"casUrl": self.server.address, "accessToken": "xet", "exp": int(time.time()) + 3600})

    def _xet(self, path, body):
        """The store of chunks, in its plainest form: no chunk is known already, and no upload goes around it."""
        assert TOKEN not in str(self.headers)
        if path.startswith("/v1/xorbs/"):
            self.server.chunks += _unpacked(body)
            return self._send({"was_inserted": True})
        return self._send({"result": 1}) if path == "/v1/shards" else self._send({"error": "no such route"}, 404)

    def _joined(self, wanted):
        """The consecutive chunks that are the wanted file."""
        chunks = self.server.chunks
        for first in range(len(chunks)):
            data = b""
            for chunk in chunks[first:]:
                data += chunk
                if len(data) == wanted["size"] and hashlib.sha256(data).hexdigest() == wanted["oid"]:
                    return data
                if len(data) > wanted["size"]:
                    break
        raise KeyError(wanted["path"])

    def _send(self, answer, status=200, headers=()):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def _chunks(self):
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found


def _unpacked(xorb):
    """The chunks of a xorb: a header of eight bytes each, and data, plain, as LZ4, or as LZ4 of every fourth byte."""
    while xorb:
        packed, scheme = int.from_bytes(xorb[1:4], "little"), xorb[4]
        size = int.from_bytes(xorb[5:8], "little")
        if xorb[:7] == b"XETBLOB":  # the index at the end
            return
        data, xorb = xorb[8 : 8 + packed], xorb[8 + packed :]
        if scheme:
            data = pa.decompress(data, size, codec="lz4").to_pybytes()
        if scheme == 2:
            grouped, data, at = data, bytearray(size), 0
            for group in range(4):
                part = len(range(group, size, 4))
                data[group::4] = grouped[at : at + part]
                at += part
        assert len(data) == size
        yield bytes(data)


def _oid(path, data):
    """As git names the content, or its LFS object; None for no file."""
    if data is None:
        return None
    if path.endswith(DATA):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def running():
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
