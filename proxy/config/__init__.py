"""The configuration: found, read and validated."""

from proxy.config.anycredential import ExpiredRuleConfig
from proxy.config.checks import meets_admin
from proxy.config.credentials import CredentialConfig, LoginCredential, StaticCredential
from proxy.config.listeners import ListenAddress, PassedSockets, TcpAddress, UnixAddress
from proxy.config.load import load
from proxy.config.model import Config
from proxy.config.oauth import OAuthCredential
from proxy.config.provided import ExecCredential, FileCredential, MetadataCredential
from proxy.config.routing import PolicyRule, RouteConfig
from proxy.config.secrets import SecretSource
from proxy.config.selfsigned import GitHubAppCredential, JWTCredential
from proxy.config.sources import Source, again, find, quick

__all__ = [
    "Config",
    "CredentialConfig",
    "ExecCredential",
    "ExpiredRuleConfig",
    "FileCredential",
    "GitHubAppCredential",
    "JWTCredential",
    "ListenAddress",
    "LoginCredential",
    "MetadataCredential",
    "OAuthCredential",
    "PassedSockets",
    "PolicyRule",
    "RouteConfig",
    "SecretSource",
    "Source",
    "StaticCredential",
    "TcpAddress",
    "UnixAddress",
    "again",
    "find",
    "load",
    "meets_admin",
    "quick",
]
