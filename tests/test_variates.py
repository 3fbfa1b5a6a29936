"""Many series at once, a token each: the published computation, what a set of them means, and joint forecasts."""

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import collate, pack
from generalist.scripts.systems import itransformer
from generalist.scripts.systems.reference import Reference
from generalist.tasks.candidates.names import Numbers
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.variates import Variates
from generalist.tokenizers_mod.text.summary import Summary


def fill(n, rank):
    """2 frac(43758.5453 sin(12.9898 (i + 1) + 78.233 (rank + 1))) - 1."""
    i = torch.arange(n, dtype=torch.float64)
    z = 43758.5453 * torch.sin(12.9898 * (i + 1) + 78.233 * (rank + 1))
    return 2 * (z - z.floor()) - 1


def published(marks):
    """The official weights by the rule that the specification gives, at T 16, S 8, C 12, F 20, two layers."""
    shapes = {"enc_embedding.value_embedding": (12, 16), "projector": (8, 12), "encoder.norm": (12,)}
    for i in range(2):
        own = f"encoder.attn_layers.{i}."
        shapes |= {f"{own}attention.{name}_projection": (12, 12) for name in ("query", "key", "value", "out")}
        shapes |= {f"{own}conv1": (20, 12, 1), f"{own}conv2": (12, 20, 1), f"{own}norm1": (12,), f"{own}norm2": (12,)}
    tensors = {f"{name}.weight": shape for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    weights = {}
    for rank, (name, shape) in enumerate(sorted(tensors.items())):
        value = 0.3 * fill(int(np.prod(shape)), rank).view(shape)
        weights[name] = (value + (len(shape) == 1 and name.endswith("weight"))).float()
    given = {"input": fill(160, -1).view(2, 16, 5).float()}
    given |= {"marks": fill(64, -1).view(2, 16, 2).float()} if marks else {}
    return Reference("itransformer", {"n_heads": 3}, weights, given)


@pytest.mark.parametrize(
    ("marks", "first", "last", "total", "absolute"),
    [
        (True, [0.258031, -0.54344, -0.309107, -0.490224, -0.599338, 0.177423],
         [0.223377, -0.18342, -0.189362], -7.65374, 23.3425),
        (False, [0.240439, -0.56776, -0.335628, -0.516795, -0.605224, 0.157661],
         [0.182402, -0.238588, -0.205391], -8.16501, 23.2868),
    ],
)  # fmt: skip
@torch.no_grad()
def test_the_published_values(marks, first, last, total, absolute):
    out = itransformer.compute(published(marks))["output"]
    assert out.shape == (2, 8, 5)
    torch.testing.assert_close(out.flatten()[:6], torch.tensor(first), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.flatten()[-3:], torch.tensor(last), rtol=1e-4, atol=1e-5)
    assert float(out.sum()) == pytest.approx(total, rel=1e-4)
    assert float(out.abs().sum()) == pytest.approx(absolute, rel=1e-4)


@torch.no_grad()
def test_variates_are_a_set_of_any_number_in_their_own_units():
    reference = published(False)
    x = reference.tensors["input"]
    out = itransformer.compute(reference)["output"]
    order = torch.tensor([3, 0, 4, 1, 2])
    reference.tensors["input"] = x[..., order]
    torch.testing.assert_close(itransformer.compute(reference)["output"], out[..., order], atol=1e-5, rtol=1e-4)
    reference.tensors["input"] = torch.cat([x, x.flip(1)], dim=2)
    assert itransformer.compute(reference)["output"].shape == (2, 8, 10)
    reference.tensors["input"] = 7 * x + 2
    torch.testing.assert_close(itransformer.compute(reference)["output"], 7 * out + 2, atol=1e-4, rtol=1e-4)


def test_a_window_is_the_newest_steps_with_what_is_missing_said():
    variates = Variates(context=4)
    raw = np.array([[9.0, 9.0], [1.0, np.nan], [2.0, 4.0], [3.0, 4.0], [4.0, 7.0]])
    window = variates.span(variates.read(raw)).data["window"]
    mean, std = variates.statistics(variates.read(raw))
    assert mean.tolist() == [2.5, 5.0] and std[0] == pytest.approx((1.25 + 1e-5) ** 0.5)
    torch.testing.assert_close(window[0, :4], ((torch.tensor([1.0, 2, 3, 4]) - 2.5) / std[0]).float())
    assert window[:, 4:].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]] and window[1, 0] == 0
    short = variates.span(variates.read(raw[-2:])).data["window"]
    assert short[:, 4:].tolist() == [[1, 1, 0, 0]] * 2


