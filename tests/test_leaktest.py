"""`bearer-proxy leaktest`: nothing comes out of a sound proxy, and what comes out of another one is caught."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from proxy.config import Config, Source, find, load
from proxy.config.unread import UnreadSecrets
from proxy.errors import ConfigError
from proxy.findings import Finding
from proxy.leaktest import acts, attempts, faults, process, run
from proxy.leaktest.asking import own
from proxy.leaktest.evidence import Evidence
from proxy.leaktest.leaks import Artefact, search
from proxy.leaktest.mint import Mint
from proxy.leaktest.run import tried
from tests.support.leaks import Artefacts
from tests.support.longer import TIMES
from tests.support.threats import carriers

ROOT: Final = Path(__file__).parent.parent
#: A reference that cannot be read: nobody may try.
NOT_THERE: Final = {"env": "NOT_THERE"}
ARTEFACTS: Final = {
    "run file",
    "answers to clients",
    "answers of the admin listener",
    "commands",
    "log as text",
    "log as json",
    "standard output",
    "command line",
    "files that it keeps",
}
PROGRAMS: Final = "what programs are given"

#: A credential of every type and every way to say where a secret is, in a store of files, behind client keys.
CREDENTIALS: Final[dict[str, dict[str, Any]]] = {
    "fixed": {"type": "static", "token": {"command": ["not-there"]}, "headers": {"X-Api-Key": "literal"}},
    "jwt-fixed": {"type": "static", "token": {"systemd": "token"}, "expires": "jwt", "place": {"cookie": "t"}},
    "lent": {"type": "static", "token": {"credential": "login"}, "place": {"query": "access_token"}},
    "login": {
        "type": "login",
        "login": {
            "url": "https://id.example.com/login",
            "encoding": "json",
            "fields": {"user": "ann", "password": NOT_THERE},
            "accept": [201],
        },
        "refresh": {"url": "https://id.example.com/refresh", "fields": {"refresh_token": "$refresh_token"}},
        "then": [{"url": "https://id.example.com/act", "headers": {"X-Private-Token": NOT_THERE}}],
        "response": {
            "token": "/data/0/token",
            "refresh_token": "header:X-Refresh",
            "lifetime": "/data/minutes",
            "lifetime_unit": "minutes",
            "success": {"/ok": True},
        },
    },
    "text-login": {
        "type": "login",
        "login": {"url": "https://id.example.com/login", "encoding": "query", "fields": {"key": "literal"}},
        "response": {"token": "text", "expires": "jwt"},
    },
    "client": {
        "type": "oauth2",
        "grant": "client_credentials",
        "issuer": "https://id.example.com",
        "client_id": NOT_THERE,
        "client_secret": {"keyring": "service/user"},
    },
    "signed": {
        "type": "oauth2",
        "grant": "jwt_bearer",
        "token_url": "https://id.example.com/token",
        "client_id": "tool",
        "client_auth": "private_key_jwt",
        "algorithm": "EdDSA",
        "key": {"file": "not-there.json", "json": "/private_key"},
    },
    "person": {
        "type": "oauth2",
        "grant": "device_code",
        "issuer": "https://id.example.com",
        "client_id": "tool",
        "client_secret": "literal",
        "client_auth": "post",
    },
    "file": {"type": "file", "path": "not-there"},
    "program": {
        "type": "exec",
        "command": ["not-there", "secret"],
        "stdin": "secret",
        "env": {"API_PASSWORD": NOT_THERE},
        "format": "exec_credential",
    },
    "gcp": {"type": "metadata", "cloud": "gcp", "audience": "https://api.example.com"},
    "azure": {
        "type": "metadata",
        "cloud": "azure",
        "resource": "https://management.example.com/",
        "endpoint": "http://127.0.0.1:9/msi",
        "identity_header": NOT_THERE,
    },
    "app": {"type": "github_app", "app_id": 1, "installation_id": 2, "key": NOT_THERE},
    "own": {"type": "jwt", "key": NOT_THERE, "algorithm": "ES256"},
    "shared": {"type": "jwt", "key": NOT_THERE, "algorithm": "HS256"},
}
ROUTE: Final = {"prefix": "/none", "upstream": "https://api.example.com/v2", "allow": [{"paths": ["/v2/a/*"]}]}
EVERYTHING: Final[dict[str, Any]] = {
    "listen": ["127.0.0.1:8080", "unix:/run/nobody.sock"],
    "routes": [
        ROUTE,
        {"prefix": "/local", "upstream": "http+unix:///run/not-there.sock:/v1", "strip_prefix": False},
        *(
            {"prefix": f"/{name}", "upstream": "https://api.example.com", "credential": name}
            for name in CREDENTIALS
        ),
    ],
    "credentials": {name: {**each, "origins": ["https://api.example.com"]} for name, each in CREDENTIALS.items()},
    "guard": {
        "client_keys": {
            "reader": {"key": NOT_THERE, "paths": ["/nowhere/*"]},
            "writer": {"key": {"file": "not-there"}},
        },
        "peers": {"uids": ["self", 12345]},
    },
    "store": {"kind": "redis", "url": "redis://127.0.0.1:9", "key": [NOT_THERE], "password": NOT_THERE},
}
VIA: Final = {"url": "http://127.0.0.1:9", "username": "tools", "password": NOT_THERE}
EVERYTHING["routes"][2]["via"] = VIA

SMALL: Final[dict[str, Any]] = {
    "upstream": "https://api.example.com",
    "credential": {
        "type": "exec",
        "command": ["not-there"],
        "env": {"PASSWORD": NOT_THERE},
    },
    "guard": {"client_key": "literal"},
    "admin": {"key": NOT_THERE},
}


def unread(data: Mapping[str, Any], folder: Path) -> Config:
    """This configuration, in a file of its own, its secrets unread."""
    path = folder / "user.yaml"
    path.write_text(yaml.safe_dump(dict(data)))
    path.chmod(0o600)
    return load(find(str(path), {}), environ={}, reads=UnreadSecrets)


async def findings(config: Config, artefacts: Artefacts) -> list[Finding]:
    """What the test says; none of its own secrets is in that."""
    mint = Mint()
    found = [each async for each in tried(config, mint)]
    said = "\n".join(each.detail for each in found)
    artefacts.add("findings", said)
    assert not search([Artefact("findings", said)], mint.canaries)
    return found


def failures(found: list[Finding]) -> list[str]:
    """Artefact and detail."""
    return [f"{each.what}: {each.detail}" for each in found if each.status == "failure"]


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the faults, so that it takes seconds."""
    monkeypatch.setattr(faults, "UPSTREAM", (*faults.UPSTREAM[::6], faults.WEBSOCKET))
    monkeypatch.setattr(faults, "TOKEN_ENDPOINT", faults.TOKEN_ENDPOINT[::6])
    monkeypatch.setattr(acts, "ATTEMPTS", (*attempts.ATTEMPTS[::4], attempts.WEBSOCKET))


