"""The server of `winnow explore`, and its access control.

A request needs the token. The printed address has it after a #, which browsers send to no server, and the page returns
it in a header, which a page of another origin cannot set. The server listens on loopback, and refuses other host names:
an attacker's name may resolve to loopback. It allows no other origin.
"""

import json
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
from pipeline.pages.explore.explorer import Explorer
from pipeline.pages.explore.requests import (
    ColourRequest,
    Draft,
    LabelRequest,
    MapRequest,
    NamedRecipe,
    NearRequest,
    PairRequest,
    PairsRequest,
    RegionRequest,
    SimilarRequest,
)
from pipeline.pages.untrusted import plain

HOST = "127.0.0.1"

LARGEST = 4 << 20
"""Bytes of a request's body. Two recipes of the most and longest filters have 2.5 MB."""

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

    def check_token(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "open the address that winnow explore printed")

    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)

    @server.middleware("http")
    async def add_headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        answer = _refusal(request)
        if answer is None:
            answer = await call(request) if _is_unicode(await request.body()) else _not_unicode()
        answer.headers.update(HEADERS)
        return answer

    @server.exception_handler(WinnowError)
    async def winnow_error(request: Request, error: WinnowError) -> JSONResponse:
        return JSONResponse({"detail": plain(str(error), 1000)}, 400)

    api = APIRouter(prefix="/api", dependencies=[Depends(check_token)])

    @api.get("/start")
    def start() -> dict[str, Any]:
        return explorer.start()

    @api.post("/funnel")
    def funnel(draft: Draft) -> dict[str, Any]:
        return explorer.funnel(draft)

    @api.post("/pairs")
    def pairs(request: PairsRequest) -> dict[str, Any]:
        return explorer.pairs(request)

    @api.post("/pair")
    def pair(request: PairRequest) -> dict[str, Any]:
        return explorer.pair(request)

    @api.get("/picture")
    def picture(shard: Annotated[int, Query(ge=0)], member: str, large: bool = False) -> Response:
        jpeg = explorer.picture(shard, member, large)
        return Response(status_code=404) if jpeg is None else Response(jpeg, media_type="image/jpeg")

    @api.post("/label")
    def label(request: LabelRequest) -> dict[str, Any]:
        return explorer.label(request)

    @api.post("/toml")
    def as_toml(request: NamedRecipe) -> dict[str, str]:
        return explorer.toml(request)

    @api.post("/map")
    def plane(request: MapRequest) -> dict[str, Any]:
        return explorer.atlas.map(request.scorer)

    @api.post("/colours")
    def colours(request: ColourRequest) -> dict[str, Any]:
        return explorer.atlas.colours(request)

    @api.post("/similar")
    def similar(request: SimilarRequest) -> dict[str, Any]:
        return explorer.atlas.similar(request)

    @api.post("/region")
    def region(request: RegionRequest) -> dict[str, Any]:
        return explorer.atlas.region(request)

    @api.post("/near")
    def near(request: NearRequest) -> dict[str, Any]:
        return explorer.near(request)

    @api.post("/publish")
    def publish(request: NamedRecipe) -> dict[str, Any]:
        return explorer.publish(request)

    server.include_router(api)
    server.mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True))
    return server


def _refusal(request: Request) -> Response | None:
    """The answer to a body that is too large, or that does not say how large it is; nothing of it is read."""
    if "transfer-encoding" in request.headers:
        return JSONResponse({"detail": "the request does not say how long its body is"}, 411)
    if int(request.headers.get("content-length", 0)) > LARGEST:
        return JSONResponse({"detail": f"the request has more than {LARGEST >> 20} MB"}, 413)
    return None


def _is_unicode(body: bytes) -> bool:
    r"""Whether no text of a JSON body has half of a surrogate pair, as in "\ud800": it has no UTF-8."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except ValueError:  # no JSON: whoever reads it says so
        return True
    return True


def _not_unicode() -> JSONResponse:
    return JSONResponse({"detail": "the request has half a character (a lone surrogate), which no text has"}, 400)


@contextmanager
def listening(explorer: Explorer, port: int) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Listen on this port of loopback, or on a free one for 0. Gives the address of the page with the token, a function
    that serves it until Ctrl-C, and one that stops that from another thread. Raises WinnowError for a port in use.
    """
    import uvicorn

    token = secrets.token_urlsafe(32)
    # With the protocol named, asyncio sends small answers at once; without, each waits 40 ms for the one before.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise WinnowError(f"port {port} is not free ({error.strerror}): choose another with --port") from None
        listener.listen()
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

        yield f"http://{HOST}:{listener.getsockname()[1]}/#{token}", lambda: server.run(sockets=[listener]), end
