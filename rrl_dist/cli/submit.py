"""`rrl submit COMMAND ...`: the same command as a job of a Ray cluster."""

import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rrl_dist import __version__
from rrl_dist.cli.app import run_command
from rrl_dist.core.errors import UserError
from rrl_dist.submit.command import entry, prepared
from rrl_dist.submit.jobs import Jobs
from rrl_dist.submit.parcel import MB, Parcel, collect

_ASKING = {"logs": 1, "stop": 1, "jobs": 0}  # words, and how many follow
# Ray shows a job's variables to all who may list jobs.
_SECRET = ("RAY_AUTH_TOKEN",)
_GB = 1_000_000_000
# Ray kills a job 3 seconds after it was told to stop, unless told otherwise; training
# saves after the step in hand.
_ALWAYS = {"PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=")


def main() -> None:
    """Entry point: settings and variables, then words."""
    arguments = sys.argv[1:]
    bare = (i for i, w in enumerate(arguments) if "=" not in w and w[:1] not in "-+~")
    first = next(bare, len(arguments))
    settings, words = arguments[:first], arguments[first:]
    variables = dict(w.split("=", 1) for w in settings if _VARIABLE.match(w))
    sys.argv[1:] = [word for word in settings if not _VARIABLE.match(word)]
    run_command("submit", lambda own, _: sys.exit(submit(own, variables, words)))


def submit(
    config: Mapping[str, Any], variables: Mapping[str, str], words: list[str]
) -> int:
    """Do what the words say; returns the status to exit with.

    Args:
        config: of `configs/submit.yaml`.
        variables: environment of the job.
        words: a command and its settings, or a question about jobs.

    Raises:
        UserError: a mistake, told before anything is sent.
    """
    # Imported late: it knows all commands, this one too.
    from rrl_dist.cli.main import COMMANDS

    if words and words[0] in _ASKING:
        return _ask(config, words)
    known = [name for name in COMMANDS if name != "submit"]
    if not words or words[0] not in known:
        told = words[0] if words else "nothing"
        raise UserError(
            f"{told} is no command to submit; choose rrl submit "
            f"{'|'.join([*known, *_ASKING])}"
        )
    _check_variables(variables)
    upload = config["upload"]
    parcel = None
    if upload["folder"] is not None:
        root = Path(str(upload["folder"])).expanduser().absolute()
        parcel = collect(root, list(map(str, upload["leave_out"])), upload["limit"])
    command, name = prepared(words, uploaded=parcel is not None)
    jobs = Jobs(config["address"], config["verify"])
    job = str(config["job"] or f"{_plain(name)}-{secrets.token_hex(3)}")
    _send(jobs, job, config, command, parcel, variables)
    return _follow(jobs, job) if config["follow"] else 0


def _send(
    jobs: Jobs,
    job: str,
    config: Mapping[str, Any],
    command: list[str],
    parcel: Parcel | None,
    variables: Mapping[str, str],
) -> None:
    own = config["entry"]
    resources = {"cpus": own["cpus"], "gpus": own["gpus"]}
    resources["memory"] = int(own["memory"] * _GB)
    line = " ".join(["rrl", *command])
    with tempfile.TemporaryDirectory() as folder:
        file = None
        if parcel is not None:
            file = Path(folder) / "parcel.zip"
            size = parcel.write(file)
            print(
                f"{parcel.root}: {len(parcel.sizes)} files, {parcel.size / MB:.1f} MB, "
                f"{size / MB:.1f} MB compressed",
                *parcel.remarks(),
                sep="\n",
                flush=True,
            )
        jobs.submit(
            entry(str(config["python"]), command),
            job,
            parcel=file,
            variables={**_ALWAYS, **variables},
            resources=resources,
            metadata={"command": line, "rrl_dist": __version__},
        )
    print(f"job {job} at {jobs.address}: {line}", flush=True)


def _ask(config: Mapping[str, Any], words: list[str]) -> int:
    what, *rest = words
    if len(rest) != _ASKING[what]:
        one = " JOB" if _ASKING[what] else ""
        raise UserError(f"write rrl submit {what}{one}, after any settings")
    jobs = Jobs(config["address"], config["verify"])
    if what == "logs":
        return _follow(jobs, rest[0])
    if what == "stop":
        told = "is told to stop" if jobs.stop(rest[0]) else "had ended"
        print(f"job {rest[0]} {told}")
        return 0
    for known in jobs.known():
        print(f"{known['status']:<10} {known['job']}  {known['command']}")
    return 0


def _follow(jobs: Jobs, job: str) -> int:
    try:
        status, code = jobs.follow(job, _shower())
    except KeyboardInterrupt:
        print(
            f"\njob {job} goes on: rrl submit logs {job} shows it again, "
            f"rrl submit stop {job} ends it",
            file=sys.stderr,
        )
        return 130
    print(f"job {job}: {status.lower()}", file=sys.stderr)
    return code


def _shower() -> Callable[[str], None]:
    def show(text: str) -> None:
        with suppress(BrokenPipeError):
            sys.stdout.write(text)
            sys.stdout.flush()

    return show


def _check_variables(variables: Mapping[str, str]) -> None:
    for name in _SECRET:
        if name in variables:
            raise UserError(f"{name}: a job's nodes have it already; leave it out")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
