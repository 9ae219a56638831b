"""Programs that people use, as they are, at a service that demands the bearer: none of them knows of a token.

The table of `docs/compatibility.md` has a row for each of them. What only asks an API is in `test_clients.py`, what
runs in a browser in `test_compatibility_app.py`.
"""

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from tests.support.gate import Behind, Gate, before, gate, git
from tests.support.harness import Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.npm import BIN
from tests.support.packages import LARGE, PIP, index, registry, wheel
from tests.support.programs import attempt, program, run, surroundings

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the programs, whose megabytes are not searched for canaries."""
    return tmp_path_factory.mktemp("home")


@dataclass(frozen=True)
class Key:
    """A client key, where programs show what they have to log in with."""

    value: str = field(repr=False)

    def config(self, server: Gate, **route: Any) -> dict[str, Any]:
        """The configuration before this gate, with the key; `route` are further keys of the route."""
        return {**server.route(**route), "guard": {"client_key": {"env": "KEY"}}}

    def environ(self, server: Gate) -> dict[str, str]:
        """What that refers to."""
        return {**server.environ, "KEY": self.value}

    def url(self, proxy: Proxy) -> str:
        """The proxy's, with the key as a password."""
        return proxy.url.replace("://", f"://any:{self.value}@")


@pytest.fixture
def key(canaries: Canaries) -> Key:
    """A key of the test's own."""
    return Key(canaries.mint("key"))


# -- git


