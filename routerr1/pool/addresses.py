"""Addresses, headers, keys and proxies of endpoints: every mistake in them is found before a call is made.

No message of this module shows a value: it may hold a key or a password.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_NAME = re.compile(r"auth|key|token|secret|password|cookie", re.IGNORECASE)
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})
_METHODS = ("/chat/completions", "/completions", "/responses", "/embeddings")
_NO_KEY_HOLDS = frozenset(" \"'`<>")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def variable(name: str) -> str:
    """`name` if it can name an environment variable.

    Raises: ValueError.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must name an environment variable: letters, digits and _")
    return name


def base_url(url: str) -> str:
    """`url` if it is a plain http or https address.

    Raises: ValueError naming what is wrong with it.
    """
    parts = _split(url, ("http", "https"), "must be an http or https address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "must hold no key or password and nothing behind a `?`; name an environment variable in "
            "key_env, and write parameters under `query`"
        )
    for end in _METHODS:
        if parts.path.rstrip("/").endswith(end):
            raise ValueError(f"must end before {end}; every call adds /chat/completions")
    return url


def proxy(url: str) -> str:
    """`url` if it is the address of a proxy, or names an environment variable as `$NAME`.

    Raises: ValueError naming what is wrong with it.
    """
    if _REFERENCE.fullmatch(url):
        return url
    parts = _split(url, _PROXY_SCHEMES, f"must be the address of a proxy ({', '.join(_PROXY_SCHEMES)})")  # fmt: skip
    if parts.username or parts.password:
        raise ValueError("must hold no password; write $NAME, and the address into that variable")
    return url


def header(name: str, value: str) -> None:
    """Refuse a header that cannot be sent, or whose value is a key.

    Raises: ValueError naming the header.
    """
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by every call itself")
    if not _is_plain(value):
        raise ValueError(f"{name} must be one line of printable ASCII characters")
    if _SECRET_NAME.search(name) and not references(value):
        raise ValueError(f"{name} must hold no key; write $NAME, and the key into that variable")


def parameter(name: str, value: str) -> None:
    """Refuse a parameter of the address that cannot be sent, or whose value is a key.

    Raises: ValueError naming the parameter.
    """
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a parameter")
    if not value.isprintable():
        raise ValueError(f"{name} must be one line of printable characters")
    if _SECRET_NAME.search(name) and not references(value):
        raise ValueError(f"{name} must hold no key; write $NAME, and the key into that variable")


def references(text: str) -> list[str]:
    """Environment variables that `text` names as `$NAME`."""
    return _REFERENCE.findall(text)


@dataclass(frozen=True, slots=True)
class Access:
    """How an endpoint is reached.

    Attributes:
        key: empty where none is needed.
        headers: sent with every call; may hold secrets.
        query: parameters of every address; may hold secrets.
        proxy: its address, password included; None connects directly.
        secrets: what must not be shown of all this.
    """

    key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    proxy: str | None = field(repr=False)
    context: ssl.SSLContext
    secrets: tuple[str, ...] = field(repr=False)


def access(
    url: str,
    key: str,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    proxy_url: str | None,
    context: ssl.SSLContext,
    *,
    trust_env: bool,
    environ: Mapping[str, str],
) -> Access:
    """The access to an endpoint with the keys of this environment.

    Raises: ValueError naming a variable that is not set or cannot be used.
    """
    sent = {name: resolved(value, environ) for name, value in headers.items()}
    asked = {name: resolved(value, environ) for name, value in query.items()}
    chosen = None if proxy_url is None else resolved(proxy_url, environ)
    if chosen is not None:
        try:
            _split(chosen, _PROXY_SCHEMES, "is no address of a proxy")
        except ValueError as error:
            raise ValueError(f"proxy: {error}") from None
    through = proxy_for(url, chosen, trust_env=trust_env)
    if through is not None and through.startswith("socks") and find_spec("socksio") is None:
        raise ValueError("its proxy speaks SOCKS, which needs `pip install socksio`")
    values = (*headers.values(), *query.values())
    secrets = [key, *(environ[name].strip() for text in values for name in references(text))]
    if through is not None and (password := urlsplit(through).password):
        secrets += [password, unquote(password)]
    return Access(key, sent, asked, through, context, tuple(filter(None, secrets)))


def resolved(text: str, environ: Mapping[str, str]) -> str:
    """`text` with `$NAME` replaced.

    Raises: ValueError naming a variable that is not set, or whose value cannot be sent in a header.
    """
    for name in references(text):
        key_of(name, environ)
    return _REFERENCE.sub(lambda found: environ[found[1]].strip(), text)


def key_of(name: str, environ: Mapping[str, str]) -> str:
    """The key in the environment variable `name`.

    Raises: ValueError if it is not set, or its value cannot be a key.
    """
    key = environ.get(name, "").strip()
    if not key:
        raise ValueError(f"the environment variable {name}, which is not set")
    if not _is_plain(key) or _NO_KEY_HOLDS.intersection(key):
        raise ValueError(
            f"the environment variable {name}, which holds a character that no key holds (a dash "
            "or quote of a text program, a quote, a bracket, a blank or a line break?); paste it again as plain text"
        )
    return key


def proxy_for(url: str, chosen: str | None, *, trust_env: bool) -> str | None:
    """The proxy between here and `url`; None where there is none.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are heeded as httpx, curl and the hub heed them.

    Args:
        chosen: of the pool file; it wins over the environment.

    Raises: ValueError naming the environment's variable if its value is no address.
    """
    if chosen is not None or not trust_env:
        return chosen
    parts = urlsplit(url)
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    bare = parts.netloc.rpartition("@")[2]
    if not found or proxy_bypass(bare):
        return None
    address = found if "://" in found else f"http://{found}"
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    try:
        _split(address, _PROXY_SCHEMES, "is no address of a proxy")
    except ValueError as error:
        raise ValueError(f"the environment variable {kind.upper()}_PROXY {error}") from None
    return address


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """What a server's certificate is checked against: the file's authorities, or the system's.

    Raises: ValueError if the file holds none.
    """
    if ca_file is None:
        return httpx2.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError):
        raise ValueError(f"{ca_file} cannot be read as a file of certificates (PEM)") from None


def _split(url: str, schemes: tuple[str, ...], problem: str) -> SplitResult:
    if url != url.strip() or any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("must hold no blank or invisible character")
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        raise ValueError(
            "must be an address with a host that can exist and a port between 1 and 65535, if any"
        ) from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ValueError(problem)
    return parts


def _is_plain(text: str) -> bool:
    return all(" " <= char <= "~" for char in text)
