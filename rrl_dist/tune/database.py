"""Where a study is: a file of SQLite or a database of PostgreSQL, by its address."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from rrl_dist.core.errors import UserError

# How long a write waits for that of another process, and a connection for its server,
# in seconds.
_LOCKED, _CONNECT = 60.0, 10
_FORMS = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
_PASSWORD = re.compile(r"(?<=[?&]password=)[^&]*")
# What a database answers, and what to change.
_HINTS = {
    "readonly|read-only|permission denied": "give the right to write there",
    "unable to open": "check that the folder is there and may be written",
    "locked": "another process writes to it all the time; wait until that one ends",
    "disk is full|No space|disk I/O": "see to that disk; the same command goes on",
    "not a database|malformed": "choose another file",
    "authentication|no password|role .* does not exist": "check user and password",
    "database .* does not exist": "create that database, or change sweep.study=",
}
_ELSE = "check sweep.study=, and that the server runs and can be reached"


class Address:
    """An address that can be shown.

    Args:
        text: a path of a file, or `sqlite:///...` or `postgresql://...`.

    Attributes:
        url: for the libraries; with the password.
        shown: without it.

    Raises:
        UserError: it is neither of them.
    """

    def __init__(self, text: str | Path) -> None:
        text = str(text)
        if "://" not in text:
            text = f"sqlite:///{Path(text).absolute()}"
        self.url = _parsed(text)
        secrets = [self.url.password, self.url.query.get("password")]
        self._secrets = [str(secret) for secret in secrets if secret]
        self.shown = self.hidden(self.url.render_as_string(hide_password=True))
        if self.url.get_backend_name() not in ("sqlite", "postgresql"):
            raise UserError(
                f"sweep.study={self.shown} is not {_FORMS}; write one of them"
            )
        if self.file is None and self.url.get_backend_name() == "sqlite":
            raise UserError(f"sweep.study={self.shown} names no file; write {_FORMS}")
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")

    @property
    def file(self) -> Path | None:
        """Of SQLite."""
        name = self.url.database
        if self.url.get_backend_name() != "sqlite" or name in (None, "", ":memory:"):
            return None
        return Path(str(name).removeprefix("file:"))

    def hidden(self, text: str) -> str:
        """A text without the password."""
        text = _PASSWORD.sub("***", text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _parsed(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        shown = re.sub(r"://([^:@/]*):.*@", r"://\1:***@", _PASSWORD.sub("***", text))
    raise UserError(f"sweep.study={shown} cannot be read as an address; write {_FORMS}")


def open_storage(address: Address) -> RDBStorage:
    """Connect, and make the tables if there are none.

    Raises:
        UserError: it cannot be used, or was made by another version of Optuna.
    """
    # Its lines are for those who write studies by hand; ours tell what is to be told.
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with told(address):
        for _ in range(5):
            try:
                return _connected(address)
            except SQLAlchemyError as error:
                # Another process makes the tables at this moment.
                if not isinstance(
                    error, IntegrityError
                ) and "already exists" not in str(error):
                    raise
                time.sleep(0.2)
            except RuntimeError as error:
                reason = str(error).partition(". ")[0]
                raise UserError(
                    f"{address.shown} cannot be used: {reason}; choose another database"
                ) from None
        return _connected(address)


def _connected(address: Address) -> RDBStorage:
    sqlite = address.url.get_backend_name() == "sqlite"
    patience = {"timeout": _LOCKED} if sqlite else {"connect_timeout": _CONNECT}
    url = address.url.render_as_string(hide_password=False)
    return RDBStorage(
        url.replace("{", "{{").replace("}", "}}"),  # Optuna takes it for a template
        # A server closes connections that are idle while trials run.
        engine_kwargs={"pool_pre_ping": not sqlite, "connect_args": patience},
    )


@contextmanager
def told(address: Address) -> Iterator[None]:
    """What a database answers is told in one line, without the password.

    Raises:
        UserError: instead of the libraries' errors.
    """
    try:
        yield
        return
    except ImportError as error:
        driver = getattr(error.__cause__ or error, "name", None) or "of its driver"
        message = (
            f"{address.shown} needs the package {driver}, which is not installed; "
            "pip install 'rrl_dist[postgres]'"
        )
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = address.hidden(_reason(error))
        hints = (h for p, h in _HINTS.items() if re.search(p, reason))
        message = f"{address.shown} cannot be used ({reason}); {next(hints, _ELSE)}"
    raise UserError(message)


def _reason(error: BaseException) -> str:
    """What the driver says, in one line of at most 200 characters."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    words = str(getattr(error, "orig", None) or error).split()
    return " ".join(words)[:200]
