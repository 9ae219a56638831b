"""Broken configurations: each with its exact sentences and lines, without a secret, and all at once."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import main as cli
from proxy.config import find, load
from proxy.config.addresses import UNIX_PATH_LONGEST
from proxy.config.credentials import TYPES
from proxy.config.problems import did_you_mean
from proxy.config.secrets import FORMS
from proxy.errors import ConfigError

#: Written wherever a mistake might echo its surroundings; no sentence may hold it.
CANARY = "cNrY-s3cret-9f8e7d6c5b4a"
ENVIRON = {
    "T": "a-token-of-twenty-ch",
    "T2": "another-token-of-twenty",
    "EMPTY": "",
    "SHORT": "abc",
    "MULTI": "a\nb",
    "SPACED": "abc def ghi",
    "STORE_KEY": "c3RvcmVkLXRva2Vucy1hcmUtc2VhbGVkLWJ5LXRoaXM=",
    "PATH": "/usr/bin:/bin",
}


def problems_of(text: str, path: Path) -> list[str]:
    """What `load` says of a configuration that others can read, without the file's name."""
    path.write_text(text.replace("CANARY", CANARY))
    path.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        load(find(str(path), {}), environ=ENVIRON)
    assert CANARY not in str(caught.value) + repr(caught.value)
    # A chained foreign exception could print its input in a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


