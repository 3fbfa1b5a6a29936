"""What `generalist plan` counts is what is allocated, and the launchers' lines say what was measured to be needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny
from torch.profiler import ProfilerActivity, profile

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.machine.command_line import Launch
from generalist.model.objective import Objective
from generalist.tasks.base.stand_ins import stand_in
from generalist.train import counted
from generalist.train.counted import cost, count
from generalist.train.counting import few
from generalist.train.counting.unsummed import Unsummed
from generalist.train.optimizer import build_optimizer
from generalist.train.plan import plan, state_bytes, table, weak_scaling
from generalist.train.prepare import prepare

WIDE = {"model__layers": 5, "model__width": 64, "model__heads": 4, "model__hidden": 192}


def allocated(run) -> tuple[int, object]:
    """Bytes that `run` allocates and does not free again, as torch's allocator sees them, and what it returns."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = run()
    return sum(event.self_cpu_memory_usage for event in seen.events()), kept


def parts(recipe):
    prepared = prepare(recipe)
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed)
    reader = Steps(prepared.feeds(), schedule, recipe.seed)
    steps = [next(s for s in range(100) if schedule.task_at(s) == name) for name in tasks]
    return objective, {reader[s].task: reader[s] for s in steps}


@pytest.mark.parametrize("kind", ["balanced", "adamw"])
def test_parameters_gradients_and_optimiser_take_the_bytes_that_were_planned(kind):
    recipe = tiny(optimizer__kind=kind, **WIDE)
    number, layer, _ = count(recipe, 1)
    objective, batches = parts(recipe)
    planned = state_bytes(number, layer, stage=0, world=1)
    assert sum(p.nbytes for p in objective.parameters()) == pytest.approx(planned["parameters"], rel=0.1)
    for batch in batches.values():
        objective(batch).sum().backward()
    for p in objective.parameters():  # a task that an odd step leaves out: its own parameters get zeros, as in training
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    assert sum(p.grad.nbytes for p in objective.parameters()) == pytest.approx(planned["gradients"], rel=0.1)
    optimizer = build_optimizer(recipe, objective)
    taken, _ = allocated(optimizer.step)
    assert taken == pytest.approx(planned["optimizer"], rel=0.1)


def test_activations_take_the_bytes_that_were_planned():
    recipe = tiny(**WIDE)
    _, _, counted = count(recipe, 1)
    objective, batches = parts(recipe)
    for name, batch in batches.items():
        objective.packed(batch.candidates)
        taken, _loss = allocated(lambda batch=batch: objective(batch))
        assert counted[name].activations == pytest.approx(taken, rel=0.1), name
        assert counted[name].samples == 8


def test_counted_flops_are_those_of_the_whole_model_and_agree_with_the_formula():
    from torch.utils.flop_counter import FlopCounterMode

    recipe = tiny(**WIDE)
    number, layer, counted = count(recipe, 1)
    objective, batches = parts(recipe)
    assert number == sum(p.numel() for p in objective.parameters())
    for name, batch in batches.items():
        with FlopCounterMode(display=False) as counter:
            objective(batch).sum().backward()
        assert counted[name].flops == pytest.approx(counter.get_total_flops(), rel=1e-3)
        # 6 FLOPs a parameter and token (2001.08361), attention and tokenizers on top; the last layer makes the tokens
        # asked alone
        each = 6 * layer * counted[name].tokens
        assert each * (recipe.model.layers - 1) * 0.9 < counted[name].flops < each * recipe.model.layers * 2


def of_every_kind():
    """A recipe of a task with partners, one with names and one that fills words in, on stand-ins; mixed lengths."""
    from small import shrink

    from generalist.recipes.uni_perceiver import pretraining

    recipe = pretraining("tiny", root="/nowhere")
    shrink(recipe, ("imagenet22k", "books_wiki", "cc3m_caption", "cc3m_retrieval"), layers=2, batch=24, steps=10)
    recipe.model.drop_path = 0.0
    stand_in(recipe.tasks, recipe.modalities)
    return recipe


