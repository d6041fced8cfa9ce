"""What every policy that scores its decisions must keep to, on batches of its own source.

A kind is a whole setting: a tiny policy with the source of a real run.  Control policies are those that a run can name;
ones without a likelihood must say so.  Scores are compared in float64, where two orders of a sum agree to 1e-12.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from control_toy import TASKS
from picture_toy import toy_terrain
from tiny_folder import write_tiny_folder
from torch import Tensor
from toy import Recording
from transformers import GPT2Config, GPT2LMHeadModel

from posttrain.core import Batch, Loss, Method, Models, catalog
from posttrain.core.errors import UserError
from posttrain.core.method import Likelihood
from posttrain.policies import control, digits, latent
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.masked_diffusion_lm import Canvases
from posttrain.tasks.char_addition import CharAddition
from posttrain.train import kinds
from posttrain.train.config import ControlConfig, LanguageConfig, MaskedConfig, PictureConfig
from posttrain.train.kinds import open_setting
from posttrain.train.learner import Learner
from posttrain.train.loop import Pace
from posttrain.train.setting import Setting

LANGUAGE = ("own", "transformers")
MASKED: tuple[str, ...] = (*typing.get_args(Likelihood), "scheduled")
WITHOUT = ("deterministic", "greedy", "latent", "flow", "mean-flow", "denoiser", "edited-flow")  # likelihood
OTHERWISE = ("transformer",)  # scores stretches that no source of acting makes: tests/policies/test_sequence.py
OWN = {"adapting": "pad"}  # methods without which a kind cannot be; they learn from a replay, and keep no old scores
DIFFERENTIATED = {"state-dependent": ("log_std", "body.weights.2", "body.biases.2")}  # the noise stops elsewhere
CONTROL = tuple(name for name in kinds.CONTROL if name not in ("auto", *WITHOUT, *OTHERWISE))
TERRAIN = "terrain"
KINDS = (*LANGUAGE, *MASKED, *digits.NAMES, TERRAIN, *CONTROL)
SMALL = {"prompts": 2, "samples": 3, "steps": 4}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
PROBE = torch.Generator().manual_seed  # of what a test draws for itself

Score = Callable[[Batch], Tensor]


class Scored(NamedTuple):
    """A policy in float64 and a batch that its source made."""

    policy: Any
    batch: Any
    scores: dict[str, Score]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models of bytes, of which a quarter ends a completion; a random U-net."""
    root = tmp_path_factory.mktemp("models")
    found = {kind: write_tiny_folder(root / kind) for kind in (*LANGUAGE, "masked")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=16, n_layer=2, n_head=2, n_positions=64,
                                   initializer_range=0.2, eos_token_id=256)).save_pretrained(found["transformers"])
    for kind, folder in found.items():
        told = json.loads((folder / "config.json").read_text()) | {"eos_token_id": list(range(190, 257))}
        (folder / "config.json").write_text(json.dumps(told | ({"mask_token_id": 0} if kind == "masked" else {})))
    return {**found, TERRAIN: toy_terrain().save(root / TERRAIN)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_HOME", str(home))  # some begin from another's net
        for name in digits.UPDATES:
            digits.make_policy(name, home / "models" / name, lambda line: None, updates=2)
    digits.make_judge(home / "models" / digits.CLASSIFIER, lambda line: None, updates=2)
    return home


def method_of(kind: str) -> Method[Any]:
    """One that learns from this kind's samples, twice from each half of a batch."""
    if kind in OWN:
        return catalog.make(OWN[kind])
    if kind in CONTROL:
        return catalog.make("ppo", epochs=2, minibatches=2)
    if kind == "scheduled":
        return catalog.make("co-grpo", epochs=2, minibatches=2)
    method: Any = catalog.make("grpo", kl_coef=0.0, epochs=2, minibatches=2)
    return typing.cast("Method[Any]", type("Scored", (type(method),), {
        "likelihood": kind if kind in MASKED else "one-step"})(**vars(method)))


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest, rollouts: Path, method: Method[Any] | None = None
           ) -> Iterator[Setting]:
    """The real setting of a kind, in fp32.  No random model answers a sum: it is paid by its letters."""
    method = method or method_of(kind)
    config: Any
    if kind in OWN:
        config = ControlConfig(policy=kind, task=TASKS[False], width=8, random_steps=40,  # type: ignore[arg-type]
                               batch_size=16)
    elif kind in CONTROL:
        config = ControlConfig(policy=kind, task=TASKS[kind in control.NUMBERED], envs=2, segment=24, width=8,
                               normalize_obs=True, source="segments")  # type: ignore[arg-type]
    elif kind in digits.NAMES:
        config = PictureConfig(policy=kind, denoising_steps=4, **SMALL)  # type: ignore[arg-type]
    elif kind == TERRAIN:
        config = PictureConfig(policy=str(request.getfixturevalue("folders")[kind]), task="pictures/brightness",
                               denoising_steps=4, **SMALL)  # type: ignore[arg-type]
    else:
        folder = request.getfixturevalue("folders")["masked" if kind in MASKED else kind]
        options = {"policy": str(folder), "task": "char-addition", "max_new_tokens": 6, "precision": "fp32",
                   "tokens_per_micro_batch": 60, "eval_problems": 2, **SMALL}
        passes = {"passes": 3} if kind == "scheduled" else {"per_pass": 2}
        config = (MaskedConfig(**options, **passes, order="random", draws=3 if kind == "elbo" else 16)
                  if kind in MASKED else LanguageConfig(**options))
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        if kind in digits.NAMES:
            patch.setenv("POSTTRAIN_HOME", str(request.getfixturevalue("pictures")))
        patch.setattr(CharAddition, "score", lambda self, problem, completion: sum(map(ord, completion)) % 7 / 6)
        setting = open_setting(method, config, None)
        setting.open(stack, rollouts)
        yield setting


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def scored(kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    with opened(kind, request, tmp_path_factory.mktemp("rollouts")) as setting:
        batch = doubled(setting.next(0).batch)
        policy: Any = setting.policy
        (policy if isinstance(policy, torch.nn.Module) else policy.module).double()
        others = ("fit",) if kind in digits.NAMES and any(p.requires_grad for p in policy.net.parameters()) else ()
        return Scored(policy, batch, {name: getattr(policy, name) for name in ("log_prob", *others)})


def doubled(batch: Any) -> Any:
    """With everything that holds fractions in float64."""
    def wide(owner: Any) -> Any:
        found = {f.name: getattr(owner, f.name) for f in dataclasses.fields(owner)}
        return dataclasses.replace(owner, **{name: x.double() for name, x in found.items()
                                             if isinstance(x, Tensor) and x.is_floating_point()})

    return wide(batch).replace(payload=wide(batch.payload))


def tensors(batch: Any) -> dict[str, Tensor]:
    """Every column of a batch and of its payload."""
    found = {**vars(batch), **batch.extra, **{f"payload/{name}": x for name, x in vars(batch.payload).items()}}
    return {name: x for name, x in found.items() if isinstance(x, Tensor)}


# ------------------------------------------------------------------ the score of a batch


def test_the_same_randomness_gives_the_same_score(scored: Scored) -> None:
    """Again, without a gradient, and by a frozen copy, which is what a reference begins as."""
    copy = scored.policy.initial()
    copy.module.double()
    for name, score in scored.scores.items():
        found = score(scored.batch)
        assert found.shape == scored.batch.mask.shape
        assert found.any()
        assert not found[~scored.batch.mask].any()
        assert torch.equal(score(scored.batch), found)
        with torch.no_grad():
            torch.testing.assert_close(score(scored.batch), found, **CLOSE)
        torch.testing.assert_close(getattr(copy, name)(scored.batch), found, **CLOSE)


def test_rows_are_scored_alike_in_any_company(scored: Scored) -> None:
    batch = scored.batch
    for score in scored.scores.values():
        with torch.no_grad():
            whole = score(batch)
            for row in range(len(batch)):
                torch.testing.assert_close(score(batch.take(torch.tensor([row])))[0], whole[row], **CLOSE)
            for rows in scored.policy.split(batch, whole_units=True):
                torch.testing.assert_close(score(batch.take(rows.flip(0))), whole[rows.flip(0)], **CLOSE)


def test_masked_decisions_are_inert(scored: Scored) -> None:
    """A decision that is masked scores 0 and changes no other, whatever stands in its place and beside it."""
    batch = scored.batch
    hidden = batch.mask & (torch.rand(batch.mask.shape, generator=PROBE(0)) < 0.4)
    assert hidden.any()
    part = batch.replace(mask=batch.mask & ~hidden)
    part = spoilt(part)
    for score in scored.scores.values():
        expected = torch.where(part.mask, score(batch), 0.0)
        assert expected.any()
        torch.testing.assert_close(score(part), expected, **CLOSE)


def spoilt(batch: Any) -> Any:
    """With NaN at all masked places that hold fractions, and other tokens where nothing kept is decided in sight."""
    payload, hole = batch.payload, ~batch.mask

    def broken(x: Any) -> Any:
        at = isinstance(x, Tensor) and x.is_floating_point() and x.shape[:2] == hole.shape
        return x.masked_fill(hole.view(*hole.shape, *[1] * (x.dim() - 2)), torch.nan) if at else x

    changed = {name: broken(x) for name, x in vars(payload).items()}
    if isinstance(payload, Canvases):  # a later pass sees what an earlier one decided, and a bound sees all
        changed["tokens"] = (payload.tokens + 1) % 100
        kept = batch.mask if payload.estimate.kind != "elbo" else torch.ones_like(payload.scored)
        last = torch.where(kept, payload.when, -1).amax(1, keepdim=True)
        unseen = ~kept & ((payload.when >= last) | (payload.estimate.kind == "one-step"))
        changed["canvas"] = torch.where(unseen, (payload.canvas + 1) % 100, payload.canvas)
    elif isinstance(payload, Sequences):  # a later token sees all earlier ones
        last = torch.where(batch.mask, torch.arange(batch.mask.shape[1]), -1).amax(1, keepdim=True)
        unseen = torch.arange(batch.mask.shape[1]) > last
        changed["tokens"] = torch.where(unseen, (payload.tokens + 1) % 100, payload.tokens)
    return batch.replace(payload=dataclasses.replace(payload, **changed),
                         logp_behaviour=broken(batch.logp_behaviour), version=batch.version.masked_fill(hole, 99))


def test_gradient_is_that_of_finite_differences(kind: str, scored: Scored) -> None:
    """Along one random direction of all weights together, but for those that a kind keeps part of its gradient from."""
    weights = [p for name, p in scored.policy.module.named_parameters()
               if p.requires_grad and name in DIFFERENTIATED.get(kind, (name,))]
    direction = [torch.randn(p.shape, generator=PROBE(i), dtype=p.dtype) for i, p in enumerate(weights)]
    weigh = torch.rand(scored.batch.mask.shape, generator=PROBE(0), dtype=torch.float64)
    for score in scored.scores.values():
        def value(score: Score = score) -> Tensor:
            return (weigh * score(scored.batch)).sum()

        found = torch.autograd.grad(value(), weights, allow_unused=True)
        slope = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True) if g is not None)
        ends = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                for p, d in zip(weights, direction, strict=True):
                    p.add_(sign * 1e-6 * d)
                ends.append(float(value()))
        assert slope != 0
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