UNIX_FORM = (
    "write http+unix:// and the socket's absolute path of at most 103 bytes, and behind a colon the base path, "
    "if there is one: http+unix:///run/api.sock:/v2"
)
#: `### what is wrong`, the configuration, and `=> line: key.path: sentence` for each problem.
BROKEN = r"""
### mistakes in one part hide none in another
listen: 8080
upstream: 17
credential: nowhere
=> 1: listen: write an address with its host, such as 127.0.0.1:8080
=> 2: upstream: write text, in quotes if it looks like a number or a word such as true
=> 3: credential: there is no credential of this name: add it to credentials, or correct the name
### no upstream
listen: 127.0.0.1:8080
=> 1: there is no upstream: write upstream: https://… or a list of routes
### nothing in it
# nothing
=> 1: the configuration is empty: write at least upstream: https://…
### a list instead of a mapping
- a
=> 1: a configuration is a mapping: write key: value, such as upstream: https://…
### a word instead of a mapping
CANARY
=> 1: a configuration is a mapping: write key: value, such as upstream: https://…
### a tab
upstream: https://a.example
credential:
TABtype: static
=> 3: a tab cannot indent in YAML: use spaces
### a quote not closed
upstream: https://a.example
credential: {type: static, token: "CANARY
=> 3: a quote is not closed: close it
### a brace not closed
upstream: https://a.example
credential: {type: static, token: CANARY
=> 3: a bracket or brace is not closed, or a comma is missing: close it
### a value that looks like an alias
upstream: https://a.example
credential: {type: static, token: *CANARY}
=> 2: a value that begins with '*' is an alias in YAML: put it in quotes
### a value that looks like an anchor
upstream: https://a.example
credential:
  type: static
  token: &CANARY
=> 4: credential.token: write a reference to a secret: REFERENCES
### two colons
upstream: https://a.example
log: level: CANARY
=> 2: a second colon stands here: indent the line properly, or quote the value
### no space after a colon
upstream: https://a.example
credential:
  type:static
  token: CANARY
=> 4: a second colon stands here: indent the line properly, or quote the value
### a tag
upstream: https://a.example
log: !!python/name:CANARY
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log: write a mapping, such as {key: value}
### two documents
upstream: https://a.example
---
upstream: https://a.example
=> 2: a second document begins here: keep one, without '---'
### a bad escape
upstream: https://a.example
log: {level: "\qCANARY"}
=> 2: a backslash in double quotes is an escape: use single quotes
### bad indentation
upstream: https://a.example
log:
    level: info
  format: text
=> 4: the indentation does not fit the lines above: align it
### a control character
upstream: https://a.example
log: {level: CONTROLCANARY}
=> 2: a control character stands here: remove it
### a key twice
upstream: https://a.example
log: {level: info}
log: {level: debug}
=> 3: this key stands here twice (first in line 2): keep one
### a key that is a number
upstream: https://a.example
1: x
=> 2: a key is text: put it in quotes
### an unknown key at the top
upstream: https://a.example
limts: {}
=> 2: limts: unknown key, did you mean limits?
### an unknown key like no other
upstream: https://a.example
zzzz: CANARY
=> 2: zzzz: unknown key: write one of admin, credential, credentials, exec, guard, limits, listen, log, routes, store, tracing, upstream
### an unknown key below
upstream: https://a.example
timeouts: {conect: 1s}
=> 2: timeouts.conect: unknown key, did you mean connect?
### a key that may be a secret
upstream: https://a.example
timeouts: {CANARY}
=> 2: timeouts: a key here is unknown (is a space missing after its colon?): write one of connect, first_byte, idle, token
### a key and its value run together
upstream: https://a.example
timeouts: {connect:CANARY}
=> 2: timeouts: a key here is unknown (is a space missing after its colon?): write one of connect, first_byte, idle, token
### a key that may be a secret has its own line
upstream: https://a.example
timeouts:
  idle: 1s
  correcthorse:
=> 4: timeouts: a key here is unknown (is a space missing after its colon?): write one of connect, first_byte, idle, token
### an unknown key of a credential
upstream: https://a.example
credential: {type: static, token: {env: T}, plaec: {}}
=> 2: credential.plaec: unknown key, did you mean place?
### a credential without type
upstream: https://a.example
credential: {token: {env: T}}
=> 2: credential.type: write type: TYPES, or preset: NAME
### an unknown type
upstream: https://a.example
credential: {type: statik, token: {env: T}}
=> 2: credential.type: write type: TYPES, or preset: NAME, did you mean static?
### a credential that is a list
upstream: https://a.example
credential: [a]
=> 2: credential: write a mapping with type: TYPES, or with preset: NAME
### a credential that is not there
routes:
  - prefix: /a
    upstream: https://a.example
    credential: bilings
credentials:
  billing: {type: static, token: {env: T}}
=> 4: routes.0.credential: there is no credential of this name, did you mean billing?
### a variable that is not set
upstream: https://a.example
credential: {type: static, token: {env: NOT_SET}}
=> 2: credential.token: the environment variable NOT_SET is not set: export it, or correct the name
### a variable that is empty
upstream: https://a.example
credential: {type: static, token: {env: EMPTY}}
=> 2: credential.token: the environment variable EMPTY is empty: put the secret there
### a value where the name of a variable belongs
upstream: https://a.example
credential: {type: static, token: {env: CANARY}}
=> 2: credential.token: env takes the name of an environment variable: letters, digits and '_'
### a secret written out
upstream: https://a.example
credential:
  type: static
  token: CANARY
=> 4: credential.token: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
### a secret in braces
upstream: https://a.example
credential: {type: static, token: {CANARY}}
=> 2: credential.token: write a reference to a secret: REFERENCES
### references that lead nowhere
routes:
  - {prefix: /a, upstream: 'https://a.example', credential: a}
  - {prefix: /b, upstream: 'https://a.example', credential: b}
  - {prefix: /c, upstream: 'https://a.example', credential: c}
credentials:
  a: {type: static, token: {keyring: CANARY}}
  b: {type: static, token: {env: T, json: CANARY}}
  c: {type: static, token: {env: T, json: /token}}
=> 6: credentials.a.token: keyring takes SERVICE/USER, as `keyring set SERVICE USER` was given them
=> 7: credentials.b.token: json names no text there, or what the reference leads to is no JSON: correct json
=> 8: credentials.c.token: json names no text there, or what the reference leads to is no JSON: correct json
### a token that is lent to another origin
routes:
  - {prefix: /a, upstream: 'https://a.example', credential: a}
  - {prefix: /b, upstream: 'https://b.example', credential: b}
  - {prefix: /c, upstream: 'https://c.example', credential: c}
credentials:
  a: {preset: vault, base_url: 'https://v.example', role: {env: T}, secret_id: {env: T}, origins: ['https://c.example']}
  b: {type: static, token: {credential: a}}
  c: {type: static, token: {credential: b}}
=> 3: routes.1.upstream: its credential is bound to another origin: add this one to the origins of a
### credentials that stand on others
routes:
  - {prefix: /a, upstream: 'https://a.example', credential: a, via: {url: 'http://p.example', username: x, password: {credential: a}}}
credentials:
  a: {type: static, token: {credential: missing}}
  b: {type: static, token: {credential: c}}
  c: {type: static, token: {credential: b}}
  d: {type: jwt, key: {credential: a}}
  e: {type: static, token: {credential: a, json: /x}}
=> 2: routes.0.via.password: only a credential may stand on another one: write another reference to a secret
=> 4: credentials.a.token: there is no credential of this name: add it to credentials, or correct the name
=> 5: credentials.b.token: this credential stands on itself in the end: get one of them from elsewhere
=> 6: credentials.c.token: this credential stands on itself in the end: get one of them from elsewhere
=> 7: credentials.d.key: a key is not the token of another credential: write another reference
=> 8: credentials.e.token: json takes a JSON pointer into what the reference leads to, such as /private_key
### types of credentials that cannot work
routes:
  - {prefix: /a, upstream: 'https://a.example'}
credentials:
  a: {type: file, path: 5}
  b: {type: file, path: /}
  c: {type: exec, command: gh auth token}
  d: {type: exec, command: ["a\0b"]}
  e: {type: exec, command: [x], format: xml, timeout: 0}
  f: {type: metadata, cloud: aws}
  g: {type: metadata, cloud: azure}
  h: {type: metadata, cloud: gcp, resource: x}
  i: {type: metadata, cloud: azure, resource: x, scope: [y]}
  j: {type: github_app, app_id: true, installation_id: null, key: {env: T}}
  k: {type: jwt, key: {env: T}, claims: [a]}
  l: {type: jwt, key: {env: T}, algorithm: none}
  m: {type: exec, command: [x], env: {"A=B": c}}
  n: {type: exec, command: [x], env: {A: "b\0c"}}
=> 4: credentials.a.path: write the path of a file
=> 5: credentials.b: path is a folder: name the file in it
=> 6: credentials.c.command: write a list, program first, each argument by itself: there is no shell
=> 7: credentials.d.command.0: an argument holds no NUL: remove it
=> 8: credentials.e.format: write auto, text, exec_credential, docker, git or azure
=> 8: credentials.e.timeout: write a duration above zero, such as 30s
=> 9: credentials.f.cloud: write gcp or azure
=> 10: credentials.g: azure needs resource: say whom the token is for, such as https://management.azure.com/
=> 11: credentials.h: resource is not for gcp: remove it
=> 12: credentials.i: scope is not for azure: remove it
=> 13: credentials.j.app_id: write text, or a reference to it such as {env: NAME}
=> 13: credentials.j.installation_id: write text, or a reference to it such as {env: NAME}
=> 14: credentials.k.claims: write a mapping, such as {iss: tools, sub: ann@example.com}
=> 15: credentials.l.algorithm: write RS256, RS384, RS512, PS256, ES256, ES384, EdDSA, HS256, HS384 or HS512
=> 16: credentials.m.env: the name of a variable is not empty, and holds no = and no NUL: correct it
=> 17: credentials.n.env: the value of a variable holds no NUL: correct it where it comes from
### routes to metadata services
routes:
  - {prefix: /a, upstream: 'http://169.254.169.254', insecure_http: true}
  - {prefix: /b, upstream: 'http://2852039166/x', insecure_http: true}
  - {prefix: /c, upstream: 'http://0xa9fea9fe', insecure_http: true}
  - {prefix: /d, upstream: 'http://[::ffff:169.254.169.254]', insecure_http: true}
  - {prefix: /e, upstream: 'http://169.254.170.2', insecure_http: true}
  - {prefix: /f, upstream: 'http://Metadata.Google.Internal.', insecure_http: true}
=> 2: routes.0.upstream: this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a credential of type metadata
=> 3: routes.1.upstream: this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a credential of type metadata
=> 4: routes.2.upstream: this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a credential of type metadata
=> 5: routes.3.upstream: this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a credential of type metadata
=> 6: routes.4.upstream: this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a credential of type metadata
=> 7: routes.5.upstream: this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a credential of type metadata
### oauth2 that cannot authenticate
routes:
  - {prefix: /a, upstream: 'https://a.example'}
credentials:
  a: {type: oauth2, grant: client_credentials, token_url: 'https://id.example', client_id: x, client_auth: tls}
  b: {type: oauth2, grant: client_credentials, token_url: 'https://id.example', client_id: x, client_secret: {env: T}, tls: {ca: missing.pem}}
  c: {type: oauth2, grant: client_credentials, token_url: 'https://id.example', client_id: [x]}
=> 4: credentials.a: client_auth tls needs tls.cert: add it
=> 5: credentials.b.tls.ca: the file FOLDER/missing.pem does not exist: create it, or correct the path
=> 6: credentials.c.client_id: write text, or a reference to it such as {env: NAME}
### parameters of presets
routes:
  - {prefix: /a, upstream: 'https://a.example'}
credentials:
  a: {preset: entra, tenant: a b, client_id: x}
  b: {preset: vault, base_url: 'https://v.example', role: x}
  c: {preset: google-service-account, key_file: 5}
  d: {preset: github-app, app_id: 1, installation_id: 2, private_key: {env: T}, repositories: tools}
=> 4: credentials.a.tenant: write one word of letters, digits, '.', '_' and '-'
=> 4: credentials.a.client_secret: this key is missing: add it (the application's secret; or client_assertion)
=> 5: credentials.b.secret_id: this key is missing: add it (the secret_id of the AppRole; or jwt)
=> 6: credentials.c.key_file: write the path of a file
=> 7: credentials.d.repositories: write a list of texts, such as [a, b]
### a secret file that is not there
upstream: https://a.example
credential: {type: static, token: {file: missing}}
=> 2: credential.token: the file FOLDER/missing does not exist: create it, or correct the path
### a program that is not there
upstream: https://a.example
credential: {type: static, token: {command: [no-such-program-x, CANARY]}}
=> 2: credential.token: the command no-such-program-x could not be started: install it, or write its path
### a command that is no list
upstream: https://a.example
credential: {type: static, token: {command: echo CANARY}}
=> 2: credential.token: command takes a list, program first, each argument in quotes: [pass, show, api]
### a command that fails
upstream: https://a.example
credential: {type: static, token: {command: [sh, -c, 'echo CANARY >&2; exit 3']}}
=> 2: credential.token: the command sh ended with status 3: run it by hand to see why
### systemd outside a unit
upstream: https://a.example
credential: {type: static, token: {systemd: x}}
=> 2: credential.token: CREDENTIALS_DIRECTORY is not set: give the unit LoadCredential=, or use {file: PATH}
### a token of two lines
upstream: https://a.example
credential: {type: static, token: {env: MULTI}}
=> 2: credential.token: the token holds line breaks, spaces at its ends or characters beyond ASCII: correct it there
### an unknown preset
upstream: https://a.example
credential: {preset: teletraker, password: CANARY}
=> 2: credential.preset: there is no such preset, did you mean teletracker?
### a preset without what it needs
upstream: https://a.example
credential: {preset: teletracker, username: u}
=> 2: credential.password: this key is missing: add it (the user's password)
### an unknown parameter of a preset
upstream: https://a.example
credential: {preset: vanilla, token: {env: T}, inn: query}
=> 2: credential.inn: unknown key, did you mean in?
### a choice that there is not
upstream: https://a.example
credential: {preset: vanilla, token: {env: T}, in: CANARY}
=> 2: credential.in: write one of header, query
### a parameter without effect
upstream: https://a.example
credential: {preset: teletracker, username: u, password: {env: T}, masquerade_account: 1}
=> 2: credential.masquerade_account: this has no effect without masquerade_path: add that key, or remove this one
### a bad URL in a preset
upstream: https://a.example
credential:
  preset: mainbrainer
  base_url: http://u:CANARY@x.example
  username: u
  password: {env: T}
  private_token: {env: NOT_SET}
=> 4: credential.base_url: a URL holds no user name or password: move them into a credential
=> 7: credential.private_token: the environment variable NOT_SET is not set: export it, or correct the name
### a preset that places the token nowhere
upstream: https://a.example
credential: {preset: teletracker, username: u, password: {env: T}, authorization: false, authentication: false}
=> 2: credential.place: name at least one place: {header: NAME}, {query: NAME} or {cookie: NAME}
### an upstream with userinfo
upstream: https://u:CANARY@a.example
=> 1: upstream: a URL holds no user name or password: move them into a credential
### an upstream with a query
upstream: https://a.example/?k=CANARY
=> 1: upstream: an upstream has no query: remove everything from the '?' on
### an upstream that is not http
upstream: ftp://CANARY
=> 1: upstream: write a whole URL that begins with https:// or http://
### an upstream on a socket with a relative path
upstream: http+unix://run/x.sock
=> 1: upstream: UNIXFORM
### an upstream on a socket with an encoded path
upstream: http+unix://%2Frun%2Fx.sock/v2
=> 1: upstream: UNIXFORM
### an upstream on a socket without a path
upstream: http+unix:///
=> 1: upstream: UNIXFORM
### an upstream on a socket with a colon and no base path
upstream: 'http+unix:///run/x.sock:'
=> 1: upstream: UNIXFORM
### an upstream on a socket with a relative base path
upstream: http+unix:///run/x.sock:v2
=> 1: upstream: UNIXFORM
### an upstream on a socket with a base path that climbs
upstream: http+unix:///run/x.sock:/v2/../x
=> 1: upstream: UNIXFORM
### an upstream on a socket whose path climbs
upstream: http+unix:///run/../x.sock
=> 1: upstream: UNIXFORM
### an upstream on a socket with a control character
upstream: http+unix:///run/x%00.sock
=> 1: upstream: UNIXFORM
### an upstream on a socket with a query
upstream: http+unix:///run/x.sock?CANARY
=> 1: upstream: UNIXFORM
### an upstream on a socket with a path that is too long
upstream: http+unix:///LONGNAME
=> 1: upstream: UNIXFORM
### an upstream on a socket that is no UTF-8
upstream: http+unix:///run/%ff
=> 1: upstream: UNIXFORM
### an upstream on a socket of the proxy itself
listen: unix:/run/x.sock
upstream: http+unix:///run/x.sock
=> 2: upstream: this is the proxy's own address, a loop: write the address of the upstream
### a login on a socket
upstream: https://a.example
credential: {type: login, login: {url: 'http+unix:///run/x.sock'}}
=> 2: credential.login.url: write a whole URL that begins with https:// or http://
### an outbound proxy with userinfo
upstream: https://a.example
via: http://u:CANARY@proxy.example:3128
=> 2: via.url: a URL holds no user name or password: write via: {url: http://HOST:PORT, username: NAME, password: {env: NAME}}
### an outbound proxy over TLS
upstream: https://a.example
via: https://proxy.example:3128
=> 2: via.url: write the outbound proxy as http://host:port; inside, https is still https
### an outbound proxy that speaks SOCKS
upstream: https://a.example
via: {url: 'socks5://proxy.example:1080'}
=> 2: via.url: write the outbound proxy as http://host:port; inside, https is still https
### an outbound proxy with a path
upstream: https://a.example
via: http://proxy.example:3128/CANARY
=> 2: via.url: write the outbound proxy without a path, such as http://proxy.example.com:3128
### an outbound proxy with a user and no password
upstream: https://a.example
via: {url: 'http://proxy.example:3128', username: u}
=> 2: via: username and password go together: add the other one
### an outbound proxy with a password and no user
upstream: https://a.example
via: {url: 'http://proxy.example:3128', password: {env: T}}
=> 2: via: username and password go together: add the other one
### an outbound proxy with a password written out
upstream: https://a.example
via: {url: 'http://proxy.example:3128', username: u, password: CANARY}
=> 2: via.password: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
### an outbound proxy with a user that holds a colon
upstream: https://a.example
via: {url: 'http://proxy.example:3128', username: 'u:CANARY', password: {env: T}}
=> 2: via.username: write a user name without colons and control characters
### an outbound proxy that is the proxy
listen: 127.0.0.1:9000
upstream: https://a.example
via: http://localhost:9000
=> 3: via: this is the proxy's own address, a loop: write the address of the outbound proxy
### an outbound proxy before a socket
upstream: http+unix:///run/x.sock
via: http://proxy.example:3128
=> 2: via: a Unix socket is on this machine: remove via, or write the upstream's https:// URL
### an outbound proxy before somebody else's localhost
upstream: http://localhost:9000
via: http://proxy.example:3128
=> 1: upstream: plain http shows the token to the network: write https://, or set insecure_http: true
### a client key without its certificate
upstream: https://a.example
tls: {key: config.yaml}
=> 2: tls: a key belongs to a certificate: add cert: client.pem
### a client key that others can read
upstream: https://a.example
tls: {cert: config.yaml, key: config.yaml}
=> 2: tls: others on this machine can read FILE: run `chmod 600 FILE`
### a client certificate that others can read with its key
upstream: https://a.example
tls: {cert: config.yaml}
=> 2: tls: others on this machine can read FILE: run `chmod 600 FILE`
### a client certificate that is not there
upstream: https://a.example
tls: {cert: missing.pem, key: missing.key, server_name: 'a b'}
=> 2: tls.cert: the file FOLDER/missing.pem does not exist: create it, or correct the path
=> 2: tls.key: the file FOLDER/missing.key does not exist: create it, or correct the path
=> 2: tls.server_name: write a host name, such as api.example.com (an international one in its xn-- form)
### an upstream in plain http
upstream: http://a.example
=> 1: upstream: plain http shows the token to the network: write https://, or set insecure_http: true
### an upstream that is the proxy
listen: 127.0.0.1:9000
upstream: http://localhost:9000
=> 2: upstream: this is the proxy's own address, a loop: write the address of the upstream
### an upstream that is the proxy, in other words
listen: [127.0.0.1:9000, '[::1]:9001']
routes:
  - {prefix: /a, upstream: 'http://127.1:9000', insecure_http: true}
  - {prefix: /b, upstream: 'http://2130706433:9000', insecure_http: true}
  - {prefix: /c, upstream: 'http://[::ffff:127.0.0.1]:9000', insecure_http: true}
  - {prefix: /d, upstream: 'http://[0:0::0:1]:9001'}
=> 3: routes.0.upstream: this is the proxy's own address, a loop: write the address of the upstream
=> 4: routes.1.upstream: this is the proxy's own address, a loop: write the address of the upstream
=> 5: routes.2.upstream: this is the proxy's own address, a loop: write the address of the upstream
=> 6: routes.3.upstream: this is the proxy's own address, a loop: write the address of the upstream
### an upstream that is a number
upstream: 8080
=> 1: upstream: write text, in quotes if it looks like a number or a word such as true
### listening for everybody
listen: 0.0.0.0:8080
upstream: https://a.example
=> 1: listen: others can reach this address: set guard.client_key, or listen on 127.0.0.1
### a port too high
listen: 127.0.0.1:80800
upstream: https://a.example
=> 1: listen: write a port between 0 and 65535
### a listen address without host
listen: :8080
upstream: https://a.example
=> 1: listen: write an address with its host, such as 127.0.0.1:8080 or [::1]:8080
### a port instead of an address
listen: 8080
upstream: https://a.example
=> 1: listen: write an address with its host, such as 127.0.0.1:8080
### socket activation, twice and misspelt
listen: [systemd, systemd, Systemd]
upstream: https://a.example
=> 1: listen.2: write an address with its host, such as 127.0.0.1:8080 or [::1]:8080
### collectors that are none
tracing: {otlp: 127.0.0.1:4318, ratio: 1.5}
upstream: https://a.example
=> 1: tracing.otlp: write the collector's URL, such as http://127.0.0.1:4318
=> 1: tracing.ratio: write a number from 0 to 1
### a collector with a password
tracing: {otlp: 'https://ann:secret-word@collector.example', ratio: true}
upstream: https://a.example
=> 1: tracing.otlp: write scheme, host, port and path alone; OTEL_EXPORTER_OTLP_HEADERS may hold a key
=> 1: tracing.ratio: write a number from 0 to 1
### bad Unix sockets for several users
listen:
- {unix: run/x}
- {unix: /run/x, mod: 0660}
- {unix: 17}
- {unix: /run/x, mode: 0644}
- {unix: /run/x, mode: 0o660}
- {unix: /run/x, mode: 432}
- {unix: /run/x, mode: 0660, group: ''}
- {unix: /run/x, mode: 0660, group: true}
- {unix: /run/x, group: api}
- {unix: /run/x, mode: 0600, group: api}
- {unix: /run/x, tcp: 127.0.0.1:1}
upstream: https://a.example
=> 2: listen.0: write an absolute path of at most 103 bytes, such as unix:/run/p.sock
=> 3: listen.1: write unix:/path, or {unix: /path, mode: 0660, group: NAME} for a socket of several users
=> 4: listen.2: write unix:/path, or {unix: /path, mode: 0660, group: NAME} for a socket of several users
=> 5: listen.3: write the mode as 0600, 0660 (the group may connect, too) or 0666 (everybody)
=> 6: listen.4: write the mode as 0600, 0660 (the group may connect, too) or 0666 (everybody)
=> 7: listen.5: write the mode as 0600, 0660 (the group may connect, too) or 0666 (everybody)
=> 8: listen.6: write the name or the number of a group
=> 9: listen.7: write the name or the number of a group
=> 10: listen.8: with this mode the group may not connect: add mode: 0660, or leave group out
=> 11: listen.9: with this mode the group may not connect: add mode: 0660, or leave group out
=> 12: listen.10: write unix:/path, or {unix: /path, mode: 0660, group: NAME} for a socket of several users
### a Unix socket for everybody
listen: [{unix: /run/x, mode: 0666}, unix:/run/x]
upstream: https://a.example
=> 1: listen.0: every user of this machine may connect: set guard.client_key, or write mode: 0660 and a group
=> 1: listen.1: this address is there twice: remove one
### a Unix socket for everybody, and everybody on purpose
listen: [{unix: /run/x, mode: 0666}]
upstream: https://a.example
guard: {peers: {uids: any}}
=> 1: listen.0: every user of this machine may connect: set guard.client_key, or write mode: 0660 and a group
### addresses that instances cannot share
listen:
  - {tcp: 127.0.0.1:0, reuse_port: true}
  - {tcp: 127.0.0.1:1, reuse_port: 1}
  - {tcp: 127.0.0.1:1, reuse_ports: true}
  - {reuse_port: true}
  - {tcp: unix:/run/p.sock, reuse_port: true}
  - {tcp: 8080, reuse_port: true}
admin: {listen: {tcp: 127.0.0.1:1, reuse_port: true}}
upstream: https://a.example
=> 2: listen.0: a port that several instances share is one that they know: write it instead of 0
=> 3: listen.1: write host:port, or {tcp: HOST:PORT, reuse_port: true} for a port of several instances
=> 4: listen.2: write host:port, or {tcp: HOST:PORT, reuse_port: true} for a port of several instances
=> 5: listen.3: write host:port, or {tcp: HOST:PORT, reuse_port: true} for a port of several instances
=> 6: listen.4: write tcp: and an address with its host, such as 127.0.0.1:8080
=> 7: listen.5: write an address with its host, such as 127.0.0.1:8080
=> 8: admin.listen: write host:port, such as 127.0.0.1:8081, or null
### an address twice
listen: [127.0.0.1:1, 127.0.0.1:1]
upstream: https://a.example
=> 1: listen.1: this address is there twice: remove one
### an address twice, shared and not
listen: [127.0.0.1:1, {tcp: 127.0.0.1:1, reuse_port: true}, {tcp: 127.0.0.1:2, reuse_port: true}]
admin: {listen: 127.0.0.1:2}
upstream: https://a.example
=> 1: listen.1: this address is there twice: remove one
=> 2: admin.listen: this address is taken by listen: choose another port
### two routes that match the same
routes:
  - {prefix: /a, upstream: 'https://a.example'}
  - {prefix: /a/, upstream: 'https://b.example'}
=> 3: routes.1.prefix: this route matches the same requests as a: change prefix or host
### two routes of one name
routes:
  - {prefix: /a, upstream: 'https://a.example'}
  - {prefix: /b, name: a, upstream: 'https://b.example'}
=> 3: routes.1.name: another route has this name: choose another
### a route without prefix
routes:
  - {upstream: 'https://a.example'}
=> 2: routes.0: this route has neither prefix nor host: add prefix: /name
### bad prefixes
routes:
  - {prefix: /~x, upstream: 'https://a.example'}
  - {prefix: /a/../b, upstream: 'https://a.example'}
  - {prefix: a, upstream: 'https://a.example'}
=> 2: routes.0.prefix: a first segment that begins with '~' is kept for client keys: choose another prefix
=> 3: routes.1.prefix: write a prefix without empty, '.' and '..' segments
=> 4: routes.2.prefix: write a prefix that begins with a slash, of plain characters and %XX escapes
### short and long form at once
upstream: https://a.example
routes: []
=> 1: upstream: this is the short form's: move it into one of the routes
=> 2: routes: write a list of routes, each with a prefix and an upstream
### a credential for two origins
routes:
  - {prefix: /a, upstream: 'https://a.example', credential: c}
  - {prefix: /b, upstream: 'https://b.example', credential: c}
credentials:
  c: {type: static, token: {env: T}}
=> 3: routes.1.upstream: its credential is bound to another origin: add this one to the origins of c
### headers that frame
upstream: https://a.example
headers: {set: {Host: x}, remove: [Content-Length]}
=> 2: headers.set.Host: this header frames the message and belongs to the proxy: remove it here
=> 2: headers.remove.0: this header frames the message and belongs to the proxy: remove it here
### bad headers
upstream: https://a.example
headers: {set: {'X Y': x, X-A: "a\nb", X-N: 1}}
=> 2: headers.set.***: this is not a header name: write letters, digits and hyphens, without spaces or colons
=> 2: headers.set.X-A: write a header value in printable ASCII, without line breaks or spaces at its ends
=> 2: headers.set.X-N: write text, in quotes if it looks like a number or a word such as true
### a token in Host
upstream: https://a.example
credential: {type: static, token: {env: T}, place: {header: Host}}
=> 2: credential.place: this header frames the message and belongs to the proxy: remove it here
### odd places
upstream: https://a.example
credential: {type: static, token: {env: T}, place: [{query: a, scheme: B}, {cookie: bearer_proxy_x}, {heder: x}]}
=> 2: credential.place.0: scheme belongs to a header: remove it here
=> 2: credential.place.1: cookies called bearer_proxy_… belong to the proxy: choose another name
=> 2: credential.place.2: write {header: NAME, scheme: WORD}, {query: NAME} or {cookie: NAME}
### a place twice
upstream: https://a.example
credential: {type: static, token: {env: T}, place: [{header: A}, {header: a}]}
=> 2: credential.place: two places are the same: remove one
### a secret among constants
upstream: https://a.example
credential: {type: static, token: {env: T}, headers: {X-Api-Key: CANARY}}
=> 2: credential.headers.X-Api-Key: this looks like a secret, and constants are shown: make it the token of a credential with place, or let only this file's owner read it (mode 0600)
### bad durations and sizes
upstream: https://a.example
timeouts: {connect: 5 minutes, idle: 0, token: true}
limits: {body_bytes: 1 MB, header_bytes: 10, connections: 0}
=> 2: timeouts.token: write a duration: a number of seconds, or 30s, 5m, 1h, 29d
=> 2: timeouts.connect: write a duration: a number of seconds, or 30s, 5m, 1h, 29d
=> 2: timeouts.idle: write a duration above zero, such as 30s
=> 3: limits.connections: write a number above zero
=> 3: limits.header_bytes: write at least 1024: less than that holds no request
=> 3: limits.body_bytes: write a size: a number of bytes, or 64KiB, 1MiB, 1GiB
### wrong types
upstream: https://a.example
log: {level: verbose, access: 'yes'}
admin: {key: null, listen: unix:/x}
guard: x
=> 2: log.level: write debug, info, warning or error
=> 2: log.access: write true or false
=> 3: admin.listen: write host:port, such as 127.0.0.1:8081, or null
=> 4: guard: write a mapping, such as {key: value}
### a bad guard
upstream: https://a.example
guard: {client_key: {env: SHORT}, hosts: ['a:1'], origins: ['*']}
=> 2: guard.hosts.0: write the host alone, without scheme and port
=> 2: guard.origins.0: write a browser origin, such as http://localhost:3000, without path and without '*'
=> 2: guard.client_key: a key has at least 16 characters, all of them letters, digits, '_' or '-': choose such a one
### bad client keys
upstream: https://a.example
guard:
  client_keys:
    a: {key: {env: SHORT}, methods: [get], paths: [a]}
    b: {methods: [GET]}
    'c/d': {key: {env: T}}
    e: {key: {env: T}, methods: []}
    f: {key: {env: T}, paths: []}
    g: CANARY
    h: {key: {env: T}, path: [/x]}
=> 4: guard.client_keys.a.key: a key has at least 16 characters, all of them letters, digits, '_' or '-': choose such a one
=> 4: guard.client_keys.a.methods.0: write a method in capital letters, such as GET
=> 4: guard.client_keys.a.paths.0: write a path that begins with '/' (or '*'), without a query, such as /v2/invoices/*
=> 5: guard.client_keys.b.key: this key is missing: add it
=> 6: guard.client_keys.c/d: write a name of letters, digits, '_', '.' and '-'
=> 7: guard.client_keys.e: with this key nothing may be done: name methods and paths, or leave them out
=> 8: guard.client_keys.f: with this key nothing may be done: name methods and paths, or leave them out
=> 9: guard.client_keys.g: write a mapping, such as {key: value}
=> 10: guard.client_keys.h.path: unknown key, did you mean paths?
### client keys that are one
upstream: https://a.example
guard:
  client_key: {env: T}
  client_keys:
    a: {key: {env: T}}
    b: {key: {env: T2}}
    c: {key: {env: T2}, methods: [GET]}
=> 5: guard.client_keys.a.key: another client has this key: choose another
=> 7: guard.client_keys.c.key: another client has this key: choose another
### bad peers
upstream: https://a.example
guard: {peers: {uids: 1000}, browser: maybe}
=> 2: guard.peers.uids: write any, or a list of self and of users' numbers, such as [self, 1000]
=> 2: guard.browser: write true or false
### bad peers in a list
upstream: https://a.example
guard: {peers: {uids: [self, root]}}
=> 2: guard.peers.uids: write any, or a list of self and of users' numbers, such as [self, 1000]
### no user at all
upstream: https://a.example
guard: {peers: {uids: [4294967295]}}
=> 2: guard.peers.uids: write any, or a list of self and of users' numbers, such as [self, 1000]
### an empty list of peers
upstream: https://a.example
guard: {peers: {uids: [], gids: [1]}}
=> 2: guard.peers.uids: write any, or a list of self and of users' numbers, such as [self, 1000]
=> 2: guard.peers.gids: unknown key, did you mean uids?
### a bad status
upstream: https://a.example
refresh_on: [401, x]
=> 2: refresh_on.1: write a status between 200 and 599, such as 401
### a status that is no list
upstream: https://a.example
refresh_on: 401
=> 2: refresh_on: write a list, such as [a, b]
### a bad inject
upstream: https://a.example
inject: always
=> 2: inject: write overwrite, if-absent or {replace: PLACEHOLDER}
### bad rules
upstream: https://a.example
deny: [{methods: [get]}, {paths: [auth]}, {}]
=> 2: deny.0.methods.0: write a method in capital letters, such as GET
=> 2: deny.1.paths.0: write a path that begins with '/' (or '*'), without a query, such as /v2/invoices/*
=> 2: deny.2: name at least one path or method, such as {methods: [GET], paths: [/v2/*]}
### bad rules of expiry
upstream: https://a.example
credential: {type: static, token: {env: T}, expired: [{statuses: any}, {statuses: [9]}, {body: {code: 1}}]}
=> 2: credential.expired.0: this rule takes every answer for an expired token: add headers or body, or name statuses
=> 2: credential.expired.1.statuses: write a status between 200 and 599, such as 401
=> 2: credential.expired.2.body.code: write a JSON pointer, such as /access_token or /data/token
### headers that the proxy sends by itself
upstream: https://a.example
forwarded: true
headers: {set: {X-Tenant: a, X-Forwarded-Host: b}, remove: [X-Debug, x-forwarded-proto, X-Forwarded-Port]}
=> 3: headers.set.X-Forwarded-Host: forwarded: true sends this header already: remove one of the two
=> 3: headers.remove.1: forwarded: true sends this header already: remove one of the two
### bad switches
upstream: https://a.example
forwarded: yes please
rewrite: {location: "true", cookie: false, hsts: 0}
=> 2: forwarded: write true or false
=> 3: rewrite.location: write true or false
=> 3: rewrite.hsts: write true or false
=> 3: rewrite.cookie: unknown key, did you mean cookies?
### settings that are not built
upstream: https://a.example
credential: {type: login, login: {url: https://a.example/login, fields: {a: b}}, response: {token: /t, upstream: /u}}
=> 2: credential.response.upstream: this setting is not built yet: remove it
### an inspector that keeps nothing, or too much
upstream: https://a.example
admin:
  inspector: {exchanges: -1, bodies: 2MiB, captures: 1}
=> 3: admin.inspector.exchanges: write a number from 0 to 100000
=> 3: admin.inspector.bodies: write at most 1MiB
=> 3: admin.inspector.captures: unknown key: write one of bodies, exchanges
### two routes with one variable
routes:
  - {name: a-b, prefix: /a, upstream: https://a.example}
  - {name: c, prefix: /c, upstream: https://a.example}
  - {name: A_B, prefix: /b, upstream: https://a.example}
=> 4: routes.2.name: for `exec` this route is BEARER_PROXY_URL_A_B, and so is a-b: choose another name
### variables of a program that lead nowhere
routes:
  - {name: billing, prefix: /a, upstream: https://a.example}
  - {name: crm, prefix: /b, upstream: ftp://a.example}
exec:
  env: {GOOD: billing, ALSO: crm, TYPO: biling, BAD: CANARY, BEARER_PROXY_URL: billing, BEARER_PROXY_URL_BILLING: billing, A-B: billing}
  environ: {}
=> 3: routes.1.upstream: write a whole URL that begins with https:// or http://
=> 5: exec.env.A-B: write the name of an environment variable: letters, digits and '_'
=> 6: exec.environ: unknown key, did you mean env?
### variables of a program that are taken
routes:
  - {name: billing, prefix: /a, upstream: https://a.example}
  - {name: crm, prefix: /b, upstream: https://a.example}
exec:
  env: {GOOD: billing, ALSO: crm, TYPO: biling, BAD: CANARY, BEARER_PROXY_URL: billing, BEARER_PROXY_URL_BILLING: billing}
=> 5: exec.env.TYPO: no route has this name, did you mean billing?
=> 5: exec.env.BAD: no route has this name: write one of billing, crm
=> 5: exec.env.BEARER_PROXY_URL: `exec` sets this variable by itself: choose another
=> 5: exec.env.BEARER_PROXY_URL_BILLING: `exec` sets this variable by itself: choose another
### a store of files without a folder
upstream: https://a.example
store: {kind: file, key: {env: STORE_KEY}}
=> 2: store: kind: file needs path: name a folder for the sealed tokens, such as path: tokens
### a store of files without a key
upstream: https://a.example
store: {kind: file, path: tokens}
=> 2: store: kind: file needs key: run `(umask 077; bearer-proxy keygen > store.key)`, and add key: {file: store.key}
### a store of files with no keys
upstream: https://a.example
store: {kind: file, path: tokens, key: []}
=> 2: store.key: name at least one key: make one with `bearer-proxy keygen`
### a store of files with something else for a key
upstream: https://a.example
store:
  kind: file
  path: {file: tokens}
  key:
    - {env: STORE_KEY}
    - {env: T}
    - CANARY
=> 4: store.path: write the path of a folder
=> 7: store.key.1: a store key is 32 bytes in base64: make one with `bearer-proxy keygen`
=> 8: store.key.2: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
### a store in memory with what files need
upstream: https://a.example
store: {path: tokens, key: {env: STORE_KEY}}
=> 2: store: path and key: only for kind: file; write that, or remove the rest
### a store of files with what a server needs
upstream: https://a.example
store: {kind: file, path: tokens, url: redis://a.example, password: {env: T}, tls: {ca: FOLDER/config.yaml}, prefix: a, key: {env: STORE_KEY}}
=> 2: store: url and password and tls and prefix: only for kind: redis; write that, or remove the rest
### a store on a server with a folder
upstream: https://a.example
store: {kind: redis, path: tokens, url: redis://a.example, key: {env: STORE_KEY}}
=> 2: store: path: only for kind: file; write that, or remove the rest
### a store on a server without its address
upstream: https://a.example
store: {kind: redis, key: {env: STORE_KEY}}
=> 2: store: kind: redis needs url: write the server's, such as url: rediss://redis.example.com
### a store on a server without a key
upstream: https://a.example
store: {kind: redis, url: redis://a.example}
=> 2: store: kind: redis needs key: run `(umask 077; bearer-proxy keygen > store.key)`, and add key: {file: store.key}
### a store on a server with the password in its address
upstream: https://a.example
store: {kind: redis, url: 'redis://user:CANARY@a.example', key: {env: STORE_KEY}}
=> 2: store.url: a URL holds no user name or password: write username: NAME and password: {env: NAME} beside it
### a store on a server with the password behind its address
upstream: https://a.example
store: {kind: redis, url: 'unix:///run/redis.sock?password=CANARY', key: {env: STORE_KEY}}
=> 2: store.url: a URL holds no user name or password: write username: NAME and password: {env: NAME} beside it
### a store on a server with another address
upstream: https://a.example
store: {kind: redis, url: https://a.example, key: {env: STORE_KEY}}
=> 2: store.url: write redis://HOST:PORT, rediss://HOST:PORT (with TLS) or unix:///run/redis.sock
### a store on a server with what belongs to its database
upstream: https://a.example
store: {kind: redis, url: redis://a.example/tokens, key: {env: STORE_KEY}}
=> 2: store.url: write the number of the database as redis://HOST:PORT/3 or unix:///run/redis.sock?db=3
### a store on a server that nobody can reach
upstream: https://a.example
store: {kind: redis, url: 'redis://a.example:0', key: {env: STORE_KEY}}
=> 2: store.url: write redis://HOST:PORT or redis://HOST:PORT/DATABASE, and nothing behind it
### a store on a server with a port that is none
upstream: https://a.example
store: {kind: redis, url: 'redis://a.example:x', key: {env: STORE_KEY}}
=> 2: store.url: write a URL with a proper host and a port between 1 and 65535
### a store on a socket without a path
upstream: https://a.example
store: {kind: redis, url: 'unix://run/redis.sock', key: {env: STORE_KEY}}
=> 2: store.url: write unix:// and the socket's absolute path of at most 103 bytes: unix:///run/redis.sock
### a store on a server with blanks in its address
upstream: https://a.example
store: {kind: redis, url: 'unix:///run/my redis.sock', key: {env: STORE_KEY}}
=> 2: store.url: write the URL in ASCII without spaces and '#'
### a store on a server with a user who has no password, and a prefix that is none
upstream: https://a.example
store: {kind: redis, url: redis://a.example, username: 'a b', prefix: '{a}', key: {env: STORE_KEY}}
=> 2: store.username: write the name of a user without spaces and control characters
=> 2: store.prefix: write up to 100 letters, digits, and any of '_', '.', ':' and '-'
### a store on a server with a user alone
upstream: https://a.example
store: {kind: redis, url: redis://a.example, username: proxy, key: {env: STORE_KEY}}
=> 2: store: a username needs its password: add password: {env: NAME}
### a store on a server with TLS that it does not speak
upstream: https://a.example
store: {kind: redis, url: redis://a.example, tls: {ca: FOLDER/config.yaml}, key: {env: STORE_KEY}}
=> 2: store: tls is for servers with TLS: write url: rediss://HOST:PORT, or remove tls
### a store in memory with the address of a server
upstream: https://a.example
store: {url: redis://a.example}
=> 2: store: url: only for kind: redis; write that, or remove the rest
### a store that is no mapping
upstream: https://a.example
store: file
=> 2: store: write a mapping, such as {key: value}
### a bad login
upstream: https://a.example
credential:
  type: login
  login: {url: 'http://id.example', fields: {password: CANARY, pin: {env: NOT_SET}, x: [1]}}
  refresh: {url: 'https://id.example'}
  response: {token: access_token, lifetime_unit: hours}
=> 4: credential.login.fields.password: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
=> 4: credential.login.fields.pin: the environment variable NOT_SET is not set: export it, or correct the name
=> 4: credential.login.fields.x: write text, a number, true, false or null
=> 6: credential.response.token: write a JSON pointer, such as /access_token or /data/token
=> 6: credential.response.lifetime_unit: write seconds, milliseconds or minutes
### a login that cannot work
upstream: https://a.example
credential:
  type: login
  login: {url: 'http://id.example', fields: {a: $refresh_token}}
  refresh: {url: 'https://id.example'}
=> 4: credential.login.url: plain http shows the secrets to the network: write https://, or set insecure_http: true
=> 4: credential.login: the first step has no $refresh_token yet: write a reference to a secret
=> 5: credential.refresh: a refresh needs response.refresh_token: say where it stands in the reply, or remove refresh
### a CA file that is not there
upstream: https://a.example
tls: {ca: missing.pem}
=> 2: tls.ca: the file FOLDER/missing.pem does not exist: create it, or correct the path
### credentials that are a list
routes: [{prefix: /, upstream: 'https://a.example'}]
credentials: [a]
=> 2: credentials: write a mapping: a name, and below it a credential
### a credential that is empty
routes: [{prefix: /, upstream: 'https://a.example', credential: a}]
credentials: {a: }
=> 2: credentials.a: write a mapping with type: TYPES, or with preset: NAME
### routes that are a mapping
routes: {a: b}
=> 1: routes: write a list of routes, each with a prefix and an upstream
### a bad name of a credential
routes:
  - {prefix: /, upstream: 'https://a.example', credential: a/b}
credentials:
  a/b: {type: static, token: {env: T}}
=> 4: credentials.a/b: write a name of letters, digits, '_', '.' and '-'
### a constant in the place of the token
upstream: https://a.example
credential: {type: static, token: {env: T}, headers: {authorization: x}}
=> 2: credential.headers.authorization: the token itself goes into this header: remove it here
### mistakes in all parts at once
listen: 0.0.0.0:80800
routes:
  - {prefix: /a, upstream: 'ftp://a.example', credential: nobody}
  - {prefix: /b, upstream: 'https://b.example', timeouts: {idle: never}}
  - {prefix: /b, upstream: 'https://b.example'}
credentials:
  one: {type: static, token: CANARY}
log: {level: loud}
=> 1: listen: write a port between 0 and 65535
=> 3: routes.0.upstream: write a whole URL that begins with https:// or http://
=> 3: routes.0.credential: there is no credential of this name: add it to credentials, or correct the name
=> 4: routes.1.timeouts.idle: write a duration: a number of seconds, or 30s, 5m, 1h, 29d
=> 7: credentials.one.token: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
=> 8: log.level: write debug, info, warning or error
### dangers in all parts at once
listen: 0.0.0.0:8080
routes:
  - {prefix: /a, upstream: 'http://a.example', credential: nobody}
  - {prefix: /a, upstream: 'https://b.example'}
credentials:
  one: {type: static, token: CANARY}
log: {level: loud}
=> 1: listen: others can reach this address: set guard.client_key, or listen on 127.0.0.1
=> 3: routes.0.upstream: plain http shows the token to the network: write https://, or set insecure_http: true
=> 3: routes.0.credential: there is no credential of this name: add it to credentials, or correct the name
=> 4: routes.1.prefix: this route matches the same requests as a: change prefix or host
=> 6: credentials.one.token: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
=> 7: log.level: write debug, info, warning or error
### credentials that are a list, short
upstream: https://a.example
credential: {type: static, token: {env: T}}
credentials: [a]
=> 3: credentials: write a mapping of credentials, none of them called default
### admin on an address that is taken
listen: 127.0.0.1:9001
admin: {listen: 127.0.0.1:9001}
upstream: https://a.example
=> 2: admin.listen: this address is taken by listen: choose another port
### an upstream that is the admin listener
admin: {listen: 127.0.0.1:9001}
upstream: http://127.0.0.1:9001
=> 2: upstream: this is the proxy's own address, a loop: write the address of the upstream
### odd upstreams
routes:
  - {prefix: /a, upstream: 'https://a.example:99999'}
  - {prefix: /b, upstream: 'https://a.example#x'}
  - {prefix: /c, upstream: 'https://ä.example'}
  - {prefix: /d, upstream: 'https://a.example/../x'}
  - {prefix: /e, upstream: 'https://a_b!.example'}
  - {prefix: /f, upstream: 'https://:80'}
=> 2: routes.0.upstream: write a URL with a proper host and a port between 1 and 65535
=> 3: routes.1.upstream: a URL here has no fragment: remove everything from the '#' on
=> 4: routes.2.upstream: write the URL in ASCII without spaces (percent-encoded, international names as xn--)
=> 5: routes.3.upstream: write a path of plain characters and %XX escapes, without '.' and '..' segments
=> 6: routes.4.upstream: write a host name, such as api.example.com (an international one in its xn-- form)
=> 7: routes.5.upstream: write a URL with a proper host and a port between 1 and 65535
### bad origins of a credential
upstream: https://a.example
credential: {type: static, token: {env: T}, origins: ['https://b.example/x', 5]}
=> 2: credential.origins.0: write an origin without a path, such as https://api.example.com
=> 2: credential.origins.1: write an origin, such as https://api.example.com
### bad listen addresses
listen: [unix:p.sock, 'a:b', '[::1]:99999999']
upstream: https://a.example
=> 1: listen.0: write an absolute path of at most 103 bytes, such as unix:/run/p.sock
=> 1: listen.1: write a port between 0 and 65535
=> 1: listen.2: write a port between 0 and 65535
### bad hosts
upstream: https://a.example
host_header: 'a b'
host: 'https://x'
=> 2: host_header: write a host name, such as api.example.com (an international one in its xn-- form)
=> 3: host: write the host alone, without scheme and port
### parameters of the wrong kind
upstream: https://a.example
credential: {preset: mainbrainer, base_url: 5, username: u, password: 5, private_token: {env: T}, private_token_in: {header: Host}, trailing_slash: 'yes'}
=> 2: credential.base_url: write a URL, such as https://api.example.com
=> 2: credential.password: write a reference to a secret: REFERENCES
=> 2: credential.private_token_in: write body or {header: NAME}
=> 2: credential.trailing_slash: write true or false
### a preset that is no text
upstream: https://a.example
credential: {preset: 5}
=> 2: credential.preset: there is no such preset: `bearer-proxy presets` lists them
### secrets written out in a preset
upstream: https://a.example
credential:
  preset: mainbrainer
  base_url: https://x.example
  username: u
  password: CANARY
  private_token: CANARY
  private_token_in: {header: X-Odd}
=> 6: credential.password: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
=> 7: credential.private_token: a secret is not written out here: write {env: NAME} or {file: PATH}, or run `chmod 600 FILE`
### a key that is a list
? [a]
: b
=> 1: a key is text: put it in quotes
### more odd places
upstream: https://a.example
credential: {type: static, token: {env: T}, place: [{header: Cookie}, {header: X, scheme: 5}, {scheme: 'a b'}, {query: 'a b'}, {header: a, query: b}]}
=> 2: credential.place.0: this header is not one for a token: write {cookie: NAME} or another header
=> 2: credential.place.1: write the scheme as one word such as Bearer, or null for the raw token
=> 2: credential.place.2: write one word of letters, digits and hyphens, without spaces or colons
=> 2: credential.place.3: write one word of letters, digits and hyphens, without spaces or colons
=> 2: credential.place.4: write exactly one of header, query and cookie, with a name
### bad pointers and header names
upstream: https://a.example
credential: {type: login, login: {url: 'https://x.example', headers: {'a b': x}}, response: {token: 'header:a b', expires: exp}}
=> 2: credential.login.headers.***: this is not a header name: write letters, digits and hyphens, without spaces or colons
=> 2: credential.response.token: write header: and a header name, such as header:X-Auth-Token
=> 2: credential.response.expires: write a JSON pointer, such as /access_token or /data/token
### a bad placeholder
upstream: https://a.example
inject: {replace: 'a b'}
=> 2: inject: write a placeholder without spaces
### a CA file that is a number
upstream: https://a.example
tls: {ca: 5}
=> 2: tls.ca: write the path of a file
### an empty mapping
{}
=> 1: the configuration is empty: write at least upstream: https://…
### a credential called default beside the short form's
upstream: https://a.example
credential: {type: static, token: {env: T}}
credentials: {default: {}}
=> 3: credentials: write a mapping of credentials, none of them called default
### a token that is no cookie
upstream: https://a.example
credential: {type: static, token: {env: SPACED}, place: {cookie: c}}
=> 2: credential.token: this token holds characters that no cookie may hold: place it in a header
### a tag of one's own
upstream: https://a.example
log: !mine CANARY
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log: write a mapping, such as {key: value}
### a tag that does not fit
upstream: https://a.example
log: {level: !!int CANARY}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log.level: write debug, info, warning or error
### a mapping with a tag
upstream: https://a.example
log: !!set {CANARY}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log: write a mapping, such as {key: value}
### a tag that ends like one of YAML's
upstream: https://a.example
log: {level: !!fields:int CANARY}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log.level: write debug, info, warning or error
### a tag that is only the end of one of YAML's
upstream: https://a.example
log: {level: !<int> CANARY}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log.level: write debug, info, warning or error
### a tag that does not fit, again by its alias
upstream: https://a.example
log: {level: &a !!int CANARY, format: *a}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log.level: write debug, info, warning or error
=> 2: log.format: write text or json
### a number without a digit
upstream: https://a.example
log: {level: !!int ""}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log.level: write debug, info, warning or error
### a number that no float holds
upstream: https://a.example
log: {level: !!float 1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1.5}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log.level: write debug, info, warning or error
### a mapping whose tag ends like one of YAML's
upstream: https://a.example
log: !!fields:map {level: info}
=> 2: tags (a '!' before a value) are not taken: remove it, or quote the value
=> 2: log: write a mapping, such as {key: value}
### an unknown key of a rule
upstream: https://a.example
deny: [{path: /x}]
=> 2: deny.0.path: unknown key, did you mean paths?
### fields that are a list
upstream: https://a.example
credential: {type: login, login: {url: 'https://x.example', fields: [a]}}
=> 2: credential.login.fields: write a mapping, such as {key: value}
### a status of expiry that is no list
upstream: https://a.example
credential: {type: static, token: {env: T}, expired: [{statuses: 401}]}
=> 2: credential.expired.0.statuses: write a list of statuses, such as [401, 403], or the word any
### no listen address
listen: []
upstream: https://a.example
=> 1: listen: name at least one address, such as 127.0.0.1:8080
### a deny beside a preset that is no list
upstream: https://a.example
deny: x
credential: {preset: vanilla, token: {env: T}}
=> 2: deny: write a list, such as [a, b]
### a header of a preset that is a number
upstream: https://a.example
credential: {preset: mainbrainer, base_url: 'https://x.example', username: u, password: {env: T}, private_token: {env: T}, private_token_in: {header: 5}}
=> 2: credential.private_token_in: write body or {header: NAME}
### a preset key that its type does not have
upstream: https://a.example
credential: {preset: vanilla, token: {env: T}, insecure_http: true}
=> 2: credential.insecure_http: unknown key: write one of expired, expires, headers, margin, origins, place, strip_headers, strip_query, token, type
### a password in plain http
upstream: https://a.example
credential: {preset: teletracker, base_url: 'http://x.example', username: u, password: {env: T}}
=> 2: credential.base_url: plain http shows the secrets to the network: write https://, or set insecure_http: true
### an empty place
upstream: https://a.example
credential: {type: static, token: {env: T}, place: []}
=> 2: credential.place: name at least one place: {header: NAME}, {query: NAME} or {cookie: NAME}
### a fraction
upstream: https://a.example
limits: {connections: 1.5}
=> 2: limits.connections: write a whole number
### keys that are null and quoted
upstream: https://a.example
null: x
'': x
=> 2: a key is text: put it in quotes
=> 3: a key here is unknown: write one of admin, credential, credentials, exec, guard, limits, listen, log, routes, store, tracing, upstream
"""  # noqa: E501  sentences are compared as they are printed

