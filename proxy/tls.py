"""TLS contexts of our own: verified, TLS 1.2 or later, and deaf to `SSLKEYLOGFILE` (threats 59, 60; E23)."""

import ssl
from pathlib import Path


def client_context(
    ca: Path | None = None, *, cert: Path | None = None, key: Path | None = None, insecure: bool = False
) -> ssl.SSLContext:
    """A client context that trusts `ca` (a PEM bundle), or the machine's certificates without one.

    `cert` is what it shows when asked who it is: a PEM chain, its key in `key` or in the same file.
    `insecure` switches verification off; the config warns about it. Raises `OSError` or `ssl.SSLError` for a file
    that cannot be read, a key with a passphrase, and one that does not fit the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        # Without a passphrase of ours, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
        # A server may ask only for some paths, that is, after the handshake (RFC 8446 section 4.6.2).
        context.post_handshake_auth = True
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        context.load_verify_locations(cafile=ca)
    else:
        context.load_default_certs()
    return context
