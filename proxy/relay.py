"""One request, from the listener to the access log.

Read `Relay._relay` from top to bottom: guard, route, policy, body, token, headers, upstream, refusal, answer.
Law: strip first, add the credential last; a refused request never touches token state; without a token nothing
is sent (invariants 1 to 3). What happens between the two attempts stands in `passage.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from proxy import outbound
from proxy.accesslog import Exchange
from proxy.answers import Downstream, Written, deliver
from proxy.binding import Binding
from proxy.body import RequestBody
from proxy.clock import Clock
from proxy.credentials.credential import Rendered
from proxy.errors import HeadersTooLarge, ProxyError
from proxy.fields import fields
from proxy.guard import Admission, Guard, Head, cors_lines, preflight_lines
from proxy.headers import Stripping, answer_lines, check_answer
from proxy.injection import AUTHORIZATION, Place, Replace, places_to_fill
from proxy.passage import Passage
from proxy.routes import RouteTable
from proxy.upstream.attempt import Attempt

log: Final = logging.getLogger("proxy")

#: More header fields than any client sends.
HEADER_FIELDS: Final = 256


class Relay:
    """Handles requests. `observe` is told of every finished exchange.

    `head_most` bounds header sections and `body_most` bodies, in bytes.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        bindings: Mapping[str, Binding],
        clock: Clock,
        observe: Callable[[Exchange], None],
        head_most: int = 32 * 1024,
        body_most: int | None = None,
    ) -> None:
        self._guard = guard
        self._bindings = bindings
        self._table = RouteTable(binding.route for binding in bindings.values())
        self._clock = clock
        self._observe = observe
        self._head_most = head_most
        self._body_most = body_most
        #: Every answer from now on ends its connection.
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> Written:
        """Answer one request, whatever happens, and log it."""
        exchange = Exchange(request.method, request.remote or "unix", time.perf_counter())
        if request.raw_path.startswith("/"):
            # What was asked for, for the log of a refusal; other forms may hold a password.
            exchange.path, _, exchange.query = request.raw_path.encode("utf-8", "surrogateescape").partition(b"?")
        out = Downstream(request, exchange, keep_alive=not self.draining)
        try:
            await self._relay(request, exchange, out)
        except ProxyError as error:
            out.problem(error, self._cors(request))
        except asyncio.CancelledError:
            # The listener cancels for two reasons: the client hung up, or `limits.drain` is over.
            exchange.error = "client_closed" if request.transport is None else "drain_timeout"
            raise
        except ConnectionError:
            exchange.error = "client_closed"
            out.cut()
        except TimeoutError:
            exchange.error = "client_stalled"
            out.cut()
        except Exception:
            log.exception("internal_error", extra={"fields": {"request_id": exchange.request_id}})
            out.problem(ProxyError())
        finally:
            exchange.seconds = time.perf_counter() - exchange.started_at
            self._observe(exchange)
        # The client's next request waits until it took this answer: what it does not read must not pile up here.
        await out.settle()
        return out.result

    async def _relay(self, request: web.BaseRequest, exchange: Exchange, out: Downstream) -> None:
        """The whole way of a request."""
        # 1. Guard: nothing below this line happens for a request that it refuses.
        head = _head(request, self._head_most)
        admission = self._guard.admit(head)
        exchange.path, exchange.query = admission.path, admission.query
        if admission.preflight and admission.origin is not None:
            out.begin(
                204, preflight_lines(head.fields, admission.origin), framing=b"", first=b"", until_close=False
            )
            return

        # 2. Route and policy, both on raw bytes.
        route = self._table.find(admission.host, admission.path)
        binding = self._bindings[route.name]
        exchange.route = route.name
        path = route.target(admission.path)
        route.policy.check(head.method, path)

        # 3. Body: streamed and kept up to a bound; nothing is read yet.
        body = self._body(request, head, binding)

        # 4. Credential: no token, no request.
        rendered, strip = await _credential(head, admission, binding, exchange)

        # 5. Headers: what stops here goes first; the credential comes last, in `Outgoing.head`.
        outgoing = outbound.request(
            request.raw_headers,
            head,
            admission,
            path=path,
            binding=binding,
            strip=strip,
            body=body,
            holds_key=self._guard.holds_key,
        )
        if body is not None and not body.is_here and b"expect" in head.fields:
            out.interim(b"HTTP/1.1 100 Continue\r\n\r\n")

        # 6. Upstream, and once more where the token was refused and a newer one can be had.
        passage = Passage(exchange, binding, outgoing, body, self._clock)
        attempt: Attempt | None = None
        extra: list[bytes] = []
        try:
            attempt = await passage.send(rendered)
            if rendered is not None and binding.rules.concerns(attempt.answer.status):
                attempt, rendered, extra = await passage.second_chance(attempt, rendered)

            # 7. Relay the answer.
            if self.draining:
                out.close_after()
            if body is not None:
                body.forget()
            check_answer(attempt.answer.headers)
            echoes = rendered.echoes if rendered is not None else ()
            lines, exchange.echoes = answer_lines(attempt.answer.headers, echoes=echoes)
            if admission.origin is not None:
                extra += cors_lines(admission.origin, exposed=lines)
            await deliver(attempt.answer, out, lines + extra, binding.timeouts.idle)
        finally:
            if attempt is not None:
                attempt.end()
            if body is not None:
                exchange.bytes_in = body.received

    def _body(self, request: web.BaseRequest, head: Head, binding: Binding) -> RequestBody | None:
        """The request's body; None where the client announced none."""
        lengths = head.fields.get(b"content-length")
        if lengths is None and b"transfer-encoding" not in head.fields:
            return None
        length = int(lengths[0]) if lengths else None
        return RequestBody(
            request.content, length, keep=binding.keep, most=self._body_most, idle=binding.timeouts.idle
        )

    def _cors(self, request: web.BaseRequest) -> bytes:
        """Our grant on our own answers too, so that an allowed page can read what went wrong."""
        origins = [value for name, value in request.raw_headers if name.lower() == b"origin"]
        allowed = len(origins) == 1 and self._guard.allows_origin(origins[0])
        return b"".join(cors_lines(origins[0].strip())) if allowed else b""


