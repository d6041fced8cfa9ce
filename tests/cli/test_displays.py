"""What a run shows: stable lines on a pipe, a picture that fits a terminal, no control by hostile text."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from posttrain.cli.live import Live, curve_rows, shortened
from posttrain.cli.progress import Plain, Shown, choose, visible

METRICS = {"reward": 0.625, "length": 12.345, "grad_norm": 0.8, "logp_gap": 1.2e-6, "reward_failures": 0.0,
           "loss/policy": -0.1}
TIMING = {"rollout": 1.04, "learn": 0.5, "total": 1.54}
ROW = {"step": 0, "when": "before", "accuracy": 0.02, "interval": (0.01, 0.05), "scores": (0.0,) * 200,
       "failures": 0}
HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold]42[/bold]\r\n\u202e\u200b\x9b31m"


def run(display: Shown, steps: int = 3) -> None:
    with display:
        display.note("loaded")
        display.objective([("objective", "L = x\n    + y"), ("batch", HOSTILE)])
        display.evaluation("before", ROW)
        display.begin(1, steps)
        for step in range(1, steps + 1):
            display.step(step, METRICS | {"reward": step / 10}, TIMING)
            display.sample("What is 1 + 1? " + HOSTILE, "答案 " * 90 + HOSTILE, 1.0)
        display.evaluation("after", ROW | {"accuracy": 0.5, "failures": 2})
        display.finish(["accuracy 2% → 50%"])


def test_a_pipe_gets_stable_lines(capsys: pytest.CaptureFixture[str]) -> None:
    display = choose("grpo on addition · tiny")
    assert isinstance(display, Plain)
    run(display)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: grpo on addition · tiny"
    assert lines[2:4] == ["objective: L = x", "objective: + y"]
    lines = [line for line in lines if not line.startswith(("objective: ", "batch: "))]
    assert lines[2] == "evaluation before: accuracy=0.02 [0.01, 0.05] problems=200"
    assert lines[3] == ("step=1/3 reward=0.1 length=12.3 grad_norm=0.8 logp_gap=1.2e-06 "
                        "rollout_s=1.04 learn_s=0.5 total_s=1.54")
    assert [line.split()[0] for line in lines[3:6]] == ["step=1/3", "step=2/3", "step=3/3"]
    assert lines[6] == "evaluation after: accuracy=0.5 [0.01, 0.05] problems=200 failures=2"
    assert lines[7:] == ["accuracy 2% → 50%"]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_picture_fits_and_obeys_nobody(width: int) -> None:
    out = io.StringIO()
    run(Live("grpo on addition " + HOSTILE, Console(file=out, width=width, height=40, force_terminal=True,
                                                  color_system=None, legacy_windows=False, highlight=False)))
    text = out.getvalue()
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\x9b" not in text
    assert "step 3/3" in text
    picture = text[text.rindex("╭"):].splitlines()
    assert max(map(cell_len, picture)) <= width
    if width >= 80:
        assert "[bold]42[/bold]" in text  # shown as it is, not taken for markup
        assert "2.0% → 50.0%" in text


RETURNS = {"step": 0, "when": "before", "return": 21.5, "interval": (18.25, 24.75), "scores": (20.0, 23.0),
           "length": 21.5}


def control(display: Shown) -> None:
    """No episode ends in the first step."""
    with display:
        display.evaluation("before", RETURNS)
        display.begin(1, 3)
        for step, reward in enumerate(({}, {"reward": 30.5}, {"reward": 199.0}), 1):
            display.step(step, {"grad_norm": 0.5} | reward, TIMING)
        display.evaluation("after", RETURNS | {"return": 480.0, "interval": (470.0, 490.0)})


def test_control_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    control(Plain("ppo on CartPole-v1 · auto"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "evaluation before: return=21.5 [18.2, 24.8] episodes=2 length=21.5"
    assert lines[2] == "step=1/3 grad_norm=0.5 rollout_s=1.04 learn_s=0.5 total_s=1.54"
    assert lines[3].startswith("step=2/3 reward=30.5 ")


def test_control_in_the_picture() -> None:
    """Returns are numbers, not shares, and nothing speaks of tokens or problems."""
    out = io.StringIO()
    control(Live("ppo on CartPole-v1", Console(file=out, width=100, height=40, force_terminal=True, color_system=None,
                                               legacy_windows=False, highlight=False)))
    text = out.getvalue()
    assert "evaluation after  return 480 [470, 490]" in text
    picture = text[text.rindex("╭"):]
    assert "return 199" in picture
    assert "from 30.5" in picture
    assert "21.5 → 480 after" in picture
    assert not any(word in text for word in ("%]", "nan", "token", "problem", "2150"))


def test_the_picture_while_no_episode_has_ended() -> None:
    out = io.StringIO()
    with Live("x", Console(file=out, width=80, force_terminal=True, color_system=None)) as display:
        display.evaluation("before", RETURNS)
        display.begin(1, 2)
        display.step(1, {"grad_norm": 0.5}, TIMING)
    assert "return: none yet" in out.getvalue()


def test_the_picture_before_the_first_step() -> None:
    out = io.StringIO()
    with Live("title", Console(file=out, width=80, force_terminal=True, color_system=None)) as display:
        display.note("fetching")
    assert "fetching" in out.getvalue()


@given(st.text())
def test_visible(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs"}
    if text.isprintable():
        assert shown == text


@given(st.text(max_size=200), st.integers(10, 100))
def test_shortened_fits(text: str, cells: int) -> None:
    assert cell_len(shortened(text, cells)) <= cells


def test_shortened_keeps_both_ends() -> None:
    assert shortened("abcdefghijklmnopqrstuvwxyz", 13) == "abcde … vwxyz"


def test_curve() -> None:
    # 24 eighths high: the lowest value gets 1, the highest 24, the middle 1 + round(0.5 · 23) = 1 + 12 = 13
    # (halves round to even): 8 below, 5 above.  NaN is a gap.
    assert curve_rows([0.0, 0.5, 1.0, float("nan")], 0.0, 1.0) == ["  █ ", " ▅█ ", "▁██ "]
    assert curve_rows([0.3, 0.3], 0.3, 0.3) == ["  ", "  ", "▁▁"]


@pytest.mark.parametrize("make", [lambda: Plain("x"), lambda: Live("x", Console(file=io.StringIO()))])
def test_a_failure_closes_the_display(make: Callable[[], Shown]) -> None:
    display = make()

    def fail() -> None:
        with display:
            display.begin(1, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not isinstance(display, Live) or not display.live.is_started
