"""A request as it goes upstream: what the client sent, less what stops here, in the route's own terms."""

from collections.abc import Callable

from proxy.binding import Binding
from proxy.body import RequestBody
from proxy.fields import RawHeaders, connection_options
from proxy.guard import Admission, Head
from proxy.headers import Stripping, own_reference, request_lines
from proxy.injection import Outgoing
from proxy.query import strip_query


def request(
    raw: RawHeaders,
    head: Head,
    admission: Admission,
    *,
    path: bytes,
    binding: Binding,
    strip: Stripping,
    body: RequestBody | None,
    holds_key: Callable[[bytes], bool],
) -> Outgoing:
    """Everything but the credential. `path` is the upstream's; `holds_key` finds the client key in a value."""
    route = binding.route

    def as_the_upstream_would_see_it(value: bytes) -> bytes | None:
        own = own_reference(
            value,
            admission.own_origin,
            admission.key_prefix,
            prefix=route.prefix if route.strip_prefix else b"",
            upstream=str(route.upstream).encode(),
            base_path=route.base_path,
        )
        return None if holds_key(own) else own

    named = connection_options(head.fields.get(b"connection", ()))
    lines, cookies = request_lines(raw, strip, named, as_the_upstream_would_see_it)
    return Outgoing(
        head.method,
        path,
        strip_query(admission.query, strip.query),
        _host(head, binding),
        [*lines, *binding.constants],
        cookies,
        _framing(body),
    )


def _host(head: Head, binding: Binding) -> bytes:
    """The Host field at the upstream: its own name, the client's, or a literal."""
    if binding.host == "client" and b"host" in head.fields:
        return head.fields[b"host"][0]
    return (binding.route.upstream.authority if binding.host in ("upstream", "client") else binding.host).encode()


def _framing(body: RequestBody | None) -> bytes:
    """The framing field, written anew: a known length stays known, a chunked body stays chunked (threat 38)."""
    if body is None:
        return b""
    if body.length is None:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % body.length
