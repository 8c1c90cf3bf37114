"""TLS for listening sockets, with half-closed connections.

asyncio's own TLS ends the whole connection at the client's close_notify. Docker's clients send that when their input
ends (`docker run -i < file`) and go on reading, which TLS allows (RFC 8446, 6.1). So the layer is made here, of the
standard library's SSLObject between two memory buffers.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any

log = logging.getLogger("wherry.api")

_HANDSHAKE_SECONDS = 15.0
_CHUNK = 256 << 10
_WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def over_tls(context: ssl.SSLContext, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
    """A factory of server protocols that speak TLS and hand what is inside to protocols of `factory`."""
    return lambda: _TlsProtocol(context, factory)


class _TlsProtocol(asyncio.Protocol):
    """Between the socket's transport and the inner protocol."""

    def __init__(self, context: ssl.SSLContext, factory: Callable[[], asyncio.Protocol]) -> None:
        self._factory = factory
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.context = context
        self.raw: asyncio.Transport
        self.inner: asyncio.Protocol | None = None
        self._transport: _TlsTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._at_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.raw = transport
        self._timer = asyncio.get_running_loop().call_later(_HANDSHAKE_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self.inner is None and not self._shake_hands():
            return
        self._deliver()

    def _shake_hands(self) -> bool:
        try:
            self.ssl.do_handshake()
        except _WAITS:
            self.flush()
            return False
        except (ssl.SSLError, ssl.CertificateError) as error:
            # The client is owed the alert that says why.
            self.flush()
            log.info("TLS handshake with %s failed: %s", self.raw.get_extra_info("peername"), error)
            self.raw.close()
            return False
        assert self._timer is not None
        self._timer.cancel()
        self.flush()
        self._transport = _TlsTransport(self)
        self.inner = self._factory()
        self.inner.connection_made(self._transport)
        return True

    def _deliver(self) -> None:
        """Give the inner protocol what there is to read, until it wants no more for now."""
        while not self._paused and not self._at_eof and not self.raw.is_closing():
            try:
                data = self.ssl.read(_CHUNK)
            except _WAITS:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                log.info("TLS with %s failed: %s", self.raw.get_extra_info("peername"), error)
                self.raw.abort()
                return
            assert self.inner is not None
            if not data:
                self._end_of_input()
                break
            self.inner.data_received(data)
        self.flush()

    def _end_of_input(self) -> None:
        self._at_eof = True
        assert self.inner is not None
        assert self._transport is not None
        if not self.inner.eof_received():
            self._transport.close()

    def eof_received(self) -> bool:
        if self.inner is None:
            return False
        if not self._at_eof:
            self._deliver()
            if not self._at_eof:
                self._end_of_input()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    def flush(self) -> None:
        """Send what TLS has ready."""
        data = self._outgoing.read()
        if data and not self.raw.is_closing():
            self.raw.write(data)

    def pause(self) -> None:
        """Read no more."""
        self._paused = True
        self.raw.pause_reading()

    def resume(self) -> None:
        """Read on; what is decrypted already comes first, but not from within the caller."""
        if self._paused:
            self._paused = False
            self.raw.resume_reading()
            asyncio.get_running_loop().call_soon(self._deliver)


class _TlsTransport(asyncio.Transport):
    """What the inner protocol writes to."""

    def __init__(self, protocol: _TlsProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        own = {"ssl_object": self._protocol.ssl, "sslcontext": self._protocol.context}
        return own[name] if name in own else self._protocol.raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol.inner = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol.inner is not None
        return self._protocol.inner

    def is_closing(self) -> bool:
        return self._protocol.raw.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._ended and not self.is_closing():
            self._protocol.ssl.write(data)
            self._protocol.flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send close_notify; reading goes on."""
        if self._ended or self.is_closing():
            return
        self._ended = True
        try:
            self._protocol.ssl.unwrap()
        except ssl.SSLError:
            # It waits for the client's own close_notify, which comes when it comes.
            pass
        self._protocol.flush()

    def close(self) -> None:
        self.write_eof()
        self._protocol.raw.close()

    def abort(self) -> None:
        self._protocol.raw.abort()

    def pause_reading(self) -> None:
        self._protocol.pause()

    def resume_reading(self) -> None:
        self._protocol.resume()

    def is_reading(self) -> bool:
        return self._protocol.raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._protocol.raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._protocol.raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._protocol.raw.get_write_buffer_limits()
