"""Nothing on the proxy's listener is exempt from the guard: no path, no program, no field of a proxy in front."""

from typing import Final

import pytest

from tests.support.api import api
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed

#: Paths that other programs answer without asking who is there, and ways around an exact comparison with them.
PATHS: Final = (
    *("/healthz", "/readyz", "/metrics", "/health", "/ping", "/robots.txt", "/favicon.ico", "/.well-known/x"),
    *("//healthz", "/healthz/", "/healthz/../v1", "/healthz;/v1", "/healthz%2f..%2fv1", "/%68ealthz", "/HEALTHZ"),
    *("/healthz?x=/v1", "/v1?x=/healthz", "/api/credentials"),
)
#: Fields by which others let a request pass.
FIELDS: Final = (
    *(("User-Agent", "kube-probe/1.31"), ("User-Agent", "GoogleHC/1.0"), ("User-Agent", "ELB-HealthChecker/2.0")),
    *(("X-Forwarded-Uri", "/healthz"), ("X-Original-URL", "/healthz"), ("X-Rewrite-URL", "/healthz")),
    *(("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Forwarded", "for=127.0.0.1")),
    *(("X-Requested-With", "XMLHttpRequest"), ("Upgrade", "websocket"), ("X-HTTP-Method-Override", "OPTIONS")),
)


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that must not show."""
    return Keyed(canaries.mint("token"))


@pytest.mark.threat(12)
async def test_no_path_and_no_field_opens_without_the_client_key(
    proxying: StartProxy, canaries: Canaries, keyed: Keyed
) -> None:
    """Probes are answered on the admin listener; whoever has no key reaches nobody here."""
    asked: list[tuple[str, str, list[tuple[str, str]]]] = [("GET", path, []) for path in PATHS]
    asked += [("GET", "/v1", [field]) for field in FIELDS]
    asked += [("OPTIONS", "/v1", []), ("HEAD", "/healthz", [])]
    async with api() as upstream:
        config = keyed.config(upstream.url, top={"guard": {"client_key": {"env": "KEY"}}})
        async with proxying(config, environ={**keyed.environ, "KEY": canaries.mint("key")}) as proxy:
            answers = {(m, t, *h): (await proxy.ask(m, t, h)).status for m, t, h in asked}
        assert answers == dict.fromkeys(answers, 401)
        assert upstream.seen == []


@pytest.mark.threat(1, 12)
async def test_no_path_and_no_field_opens_under_a_foreign_name(proxying: StartProxy, keyed: Keyed) -> None:
    """Nor past the check of Host, which an orchestrator's probe of an address would not pass."""
    asked = [(path, ("Host", "evil.example")) for path in PATHS]
    asked += [("/v1", field) for field in FIELDS]
    async with api() as upstream:
        async with proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
            answers = [
                (await proxy.ask("GET", target, dict([("Host", "evil.example"), field]))).status
                for target, field in asked
            ]
        assert set(answers) == {403}
        assert upstream.seen == []
