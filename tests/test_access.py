"""Who may talk to a Prefect server that winnow starts: nobody without its secret, and no page of another origin."""

import contextlib
import http.client
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from headless_browser import CHROMIUM, browser

from flows import access, server
from pipeline.errors import WinnowError

SHELL = {"prefect.deployments.steps.run_shell_script": {"script": "touch /tmp/never"}}
NOBODY = "00000000-0000-0000-0000-000000000000"
REQUESTS = {
    "deployments": ("POST", "/deployments/filter", {}),
    "pull_steps": ("PATCH", f"/deployments/{NOBODY}", {"pull_steps": [SHELL]}),
    "create_flow_run": ("POST", f"/deployments/{NOBODY}/create_flow_run", {}),
    "variables": ("POST", "/variables/", {"name": "planted", "value": "x"}),
    "flow_runs": ("POST", "/flow_runs/filter", {}),
    "version": ("GET", "/admin/version", None),
    "settings": ("GET", "/admin/settings", None),
    "clear": ("POST", "/admin/database/clear", {"confirm": True}),
}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """A server as `winnow serve` starts it: its API, and the header with its secret."""
    kept = dict(os.environ)
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    try:
        with server.start(server.free_port()) as api:
            yield api, access.credentials()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def status(api, name, **headers):
    method, path, body = REQUESTS[name]
    return httpx.request(method, api + path, json=body, headers=headers, timeout=30, trust_env=False).status_code


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_only_the_secret_opens_the_api(prefect, name):
    api, known = prefect
    assert status(api, name) == 401
    assert status(api, name, Authorization="Basic d2lubm93Ondyb25n") == 401
    assert status(api, name, Authorization="Bearer wrong") == 401
    own = api.removesuffix("/api")
    assert status(api, name, **known, Origin="http://evil.example") == 403
    assert status(api, name, **known, Origin="null") == 403
    assert status(api, name, **known, Origin=own.rpartition(":")[0] + ":1") == 403
    assert status(api, name, **known, Host="evil.example") == 400
    if name != "clear":
        assert status(api, name, **known, Origin=own) in (200, 201, 204, 404, 409)


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_no_foreign_page_gets_leave_to_ask(prefect, name):
    api, _ = prefect
    method, path, _ = REQUESTS[name]
    wanted = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type,authorization"}
    for origin in ("http://evil.example", "null"):
        answer = httpx.options(api + path, headers={**wanted, "Origin": origin}, trust_env=False)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    own = api.removesuffix("/api")
    answer = httpx.options(api + path, headers={**wanted, "Origin": own}, trust_env=False)
    assert answer.headers["access-control-allow-origin"] == own


@pytest.mark.slow
def test_its_pages_open_and_its_sockets_do_not(prefect):
    api, _ = prefect
    page = httpx.get(api.removesuffix("/api"), follow_redirects=True, trust_env=False)
    assert page.status_code == 200
    assert "<script" in page.text
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for header in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        answer = httpx.get(f"{api}/events/in", headers={**upgrade, **header}, trust_env=False)
        assert answer.status_code in (400, 403)


@pytest.mark.slow
def test_state_tells_a_locked_server_from_an_own_and_a_foreign_one(prefect, monkeypatch):
    api, _ = prefect
    assert server.state(api) is server.State.READY
    assert server.state(f"{api}/") is server.State.OTHER
    monkeypatch.delenv(access.SECRET)
    assert server.state(api) is server.State.LOCKED
    assert not server.answers(api)
    monkeypatch.setenv("PREFECT_API_URL", api)
    with pytest.raises(WinnowError, match="asks for a secret"):
        server.find(debug=True)


def deployed(api, known):
    """A deployment on the server, and its id."""
    flow = httpx.post(f"{api}/flows/", json={"name": "curate"}, headers=known, trust_env=False).json()["id"]
    made = httpx.post(
        f"{api}/deployments/", json={"name": "tiny", "flow_id": flow}, headers=known, trust_env=False
    ).raise_for_status()
    return made.json()["id"]


