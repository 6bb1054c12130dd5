"""What the trials of an attack have found so far."""

import torch

from rrl_dist.attacks.trials import Outcome, Samples, State


class Board:
    """What has been found for each sample."""

    def __init__(self, samples: Samples, trials: int) -> None:
        self.samples, self.trials = samples, trials
        self.count = len(samples.x)
        self.x = samples.x.clone()
        self.score = [-float("inf")] * self.count
        self.author = [trials] * self.count  # the trial whose image is kept
        self.winner = [trials] * self.count  # the first that succeeded
        self.queries = torch.zeros(self.count, trials, dtype=torch.int64)

    def needs(self, sample: int, number: int) -> bool:
        """Whether that trial can still change the outcome."""
        return number < self.winner[sample]

    def record(self, sample: int, number: int, row: int, state: State) -> None:
        """A trial has ended."""
        self.queries[sample, number] = state.queries[row]
        if not self.needs(sample, number):
            return
        wrong, score = bool(state.wrong[row]), float(state.score[row])
        if wrong:
            self.winner[sample] = number
        else:
            # Of equals the first, whichever ended first.
            rank = (score, -number)
            held = (self.score[sample], -self.author[sample])
            if self.winner[sample] < self.trials or rank <= held:
                return
            self.score[sample] = score
        self.author[sample] = number
        self.x[sample] = state.best[row]

    def outcome(self) -> Outcome:
        device = self.samples.y.device
        winner = torch.tensor(self.winner)
        counted = torch.arange(self.trials) <= winner[:, None]
        queries = (self.queries * counted).sum(1)
        return Outcome(self.x, (winner < self.trials).to(device), queries.to(device))