@dataclass(frozen=True)
class Git:
    """git, with settings in `home` and the name of a person."""

    proxy: Proxy
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        """Its variables."""
        identity = {f"GIT_{who}_{what}": "ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return surroundings(self.home, GIT_TERMINAL_PROMPT="0", **identity)

    async def __call__(self, *arguments: str | Path) -> str:
        """What it says."""
        return (await run(self.proxy.artefacts, "git", *arguments, environ=self.environ)).decode()


async def test_git_clones_fetches_and_pushes(
    proxying: StartProxy, canaries: Canaries, home: Path, key: Key
) -> None:
    """By the URL that it always had; a push of megabytes in chunks is repeated with a new token."""
    program("git")
    served, work, other = (home / name for name in ("served", "work", "other"))
    served.mkdir()
    async with (
        gate(git(served), canaries) as server,
        proxying(key.config(server), environ=key.environ(server)) as proxy,
    ):
        told = Git(proxy, home)
        await told("init", "--quiet", "--bare", "--initial-branch=main", served / "app.git")
        await told("config", "--global", f"url.{key.url(proxy)}/.insteadOf", "https://git.example.com/")
        await told("clone", "--quiet", "https://git.example.com/app.git", work)
        await told("-C", work, "checkout", "--quiet", "-b", "main")
        (work / "large").write_bytes(os.urandom(LARGE))
        await told("-C", work, "add", ".")
        await told("-C", work, "commit", "--quiet", "--message=first")
        server.once(lambda request: request.headers.get("Transfer-Encoding") == "chunked")
        await told("-C", work, "push", "--quiet", "origin", "main")
        assert server.refused == ["/app.git/git-receive-pack"]

        await told("clone", "--quiet", "https://git.example.com/app.git", other)
        assert (other / "large").read_bytes() == (work / "large").read_bytes()
        await told("-C", work, "commit", "--quiet", "--allow-empty", "--message=second")
        await told("-C", work, "push", "--quiet")
        server.end()
        await told("-C", other, "pull", "--quiet")
        assert (await told("-C", other, "log", "--format=%s")).split() == ["second", "first"]
    assert server.tokens == 3


@dataclass
class Objects:
    """Large objects of git (its LFS, the batch API): their URLs are made of the name that a request is for."""

    repositories: Behind
    kept: dict[str, bytes] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """An object, where objects are, or what is in the repository."""
        place, _, oid = request.path.rpartition("/")
        if place == "/objects":
            if request.method == "PUT":
                self.kept[oid] = await request.read()
            return web.Response(body=self.kept[oid])
        if not request.path.startswith("/app.git/info/lfs/"):
            return await self.repositories(request)
        if oid != "batch":
            return web.Response(status=404)
        asked = await request.json()
        found = [
            {**each, "actions": {asked["operation"]: {"href": f"http://{request.host}/objects/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        return web.json_response({"objects": found}, content_type="application/vnd.git-lfs+json")


@pytest.mark.parametrize("host", ["client", "upstream"])
async def test_git_lfs_follows_the_urls_of_the_server(
    proxying: StartProxy, canaries: Canaries, home: Path, host: str
) -> None:
    """To the proxy, where the server knows it by the name; past it, where it does not."""
    program("git-lfs")
    served, work, other = (home / name for name in ("served", "work", "other"))
    served.mkdir()
    objects = Objects(git(served))
    async with (
        gate(objects.answer, canaries) as server,
        proxying(server.route(host_header=host), environ=server.environ) as proxy,
    ):
        told = Git(proxy, home)
        await told("init", "--quiet", "--bare", "--initial-branch=main", served / "app.git")
        await told("lfs", "install", "--skip-repo")
        await told("config", "--global", "lfs.transfer.maxretries", "1")
        await told("clone", "--quiet", f"{proxy.url}/app.git", work)
        await told("-C", work, "checkout", "--quiet", "-b", "main")
        await told("-C", work, "lfs", "track", "large")
        (work / "large").write_bytes(os.urandom(LARGE))
        await told("-C", work, "add", ".")
        await told("-C", work, "commit", "--quiet", "--message=first")
        server.once(lambda request: request.path.startswith("/objects/"))
        push = ["git", "-C", work, "push", "--quiet", "origin", "main"]
        status, _, err = await attempt(proxy.artefacts, *push, environ=told.environ)
        if host == "upstream":
            assert status != 0
            assert b"Git credentials for" in err
            return
        assert status == 0, err.decode()
        await told("clone", "--quiet", f"{proxy.url}/app.git", other)
        assert (other / "large").read_bytes() == (work / "large").read_bytes()
    assert [each.rpartition("/")[0] for each in server.refused] == ["/objects"]


# -- packages of Python


async def test_twine_uploads_and_pip_installs(
    proxying: StartProxy, canaries: Canaries, home: Path, key: Key
) -> None:
    """An upload and a download meet an old token each; the password that they show is the client key."""
    environ = surroundings(home, **PIP)
    async with (
        index(home) as url,
        before(url) as behind,
        gate(behind, canaries) as server,
        proxying(key.config(server), environ=key.environ(server)) as proxy,
    ):
        twine = [BIN / "twine", "upload", "--non-interactive", "--disable-progress-bar"]
        twine += ["--username=any", f"--password={key.value}", f"--repository-url={proxy.url}/"]
        await run(proxy.artefacts, *twine, wheel(home, "1.0"), environ=environ)
        server.end()
        await run(proxy.artefacts, *twine, wheel(home, "1.1"), environ=environ)
        assert server.refused == ["/"]
        server.once(lambda request: request.path.endswith(".whl"))
        pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", f"--index-url={key.url(proxy)}/simple/"]
        await run(proxy.artefacts, *pip, f"--target={home / 'there'}", "probe<1.1", environ=environ)
        assert (home / "there" / "probe" / "__init__.py").read_text() == 'version = "1.0"\n'
        assert server.refused[1:] == ["/packages/probe-1.0-py3-none-any.whl"]
        assert ("GET", "/simple/probe/", 200) in server.seen


async def test_pip_goes_past_the_proxy_where_the_index_has_urls_with_a_host(
    proxying: StartProxy, canaries: Canaries, home: Path
) -> None:
    """They are in bodies, which the proxy does not touch."""

    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/simple/probe/"
        link = f"{server.url}/files/probe-1.0-py3-none-any.whl"
        return web.Response(text=f"<!doctype html><a href={link}>{Path(link).name}</a>", content_type="text/html")

    async with gate(answer, canaries) as server, proxying(server.config, environ=server.environ) as proxy:
        pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", f"--index-url={proxy.url}/simple/"]
        environ = surroundings(home, **PIP)
        status, _, err = await attempt(
            proxy.artefacts, *pip, f"--target={home / 'there'}", "probe", environ=environ
        )
        assert status != 0
        assert b"401" in err
    assert server.refused == ["/files/probe-1.0-py3-none-any.whl"]
    assert [line["path"] for line in proxy.lines()] == ["/simple/probe/"]


# -- packages of npm


@dataclass(frozen=True)
class Way:
    """How npm comes to fetch a package through the proxy, though its description has the registry's own URL."""

    settings: Mapping[str, str] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""


WAYS: Final[Mapping[str, Way]] = {
    "npm replaces the host": Way(settings={"replace-registry-host": "always"}),
    "the registry hears our name": Way(route={"host_header": "client"}),
}
NAMES: Final = ("probe", "@tools/probe")


@dataclass(frozen=True)
class Npm:
    """npm at a proxy before Verdaccio behind a gate."""

    server: Gate
    proxy: Proxy
    home: Path
    environ: Mapping[str, str]
    settings: Mapping[str, str]

    async def __call__(self, *arguments: str, cwd: Path) -> tuple[int | None, str]:
        """Its status, and what it complains about; nothing of earlier calls is in its cache."""
        shutil.rmtree(self.home / ".npm", ignore_errors=True)
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        command = [BIN / "npm", *options, *arguments]
        status, _, err = await attempt(self.proxy.artefacts, *command, cwd=cwd, environ=self.environ)
        return status, err.decode()

    async def publish(self, name: str) -> bytes:
        """Publish a package that holds what this gives, with an old token."""
        source, content = self.home / "source" / name, os.urandom(LARGE)
        source.mkdir(parents=True)
        (source / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0"}))
        (source / "large").write_bytes(content)
        self.server.once(lambda request: request.method == "PUT")
        assert (await self("publish", "--access=public", cwd=source))[0] == 0
        return content

    def project(self) -> Path:
        """Where packages can be installed."""
        folder = self.home / "project"
        folder.mkdir()
        (folder / "package.json").write_text("{}")
        return folder


@pytest.fixture
def npm(
    proxying: StartProxy, canaries: Canaries, home: Path, key: Key
) -> Callable[..., AbstractAsyncContextManager[Npm]]:
    """`npm(way)`: an `Npm` for a block."""

    @asynccontextmanager
    async def start(way: Way) -> AsyncIterator[Npm]:
        common = {f"npm_config_{name}": "false" for name in ("update_notifier", "audit", "fund")}
        environ = surroundings(home, **common)
        async with (
            registry(home) as url,
            before(url) as behind,
            gate(behind, canaries) as server,
            proxying(
                key.config(server, prefix=way.prefix or "/", **way.route), environ=key.environ(server)
            ) as proxy,
        ):
            base = f"{proxy.url}{way.prefix}/"
            # Without a word of its own it does not even try to publish.
            (home / ".npmrc").write_text(f"registry={base}\n{base.removeprefix('http:')}:_authToken={key.value}\n")
            settings = {"omit-lockfile-registry-resolved": "true", **way.settings}
            yield Npm(server, proxy, home, environ, settings)

    return start


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_npm_publishes_and_installs(npm: Any, way: Way) -> None:
    """With old tokens at publications and at downloads; with a scope, and without; again by the lock file."""
    async with npm(way) as it:
        published = {name: await it.publish(name) for name in NAMES}
        assert it.server.refused == ["/probe", "/@tools%2fprobe"]
        project = it.project()
        it.server.once(lambda request: request.path.endswith(".tgz"))
        assert await it("install", *NAMES, cwd=project) == (0, "")
        assert {name: (project / "node_modules" / name / "large").read_bytes() for name in NAMES} == published
        # Both downloads may have been refused, before one token for both.
        assert it.server.refused[2:]
        assert it.server.tokens == 4
        # No address that the proxy may not have another day.
        assert "resolved" not in (project / "package-lock.json").read_text()
        it.server.end()
        assert await it("ci", cwd=project) == (0, "")
        assert it.server.tokens == 5


@pytest.mark.parametrize(
    ("way", "code"),
    [(Way(route={"forwarded": True}), "E401"), (Way(route={"host_header": "client"}, prefix="/npm"), "E404")],
    ids=["the registry hears only its own name", "the registry does not know the prefix"],
)
async def test_npm_goes_astray_by_the_urls_of_the_registry(npm: Any, way: Way, code: str) -> None:
    """They are in bodies, which the proxy does not touch: npm asks the registry itself, or beside the route."""
    async with npm(way) as it:
        await it.publish("probe")
        ended, complaint = await it("install", "probe", cwd=it.project())
        assert ended != 0
        assert f"code {code}" in complaint
