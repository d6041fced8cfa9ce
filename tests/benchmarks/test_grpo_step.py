"""What the comparison computes from what was measured; no timing."""

import json
import time
from contextlib import nullcontext

import grpo_step
import published
import pytest
from versus import command, floor, quiet
from versus.channel import peak_bytes
from versus.quiet import Usage
from versus.side import Side
from versus.stopwatch import Stopwatch, tap
from versus.summary import (
    LEAST,
    Pair,
    check_all_learnt,
    check_same_prompts,
    chosen,
    compare,
    final_line,
    step_lines,
    table,
    together,
)
from versus.workload import RandomReward, Workload, draw_reward

from posttrain.core.errors import PosttrainError, UserError
from posttrain.nets.architecture import Architecture
from posttrain.tasks import load_task

ARCH = Architecture(width=4, layers=2, heads=2, kv_heads=1, head_width=2, hidden=3, vocabulary=10,
                    norm_epsilon=1e-5, rope_theta=1e4, context=64, tied=True, qkv_bias=False, qk_norm=False)
MACHINE = {"threads": 2, "instructions": "AVX2", "precision": "fp32", "torch": "2.13.0", "trl": "1.16.0"}


def report(seconds, *, load=0.0, gib=1.0, lengths=(3, 5), prompts=((1, 2),), skipped=0.0):
    """A side's report of one step."""
    return {"seconds": seconds, "others": load, "peak_bytes": int(gib * 2**30), "lengths": list(lengths),
            "prompts": [list(p) for p in prompts], "skipped": skipped, "grad_norm": 1.0,
            "stages": {"rollout": 0.5 * seconds, "rest": 0.1}}


# -------------------- the command


def test_defaults_train_the_whole_batch_in_one_pass():
    args = grpo_step.parse([])
    assert (args.prompts, args.samples, args.new_tokens, args.steps, args.precision) == (8, 8, 24, 5, "auto")
    assert args.trl_micro_batch == 64
    assert not args.anyway
    assert not args.fixed_length


@pytest.mark.parametrize(("argv", "field"), [
    (["--samples", "1"], "samples = 1"),
    (["--trl-micro-batch", "7"], "trl_micro_batch = 7"),
])
def test_options_that_cannot_be_are_refused(argv, field):
    with pytest.raises(UserError, match=field):
        grpo_step.parse(argv)


@pytest.mark.parametrize("argv", [["--steps", "0"], ["--precision", "int8"], ["--prompts", "many"]])
def test_values_out_of_range_are_wrong_use(argv):
    with pytest.raises(SystemExit, match="2"):
        grpo_step.parse(argv)


