"""A folder on any file system that pyarrow knows, with what a ledger needs of it."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from rrl_dist.core.errors import DamagedError, UserError
from rrl_dist.core.storage import write_bytes, writing

# Options of an s3:// address; the rest of what S3 needs is in the environment.
_S3_OPTIONS = ("endpoint_override", "region", "scheme", "tls_ca_file_path")
_WITH_BUCKETS = ("s3", "gs", "gcs")
_WHERE = {"region", "endpoint_override", "AWS_REGION", "AWS_DEFAULT_REGION"}
# An endpoint that is silent is told of after attempts times timeout, in seconds.
_ATTEMPTS, _CONNECT, _ANSWER, _GCS_LIMIT, _READS = 3, 3.0, 4.0, 10, 20
# What object stores answer, what it means, and what to change.
_NO_BUCKET = ("there is no such bucket", "create it, or change storage=")
_DENIED = ("access is denied", "check the credentials in the environment")
_SILENT = ("the endpoint does not answer", "check the address and the network")
_FULL = ("the storage is full", "make room there, and the same command goes on")
_REASONS = {
    "NO_SUCH_BUCKET": _NO_BUCKET,
    "NETWORK_CONNECTION|UNAVAILABLE|curl|[Tt]imeout|[Cc]ould not connect": _SILENT,
    "DENIED|INVALID_ACCESS|SIGNATURE_DOES|TOKEN|UNAUTH|UNRECOG|redentials": _DENIED,
    "StorageFull|Insufficient ?Storage|[Qq]uota": _FULL,
}


@dataclass(frozen=True)
class Store:
    """A folder of files with names such as "rows/clean/0.parquet".

    It can be pickled; each process connects at its first use. All operations raise
    `UserError` where the storage cannot be used, and ValueError for no proper name.

    Attributes:
        address: to show; without the credentials of the address it was opened with.
    """

    address: str
    _place: "_Folder | _Bucket" = field(repr=False)

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file, complete or not at all, also over an older one."""
        self._place.write(_checked(name), content)

    def read(self, name: str) -> bytes:
        """A whole file as a writer wrote it; FileNotFoundError if there is none."""
        return self._place.read(_checked(name))

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files in `folder` and below it; "" is the whole store."""
        if folder:
            _checked(folder)
        found = self._place.names(folder)
        return sorted(n for n in found if not n.rpartition("/")[2].startswith("."))

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._place.exists(_checked(name))

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        self._place.remove(_checked(name))

    def write_json(self, name: str, value: Any) -> None:
        """As `rrl_dist.core.storage.write_json`: equal values are equal bytes."""
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
        self.write(name, (text + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The value of a JSON file; raises as `read`, and ValueError if it is none."""
        return json.loads(self.read(name))


def open_store(address: str | Path) -> Store:
    """A store at a local path, or at file://, s3://, gs:// as pyarrow takes them.

    Nothing is written, and no network is used, before the first operation.

    Raises:
        UserError: no such kind of address; an option or a part of it is wrong.
    """
    if isinstance(address, Path) or "://" not in address:
        folder = Path(address).absolute()
        return Store(str(folder), _Folder(folder))
    bucket = _Bucket(address, _shown(address))
    parts = bucket.parts()
    if parts.scheme == "file" and not parts.netloc:
        return open_store(Path(unquote(parts.path)))
    _s3_options(bucket) if parts.scheme == "s3" else _parsed(bucket)
    return Store(bucket.shown, bucket)


def _checked(name: str) -> str:
    """Names of temporary files, and those that lead out of the store, are refused."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[-1].startswith("."):
        raise ValueError(f"{name!r} is no name of a file in a store")
    return name


def _shown(address: str) -> str:
    """An address without user, password, and values of options that may be secret."""
    address = re.sub(r"(endpoint_override=)[^&]*@", r"\1", address)
    address = re.sub(r"(?<=://).*@", "", address, flags=re.DOTALL)
    body, mark, query = address.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    kept = (f"{k}={v}" if k in _S3_OPTIONS else "***" for k, _, v in pairs)
    return body + mark + ("&".join(kept) if query else "")


@dataclass(frozen=True)
class _Folder:
    """A local folder, or one of NFS."""

    path: Path

    def write(self, name: str, content: bytes) -> None:
        write_bytes(self.path / name, content)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        found = os.walk(self.path / folder, onerror=_unless_gone)
        files = [Path(place) / name for place, _, names in found for name in names]
        return [file.relative_to(self.path).as_posix() for file in files]

    def exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def remove(self, name: str) -> None:
        with writing(self.path / name):
            (self.path / name).unlink(missing_ok=True)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@dataclass(frozen=True)
class _Bucket:
    """A prefix of an object store."""

    address: str = field(repr=False)  # with credentials, if it came with them
    shown: str  # without

    def parts(self) -> SplitResult:
        try:
            return urlsplit(self.address)
        except ValueError:
            raise UserError(f"{self.shown} is no address; change storage=") from None

    def write(self, name: str, content: bytes) -> None:
        """One write call, in a thread that no Ctrl-C can stop before it: a stream that
        is dropped publishes what it has."""
        with self._file(name) as (system, path), ThreadPoolExecutor(1) as pool:
            pool.submit(_put, system, path, content).result()

    def read(self, name: str) -> bytes:
        """Again, if it was replaced meanwhile: pyarrow cuts or pads it to the length
        that it asked for before. Only a hash tells."""
        with self._file(name) as (system, path):
            for _ in range(_READS):
                with system.open_input_stream(path) as stream:
                    content = _content(stream)
                if content is not None:
                    return content
        raise DamagedError(_line(self, (f"{name} is damaged", "remove it")))

    def names(self, folder: str) -> list[str]:
        with self._file(folder) as (system, path):
            below = fs.FileSelector(path, recursive=True, allow_not_found=True)
            found = system.get_file_info(below)
            root = len(path) - len(folder)
        return [i.path[root:].lstrip("/") for i in found if i.type is fs.FileType.File]

    def exists(self, name: str) -> bool:
        with self._file(name) as (system, path):
            return bool(system.get_file_info(path).type is fs.FileType.File)

    def remove(self, name: str) -> None:
        with self._file(name) as (system, path), suppress(FileNotFoundError):
            system.delete_file(path)

    @contextmanager
    def _file(self, name: str) -> Iterator[tuple[fs.FileSystem, str]]:
        """The file system and a file's path in it; what fails there is told of."""
        try:
            system, root = _connected(self)
            yield system, f"{root}/{name}".rstrip("/")
        except FileNotFoundError:  # of a file; a missing bucket was told of before
            raise
        except (OSError, pa.ArrowException) as error:
            raise UserError(_told(self, error)) from None


