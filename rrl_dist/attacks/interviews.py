"""Code that asks about one image at a time, for many samples in one call of the model.

Somebody else's attack on a single sample runs in a thread of its own, which stands
still whenever it has a question; the questions of all threads make one call. Only one
of them moves at a time, each with its own state of torch's generator. So what it finds
does not depend on the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Semaphore, Thread
from typing import Protocol

import torch
from torch import Tensor

from rrl_dist.attacks.border import length
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.decisions import farther
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.trials import Outcome, Samples
from rrl_dist.core.randomness import torch_stream


class OverError(Exception):
    """A sample's queries are spent, or its images are no numbers any more."""


class Ask(Protocol):
    """Whether the model is wrong at an image [1, ...] on the CPU, in [0, 1].

    Raises:
        OverError: nothing more can be asked; to be passed on.
    """

    def __call__(self, image: Tensor) -> bool: ...


# What a sample's thread runs: the image [1, ...], its id, and whom to ask.
Run = Callable[[Tensor, int, Ask], None]


@dataclass(frozen=True)
class Terms:
    """How samples are asked about.

    Attributes:
        run: whose questions are answered.
        queries: of each sample at most.
        key: (seed, name) of the draws.
        size: images of every call of the model.
    """

    run: Run
    queries: int
    key: tuple[int, str]
    size: int


class Interview:
    """One sample's thread, and the nearest wrong image it has asked about."""

    def __init__(self, terms: Terms, image: Tensor, sample: int, place: int) -> None:
        self.place, self.image, self.sample = place, image.cpu(), sample
        self.terms = terms
        self.nearest, self.distance = self.image, torch.inf
        self.found, self.wrong = self.image, False
        self.queries = 0
        self.question: Tensor | None = None
        self.error: BaseException | None = None
        self._answer, self._closed = False, False
        self._generator = torch_stream(*terms.key, sample).get_state()
        self._asked, self._answered = Semaphore(0), Semaphore(0)
        self._thread = Thread(target=self._work, daemon=True)

    def begin(self) -> None:
        """Up to the first question."""
        self._thread.start()
        self._move()

    def go_on(self, answer: bool) -> None:
        """Up to the next question, which is None at the end."""
        self._answer = answer
        self._move()

    def close(self) -> None:
        """Make an end of it, so that no thread is left."""
        self._closed = True
        if self.question is not None:
            self._move()
            self._thread.join()

    def _move(self) -> None:
        torch.set_rng_state(self._generator)
        self._answered.release()
        self._asked.acquire()
        self._generator = torch.get_rng_state()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        self._answered.acquire()
        try:
            # A thread begins with gradients, whatever its parent has.
            with torch.no_grad():
                self._interview()
        except OverError:
            pass
        except BaseException as error:
            self.error = error  # raised where somebody sees it
        self.question = None
        self._asked.release()

    def _interview(self) -> None:
        try:
            self.terms.run(self.image, self.sample, self._ask)
        except OverError:
            if self._closed:
                raise
        self.found, self.wrong = self.nearest, self.distance < torch.inf
        if self.wrong:
            far = farther(self.image, self.nearest)
            if self._put(far):
                self.found = far

    def _ask(self, image: Tensor) -> bool:
        # One is left for what is given back.
        if self.queries >= self.terms.queries - 1 or not bool(image.isfinite().all()):
            raise OverError
        image = image.detach().clone()
        wrong = self._put(image)
        distance = float(length(image - self.image))
        if wrong and distance < self.distance:
            self.nearest, self.distance = image, distance
        return wrong

    def _put(self, image: Tensor) -> bool:
        self.question = image
        self.queries += 1
        self._asked.release()
        self._answered.acquire()
        if self._closed:
            raise OverError
        return self._answer


def interview(classifier: Classifier, samples: Samples, terms: Terms) -> Outcome:
    """All samples; where one is done another takes its row.

    Args:
        classifier: the model, borrowed.
        samples: N rows; the model is right about them.
        terms: how.

    Returns:
        the nearest wrong images, a little off the boundary; the clean one where none
        was found.
    """
    x = samples.x.clone()
    wrong = torch.zeros_like(samples.y, dtype=torch.bool)
    queries = torch.zeros_like(samples.y)
    asking: list[Interview] = []
    waiting = list(enumerate(samples.ids.tolist()))[::-1]
    with torch.random.fork_rng(devices=[]):
        try:
            while waiting or asking:
                while waiting and len(asking) < terms.size:
                    place, sample = waiting.pop()
                    image = samples.x[place : place + 1]
                    asking.append(Interview(terms, image, sample, place))
                    asking[-1].begin()
                _answer(classifier, samples, asking, terms.size)
                for talk in asking:
                    if talk.question is None:
                        x[talk.place] = talk.found[0].to(x.device)
                        wrong[talk.place] = talk.wrong
                        queries[talk.place] = talk.queries
                asking = [talk for talk in asking if talk.question is not None]
        finally:
            for talk in asking:
                talk.close()
    return Outcome(x, wrong, queries)


def _answer(
    classifier: Classifier, samples: Samples, talks: list[Interview], size: int
) -> None:
    """Each question, all in one call; rows that are free repeat one."""
    asked = [(talk, talk.question) for talk in talks if talk.question is not None]
    if not asked:
        return
    filled = [*asked, *[asked[-1]] * (size - len(asked))]
    y = samples.y[[talk.place for talk, _ in filled]]
    images = torch.cat([question for _, question in filled]).to(y.device)
    answers = misclassified(classifier(images), y).tolist()
    for (talk, _), wrong in zip(asked, answers, strict=False):
        talk.go_on(wrong)