def test_few_samples_and_few_members_of_a_set_tell_what_all_would_take(monkeypatch):
    recipe = of_every_kind()
    number, layer, whole = count(recipe, 1)
    monkeypatch.setattr(few, "SMALL", 0)
    monkeypatch.setattr(few, "MEMBERS", 16)
    steps = []
    monkeypatch.setattr(
        counted, "cost", lambda objective, batch: steps.append(batch.inputs.sequences) or cost(objective, batch)
    )
    found = count(recipe, 1)
    assert (number, layer) == found[:2]
    assert max(steps) == 3 * few.SAMPLES < 24 and len(steps) > 20
    for name, one in found[2].items():
        # what is drawn differs from sample to sample: words that are hidden, names in a batch
        assert one.samples == whole[name].samples == 24
        assert one.tokens == pytest.approx(whole[name].tokens, rel=0.05), name
        assert one.flops == pytest.approx(whole[name].flops, rel=0.05), name
        assert one.activations == pytest.approx(whole[name].activations, rel=0.05), name


def test_a_step_without_sums_takes_what_one_with_them_takes():
    objective, batches = parts(tiny(**WIDE))
    for name, batch in batches.items():
        wanted = cost(objective, batch)
        with Unsummed():
            assert cost(objective, batch) == wanted, name


@pytest.mark.parametrize(("samples", "members"), [(2.5, 1.0), (7.0, 12.25)])
def test_a_polynomial_is_read_at_the_whole_from_a_few_points(samples, members):
    def taken(s, m):
        return 3 + 5 * s + 7 * s * s + 11 * m + 13 * s * m

    points = {(r, m): taken(r, m) for r in (1, 2, 3) for m in (1, 2)}
    by_samples, by_members = few.weights((1, 2, 3), samples), few.weights((1, 2), members)
    found = sum(a * b * points[r, m] for r, a in enumerate(by_samples, 1) for m, b in enumerate(by_members, 1))
    assert found == pytest.approx(taken(samples, members))


