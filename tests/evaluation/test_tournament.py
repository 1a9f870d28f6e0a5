"""Which checkpoint is recommended, what is said about it, and when a recommendation no longer holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech import tournament
from fish_speech.audio import write_wav
from fish_speech.errors import UserError
from fish_speech.evaluation import tournament_decision as rule
from fish_speech.evaluation.tournament import costs_of
from fish_speech.evaluation.tournament_decision import LOSS, SIMILARITY, SPEECH, WER, Contestant, Costs
from fish_speech.evaluation.tournament_material import SENTENCES, choose_material, recordings_of
from fish_speech.evaluation.tournament_words import conclude
from fish_speech.tournament_record import recommended_step

from ..conftest import REPO

WORDS = [5, 9, 7, 8, 4, 10, 6, 7]  # of eight texts


def contestant(step, errors=None, voice=None, loss=None, failures=None):
    """A system by what it costs in each of eight texts; a number stands for eight of them."""

    def costs(values, sizes=None, sign=1.0):
        values = [values] * len(WORDS) if isinstance(values, int | float) else values
        return Costs.of([None if value is None else sign * value for value in values], sizes)

    measures = {SPEECH: costs(failures or 0.0)}
    measures |= {} if errors is None else {WER: costs(errors, WORDS)}
    measures |= {} if voice is None else {SIMILARITY: costs(voice, sign=-1.0)}
    measures |= {} if loss is None else {LOSS: costs(loss)}
    return Contestant("base" if step is None else f"step {step}", step, measures)


def recommended(*contestants):
    chosen = rule.decide(contestants).recommended
    return chosen.step if chosen else None


def test_rates_are_all_errors_by_all_words():
    assert contestant(1, errors=[1, 0, 0, 0, 0, 0, 0, 6]).costs[WER].mean == 7 / sum(WORDS)


def test_the_earliest_of_equals_is_taken_in_whatever_order_they_come():
    same = [contestant(step, errors=1, voice=0.8, loss=5.0) for step in (300, 100, 200)]
    assert recommended(*same) == 100


def test_a_difference_that_chance_explains_does_not_count():
    early = contestant(100, errors=[1, 0, 2, 1, 0, 0, 1, 1], voice=0.8)
    late = contestant(200, errors=[0, 1, 0, 1, 0, 1, 1, 1], voice=0.8)
    assert late.costs[WER].mean < early.costs[WER].mean
    assert recommended(early, late) == 100


def test_a_clear_difference_in_words_counts_more_than_the_voice():
    early = contestant(100, errors=[3, 4, 2, 4, 3, 4, 2, 3], voice=0.9)
    late = contestant(200, errors=[0, 1, 0, 1, 0, 1, 0, 1], voice=0.7)
    decision = rule.decide([early, late])
    assert decision.recommended.step == 200 and decision.lost == {"step 100": WER}


def test_among_equally_intelligible_ones_the_nearer_voice_wins():
    early = contestant(100, errors=1, voice=[0.6, 0.62, 0.61, 0.6, 0.63, 0.6, 0.61, 0.62])
    late = contestant(200, errors=1, voice=[0.8, 0.79, 0.81, 0.8, 0.8, 0.82, 0.8, 0.79])
    assert recommended(early, late) == 200


def test_a_difference_nobody_hears_does_not_count_however_sure_it_is():
    assert recommended(contestant(100, voice=0.800), contestant(200, voice=0.805)) == 100
    assert recommended(contestant(100, loss=5.00), contestant(200, loss=4.97)) == 100
    assert recommended(contestant(100, loss=5.00), contestant(200, loss=4.50)) == 200


def test_a_checkpoint_that_mostly_does_not_end_is_out_though_its_words_are_right():
    endless = contestant(100, errors=0, voice=0.95, failures=[1, 1, 1, 1, 1, 0, 0, 0])
    sound = contestant(200, errors=2, voice=0.6)
    decision = rule.decide([endless, sound])
    assert decision.recommended.step == 200 and decision.lost == {"step 100": SPEECH}


def test_if_none_speaks_the_least_bad_is_named_with_a_warning():
    one, other = contestant(100, loss=9.0, failures=1.0), contestant(200, loss=7.0, failures=1.0)
    decision = rule.decide([one, other])
    assert decision.recommended.step == 200 and decision.all_fail
    assert "no checkpoint speaks" in " ".join(conclude(decision, [one, other], 8))


def test_nothing_is_recommended_where_nothing_tells_checkpoints_apart():
    decision = rule.decide([contestant(100), contestant(200)])
    assert decision.recommended is None
    assert "no step is recommended" in conclude(decision, [contestant(100)], 8)[0]


def test_one_text_proves_nothing():
    good, bad = (Costs.of([value], [8]) for value in (0, 8))
    assert not rule.clearly_worse(WER, bad, good)


def test_texts_that_one_system_has_no_figure_for_are_passed_over():
    ours, other = Costs.of([None, -0.5, -0.5, -0.6]), Costs.of([-0.9, -0.9, None, -0.9])
    difference, _ = rule.worse_by(ours, other)
    assert difference == pytest.approx(0.35)


def test_the_limit_of_noise_is_that_of_a_paired_t_test():
    ours, other = Costs.of([1.0, 2.0, 4.0, 5.0]), Costs.of([0.0, 0.0, 0.0, 0.0])
    difference, noise = rule.worse_by(ours, other)
    assert difference == 3.0
    assert noise == pytest.approx(2.353363 * np.sqrt(10 / 3) / 2, rel=1e-5)  # t of 3 degrees at 95 %


figures = st.lists(st.floats(0, 1, width=32), min_size=len(WORDS), max_size=len(WORDS))
systems = st.lists(
    st.tuples(st.lists(st.integers(0, 5), min_size=len(WORDS), max_size=len(WORDS)), figures, figures),
    min_size=1,
    max_size=5,
)


@given(systems)
def test_the_recommended_one_is_never_clearly_worse_in_words_than_the_best(found):
    contestants = [contestant(100 * (n + 1), e, v, [x + 5 for x in loss]) for n, (e, v, loss) in enumerate(found)]
    decision = rule.decide(contestants)
    chosen = decision.recommended
    best = min(contestants, key=lambda c: (c.costs[WER].mean, c.step))
    assert not rule.clearly_worse(WER, chosen.costs[WER], best.costs[WER])
    equal_in_words = [c for c in contestants if decision.lost.get(c.name) != WER]
    nearest = min(equal_in_words, key=lambda c: (c.costs[SIMILARITY].mean, c.step))
    assert not rule.clearly_worse(SIMILARITY, chosen.costs[SIMILARITY], nearest.costs[SIMILARITY])
    assert all(c.name in decision.lost for c in contestants if c.step < chosen.step)
    assert chosen.name not in decision.lost and len(decision.lost) < len(contestants)


@given(systems, st.randoms())
def test_the_order_of_the_checkpoints_changes_nothing(found, random):
    contestants = [contestant(100 * (n + 1), e, v, loss) for n, (e, v, loss) in enumerate(found)]
    shuffled = random.sample(contestants, len(contestants))
    assert recommended(*contestants) == recommended(*shuffled)


def test_it_is_said_plainly_that_training_did_not_help():
    base, after = contestant(None, errors=1, voice=0.8, loss=6.0), contestant(100, errors=2, voice=0.7, loss=7.0)
    lines = conclude(rule.decide([after]), [base, after], 8)
    assert lines[0].startswith("use step 100: the only checkpoint (WER ")
    assert any(line.startswith("training did not help: in WER and similarity") for line in lines)
    assert any("lower --learning-rate" in line for line in lines)
    learnt = contestant(100, errors=1, voice=0.8, loss=5.0)
    assert any("more --max-steps" in line for line in conclude(rule.decide([learnt]), [base, learnt], 8))


def test_it_is_said_what_training_gained():
    base, after = contestant(None, errors=1, voice=0.7, loss=6.0), contestant(100, errors=1, voice=0.9, loss=5.0)
    lines = conclude(rule.decide([after]), [base, after], 8)
    assert any("similarity 0.700 -> 0.900 (better)" in line for line in lines)
    assert not any("did not help" in line for line in lines)


def test_rows_give_the_costs_that_the_rule_compares():
    errors = {"substitutions": 1, "deletions": 2, "insertions": 0, "length": 6}
    rows = [
        {"failure": None, "ends_by_itself": True, "speech_s": 1.0, "word_errors": errors, "similarity": 0.75},
        {"failure": None, "ends_by_itself": False, "speech_s": 1.0, "word_errors": errors, "voiceless": True},
        {"failure": None, "ends_by_itself": True, "note": "the model said nothing", "word_errors": errors},
    ]
    costs = costs_of({"clips": rows, "held_out_losses": [4.0, None]})
    assert costs[SPEECH].values.tolist() == [0.0, 1.0, 1.0]
    assert (costs[WER].mean, costs[SIMILARITY].mean, costs[LOSS].mean) == (0.5, -0.75, 4.0)
    assert WER not in costs_of({"clips": [{**rows[0], "word_errors": None}]})


def test_recordings_of_held_out_texts_are_found_by_their_words(tmp_path):
    for name, words in (("anna/a", "Hello  there."), ("ben/b", "Hello there."), ("anna/c", "Other words.")):
        write_wav(tmp_path / f"{name}.wav", np.zeros(800), 8000)
        (tmp_path / f"{name}.lab").write_text(words, encoding="utf-8")
    found = recordings_of(tmp_path, ["Nobody said this.", "Hello there."], ["anna", "ben"])
    assert found == {1: (tmp_path / "ben/b.wav").resolve()}


def test_fixed_sentences_serve_where_nothing_was_held_out_unless_they_are_of_another_language():
    assert choose_material(None, 3, "en").texts == list(SENTENCES[:3])
    assert choose_material(None, 3, "de", ["Guten Tag."]).texts == ["Guten Tag."]
    with pytest.raises(UserError, match="nothing to say in the language"):
        choose_material(None, 3, "de")


@pytest.fixture()
def held(tmp_path, monkeypatch):
    """A folder in which a tournament of steps 100 and 200 recommended 100."""
    monkeypatch.chdir(tmp_path)
    entries = []
    for step in (100, 200):
        path = tmp_path / f"results/p/checkpoints/step_{step:09d}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights %d" % step)
        digest = tournament.sha256(path)
        status = path.stat()
        entries.append({"name": path.name, "step": step, "bytes": status.st_size, "modified": status.st_mtime})
        entries[-1]["sha256"] = digest
    record = {"format": 1, "recommended": 100, "inputs": {"checkpoints": entries}}
    results = tmp_path / "results/p/tournament/results.json"
    results.parent.mkdir()
    results.write_text(json.dumps(record), encoding="utf-8")
    return tmp_path / "results/p"


def test_the_recommendation_holds_while_the_checkpoints_are_the_same(held):
    assert recommended_step("p") == 100
    os.utime(held / "checkpoints/step_000000200.ckpt", (1, 1))  # as a copy to another machine has it
    assert recommended_step("p") == 100
    (held / "checkpoints/step_000000200.ckpt").unlink()
    assert recommended_step("p") == 100


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("step_000000300.ckpt", b"training went on"),
        ("step_000000200.ckpt", b"weights 20!"),
        ("step_000000200.ckpt", b"longer weights"),
        ("step_000000100.ckpt", None),
    ],
)
def test_new_changed_or_lost_checkpoints_end_it(held, name, content):
    path = held / "checkpoints" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
        os.utime(path, (2, 2))
    assert recommended_step("p") is None


@pytest.mark.parametrize(
    "torn",
    [
        '{"format": 1, "recommended": 100, "inputs": {"checkpoints": [{"na', "[]", "null", '{"format": 1}', "\udcff",
        '{"format": 1, "recommended": "100", "inputs": {}}', '{"format": 1, "recommended": true}', "[" * 100_000,
        '{"format": 1, "recommended": 100, "inputs": {"checkpoints": [[], 5, {"name": []}]}}',
    ],
)  # fmt: skip
def test_a_torn_or_foreign_record_recommends_nothing(held, torn):
    (held / "tournament/results.json").write_bytes(torn.encode("utf-8", "surrogateescape"))
    assert recommended_step("p") is None
    assert recommended_step("another") is None


def test_asking_for_the_recommendation_loads_nothing_heavy(held):
    code = "import sys; from fish_speech.tournament_record import recommended_step as r; print(r('p'), sorted(m for m in ('torch', 'numpy', 'scipy') if m in sys.modules))"  # noqa: E501
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=held.parents[1], env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout.strip() == "100 []", said.stderr


def test_the_folder_is_replaced_whole_or_not_at_all(tmp_path):
    output = tmp_path / "tournament"
    (tmp_path / ".partial-1-tournament/audio").mkdir(parents=True)  # left by a killed process
    for word in ("first", "second"):
        with tournament.staging_folder(output) as folder:
            (folder / "results.json").write_text(word, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), tournament.staging_folder(output) as folder:
        (folder / "results.json").write_text("third", encoding="utf-8")
        raise KeyboardInterrupt
    assert (output / "results.json").read_text(encoding="utf-8") == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["tournament"]


def test_only_files_of_the_users_own_keep_a_tournament_from_being_written_anew(tmp_path):
    output = tmp_path / "tournament"
    tournament.check_output(output)
    output.mkdir()
    for name in ("results.json", "report.html", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (output / name).write_text("{}", encoding="utf-8")
    tournament.check_output(output)
    (output / "my notes.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(UserError, match="my notes"):
        tournament.check_output(output)


@pytest.mark.parametrize("name", ["..", "a/b", "."])
def test_a_project_cannot_lead_out_of_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be a folder name"):
        tournament.check_request(tournament.make_parser().parse_args(["--project", name]))
