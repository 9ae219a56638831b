"""What credentials belong to: some to each other, which log in as one user, some to the host that they are on."""

from proxy.config import Config, ExecCredential, FileCredential, MetadataCredential, OAuthCredential
from proxy.config.anycredential import AskingCredential
from proxy.config.model import borrowed_in
from proxy.credentials.barring import Kin


def kin_of(name: str, config: Config) -> Kin | None:
    """The other credentials that log in as this one does; None: there are none, or nobody can say."""
    given = config.credentials[name]
    if not isinstance(given, AskingCredential) or borrowed_in(given):
        return None
    alike = sorted(
        other
        for other, each in config.credentials.items()
        if type(each) is type(given) and not borrowed_in(each) and each.logs_in_as() == given.logs_in_as()
    )
    others = {other: config.credentials[other].digest for other in alike if other != name}
    return Kin(turn_of(alike[0]), others) if others else None


def turn_of(first: str) -> str:
    """The name of the turn that kin share, by the first of them: no credential has such a one."""
    return f"~{first}"


def stays_here(name: str, config: Config) -> bool:
    """Must its token stay with this host? In a fleet it would be one host's identity in the requests of another."""
    return config.store.kind == "redis" and _is_the_hosts(name, config)


def _is_the_hosts(name: str, config: Config) -> bool:
    """With the same configuration, does another host get the token of somebody else?

    A program's login, the machine's own identity, what somebody puts into a file; and whoever stands on these,
    unless a person logged in, or a refresh token was given, for all.
    """
    given = config.credentials[name]
    if isinstance(given, ExecCredential | MetadataCredential | FileCredential):
        return True
    if isinstance(given, OAuthCredential) and given.inherits:
        return False
    return any(_is_the_hosts(each.lender, config) for each in borrowed_in(given))
