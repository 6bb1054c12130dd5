"""Jobs of a Ray cluster, by the HTTP server of its dashboard."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.submit.connection import (
    TOKEN,
    address_of,
    check_reached,
    trusted,
    unreachable,
    use_token,
)
from rrl_dist.submit.log import Log

_TRIES = 60  # in a row without a word more of a log, a second between them
_START = 60  # seconds in which a head that has started takes jobs
# Loggers that tell of uploads and closed connections.
_TALKATIVE = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
_STATUS = {"SUCCEEDED": 0, "STOPPED": 130}


class Jobs:
    """What one cluster is asked to do.

    Args:
        address: of the dashboard, http or https; None: what RAY_API_SERVER_ADDRESS or
            RAY_ADDRESS say, else the port 8265 of this machine.
        verify: of https, see `trusted`.

    Raises:
        UserError: nobody answers there, or not to this token.
    """

    def __init__(self, address: str | None, verify: bool | str | None = None) -> None:
        self.address = address_of(address)
        self.token = use_token()
        self._proxied = check_reached(self.address)
        # By which Ray would replace the address that it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        with self._in_words():
            from ray.job_submission import JobSubmissionClient

            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)
            checked = trusted(self.address, verify)
            self._client = JobSubmissionClient(self.address, verify=checked)

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

    def follow(self, job: str, show: Callable[[str], None]) -> tuple[str, int]:
        """Show a job's log until it ends; returns its status, as of `status`, and the
        number to exit with, which is 128 and a signal's number where one ended it.

        Where the log breaks off, as where a forwarded port does, it is taken up.

        Raises:
            UserError: there is no such job, or the cluster is lost.
        """
        from aiohttp import ClientError  # as Ray's client does

        self.status(job)
        log, failed = Log(show), 0
        while failed < _TRIES:
            before = log.shown
            try:
                with self._refusals_in_words():
                    if self._proxied:  # through which Ray's client cannot listen
                        self._poll(job, log)
                    else:
                        asyncio.run(self._tail(job, log))
                    if (ended := self._ended(job)) is not None:
                        return ended
                failed = 0
            except (RuntimeError, OSError, ClientError):
                failed = 1 if log.shown > before else failed + 1
            time.sleep(1)
        raise UserError(
            f"job {job}: its log cannot be followed any longer; it may go on, see "
            f"rrl submit logs {job}"
        )

    async def _tail(self, job: str, log: Log) -> None:
        log.begin()
        async for text in self._client.tail_job_logs(job):
            log.add(text)

    def _poll(self, job: str, log: Log) -> None:
        ended = None
        while ended is None:
            ended = self._ended(job)  # before its log is read, which is whole then
            log.begin()
            log.add(self._client.get_job_logs(job))
            time.sleep(1)

    def _ended(self, job: str) -> tuple[str, int] | None:
        """See `follow`; None while it goes on."""
        info = self._asked(job)
        if not info.status.is_terminal():
            return None
        code = _STATUS.get(info.status.value)
        if code is None:
            code = int(info.driver_exit_code or 1)
        return str(info.status.value), code if code >= 0 else 128 - code

    def status(self, job: str) -> str:
        """In one word, such as RUNNING.

        Raises:
            UserError: there is no such job.
        """
        with self._in_words():
            return str(self._asked(job).status.value)

    def _asked(self, job: str) -> Any:
        """What the cluster knows of a job, in Ray's own errors but for one.

        Raises:
            UserError: there is no such job.
        """
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
        try:
            with self._refusals_in_words():
                yield
        except UserError:
            raise
        except OSError as error:
            # Ray replaces the first by one that does not say why.
            told = f"{error} {error.__context__}"
            raise UserError(unreachable(self.address, told, self._proxied)) from None
        except RuntimeError as error:
            told = " ".join(str(error).split())[:300]
            raise UserError(f"the cluster at {self.address} says: {told}") from None

    @contextmanager
    def _refusals_in_words(self) -> Iterator[None]:
        """Those alone that another try does not mend."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise UserError(self._refused()) from None

    def _refused(self) -> str:
        where = f"the cluster at {self.address}"
        mend = f"copy the head's {TOKEN} here, or set RAY_AUTH_TOKEN to it"
        if self.token is None:
            return f"{where} asks for a token, and there is none here; {mend}"
        return f"{where} does not take the token in {self.token}; {mend}"


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