def test_the_plan_of_a_base_model_takes_little_time_and_memory():
    code = (
        "import resource, time; from generalist.recipe.load import load_recipe\n"
        "from generalist.train.plan import plan\n"
        "start = time.process_time(); found = plan(load_recipe('uni_perceiver_base'), 1, 'h100')\n"
        "print(time.process_time() - start)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
        "one = found['tasks']['imagenet22k']; print(one['samples'], one['tokens'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seconds, gib, samples, tokens = map(float, done.stdout.split())
    assert seconds < 60 and gib < 4  # 14 to 24 GB and minutes where all of a batch is made
    # a picture of 160 pixels has a hundred patches, before and behind them the question; names are three
    assert samples == 720 * 64 and 100 * samples < tokens < 103 * samples


def test_zero_shards_more_with_every_stage_and_a_layer_is_whole_at_stage_three():
    totals = [sum(state_bytes(1_000_000, 10_000, stage, 10).values()) for stage in range(4)]
    assert totals == [16e6, 9.2e6, 5.6e6, 2e6 + 4e4]


def test_a_plan_answers_for_every_stage_and_says_what_it_assumes():
    result = plan(tiny(tasks__digits__batch=64, tasks__wine__batch=64), gpus=64, gpu="h100")
    assert set(result["stages"]) == {0, 1, 2, 3}
    for stage in result["stages"].values():
        assert stage["fits"] and 0 < stage["mfu"] <= 0.4 and stage["days"] >= 0
    assert plan(tiny(), gpus=64, gpu="h100")["larger_batches"] == {"digits": 64, "wine": 64}
    assert result["larger_batches"] == {}
    text = table(result)
    assert "assumed: kernels reach 40%" in text and "ZeRO" in text
    with pytest.raises(UserError, match="h100"):
        plan(tiny(), gpus=4, gpu="h10")


def test_weak_scaling_in_simulation_falls_with_the_number_of_gpus_unless_talk_is_hidden():
    lines = weak_scaling(tiny(), "h100", [1, 2, 8])
    worst = [line["efficiency"][0] for line in lines]
    assert worst[0] == 1.0 and worst[0] > worst[1] > worst[2] > 0
    assert all(line["efficiency"][0] <= line["efficiency"][1] for line in lines)


def test_weak_scaling_is_measured_by_a_command_beside_the_simulation(root, tmp_path):
    recipe = str(Path(__file__).with_name("tiny.py"))
    # in an interpreter of its own: processes are forked, which another test's autograd threads would not outlive
    words = [sys.executable, "-m", "scripts.weak_scaling", recipe, "--processes", "2", "--steps", "7"]
    done = subprocess.run([*words, "--out", str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert "simulated on h100" in shown and "cores, one thread a process" in shown
    (written,) = tmp_path.glob("*-weak-scaling.json")
    one, two = json.loads(written.read_text())["lines"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["samples"] == 2 * one["samples"] > 0
    assert one["efficiency"] == one["simulated"] == 1.0 and 0 < two["simulated"] < 1
    assert two["ring"] > 0 and two["cpu"] > 0


# --- the launchers' lines ---


def test_torchruns_line_has_the_three_things_that_nodes_need_together():
    lines = Launch(["10.0.0.1", "10.0.0.2"], ["train", "demo"], processes=8, interface="eth0", min_nodes=1)
    first, second = lines.line(0), lines.line(1)
    assert "is_host=1 --local-addr 10.0.0.1" in first and "is_host=0 --local-addr 10.0.0.2" in second
    assert all("GLOO_SOCKET_IFNAME=eth0" in line and "--nnodes 1:2" in line for line in (first, second))
    assert all("--rdzv-endpoint 10.0.0.1:29500" in line for line in (first, second))


def test_the_deepspeed_launcher_gets_a_hostfile():
    made = Launch(["10.0.0.1", "10.0.0.2"], ["train", "demo"], launcher="deepspeed", processes=3, hostfile="hosts")
    assert made.hosts() == "10.0.0.1 slots=3\n10.0.0.2 slots=3\n"
    assert "--no_local_rank --module generalist.cli train demo" in made.text() and "--num_gpus 3" in made.text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nodes": []}, "every node's address"),
        ({"nodes": ["a", "a"]}, "every node's address"),
        ({"launcher": "mpirun"}, "torchrun, deepspeed"),
        ({"launcher": "deepspeed"}, "--hostfile"),
        ({"processes": 0}, "--processes"),
        ({"min_nodes": 3}, "--min-nodes"),
    ],
)
def test_a_launch_that_cannot_work_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        Launch(**{"nodes": ["a", "b"], "command": [], **values})


def test_the_command_prints_a_line_a_node(capsys):
    from generalist.cli import main

    assert main(["train", "demo", "steps=10", "--nodes", "10.0.0.1,10.0.0.2", "--out", "runs/x", "--auto-resume"]) == 0
    out = capsys.readouterr().out
    assert out.count("generalist.cli train demo steps=10 --out runs/x --auto-resume") == 2


def test_no_task_is_left_out_of_the_plan():
    _, _, counted = count(tiny(), 2)
    assert set(counted) == {"digits", "wine"}
    assert all(c.flops > 0 and c.activations > 0 and c.samples == 4 for c in counted.values())
    assert torch.get_num_threads() == 1


def test_a_plan_needs_no_data_and_says_for_which_tasks_they_were_missing(tmp_path):
    from small import shrink

    from generalist.recipes.uni_perceiver import pretraining

    recipe = pretraining("tiny", root=str(tmp_path / "nowhere"))
    shrink(recipe, ("imagenet22k", "books_wiki", "cc3m_caption", "cc3m_retrieval"), layers=1, batch=4, steps=10)
    found = plan(recipe, 2, "h100")
    assert set(found["missing"]) == set(found["tasks"]) and len(found["tasks"]) == 4
    assert all("nowhere" in why for why in found["missing"].values())
    assert all(one["flops"] > 0 and one["tokens"] > 0 for one in found["tasks"].values())
    assert "not there yet" in table(found) and "imagenet22k" in table(found)
    assert plan(tiny(), 2, "h100")["missing"] == {}