# ------------------------------------------------------------------ through the loop, and over steps


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OWN])
def test_ratio_is_exactly_one_before_the_first_update(kind: str, request: pytest.FixtureRequest, tmp_path: Path
                                                      ) -> None:
    """In fp32, by the real loop; and what the sampler recorded, or froze, is what is scored."""
    seen: list[tuple[int, Tensor]] = []
    plain = type(method_of(kind))

    def loss(self: Method[Any], models: Models, batch: Batch) -> Loss:
        optimizer: Any = learner.optimizers["policy"]
        seen.append((len(optimizer.gradients), batch.log_ratio(models.policy.log_prob(batch)).detach()))
        return plain.loss(self, models, batch)

    method: Any = type("Watched", (plain,), {"loss": loss})(**vars(method_of(kind)))
    with opened(kind, request, tmp_path, method) as setting:
        built = {"policy": lambda: setting.policy, **setting.networks()}
        learner = Learner(method, {name: built[name]() for name in method.needs}, Recording)
        batch = setting.next(0).batch
        _, metrics, _ = learner.update(batch, Pace(1e-2, 1e30), PROBE(0))
    assert any(updates == 0 for updates, _ in seen)
    assert all((ratio == 0).all() for updates, ratio in seen if updates == 0)
    assert max(float(ratio.abs().max()) for _, ratio in seen) > 0
    assert metrics["logp_gap_max"] < 1e-4


