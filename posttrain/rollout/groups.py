"""What a step learns from: rows of answers, and the source that samples them and has them scored."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups
from posttrain.core.curriculum import Outcome
from posttrain.core.errors import PosttrainError
from posttrain.core.seeds import derive
from posttrain.data.problems import Pick, Problems
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.prompts import Prompter
from posttrain.rewards.scoring import Scored, Scorer
from posttrain.rollout.engine import Samples, Sampling

UNSCORED = Scored(None)
_NUMBER = re.compile(r"(?<!\d)-?\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)


def final_answer(text: str) -> str:
    """What a completion answers, as read without its task: its last number in one spelling, else all of its text.

    "so 1,200.50" and "1200.5" answer the same; a completion without digits answers itself, stripped.
    """
    numbers = _NUMBER.findall(text)
    if not numbers:
        return text.strip()
    last: str = numbers[-1].replace(",", "")
    return last.rstrip("0").rstrip(".") if "." in last else last


def answer_ids(texts: Sequence[str], group: Tensor) -> Tensor:
    """[B] long: the number of each completion's final answer, counted from 0 within its group [B]."""
    seen: dict[int, dict[str, int]] = {}
    ids = []
    for text, unit in zip(texts, group.tolist(), strict=True):
        answers = seen.setdefault(unit, {})
        ids.append(answers.setdefault(final_answer(text), len(answers)))
    return torch.tensor(ids, dtype=torch.long)

@dataclass(frozen=True)
class Answer:
    """One answer to one of a step's prompts, before it becomes a row."""

    prompt: int  # which prompt, in the order taken
    text: str
    tokens: list[int]
    scored: Scored
    logp: list[float] | None = None  # of each token as the sampler recorded it; None: the answer was given
    log_kept: Sequence[float] = ()  # log p − log q of each, where q may differ from p; see `Completions`
    finished: bool = True
    beyond: tuple[int, ...] = ()  # what a canvas holds after them
    when: tuple[int, ...] = ()  # the pass that decided each token of a canvas
    choice: tuple[int, ...] = ()  # what its schedule chose for that pass


@dataclass(frozen=True)
class Rollout:
    """What one step learns from, and the same as text for whoever reads the run.  R rows were made, B kept."""

    batch: Groups
    prompts: list[str]  # [B]
    completions: list[str]  # [B]
    failures: list[str]  # one line for each verifier call that gave no number
    dropped: int  # rows left out because of them
    outcomes: list[Outcome]  # one a prompt taken, in order, its advantages still to come
    counts: dict[str, float] = field(default_factory=dict)  # metrics of the source's own

    def keep(self, units: Tensor) -> Rollout:
        """The rows of these prompts alone; the others are counted, and their outcomes stay."""
        rows = torch.isin(self.batch.unit, units).nonzero()[:, 0]
        counts = {"prompts_drawn": float(len(self.outcomes)), "groups_dropped": float(len(self.outcomes) - len(units))}
        return replace(self, batch=self.batch.take(rows), counts=self.counts | counts,
                       prompts=[self.prompts[i] for i in rows], completions=[self.completions[i] for i in rows])


def outcomes(rollout: Rollout, batch: Groups) -> list[Outcome]:
    """What came of each prompt, with the advantages that `prepare` gave its answers; 0 where the step left it out.

    A method that sets no advantage is taken to have r − mean r.
    """
    if batch.advantage is None:
        credit = ops.group_center(batch.reward, batch.group).abs()
    else:
        credit = batch.mean_per_row(batch.credit.abs())
    found = []
    for unit, outcome in enumerate(rollout.outcomes):
        rows = (batch.unit == unit).nonzero()[:, 0]
        told = credit[rows].tolist() if len(rows) else [0.0] * len(outcome.rewards)
        found.append(outcome._replace(advantages=tuple(told)))
    return found


