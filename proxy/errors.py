"""Every way a request can end in an answer of our own, as one tree.

Law: a message here is a fixed sentence about *our* side. It never holds a byte of the request, of a token
endpoint's reply, or the text of a foreign exception (threats 75, 80); names of credentials and routes come
from the config and may appear.

::

    BearerProxyError
    ├── ConfigError                      exit status 2, never reaches HTTP
    └── ProxyError                       status, code, detail
        ├── Rejected                     the guard and the policy said no
        │   ├── BadRequest               400 bad_request
        │   ├── BadTarget                400 bad_target
        │   ├── BadFraming               400 bad_framing
        │   ├── BadUpgrade               400 bad_upgrade
        │   ├── ClientKeyRequired        401 client_key_required
        │   ├── HostNotAllowed           403 host_not_allowed
        │   ├── OriginNotAllowed         403 origin_not_allowed (also NavigationNotAllowed,
        │   │                             OwnPageNotAllowed)
        │   ├── PeerNotAllowed           403 peer_not_allowed
        │   ├── PathDenied               403 path_denied
        │   ├── CorsDenied               403 cors_denied
        │   ├── MethodNotAllowed         405 method_not_allowed
        │   ├── RequestTimeout           408 request_timeout
        │   ├── TooLarge                 413 too_large
        │   ├── TargetTooLong            414 target_too_long
        │   ├── BadExpectation           417 bad_expectation
        │   ├── HeadersTooLarge          431 headers_too_large
        │   └── Overloaded               503 overloaded
        ├── NoRoute                      404 no_route
        ├── CredentialError
        │   ├── CredentialRejected       502 credential_rejected
        │   ├── CredentialUnavailable    503 credential_unavailable
        │   │   └── StoreUnavailable     503 store_unavailable (also StoreBusy, TurnLost, StoreOutdated)
        │   └── LoginRequired            503 login_required
        └── UpstreamError
            ├── UpstreamUnreachable      502 upstream_unreachable (also UpstreamRefused, UpstreamVia,
            │                             UpstreamLost, UpstreamOffLimits)
            ├── UpstreamDNS              502 upstream_dns
            ├── UpstreamTLS              502 upstream_tls (also UpstreamCertificate)
            ├── UpstreamProtocol         502 upstream_protocol (also UpstreamTruncated)
            ├── UpstreamBadHeader        502 upstream_bad_header
            └── UpstreamTimeout          504 upstream_timeout (also UpstreamConnectTimeout)
"""

from typing import Any, ClassVar

#: What a token endpoint says of a failure, as fields of a log event: masked and cut, and for the log alone.
Said = tuple[tuple[str, str], ...]


class BearerProxyError(Exception):
    """The root: everything that this project raises on purpose."""


class ConfigError(BearerProxyError):
    """The configuration cannot be used; `problems` holds one complete sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ProxyError(BearerProxyError):
    """An answer that the proxy makes itself (INTERFACE, "Answers that the proxy makes itself").

    `status` and `code` are facts of the class; `detail` is what this instance adds to it, `retry_after` a
    number of seconds or None.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "The proxy failed"
    explanation: ClassVar[str] = "This is a defect of the proxy; its log has more under the request id."
    #: RFC 9209 section 2.3 error type, only where the registry has a fitting one.
    proxy_error: ClassVar[str | None] = None

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.explanation)
        self.detail = detail or self.explanation
        self.retry_after = retry_after

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Header fields that this answer needs besides the usual ones."""
        return () if self.retry_after is None else (("Retry-After", str(max(1, round(self.retry_after)))),)


class Rejected(ProxyError):
    """The guard or a limit said no; nothing was sent upstream and no token was asked for."""

    status = 400
    code = "bad_request"
    title = "Bad request"
    explanation = "The request is malformed."


class BadRequest(Rejected):
    """The request could not be parsed, or uses a form that is not taken."""


class BadTarget(Rejected):
    """The request target is in a form that is not forwarded."""

    code = "bad_target"
    title = "Bad request target"
    explanation = (
        "Only origin-form targets are taken (a path that starts with /), without fragments, control characters, "
        "broken percent-escapes or dot segments that climb above the route."
    )


class BadFraming(Rejected):
    """The message's length is ambiguous (RFC 9112 section 6.3)."""

    code = "bad_framing"
    title = "Bad framing"
    explanation = "The length of the request body is ambiguous."


class BadUpgrade(Rejected):
    """An upgrade that is not taken."""

    code = "bad_upgrade"
    title = "Upgrade not taken"
    explanation = "This protocol upgrade is not supported."