def test_source_and_scores_resume_bit_for_bit(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The second batch is the same after the first and in a new setting that was given the first one's state."""
    with opened(kind, request, tmp_path) as setting:
        first = setting.next(0)
        setting.learnt(0, first, first.batch)
        state, kept = json.dumps(setting.state()), {name: x.clone() for name, x in setting.tensors().items()}
        whole = setting.next(1).batch
        expected = setting.policy.log_prob(whole)
    with opened(kind, request, tmp_path) as setting:
        setting.load(json.loads(state), kept)
        resumed = setting.next(1).batch
        found = setting.policy.log_prob(resumed)
    assert tensors(resumed).keys() == tensors(whole).keys()
    for name, column in tensors(whole).items():
        torch.testing.assert_close(tensors(resumed)[name], column, rtol=0, atol=0, equal_nan=True, msg=name)
    assert torch.equal(found, expected)
    assert any(not torch.equal(column, tensors(first.batch)[name]) for name, column in tensors(whole).items())


@pytest.mark.parametrize("name", WITHOUT)
def test_a_policy_without_a_likelihood_says_so(name: str) -> None:
    kind: Any = {"latent": latent.Latent, **control.KINDS}[name]
    with pytest.raises(UserError, match="has no log-probability"):
        kind.log_density(object.__new__(kind), torch.zeros(1, 3), torch.zeros(1, 2))
