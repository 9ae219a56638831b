"""Logs in where that takes a person: by an authorization code, or by a code for a device.

Law: nothing that a person is told holds a token, a code that is redeemed, or a verifier.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from proxy.clock import Clock
from proxy.credentials.callback import Callback, listening
from proxy.credentials.discovery import Endpoints
from proxy.credentials.oauth2 import OAuthGrant
from proxy.errors import BearerProxyError, CredentialUnavailable
from proxy.grants.authorization import (
    Attempt,
    Fault,
    InvalidCallback,
    attempt,
    authorization_url,
    read_callback,
    redirect_uri,
)
from proxy.grants.device import DeviceCodes, InvalidDeviceReply, Polling, Said, answered, read_codes
from proxy.grants.login import Value
from proxy.grants.oauth2 import revealed
from proxy.grants.reply import RejectedReply
from proxy.grants.request import Granted
from proxy.redact import Secret
from proxy.stores.base import Record, Store

#: A person who has not come back by then has gone for something else (threat 110).
WAIT_SECONDS: Final = 300.0


class LoginFailed(BearerProxyError):  # noqa: N818  the name says what happened, as in errors.py
    """There is no token; the message says why, and what to do."""


class Person(Protocol):
    """Who logs in."""

    @property
    def has_browser(self) -> bool:
        """Can a browser be opened here?"""
        ...

    @property
    def can_paste(self) -> bool:
        """Can the person type something here?"""
        ...

    def tell(self, text: str) -> None:
        """Say something."""
        ...

    def open(self, url: str) -> None:
        """Show a page in the browser."""
        ...

    async def paste(self) -> str | None:
        """The next line that the person types, None where there will be none."""
        ...


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """What a login gave, and when the request for it was sent, in epoch seconds."""

    granted: Granted
    at: float

    def record(self, generation: int) -> Record:
        """The same as it rests."""
        granted, at = self.granted, self.at
        return Record(
            generation,
            granted.token,
            at,
            None if granted.lifetime is None else at + granted.lifetime,
            granted.refresh_token,
            None if granted.refresh_lifetime is None else at + granted.refresh_lifetime,
        )


@dataclass(frozen=True, slots=True)
class Login:
    """One login of credential `name`. `random` gives unguessable bytes; `register` masks what nobody may see.

    `port` and `path` are where the browser comes back to, as the server has them registered.
    """

    name: str
    grant: OAuthGrant
    endpoints: Endpoints
    person: Person
    clock: Clock
    random: Callable[[int], bytes]
    register: Callable[[Iterable[Secret]], None]
    port: int = 0
    path: str = "/callback"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    wait: float = WAIT_SECONDS

    async def run(self) -> LoggedIn:
        """The grant that is configured, once. Raises `LoginFailed`, `CredentialUnavailable`, `CallbackError`."""
        try:
            if self.grant.description.grant == "device_code":
                return await self._by_device()
            return await self._by_code()
        except RejectedReply as error:
            words = _in_its_words(dict(error.said))
            raise LoginFailed(f"Credential {self.name!r}: {error}{words} {self._again}") from None
        except (InvalidCallback, InvalidDeviceReply) as error:
            raise LoginFailed(f"Credential {self.name!r}: {error} {self._again}") from None

    @property
    def _again(self) -> str:
        return f"Run `bearer-proxy login {self.name}` again."

    # -- the authorization code

    async def _by_code(self) -> LoggedIn:
        if not self.person.has_browser and not self.person.can_paste:
            raise LoginFailed(
                f"Credential {self.name!r} needs a browser, and there is neither one nor a terminal here: "
                f"run `bearer-proxy login {self.name} --no-browser` in a terminal."
            )
        page = await self.endpoints.url("authorization_endpoint")
        issuer, promised = await self.endpoints.issuer()
        made = attempt(self.random)
        self.register([made.verifier])

        def read(query: str) -> Secret:
            return read_callback(query, made, issuer=issuer, promised=promised)

        async with listening(self.path, read, port=self.port) as callback:
            back = redirect_uri(callback.port, self.path)
            self._send_to(authorization_url(page, self._parameters(made, back)))
            code = await self._code(callback, back, read)
        self.register([code])
        at = self.clock.wall()
        redeeming: dict[str, Value] = {"code": code, "redirect_uri": back, "code_verifier": made.verifier}
        return LoggedIn(await self.grant.begin(redeeming, "login"), at)

    def _parameters(self, made: Attempt, back: str) -> dict[str, str | None]:
        """RFC 6749 section 4.1.1, RFC 7636 section 4.3."""
        return {
            "response_type": "code",
            "client_id": revealed(self.grant.description.client.client_id),
            "redirect_uri": back,
            **self._wishes(),
            **made.parameters(),
        }

    def _wishes(self) -> dict[str, str | None]:
        """Scope, audience and resource: what the person is asked to agree to."""
        return {name: None if each is None else str(each) for name, each in self.grant.description.common.items()}

    def _send_to(self, url: str) -> None:
        person = self.person
        person.tell(f"To log in for credential {self.name!r}, open this page within {self.wait / 60:.0f} minutes:")
        person.tell(f"\n  {url}\n")
        if person.can_paste:
            person.tell(
                "If the browser is on another machine, its last page will not load: paste its address here."
            )
        if person.has_browser:
            person.open(url)

    async def _code(self, callback: Callback, back: str, read: Callable[[str], Secret]) -> Secret:
        """From the browser or from the keyboard, whichever comes first."""
        ways = [asyncio.create_task(callback.wait())]
        if self.person.can_paste:
            ways.append(asyncio.create_task(self._pasted(back, read)))
        try:
            done, _ = await asyncio.wait(ways, timeout=self.wait, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done.pop().result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        came = f" ({callback.foreign} that came were not for this login)" if callback.foreign else ""
        raise LoginFailed(
            f"Credential {self.name!r}: no answer came within {self.wait / 60:.0f} minutes{came}. {self._again}"
        )

    async def _pasted(self, back: str, read: Callable[[str], Secret]) -> Secret:
        while (line := await self.person.paste()) is not None:
            text = line.strip()
            if not text:
                continue
            try:
                if text.partition("?")[0] != back:
                    raise InvalidCallback(Fault.FOREIGN)  # noqa: TRY301  the same sentence for both
                return read(urlsplit(text).query)
            except (InvalidCallback, ValueError) as error:
                if isinstance(error, InvalidCallback) and error.fault is not Fault.FOREIGN:
                    raise
                self.person.tell(
                    f"That is not the address: it begins with {back}?, and is of this login. Once more:"
                )
        if self.person.has_browser:
            await asyncio.Event().wait()  # until the browser comes, or the time is over
        raise LoginFailed(f"Credential {self.name!r}: no address was pasted. {self._again}")

    # -- the code for a device

    async def _by_device(self) -> LoggedIn:
        url = await self.endpoints.url("device_authorization_endpoint")
        codes = read_codes(await self.grant.call(url, self._wishes(), "code for a device"))
        ends_at = self.clock.now() + codes.lifetime
        self.register([codes.device_code])
        self._show(codes)
        polling = Polling(codes.interval)
        while self.clock.now() + polling.pause < ends_at:
            await self.sleep(polling.pause)
            at = self.clock.wall()
            try:
                reply = await self.grant.question({"device_code": codes.device_code}, "login")
            except CredentialUnavailable:
                polling = polling.failed()
                continue
            said, word, polling = answered(polling, reply, self.clock.wall())
            if said is Said.GRANTED:
                return LoggedIn(self.grant.granted(reply, "login"), at)
            if said is not Said.WAIT:
                sentence = f"{said.value}{word}." if said is Said.REFUSED else said.value
                words = _in_its_words(self.grant.error_of(reply).fields)
                raise LoginFailed(f"Credential {self.name!r}: {sentence}{words} {self._again}")
        raise LoginFailed(f"Credential {self.name!r}: {Said.EXPIRED.value} {self._again}")

    def _show(self, codes: DeviceCodes) -> None:
        person, minutes = self.person, codes.lifetime / 60
        person.tell(
            f"To log in for credential {self.name!r}, open this page on any device, within {minutes:.0f} min:"
        )
        person.tell(f"\n  {codes.page}\n\nand enter this code:\n\n  {codes.user_code}\n")
        if codes.page_with_code is not None:
            person.tell(f"This page has the code filled in; compare it: {codes.page_with_code}")
        if person.has_browser:
            person.open(codes.page_with_code or codes.page)


def _in_its_words(said: Mapping[str, str]) -> str:
    """What the server says of an error, masked already (`error_of`)."""
    description = said.get("oauth_error_description")
    return f' The server says: "{description}"' if description else ""


async def keep(store: Store, name: str, binding: bytes, login: LoggedIn) -> Record:
    """Put what a login gave in place of what is stored, as the next generation. Raises `StoreUnavailable`."""
    async with store.turn(name):
        before = await store.load(name, binding)
        record = login.record((before.generation if isinstance(before, Record) else 0) + 1)
        await store.save(name, binding, record)
        return record