def _content(stream: Any) -> bytes | None:
    proof = stream.metadata().get("Content-Type", b"").decode()
    with suppress(OSError):  # removed meanwhile, or the next opening tells why
        content = bytes(stream.read())
        if "sha256=" not in proof or proof == _proof(content):  # others write no hash
            return content
    return None


def _proof(content: bytes) -> str:
    return f"application/octet-stream; sha256={hashlib.sha256(content).hexdigest()}"


def _put(system: fs.FileSystem, path: str, content: bytes) -> None:
    stream = system.open_output_stream(path, metadata={"Content-Type": _proof(content)})
    stream.write(content)
    stream.close()


@lru_cache(maxsize=16)
def _connected(bucket: _Bucket) -> tuple[fs.FileSystem, str]:
    """The file system and the store's folder; a missing bucket would seem empty."""
    scheme = bucket.parts().scheme
    system, root = _s3(bucket) if scheme == "s3" else _parsed(bucket)
    if scheme in _WITH_BUCKETS:
        found = system.get_file_info(root.partition("/")[0]).type
        if found is fs.FileType.NotFound:
            raise UserError(_line(bucket, _NO_BUCKET))
    return system, root.rstrip("/")


def _s3(bucket: _Bucket) -> tuple[fs.FileSystem, str]:
    """`FileSystem.from_uri` takes no timeouts, and needs three requests to write."""
    parts, options = bucket.parts(), _s3_options(bucket)
    user, _, name = parts.netloc.rpartition("@")
    key, _, secret = user.partition(":")
    if not _WHERE & {*os.environ, *options}:
        options["region"] = fs.resolve_s3_region(name)
    system = fs.S3FileSystem(
        access_key=unquote(key) or None,
        secret_key=unquote(secret) or None,
        connect_timeout=_CONNECT,
        request_timeout=_ANSWER,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        allow_delayed_open=True,
        background_writes=False,
        **options,
    )
    return system, name + unquote(parts.path)


def _s3_options(bucket: _Bucket) -> dict[str, str]:
    parts = bucket.parts()
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not set(options) <= set(_S3_OPTIONS) or not parts.netloc.rpartition("@")[2]:
        raise UserError(
            f"{bucket.shown} lacks a bucket or has an unknown option; write s3://bucket/"
            f"folder?OPTION=VALUE of {', '.join(_S3_OPTIONS)}; keys are AWS_ variables"
        )
    return options


def _parsed(bucket: _Bucket) -> tuple[fs.FileSystem, str]:
    """What pyarrow makes of an address; UserError if it knows no such one."""
    address = bucket.address
    if bucket.parts().scheme in _WITH_BUCKETS and "retry_limit_" not in address:
        mark = "&" if "?" in address else "?"
        address = f"{address}{mark}retry_limit_seconds={_GCS_LIMIT}"
    try:
        system, root = fs.FileSystem.from_uri(address)
    except (pa.ArrowException, ImportError, NotImplementedError):
        raise UserError(
            f"{bucket.shown} is no address that pyarrow knows; set storage=folder, "
            "s3://bucket/folder or gs://bucket/folder"
        ) from None
    return system, str(root)


def _told(bucket: _Bucket, error: Exception) -> str:
    text = re.sub(r"^.*?(?=AWS Error)", "", str(error))  # names of files are before
    found = [reason for words, reason in _REASONS.items() if re.search(words, text)]
    # The rest of a message may quote the address.
    code = re.search(r"AWS Error (\w+)", text)
    other = (code[1] if code else type(error).__name__, "see to that storage")
    return _line(bucket, (found or [other])[0])


def _line(bucket: _Bucket, reason: tuple[str, str]) -> str:
    return f"{bucket.shown} cannot be used ({reason[0]}); {reason[1]}"
