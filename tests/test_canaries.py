"""Nothing of a running proxy shows a secret: not its objects, not its failures, not at DEBUG (threats 75, 77)."""

import asyncio
import gc
import logging
import warnings
from collections.abc import Iterable, Iterator
from types import CoroutineType
from typing import Any, Final

import pytest

from proxy.demo.double import Double
from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla import Vanilla
from proxy.grants.request import TokenReply, TokenRequest
from proxy.lifecycle import Token
from proxy.server import Instance
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Artefacts, Canaries, search
from tests.support.routes import Keyed
from tests.support.upstreams import REQUEST, Upstream
from tests.support.vendors import Vendor


def _type_of_steps() -> type:
    """Of what runs a coroutine from outside; it has no name in `types`."""
    coroutine = asyncio.sleep(0)
    kind = type(coroutine.__await__())
    coroutine.close()
    return kind


#: What leads from one object of the product to another; of a running function, its local variables.
BETWEEN: Final = (
    *(dict, list, tuple, set, frozenset, asyncio.Task, asyncio.Protocol, CoroutineType),
    _type_of_steps(),
)


def objects_of(root: object) -> Iterator[object]:
    """Every object of the product that `root` leads to, through containers of any kind and what is in progress."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        module = type(found).__module__
        if module.startswith("proxy.") and not module.startswith("proxy.demo"):
            yield found
        if module.startswith("proxy") or isinstance(found, BETWEEN):
            waiting.extend(gc.get_referents(found))


def representations(found: Iterable[object]) -> str:
    """What a debugger, a crash report or a log line with `%r` would show of these objects."""
    return "\n".join(f"{each!r} {each!s} {each}" for each in found)


@pytest.fixture
def vendors(
    tracker: Vendor[TeleTracker], brainer: Vendor[MainBrainer], forum: Vendor[Vanilla]
) -> dict[str, Vendor[Any]]:
    """All three, by name."""
    return {"tracker": tracker, "brainer": brainer, "forum": forum}


def long_form(vendors: dict[str, Vendor[Any]], key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """One configuration for all vendors, behind a client key."""
    config = {
        "routes": [
            {"name": name, "prefix": f"/{name}", "upstream": vendor.url, "credential": name}
            for name, vendor in vendors.items()
        ],
        "credentials": {name: dict(vendor.credential) for name, vendor in vendors.items()},
        "guard": {"client_key": {"env": "CLIENT_KEY"}},
    }
    environ = {"CLIENT_KEY": key}
    for vendor in vendors.values():
        environ |= vendor.environ
    return config, environ


async def use_everything(proxy: Proxy, vendors: dict[str, Vendor[Any]], key: str) -> None:
    """Good requests and bad ones, with refusals, refreshes and failures at every vendor."""
    double: Double[Any]
    carriers = [
        ("GET", "{path}", {"X-Proxy-Key": key}),
        ("GET", f"/~{key}{{path}}", {}),
        ("GET", "{path}?access_token=" + key, {"Authorization": f"Bearer {key}"}),
        ("GET", "{path}", {"Cookie": f"a=b; bearer_proxy_key={key}"}),
        ("GET", f"/~{key}x{{path}}", {}),
        ("GET", f"/~{key}/nowhere", {}),
        ("GET", "{path}", {"X-Proxy-Key": key, "Host": "evil.example"}),
        ("GET", "{path}", {"X-Proxy-Key": key, "Origin": "https://evil.example"}),
        ("TRACE", "{path}", {"X-Proxy-Key": key}),
        ("POST", "{path}", {"X-Proxy-Key": key, "Transfer-Encoding": "gzip, chunked"}),
    ]
    paths = {"tracker": "/tracker/calls", "brainer": "/brainer/customers", "forum": "/forum/api/v2/users/me"}
    for name, path in paths.items():
        double = vendors[name].double
        for method, target, headers in carriers:
            await proxy.ask(method, target.format(path=path), headers)
        double.expire()
        await proxy.ask("GET", path, {"X-Proxy-Key": key})
        double.set(token_endpoint="down")
        double.expire()
        await proxy.ask("GET", path, {"X-Proxy-Key": key})


@pytest.fixture
def sinks(canaries: Canaries, artefacts: Artefacts) -> tuple[Canaries, Artefacts]:
    """What is searched for, and where."""
    return canaries, artefacts


FORMATS = pytest.mark.parametrize("log_format", ["json", "text"])


@pytest.mark.threat(75)
@FORMATS
async def test_075_objects_log_and_answers_show_no_secret_at_debug(
    proxying: StartProxy,
    vendors: dict[str, Vendor[Any]],
    clock: HeldClock,
    sinks: tuple[Canaries, Artefacts],
    log_format: str,
) -> None:
    """Every vendor, every carrier of the client key, refusals, failures: the search at the test's end judges."""
    canaries, artefacts = sinks
    key = canaries.mint("key")
    config, environ = long_form(vendors, key)
    config["log"] = {"format": log_format}
    async with proxying(config, environ=environ, clock=clock) as proxy:
        await use_everything(proxy, vendors, key)
        shown = list(objects_of(proxy.instance))
        artefacts.add("representations", representations(shown))
        for path in ("/readyz", "/metrics", "/api/credentials"):
            await proxy.admin("GET", path)
    kinds = {type(each).__name__ for each in shown}
    assert kinds >= {"Config", "Credential", "Token", "Rendered", "Injection", "Secret", "LoginGrant", "Redactor"}