class Source(ABC):
    """What a step learns from: answers to prompts.  A unit of the batch is a prompt, numbered in the order taken."""

    def __init__(self, problems: Problems, prompter: Prompter, sampling: Sampling, on_failure: str = "stop",
                 rewritten: Sequence[str] = ()) -> None:
        """rewritten: templates of the prompts that rows may be scored under, with {prompt}."""
        self.problems, self.prompter, self.sampling, self.on_failure = problems, prompter, sampling, on_failure
        self.rewritten = rewritten

    @abstractmethod
    def answers(self, step: int, attempt: int, first: int, picks: Sequence[Pick], ids: Sequence[Sequence[int]]
                ) -> list[Answer]:
        """Answers to some prompts, with tokens `ids`, of which the first has the number `first`."""

    def next(self, step: int) -> Rollout:
        """The batch of this step (from 0), made with weights that have seen `step` updates.

        Raises:
            PosttrainError: if a verifier failed and the run was told to stop then.
        """
        picks = self.problems.take(step)
        ids = [self.prompter.encode(pick.problem.prompt) for pick in picks]
        return self.assemble(step, picks, ids, self.answers(step, 0, 0, picks, ids))

    def assemble(self, step: int, picks: Sequence[Pick], ids: Sequence[Sequence[int]], answers: Sequence[Answer]
                 ) -> Rollout:
        """Rows of a batch from answers, those left out whose verifier failed."""
        failures = [a.scored.failure for a in answers if a.scored.failure is not None]
        if failures and self.on_failure == "stop":
            raise PosttrainError(f"step {step + 1}: the verifier failed on {len(failures)} of {len(answers)} "
                                 f"completions, first: {failures[0]} (on_reward_failure = 'stop')")
        kept = [i for i, a in enumerate(answers) if a.scored.failure is None or self.on_failure == "zero"]
        texts = [a.text for a in answers]
        batch = self._rows(step, picks, ids, answers).take(torch.tensor(kept, dtype=torch.long))
        came = [Outcome(pick.arm, tuple(_worth(answers[i]) for i in rows), (), tuple(texts[i] for i in rows))
                for pick, rows in zip(picks, _rows_of(answers, kept, len(picks)), strict=True)]
        prompts = [self.prompter.show(picks[answers[i].prompt].problem.prompt) for i in kept]
        return Rollout(batch, prompts, [texts[i] for i in kept], failures, len(answers) - len(kept), came)

    def _rows(self, step: int, picks: Sequence[Pick], ids: Sequence[Sequence[int]], answers: Sequence[Answer]
              ) -> Groups:
        lengths = torch.tensor([len(a.tokens) for a in answers])
        width = max(1, *(len(a.tokens) + len(a.beyond) for a in answers))
        unit, given = torch.tensor([a.prompt for a in answers]), torch.tensor([a.logp is None for a in answers])
        mask = torch.arange(width) < lengths[:, None]
        tokens = torch.tensor([padded([*a.tokens, *a.beyond], width) for a in answers])
        logp = torch.tensor([(a.logp or [math.nan] * len(a.tokens)) + [0.0] * (width - len(a.tokens)) for a in answers])
        extra = {"answer": answer_ids([a.text for a in answers], unit), "token": tokens * mask, "given": given}
        if any(a.log_kept for a in answers):
            extra["log_kept"] = torch.tensor([padded(a.log_kept, width) for a in answers])
        if any(a.when for a in answers):
            extra["when"] = torch.tensor([padded(a.when or range(len(a.tokens)), width) for a in answers])
        if any(a.choice for a in answers):
            extra["choice"] = torch.tensor([padded(a.choice, width) for a in answers])
        steps = [a.scored.process for a in answers if a.scored.failure is None]
        if steps and None not in steps:
            extra["process"] = torch.tensor([a.scored.process or 0.0 for a in answers])
        rewritten = tuple(tuple(tuple(self.prompter.rewritten(template, pick.problem.prompt)) for pick in picks)
                          for template in self.rewritten)
        payload = Sequences(tuple(map(tuple, ids)), unit, tokens, lengths, self.sampling.temperature,
                            rewritten=rewritten)
        return Groups(payload=payload, mask=mask, unit=unit,
                      version=torch.where(given, -1, step)[:, None].expand(mask.shape).clone(), logp_behaviour=logp,
                      reward=torch.tensor([_worth(a) for a in answers]),
                      finished=torch.tensor([a.finished for a in answers]), limit=self.sampling.max_new_tokens,
                      extra=extra)


