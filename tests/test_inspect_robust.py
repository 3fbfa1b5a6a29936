"""One token disturbed: nothing else moves, a constant model is never fooled, T = 1 is the plain model."""

import numpy as np
import pytest
import torch
from small import modalities
from test_inspect_explain import ROWS, WORDS, bound, model_of

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.inspect.asking.attack import Attack, one_each, spread_out
from generalist.inspect.asking.look import frozen, looks
from generalist.inspect.asking.pool import Pool
from generalist.inspect.base import analyser
from generalist.inspect.heads import weighing
from generalist.inspect.robust import Robust, Temperature
from generalist.report.report import write_report
from generalist.run.train import train_run
from generalist.tasks.candidates.number_sets import Numbers
from generalist.tokenizers_mod.vision.image import Image
from tests.tiny import tiny


@pytest.fixture(scope="module")
def pictures():
    """Grey pictures of 2 x 3 patches with a table's row beside, and a model that was not trained."""
    rng = np.random.default_rng(0)
    rows = [{"image": rng.integers(0, 255, (4, 6), np.uint8), "row": {"a": float(i), "b": "xyz"[i % 3]},
             "label": WORDS[i % 2]} for i in range(8)]  # fmt: skip
    kinds = modalities() | {"image": Image(size=6, patch=2, channels=1)}
    kinds["image"].name = "image"
    kinds["table"].learn_rows("same", [row["row"] for row in rows])
    return bound(rows, WORDS[:2], kinds, model_of(kinds), {"image": "image", "table": "row"})


def test_what_is_disturbed_is_one_token_of_each_record_and_stays_in_its_range(pictures):
    task, records, objective = pictures
    look = next(looks(task, records, objective))
    data, pool = look.packed.data, Pool([look])
    low, high = float(data["image"]["patch"].min()), float(data["image"]["patch"].max())
    seen = torch.zeros(len(look.x), dtype=torch.bool)
    with frozen(objective.model):
        answers = look.chosen(look.log_p())
        for place in range(8):
            tokens = one_each(look, place)
            assert (
                torch.bincount(look.packed.owner[tokens], minlength=8).tolist() == [1] * 8 and not (tokens & seen).any()
            )
            seen |= tokens
            attack = Attack(look, tokens, torch.Generator().manual_seed(place), pool)
            for x in (attack.natural(), attack.adversarial(answers, 3)):
                assert torch.equal(x[~tokens], look.x[~tokens]) and bool((x[tokens] != look.x[tokens]).any())
            for (name, key), (_, least, most, _) in attack.floats.items():
                assert name == "table" or (key == "patch" and float(least.min()) == low and float(most.max()) == high)
            for (name, key), (rows, allowed, often) in attack.ids.items():  # categories of the same column
                column = data[name]["column"]
                for row, ids, counts in zip(rows.tolist(), allowed, often, strict=True):
                    of_column = data[name][key][column == column[row]]
                    assert ids.tolist() == of_column.unique().tolist() and counts.sum() == len(of_column)
    assert torch.equal(seen, look.open) and not one_each(look, 8).any()


def test_an_attack_costs_at_least_as_much_as_nothing_and_more_with_more_steps(pictures):
    task, records, objective = pictures
    look = next(looks(task, records, objective))
    with frozen(objective.model):
        before = look.log_p()
        answers = look.chosen(before)
        p = []
        for steps in (0, 4, 12):
            attack = Attack(look, one_each(look, 0), torch.Generator().manual_seed(0), Pool([look]))
            p.append(look.of(look.log_p(attack.adversarial(answers, steps)), answers))
    assert bool((p[1] <= p[0] + 1e-6).all()) and bool((p[2] <= p[1] + 1e-6).all()) and p[2].mean() < p[0].mean()


@torch.no_grad()
def test_of_a_single_cell_everything_that_may_stand_there_is_tried(pictures):
    """No value of a category's column, and none of a number's at steps of a sixteenth, costs more than the attack."""
    task, records, objective = pictures
    look = next(looks(task, records, objective))
    assert sorted(map(spread_out, range(17))) == [i / 16 for i in range(17)]
    table = look.packed.source == list(look.packed.data).index("table")
    with frozen(objective.model):
        answers = look.chosen(look.log_p())
        for place in (0, 1):
            tokens = torch.zeros(len(look.x), dtype=torch.bool)
            for b in range(8):
                tokens[(table & (look.packed.owner == b)).nonzero().squeeze(1)[place]] = True
            attack = Attack(look, tokens, torch.Generator().manual_seed(0), Pool([look]))
            with torch.enable_grad():
                found = look.of(look.log_p(attack.adversarial(answers, 16)), answers)
            held = attack.start()
            for share in range(17):
                for at, value in held.items():
                    if at in attack.ids:
                        held[at] = torch.stack([ids[share % len(ids)] for ids in attack.ids[at][1]]).view_as(value)
                    else:
                        _, low, high, _ = attack.floats[at]
                        held[at] = (low + (high - low) * share / 16).view_as(value)
                assert bool((found <= look.of(look.log_p(attack.tokens_with(held)), answers) + 1e-5).all())


