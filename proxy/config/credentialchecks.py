"""The refusals that need more than one key of credentials: who uses them, whom they stand on, where tokens fit.

Law: as in `checks.py`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from proxy.config.anycredential import AskingCredential
from proxy.config.clienttls import ClientTLS
from proxy.config.credentials import LoginCredential, StaticCredential
from proxy.config.draft import Draft
from proxy.config.fields import SECRET_NAME
from proxy.config.model import borrowed_in, owner_of, secrets_in
from proxy.config.oauth import OAuthCredential
from proxy.config.problems import KeyPath, Problems, did_you_mean
from proxy.config.provided import FileCredential
from proxy.config.selfsigned import JWTCredential
from proxy.literals import SHORTEST
from proxy.redact import Borrowed
from proxy.routes import Origin

#: RFC 6265 section 4.1.1.
_COOKIE_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*")


def _credential_uses(draft: Draft, problems: Problems) -> None:
    for index, wanted in draft.wanted.items():
        if wanted not in draft.names:
            hint = did_you_mean(wanted, draft.names) or ": add it to credentials, or correct the name"
            problems.add(("routes", index, "credential"), f"there is no credential of this name{hint}")
    used = {route.credential for route in draft.routes.values()}
    lent = {each.lender for credential in draft.credentials.values() for each in borrowed_in(credential)}
    for name in draft.credentials:
        if name not in used | lent:
            problems.warn(("credentials", name), "no route uses this credential")
    bound: dict[str, Origin] = {}
    for index, route in draft.routes.items():
        credential, origin = draft.credentials.get(route.credential or ""), route.upstream_origin
        if credential is None or origin in credential.origins:
            continue
        # One that lends its whole token is the same credential in another place.
        owner = owner_of(draft.credentials, route.credential or "")
        if origin not in draft.credentials[owner].origins and bound.setdefault(owner, origin) != origin:
            sentence = f"its credential is bound to another origin: add this one to the origins of {owner}"
            problems.add(("routes", index, "upstream"), sentence)


def _borrowing(draft: Draft, problems: Problems) -> None:
    """Credentials that stand on others: those are there, and none stands on itself in the end."""
    for name, credential in draft.credentials.items():
        for path, source in secrets_in(credential, ("credentials", name)):
            if not isinstance(source.value, Borrowed):
                continue
            lender = source.value.lender
            if lender not in draft.names:
                hint = did_you_mean(lender, draft.names) or ": add it to credentials, or correct the name"
                problems.add(path, f"there is no credential of this name{hint}")
            elif name in _stood_on(draft, lender, set()):
                problems.add(path, "this credential stands on itself in the end: get one of them from elsewhere")
    others = {"routes": dict(draft.routes), "guard": draft.guard, "admin": draft.admin, "store": draft.store}
    for path, source in secrets_in(others):
        if isinstance(source.value, Borrowed):
            problems.add(path, "only a credential may stand on another one: write another reference to a secret")


def _stood_on(draft: Draft, name: str, seen: set[str]) -> set[str]:
    """`name`, and every credential that it stands on."""
    if name not in seen and name in draft.credentials:
        seen.add(name)
        for each in borrowed_in(draft.credentials[name]):
            _stood_on(draft, each.lender, seen)
    return seen


def _placing(draft: Draft, problems: Problems) -> None:
    for name, credential in draft.credentials.items():
        path: KeyPath = ("credentials", name)
        placed = {each.name.lower() for each in credential.place if each.kind == "header"}
        for header in credential.headers:
            if header.lower() in placed:
                problems.add((*path, "headers", header), "the token itself goes into this header: remove it here")
            elif SECRET_NAME.search(header) and draft.literals_refused:
                sentence = (
                    "this looks like a secret, and constants are shown: make it the token of a credential with "
                    "place, or let only this file's owner read it (mode 0600)"
                )
                problems.add((*path, "headers", header), sentence)
        in_cookie = any(each.kind == "cookie" for each in credential.place)
        if not in_cookie or not isinstance(credential, StaticCredential):
            continue
        if not _COOKIE_VALUE.fullmatch(credential.token.value.reveal()):  # empty where it is borrowed
            sentence = "this token holds characters that no cookie may hold: place it in a header"
            problems.add((*path, "token"), sentence)


def _login_steps(draft: Draft, problems: Problems) -> None:
    for name, credential in draft.credentials.items():
        if not isinstance(credential, LoginCredential):
            continue
        path: KeyPath = ("credentials", name)
        for substitute in ("$access_token", "$refresh_token"):
            if credential.login.uses(substitute):
                problems.add(
                    (*path, "login"), f"the first step has no {substitute} yet: write a reference to a secret"
                )
        refresh = credential.refresh
        if refresh and not refresh.uses("$access_token") and credential.response.refresh_token is None:
            sentence = "a refresh needs response.refresh_token: say where it stands in the reply, or remove refresh"
            problems.add((*path, "refresh"), sentence)


def _file_modes(draft: Draft, problems: Problems) -> None:
    for path, tls in _client_tls(draft):
        if tls.key_warning is not None:
            problems.warn((*path, "key" if tls.key else "cert"), tls.key_warning)
    for name, credential in draft.credentials.items():
        if isinstance(credential, FileCredential) and credential.warning is not None:
            problems.warn(("credentials", name, "path"), credential.warning)


def _client_tls(draft: Draft) -> Iterator[tuple[KeyPath, ClientTLS]]:
    for index, route in draft.routes.items():
        yield ("routes", index, "tls"), route.tls
    for name, credential in draft.credentials.items():
        if isinstance(credential, AskingCredential):
            yield ("credentials", name, "tls"), credential.tls
    if draft.store is not None:
        yield ("store", "tls"), draft.store.tls


def _spent_refresh_tokens(draft: Draft, problems: Problems) -> None:
    for name, credential in draft.credentials.items():
        is_brought = isinstance(credential, OAuthCredential) and credential.refresh_token is not None
        if is_brought and draft.store is not None and draft.store.kind == "memory":
            sentence = (
                "a server that rotates takes it once: set store.kind: file, or the next start may find it spent"
            )
            problems.warn(("credentials", name, "refresh_token"), sentence)


def _weak_keys(draft: Draft, problems: Problems) -> None:
    for name, credential in draft.credentials.items():
        if not isinstance(credential, JWTCredential) or not credential.algorithm.startswith("HS"):
            continue
        least = int(credential.algorithm[2:]) // 8
        if len(credential.key.value) < least:
            sentence = f"{credential.algorithm} wants a key of at least {least} bytes (RFC 7518 section 3.2)"
            problems.warn(("credentials", name, "key"), sentence)


def _short_secrets(draft: Draft, problems: Problems) -> None:
    parts = {
        "routes": dict(draft.routes),
        "credentials": dict(draft.credentials),
        "guard": draft.guard,
        "admin": draft.admin,
        "store": draft.store,
    }
    for path, source in secrets_in(parts):
        if source.warning:
            problems.warn(path, source.warning)
        # References under other names, a user name say, are no secrets.
        is_short = len(source.value) < SHORTEST and not isinstance(source.value, Borrowed)
        if is_short and SECRET_NAME.search(str(path[-1])):
            sentence = (
                f"this secret is shorter than {SHORTEST} characters: it is masked by field, not wherever it stands"
            )
            problems.warn(path, sentence)


CREDENTIAL_CHECKS: Final[tuple[Callable[[Draft, Problems], None], ...]] = (
    _credential_uses,
    _borrowing,
    _file_modes,
    _placing,
    _login_steps,
    _spent_refresh_tokens,
    _weak_keys,
    _short_secrets,
)