def padded(numbers: Iterable[float], width: int) -> list[float]:
    """So many numbers, zeros at the end."""
    row = list(numbers)
    return row + [0] * (width - len(row))


def _worth(answer: Answer) -> float:
    return 0.0 if answer.scored.value is None else answer.scored.value


def _rows_of(answers: Sequence[Answer], kept: Sequence[int], prompts: int) -> list[list[int]]:
    """The kept answers to each prompt, by number."""
    rows: list[list[int]] = [[] for _ in range(prompts)]
    for i in kept:
        rows[answers[i].prompt].append(i)
    return rows


class GroupSource(Source):
    """Fresh samples, several of each prompt, scored.  A step's samples depend on its prompts and number alone."""

    def __init__(self, problems: Problems, scorer: Scorer, engine: Samples, prompter: Prompter, sampling: Sampling,
                 seed: int, on_failure: str, most: int = 1, rewritten: Sequence[str] = ()) -> None:
        """most: batches of prompts drawn at most a step, to fill one with groups of unequal rewards; 1: take all."""
        super().__init__(problems, prompter, sampling, on_failure, rewritten)
        self.scorer, self.engine, self.seed, self.most = scorer, engine, seed, most

    def next(self, step: int) -> Rollout:
        if self.most == 1:
            return super().next(step)
        picks, ids, answers, wanted = list[Pick](), list[list[int]](), list[Answer](), 0
        for attempt in range(self.most):
            more = self.problems.take(step, attempt)
            wanted = wanted or len(more)
            new = [self.prompter.encode(pick.problem.prompt) for pick in more]
            answers += self.answers(step, attempt, len(picks), more, new)
            picks, ids = picks + more, ids + new
            rollout = self.assemble(step, picks, ids, answers)
            telling = rollout.batch.unit[~ops.is_constant(rollout.batch.reward, rollout.batch.group)].unique()
            if len(telling) >= wanted:
                break
        return rollout.keep(telling[:wanted] if len(telling) else rollout.batch.unit.unique()[:wanted])

    def answers(self, step: int, attempt: int, first: int, picks: Sequence[Pick], ids: Sequence[Sequence[int]]
                ) -> list[Answer]:
        stream = ("rollout", step, attempt) if attempt else ("rollout", step)
        generator = torch.Generator().manual_seed(derive(self.seed, *stream))
        sampled: list[Answer] = []
        for samples in sorted({pick.samples for pick in picks}):
            some = [i for i, pick in enumerate(picks) if pick.samples == samples]
            out = self.engine.generate([ids[i] for i in some], samples, self.sampling, generator)
            canvas = [[()] * len(out.tokens) if x is None else map(tuple, x.tolist()) for x in (out.when, out.choice)]
            reshaped = self.sampling.reshapes and out.when is None  # a canvas is not scored as it was drawn
            rows = zip(out.tokens.tolist(), out.logp.tolist(), out.log_kept.tolist(), out.lengths.tolist(),
                       out.finished.tolist(), *canvas, strict=True)
            sampled += [Answer(some[k // samples], "", tokens[:n], UNSCORED, logp[:n], kept[:n] if reshaped else (),
                               finished, tuple(tokens[n:]) if when else (), when, choice)
                        for k, (tokens, logp, kept, n, finished, when, choice) in enumerate(rows)]
        sampled.sort(key=lambda answer: answer.prompt)
        texts = [self.prompter.decode(answer.tokens) for answer in sampled]
        scored = self.scorer([picks[answer.prompt].problem for answer in sampled], texts)
        return [replace(answer, prompt=first + answer.prompt, text=text, scored=score)
                for answer, text, score in zip(sampled, texts, scored, strict=True)]
