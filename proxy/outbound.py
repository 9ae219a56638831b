"""A request as it goes upstream: what the client sent, less what stops here, in the route's own terms."""

from collections.abc import Callable

from proxy.binding import Binding
from proxy.guard import Admission
from proxy.headers import Stripping, forwarded_lines, own_reference, request_lines
from proxy.injection import AUTHORIZATION, Outgoing, Place, Replace, places_to_fill
from proxy.listener.request import Request
from proxy.query import strip_query

#: The field lines and cookies of a request that do not depend on its target.
Kept = tuple[bytes, list[bytes]]


def placing(request: Request, admission: Admission, binding: Binding) -> tuple[tuple[Place, ...], Stripping]:
    """Where our credential goes, and what is stripped; nowhere: there is none, or the client's own passes."""
    credential = binding.credential
    key_in_authorization = admission.visitor.authorization_is_key
    fields = request.section.values
    places: tuple[Place, ...] = ()
    if credential is not None and binding.inject == "overwrite":
        places = credential.places
    elif credential is not None:
        places = places_to_fill(
            binding.inject,
            credential.places,
            fields,
            admission.query,
            authorization_is_key=key_in_authorization,
        )
    # The client key is for us alone, whoever's credential goes on.
    bare = binding.bare.plus(AUTHORIZATION) if key_in_authorization else binding.bare
    if not places:
        return (), bare
    if binding.inject == "overwrite":
        return places, binding.strip
    if isinstance(binding.inject, Replace) and binding.inject.stands_in(fields.get(b"authorization", ())):
        bare = bare.plus(AUTHORIZATION)
    return places, bare.plus(*places)


def outgoing(
    request: Request,
    admission: Admission,
    binding: Binding,
    path: bytes,
    *,
    strip: Stripping,
    holds_key: Callable[[bytes], bool],
) -> Outgoing:
    """Everything but the credential. `path` is the upstream's; `holds_key` finds the client key in a value."""
    # A client sends the same fields again and again, and what becomes of them is the same each time.
    memo = request.section.memo
    is_usual = not admission.key_prefix and (strip is binding.strip or strip is binding.bare)
    kept = memo.get(strip) if is_usual else None
    if kept is None:
        kept = _kept(request, admission, binding, strip, holds_key)
        if is_usual:
            memo[strip] = kept
    lines, cookies = kept
    return Outgoing(request.method, path, strip_query(admission.query, strip.query), lines, cookies)


def _kept(
    request: Request, admission: Admission, binding: Binding, strip: Stripping, holds_key: Callable[[bytes], bool]
) -> Kept:
    route = binding.route

    def as_the_upstream_would_see_it(value: bytes) -> bytes | None:
        own = own_reference(
            value,
            admission.visitor.own_origin,
            admission.key_prefix,
            prefix=route.prefix if route.strip_prefix else b"",
            upstream=binding.upstream.encode(),
            base_path=route.base_path,
        )
        return None if holds_key(own) else own

    section = request.section
    lines, cookies = request_lines(section.fields, strip, section.options, as_the_upstream_would_see_it, holds_key)
    host = b"Host: %b\r\n" % _host(request, binding)
    return b"".join((host, lines, binding.constants, _forwarded(request, binding), _framing(request))), cookies


def _host(request: Request, binding: Binding) -> bytes:
    """The Host field at the upstream: its own name, the client's, or a literal."""
    hosts = request.section.values.get(b"host")
    if binding.host == "client" and hosts:
        return hosts[0]
    return (binding.route.upstream.authority if binding.host in ("upstream", "client") else binding.host).encode()


def _forwarded(request: Request, binding: Binding) -> bytes:
    """Who called, where the route says so."""
    if not binding.forwarded:
        return b""
    hosts = request.section.values.get(b"host", [b""])
    return forwarded_lines("" if request.port is None else request.client, hosts[0], "http")


def _framing(request: Request) -> bytes:
    """The framing fields, written anew: a known length stays known, a chunked body stays chunked (threat 38).

    What a client expects before it sends its body is the upstream's to say, so that a refused one costs no byte.
    """
    section = request.section
    if not section.has_body:
        return b""
    expect = b"Expect: 100-continue\r\n" if section.expects else b""
    if section.length is None:
        return expect + b"Transfer-Encoding: chunked\r\n"
    return expect + b"Content-Length: %d\r\n" % section.length
