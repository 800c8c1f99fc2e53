"""The body of a response, bounded in size, and the cause of a failure for every exception of a request."""

import http.client
import socket
import ssl
import zlib

from pipeline.failure import RowError

_BLOCK = 1 << 16

_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_UNSUPPORTED = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "aes128gcm", "pack200-gzip"})
"""The other codings that IANA has registered. Any other word, such as "none" or "utf-8", is no coding."""

_MAX_INFORMATIONAL = 8
"""The most 1xx responses before the final one."""


def final(response: http.client.HTTPResponse, wire: socket.socket) -> http.client.HTTPResponse:
    """The response after informational ones (RFC 9110, 15.2), such as 103 Early Hints. 101 is final.

    Raises RowError for more than a few.
    """
    for _ in range(_MAX_INFORMATIONAL):
        if not 100 <= response.status < 200 or response.status == 101:
            return response
        following = http.client.HTTPResponse(wire, method="GET")
        following.fp, response.fp = response.fp, following.fp  # the first reader may have read the next response
        following.begin()
        response = following
    raise RowError("bad_answer", "too many informational responses")


def read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The whole body, unpacked. Raises RowError: too_large, empty, bad_answer; IncompleteRead for a body cut short."""
    length = None if response.chunked else _length(response.getheader("Content-Length"))
    if (length or 0) > max_bytes:
        raise RowError("too_large", f"the body has more than {max_bytes} bytes")
    blocks = []
    size = 0
    while block := response.read(_BLOCK):
        blocks.append(block)
        size += len(block)
        if size > max_bytes:
            raise RowError("too_large", f"the body has more than {max_bytes} bytes")
    if length is not None and size < length:
        raise http.client.IncompleteRead(b"", length - size)
    body = _unpack(b"".join(blocks)[:length], response.getheader("Content-Encoding") or "", max_bytes)
    if not body:
        raise RowError("empty", "the body has no bytes")
    return body


def _length(header: str | None) -> int | None:
    """The value of Content-Length, which may be repeated (RFC 9110, 8.6). Raises RowError for two different ones."""
    if header is None:
        return None
    values = {value.strip() for value in header.split(",")}
    if len(values) != 1 or not min(values).isdecimal():
        raise RowError("bad_answer", "Content-Length is not one number")
    return int(min(values))


def _unpack(body: bytes, header: str, max_bytes: int) -> bytes:
    """Undo a Content-Encoding, although the request accepts none. Words that are no coding are ignored."""
    codings = [coding for word in header.split(",") if (coding := word.strip().lower()) in _PACKED | _UNSUPPORTED]
    if not codings or not body:
        return body
    if len(codings) > 1 or codings[0] in _UNSUPPORTED:
        raise RowError("bad_answer", f"the content encoding {header.strip()[:20]} was not asked for")
    if codings[0] == "deflate":
        return _inflate(body, max_bytes)
    return _gunzip(body, max_bytes)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """All members of a gzip file (RFC 1952); bytes after the last one are ignored. Servers send zlib's format too."""
    plain = b""
    while not plain or body[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # detects gzip and zlib headers
        plain += _decompress(unpacker, body, max_bytes - len(plain), max_bytes)
        body = unpacker.unused_data
        if not body:
            break
    return plain


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """zlib's format, as the standard says, or raw deflate, as some servers send."""
    try:
        return _decompress(zlib.decompressobj(zlib.MAX_WBITS | 32), body, max_bytes, max_bytes)
    except zlib.error:
        return _decompress(zlib.decompressobj(-zlib.MAX_WBITS), body, max_bytes, max_bytes)


def _decompress(unpacker: "zlib._Decompress", body: bytes, room: int, max_bytes: int) -> bytes:
    plain = unpacker.decompress(body, room + 1)
    if len(plain) > room:
        raise RowError("too_large", f"the body unpacks to more than {max_bytes} bytes")
    if not unpacker.eof:
        raise RowError("bad_answer", "the packed body ends too early")
    return plain


def failure(error: Exception, timeout: float) -> RowError:
    """The cause in one word. The same cause always has the same words, so that results are reproducible."""
    if isinstance(error, TimeoutError):
        return RowError("timeout", f"no whole answer within {timeout:g} s")
    if isinstance(error, socket.gaierror):
        return RowError("dns", "the name cannot be resolved")
    if isinstance(error, ConnectionRefusedError):
        return RowError("refused", "the connection was refused")
    if isinstance(error, (ConnectionError, http.client.IncompleteRead, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return RowError("reset", "the connection ended before the answer did")
    if isinstance(error, ssl.SSLCertVerificationError):
        return RowError("tls", error.verify_message)
    if isinstance(error, ssl.SSLError):
        return RowError("tls", error.reason or "the TLS handshake failed")
    if isinstance(error, OSError):
        return RowError("unreachable", error.strerror or type(error).__name__)
    return RowError("bad_answer", f"it cannot be read: {type(error).__name__}")  # its words may quote the address