def records(count, variates=3, seed=0):
    """Waves: the next 4 of 12 + 4 steps."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        phase, rate = rng.uniform(0, 6, variates), rng.uniform(0.3, 0.6)
        values = np.sin(phase + rate * np.arange(16)[:, None]) * 5 + 40
        yield {"id": str(i), "past": values[:12], "future": values[12:]}


def joint(variates=3, **more):
    task = Forecast(name="waves", inputs={"variates": "past"}, horizon=4, bins=16, joint=True, **more)
    task.modalities = {"summary": Summary(), "variates": Variates(context=12), "number": Number()}
    rows = list(records(20, variates))
    task.learn(task.modalities, rows)
    task.bind(task.modalities, task.candidate_set(rows), {})
    return task, rows


def test_a_joint_forecast_asks_every_variate_for_its_future_in_its_own_units():
    task, rows = joint()
    assert task.used() == {"summary", "variates", "number"} and task.modalities["variates"].horizon == 4
    example = task.example(rows[0])
    summary, asked = example.inputs
    past, future = torch.tensor(rows[0]["past"]), torch.tensor(rows[0]["future"])
    mean, std = past.mean(0), (past.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(asked.labels, ((future - mean) / std).T.float())
    assert asked.asked.tolist() == [0, 1, 2] and summary.asked is None
    numbers = task.candidates
    assert isinstance(numbers, Numbers) and len(numbers.edges) == 17
    # all probability in one bin: its median in each variate's units, a row a step
    log_p = torch.full((3, 4, 16), -torch.inf).index_fill(2, torch.tensor([5]), 0.0)
    answer = task.read(rows[0], log_p, {})
    middle = numbers.quantile(log_p[:1, :1], 0.5).item()
    torch.testing.assert_close(torch.tensor(answer.value).double(), (middle * std + mean).expand(4, -1))
    drawn = task.show(rows[0], log_p, asked.labels, [])
    assert len(drawn["input"]["future"]) == 4 and len(drawn["input"]["past"]) == 12
    batch = collate("waves", [task.example(row) for row in rows[:2]], "waves")
    assert batch.inputs.labels.shape == (6, 4)
    wider = next(records(1, 5))
    assert task.example(wider).inputs[1].labels.shape == (5, 4)


def test_a_model_learns_joint_forecasts_and_takes_other_numbers_of_variates():
    from generalist.hf.model import GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.model.objective import Objective

    torch.manual_seed(0)
    task, rows = joint()
    own = {name: m.settings() for name, m in task.modalities.items()}
    sizes = {"width": 16, "layers": 1, "heads": 2, "hidden": 24, "norm": "post"}
    model = GeneralistModel(GeneralistConfig(**sizes, modalities=own, scales=["default"]))
    assert model.modalities["variates"].horizon == 4
    objective = Objective(model, {"waves": task.candidates}, task.modalities)
    batch = collate("waves", [task.example(row) for row in rows], "waves")
    optimizer, losses = torch.optim.AdamW(objective.parameters(), 1e-2), []
    for _ in range(60):
        loss = objective(batch).sum() / batch.inputs.labels.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.4
    five = next(records(1, 5))
    with torch.no_grad():
        assert model.features(pack([task.asked(five)])).shape == (5, 4, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda task, row: row.update(future=row["future"][:, :2]), "a joint forecast of 3 variates needs \\(4, 3\\)"),
        (lambda task, row: setattr(task, "horizon", 5), "set modalities.variates.horizon=5"),
        (lambda task, row: row.update(past=None), "a forecast needs a past"),
    ],
)
def test_what_does_not_fit_a_joint_forecast_is_said_in_one_line(change, words):
    task, rows = joint()
    change(task, rows[0])
    with pytest.raises(UserError, match=words):
        task.example(rows[0])
    with pytest.raises(UserError, match="takes no linear part"):
        joint(linear=1.0)


def sheet(path, variates):
    """A table of waves, a column each, at heights of their own."""
    rng, steps = np.random.default_rng(variates), np.arange(140)[:, None]
    values = np.sin(steps * 0.4 + rng.uniform(0, 6, variates)) * 5 + 40 * np.arange(variates)
    head = ",".join(f"c{i}" for i in range(variates))
    np.savetxt(path, values, "%.4f", ",", header=head, comments="")
    return values


RECIPE = """
from pathlib import Path
from generalist.data.sources.windows_joint import JointWindows
from generalist.recipe.recipe import EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.base.modalities import build_modalities

