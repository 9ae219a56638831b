"""The proxies that are compared: how each is told the same thing, one process, one worker, keep-alive upstream."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.bench.processes import Command
from tests.bench.upstream import Upstream

HERE: Final = Path(__file__).parent
#: The column of ours whose source has no hooks for the inspector (`bare.py`).
BARE: Final = "ours-bare"
#: In the folder of a job: what `watched.py` writes to.
CLOCK: Final = "redactor.seconds"


@dataclass(frozen=True, slots=True)
class Job:
    """What every proxy is told: listen here, send there, add this token."""

    #: For configuration and logs.
    folder: Path
    port: int
    upstream: Upstream
    #: The program, for ours a Python.
    program: str
    #: The folder in which ours is started: its code lies there, or behind its Python.
    tree: Path
    #: How many connections must be possible at once.
    connections: int


@dataclass(frozen=True, slots=True)
class Proxy:
    """One column of the table."""

    name: str
    title: str
    #: None: no proxy, the load goes straight to the upstream.
    command: Callable[[Job], Command] | None
    #: The program of `tools` that it needs.
    tool: str | None = None
    #: Measurements that it cannot take part in, each with the reason.
    lacks: Sequence[str] = ()


def write(job: Job, name: str, text: str) -> str:
    """Write a file of the configuration; gives its path."""
    path = job.folder / name
    path.write_text(text)
    return str(path)


def ours(job: Job) -> Command:
    """Defaults throughout: guard, access log, metrics, inspector; JSON to a file. The credential logs in."""
    config = {
        "listen": f"127.0.0.1:{job.port}",
        "routes": [
            {
                "prefix": "/",
                "upstream": job.upstream.url,
                "credential": "main",
                "tls": {"ca": str(job.upstream.ca)},
                # The default is 100, and a thousand event streams are a thousand connections.
                **({"pool": {"size": job.connections + 64}} if job.connections > 100 else {}),
            }
        ],
        "credentials": {
            "main": {
                "type": "login",
                "login": {"url": f"http://127.0.0.1:{job.upstream.login_port}/login", "fields": {"user": "bench"}},
                "response": {"lifetime": "/expires_in"},
            }
        },
        "admin": {"listen": "127.0.0.1:0"},
        "log": {"format": "json"},
        **({"limits": {"connections": job.connections + 64}} if job.connections > 900 else {}),
    }
    # JSON is YAML.
    path = write(job, "ours.yaml", json.dumps(config, indent=1))
    homes = {name: str(job.folder) for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")}
    return Command([job.program, "-m", "proxy", "run", "-c", path], job.tree, homes)


def unseen(job: Job) -> Command:
    """Ours, without the inspector."""
    command = ours(job)
    path = Path(command.arguments[-1])
    config = json.loads(path.read_text())
    config["admin"]["inspector"] = False
    path.write_text(json.dumps(config, indent=1))
    return command


def watched(job: Job) -> Command:
    """Ours, with a clock on its redactor (`watched.py`)."""
    command = ours(job)
    code = (HERE / "watched.py").read_text()
    [python, _, _, *arguments] = command.arguments
    return replace(command, arguments=[python, "-c", code, str(job.folder / CLOCK), *arguments])


NGINX: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log combined;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    client_max_body_size 0;
    upstream api {{
        server 127.0.0.1:{upstream};
        keepalive 64;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass {scheme}://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            {tls}
        }}
    }}
}}
"""
NGINX_TLS: Final = """
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {ca};
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.3;
"""


def nginx(job: Job) -> Command:
    """With an access log, and without spooling bodies to disk, which nobody else does."""
    text = NGINX.format(
        folder=job.folder,
        port=job.port,
        upstream=job.upstream.port,
        scheme=job.upstream.url.partition(":")[0],
        token=job.upstream.token,
        tls=NGINX_TLS.format(ca=job.upstream.ca) if job.upstream.scheme == "tls" else "",
    )
    return Command([job.program, "-p", str(job.folder), "-c", write(job, "nginx.conf", text)], job.folder)


HAPROXY: Final = """
global
    nbthread 1
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    maxconn 4096
    timeout connect 10s
    timeout client 300s
    timeout server 300s
    http-reuse always
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    http-request set-header Authorization "Bearer {token}"
    default_backend api
backend api
    server api 127.0.0.1:{upstream} {tls}
"""


