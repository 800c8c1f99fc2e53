"""The server of `winnow explore`: who may ask.

Whoever has the token has the source: the address that is printed carries it behind a #, where no server and no log
sees it, and the page sends it back as a header, which no other page can. The server listens on loopback, answers to
no other name (a name of somebody else's may be bound to loopback), and gives no page of another origin leave.
"""

import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.errors import WinnowError
from pipeline.pages.explore.questions import Draft, Explorer, Look, Named, One, Said, toml
from pipeline.pages.shown import plain

HOST = "127.0.0.1"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def app(explorer: Explorer, token: str) -> FastAPI:
    """The server. Everything under /api/ needs the token."""

    def known(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "open the address that winnow explore printed")

    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    made.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)

    @made.middleware("http")
    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        answer = await call(request)
        answer.headers.update(HEADERS)
        return answer

    @made.exception_handler(WinnowError)
    async def told(request: Request, error: WinnowError) -> JSONResponse:
        return JSONResponse({"detail": plain(str(error), 1000)}, 400)

    api = APIRouter(prefix="/api", dependencies=[Depends(known)])

    @api.get("/start")
    def start() -> dict[str, Any]:
        return explorer.start()

    @api.post("/funnel")
    def funnel(draft: Draft) -> dict[str, Any]:
        return explorer.funnel(draft)

    @api.post("/pairs")
    def pairs(asked: Look) -> dict[str, Any]:
        return explorer.look(asked)

    @api.post("/pair")
    def pair(asked: One) -> dict[str, Any]:
        return explorer.pair(asked)

    @api.get("/picture")
    def picture(shard: Annotated[int, Query(ge=0)], member: str, large: bool = False) -> Response:
        jpeg = explorer.picture(shard, member, large)
        return Response(status_code=404) if jpeg is None else Response(jpeg, media_type="image/jpeg")

    @api.post("/label")
    def label(said: Said) -> dict[str, Any]:
        return explorer.label(said)

    @api.post("/toml")
    def written(asked: Named) -> dict[str, str]:
        return {"toml": toml(asked.made(asked.name))}

    @api.post("/publish")
    def published(asked: Named) -> dict[str, Any]:
        return explorer.publish(asked)

    made.include_router(api)
    made.mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True))
    return made


@contextmanager
def listening(explorer: Explorer, port: int) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """The address of the page, token included, on this port of loopback, 0 for a free one; what answers there until
    Ctrl-C; and what ends that from another thread. Raises WinnowError for a port that is taken.
    """
    import uvicorn

    token = secrets.token_urlsafe(32)
    # With the protocol named, asyncio sends small answers at once; without, each waits 40 ms for the one before.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            ear.bind((HOST, port))
        except OSError as error:
            raise WinnowError(f"port {port} cannot be had ({error.strerror}): choose another with --port") from None
        ear.listen()
        config = uvicorn.Config(
            app(explorer, token),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        server = uvicorn.Server(config)

        def end() -> None:
            server.should_exit = True

        yield f"http://{HOST}:{ear.getsockname()[1]}/#{token}", lambda: server.run(sockets=[ear]), end