def _head(request: web.BaseRequest, most: int) -> Head:
    """The head as the guard takes it. Raises `HeadersTooLarge` where its fields are too many or too large."""
    raw = request.raw_headers
    if len(raw) > HEADER_FIELDS or sum(len(name) + len(value) for name, value in raw) > most:
        raise HeadersTooLarge
    return Head(
        request.method,
        request.raw_path.encode("utf-8", "surrogateescape"),
        request.version,
        fields(raw),
        unix=isinstance(request.protocol.sockname, str | bytes),
    )


async def _credential(
    head: Head, admission: Admission, binding: Binding, exchange: Exchange
) -> tuple[Rendered | None, Stripping]:
    """The token for this request as it is sent, and what is stripped; None: the client's own passes."""
    credential = binding.credential
    places: tuple[Place, ...] = ()
    if credential is not None:
        places = places_to_fill(
            binding.inject,
            credential.places,
            head.fields,
            admission.query,
            authorization_is_key=admission.authorization_is_key,
        )
    # The client key is for us alone, whoever's credential goes on.
    bare = binding.bare.plus(AUTHORIZATION) if admission.authorization_is_key else binding.bare
    if credential is None or not places:
        return None, bare
    exchange.credential = credential.name
    with exchange.waiting_for_a_token():
        token = await credential.source.token(binding.timeouts.token)
    exchange.generation = token.generation
    rendered = credential.rendered(token, places)
    if binding.inject == "overwrite":
        return rendered, binding.strip
    if isinstance(binding.inject, Replace) and binding.inject.stands_in(head.fields.get(b"authorization", ())):
        bare = bare.plus(AUTHORIZATION)
    return rendered, bare.plus(*places)
