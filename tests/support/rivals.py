"""nginx and HAProxy in front of the same upstream as the proxy, set up to do the same: whom we compare with."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.waiting import until

#: Without `proxy_ignore_client_abort` it would give up where the client has said all that it has to say.
_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    client_header_timeout 500ms;
    client_body_timeout 500ms;
    large_client_header_buffers 4 8k;
    upstream api {{ server {upstream}; keepalive 4; }}
    server {{ listen unix:{socket} default_server; return 403; }}
    server {{
        listen unix:{socket};
        server_name localhost 127.0.0.1 "[::1]";
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host {upstream};
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_next_upstream off;
            proxy_ignore_client_abort on;
        }}
    }}
}}
"""
_HAPROXY: Final = r"""
global
    maxconn 200
    tune.bufsize 32768
defaults
    mode http
    timeout connect 5s
    timeout client 500ms
    timeout server 5s
    timeout http-request 500ms
    retries 0
frontend front
    bind unix@{socket} proto h1
    acl ours hdr(host),lower -m reg ^(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{{1,5}})?$
    http-request deny deny_status 403 unless ours
    default_backend back
backend back
    http-reuse never
    option http-server-close
    http-request set-header Host {upstream}
    server api {upstream}
"""


@dataclass(frozen=True, slots=True)
class _Rival:
    """A program: its configuration, its arguments, and how it tells its version."""

    config: str
    arguments: tuple[str, ...]
    version: str


RIVALS: Final = {
    "nginx": _Rival(
        _NGINX, ("-p", "{folder}", "-e", "{folder}/nginx.log", "-c", "{config}"), r"nginx/([0-9]+\.[0-9]+)"
    ),
    "haproxy": _Rival(_HAPROXY, ("-db", "-f", "{config}"), r"HAProxy version ([0-9]+\.[0-9]+)"),
}


def program(name: str) -> str | None:
    """Where the program is, None where the machine lacks it; /usr/sbin is not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def version(name: str) -> str | None:
    """Its major and minor version, None where the machine lacks it."""
    executable = program(name)
    if executable is None:
        return None
    told = subprocess.run([executable, "-v"], capture_output=True, text=True, check=True)
    match = re.search(RIVALS[name].version, told.stdout + told.stderr)
    return match[1] if match else None


@asynccontextmanager
async def rival(name: str, folder: Path, upstream: str) -> AsyncIterator[Path]:
    """One of `RIVALS` in front of the authority `upstream`; gives the path of the Unix socket it listens on."""
    path, config = folder / "s", folder / "config"
    config.write_text(RIVALS[name].config.format(folder=folder, socket=path, upstream=upstream))
    arguments = [each.format(folder=folder, config=config) for each in RIVALS[name].arguments]
    executable = program(name)
    assert executable is not None
    process = await asyncio.create_subprocess_exec(executable, *arguments)
    try:
        await until(lambda: _listens(path) or process.returncode is not None)
        assert process.returncode is None, f"{name} does not start"
        yield path
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
