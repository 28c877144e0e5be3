"""Tell gateways of a new champion at once; without this they see it at their next look."""

import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import Sequence

import httpx

from routerr1.tracking.store import redact

SECRET = "ROUTERR1_WEBHOOK_SECRET"  # the environment variable that holds it
HEADER = "x-routerr1-signature"
PATH = "/hooks/champion"
_MOST_AGE_S = 300.0  # of a message: an old one may be a copy
_log = logging.getLogger(__name__)


def signature(secret: str, body: bytes, at_s: int) -> str:
    """The value of the header: the time, and HMAC-SHA256 of time and body."""
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256)
    return f"t={at_s},v1={signed.hexdigest()}"


def is_signed(secret: str, body: bytes, header: str, now_s: float) -> bool:
    """Whether the holder of the secret wrote this body, in the last five minutes."""
    stated = header.partition(",")[0].removeprefix("t=")
    if not stated.isdecimal() or len(stated) > 12 or abs(now_s - int(stated)) > _MOST_AGE_S:
        return False
    return hmac.compare_digest(signature(secret, body, int(stated)).encode(), header.encode())


def announce(gateways: Sequence[str], name: str, version: int) -> None:
    """Send the new champion to every gateway; one that does not answer looks for itself."""
    secret = os.environ.get(SECRET)
    if not gateways or not secret:
        if gateways:
            _log.warning("promote.gateways: %s is not set, so none of them is notified", SECRET)
        return
    body = json.dumps({"model": name, "version": version}).encode()
    headers = {
        HEADER: signature(secret, body, int(time.time())),
        "content-type": "application/json",
    }
    for gateway in gateways:
        try:
            url = gateway.rstrip("/") + PATH
            httpx.post(url, content=body, headers=headers, timeout=3).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.warning("%s did not take the message: %s", redact(gateway), redact(str(error)))
