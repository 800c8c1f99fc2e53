"""The body of a response, bounded in size, and the cause of a failure for every exception of a request."""

import http.client
import socket
import ssl
import zlib

from pipeline.failure import RowError

_BLOCK = 1 << 16


def read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The whole body, unpacked. Raises RowError: too_large, empty, bad_answer; IncompleteRead for a body cut short."""
    if int(response.getheader("Content-Length") or 0) > max_bytes:
        raise RowError("too_large", f"the body has more than {max_bytes} bytes")
    blocks = []
    size = 0
    while block := response.read(_BLOCK):
        blocks.append(block)
        size += len(block)
        if size > max_bytes:
            raise RowError("too_large", f"the body has more than {max_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    body = _unpack(b"".join(blocks), response.getheader("Content-Encoding") or "identity", max_bytes)
    if not body:
        raise RowError("empty", "the body has no bytes")
    return body


def _unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo a Content-Encoding, although the request accepts none."""
    if encoding.strip().lower() == "identity" or not body:
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise RowError("bad_answer", f"the content encoding {encoding[:20]} was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # detects gzip and zlib headers
    plain = unpacker.decompress(body, max_bytes + 1)
    if len(plain) > max_bytes:
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
