"""The upstream of all measurements: nginx for downloads and small answers, `sink.py` for what nginx cannot."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import trustme

from tests.bench.processes import Command, free_port, started
from tests.bench.sink import Arguments

Scheme = Literal["plain", "tls"]
Part = Literal["nginx", "sink"]

#: One cipher suite for everybody: proxies prefer different ones, and the comparison is not about ciphers.
SUITE: Final = "TLS_AES_128_GCM_SHA256"
#: An answer of 1 KiB.
SMALL: Final = json.dumps({"filling": "x" * 1009})

NGINX: Final = """
daemon off;
worker_processes 1;
pid {folder}/upstream.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 3600s;
    open_file_cache max=16;
    map_hash_bucket_size 256;
    map $http_authorization $refused {{ default 1; "Bearer {token}" 0; }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites {suite};
        root {folder}/files;
        default_type application/json;
        if ($refused) {{ return 401; }}
        location /small/ {{ return 200 '{small}'; }}
    }}
}}
"""
OPENSSL: Final = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = everything
[everything]
Ciphersuites = {suite}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a proxy under measurement sends its requests."""

    scheme: Scheme
    port: int
    #: The authority to trust, a PEM file.
    ca: Path
    token: str
    #: Gives a token to a login, in plain HTTP.
    login_port: int

    @property
    def url(self) -> str:
        """Without a trailing slash."""
        return f"{'https' if self.scheme == 'tls' else 'http'}://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The four sockets of the upstream."""

    ports: dict[tuple[Part, Scheme], int]
    ca: Path
    token: str

    def of(self, part: Part, scheme: Scheme) -> Upstream:
        """One of them."""
        return Upstream(scheme, self.ports[part, scheme], self.ca, self.token, self.ports["sink", "plain"])


@contextmanager
def serving(folder: Path, nginx: str, token: str, most: int, cores: frozenset[int]) -> Iterator[Upstreams]:
    """Run the upstream until the block ends; `most` is the size of the long download and upload, in bytes."""
    schemes: tuple[Scheme, Scheme] = ("plain", "tls")
    parts: tuple[Part, Part] = ("nginx", "sink")
    ports = {(part, scheme): free_port() for part in parts for scheme in schemes}
    ca = _certificates(folder)
    _files(folder / "files", most)
    (folder / "openssl.cnf").write_text(OPENSSL.format(suite=SUITE))
    (folder / "upstream.conf").write_text(
        NGINX.format(
            folder=folder,
            token=token,
            suite=SUITE,
            small=SMALL,
            plain=ports["nginx", "plain"],
            tls=ports["nginx", "tls"],
        )
    )
    arguments = Arguments(
        ports["sink", "plain"], ports["sink", "tls"], str(folder / "server.pem"), token=token, most=most
    )
    commands: dict[Part, Command] = {
        "nginx": Command([nginx, "-p", str(folder), "-c", str(folder / "upstream.conf")], folder),
        "sink": Command(
            [sys.executable, str(Path(__file__).with_name("sink.py")), json.dumps(dataclasses.asdict(arguments))],
            folder,
            {"OPENSSL_CONF": str(folder / "openssl.cnf")},
        ),
    }
    with ExitStack() as stack:
        for part, command in commands.items():
            stack.enter_context(started(command, ports[part, "plain"], cores, folder / f"{part}-upstream.log"))
        yield Upstreams(ports, ca, token)


def _certificates(folder: Path) -> Path:
    """Write the server's certificate, and the authority's; gives the latter."""
    ca = trustme.CA()
    # Written beside each other, key and chain: nginx and Python both take that.
    ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder / "ca.pem"


def _files(folder: Path, most: int) -> None:
    """The long answer, already in the page cache."""
    folder.mkdir()
    # nginx gives up root for its workers.
    folder.chmod(0o755)
    block = os.urandom(1 << 20)
    with (folder / "big").open("wb") as file:
        for _ in range(most >> 20):
            file.write(block)
