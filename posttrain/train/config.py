"""Everything that a run can be told, beside the method's own hyperparameters.  All of it lands in config.json.

What every run has is in `Config`; each kind of policy adds its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.core.types import AtLeastOne, Count, Fraction, Natural, NonNegative, Positive, check_ranges


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of every `posttrain train`.

    Raises:
        UserError: on a value outside its range, naming the option, the value and what is allowed.
    """

    policy: str  # what is trained
    task: str  # what it is to become good at
    steps: Count = 100  # batches to learn from
    seed: Natural = 0  # names every random stream of the run
    out: str = ""  # run folder; empty: runs/METHOD-TASK-SEED

    lr: Positive = 1e-5  # AdamW's learning rate at the start
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"  # decay to 10% of lr at the last step
    warmup: Natural = 0  # steps over which the learning rate rises from 0
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's averages
    weight_decay: NonNegative = 0.0  # AdamW's, decoupled
    max_grad_norm: Positive = 1.0  # global norm above which gradients are scaled down

    eval_every: Natural = 0  # steps between held-out evaluations; 0: only before and after
    checkpoint_every: Count = 25  # steps between checkpoints
    keep_checkpoints: Count = 2  # newest checkpoints kept
    threads: Natural = 0  # CPU threads; 0: one per core

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(Config):
    """The options of a run that trains a language model."""

    policy: str = "smollm2-135m"  # a known name, a Hugging Face folder, or org/name on the hub
    task: str = "addition"  # a task's name, a .jsonl file, or module:function
    teacher: str = ""  # a policy to learn from, for methods that have one
    source: Literal["auto", "samples", "given", "both"] = "auto"  # fresh samples, answers of the task; auto: by method

    prompts: Count = 8  # prompts per step
    samples: Count = 8  # completions per prompt, the group
    dynamic_sampling: Count = 1  # batches drawn at most, until one is full of groups of unequal rewards; 1: take all
    curriculum: str = ""  # what chooses the problems, of the shelf curriculum; empty: the task's own order
    max_new_tokens: Count = 256  # longest completion, tokens; a task may suggest another
    temperature: Positive = 1.0  # of sampling and of every log-probability in the loss
    top_p: Fraction = 1.0  # smallest set of tokens with this probability; 1: all
    top_k: Natural = 0  # the k likeliest tokens; 0: all
    min_p: Fraction = 0.0  # tokens at least this times as likely as the likeliest one; 0: all
    bad_words: tuple[str, ...] = ()  # texts whose tokens no sample holds in a row, with and without a space before them
    logit_bias: tuple[str, ...] = ()  # TOKEN=BIAS, added to that token's logit when sampling, not in the loss
    stop: tuple[str, ...] = ()  # texts that end a completion
    engine: Literal["embedded", "vllm"] = "embedded"  # what samples: the policy's own engine, or vLLM beside it
    correct: Literal["auto", "none", "truncate", "mask"] = "auto"  # weights for the sampler's gap; auto: with vllm
    correct_limit: AtLeastOne = 2.0  # C: weights are at most this, or 0 outside 1/C … C with mask
    cache_bytes: Natural = 0  # most that rows sampled at a time may take: keys, values, logits; 0: by the free memory

    lora: Natural = 0  # rank of LoRA adapters; 0: every weight is trained
    device: Literal["auto", "cpu", "cuda"] = "auto"  # of weights, optimizer and cache; auto: cuda where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of compute; master weights are always fp32
    tokens_per_micro_batch: Count = 2048  # bounds the memory of the training pass

    verifier: str = ""  # name, or module:function, for a task of your own
    heldout: str = ""  # .jsonl file of held-out problems for a task of your own
    on_reward_failure: Literal["drop", "zero", "stop"] = "drop"  # when a verifier raises, blocks or returns NaN
    reward_timeout: Positive = 10.0  # seconds that one verifier call may take
    eval_problems: Count = 200  # held-out problems in each evaluation


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(LanguageConfig):
    """The options of a run that trains a masked-diffusion language model."""

    policy: str = "tiny-masked"  # a known name, or a Hugging Face folder whose config.json has a mask_token_id
    task: str = "char-addition"  # a task's name, a .jsonl file, or module:function

    order: Literal["confidence", "random", "left"] = "confidence"  # which masked tokens a pass of the sampler decides
    per_pass: Count = 1  # tokens that a pass decides
    block: Natural = 0  # tokens of a block, filled before the next one begins; 0: the canvas is one block
    passes: Natural = 0  # that fill a block of the canvas, in even shares; 0: as many as per_pass takes
    prompt_mask: Fraction = 0.15  # one-step likelihood: probability that a prompt token is masked; 2504.12216's code
    draws: Count = 16  # bound on the likelihood: times and masks drawn for each completion; 2510.11683, sec. 4.1