def recipe():
    source = JointWindows(str(Path(__file__).parent / "three.csv"), context=12, horizon=4)
    task = Forecast(name="waves", inputs={"variates": "past", "series": "past"}, source=source, horizon=4, bins=16,
                    joint=True, batch=8)
    told = {"summary": {}, "text": {}, "variates": {"context": 12}, "series": {"patch": 4}, "number": {}}
    return Recipe("waves", "waves", 4, build_modalities(told), [task],
                  model=ModelSpec(width=16, layers=1, heads=2, hidden=24, norm="post"),
                  engine=EngineSpec(device="cpu", threads=1))
"""


def test_a_joint_forecast_is_trained_and_asked_of_other_columns_from_the_command_line(tmp_path, capsys):
    import json

    from generalist.cli import main

    sheet(tmp_path / "three.csv", 3)
    values = sheet(tmp_path / "five.csv", 5)
    (tmp_path / "waves.py").write_text(RECIPE)
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "waves.py"), "--out", str(run)]) == 0
    line = json.loads((run / "metrics.json").read_text())["tasks"]["waves"]
    assert line["n_test"] == 25
    assert line["baseline"] is not None and line["baseline"] < 0.2  # ridge regression
    capsys.readouterr()
    inputs = [word for name in ("variates", "series") for word in ("--input", f"{name}={tmp_path / 'five.csv'}")]
    assert main(["predict", str(run), *inputs, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    middle = np.array(told["quantiles"]["0.5"])
    assert middle.shape == (4, 5)
    assert (np.abs(middle - values[-12:].mean(0)) < 12).all()  # each in its own column's units
    assert len(told["answers"][0][1].split()) == 5


def test_windows_of_all_columns_are_those_of_each_side_by_side(tmp_path):
    from generalist.data.sources.windows import Windows
    from generalist.data.sources.windows_joint import JointWindows

    values = sheet(tmp_path / "three.csv", 3)
    alone, together = (kind(str(tmp_path / "three.csv"), {}, 12, 4).open("test") for kind in (Windows, JointWindows))
    assert len(alone) == 3 * len(together)
    for key in ("past", "future"):
        own = [alone[i][key] for i in range(3, 6)]
        np.testing.assert_array_equal(together[1][key], np.stack(own, axis=1))
    values[60, 1] = np.nan
    np.savetxt(tmp_path / "gap.csv", values, "%.4f", ",", header="a,b,c", comments="")
    train = JointWindows(str(tmp_path / "gap.csv"), {}, 12, 4, stride=1).open("train")
    assert len(train) == 98 - 12 - 4 + 1 and np.isnan(train[60 - 12]["future"][0, 1])  # a gap is no whole window
    newest = JointWindows(str(tmp_path / "three.csv"), {}, 12, 4).newest(str(tmp_path / "gap.csv"))
    assert newest[0]["past"].shape == (12, 3)
