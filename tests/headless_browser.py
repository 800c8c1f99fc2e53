"""A real headless Chromium, and as much of the DevTools protocol as a person needs: look, click, drag, type."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

import httpx
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13, "Escape": 27, " ": 32}


class Tab:
    """One tab of a browser. `seen` are the addresses that it asked for, `faults` what its scripts ran into."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count()
        self.seen, self.faults = [], []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=60))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            self._heard(told)

    def _heard(self, told):
        params = told.get("params", {})
        if told["method"] == "Network.requestWillBeSent":
            self.seen.append(params["request"]["url"])
        elif told["method"] == "Runtime.exceptionThrown":
            self.faults.append(params["exceptionDetails"].get("exception", params["exceptionDetails"]))
        elif told["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(params["entry"]["text"])

    def open(self, address, width=1200, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=address)

    def dark(self):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def run(self, script):
        """What the JavaScript expression gives, as JSON."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script, seconds=30):
        """Wait until the expression is true; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}; faults: {self.faults}"
            time.sleep(0.05)
        return value

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText")

    def place(self, selector, across=0.5):
        """The point of an element in the window, scrolled to; `across` of its width from the left."""
        script = """(selector, across) => {
            const element = document.querySelector(selector);
            element.scrollIntoView({ block: "center" });
            const box = element.getBoundingClientRect();
            return [box.left + box.width * across, box.top + box.height / 2];
        }"""
        return self.run(f"({script})({json.dumps(selector)}, {across})")

    def mouse(self, kind, x, y):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def click(self, selector):
        x, y = self.place(selector)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def drag(self, selector, start, end, steps=10):
        """Press on a slider at `start` of its width, move to `end`, let go."""
        (x0, y), (x1, _) = self.place(selector, start), self.place(selector, end)
        self.mouse("mousePressed", x0, y)
        for step in range(1, steps + 1):
            self.mouse("mouseMoved", x0 + (x1 - x0) * step / steps, y)
        self.mouse("mouseReleased", x1, y)

    def press(self, key):
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def write(self, selector, text):
        """Into a field, in place of what is there."""
        self.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select?.() }})()")
        self.call("Input.insertText", text=text)

    def shoot(self, path, whole=False):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser(folder):
    """A tab of a browser of its own, whose profile lies in `folder`."""
    profile = Path(folder) / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(profile / "DevToolsActivePort", program)
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=30, trust_env=False).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None, proxy=None, close_timeout=1) as socket:
            yield Tab(socket)
    finally:
        program.terminate()
        program.wait(30)


def _port(path, program):
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().strip():
        assert program.poll() is None, "the browser ended"
        assert time.monotonic() < deadline, "the browser does not start"
        time.sleep(0.05)
    return int(path.read_text().split()[0])
