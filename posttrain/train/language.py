"""A run that trains a language model: samples or given answers, a verifier, held-out problems, other skills."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Curriculum, Groups, Method, Models, Policy, ProblemCurriculum, catalog
from posttrain.core.errors import PosttrainError, UserError
from posttrain.core.seeds import derive
from posttrain.data.problems import ByCurriculum, InOrder, Problems, curriculum_name
from posttrain.evaluate.accuracy import divergence, greedy_accuracy
from posttrain.evaluate.given import given_measure
from posttrain.evaluate.measures import Measured
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.load import load_language_model
from posttrain.policies.masked_diffusion_lm import Estimate
from posttrain.policies.pretrained import resolve
from posttrain.policies.schedule import Schedule
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.embedded import traced
from posttrain.rollout.engine import Sampling
from posttrain.rollout.given import BothSource, GivenSource, answer_tokens, given_answers
from posttrain.rollout.groups import GroupSource, Rollout, Source, outcomes
from posttrain.rollout.unmasking import Unmasking
from posttrain.rollout.words import bad_words, logit_bias
from posttrain.tasks import load_task
from posttrain.tasks.task import Problem, can_score, parts_of
from posttrain.train.config import LanguageConfig, MaskedConfig
from posttrain.train.correction import Corrected
from posttrain.train.material import source_kind
from posttrain.train.objective import counted, method_name, updates, values
from posttrain.train.records import write_rollout
from posttrain.train.setting import Sample

RETENTION_PROBLEMS = 64
CHECKED_PROMPTS = 256  # encoded before anything is written
DIVERGENCE_PROBLEMS = 16  # some 300 tokens: enough for a mean per token


class LanguageSetting:
    """The `Setting` of language models."""

    rounds = 1

    def __init__(self, method: Method[Groups], config: LanguageConfig, curriculum: Curriculum | None) -> None:
        self.config, self.rewritten = config, method.rewritten
        self.curriculum = curriculum or (catalog.make_curriculum(config.curriculum) if config.curriculum else None)
        self.task = load_task(config.task, verifier=config.verifier or None, heldout_file=config.heldout or None)
        self.kind = source_kind(method.learns_from, method_name(method), config, self.task)
        masked = masked_options(method, config)
        self.schedule = masked["unmasking"].schedule if masked else None
        self.model = load_language_model(
            resolve(config.policy), max_new_tokens=config.max_new_tokens, precision=config.precision,
            lora=config.lora, seed=config.seed, tokens_per_micro_batch=config.tokens_per_micro_batch,
            engine=config.engine, device=config.device, **masked)
        self.policy = self.model.policy
        self.corrected = self._corrected()
        tokenizer = self.model.prompter.tokenizer
        self.sampling = Sampling(
            max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p,
            top_k=config.top_k, min_p=config.min_p, stop_tokens=self.model.stop_tokens, stop_strings=config.stop,
            bad_words=bad_words(tokenizer, config.bad_words), logit_bias=logit_bias(tokenizer, config.logit_bias))
        if config.cache_bytes:
            self.model.engine.keep_to(config.cache_bytes)
        room = self._room(self._check_prompts())
        self.problems = self._problems()
        self.retention = load_task("retention")
        every = self.retention.heldout(RETENTION_PROBLEMS)
        self.others = [problem for problem in every if self.model.prompter.reads(problem.prompt)]
        left_out = () if len(self.others) == len(every) else (
            f"other skills: {len(every) - len(self.others)} of {len(every)} prompts hold characters that this policy "
            "has no tokens for; they are left out",)
        self.notes: tuple[str, ...] = (*self.model.notes, *room, *left_out)
        self.warned = False  # of a verifier that fails
        chooser = dataclasses.asdict(self.curriculum) if self.curriculum else {}
        self.facts = {"curriculum": chooser, "parts": list(parts_of(self.task)), "device": self.model.device,
                      "precision": self.model.precision}

    def _corrected(self) -> Corrected | None:
        """The policy with weighted gradients, where its samples are another's."""
        config = self.config
        by_engine = "none" if config.engine == "embedded" or self.kind == "given" else "truncate"
        kind = by_engine if config.correct == "auto" else config.correct
        return None if kind == "none" else Corrected(self.policy, kind, config.correct_limit)

    def _problems(self) -> Problems:
        config = self.config
        if self.curriculum is None:
            return InOrder(self.task, config.prompts, config.samples, config.seed)
        return ByCurriculum(self.task, self.curriculum, config.prompts, config.samples, config.seed,
                            lambda problem: len(self.model.prompter.encode(problem.prompt)))

    def _check_prompts(self) -> int:
        """Held-out prompts and the first to train on fit, and given answers too; a later one ends the run.

        Returns the tokens of the longest prompt.
        """
        first, prompter = min(self.config.steps * self.config.prompts, CHECKED_PROMPTS), self.model.prompter
        problems = [*(self.task.train(i, self.config.seed) for i in range(first)),
                    *self.task.heldout(self.config.eval_problems)]
        if not any(prompter.reads(problem.prompt) for problem in problems):
            raise UserError(f"task = {self.config.task!r}: policy {self.config.policy!r} has no tokens for its "
                            f"prompts, such as {prompter.show(problems[0].prompt)[:60]!r}")
        longest = 0
        for i, problem in enumerate(problems):
            longest = max(longest, len(prompter.encode(problem.prompt)))
            for template in self.rewritten if i < first else ():
                prompter.rewritten(template, problem.prompt)
            if (self.kind != "samples" and i < first) or not can_score(self.task):
                for given in given_answers(self.task, problem):
                    answer_tokens(prompter, given.text, self.sampling)
        return longest

    def _room(self, longest: int) -> tuple[str, ...]:
        """A row after a prompt of so many tokens fits in the engine's memory; a note where not all of a step do."""
        config, engine = self.config, self.model.engine
        if self.kind == "given" and not can_score(self.task):
            return ()
        fit = engine.rows_at_once(config.prompts, config.samples, longest, self.sampling)
        rows = config.prompts * config.samples
        if self.kind == "given" or not engine.cache_bytes or fit >= rows:
            return ()
        return (f"cache_bytes = {engine.cache_bytes}: {fit} of a step's {rows} completions are sampled at a time, "
                "the next ones as others end",)

    # ------------------------------------------------------------------ networks

    def networks(self) -> Mapping[str, Callable[[], Any]]:
        learner: dict[str, Callable[[], Any]] = {"policy": lambda: self.corrected} if self.corrected else {}
        return {"reference": self.policy.initial, "anchor": self.policy.anchor, "critic": self.policy.critic,
                "teacher": self._teacher, "schedule": lambda: self.schedule, **learner}

    def _teacher(self) -> Policy:
        config = self.config
        if not config.teacher:
            raise UserError("teacher is missing: this method learns from one, as in --teacher FOLDER")
        model = load_language_model(resolve(config.teacher), max_new_tokens=config.max_new_tokens,
                                    precision=config.precision, tokens_per_micro_batch=config.tokens_per_micro_batch,
                                    device=config.device)
        if model.prompter.tokenizer.get_vocab() != self.model.prompter.tokenizer.get_vocab():
            raise UserError(f"teacher = '{config.teacher}': has another vocabulary than the policy, so it cannot say "
                            "what it thinks of the policy's tokens")
        model.policy.module.requires_grad_(False)
        return model.policy

    # ------------------------------------------------------------------ what a step learns from

    def meet(self, models: Models) -> None:
        """The policy alone acts."""

    def open(self, stack: ExitStack, rollouts: Path) -> None:
        self.rollouts = rollouts
        self.scorer = stack.enter_context(Scorer(self.task, timeout=self.config.reward_timeout))
        self.other_scorer = stack.enter_context(Scorer(self.retention))
        self.source = self._source()

    def _source(self) -> Source:
        config, prompter = self.config, self.model.prompter
        given = GivenSource(self.task, self.problems, prompter, self.sampling, self.rewritten)
        if self.kind == "given":
            return given
        sampled = GroupSource(self.problems, self.scorer, traced(self.model.engine), prompter, self.sampling,
                              config.seed, config.on_reward_failure, config.dynamic_sampling, self.rewritten)
        return BothSource(sampled, given) if self.kind == "both" else sampled

    def next(self, step: int) -> Rollout:
        rollout = self.source.next(step)
        if rollout.failures and not self.warned:
            self.warned = True
            self.notes += (f"step {step + 1}: the verifier failed {counted(len(rollout.failures), 'time')}, first: "
                           f"{rollout.failures[0]}",)
        if len(rollout.batch) == 0:
            raise PosttrainError(f"step {step + 1}: the verifier failed on every completion, "
                                 f"first: {rollout.failures[0]}")
        return replace(rollout, batch=self.policy.freeze(rollout.batch, derive(self.config.seed, "freeze", step)))

    def learnt(self, step: int, material: Rollout, batch: Groups) -> dict[str, float]:
        self.model.engine.update()
        if step == 0 and self.config.samples == 1 and batch.advantage is not None and not batch.advantage.any():
            self.notes += ("step 1: every advantage is 0, since with samples = 1 no answer is held against another to "
                           "its prompt",)
        choice = self.problems.learn(outcomes(material, batch))
        write_rollout(self.rollouts, step + 1, material, batch)
        return rollout_metrics(material) | choice | (self.corrected.metrics() if self.corrected else {})

    def sample(self, material: Rollout, batch: Groups) -> Sample:
        return Sample(material.prompts[0], material.completions[0], float(batch.reward[0]))

    def save(self, final: Path) -> None:
        self.policy.save(final)

    def state(self) -> dict[str, Any]:
        return {"problems": self.problems.state, "cache_bytes": self.model.engine.cache_bytes}

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.problems.state = state["problems"]
        if state.get("cache_bytes"):  # what the free memory allowed then: another budget rounds otherwise
            self.model.engine.keep_to(state["cache_bytes"])
        self.model.engine.update()

    # ------------------------------------------------------------------ how good it is

    def evaluate(self, when: str) -> dict[str, Any]:
        """How good the policy is on held-out problems and other skills, and, after training, the distance travelled."""
        config, task = self.config, self.task.heldout(self.config.eval_problems)
        found = self._measure(task)
        row = {found.name: found.mean, "interval": found.interval, "scores": found.scores, "failures": found.failures}
        row |= by_part(found, task)
        if self.others and when in ("before", "after"):
            other = greedy_accuracy(self.model, self.others, self.other_scorer, 24)
            row |= {"other_skills": other.mean, "other_interval": other.interval}
        if when == "after":
            initial = self.policy.initial()
            row["kl_task"] = divergence(self.model, initial, task[:DIVERGENCE_PROBLEMS], config.max_new_tokens,
                                        config.seed)
            if self.others:
                row["kl_other"] = divergence(self.model, initial, self.others[:DIVERGENCE_PROBLEMS], 24, config.seed)
        return row

    def _measure(self, problems: list[Problem]) -> Measured:
        """Accuracy; where nothing can score the policy's own answers, what it makes of given ones."""
        config = self.config
        if can_score(self.task):
            return greedy_accuracy(self.model, problems, self.scorer, config.max_new_tokens, config.stop)
        return given_measure(self.model, self.task, problems, config.max_new_tokens)

    # ------------------------------------------------------------------ what will be done, in words

    def describe(self, method: Method[Any]) -> list[tuple[str, str]]:
        config = self.config
        trained = sum(p.numel() for p in self.policy.module.parameters() if p.requires_grad)
        return [
            ("batch", f"{self._batch()}; {self._denominators(method)}"),
            *([("problems", _chosen(self.problems))] if isinstance(self.problems, ByCurriculum) else []),
            *([("sampler", self._sampler())] if self._sampler() else []),
            ("clip unit", f"one {self.policy.decision}; log-probabilities at temperature {config.temperature:g}"),
            ("policy", f"{config.policy}: {trained / 1e6:.1f}M trained weights"
                       f"{f' (LoRA rank {config.lora})' if config.lora else ''}, {self.model.precision} compute, "
                       f"fp32 master{f', on {self.model.device}' if self.model.device != 'cpu' else ''}"),
        ]

    def _sampler(self) -> str:
        """What is not as it is by itself; empty: nothing."""
        told = [] if self.config.engine == "embedded" else [f"engine {self.config.engine}"]
        if self.corrected:
            told.append(f"every log-probability's gradient × {self.corrected.told}, r = π_old / π_sampler")
        return "; ".join(told)

    def _batch(self) -> str:
        """What a step holds."""
        config = self.config
        limit = f"of at most {counted(config.max_new_tokens, 'token')}"
        if self.kind == "given":
            return f"{counted(config.prompts, 'prompt')} with the answers that the task gives to each, {limit}, a step"
        rows = config.prompts * config.samples
        text = (f"{counted(config.prompts, 'prompt')} × {counted(config.samples, 'sample')} = "
                f"{counted(rows, 'completion')} {limit} a step")
        if self.kind == "both":
            return f"{text}, and beside them the answers that the task gives to each prompt"
        if config.dynamic_sampling > 1:
            return (f"{text}; groups of equal rewards are replaced from at most {config.dynamic_sampling - 1} further "
                    "batches of prompts, so a step may hold fewer")
        return text

    def _denominators(self, method: Method[Any]) -> str:
        config = self.config
        text = f"{updates(method)}, so every mean over completions divides by "
        if self.kind == "samples" and config.dynamic_sampling == 1:
            return text + str(config.prompts * config.samples // method.minibatches)
        prompts = counted(config.prompts // method.minibatches, "prompt")
        return text + (f"their number in its {prompts}" if method.minibatches > 1 else "their number")


def masked_options(method: Method[Any], config: LanguageConfig) -> dict[str, Any]:
    """How a masked-diffusion model scores and samples; nothing for others.

    Raises:
        UserError: on an option of a likelihood that the method does not use.
    """
    if not isinstance(config, MaskedConfig):
        return {}
    for option, kind in (("prompt_mask", "one-step"), ("draws", "elbo")):
        value = getattr(config, option)
        if kind != method.likelihood and value != getattr(MaskedConfig, option):
            raise UserError(f"{option} = {value!r}: belongs to the {kind} likelihood, and {method_name(method)} uses "
                            f"the {method.likelihood} one")
    return {"estimate": Estimate(method.likelihood, config.prompt_mask, config.draws),
            "unmasking": Unmasking(order=config.order, per_pass=config.per_pass, block=config.block,
                                   passes=config.passes, schedule=_schedule(method, config))}


def _schedule(method: Method[Any], config: MaskedConfig) -> Schedule | None:
    """
    Raises:
        UserError: where one is to be learnt without a number of passes that it could shape.
    """
    if "schedule" not in method.needs:
        return None
    if not 2 <= config.passes <= config.max_new_tokens:
        raise UserError(f"passes = {config.passes}: must be 2 to max_new_tokens = {config.max_new_tokens}, so that "
                        f"{method_name(method)} has a schedule to learn")
    return Schedule(config.passes, torch.Generator().manual_seed(derive(config.seed, "schedule")))


def _chosen(problems: ByCurriculum) -> str:
    """Which curriculum draws from what."""
    arms = [arm.name for arm in problems.arms]
    what = counted(len(arms), "problem") if isinstance(problems.curriculum, ProblemCurriculum) else ", ".join(arms)
    return f"drawn by {curriculum_name(problems.curriculum)} from {what}; {values(problems.curriculum)}"


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """What the samples of one step look like, before the method leaves any of them out."""
    batch = rollout.batch
    assert isinstance(batch.payload, Sequences)
    lengths = batch.payload.lengths.float()
    return {"reward": float(batch.reward.mean()), "length": float(lengths.mean()),
            "finished": float(batch.finished.float().mean()), "tokens": float(lengths.sum()),
            "groups_without_signal": constant_share(batch), "reward_failures": float(len(rollout.failures)),
            "rows_dropped": float(rollout.dropped)} | rollout.counts


def by_part(found: Measured, problems: list[Problem]) -> dict[str, float]:
    """The mean of each part of the task, where it has parts and every problem has a score."""
    scores: dict[str, list[float]] = {}
    for problem, score in zip(problems, found.scores, strict=True) if len(problems) == len(found.scores) else ():
        scores.setdefault(problem.part, []).append(score)
    return {f"{found.name}/{part}": sum(own) / len(own) for part, own in scores.items() if part}


def constant_share(batch: Groups) -> float:
    """The share of rows whose group got equal rewards."""
    return float(ops.is_constant(batch.reward, batch.group).float().mean())
