"""Scalars in TensorBoard's own format, written at once.

TensorBoard's writer hands events to a thread of its own: on a full disk the thread dies
with a traceback, and what it had taken is lost without a word to the run.
"""

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.storage import writing


class Board:
    """One file of events.

    Args:
        folder: receives it; TensorBoard shows all files of a folder as one run.
        purge_step: from this step on, what files of earlier attempts say is void.

    Raises:
        UserError: the file cannot be written (so do `add` and `close`).
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = event_pb2.Event
        # Its name: the time orders the files, the host keeps them apart.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self.path = folder / name
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        self._records = RecordWriter(self._file)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=0, file_version="brain.Event:2")
        self._write(step=purge_step, session_log=start)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append numbers of a step."""
        from tensorboard.compat.proto import summary_pb2

        values = [
            summary_pb2.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
        ]
        self._write(step=step, summary=summary_pb2.Summary(value=values))

    def close(self) -> None:
        """Finish the file."""
        with writing(self.path):
            self._file.close()

    def _write(self, **content: Any) -> None:
        event = self._event(wall_time=time.time(), **content)
        with writing(self.path):
            self._records.write(event.SerializeToString())
            self._file.flush()
