"""Access to a Prefect server that winnow starts: with its secret, under its own host name, from its own pages.

Prefect's API runs commands, so an open one is a shell for any web page in a browser on this machine and for every
user of it. The secret is Prefect's own setting (`server.api.auth_string`). The Host and Origin headers
are checked in front of Prefect: a foreign name may be bound to loopback (DNS rebinding), and a browser names the page
that a request comes from.
"""

import base64
import os
import secrets
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import WinnowError

if TYPE_CHECKING:  # it takes as long to import as the rest of the command line
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
SECRET, SERVER_SECRET = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
SETTINGS = Path("prefect.toml")
"""Prefect reads its settings from this file of the working directory."""

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' blob: data:; "
    "frame-ancestors 'none'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""What the server's pages may load. Prefect's pages ask a server of Amplitude for settings, also without analytics."""

_HEAD = "# Written by `winnow serve`, and removed when it ends: how `prefect` in this folder reaches its server.\n"


def origins(port: int) -> list[str]:
    """The origins of the server's own pages."""
    return [f"http://{host}:{port}" for host in HOSTS]


def server_secret() -> str:
    """USER:PASSWORD for a new server: the one that the settings name, else a random one."""
    named = os.environ.get(SERVER_SECRET) or _setting("server", "api", "auth_string")
    return named or f"winnow:{secrets.token_urlsafe(32)}"


def credentials() -> dict[str, str]:
    """The header that Prefect's own client sends by its settings. Empty without a secret or key."""
    if secret := os.environ.get(SECRET) or _setting("api", "auth_string"):
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    key = os.environ.get("PREFECT_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def server_environment(port: int, secret: str) -> dict[str, str]:
    """Settings of a server that asks for the secret and lets only its own pages read its answers."""
    return {SERVER_SECRET: secret, SECRET: secret, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins(port))}


@contextmanager
def shared(api: str, secret: str) -> Iterator[None]:
    """Write the address and the secret to prefect.toml, for `prefect` typed in this folder. Only this user can read it.

    Raises WinnowError if the user has a prefect.toml of their own that names no secret.
    """
    if SETTINGS.exists() and not SETTINGS.read_text(encoding="utf-8").startswith(_HEAD):
        if _setting("server", "api", "auth_string") != secret and os.environ.get(SECRET) != secret:
            raise WinnowError(
                f"{SETTINGS} in this folder is not winnow's, so the server's secret has no place: name one of your own "
                "there, as auth_string under [api] and under [server.api], or set PREFECT_SERVER_API_AUTH_STRING and "
                "PREFECT_API_AUTH_STRING"
            )
        yield
        return
    SETTINGS.unlink(missing_ok=True)
    with open(os.open(SETTINGS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - the mode
        file.write(f'{_HEAD}[api]\nurl = "{api}"\nauth_string = "{secret}"\n')
    try:
        yield
    finally:
        SETTINGS.unlink(missing_ok=True)


def _setting(*path: str) -> str | None:
    try:
        value: Any = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    for name in path:
        value = value.get(name, {})
    return value if isinstance(value, str) else None


class Guard:
    """An app in front of another: refuses requests to another host, and from pages of another origin.

    Its own pages load nothing from other hosts, and no other page can frame them.
    """

    def __init__(self, app: "ASGIApp", port: int) -> None:
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        self._app = TrustedHostMiddleware(app, allowed_hosts=list(HOSTS), www_redirect=False)
        self._origins = {origin.encode() for origin in origins(port)}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """One request, or one WebSocket."""
        origin = dict(scope.get("headers", ())).get(b"origin")
        if origin is None or origin in self._origins:
            await self._app(scope, receive, _with_policy(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this origin may not talk to this server"})


def _with_policy(send: "Send") -> "Send":
    async def sent(message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
            message = {**message, "headers": headers}
        await send(message)

    return sent
