"""Makes a copy of a configuration: all as it is there, but every secret is a canary, and every far end is ours.

Law: the configuration was loaded unread (`config/unread.py`), so no secret of the user is here to be copied. What
is not as in the original is a note, never silent.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from proxy.config import (
    Config,
    CredentialConfig,
    ExecCredential,
    FileCredential,
    GitHubAppCredential,
    JWTCredential,
    LoginCredential,
    MetadataCredential,
    OAuthCredential,
    SecretSource,
    StaticCredential,
    UnixAddress,
)
from proxy.config.effective import plain
from proxy.config.fields import SECRET_NAME
from proxy.config.problems import KeyPath
from proxy.config.yamltext import dump
from proxy.leaktest.mint import LIFETIME, Mint
from proxy.leaktest.replies import token_of

#: At most, in seconds, so that a far end that hangs does not take minutes.
TIMEOUTS: Final = {"token": 1.0, "connect": 1.0, "first_byte": 0.5, "idle": 0.5}
LIMITS: Final = {"header_time": 0.5, "idle": 2.0, "drain": 1.0}
#: Prints what stands in a file, on both streams, and keeps what it was given, for the search.
_PROGRAM: Final = """\
import json, os, sys
play = json.load(open(sys.argv[1]))
with open(sys.argv[1][:-4] + "given", "a") as given:
    given.write(json.dumps([sys.argv, dict(os.environ)]) + chr(10))
sys.stdin.read()
sys.stderr.write(play["stderr"])
sys.stdout.write(play["stdout"])
sys.exit(play["status"])
"""


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the far ends of the copy listen: one a route, one a credential that asks, and the outbound proxy."""

    routes: Mapping[str, str]
    credentials: Mapping[str, str]
    via: str