@pytest.mark.threat(77)
async def test_077_objects_in_the_middle_of_a_request_show_no_secret(
    proxying: StartProxy, sinks: tuple[Canaries, Artefacts]
) -> None:
    """Head, fields, body and token of a request that waits for its answer, the client key in every carrier."""
    canaries, artefacts = sinks
    keyed, key = Keyed(canaries.mint("token")), canaries.mint("key")
    config = keyed.config("", top={"guard": {"client_key": {"env": "KEY"}}})
    hello = b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: 0\r\n\r\n" % keyed.token.encode()
    async with Upstream([REQUEST, hello, REQUEST], [REQUEST]) as upstream:
        config["routes"][0]["upstream"] = str(upstream.origin)
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy, proxy.connect() as client:
            carriers = {"X-Proxy-Key": key, "Authorization": f"Bearer {key}", "Cookie": f"bearer_proxy_key={key}"}
            await client.ask("GET", f"/~{key}/x?a={key}", carriers)
            fields = "".join(f"{name}: {value}\r\n" for name, value in carriers.items())
            head = f"PUT /~{key}/x?a={key} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 999\r\n\r\n"
            client.send(head.encode() + key.encode())
            await upstream.until(lambda: upstream.peers[0].received.endswith(b"\r\n\r\n" + key.encode()))
            shown = list(objects_of(proxy.instance))
            artefacts.add("representations", representations(shown))
    kinds = {type(each).__name__ for each in shown}
    assert kinds >= {"ClientConnection", "RequestSection", "Visitor", "Request", "RequestBody", "ClientAnswer"}
    assert kinds >= {
        "Exchange",
        "Admission",
        "Passage",
        "Outgoing",
        "Attempt",
        "Answer",
        "Connection",
        "AnswerHead",
    }


@pytest.mark.leaks_on_purpose
async def test_a_planted_secret_in_a_representation_is_found(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, artefacts: Artefacts
) -> None:
    """The search above can fail: an object that shows a token is caught."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        [token] = [each for each in objects_of(proxy.instance) if type(each).__name__ == "Token"]
        assert isinstance(token, Token)
        artefacts.add("representations", repr(token).replace("***", token.value.reveal()))


@pytest.mark.leaks_on_purpose
async def test_a_planted_secret_in_the_log_is_found_where_it_is_not_masked(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The product's own stream is what is searched: past its handlers, a secret is seen."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        proxy.log.write(
            f'{{"event": "planted", "value": "{tracker.environ["TRACKER_PASSWORD"]}"}}\n'.replace("\\", "")
        )


@pytest.mark.threat(74)
@FORMATS
async def test_074_the_root_handler_masks_what_any_library_logs(
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    clock: HeldClock,
    sinks: tuple[Canaries, Artefacts],
    log_format: str,
) -> None:
    """A foreign logger, an exception with the secret in its text, a warning: all pass one handler."""
    canaries, artefacts = sinks
    password = tracker.environ["TRACKER_PASSWORD"]
    config = {**tracker.config, "log": {"format": log_format}}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        foreign = logging.getLogger("somebody.else")
        foreign.error("login with %s failed", password)
        foreign.debug("headers: %r", {"Authorization": f"Bearer {password}"})
        foreign.error("boom", exc_info=ValueError(password))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"weak password {password}", UserWarning, stacklevel=1)
        log = proxy.log.getvalue()
    assert log.count("***") >= 4
    assert not search(artefacts.collect(), canaries)


@pytest.mark.threat(74)
@FORMATS
async def test_074_what_only_looks_like_a_credential_is_masked_in_every_part_of_a_line(
    proxying: StartProxy, log_format: str
) -> None:
    """Message, named values and traceback: a token of somebody else, which nobody registered."""
    token = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
    text = f"Authorization: Bearer {token}"
    async with proxying({"upstream": "http://127.0.0.1:9", "log": {"format": log_format}}) as proxy:
        logging.getLogger("somebody.else").error(text)
        logging.getLogger("proxy").error("planted", extra={"fields": {"value": text}})
        logging.getLogger("somebody.else").error("boom", exc_info=ValueError(text))
        log = proxy.log.getvalue()
    assert log.count("Bearer ***") == 3
    assert token not in log


def test_instances_are_searched_from_their_root() -> None:
    """The walk over objects is no accident of one class."""
    assert list(objects_of({"a": [Instance.__new__(Instance)]}))


def test_077_requests_to_token_endpoints_and_their_replies_show_nothing(
    canaries: Canaries, artefacts: Artefacts
) -> None:
    """Both hold secrets in headers, URL and body."""
    secret = canaries.mint("token")
    request = TokenRequest("POST", f"https://id.example/?a={secret}", (("X-Key", secret),), secret.encode())
    reply = TokenReply(200, (("X-Token", secret),), secret.encode())
    artefacts.add("representations", representations([request, reply]))
    assert (repr(request), repr(reply)) == ("<TokenRequest POST>", "<TokenReply 200>")
