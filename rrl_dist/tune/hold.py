"""One driver at a time for a sweep, wherever its study is."""

import fcntl
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from optuna.storages import RDBStorage
from sqlalchemy import text

from rrl_dist.core.errors import UserError
from rrl_dist.tune.database import Address


def hold(address: Address, storage: RDBStorage, name: str) -> Callable[[], None]:
    """Keep other drivers from a sweep until this process ends, however it ends.

    Args:
        address: of the database.
        storage: connected to it.
        name: of the sweep.

    Returns:
        what lets go of it.

    Raises:
        UserError: another driver has it.
    """
    if address.file is not None:
        return _hold_file(address, address.file, name)
    connection = storage.engine.connect()
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    asked = text("SELECT pg_try_advisory_lock(:key)")
    if not connection.execute(asked, {"key": key}).scalar():
        connection.close()
        _refuse(address, name)
    connection.commit()  # the lock is the connection's, not the transaction's
    # Taken out of the pool, which would hand it to others.
    connection.detach()
    return connection.close


def _hold_file(address: Address, study: Path, name: str) -> Callable[[], None]:
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    try:
        file = study.with_name(f".{study.name}-{digest}.lock").open("w")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"{address.shown} cannot be used ({reason}); check that the folder is "
            "there and may be written"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        _refuse(address, name)
    return file.close


def _refuse(address: Address, name: str) -> NoReturn:
    raise UserError(
        f"another driver runs the sweep {name} in {address.shown}; wait for it, or "
        "choose another name="
    )