ATTACK = """async (api, id, shell) => {
    const seen = [], to = (path, rest) => [api + path, {body: rest === undefined ? undefined : JSON.stringify(rest)}];
    const tries = [
        ["PATCH", ...to(`/deployments/${id}`, {pull_steps: [shell]})],
        ["POST", ...to(`/deployments/${id}/create_flow_run`, {})],
        ["DELETE", ...to(`/deployments/${id}`)],
        ["POST", ...to("/deployments/filter", {})],
        ["GET", ...to("/admin/settings")],
    ];
    for (const mode of ["cors", "no-cors"])
        for (const kind of ["application/json", "text/plain"])
            for (const [method, address, rest] of tries)
                try {
                    const headers = {"content-type": kind};
                    const answer = await fetch(address, {method, mode, headers, credentials: "include", ...rest});
                    seen.push([answer.type, answer.status, await answer.text()]);
                } catch (fault) { seen.push(["refused", 0, ""]); }
    const socket = new WebSocket(api.replace("http", "ws") + "/events/in");
    const opened = new Promise(end => { socket.onopen = () => end("open"); socket.onerror = () => end("refused"); });
    seen.push([await opened, 0, ""]);
    const frame = document.createElement("iframe");
    frame.src = api.replace("/api", "/v2/deployments");
    document.body.append(frame);
    await new Promise(end => { frame.onload = end; });
    let inside = "";
    try { inside = frame.contentDocument?.body?.innerText ?? ""; } catch {}
    seen.push(["refused", 0, inside]);
    const form = Object.assign(document.createElement("form"), {
        method: "post", action: `${api}/deployments/${id}/create_flow_run`, enctype: "text/plain", target: "_blank"});
    document.body.append(form); form.submit();
    await new Promise(end => setTimeout(end, 500));
    return seen;
}"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_person_logs_in_with_the_secret_and_sees_the_deployments(prefect, tmp_path):
    api, known = prefect
    deployed(api, known)
    own = api.removesuffix("/api")
    with browser(tmp_path) as tab:
        tab.open(own)
        tab.until("location.pathname.endsWith('/login') && !!document.querySelector('input')")
        tab.write("input", os.environ[access.SECRET])
        tab.press("Enter")
        tab.until("!location.pathname.endsWith('/login')")
        for pages in ("/v2/deployments", "/deployments"):
            tab.open(own + pages)
            tab.until("!!document.body && document.body.innerText.includes('tiny')")
        hosts = {httpx.URL(each).host for each in tab.seen if each.startswith(("http", "ws"))}
        assert hosts == {"127.0.0.1"}  # Prefect's pages would ask Amplitude


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_page_of_another_origin_does_nothing_even_in_a_browser_that_is_logged_in(prefect, tmp_path):
    api, known = prefect
    own, id_ = api.removesuffix("/api"), deployed(api, known)
    before = httpx.get(f"{api}/deployments/{id_}", headers=known, trust_env=False).json()
    with answering("/", b"<!doctype html><title>evil</title><body></body>") as evil, browser(tmp_path) as tab:
        tab.open(own)
        tab.until("location.pathname.endsWith('/login') && !!document.querySelector('input')")
        tab.write("input", os.environ[access.SECRET])
        tab.press("Enter")
        tab.until("!location.pathname.endsWith('/login')")
        tab.open(evil.removesuffix("api"))
        tab.until("document.title === 'evil'")
        seen = tab.run(f"({ATTACK})({json.dumps(api)}, {json.dumps(id_)}, {json.dumps(SHELL)})")
    assert len(seen) == 22
    assert {(kind, status, text) for kind, status, text in seen} <= {("refused", 0, ""), ("opaque", 0, "")}
    assert httpx.get(f"{api}/deployments/{id_}", headers=known, trust_env=False).json() == before
    runs = httpx.post(f"{api}/flow_runs/filter", json={}, headers=known, trust_env=False).json()
    assert [run for run in runs if run["deployment_id"] == id_] == []


def as_nobody(work):
    """What this function gives another user, or the name of what it raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - it goes to the parent
            said = type(error).__name__
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_of_this_machine_reads_no_secret_and_calls_nothing(prefect, monkeypatch):
    api, known = prefect
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        Path("open").write_text("anybody")
        with access.shared(api, os.environ[access.SECRET]):
            assert as_nobody(lambda: Path("open").read_text()) == "anybody"
            assert as_nobody(lambda: access.SETTINGS.read_text()) == "PermissionError"

    def asked(**headers):
        line = http.client.HTTPConnection("127.0.0.1", httpx.URL(api).port, timeout=30)
        line.request("POST", "/api/deployments/filter", "{}", {"content-type": "application/json", **headers})
        return line.getresponse().status

    assert as_nobody(asked) == "401"
    assert as_nobody(lambda: asked(**known)) == "200"  # it is the secret that they lack