@dataclass
class Copy:
    """A copy in `folder`: its text, its variables, and what in it differs from the original besides secrets."""

    config: Config
    folder: Path
    mint: Mint
    origins: Origins
    environ: dict[str, str] = field(default_factory=dict, repr=False)
    notes: list[str] = field(default_factory=list)
    #: The client keys by name, in the order of the configuration.
    keys: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def given(self) -> Path:
        """The folder of what it reads: secrets as files. It is not searched."""
        return self.folder / "given"

    def written(self, style: str) -> dict[str, Any]:
        """The configuration as data, with its log in `style`."""
        self.given.mkdir(mode=0o700)
        data = plain(self.config, self._secret)
        data["listen"] = ["127.0.0.1:0", *self._sockets()]
        data["admin"]["listen"] = "127.0.0.1:0"
        data["log"] = {"level": "debug", "format": style, "access": True}
        data["limits"] |= {name: min(data["limits"][name], most) for name, most in LIMITS.items()}
        if isinstance(data["guard"]["peers"]["uids"], list):
            data["guard"]["peers"]["uids"] = ["self"]
        data["store"] = self._store(data["store"])
        if self.config.tracing.otlp is not None:
            data["tracing"]["otlp"] = None
            self._note("tracing: is off, so that no collector hears of made-up requests")
        for route in data["routes"]:
            self._route(route)
        for name, given in self.config.credentials.items():
            self._credential(name, given, data["credentials"][name])
        return data

    def text(self, data: Mapping[str, Any]) -> str:
        """The same as the file that the copy reads."""
        return dump(data)

    # -- secrets

    def _secret(self, path: KeyPath, source: SecretSource) -> object:
        """A canary in the place of a secret, by a reference of the same kind where there is one."""
        if source.kind == "credential":
            return source.describe()
        if path == ("store", "password"):
            return None  # there is no server to show it to
        label = ".".join(map(str, path))
        value = self._value(label, path)
        if path[0] == "guard":
            self.keys[str(path[2]) if "client_keys" in path else "default"] = value
        if source.kind == "literal":
            return value
        if source.kind == "env":
            variable = f"LEAKTEST_{len(self.environ)}"
            self.environ[variable] = value
            return {"env": variable}
        if source.kind == "keyring":
            self.notes.append(f"{label}: comes from a file instead of the keyring")
        file = self._file(label, value)
        if source.kind == "systemd":
            self.environ["CREDENTIALS_DIRECTORY"] = str(self.given)
            return {"systemd": file.name}
        return {"command": ["cat", str(file)]} if source.kind == "command" else {"file": str(file)}

    def _value(self, label: str, path: KeyPath) -> str:
        """Of a shape that its place takes."""
        if path[:2] == ("store", "key"):
            return self.mint.store_key(label)
        if path[0] in ("guard", "admin"):
            return self.mint.secret(label)
        given = self.config.credentials.get(str(path[1])) if path[0] == "credentials" else None
        if path[-1] == "key" and isinstance(given, JWTCredential | OAuthCredential | GitHubAppCredential):
            algorithm = "RS256" if isinstance(given, GitHubAppCredential) else given.algorithm
            return (
                self.mint.secret(label, "key") * 2
                if algorithm.startswith("HS")
                else self.mint.private_key(label, algorithm)
            )
        if isinstance(given, StaticCredential):
            forms = {"jwt": self.mint.jwt, "vanilla": self.mint.vanilla}
            return forms.get(given.expires or "", self.mint.secret)(label)
        # A header takes no awkward characters at its ends, and some servers' ids none at all.
        is_password = "pass" in str(path[-1]).lower() or path[-1] == "client_secret" or "env" in path
        return self.mint.secret(label, "password" if is_password else "token")

    def _file(self, name: str, text: str) -> Path:
        path = self.given / f"{len(list(self.given.iterdir()))}-{''.join(c if c.isalnum() else '-' for c in name)}"
        path.touch(0o600)
        path.write_text(text, "utf-8")
        return path

    # -- sections

    def _sockets(self) -> list[str]:
        sockets = [each for each in self.config.listen if isinstance(each, UnixAddress)]
        return [f"unix:{self.folder / f'{number}.sock'}" for number in range(len(sockets))]

    def _store(self, store: Mapping[str, Any]) -> Mapping[str, Any]:
        if store["kind"] == "memory":
            return store
        if store["kind"] == "redis":
            self.notes.append("store: is a folder instead of a server")
        return {"kind": "file", "path": str(self.folder / "store"), "key": store["key"]}

    def _route(self, route: dict[str, Any]) -> None:
        given = next(each for each in self.config.routes if each.name == route["name"])
        origin = self.origins.routes[given.name]
        path = given.base_path
        route["upstream"] = f"{origin}:{path}" if path and origin.startswith("http+unix") else origin + path
        # To loopback, in plain HTTP; through an outbound proxy that counts as exposed.
        route["tls"], route["insecure_http"] = {}, True
        if given.upstream_origin.scheme == "https":
            self._note("the way to upstreams and token endpoints is plain HTTP: TLS is not part of this test")
        if given.via is not None:
            route["via"]["url"] = self.origins.via
        route["timeouts"] = {name: min(value, TIMEOUTS[name]) for name, value in route["timeouts"].items()}
        self._constants(f"routes.{given.name}.headers.set", route["headers"]["set"])

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _constants(self, label: str, headers: dict[str, Any]) -> None:
        """Header constants are no secrets by rule, but a private file may hold what looks like one."""
        for name in headers:
            if SECRET_NAME.search(name):
                headers[name] = self.mint.secret(f"{label}.{name}")

    # -- credentials

    def _credential(self, name: str, given: CredentialConfig, data: dict[str, Any]) -> None:
        data["origins"] = sorted(set(self.origins.routes.values()))
        self._constants(f"credentials.{name}.headers", data["headers"])
        if "tls" in data:
            data["tls"], data["insecure_http"] = {}, False
        base = f"{self.origins.credentials.get(name, '')}/{name}"
        if isinstance(given, LoginCredential):
            for path in given.steps():
                step: Any = data
                for key in path:
                    step = step[key]
                step["url"] = f"{base}/{'-'.join(map(str, path))}"
        elif isinstance(given, OAuthCredential):
            self._oauth2(name, given, data, base)
        elif isinstance(given, MetadataCredential):
            data["endpoint"] = base
        elif isinstance(given, GitHubAppCredential):
            data["base_url"] = base
        elif isinstance(given, FileCredential):
            data["path"] = str(self.token_file(name))
            self.put_token(name, self.mint.secret(token_of(name)))
        elif isinstance(given, ExecCredential):
            self._exec(name, given, data)

    def _oauth2(self, name: str, given: OAuthCredential, data: dict[str, Any], base: str) -> None:
        for key in ("token", "authorization", "device", "revocation"):
            if data[f"{key}_url"] is not None:
                data[f"{key}_url"] = f"{base}/{key}"
        if given.issuer is not None:
            data["issuer"] = base
        if given.client_auth == "tls":
            data["client_auth"] = "none"
            self.notes.append(f"credentials.{name}: shows no client certificate")
        if given.interactive:
            # Nobody is there to log in; what a login leaves behind is a refresh token.
            data["grant"] = "refresh_token"
            data["refresh_token"] = self.mint.secret(f"credentials.{name}, its refresh token")
            self.notes.append(f"credentials.{name}: begins with a refresh token instead of a person's login")

    def _exec(self, name: str, given: ExecCredential, data: dict[str, Any]) -> None:
        data["command"] = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(self.program(name))]
        if given.stdin:
            data["stdin"] = self.mint.secret(f"credentials.{name}.stdin")
        self.put_program(name)

    def token_file(self, name: str) -> Path:
        """The file that a credential of type `file` reads."""
        return self.given / f"{name}.token"

    def put_token(self, name: str, text: str) -> None:
        """Write it, for its owner alone."""
        self.token_file(name).touch(0o600)
        self.token_file(name).write_text(text, "utf-8")

    def program(self, name: str) -> Path:
        """What the program of a credential of type `exec` is to print, and beside it what it was given."""
        return self.given / f"{name}.program.json"

    def put_program(self, name: str, *, stdout: str | None = None, status: int = 0) -> None:
        """From now on it prints this, or a proper token; always with a secret on standard error."""
        given = self.config.credentials[name]
        form = given.format if isinstance(given, ExecCredential) else "auto"
        play = {
            "stdout": self._printed(form, self.mint.secret(token_of(name))) if stdout is None else stdout,
            "stderr": self.mint.secret(f"credentials.{name}, what its program writes on standard error"),
            "status": status,
        }
        path = self.program(name)
        path.touch(0o600)
        path.write_text(json.dumps(play), "utf-8")

    def _printed(self, form: str, token: str) -> str:
        end = self.mint.wall() + LIFETIME
        until = datetime.fromtimestamp(end, UTC).isoformat()
        forms = {
            "docker": json.dumps({"Username": "leaktest", "Secret": token}),
            "git": f"username=leaktest\npassword={token}\n",
            "azure": json.dumps({"accessToken": token, "expires_on": int(end)}),
            "exec_credential": json.dumps(
                {"kind": "ExecCredential", "status": {"token": token, "expirationTimestamp": until}}
            ),
        }
        return forms.get(form, f"{token}\n")