def haproxy(job: Job) -> Command:
    """With an access log; its standard output goes to a file."""
    tls = f"ssl verify required ca-file {job.upstream.ca} sni str(localhost)"
    text = HAPROXY.format(
        port=job.port,
        token=job.upstream.token,
        upstream=job.upstream.port,
        tls=tls if job.upstream.scheme == "tls" else "",
    )
    return Command([job.program, "-db", "-f", write(job, "haproxy.cfg", text)], job.folder)


def envoy(job: Job, *, access_log: bool = False) -> Command:
    """With `credential_injector` and a generic secret; by default Envoy writes no access log."""
    types = "type.googleapis.com/envoy.extensions"
    router = {"@type": f"{types}.filters.http.router.v3.Router"}
    injector = {
        "@type": f"{types}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {
            "name": "envoy.http.injected_credentials.generic",
            "typed_config": {
                "@type": f"{types}.http.injected_credentials.generic.v3.Generic",
                "credential": {"name": "token"},
            },
        },
    }
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "http_filters": [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    # Envoy's default ends a long download after 15 s.
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api", "timeout": "0s"}}],
                }
            ]
        },
    }
    if access_log:
        writer = {"@type": f"{types}.access_loggers.file.v3.FileAccessLog", "path": str(job.folder / "access.log")}
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": writer}]
    cluster: dict[str, object] = {
        "name": "api",
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": "api",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(job.upstream.port)}}]}],
        },
        # The default is 1024 of each.
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 8192)]
        },
    }
    if job.upstream.scheme == "tls":
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{types}.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {"trusted_ca": {"filename": str(job.upstream.ca)}},
                },
            },
        }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    secret = {"secret": {"inline_string": f"Bearer {job.upstream.token}"}}
    config = {
        "static_resources": {
            "secrets": [{"name": "token", "generic_secret": secret}],
            "listeners": [{"name": "clients", "address": _address(job.port), "filter_chains": [chain]}],
            "clusters": [cluster],
        }
    }
    path = write(job, "envoy.json", json.dumps(config, indent=1))
    quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return Command([job.program, "-c", path, *quiet], job.folder)


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_with_log(job: Job) -> Command:
    """The same with an access log to a file, as all others write one."""
    return envoy(job, access_log=True)


def mitmproxy(job: Job) -> Command:
    """In reverse mode; what it prints about each request goes to a file."""
    options = {
        "listen_host": "127.0.0.1",
        "listen_port": job.port,
        "modify_headers": f"|~q|Authorization|Bearer {job.upstream.token}",
        "ssl_verify_upstream_trusted_ca": job.upstream.ca,
        "stream_large_bodies": "64k",
        "confdir": job.folder,
    }
    sets = [argument for name, value in options.items() for argument in ("--set", f"{name}={value}")]
    return Command([job.program, "--mode", f"reverse:{job.upstream.url}", *sets], job.folder)


def naive(job: Job) -> Command:
    """`naive.py` beside this file, on the Python of ours."""
    arguments = [str(job.port), job.upstream.url, job.upstream.token, str(job.upstream.ca)]
    return Command([job.program, str(HERE / "naive.py"), *arguments], job.folder)


#: What is measured of bodies and of one connection, and of what the inspector keeps.
_ALONE: Final = ("p50", "down", "up", "stop", "sse")
_KEPT: Final = ("kept", "kept-bodies", "kept-one", "page")
ALL: Final = (
    Proxy("ours", "ours", ours),
    Proxy("ours-unseen", "ours, no inspector", unseen),
    Proxy(BARE, "ours, without its hooks", unseen, lacks=(*_ALONE, "start", "turns-many")),
    Proxy("ours-pure", "ours, not compiled", ours, lacks=("turns", "turns-many", *_KEPT)),
    Proxy("nginx", "nginx", nginx, "nginx"),
    Proxy("haproxy", "HAProxy", haproxy, "haproxy"),
    Proxy("envoy", "Envoy", envoy, "envoy"),
    Proxy("envoy-log", "Envoy, access log", envoy_with_log, "envoy"),
    Proxy("naive", "ClientSession", naive),
    Proxy("mitmproxy", "mitmproxy", mitmproxy, "mitmdump", lacks=("sse",)),
    Proxy("direct", "no proxy", None),
)
