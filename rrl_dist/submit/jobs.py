"""Jobs of a Ray cluster, by the HTTP server of its dashboard."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rrl_dist.core.errors import UserError

ADDRESS = "http://127.0.0.1:8265"
_PATIENCE = 10  # seconds until a machine has answered
_TRIES = 60  # to follow a log that breaks off, a second between them
_START = 60  # seconds in which a head that has started takes jobs
_TOKEN = Path("~/.ray/auth_token")
# Loggers that tell of uploads and closed connections.
_TALKATIVE = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
_STATUS = {"SUCCEEDED": 0, "STOPPED": 130}


class Jobs:
    """What one cluster is asked to do.

    Args:
        address: of the dashboard, http or https; None: what RAY_API_SERVER_ADDRESS or
            RAY_ADDRESS say, else the port 8265 of this machine.

    Raises:
        UserError: nobody answers there, or not to this token.
    """

    def __init__(self, address: str | None) -> None:
        self.address = _address(address)
        self.token = _use_token()
        _check_reached(self.address)
        # By which Ray would replace the address that it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        with self._in_words():
            from ray.job_submission import JobSubmissionClient

            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = JobSubmissionClient(self.address)

    def submit(
        self,
        entrypoint: str,
        job: str,
        *,
        parcel: Path | None,
        variables: Mapping[str, str],
        resources: Mapping[str, Any],
        metadata: Mapping[str, str],
    ) -> None:
        """Begin a job.

        Args:
            entrypoint: a line for the shell.
            job: its id, which no other job of the cluster has had.
            parcel: a zip file that is unpacked as its folder; None: the folder that
                Ray was started in.
            variables: environment of it and of its workers.
            resources: `cpus`, `gpus`, `memory` (bytes) that it takes for itself; where
                none, it runs on the head.
            metadata: shown with the job.

        Raises:
            UserError: the cluster does not take it.
        """
        runtime: dict[str, Any] = {"env_vars": dict(variables)}
        if parcel is not None:
            runtime["working_dir"] = str(parcel)
        begin = partial(
            self._client.submit_job,
            entrypoint=entrypoint,
            submission_id=job,
            runtime_env=runtime,
            metadata=dict(metadata),
            entrypoint_num_cpus=resources["cpus"],
            entrypoint_num_gpus=resources["gpus"],
            entrypoint_memory=resources["memory"],
        )
        with self._in_words():
            _when_ready(begin)

    def follow(self, job: str, show: Callable[[str], None]) -> int:
        """Show a job's log until it ends; returns the status to exit with.

        Raises:
            UserError: there is no such job, or the cluster is lost.
        """
        from aiohttp import ClientError  # as Ray's client does

        self.status(job)
        log = _Log(show)
        for left in reversed(range(_TRIES)):
            try:
                asyncio.run(self._tail(job, log))
                if (status := self._ended(job)) is not None:
                    return status
            except (RuntimeError, OSError, ClientError):
                # A log that breaks off, as where a forwarded port does, is taken up.
                if not left:
                    break
            time.sleep(1)
        raise UserError(
            f"job {job}: its log cannot be followed any longer; it may go on, see "
            f"rrl submit logs {job}"
        )

    async def _tail(self, job: str, log: "_Log") -> None:
        log.begin()
        async for text in self._client.tail_job_logs(job):
            log.add(text)

    def _ended(self, job: str) -> int | None:
        """The status to exit with; None while it goes on."""
        info = self._info(job)
        if not info.status.is_terminal():
            return None
        status = _STATUS.get(info.status.value)
        return int(info.driver_exit_code or 1) if status is None else status

    def status(self, job: str) -> str:
        """In one word, such as RUNNING.

        Raises:
            UserError: there is no such job.
        """
        return str(self._info(job).status.value)

    def _info(self, job: str) -> Any:
        with self._in_words():
            try:
                return self._client.get_job_info(job)
            except RuntimeError as error:
                if "404" not in str(error):
                    raise
                raise UserError(
                    f"{self.address} knows no job {job}; rrl submit jobs lists them"
                ) from None

    def stop(self, job: str) -> bool:
        """Ask a job to end, as SIGTERM does; whether it was running.

        Raises:
            UserError: there is no such job.
        """
        self.status(job)
        with self._in_words():
            return bool(self._client.stop_job(job))

    def known(self) -> list[dict[str, str]]:
        """Jobs that were submitted, the newest last."""
        with self._in_words():
            found = self._client.list_jobs()
        named = [job for job in found if job.submission_id]
        return [
            {
                "job": str(job.submission_id),
                "status": job.status.value,
                "command": (job.metadata or {}).get("command", job.entrypoint),
            }
            for job in sorted(named, key=lambda job: job.start_time or 0)
        ]

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Ray's errors as one line."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except UserError:
            raise
        except (ConnectionError, OSError):
            raise UserError(_unreachable(self.address)) from None
        except AuthenticationError:
            raise UserError(self._refused()) from None
        except RuntimeError as error:
            told = " ".join(str(error).split())[:300]
            raise UserError(f"the cluster at {self.address} says: {told}") from None

    def _refused(self) -> str:
        where = f"the cluster at {self.address}"
        mend = f"copy the head's {_TOKEN} here, or set RAY_AUTH_TOKEN to it"
        if self.token is None:
            return f"{where} asks for a token, and there is none here; {mend}"
        return f"{where} does not take the token in {self.token}; {mend}"


class _Log:
    """Shows a text once, which comes from its beginning again and again."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._shown, self._passed = show, 0, 0

    def begin(self) -> None:
        self._passed = 0

    def add(self, text: str) -> None:
        if fresh := text[max(self._shown - self._passed, 0) :]:
            self._show(fresh)
        self._passed += len(text)
        self._shown = max(self._shown, self._passed)


