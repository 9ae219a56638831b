"""Loads a configuration without reading a secret: its shape alone, for who makes a copy with other secrets."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.config.secrets import FORMS, KINDS, LiteralSecret, SecretReader, SecretSource
from proxy.redact import Secret


@dataclass(frozen=True, slots=True)
class UnreadSecrets(SecretReader):
    """Opens nothing, asks nobody and runs nothing: each secret is a stand-in, unlike all others."""

    def read(self, value: object) -> SecretSource:
        """What `value` refers to, with a stand-in as its value; raises `ValueError` where it is no reference."""
        if isinstance(value, LiteralSecret | str | int | float) and not isinstance(value, bool):
            if self.literals_refused is not None:
                raise ValueError(self.literals_refused)
            return SecretSource("literal", None, _stand_in(), stands_in=True)
        given = {key: each for key, each in value.items() if key != "json"} if isinstance(value, Mapping) else {}
        if len(given) != 1:
            raise ValueError(f"write a reference to a secret: {FORMS}")
        [(kind, reference)] = given.items()
        if kind == "credential":
            return SecretReader.read(self, value)
        if kind == "command" and isinstance(reference, list | tuple) and reference:
            return SecretSource(kind, tuple(map(str, reference)), _stand_in(), stands_in=True)
        if kind not in KINDS or not isinstance(reference, str) or not reference:
            raise ValueError(f"write a reference to a secret: {FORMS}")
        return SecretSource(kind, reference, _stand_in(), stands_in=True)


def _stand_in() -> Secret:
    """Good for every field but a store's key: letters and digits, more than any of them asks for."""
    return Secret(secrets.token_hex(64))