@dataclass(frozen=True, kw_only=True)
class ControlConfig(Config):
    """The options of a run that trains a policy to act on an environment."""

    policy: Literal["auto", "gaussian", "bounded-gaussian", "squashed-gaussian", "state-dependent", "bang-bang",
                    "deterministic", "categorical", "greedy", "latent", "adapting", "transformer", "flow", "mean-flow",
                    "denoiser", "noisy-flow", "diffusion", "latent-flow", "edited-flow", "family",
                    "ensemble"] = "auto"  # kind
    task: str = "CartPole-v1"  # any Gymnasium id
    steps: Count = 100  # lines of metrics.jsonl, each of `rounds` batches
    source: Literal["auto", "segments", "episodes", "replay", "dataset"] = "auto"  # what a batch holds; auto: by method
    start_from: str = ""  # a run, finished or stopped, or a saved policy, whose networks this one begins with
    teacher: str = ""  # a finished run, or a saved policy, which acts too, for methods that have one
    start_networks: tuple[str, ...] = ()  # taken, such as policy, critic or q; empty: all that were kept
    dataset: tuple[str, ...] = ()  # logged transitions to learn from, a Minari folder or name; several are joined
    dataset_share: Fraction = 1.0  # of a batch; the rest is what acting brings, most often by a replay
    curriculum: str = ""  # what chooses the logged episodes that rows come from; empty: every row is as likely

    imagined: Natural = 0  # steps of rollouts in a model fitted to the dataset, in which acting is then done; 0: none
    model_members: Count = 7  # imagined: networks of that model that are fitted
    model_elites: Count = 5  # imagined: of these the best, which are kept
    model_width: Count = 200  # imagined: units of their hidden layers, of which there are four
    model_updates: Count = 2000  # imagined: of that model, before anything else is learnt

    synthetic: Natural = 0  # steps of stretches that a model of the dataset makes up, to fill batches; 0: none
    synthetic_count: Count = 1024  # synthetic: stretches that are held
    synthetic_every: Count = 10_000  # synthetic: batches until all are made anew
    synthetic_passes: Count = 64  # synthetic: of the sampler, each of two evaluations
    synthetic_width: Count = 256  # synthetic: units of that model, a denoiser of three blocks
    synthetic_updates: Count = 5000  # synthetic: of the model, before anything else is learnt

    envs: Count = 1  # environments that are stepped together
    segment: Count = 2048  # segments: steps of each environment in a batch
    history: Natural = 0  # segments: earlier ones that a batch holds beside the newest, for methods that act otherwise
    starts: Count = 8  # episodes: initial states in a batch, the groups
    samples: Count = 8  # episodes: of each initial state
    rounds: Count = 1  # batches, each after a step of every environment, that one line of metrics sums up
    batch_size: Count = 256  # replay: transitions in a batch
    capacity: Count = 1_000_000  # replay: transitions kept, the newest
    random_steps: Natural = 1000  # replay: random actions before the first batch
    policy_steps: Natural = 0  # replay: actions of the policy itself after those, still before the first batch
    exploration: NonNegative = 0.0  # replay: standard deviation of noise added to actions, in halves of their range
    exploration_memory: Fraction = 0.0  # share ρ of an action's noise that the next one keeps; DDPG's paper: 0.85
    epsilon: Fraction = 0.0  # replay: share of actions that are random, in the end
    epsilon_start: Fraction = 1.0  # replay: that share at first; it falls linearly
    epsilon_rounds: Natural = 0  # replay: batches until it has fallen
    replay_ratio: Count = 1  # replay: batches drawn after each step of every environment
    span: Count = 1  # replay: actions from a transition's observation to the one after, for methods that take it
    replay: Literal["uniform", "prioritized", "hindsight"] = "uniform"  # how transitions are drawn
    priority: Fraction = 0.6  # prioritized: power of a transition's surprise that it is drawn in proportion to
    correction: Fraction = 0.4  # prioritized: power of the importance weights at first; 1 in the end
    relabels: Natural = 4  # hindsight: transitions whose goal is one reached later, for each that keeps its own

    width: Count = 64  # units of a hidden layer
    q_width: Natural = 0  # those of Q's; 0: width
    layers: Natural = 2  # hidden layers
    activation: Literal["tanh", "relu", "elu"] = "tanh"  # of hidden layers
    memory: Natural = 0  # units of a GRU before policy and critic, which see its state beside the observation
    recall: Count = 64  # memory: steps that an update goes back through
    log_std: float = 0.0  # gaussian, bounded-gaussian, state-dependent: ln of the noise's standard deviation at first
    hold: Count = 1  # state-dependent: steps that one matrix of noise serves
    heads: Count = 1  # transformer: of attention, which divide the width
    context: Count = 20  # transformer: steps that an action follows from
    target_return: float | None = None  # transformer: what it is to earn when it acts; none: the best of the dataset
    ensemble: Count = 4  # ensemble: Gaussian policies in one, of which one acts
    denoising_steps: Count = 10  # of a policy that makes an action out of noise
    best_of: Count = 8  # actions that an edited flow draws, and edits, to choose one
    edit_scale: Fraction = 0.1  # most that it edits an action by, halves of its range
    sampler: Literal["ddim", "heun"] = "ddim"  # of a denoiser: first or second order in the noise
    dueling: bool = False  # Q of numbered actions: a state's value and each action's advantage, added
    normalize_obs: bool = False  # by the mean and deviation of all seen so far, saved with the policy
    normalize_reward: bool = False  # by the deviation of the discounted return so far, clipped at ± 10
    lr: Positive = 3e-4  # AdamW's learning rate at the start
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW's averages
    max_grad_norm: Positive = 0.5  # norm of each network above which gradients are scaled down

    threads: Natural = 1  # CPU threads; small networks are slower on more
    eval_episodes: Count = 20  # in each evaluation