def test_words_down_the_gradient_cost_more_than_words_by_chance():
    kinds = modalities()
    rows = [{"text": f"{a} {b} {c}", "label": WORDS[0]} for a in "abcdefg" for b in "hijklmn" for c in "opqrstu"][:64]
    task, records, objective = bound(rows, WORDS, kinds, model_of(kinds), {"text": "text"})
    look = next(looks(task, records, objective))
    with frozen(objective.model):
        with torch.no_grad():
            before = look.log_p()
        answers = look.chosen(before)
        losses = []
        for weighed in (True, False):
            attack = Attack(
                look, one_each(look, 1), torch.Generator().manual_seed(0), Pool(looks(task, records, objective))
            )
            if not weighed:
                drawn = {at: [ids[torch.randperm(len(ids))] for ids in own] for at, (_, own, _) in attack.ids.items()}
                attack._order = lambda answers, steps, drawn=drawn: drawn
            losses.append(
                float((look.of(before, answers) - look.of(look.log_p(attack.adversarial(answers, 3)), answers)).mean())
            )
    assert losses[0] > losses[1] > 0


def test_a_model_that_says_one_thing_is_never_fooled(pictures):
    task, records, objective = pictures
    head = objective.model.head.projection
    kept = head.weight.detach().clone(), head.bias.detach().clone()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(1.0)
    found = Robust().run(task, records, objective)
    with torch.no_grad():
        head.weight.copy_(kept[0])
        head.bias.copy_(kept[1])
    assert found["natural"] == found["adversarial"] == {"fooled": 0, "rise": 0}
    assert found["tried"] == 4 * found["n"] > 0


def test_every_token_is_disturbed_where_so_many_places_are_asked_for(pictures):
    task, records, objective = pictures
    tokens = sum(int(look.open.sum()) for look in looks(task, records, objective)) // len(records)
    tried = {places: Robust(places=places).run(task, records, objective) for places in (1, 99)}
    assert tokens > 4 and tried[99]["tried"] == tokens * tried[99]["n"]
    assert tried[1]["tried"] == tried[1]["n"]


def test_a_temperature_is_that_of_the_scores_and_one_is_the_plain_model(pictures):
    task, records, objective = pictures
    look = next(looks(task, records, objective))
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    hot = Temperature(1.5)("layers.0.mixer.weights", scores.softmax(-1), None)
    assert torch.allclose(hot, (scores / 1.5).softmax(-1), atol=1e-6)
    with weighing(objective.model), torch.no_grad():
        with objective.model.tapped(lambda name, x, at: x):
            plain = look.log_p()
        assert torch.allclose(plain, look.log_p(), atol=1e-6)
        with objective.model.tapped(Temperature(1.0)):
            assert torch.equal(look.log_p(), plain)
        with objective.model.tapped(Temperature(3.0)):
            assert not torch.allclose(look.log_p(), plain)
    found = Robust(temperature=1.0).run(task, records, objective)
    assert found["temperature"]["adversarial"] == pytest.approx(found["adversarial"], abs=1e-5)


def test_a_number_is_another_one_where_its_median_leaves_the_range_of_before():
    numbers = Numbers(edges=[float(i) for i in range(11)])
    p = torch.full((3, 10), 1e-9)
    p[0, 4:6] = p[1, 4:6] = p[2, 4:6] = 0.5
    after = torch.full((3, 10), 1e-9)
    after[0, 5], after[1, 6], after[2, 3] = 1, 1, 1
    assert numbers.changed(p.log(), after.log()).tolist() == [False, True, True]


def test_what_cannot_be_disturbed_is_said():
    with pytest.raises(UserError, match="above 0"):
        Robust(temperature=0.0)
    kinds = modalities()
    task, records, objective = bound(
        ROWS[:6], WORDS, kinds, model_of(kinds, mixers=["retention"] * 2), {"text": "text"}
    )
    with pytest.raises(UserError, match="has no attention"):
        Robust(temperature=2.0).run(task, records, objective)
    assert analyser("robust", temperature=2.0).temperature == 2.0


def test_a_run_is_asked_of_its_own_test_data_and_labels_may_be_missing(tmp_path, capsys):
    out = tmp_path / "run"
    made = tiny(model__width=16, steps=20, checkpoint__every=0)
    made.baseline = False
    train_run(made, out, quiet=True)
    capsys.readouterr()
    assert main(["inspect", str(out), "--what", "robust"]) == 2
    assert "has the tasks digits, wine; choose one with --task" in capsys.readouterr().err
    assert main(["inspect", str(out), "--what", "heads", "--temperature", "2"]) == 2
    assert "--temperature is of --what robust" in capsys.readouterr().err
    words = [
        "inspect",
        str(out),
        "--task",
        "wine",
        "--limit",
        "10",
        "--what",
        "robust",
        "explain",
        "--temperature",
        "2",
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "attention at T = 2" in shown and "T-TAME" in shown
    text = write_report(out).read_text(encoding="utf-8")
    for title in ("Robust", "Explain"):
        section = text.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
        assert 'class="warmth"' in section and "proline" in section
    lines = ["alcohol,malic_acid", "1,2"]
    (tmp_path / "few.csv").write_text("\n".join(lines), encoding="utf-8")
    assert main(["inspect", str(out), str(tmp_path / "few.csv"), "--task", "wine", "--what", "explain"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
