"""The comparison with other libraries: its own arithmetic, and its verdicts where those libraries are installed."""

import json
from importlib.util import find_spec

import pytest
import torch
from peers import __main__ as command
from peers import compare, ours, own, report
from peers.compare import Cause, Finding, Row, difference, findings
from peers.draw import CUT, HOLES, draw

from posttrain.core import method_files


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def row(theirs, cause=None, quantity="loss", peer="TRL"):
    return Row("grpo", peer, "entry", quantity, tensor(1.0, 2.0), theirs, cause)


# -------------------- the verdict


def test_differences_are_relative_to_the_largest_entry():
    assert difference(tensor(1, -4), tensor(1, -3)) == 0.25
    assert difference(tensor(0, 0), tensor(0, 0)) == 0
    assert difference(tensor(0, 0), tensor(0, 1e-30)) == torch.inf
    assert difference(tensor(1, 2), tensor(1, torch.nan)) == torch.inf


@pytest.mark.parametrize(("gap", "verdict"), [(0, "agree at 1e-10"), (1e-10, "agree at 1e-10"),
                                              (3e-10, "agree at 1e-6"), (1e-6, "agree at 1e-6"),
                                              (3e-6, "UNEXPLAINED")])
def test_verdicts(gap, verdict):
    found, = findings([lambda d: [row(tensor(1.0, 2.0 * (1 + gap * 0.999)))]], seeds=[0])
    assert found.verdict == verdict
    assert found.explained == (verdict != "UNEXPLAINED")


def test_a_reason_counts_only_if_the_difference_vanishes_without_its_cause():
    far, same = tensor(1.0, 3.0), tensor(1.0, 2.0)
    true = Cause("because", same, same)
    false = Cause("a guess", same, tensor(1.0, 2.0001))
    explained, = findings([lambda d: [row(far, true)]], seeds=[0])
    guessed, = findings([lambda d: [row(far, false)]], seeds=[0])
    assert (explained.verdict, explained.why, explained.residual) == ("disagree", "because", 0.0)
    assert guessed.verdict == "UNEXPLAINED"
    assert not guessed.explained


def test_a_reason_must_hold_on_every_draw():
    def sometimes(d):
        same = tensor(1.0, 2.0)
        return [row(tensor(1.0, 3.0), Cause("luck", same, same + d.seed))]

    assert findings([sometimes], seeds=[0])[0].explained
    assert not findings([sometimes], seeds=[0, 1])[0].explained


def test_the_largest_difference_of_all_draws_counts():
    found, = findings([lambda d: [row(tensor(1.0, 2.0 + d.seed))]], seeds=[0, 2, 1])
    assert found.difference == 1.0


# -------------------- the draw, and our side


@pytest.mark.parametrize("seed", compare.SEEDS)
def test_a_draw_holds_all_that_it_promises(seed):
    d = draw(seed)
    assert not d.mask[CUT].any() and d.present[CUT].any()
    for hole in HOLES:
        own_tokens = d.mask[hole].nonzero().flatten().tolist()
        assert own_tokens != list(range(own_tokens[0], own_tokens[-1] + 1))
    ratio = (d.logp - d.old).exp()[d.mask]
    assert ratio.max() > 3 and (ratio > 1.28).sum() > 3 and (ratio < 0.8).sum() > 3
    assert len(d.reward[d.group == 2].unique()) == 1
    assert len(set(d.lengths)) > 3


def test_the_gradient_of_ours_is_that_of_its_loss():
    d, step = draw(0), 1e-6
    gradient = ours.run("grpo", d).gradient
    where = d.mask.nonzero()[3]
    moved = torch.zeros_like(d.logp)
    moved[tuple(where)] = step
    up, down = (ours.run("grpo", d.but(logp=d.logp + sign * moved)).loss for sign in (1, -1))
    assert float((up - down) / (2 * step)) == pytest.approx(float(gradient[tuple(where)]), rel=1e-6)


def test_ours_is_really_split():
    d = draw(0)
    policy = ours.Table(d.logp, 3)
    assert [len(part) for part in policy.split(ours.groups(d), whole_units=False)] == [5, 5, 5]


def test_ours_changes_with_neither_micro_batches_nor_padding():
    for found in findings([own.invariance], seeds=[0]):
        assert found.difference < compare.EXACT, found


def test_what_falls_on_padding_is_seen():
    d = draw(0)
    gradient = torch.zeros(len(d), d.mask.shape[1] + 2, dtype=torch.float64)
    gradient[4, -1] = -7.0
    assert ours.off_padding(gradient, d)[4, -1] == 7.0


def test_every_method_named_is_in_the_catalogue():
    assert {name.replace("_", "-") for name in own.NAMES + own.PAIRED} <= set(method_files.methods())


# -------------------- the page


def finding(**changes):
    given = {"objective": "grpo, no KL", "peer": "TRL", "entry": "a|b", "quantity": "loss", "difference": 0.5,
             "why": "so it is", "residual": 0.0}
    return Finding(**given | changes)


def test_the_page_names_versions_counts_and_reasons():
    found = [finding(), finding(objective="dapo", difference=0.0, why="", residual=None),
             finding(quantity="split"), finding(peer="posttrain", quantity="split", difference=0.0, why="",
                                               residual=None)]
    page = report.page(found, {"posttrain": "0.1", "TRL": "9.9", "verl": "8.8"}, {"TRL": ["luspo"]})
    assert "TRL 9.9" in page
    assert "of 2 comparisons 1 agree" in page
    assert "Disagreements without a checked reason: 0." in page
    assert "| `grpo`, no KL | TRL: `a\\|b` | loss: 5.0e-01 | 0e+00 | so it is. |" in page
    assert "posttrain's own gradient changes in 0 of 1 cases" in page
    assert "`luspo`" in page
    assert "UNEXPLAINED" not in page


def test_an_unexplained_difference_is_shouted():
    found = [finding(residual=0.1)]
    assert "**UNEXPLAINED**" in report.page(found, {}, {})
    assert "checked reason: 1." in report.counts(found)
    assert any("UNEXPLAINED" in line for line in report.lines(found))


def test_a_missing_peer_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "PACKAGES", {"TRL": "no_such_package", "verl": "neither_this"})
    assert command.main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("peers: TRL: not installed: pip install")


def test_the_stored_page_is_that_of_the_stored_data():
    stored = json.loads((command.ROOT / "evidence/peers.json").read_text())
    found = [Finding(**{k: v for k, v in f.items() if k != "verdict"} | {"difference": float(f["difference"])})
             for f in stored["findings"]]
    assert all(f.explained for f in found)
    page = (command.ROOT / "docs/peers.md").read_text()
    assert report.counts(found) in page
    assert all(line in page for line in report._disagree([f for f in found if f.quantity not in report.SHAPES]))


# -------------------- the peers themselves


@pytest.mark.parametrize("peer", list(command.PACKAGES))
def test_every_disagreement_with_a_peer_is_explained(peer):
    if find_spec(command.PACKAGES[peer]) is None:
        pytest.skip(f"{peer} is not installed: {command.INSTALL[peer]}")
    if problem := command.why_not(peer):
        pytest.skip(problem)
    found = command.collect([peer])
    assert len(found) > 50
    assert [f for f in found if not f.explained] == []
