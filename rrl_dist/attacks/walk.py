"""Where a random search stands with each of its trials."""

from typing import NamedTuple

import torch
from torch import Tensor

from rrl_dist.attacks.balls import as_column
from rrl_dist.attacks.margins import logit_margin
from rrl_dist.attacks.trials import Samples


class Walk(NamedTuple):
    """Where each trial's search stands; all tensors have M rows.

    Attributes:
        y, ids, number: label, sample and trial.
        frame: what proposals are made from, see `windows.Proposals`.
        visit: the image that is tried next.
        best, score, wrong, done, queries: see `trials.State`; `score` is the margin of
            logits at `best`.
    """

    y: Tensor
    ids: Tensor
    number: Tensor
    frame: Tensor
    visit: Tensor
    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor

    @classmethod
    def begin(
        cls, samples: Samples, number: Tensor, frame: Tensor, visit: Tensor
    ) -> "Walk":
        """Before the first image, `visit`, is tried."""
        no = torch.zeros_like(samples.y, dtype=torch.bool)
        return cls(
            y=samples.y,
            ids=samples.ids,
            number=number,
            frame=frame,
            visit=visit,
            best=samples.x,
            score=torch.full(no.shape, -torch.inf, device=no.device),
            wrong=no,
            done=no,
            queries=torch.zeros_like(samples.y),
        )

    def tried(self, logits: Tensor, found: Tensor, budget: int) -> "Walk":
        """After `visit` gave these logits [M, K], which are wrong where `found` [M]
        says so, of `budget` queries in all: it is kept there and where its margin is
        larger."""
        score = logit_margin(logits, self.y).nan_to_num(nan=-torch.inf)
        found = found & ~self.done
        better = found | ((score > self.score) & ~self.done)
        wrong, queries = self.wrong | found, self.queries + ~self.done
        return self._replace(
            best=torch.where(as_column(better, self.best), self.visit, self.best),
            score=torch.where(better, score, self.score),
            wrong=wrong,
            done=wrong | (queries >= budget),
            queries=queries,
        )

    def rows(self, places: Tensor) -> "Walk":
        """[M] int64 -> the walks at these rows."""
        return Walk(*(column.index_select(0, places) for column in self))

    def tried_ahead(
        self,
        logits: Tensor,
        found: Tensor,
        counts: Tensor,
        leader: Tensor,
        lead: Tensor,
        budget: int,
    ) -> "Walk":
        """As `tried` for the rows that lead: of their own visit and of those that rows
        behind them have made for them, all up to the first that is kept.

        Args:
            logits, found, budget: see `tried`.
            counts: [M] bool, the rows whose visit was due.
            leader, lead: see `trials.LooksAhead`.
        """
        score = logit_margin(logits, self.y).nan_to_num(nan=-torch.inf)
        kept = counts & (found | (score > self.score))
        row, none = torch.arange(len(lead), device=lead.device), len(lead)
        first = torch.full_like(lead, none).scatter_reduce(
            0, leader, torch.where(kept, lead, none), "amin"
        )
        is_first = kept & (lead == first[leader])
        author = torch.full_like(lead, -1).scatter_reduce(
            0, leader, torch.where(is_first, row, -1), "amax"
        )
        any_kept, author = author >= 0, author.clamp_min(0)
        due = torch.zeros_like(lead).scatter_add(0, leader, counts.long())
        queries = self.queries + torch.where(any_kept, first + 1, due)
        wrong = any_kept & found[author]
        pick = as_column(any_kept, self.best)
        return self._replace(
            best=torch.where(pick, self.visit[author], self.best),
            score=torch.where(any_kept, score[author], self.score),
            wrong=wrong,
            done=wrong | (queries >= budget),
            queries=queries,
        )
