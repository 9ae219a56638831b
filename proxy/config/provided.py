"""The models of credentials whose token somebody else provides: a file, a program, the machine's cloud."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from proxy.config.anycredential import CommonCredential
from proxy.config.fields import (
    LoginFields,
    LoginValue,
    SecretField,
    TextValue,
    Timeout,
    TokenURL,
    plain_text,
    reader,
)
from proxy.config.oauth import Scope
from proxy.config.secrets import SecretSource
from proxy.grants.command import Form
from proxy.grants.metadata import Cloud, Metadata

#: Programs take longer than token endpoints: some ask a server of their own, some start a whole interpreter.
_COMMAND_SECONDS: Final = 30.0
#: What `kubectl` tells its plugins (client.authentication.k8s.io); others do not look.
_EXEC_INFO: Final = json.dumps(
    {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
)


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("write the path of a file")
    return reader(info).folder / value


class FileCredential(CommonCredential):
    """A token that somebody else keeps fresh in a file."""

    type: Literal["file"]
    """file: read a file whenever it changes."""
    path: Annotated[Path, BeforeValidator(_path, json_schema_input_type=str)]
    """The file; a Kubernetes service account's token, the sink of a Vault agent. Links are followed each time."""
    _warning: str | None = PrivateAttr(default=None)

    @property
    def warning(self) -> str | None:
        """A sentence about the mode of the file, where that is doubtful."""
        return self._warning

    @model_validator(mode="after")
    def _is_private(self, info: ValidationInfo) -> Self:
        if self.path.is_dir():
            raise ValueError("path is a folder: name the file in it")
        # Whoever writes it may come later.
        if self.path.exists():
            self._warning = reader(info).warning_of_mode(self.path)
        return self


def _argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("an argument holds no NUL: remove it")
    return value


def _variables(given: dict[str, LoginValue]) -> dict[str, LoginValue]:
    for name, value in given.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError("the name of a variable is not empty, and holds no = and no NUL: correct it")
        if "\0" in _text(value):
            raise ValueError("the value of a variable holds no NUL: correct it where it comes from")
    return given


def _command(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("write a list, program first, each argument by itself: there is no shell")  # noqa: TRY004  see clienttls
    return value


class ExecCredential(CommonCredential):
    """A token that a program prints."""

    type: Literal["exec"]
    """exec: run a program, and take what it prints."""
    command: Annotated[
        tuple[Annotated[str, AfterValidator(_argument)], ...], BeforeValidator(_command), Field(min_length=1)
    ]
    """The program and its arguments; no shell."""
    format: Form = "auto"
    """What it prints: text, exec_credential (kubectl), docker, git, azure; auto: found out."""
    stdin: str = ""
    """What it reads, such as the lines of git credential fill."""
    env: Annotated[LoginFields, AfterValidator(_variables)] = Field(default_factory=dict)
    """Variables besides the proxy's own; values may be references to secrets."""
    timeout: Timeout = _COMMAND_SECONDS
    """How long it may take; then it is killed."""
    #: The variables that hold secrets of this configuration.
    _withheld: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="after")
    def _knows_what_to_withhold(self, info: ValidationInfo) -> Self:
        self._withheld = reader(info).withheld
        return self

    def environment(self) -> dict[str, str | None]:
        """The variables, secrets revealed when this is called; None: one of the proxy's that it must not get."""
        given = {name: _text(value) for name, value in self.env.items() if value is not None}
        return {**dict.fromkeys(self._withheld), "KUBERNETES_EXEC_INFO": _EXEC_INFO, **given}


class MetadataCredential(CommonCredential):
    """The identity that a cloud gives to the machine."""

    type: Literal["metadata"]
    """metadata: ask the cloud's metadata service."""
    cloud: Cloud
    """gcp or azure."""
    endpoint: TokenURL | None = None
    """Where the service is; absent: its usual address, or where GCE_METADATA_HOST or IDENTITY_ENDPOINT say."""
    identity_header: SecretField | None = None
    """azure: what App Service wants to see; absent: the variable IDENTITY_HEADER, with IDENTITY_ENDPOINT."""
    resource: TextValue = None
    """azure: whom the token is for, such as https://management.azure.com/."""
    client_id: TextValue = None
    """azure: which of several identities of the machine."""
    account: str = "default"
    """gcp: which service account of the machine."""
    scope: Scope = ()
    """gcp: narrower than what the machine may do."""
    audience: TextValue = None
    """gcp: an identity token for this audience, instead of an access token."""

    @model_validator(mode="before")
    @classmethod
    def _from_the_environment(cls, data: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  plain data
        environ = reader(info).environ
        if not isinstance(data, dict) or data.get("endpoint") is not None:
            return data
        if data.get("cloud") == "azure" and environ.get("IDENTITY_ENDPOINT"):
            return {
                "identity_header": {"env": "IDENTITY_HEADER"},
                **data,
                "endpoint": environ["IDENTITY_ENDPOINT"],
            }
        if data.get("cloud") == "gcp" and environ.get("GCE_METADATA_HOST"):
            return {**data, "endpoint": f"http://{environ['GCE_METADATA_HOST']}"}
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.cloud == "azure" and self.resource is None:
            raise ValueError(
                "azure needs resource: say whom the token is for, such as https://management.azure.com/"
            )
        others = {"azure": ("scope", "audience", "account"), "gcp": ("resource", "client_id", "identity_header")}
        for key in others[self.cloud]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is not for {self.cloud}: remove it")
        return self

    def description(self) -> Metadata:
        """The same for the grant."""
        return Metadata(
            self.cloud,
            endpoint=self.endpoint,
            identity_header=None if self.identity_header is None else self.identity_header.value,
            resource=plain_text(self.resource),
            client_id=plain_text(self.client_id),
            account=self.account,
            scope=self.scope,
            audience=plain_text(self.audience),
        )


def _text(value: LoginValue) -> str:
    return value.value.reveal() if isinstance(value, SecretSource) else str(value)