CASES = [case.partition("\n")[::2] for case in BROKEN.split("### ")[1:]]


EACH_CASE = pytest.mark.parametrize("case", [text for _title, text in CASES], ids=[title for title, _text in CASES])


def prepared(case: str, path: Path) -> tuple[str, list[str]]:
    """The text of a configuration that will stand in `path`, and its problems."""
    words = {
        "TYPES": ", ".join(TYPES),
        "REFERENCES": FORMS,
        "FOLDER": str(path.parent),
        "FILE": str(path),
        "UNIXFORM": UNIX_FORM,
        "LONGNAME": "x" * UNIX_PATH_LONGEST,
    }
    for word, value in words.items():
        case = case.replace(word, value)
    text, *problems = case.split("=> ")
    return text.replace("TAB", "\t").replace("CONTROL", "\x01"), [each.removesuffix("\n") for each in problems]


@pytest.mark.threat(7, 34, 51, 55, 71, 125)
@EACH_CASE
def test_a_broken_configuration_gets_its_exact_sentences(case: str, tmp_path: Path) -> None:
    """Every problem at once, with line, key path and what to write instead; never the secret beside it."""
    path = tmp_path / "config.yaml"
    text, problems = prepared(case, path)
    assert problems_of(text, path) == problems


@EACH_CASE
def test_a_broken_configuration_ends_the_command_with_status_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` prints the sentences, no traceback and no secret."""
    path = tmp_path / "config.yaml"
    text, problems = prepared(case, path)
    path.write_text(text.replace("CANARY", CANARY))
    path.chmod(0o644)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli, ["check", "-c", str(path)])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == len(problems)
    assert "Traceback" not in result.output
    assert CANARY not in result.output


@pytest.mark.parametrize(
    ("text", "first"),
    [
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
            "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
            "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
            "1: nested deeper than 32 levels, or more than 20000 values: remove the aliases",
            id="aliases that grow",
        ),
        pytest.param(
            "a: &a [*a]\n",
            "1: nested deeper than 32 levels, or more than 20000 values: remove the aliases",
            id="an alias of itself",
        ),
        pytest.param(
            "a: " + "[" * 5000,
            "1: the configuration is nested deeper than 32 levels: this is not the right file",
            id="brackets without end",
        ),
        pytest.param(
            "routes:\n" + "- {prefix: /a}\n" * 60_000,
            "6667: the configuration has more than 20000 values: this is not the right file",
            id="a long list",
        ),
        pytest.param(
            "guard: [" + "{a: b}," * 140_000 + "\nupstream: [",
            "1: the configuration has more than 20000 values: this is not the right file",
            id="a long list that is broken at its end",
        ),
        pytest.param(
            "#" * (1 << 20) + "\n",
            "1: the configuration is larger than 1 MiB: this is not the right file",
            id="a huge file",
        ),
    ],
)
def test_a_hostile_file_is_refused_before_it_costs_memory(text: str, first: str, tmp_path: Path) -> None:
    """Depth, number of values and size are bounded, and nothing is read beyond."""
    assert problems_of(text, tmp_path / "config.yaml")[0] == first


@pytest.mark.parametrize(("names", "hint"), [(100, ", did you mean c7?"), (101, "")])
def test_a_name_that_was_meant_is_looked_for_among_a_hundred(names: int, hint: str) -> None:
    """Among thousands, for thousands of slips, that would take longer than everything else."""
    assert did_you_mean("c7-", [f"c{each}" for each in range(names)]) == hint
