"""Sends one request to a token endpoint, once, and brings back the whole answer.

Law: exceptions of the HTTP client end here, since their texts hold URLs with secrets (threat 80); nothing is sent
twice, nowhere else, and no other than the given endpoint is asked (threats 54, 55).
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import yarl
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from proxy.errors import CredentialUnavailable
from proxy.grants.reply import BODY_LIMIT
from proxy.grants.request import TokenReply, TokenRequest
from proxy.tls import client_context

#: Seconds for the whole exchange: some vendors hash passwords slowly or stall failed logins, none takes this long.
TIMEOUT: Final = 20.0
#: The share of it for name, connection and TLS: whatever takes longer is not there, and has read nothing.
_CONNECT_SHARE: Final = 0.5
#: A token may come in a header (Keystone); the client's default of 8 KiB is less than tokens are.
_FIELD_LIMIT: Final = 32 * 1024
_NO_URL: Final = "The URL of the token endpoint cannot be used; check it in the configuration."


class _Connector(aiohttp.TCPConnector):
    """Connections for one request each, ended at once after the answer.

    To close TLS in order means to wait for the other side's last word, and nobody waits for it: a command's event
    loop then ended, or failed to end, with a connection half open.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the client's own signature
    ) -> Connection:
        """As the client's own."""
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None:
            connection.add_callback(connection.transport.abort)
        return connection


class TokenEndpoint:
    """A client for token endpoints: no redirects, cookies, environment proxies, netrc or connection reuse.

    `ca` is a PEM file that replaces the system's certificate authorities; `cert` and `key` are what it shows to a
    server that asks. The session is made at the first request, because it belongs to the running loop; `close()`
    ends it. Raises `OSError` or `ssl.SSLError` for files that cannot be used.
    """

    def __init__(
        self,
        *,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        # To read the machine's certificates takes 20 ms and more: that waits until https is spoken.
        self._context = client_context(ca, cert=cert, key=key) if ca or cert else None
        self._timeout = timeout
        self._open: aiohttp.ClientSession | None = None

    async def send(self, request: TokenRequest) -> TokenReply:
        """Send `request` and read the answer, whatever its status.

        A body over `BODY_LIMIT` is cut one byte beyond it, so that `reply.read` refuses it. Raises
        `CredentialUnavailable` when there is no whole answer.
        """
        session = self._session()
        url = _url(request.url)
        with _translated():
            async with session.request(
                request.method,
                url,
                headers=request.headers,
                data=request.body,
                ssl=True if url.scheme == "http" else self._trusted(),
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > BODY_LIMIT:
                        response.close()
                        break
                return TokenReply(
                    status=response.status,
                    headers=tuple(
                        (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers
                    ),
                    body=bytes(body[: BODY_LIMIT + 1]),
                )

    async def close(self) -> None:
        """Close the session, if there is one."""
        if self._open is not None:
            await self._open.close()
            self._open = None

    def _trusted(self) -> ssl.SSLContext:
        """The one context."""
        if self._context is None:
            self._context = client_context()
        return self._context

    def _session(self) -> aiohttp.ClientSession:
        """The one session. No await in here: two first requests must not make two."""
        if self._open is None:
            self._open = aiohttp.ClientSession(
                connector=_Connector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                # A bound of its own: what ends there was not sent (threat 90).
                timeout=aiohttp.ClientTimeout(total=self._timeout, connect=self._timeout * _CONNECT_SHARE),
                auto_decompress=False,
                trust_env=False,
                max_field_size=_FIELD_LIMIT,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                middlewares=(_translate,),
            )
        return self._open


def _url(text: str) -> yarl.URL:
    try:
        found = yarl.URL(text, encoded=True)
        port = found.port  # looked at only now
    except ValueError:
        port = None
    if port is None:
        raise CredentialUnavailable(_NO_URL)
    return found


async def _translate(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Translate failures of one attempt.

    As a middleware, because the session answers a lost connection by sending GET and PUT a second time, but only
    if it sees an exception of its own. A refresh token that is redeemed twice may revoke its whole family
    (RFC 9700 section 4.14).
    """
    with _translated():
        return await handler(request)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the client's exceptions into `CredentialUnavailable` with a sentence of ours, most specific first."""
    #: May the request have been read, and acted on?
    undecided = False
    try:
        yield
    except (aiohttp.ClientConnectorDNSError, UnicodeError):  # a label that is empty, or too long
        sentence = "The name of the token endpoint could not be resolved; check its URL and this machine's DNS."
    except aiohttp.ClientSSLError:  # of the handshake; what breaks behind it is a lost connection
        sentence = (
            "No TLS connection to the token endpoint could be made. Its certificate must name its host and be "
            "issued by a known authority; a private one must be configured."
        )
    except aiohttp.ConnectionTimeoutError:
        sentence = "No connection to the token endpoint could be made in time; nothing was sent."
    except TimeoutError:
        sentence, undecided = "The token endpoint did not answer in time.", True
    except aiohttp.ClientConnectorError:
        sentence = "No connection to the token endpoint could be made."
    except aiohttp.ClientResponseError:
        sentence, undecided = "The token endpoint's answer is not proper HTTP/1.1.", True
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        sentence = _NO_URL
    except (aiohttp.ClientError, OSError):
        sentence, undecided = "The connection to the token endpoint was lost before its whole answer came.", True
    else:
        return
    # From None: a traceback must not go on with the client's exception, which holds the URL.
    failure = CredentialUnavailable(sentence)
    failure.undecided = undecided
    raise failure from None
