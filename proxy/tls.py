"""TLS contexts of our own: verified, TLS 1.2 or later, and deaf to `SSLKEYLOGFILE` (threats 59, 60; E23)."""

import ssl
from pathlib import Path


def client_context(ca: Path | None = None, *, insecure: bool = False) -> ssl.SSLContext:
    """A client context that trusts `ca` (a PEM bundle), or the machine's certificates without one.

    `insecure` switches verification off; the config warns about it. Raises `OSError` or `ssl.SSLError` for a
    bundle that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        context.load_verify_locations(cafile=ca)
    else:
        context.load_default_certs()
    return context