def _when_ready(begin: Callable[[], Any]) -> None:
    """A head that has just started takes jobs a little later than questions."""
    deadline = time.monotonic() + _START
    while True:
        try:
            begin()
            return
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise UserError(
                    "no agent of the head takes jobs; look into dashboard_agent.log "
                    "there: its port may be another cluster's "
                    "(--dashboard-agent-listen-port of ray start)"
                ) from None
        time.sleep(1)


def _address(given: str | None) -> str:
    """Raises `UserError` where it cannot be one."""
    outside = [os.environ.get(k) for k in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")]
    http = [value for value in outside if value and value.startswith("http")]
    found = (given or next(iter(http), ADDRESS)).rstrip("/")
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"address={found}; give that of the dashboard, such as address={ADDRESS}"
        )
    return found


def _use_token() -> str | None:
    """Where this machine has a token, if it has; Ray is told to use it."""
    places = {
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN"),
        "RAY_AUTH_TOKEN_PATH": os.environ.get("RAY_AUTH_TOKEN_PATH"),
        str(_TOKEN): _TOKEN.expanduser().is_file(),
    }
    found = next((place for place, there in places.items() if there), None)
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if found == "RAY_AUTH_TOKEN_PATH" and not Path(str(path)).is_file():
        raise UserError(f"RAY_AUTH_TOKEN_PATH={path} is no file; write the token there")
    if found is not None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        # Ray would end with a page of advice before the cluster is asked whether it
        # wants one.
        os.environ["RAY_AUTH_MODE"] = "disabled"
    return found


def _check_reached(address: str) -> None:
    """Raises `UserError` where no machine answers, soon."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), _PATIENCE).close()
    except OSError:
        raise UserError(_unreachable(address)) from None


def _unreachable(address: str) -> str:
    return (
        f"no Ray dashboard answers at {address}; start the cluster, or forward its "
        "port here: ssh -L 8265:127.0.0.1:8265 HEAD"
    )