@pytest.mark.threat(75, 76, 84)
@pytest.mark.usefixtures("fewer")
async def test_075_nothing_comes_out_with_a_credential_of_every_type(
    tmp_path: Path, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At DEBUG, with -X dev; every far end is reached, what is not as in the original is told."""
    monkeypatch.setattr(run, "_COPIES", (("text", True),))
    found = await findings(unread(EVERYTHING, tmp_path), artefacts)
    assert failures(found) == []
    shown = ARTEFACTS - {"log as json", "commands"}
    assert {each.what for each in found if each.status == "ok"} == shown | {PROGRAMS, "tried"}
    assert {each.detail for each in found if each.status == "warning"} == {
        "the way to upstreams and token endpoints is plain HTTP: TLS is not part of this test",
        "credentials.client.client_secret: comes from a file instead of the keyring",
        "credentials.person: begins with a refresh token instead of a person's login",
        "store: is a folder instead of a server",
    }
    sizes = {each.what: int(each.detail.split()[0].replace(",", "")) for each in found if each.what in ARTEFACTS}
    assert all(size > 50 for what, size in sizes.items() if what != "standard output"), sizes
    assert sizes["log as text"] > 20_000


@pytest.mark.slow(seconds=60)
@pytest.mark.threat(49, 50, 52, 53, 54, 56, 57, 58, 61, 62, 63, 64, 65, 66, 67, 70, 73, 74, 75, 76, 78, 80, 83, 84)
@pytest.mark.threat(89, 98, 99, 100, 103, 104, 105, 107, 108, 109)
@pytest.mark.parametrize("which", ["every type", *(["the example"] if TIMES > 1 else [])])
async def test_075_nothing_comes_out_whatever_goes_wrong(tmp_path: Path, artefacts: Artefacts, which: str) -> None:
    """Every fault of the tables at DEBUG, with -X dev and as JSON, for a credential of every type."""
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text("utf-8"))
    found = await findings(unread(EVERYTHING if which == "every type" else example, tmp_path), artefacts)
    assert failures(found) == []
    assert {each.what for each in found if each.status == "ok"} == ARTEFACTS | {PROGRAMS, "tried"}
    assert not [each for each in found if "never asked" in each.detail]


#: What stands in the copy of the source instead: file, what stood there, what is put.
PLANTED: Final = (
    (
        "cli/run.py",
        "    raise_descriptors()\n",
        "    raise_descriptors()\n    __import__('planted').plant(loaded)\n",
    ),
    ("problem.py", '"detail": error.detail,', '"detail": error.detail + __import__("planted").secret(),'),
    ("admin/exposition.py", 'return "".join(', 'return __import__("planted").secret().encode() + "".join('),
    ("runfile.py", "json.dump({name:", "json.dump({__import__('planted').secret(): 1} | {name:"),
    ("names.py", "    return (\n        _NAME", "    return True or (\n        _NAME"),
    ("config/provided.py", "**dict.fromkeys(self._withheld), ", ""),
)
#: Leaks in encodings, and on the command line, where a secret is put by starting anew.
PLANTING: Final = """
import base64, os, pathlib, sys

def plant(loaded):
    [value, *_others] = [source.value.reveal() for _path, source in loaded.secrets()]
    os.environ["PLANTED"] = value[::-1]
    if not any(value in each for each in sys.orig_argv):
        flags = [f"-Xplanted={value}", "-m", "proxy", *sys.argv[1:]]
        os.execv(sys.executable, [sys.executable, *flags])
    print(base64.b64encode(f"x{value}".encode()).decode(), file=sys.stderr)
    print(value.encode().hex(":"), flush=True)
    pathlib.Path(os.environ["HOME"], "core").write_bytes(value.encode("utf-16"))

def secret():
    return os.environ.get("PLANTED", "")[::-1]
"""


@pytest.mark.slow
@pytest.mark.threat(74, 75, 83)
@pytest.mark.usefixtures("fewer")
async def test_075_each_planted_leak_is_caught(
    tmp_path: Path, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in each artefact, of a copy of the source: it is named, with the secret's place and how it was hidden."""
    tree = Path(shutil.copytree(ROOT / "proxy", tmp_path / "tree" / "proxy")).parent
    (tree / "planted.py").write_text(PLANTING)
    for name, find_, put in PLANTED:
        path = tree / "proxy" / name
        text = path.read_text("utf-8")
        assert text.count(find_) == 1, name
        path.write_text(text.replace(find_, put), "utf-8")
    monkeypatch.setattr(process, "ROOT", tree)
    found = await findings(unread(SMALL, tmp_path), artefacts)
    leaks = [each for each in found if each.status == "failure"]
    assert {each.what for each in leaks} == ARTEFACTS | {PROGRAMS}
    for what, words in {
        "log as json": ("credentials.default.env.PASSWORD", "base64"),
        "standard output": ("credentials.default.env.PASSWORD", "hex"),
        "files that it keeps": ("core", "wide"),
        "answers of the admin listener": ("/metrics", "raw"),
        "commands": ("check, with mistakes", "wrong place of a configuration"),
        PROGRAMS: ("admin.key", "raw"),
    }.items():
        details = [each.detail for each in leaks if each.what == what]
        assert any(all(word in detail for word in words) for detail in details), details


# -- the command


async def leaktest(path: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of the command."""
    process_ = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "leaktest", "-c", str(path), *arguments),
        cwd=ROOT,
        env={**os.environ, "NOT_READ": "x"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process_.communicate()
    assert process_.returncode is not None
    return process_.returncode, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_command_says_what_it_tried(tmp_path: Path) -> None:
    """For people a line a finding; for programs JSON."""
    path = tmp_path / "user.yaml"
    path.write_text("upstream: https://api.example.com\n")
    status, out, err = await leaktest(path)
    assert (status, err) == (0, "")
    assert all(line.startswith(("ok  ", "warning  ")) for line in out.splitlines())
    status, out, err = await leaktest(path, "--json")
    assert (status, err) == (0, "")
    assert {each["what"] for each in json.loads(out)["findings"]} == ARTEFACTS | {"copy", "tried"}


async def test_a_configuration_that_is_none_ends_with_2(tmp_path: Path) -> None:
    """As with every command."""
    path = tmp_path / "user.yaml"
    path.write_text("upstream: ftp://api.example.com\n")
    status, out, err = await leaktest(path)
    assert (status, out) == (2, "")
    assert "user.yaml:1: upstream: " in err


async def test_a_copy_that_does_not_start_is_a_failure_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a hang, and not a verdict that all is well."""
    (tmp_path / "proxy").mkdir()
    for name, text in {"__init__.py": "", "__main__.py": "raise SystemExit(3)"}.items():
        (tmp_path / "proxy" / name).write_text(text)
    monkeypatch.setattr(process, "ROOT", tmp_path)
    with pytest.raises(process.CopyFailed, match="bearer-proxy check"):
        [each async for each in tried(unread(SMALL, tmp_path), Mint())]


# -- what it is made of


#: The cases of 3.5 to 3.9 that no answer of a far end and no request stands for, by the tests that play them: in
#: the harness, or in processes of their own, which log at DEBUG and are searched for canaries at the end.
ELSEWHERE: Final = {
    "test_config_broken": (51, 55),
    "test_token_endpoint": (55, 58, 59, 72),
    "test_tls": (59, 60),
    "test_streaming": (68, 69),
    "test_dial": (58, 71),
    "test_canaries": (74, 75, 77),
    "test_redact": (76, 77, 79),
    "test_admin": (81,),
    "test_process": (83,),
    "test_cli": (84,),
    "test_token_life": (86, 87),
    "test_instances": (88,),
    "test_crashes": (90,),
    "test_keeping": (91, 93, 94, 95, 102, 111),
    "test_stores": (92,),
    "test_lifecycle": (95, 96, 97),
    "test_bad_replies": (55, 56, 101),
    "test_client_answer": (106,),
    "test_interactive": (110,),
}
#: What is not built yet: the inspector.
NOT_BUILT: Final = {82}


@pytest.mark.threat(75)
def test_075_each_case_of_what_goes_wrong_is_played_at_debug() -> None:
    """By a row of a table here, or by tests whose output is searched in the same way."""
    tried = (*attempts.ATTEMPTS, *attempts.IMPROPER)
    tables: list[tuple[faults.Fault | faults.Given | attempts.Attempt, ...]] = [tried]
    tables += [faults.UPSTREAM, faults.TOKEN_ENDPOINT, faults.PROGRAM, faults.FILE]
    for table in tables:
        assert len({row.name for row in table}) == len(table)
        assert all(row.threats for row in table)
    here = {number for table in tables for row in table for number in row.threats}
    tests = {
        file: {number for number, names in carriers().items() if any(n.startswith(f"{file}::") for n in names)}
        for file in ELSEWHERE
    }
    for file, numbers in ELSEWHERE.items():
        assert set(numbers) <= tests[file], file
    there = {number for numbers in ELSEWHERE.values() for number in numbers}
    assert here | there | NOT_BUILT >= set(range(49, 112))
    assert not (here | there) & NOT_BUILT


def test_a_secret_is_not_read(tmp_path: Path) -> None:
    """No variable, no file, no program, no keyring; each has a stand-in that fits, and no two are alike."""
    config = unread(EVERYTHING, tmp_path)
    values = [source.value.reveal() for _path, source in config.secrets() if source.stands_in]
    assert len(values) == len(set(values)) > 15
    references: tuple[Any, ...] = ({"env": ""}, {"no": "x"}, {"command": []}, {"env": "A", "file": "b"}, [], None)
    for reference in references:
        text = json.dumps({"upstream": "https://a", "credential": {"type": "static", "token": reference}})
        source = Source(text, "-", None, "-")
        with pytest.raises(ConfigError):
            load(source, environ={}, reads=UnreadSecrets)


@pytest.mark.parametrize(
    ("answer", "part", "is_far"),
    [
        (b"HTTP/1.1 502 X\r\nA: 1\r\n\r\nbody", b"HTTP/1.1 502 X\r\nA: 1\r\n\r\nbody", False),
        (b"HTTP/1.1 200 X\r\nX-Far-End: 1\r\n\r\nbody", b"HTTP/1.1 200 X\r\nX-Far-End: 1\r\n\r\n", True),
        (
            b"HTTP/1.1 103 H\r\nL: 1\r\n\r\nHTTP/1.1 200 X\r\nx-far-end: 1\r\n\r\nbody",
            b"HTTP/1.1 103 H\r\nL: 1\r\n\r\nHTTP/1.1 200 X\r\nx-far-end: 1\r\n\r\n",
            True,
        ),
        (
            b"HTTP/1.1 200 X\r\nX-Far-End: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nT: 1\r\n\r\n",
            b"HTTP/1.1 200 X\r\nX-Far-End: 1\r\nTransfer-Encoding: chunked\r\n\r\nT: 1\r\n\r\n",
            True,
        ),
        (b"", b"", False),
    ],
    ids=["own", "far", "interim", "trailers", "nothing"],
)
def test_of_an_upstreams_answer_the_body_is_its_own(answer: bytes, part: bytes, *, is_far: bool) -> None:
    """And of an answer of the proxy everything is the proxy's."""
    assert own(answer) == (part, is_far)


def test_what_belongs_somewhere_is_a_leak_elsewhere() -> None:
    """By the beginning of its label, in that part alone."""
    mint, evidence = Mint(), Evidence()
    secret = mint.secret("credentials.a.env.B")
    evidence.add("x", secret.encode(), ("credentials.a.env.",))
    evidence.add("y", b"nothing")
    assert [each.status for each in evidence.judged(mint.canaries)] == ["ok", "ok"]
    evidence.add("x", secret[:20].encode(), ("credentials.b.env.",), where="there")
    [leak, fine] = evidence.judged(mint.canaries)
    assert (leak.status, fine.status) == ("failure", "ok")
    assert "there: 20 characters of credentials.a.env.B (raw)" in leak.detail
