"""Weights on disk: is the file there, and is it the one that the pool file means?"""

from pathlib import Path

from routerr1.errors import PoolError
from routerr1.files import sha256
from routerr1.pool.servers import ModelServer


def check_weights(server: ModelServer, folder: Path) -> Path:
    """The path of a server's GGUF file in `folder`.

    Raises: PoolError that says where to get the file if it is missing or has another digest.
    """
    path = folder / server.file
    source = f"get {server.file} from the hub repository {server.hub} into {folder}"
    try:
        found = sha256(path)
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror}); {source}") from None
    if found != server.sha256:
        raise PoolError(
            f"{path}: its sha256 begins with {found[:12]}, the pool file asks for "
            f"{server.sha256[:12]}; {source}"
        )
    return path
