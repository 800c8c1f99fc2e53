"""An endpoint on loopback that speaks chat completions, and answers as a test wants: slowly, wrongly, or not at all."""

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model(BaseHTTPRequestHandler):
    """`server.reply(caption, count)` gives status, headers and body, or a text of a model; count: of the caption."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
        caption = re.search(r"Caption: (.*)", content[0]["text"])[1]
        with server.lock:
            server.requests.append((caption, body, self.headers.get("Authorization")))
            server.now += 1
            server.most = max(server.most, server.now)
            count = sum(each[0] == caption for each in server.requests)
        try:
            made = server.reply(caption, count)
            status, headers, answer = (200, {}, completion(made)) if isinstance(made, str) else made
            if answer is None:  # a dead connection
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
        finally:
            with server.lock:
                server.now -= 1

    def log_message(self, *args):
        pass


def completion(text, **more):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}).encode()


@contextmanager
def endpoint(reply):
    """The server. `requests` has (caption, request, Authorization) of each request; `most` is the most at once."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.reply, server.requests, server.now, server.most = reply, [], 0, 0
        server.lock, server.daemon_threads = threading.Lock(), True
        server.address_of = f"http://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def slowly(seconds, text):
    time.sleep(seconds)
    return text