@contextlib.contextmanager
def answering(path, body):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as program:
        threading.Thread(target=program.serve_forever, daemon=True).start()
        yield server.url(program.server_address[1])
        program.shutdown()


def test_another_program_on_the_port_is_recognised(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with answering("/", b"<html>another program</html>") as api:
        assert server.state(api) is server.State.OTHER
        port = int(api.removesuffix("/api").rpartition(":")[2])
        with pytest.raises(WinnowError, match=f"port {port} is taken, and what answers is not Prefect"):
            with server.ensure(port, debug=True):
                pass
        monkeypatch.setenv("PREFECT_API_URL", api)
        with pytest.raises(WinnowError, match="what answers is not Prefect's API"):
            server.find(debug=True)


def test_a_slash_at_the_end_of_the_address_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with answering("/api/health", b"true") as api:
        monkeypatch.setenv("PREFECT_API_URL", f"{api}/")
        assert server.find(debug=True) == api == os.environ["PREFECT_API_URL"]
        assert server.state(api) is server.State.OPEN


def test_the_secret_is_in_a_file_of_the_user_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (access.SECRET, access.SERVER_SECRET):
        monkeypatch.delenv(name, raising=False)
    api, secret = "http://127.0.0.1:4200/api", access.server_secret()
    assert len(secret) > 40
    assert secret != access.server_secret()
    with access.shared(api, secret):
        assert stat.S_IMODE(access.SETTINGS.stat().st_mode) == 0o600
        program = (
            "from prefect.settings import get_current_settings\n"
            "known = get_current_settings().api\nprint(known.url, known.auth_string.get_secret_value())"
        )
        bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        bare |= {"PREFECT_HOME": str(tmp_path)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=bare)
        assert done.stdout.split() == [api, secret]
        assert access.credentials()["Authorization"].startswith("Basic ")
    assert not access.SETTINGS.exists()
    assert access.credentials() == {}


def test_what_a_killed_server_left_is_replaced_and_a_users_own_file_is_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (access.SECRET, access.SERVER_SECRET):
        monkeypatch.delenv(name, raising=False)
    killed = access.shared("http://127.0.0.1:1/api", "winnow:old")
    killed.__enter__()
    with access.shared("http://127.0.0.1:2/api", "winnow:new"):
        assert "winnow:new" in access.SETTINGS.read_text()
    own = '[api]\nauth_string = "team:word"\n'
    Path("prefect.toml").write_text(own)
    with pytest.raises(WinnowError, match="is not winnow's"):
        with access.shared("http://127.0.0.1:2/api", access.server_secret()):
            pass
    own += '[server.api]\nauth_string = "team:word"\n'
    Path("prefect.toml").write_text(own)
    assert access.server_secret() == "team:word"
    with access.shared("http://127.0.0.1:2/api", access.server_secret()):
        pass
    assert Path("prefect.toml").read_text() == own
