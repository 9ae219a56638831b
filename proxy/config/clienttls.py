"""What a TLS client of ours trusts and shows, as files."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, PrivateAttr, ValidationInfo, model_validator

from proxy.config.fields import Section, reader


def _file(value: object, info: ValidationInfo) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("write the path of a file")  # noqa: TRY004  pydantic collects ValueError only
    path = reader(info).folder / value
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist: create it, or correct the path")
    return path


PEMFile = Annotated[Path | None, BeforeValidator(_file)]


class ClientTLS(Section):
    """How a server is verified, and what it is shown."""

    ca: PEMFile = None
    """A file of certificate authorities in PEM, instead of the system's."""
    cert: PEMFile = None
    """A file with the client certificate (and its chain) in PEM, for a server that asks for one."""
    key: PEMFile = None
    """The file of its private key, without a passphrase; null: in the same file."""
    _key_warning: str | None = PrivateAttr(default=None)

    @property
    def key_warning(self) -> str | None:
        """A sentence about the mode of the file with the private key, where that is doubtful."""
        return self._key_warning

    @model_validator(mode="after")
    def _has_a_pair(self, info: ValidationInfo) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("a key belongs to a certificate: add cert: client.pem")
        holder = self.key or self.cert
        if holder is not None:
            self._key_warning = reader(info).warning_of_mode(holder)
        return self
