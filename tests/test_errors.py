"""The error tree against the table of answers that the proxy makes itself."""

import inspect
import re
from collections.abc import Iterator

import pytest

from proxy import errors
from proxy.errors import (
    BearerProxyError,
    ClientKeyRequired,
    ConfigError,
    CredentialUnavailable,
    MethodNotAllowed,
    ProxyError,
    UpstreamLost,
)

#: INTERFACE, "Answers that the proxy makes itself": the codes of each status, as far as they are built.
ANSWERS = {
    400: {"bad_request", "bad_target", "bad_framing", "bad_upgrade"},
    401: {"client_key_required"},
    403: {"host_not_allowed", "origin_not_allowed", "peer_not_allowed", "path_denied", "cors_denied"},
    404: {"no_route"},
    405: {"method_not_allowed"},
    408: {"request_timeout"},
    413: {"too_large"},
    414: {"target_too_long"},
    417: {"bad_expectation"},
    431: {"headers_too_large"},
    500: {"internal_error"},
    502: {
        "credential_rejected",
        "upstream_unreachable",
        "upstream_dns",
        "upstream_tls",
        "upstream_protocol",
        "upstream_bad_header",
    },
    503: {"credential_unavailable", "login_required", "overloaded", "store_unavailable"},
    504: {"upstream_timeout"},
}
#: The registry of RFC 9209 section 2.3, as far as it can fit.
PROXY_ERROR_TYPES = {
    "connection_refused",
    "connection_timeout",
    "destination_ip_prohibited",
    "destination_unavailable",
    "dns_error",
    "http_protocol_error",
    "http_response_incomplete",
    "http_response_timeout",
    "tls_certificate_error",
    "tls_protocol_error",
}


def _tree(kind: type[ProxyError]) -> Iterator[type[ProxyError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


#: Other modules may narrow one of them for themselves, as the admin listener does; the tree is this module's.
KINDS = [kind for kind in _tree(ProxyError) if kind.__module__ == errors.__name__]


def _made(kind: type[ProxyError]) -> ProxyError:
    return kind(untouched=True, silent=True) if issubclass(kind, UpstreamLost) else kind()


def test_status_and_code_are_those_of_the_interface() -> None:
    """No answer is missing, none is invented."""
    found: dict[int, set[str]] = {}
    for kind in KINDS:
        found.setdefault(kind.status, set()).add(kind.code)
    assert found == ANSWERS


@pytest.mark.threat(80)
@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_fixed_sentences_and_a_known_type(kind: type[ProxyError]) -> None:
    """080: a title, an explanation that is a whole sentence in ASCII, and an RFC 9209 type only where one fits."""
    error = _made(kind)
    assert error.detail == kind.explanation == str(error)
    assert re.fullmatch(r"[A-Z][ -~]+\.", kind.explanation)
    assert re.fullmatch(r"[A-Z][A-Za-z ]+[a-z]", kind.title)
    assert kind.proxy_error is None or kind.proxy_error in PROXY_ERROR_TYPES


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every class stands in it, with its status and code where it has a line of its own."""
    drawing = inspect.getdoc(errors) or ""
    for kind in KINDS:
        assert re.search(rf"\b{kind.__name__}\b", drawing), kind.__name__
    lines = re.findall(r"── (\w+) +(\d{3}) (\w+)", drawing)
    assert lines
    for name, status, code in lines:
        kind = getattr(errors, name)
        assert (str(kind.status), kind.code) == (status, code)


def test_a_config_error_is_no_answer() -> None:
    """It never reaches HTTP, and its text is all of its problems."""
    error = ConfigError(["one.", "two."])
    assert isinstance(error, BearerProxyError)
    assert not isinstance(error, ProxyError)
    assert (str(error), error.problems) == ("one.\ntwo.", ["one.", "two."])


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.4, "1"), (1.0, "1"), (29.6, "30"), (3600.0, "3600")]
)
def test_108_retry_after_is_whole_seconds_and_at_least_one(seconds: float, header: str) -> None:
    """Zero would ask for a hammer."""
    assert CredentialUnavailable("x", retry_after=seconds).headers() == (("Retry-After", header),)


@pytest.mark.threat(25)
def test_fields_that_an_answer_must_have() -> None:
    """025: `Allow` on 405; a Basic challenge on 401, since git and pip ask for a password only then."""
    assert dict(MethodNotAllowed().headers())["Allow"].split(", ")[0] == "GET"
    assert not {"CONNECT", "TRACE"} & set(dict(MethodNotAllowed().headers())["Allow"].split(", "))
    assert dict(ClientKeyRequired().headers())["WWW-Authenticate"].startswith("Basic realm=")
    assert CredentialUnavailable("the reason").detail == "the reason"
    assert CredentialUnavailable().headers() == ()


def test_103_a_lost_connection_says_what_may_be_repeated() -> None:
    """Two facts, which the resend rule asks for."""
    error = UpstreamLost(untouched=True, silent=False)
    assert (error.untouched, error.silent, error.status) == (True, False, 502)
