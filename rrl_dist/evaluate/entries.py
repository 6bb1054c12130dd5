"""What a line of results is about."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One classifier: an arm, and what it was judged by.

    Attributes:
        arm: its encoder.
        task: None where the data set is not cut into tasks.
        protocol: its name among `protocols`; None where there is one for all.
        head_seed: that the head was trained with; None: the run's own.
    """

    arm: str
    task: str | None = None
    protocol: str | None = None
    head_seed: int | None = None

    @property
    def name(self) -> str:
        """As stages, folders and results name it: "simclr-unseen-slf-head0"."""
        head = None if self.head_seed is None else f"head{self.head_seed}"
        parts = (self.arm, self.task, self.protocol, head)
        return "-".join(part for part in parts if part is not None)

    @property
    def parts(self) -> dict[str, str | int]:
        """What its name is made of, by key; nothing where that is the arm alone."""
        own = {k: v for k, v in self._asdict().items() if v is not None}
        return {} if len(own) == 1 else own