@dataclass(frozen=True, kw_only=True)
class PictureConfig(Config):
    """The options of a run that trains a policy to make pictures."""

    policy: str = "digits-flow"  # or digits-ddpm, digits-consistency, digits-noise, terrain; a run's folder, diffusers'
    task: str = "digits/classifier"  # what is rewarded: digits/NAME, pictures/NAME, terrain/NAME, module:function
    captions: str = ""  # a file of prompts, one a line: the labels of a pipeline that reads text
    steps: Count = 100  # batches to learn from

    prompts: Count = 10  # labels per step
    samples: Count = 16  # pictures per label, the group
    denoising_steps: Count = 10  # of the sampler
    spread: NonNegative | None = None  # noise of its steps: flow, a of the SDE; others, η; none: as it was saved
    shared_start: bool = False  # the pictures of a group begin as the same noise
    drawn: Literal["every", "one"] = "every"  # steps that are drawn: all, or one of each group's, the rest computed
    step_share: Fraction = 1.0  # of a picture's drawn steps that are learnt from, at random, one at least
    given: Natural = 0  # real pictures of each label beside its samples, for methods that learn from both
    interval: Fraction = 1.0  # the last steps alone are learnt, this share of them at first; a group shares the others

    lr: Positive = 1e-3  # AdamW's learning rate at the start
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW's averages
    threads: Natural = 1  # CPU threads; small networks are slower on more
    pictures_per_micro_batch: Natural = 0  # bounds the memory of training; 0: as many as the policy says, or all
    eval_pictures: Count = 200  # in each evaluation, from noise that training never sees