class ClientKeyRequired(Rejected):
    """A client key is configured and the request did not carry it."""

    status = 401
    code = "client_key_required"
    title = "Client key required"
    explanation = (
        "Send this proxy's client key: as X-Proxy-Key, as a Bearer token, as the Basic password, "
        "as the cookie bearer_proxy_key, or as first path segment /~KEY."
    )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Basic, because git and pip ask for a password only then (RFC 7617)."""
        return (("WWW-Authenticate", 'Basic realm="bearer-proxy"'),)


class HostNotAllowed(Rejected):
    """The Host header names something that is not this proxy (DNS rebinding, threat 1)."""

    status = 403
    code = "host_not_allowed"
    title = "Host not allowed"
    explanation = (
        "The Host header is not one of this proxy's names. Call it as localhost, 127.0.0.1 or [::1], "
        "or add the name to guard.hosts."
    )


class OriginNotAllowed(Rejected):
    """A browser page of another origin made this request (threat 2)."""

    status = 403
    code = "origin_not_allowed"
    title = "Origin not allowed"
    explanation = (
        "A web page of another origin sent this request. If that page may use this credential, "
        "add its origin to guard.origins."
    )


class NavigationNotAllowed(OriginNotAllowed):
    """A browser would show the answer as a page, which then acts with the authority of our origin (threat 9)."""

    explanation = (
        "A browser asks for this as a page, and what runs in it could use the credential. To open pages of the "
        "upstream in a browser, set guard.browser."
    )


class OwnPageNotAllowed(OriginNotAllowed):
    """A page, or a service worker, that an earlier server on our port left in the browser (threat 9)."""

    explanation = (
        "A page of the proxy's own origin sent this request, and the proxy has none: an earlier server on this "
        "port left it. A server that has pages and forwards here must keep its own Host, or be listed in "
        "guard.origins; to show pages of the upstream in a browser, set guard.browser; a program that calls itself "
        "a browser can show a client key as X-Proxy-Key."
    )


class PeerNotAllowed(Rejected):
    """Another user of this machine connected, or nobody knows who (threats 13, 14, 18)."""

    status = 403
    code = "peer_not_allowed"
    title = "Peer not allowed"
    explanation = (
        "This connection is another user's, or it is not known whose. Add the user to guard.peers.uids, or set "
        "guard.client_key."
    )


class PathDenied(Rejected):
    """`allow` or `deny` of the route, or the client key's own rules, forbid this method and path."""

    status = 403
    code = "path_denied"
    title = "Path denied"
    explanation = "The rules of the route, or those of the client key, forbid this method and path."

    def __init__(self, rule: str = "") -> None:
        super().__init__()
        #: Which of them it is, for people who look on; the client is not told.
        self.rule = rule


class CorsDenied(Rejected):
    """A CORS preflight from an origin that is not allowed."""

    status = 403
    code = "cors_denied"
    title = "CORS preflight denied"
    explanation = "This origin may not call the proxy. Add it to guard.origins to allow it."


class MethodNotAllowed(Rejected):
    """CONNECT and TRACE are never forwarded (threats 25, 26)."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"
    explanation = "CONNECT and TRACE are never forwarded."

    def headers(self) -> tuple[tuple[str, str], ...]:
        """`Allow` is a MUST on 405 (RFC 9110 section 15.5.6)."""
        return (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)


class RequestTimeout(Rejected):
    """The client was too slow."""

    status = 408
    code = "request_timeout"
    title = "Request timeout"
    explanation = "The request did not arrive in time."


class TooLarge(Rejected):
    """The body is over `limits.body_bytes`."""

    status = 413
    code = "too_large"
    title = "Body too large"
    explanation = "The request body is larger than limits.body_bytes."


class TargetTooLong(Rejected):
    """The request line is over `limits.header_bytes`."""

    status = 414
    code = "target_too_long"
    title = "Target too long"
    explanation = "The request line is longer than limits.header_bytes."


class BadExpectation(Rejected):
    """An Expect header other than 100-continue (RFC 9110 section 10.1.1)."""

    status = 417
    code = "bad_expectation"
    title = "Expectation failed"
    explanation = "The only expectation that is taken is 100-continue."


class HeadersTooLarge(Rejected):
    """The header section is over `limits.header_bytes`."""

    status = 431
    code = "headers_too_large"
    title = "Headers too large"
    explanation = "The header fields are too many, or larger than limits.header_bytes."


class Overloaded(Rejected):
    """More connections than `limits.connections`."""

    status = 503
    code = "overloaded"
    title = "Overloaded"
    explanation = "Too many connections at once (limits.connections)."


class NoRoute(ProxyError):
    """No route matches host and path."""

    status = 404
    code = "no_route"
    title = "No route"
    explanation = "No route of this proxy matches the host and path."


class CredentialError(ProxyError):
    """There is no usable token; nothing was sent upstream (invariant 2)."""

    status = 503
    code = "credential_unavailable"
    title = "Credential unavailable"
    explanation = "No token could be obtained; nothing was sent upstream."

    #: It is another credential's, on which this one stands, and may be over in a moment.
    is_lenders: bool = False

    def __init__(self, detail: str = "", *, retry_after: float | None = None, said: Said = ()) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.said = said


class CredentialRejected(CredentialError):
    """The token endpoint says no: a wrong password, `invalid_client`."""

    status = 502
    code = "credential_rejected"
    title = "Credential rejected"


class CredentialUnavailable(CredentialError):
    """The token endpoint cannot be used now and there is no valid token.

    `undecided`: it may have done what it was asked all the same; its answer did not come, or was of no use.
    `rotated` is the refresh token of such an answer, which is in the place of the one that was redeemed.
    """

    undecided: bool = False
    rotated: Any = None  # a `Secret`; this module is loaded where nothing else is


class StoreUnavailable(CredentialUnavailable):
    """The store of tokens cannot be used now; `for_all`: by nobody who shares it, as with a disk that is full."""

    code = "store_unavailable"
    title = "Store unavailable"
    explanation = "The store of tokens cannot be used now; nothing was sent upstream."

    for_all: bool = False


class StoreBusy(StoreUnavailable):
    """Another process has held the turn of this credential for too long."""

    explanation = "Another process holds the turn of this credential and does not let go; it is tried again."


class TurnLost(StoreBusy):
    """The turn was taken away from a process that stood still for too long (threat 94)."""

    explanation = "The turn of this credential ran out before a token was asked for; it is tried again."


class StoreOutdated(StoreUnavailable):
    """Somebody else has written to the store since this process read it."""

    explanation = "Another process has stored a later token of this credential; it is read again."


class LoginRequired(CredentialError):
    """Only a person can get a new token."""

    code = "login_required"
    title = "Login required"


class UpstreamError(ProxyError):
    """The upstream could not be used, or did not speak HTTP/1.1 as it must."""

    status = 502
    code = "upstream_unreachable"
    title = "Upstream unreachable"
    explanation = "No connection to the upstream could be made, or it was lost before an answer came."


class UpstreamUnreachable(UpstreamError):
    """Connecting failed, or the connection was lost before the answer."""

    proxy_error = "destination_unavailable"


class UpstreamRefused(UpstreamUnreachable):
    """The upstream's machine refused the connection."""

    explanation = "The upstream refused the connection: nothing listens at its address and port."
    proxy_error = "connection_refused"


