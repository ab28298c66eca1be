"""The way in: a process that accepts on one side of a network namespace and calls on the other.

usage: door.py FD PORT

Enters: connections to a socket that was made, and listens, outside of the namespace this process is put into.
Leaves: the same bytes, to 127.0.0.1:PORT within. Knows nothing of what they mean; imports nothing of the rest,
so that it starts from a file alone.
"""

from __future__ import annotations

import asyncio
import socket
import sys

CHUNK = 256 * 1024


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until it ends; the end is passed on, the other direction goes on. A break is passed on as one:
    whoever only listens would wait for ever."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def serve(listener: socket.socket, port: int) -> None:
    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()  # nobody listens within: the caller sees a reset
            return
        try:
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        finally:
            for end in (writer, inner_writer):
                end.close()

    async with await asyncio.start_server(through, sock=listener) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