def test_a_busy_machine_gets_one_line_and_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(quiet, "watch", lambda: 0.63)
    monkeypatch.setattr(grpo_step, "require", lambda *_: None)
    monkeypatch.setattr(grpo_step, "inspect", lambda *_: pytest.fail("went on"))
    assert grpo_step.main([]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "0.63 cores" in error
    assert "--anyway" in error


def test_what_is_not_installed_is_named():
    with pytest.raises(PosttrainError, match=r"no_such_package.*benchmarks"):
        command.require("json", "no_such_package")


# -------------------- the quiet machine


def test_others_are_all_but_ourselves():
    # 10 s on the clock; all cores together 17 s busy, 14 s of it ours: others 3 s, that is 0.3 cores.
    assert quiet.others(Usage(5.0, 100.0, 20.0), Usage(15.0, 117.0, 34.0)) == pytest.approx(0.3)


def test_rounding_never_gives_negative_load():
    assert quiet.others(Usage(0.0, 0.0, 0.0), Usage(1.0, 0.99, 1.0)) == 0.0


@pytest.mark.parametrize(("load", "busy"), [(0.10, False), (0.11, True)])
def test_a_tenth_of_a_core_is_the_limit(load, busy, monkeypatch):
    monkeypatch.setattr(quiet, "watch", lambda: load)
    assert published.watch(anyway=True) == load
    with pytest.raises(PosttrainError, match=r"use 0\.11 cores") if busy else nullcontext():
        assert published.watch(anyway=False) == load


def test_own_work_is_counted_as_own():
    pytest.importorskip("psutil")
    before = quiet.own_seconds()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert 0.07 <= quiet.own_seconds() - before <= 0.5


# -------------------- the arithmetic


def test_operations_of_one_token():
    # A layer: qkv 4 × (2 + 2·1)·2 = 32, output (2·2) × 4 = 16, MLP 3 · 4 · 3 = 36: 84; × 2 layers × 2.
    assert floor.flop_per_token(ARCH) == 2 * 2 * 84
    assert floor.flop_per_prediction(ARCH) == 2 * 4 * 10
    assert floor.flop_per_pair(ARCH) == 2 * 2 * (2 * 2 * 2)  # layers × products × (heads × width × 2)


def test_shared_prompt_tokens_are_computed_once():
    # Prompts abc and abd share ab: 2 + 1 + 1 = 4 tokens, which attend to themselves and what came before:
    # a 1, b 2, c 3, d 3 = 9 pairs.  Completions of 1 and 3 tokens (one sample each) feed 0 and 2 tokens,
    # which attend to 3 + 1 and 3 + 2 = 9 tokens.  In all 6 tokens, 18 pairs, 4 predictions.
    token, pair, head = floor.flop_per_token(ARCH), floor.flop_per_pair(ARCH), floor.flop_per_prediction(ARCH)
    assert floor.pass_flop(ARCH, [[1, 2, 3], [1, 2, 4]], [1, 3]) == 6 * token + 18 * pair + 4 * head


def test_what_completions_share_is_read_once():
    # Prompts abc and abd share ab; completions of 2 and 4 tokens of the first feed 1 and 3, of 1 and 1 of the second
    # none: 3 times ab, 3 times c, and 1 + (1 + 2 + 3) of the completions' own.
    assert floor.tokens_read([[1, 2, 3], [1, 2, 4]], [2, 4, 1, 1]) == 3 * 2 + 3 * 1 + 1 + 6


def test_the_least_time_of_each_stage():
    # Weights: embedding 4 × 10 = 40, two layers of 84 = 168: 208.  GFLOP/s are so chosen that a pass takes 2 s and
    # GB/s so that 208 bytes take 1 s.  Rollout in bf16: 5 tokens read 208 weights each, and 4 of them the prompt's 2
    # tokens; the completions, which feed 2 and 4, 1 + 2 and 1 + 2 + 3 + 4 of their own: 21 tokens of 2 · 2 · 1 · 2 = 8
    # numbers.  (5 · 208 + 168) · 2 bytes take 11.6 s, longer than 2 s.
    # AdamW: 28 bytes of each weight, 2 more for the bf16 copy.
    prompts, lengths = [[1, 2]], [3, 5]
    flop = floor.pass_flop(ARCH, prompts, lengths)
    bf16 = floor.Floor(ARCH, "bf16", flop / 2e9, 208e-9)
    assert bf16.weights == 208
    assert bf16.rollout(prompts, lengths) == pytest.approx(1208 * 2 / 208)
    assert bf16.gradient(prompts, lengths) == pytest.approx(3 * 2)
    assert bf16.optimizer(prompts, lengths) == pytest.approx(30)
    assert list(bf16.step) == ["rollout", *bf16.update] == ["rollout", "loss and gradient", "optimizer"]
    fp32 = floor.Floor(ARCH, "fp32", flop / 2e9, 208e-9)
    assert [least(prompts, lengths) for least in fp32.step.values()] == pytest.approx([1208 * 4 / 208, 6, 28])
    assert floor.Floor(ARCH, "fp32", flop / 30e9, 208e-9).rollout(prompts, lengths) == pytest.approx(30)


def test_medians_ratios_and_shares():
    pairs = [Pair(report(1.0, gib=2), report(4.0, gib=3)), Pair(report(2.0, gib=2.5), report(6.0, gib=5)),
             Pair(report(4.0, gib=2), report(20.0, gib=4))]
    least = {"rollout": lambda prompts, lengths: 0.75, "rest": lambda prompts, lengths: 0.25}  # one second in all
    result = compare(pairs, [least] * len(pairs))
    assert result["posttrain"]["seconds"] == 2.0
    assert result["TRL"]["seconds"] == 6.0
    assert result["ratio_of_medians"] == 3.0
    assert result["ratios"] == [4.0, 3.0, 5.0]
    assert result["memory_ratio"] == 0.5  # the highest of all steps: 2.5 and 5 GiB
    assert result["posttrain"]["share"] == pytest.approx(0.5)  # medians of 1, 1/2, 1/4
    assert result["posttrain"]["rollout"] == 1.0
    assert result["posttrain"]["share, rollout"] == pytest.approx(0.75)  # 0.75 of half of 1, 2 and 4 s
    assert result["posttrain"]["share, rest"] == pytest.approx(2.5)  # reported as 0.1 s, whatever the step took
    assert result["posttrain"]["optimizer"] == 0.0  # a stage that nobody reported took no time
    assert result["posttrain"]["length"] == 4.0
    assert result["posttrain"]["ms_per_token"] == 250.0


def test_the_first_pair_and_disturbed_ones_do_not_count():
    warm_up, calm, noisy = (Pair(report(1.0), report(2.0, load=load)) for load in (0.0, 0.05, 0.5))
    assert chosen([warm_up, calm, noisy], anyway=False) == [calm]
    assert chosen([warm_up, calm, noisy], anyway=True) == [calm, noisy]
    with pytest.raises(PosttrainError, match="every step"):
        chosen([warm_up, noisy], anyway=False)


def test_unequal_work_voids_the_comparison():
    same, less = Pair(report(1.0), report(1.0)), Pair(report(1.0, skipped=0.25), report(1.0))
    check_same_prompts(same)
    check_all_learnt(same)
    check_same_prompts(less)
    with pytest.raises(PosttrainError, match="left completions out of its update; the comparison is void"):
        check_all_learnt(less)
    with pytest.raises(PosttrainError, match="different prompts; the comparison is void"):
        check_same_prompts(Pair(report(1.0, prompts=[[9]]), report(1.0)))


@pytest.mark.parametrize(("argv", "name"), [
    ([], "grpo-step"),
    (["--verified"], "grpo-step-verified"),
    (["--prompts", "16"], "grpo-step-16x8x24"),
    (["--verified", "--prompts", "16", "--samples", "4"], "grpo-step-verified-16x4x24"),
])
def test_figures_of_other_work_go_elsewhere(argv, name):
    assert grpo_step.mark(grpo_step.parse(argv)) == name


def test_what_is_printed():
    least = {stage: lambda prompts, lengths: 1.0 for stage in LEAST}
    pairs = [Pair(report(7.06, gib=2.9), report(31.04, gib=8.2, load=0.4))] * 2
    result = compare(pairs, [least] * len(pairs))
    assert final_line(result, MACHINE) == (
        "posttrain 7.06 s/step, 2.9 GiB; TRL 31 s/step, 8.2 GiB: 4.4× faster, 0.35× memory "
        "(2 cores, AVX2, fp32, torch 2.13.0, trl 1.16.0)")
    assert "2.0× slower" in final_line(compare([Pair(report(2.0), report(1.0))], [least]), MACHINE)
    assert [line.endswith("disturbed") for line in step_lines(pairs)] == [False, True, True]
    for side in ("posttrain", "TRL"):
        result[side]["first"] = 9.0
    lines = [line.split() for line in table(result)]
    assert ["optimizer", "0.00", "0.00"] in lines
    assert ["floor,", "seconds", "3.00", "3.00"] in lines
    assert ["rollout", "28.3%", "6.4%"] in lines  # of 7.06 / 2 and 31.04 / 2 s
    assert ["optimizer", "–", "–"] in lines  # not timed: no share
    assert ["mean", "reward", "–", "–"] in lines  # not reported
    assert ["left", "out", "of", "the", "update", "0.0%", "0.0%"] in lines


def test_all_steps_as_one_run():
    rewards = [(0.1, 0.2), (0.3, 0.2), *[(0.5, 0.5)] * 4, (0.8, 0.9), (1.0, 0.9)]
    pairs = [Pair(report(2.0) | {"reward": a}, report(17.0) | {"reward": b}) for a, b in rewards]
    # 8 · 2 and 8 · 17 s; a quarter is two steps: (0.1 + 0.3) / 2 and (0.2 + 0.2) / 2, (0.8 + 1) / 2 and (0.9 + 0.9) / 2
    assert together(pairs) == ("all 8 steps: posttrain 16 s, TRL 136 s, 8.5 times; mean reward of the first 2 0.20 and "
                               "0.20, of the last 2 0.90 and 0.90")


def test_what_was_measured_is_kept(monkeypatch, tmp_path):
    fast, slow = ({**MACHINE, "gflops": gflops, "gbytes": 40.0} for gflops in (900.0, 450.0))
    steps = [Pair(report(2.0), report(6.0), fast), Pair(report(1.0), report(4.0), fast),
             Pair(report(1.0), report(4.0), slow)]
    for name, found in {"require": None, "resolve": tmp_path, "architecture": ARCH, "measure": steps, "watch": 0.02,
                        "inspect": fast}.items():
        monkeypatch.setattr(grpo_step, name, lambda *_, found=found: found)
    monkeypatch.setattr(published, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / published.PAGE
    page.write_text("<!-- begin grpo-step -->\n<!-- end grpo-step -->\n")
    assert grpo_step.main([]) == 0
    told = page.read_text()
    assert "medians of 2 steps; ratio of each: 4.00, 4.00; peaks 450 to 900 GFLOP/s and 40 GB/s" in told
    kept = json.loads((tmp_path / "evidence/grpo-step.json").read_text())
    assert kept["result"]["TRL"]["first"] == 6.0
    assert kept["options"]["prompts"] == 8
    assert len(kept["steps"]) == 3
    # the same second of the same work on a machine of half the speed: twice the share of its arithmetic
    work = [floor.floor_of(ARCH, machine).gradient([[1, 2]], [3, 5]) for machine in (fast, slow)]
    assert work[1] == pytest.approx(2 * work[0])
    assert kept["result"]["posttrain"]["floor, loss and gradient"] == pytest.approx(1.5 * work[0])


# -------------------- the two sides


def test_a_workload_survives_the_way_to_a_process():
    workload = Workload("model", 8, 8, 24, 6, "fp32", 2, False, 64, True)
    assert Workload.load(workload.dump()) == workload
    assert len(workload.problems()) == 48


def test_every_completion_gets_its_own_reward_and_the_same_one_again():
    first, again = (RandomReward(load_task("addition")) for _ in range(2))
    rewards = [first.draw("7") for _ in range(64)]
    assert len(set(rewards)) == 64
    assert rewards == [again.score(None, "7") for _ in range(64)]
    assert all(0 <= r < 1 for r in rewards)
    assert draw_reward(1, "a") != draw_reward(1, "b")


def test_the_watch_counts_calls_and_keeps_results():
    class Work:
        def add(self, a, b):
            return a + b

    work, watch, seen = Work(), Stopwatch(), []
    watch.wrap(work, "add", "adding")
    tap(work, "add", seen.append)
    assert work.add(1, b=2) == 3
    assert seen == [3]
    assert set(watch.take()) == {"adding"}
    assert watch.take() == {}


def test_a_side_that_fails_says_why():
    with pytest.raises(PosttrainError, match=r"TRL: ended with code 1: .*NoSuchModule"), \
            Side("TRL", "versus.NoSuchModule", "{}", 1) as side:
        side.step(timeout=60)


def test_memory_is_in_bytes():
    psutil = pytest.importorskip("psutil")
    assert 0.9 * psutil.Process().memory_info().rss <= peak_bytes() <= psutil.virtual_memory().total
