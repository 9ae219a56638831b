"""The config reader: any text is a configuration or a list of sentences, and no sentence holds a secret.

An input is the text; `SECRET` in it stands for one.
"""

import hashlib
from contextlib import suppress
from typing import Any, Final, NoReturn
from unittest import mock

import yaml

from proxy.config import Config, Source, load, secrets
from proxy.config.sources import QUICK
from proxy.errors import ConfigError
from tests.support.leaks import FRAGMENT

WORDS: Final = (
    *(b"listen: ", b"upstream: https://a.example", b"routes:", b"- prefix: /a", b"credential:"),
    *(b"credentials:", b"type: static", b"type: login", b"type: oauth2", b"type: exec", b"type: file"),
    *(b"type: jwt", b"type: metadata", b"preset: ", b"token: SECRET", b"password: SECRET"),
    *(b"client_secret: SECRET", b"SECRET", b"{env: T}", b"{file: x}", b"{command: [x]}", b"{json: /a, env: J}"),
    *(b"guard:", b"client_key: ", b"admin:", b"store:", b"kind: file", b"kind: redis", b"log:", b"limits:"),
    *(b"timeouts:", b"tls:", b"allow:", b"deny:", b"inject:", b"retry:", b"headers:", b"host:", b"pool:"),
    *(b"\n  ", b"\n    ", b"\n", b": ", b"- ", b"{", b"}", b"[", b"]", b'"', b"'", b"&a ", b"*a", b"!!binary "),
    *(b"<<: ", b"? ", b"| ", b"> ", b"---", b"\\x", b"#", b"login:", b"url: https://a.example/login"),
    *(b"fields:", b"response:", b"/token", b"seconds", b"via: http://", b"http+unix:///run/a.sock"),
    *(b"127.0.0.1:0", b".inf", b"1e99", b"null", b"true", b"-1"),
)
ENVIRON: Final = {"T": "a-token-of-twenty-ch", "J": '{"a": "b"}', "PATH": "/nowhere"}
#: What stands right behind one of these is a secret, whatever the rest of the text is.
SECRET_KEYS: Final = frozenset({"token", "password", "client_secret", "client_key", "refresh_token"})
MARK: Final = "SECRET"


def check(data: bytes) -> None:
    """Raise AssertionError where a sentence holds a secret, and whatever `load` raises that is not listed."""
    secret = "Zq" + hashlib.sha256(data).hexdigest()
    text = data.decode("utf-8", "surrogateescape").replace(MARK, secret)
    source = Source(text, "fuzz.yaml", None, QUICK)
    # No program runs, and no keyring is asked, whatever the text says.
    with mock.patch.object(secrets, "output", _refuse), mock.patch.object(secrets, "_keyring", _refuse):
        try:
            found = load(source, environ=ENVIRON)
        except ConfigError as error:
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None, "the error of the parser hangs on"
            sentences = error.problems
            assert sentences, "no sentence"
            assert all(each.startswith("fuzz.yaml:") for each in sentences)
            assert str(error).isprintable() or "\n" in str(error)
        else:
            assert isinstance(found, Config)
            sentences = list(found.warnings)
            # What of it is shown to people who look for mistakes.
            sentences.append(repr(found))
    if secret in text and _is_secret(text, secret):
        pieces = {secret[at : at + FRAGMENT] for at in range(len(secret) - FRAGMENT + 1)}
        assert not any(piece in sentence for piece in pieces for sentence in sentences), (
            "a sentence holds the secret"
        )


def _refuse(*_: object) -> NoReturn:
    raise ValueError("nothing is asked here")


def _is_secret(text: str, secret: str) -> bool:
    """Is nothing in it meant to be shown? So where it is no YAML, or where the secret stands as one."""
    document: Any = None
    with suppress(yaml.YAMLError, RecursionError, ValueError):
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  of all loaders this one makes the least
        return _stands_as_one(document, secret)
    return True


def _stands_as_one(node: object, secret: str) -> bool:
    if isinstance(node, dict):
        return all(
            secret not in str(key)
            and ((key in SECRET_KEYS and isinstance(value, str)) or _stands_as_one(value, secret))
            for key, value in node.items()
        )
    if isinstance(node, list):
        return all(_stands_as_one(each, secret) for each in node)
    return secret not in str(node)
