"""A web server for `winnow bench --download`: pictures from memory, over connections that stay open.

Run as `python -m pipeline.bench.picture_server FOLDER DELAY`. It serves the files of the folder on loopback: `/N/...`
is the file of number N modulo their count. DELAY is the time in seconds before each response, and before a connection
is first read. It prints its port, and ends with its standard input.

`/processor` is the processor time in seconds that this process has used, `/connections` how many it has accepted.
"""

import asyncio
import sys
import time
from pathlib import Path

_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection. Requests are answered in their order."""

    accepted = 0
    pictures: tuple[bytes, ...] = ()
    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        assert isinstance(transport, asyncio.Transport)
        Connection.accepted += 1
        self._transport, self._request = transport, b""
        self._ready_at = asyncio.get_running_loop().time() + self.delay  # a handshake takes a round trip

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._request += data
        while _END in self._request:
            head, _, self._request = self._request.partition(_END)
            loop = asyncio.get_running_loop()
            self._ready_at = max(self._ready_at, loop.time()) + self.delay
            loop.call_at(self._ready_at, self._answer, head)

    def _answer(self, head: bytes) -> None:
        target = head.split(b" ", 2)[1]
        close = b"connection: close" in head.lower()
        body = self._body(target.decode("ascii"))
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"
            % (len(body), b"close" if close else b"keep-alive")
        )
        self._transport.write(body)
        if close:
            self._transport.close()

    def _body(self, target: str) -> bytes:
        name = target.split("/")[1]
        if name == "processor":
            return str(time.process_time()).encode()
        if name == "connections":
            return str(self.accepted).encode()
        return self.pictures[int(name) % len(self.pictures)]


async def serve(folder: Path, delay: float) -> None:
    """Serve until the parent closes standard input."""
    Connection.pictures = tuple(path.read_bytes() for path in sorted(folder.iterdir()))
    Connection.delay = delay
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