class UpstreamOffLimits(UpstreamUnreachable):
    """The upstream's name leads to a metadata service, or to an address of the link (threat 71)."""

    explanation = (
        "The upstream's name leads only to addresses of the link, or of the cloud's metadata service, which are "
        "never called: correct the name, or the resolver."
    )
    proxy_error = "destination_ip_prohibited"


class UpstreamVia(UpstreamUnreachable):
    """The outbound proxy of the route opened no way to the upstream."""

    explanation = "The outbound proxy (via of the route) opened no way to the upstream."


class UpstreamLost(UpstreamUnreachable):
    """The connection was lost before a whole answer head came.

    `untouched`: not one byte of the request had been written; `silent`: not one byte of an answer had come.
    """

    explanation = "The upstream closed the connection before it answered."
    proxy_error = "http_response_incomplete"

    def __init__(self, *, untouched: bool, silent: bool) -> None:
        super().__init__()
        self.untouched = untouched
        self.silent = silent


class UpstreamDNS(UpstreamError):
    """The upstream's name does not resolve."""

    code = "upstream_dns"
    title = "Upstream name not found"
    explanation = "The name of the upstream could not be resolved."
    proxy_error = "dns_error"


class UpstreamTLS(UpstreamError):
    """TLS to the upstream failed."""

    code = "upstream_tls"
    title = "Upstream TLS failed"
    explanation = (
        "No TLS connection to the upstream could be made. A private CA goes into tls.ca of the route, a client "
        "certificate into tls.cert; the upstream's certificate must name its host, or what tls.server_name says."
    )
    proxy_error = "tls_protocol_error"


class UpstreamCertificate(UpstreamTLS):
    """The upstream's certificate is not trusted, or names another host."""

    proxy_error = "tls_certificate_error"


class UpstreamProtocol(UpstreamError):
    """The upstream's answer is not proper HTTP/1.1."""

    code = "upstream_protocol"
    title = "Upstream protocol error"
    explanation = "The upstream's answer is not proper HTTP/1.1."
    proxy_error = "http_protocol_error"


class UpstreamBadHeader(UpstreamError):
    """The upstream's header section is not one that may be passed on (threat 63)."""

    code = "upstream_bad_header"
    title = "Upstream header refused"
    explanation = "The upstream's header section is too large, or holds characters that may not be passed on."
    proxy_error = "http_protocol_error"


class UpstreamTimeout(UpstreamError):
    """The upstream was too slow to connect or to answer."""

    status = 504
    code = "upstream_timeout"
    title = "Upstream timeout"
    explanation = "The upstream did not connect or answer in time (timeouts of the route)."
    proxy_error = "http_response_timeout"


class UpstreamTruncated(UpstreamProtocol):
    """The upstream's answer ended before its declared end; the client must see that (invariant 8)."""

    explanation = "The upstream's answer ended before its declared end."
    proxy_error = "http_response_incomplete"


class UpstreamConnectTimeout(UpstreamTimeout):
    """No connection in time, or none free in the pool."""

    explanation = "No connection to the upstream could be had in time (timeouts.connect, pool.size of the route)."
    proxy_error = "connection_timeout"
