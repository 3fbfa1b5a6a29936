"""What two gloo processes do together, started once; every part leaves its numbers for `test_two_ranks`."""

from pathlib import Path
from typing import Any

import ddp_worker
import torch
import torch.distributed as dist
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Batch, Packed, Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.machine.collectives import gather, gather_constant
from generalist.model.candidates import Exact, Inputs, Members
from generalist.model.objective import Objective
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS
from generalist.recipe.specs import CandidateSpec
from generalist.scripts.parity_files import entries
from generalist.tasks.candidates.likelihood import logits
from generalist.tasks.candidates.names import CandidateSet, Names
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.train.methods.distill import Distill
from tests.uniperceiver_moe import Reference

WORDS = [f"{a}{b}" for a in "bcdfg" for b in ("at", "et", "it", "ot", "ut", "an", "en")]  # 35: an uneven split
PAIRS = [(WORDS[i], WORDS[(3 * i + 1) % 35]) for i in range(6)]
PAIRS[4] = (PAIRS[4][0], PAIRS[1][1])  # one answer on both ranks
LABELS = [3, 8, 34, 21, 0]  # two answers on the first rank, three on the second


def made(specs: dict[str, CandidateSpec], mixed: bool = False) -> tuple[Objective, dict[str, Any]]:
    torch.manual_seed(0)
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(WORDS)
    modalities: dict[str, Any] = {"summary": Summary(), "text": text}
    config = GeneralistConfig(
        hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        modalities=modality_settings(modalities),
    )  # fmt: skip
    return Objective(GeneralistModel(config), {"words": Names(WORDS)}, modalities, specs, mixed), modalities


def of_mixer(name: str) -> tuple[Objective, dict[str, Any]]:
    """A model of pictures and words with a mixer in the first of two layers, and nothing random in training."""
    torch.manual_seed(0)
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(WORDS)
    image = Image(size=16, patch=4, channels=1)
    modalities: dict[str, Any] = {"summary": Summary(), "text": text, "image": image}
    placed = {"channel_mixers": [name, "mlp"]} if name in CHANNEL_MIXERS else {"mixers": [name, "attention"]}
    config = GeneralistConfig(
        width=24, layers=2, heads=3, hidden=32, moe={"noise": 0.0}, **placed, modalities=modality_settings(modalities)
    )
    specs = {"words": CandidateSpec(shard="always")}
    return Objective(GeneralistModel(config), {"words": Names(WORDS[:9])}, modalities, specs), modalities


def pictures(modalities: dict[str, Any], rows: slice) -> Batch:
    """Pictures of several sizes, of five names."""
    draw = torch.Generator().manual_seed(5)
    sizes = ((4, 4), (2, 4), (4, 4), (4, 2), (2, 2))
    spans = [modalities["image"].span(torch.rand(1, 4 * h, 4 * w, generator=draw)) for h, w in sizes][rows]
    asked = [modalities["summary"].span(None).ask([0], torch.tensor([label % 9])) for label in LABELS[rows]]
    inputs = pack([[question, span] for question, span in zip(asked, spans, strict=True)])
    return Batch("words", inputs, candidates="words", smoothing=0.1, count=len(spans))


def taught(objective: Objective) -> Objective:
    """The same with a teacher of other weights at work."""
    method = Distill()
    method.teacher, method.weight, method.temperature = made({})[0].model.eval(), 0.5, 2.0
    torch.manual_seed(1)
    for p in method.teacher.parameters():
        p.data += 0.2 * torch.randn(p.shape)
    objective.extra = method.loss
    return objective


def sequence(modalities: dict[str, Any], word: str, label: int | None = None) -> list[Span]:
    labels = None if label is None else torch.tensor([label])
    return [modalities["summary"].span(None).ask([0], labels), modalities["text"].span(word)]


def retrieval(modalities: dict[str, Any], rows: slice) -> Batch:
    pairs = PAIRS[rows]
    keys = torch.tensor([WORDS.index(b) for _, b in pairs])
    inputs, partners = (pack([sequence(modalities, pair[i]) for pair in pairs]) for i in (0, 1))
    return Batch("pairs", inputs, partners=partners, smoothing=0.1, count=len(pairs), keys=keys)


def choosing(modalities: dict[str, Any], rows: slice) -> Batch:
    labels = LABELS[rows]
    inputs = pack([sequence(modalities, WORDS[(5 * i) % 35], i) for i in labels])
    return Batch("words", inputs, candidates="words", smoothing=0.1, count=len(labels))


def result(objective: Objective, batch: Batch) -> dict[str, Any]:
    """The loss and every parameter's gradient of one backward pass."""
    objective.zero_grad()
    loss = objective(batch)
    loss.sum().backward()
    grads = {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "grads": grads}


# --- the official file ---


class Ready(CandidateSet):
    """A set of sequences made beforehand."""

    def __init__(self, made: list[list[Span]]) -> None:
        self.made = made

    def sequences(self, modalities: dict[str, Any]) -> list[list[Span]]:
        return self.made

    def labels(self, modalities: dict[str, Any]) -> list[str]:
        return [str(i) for i in range(len(self.made))]


def dense(folder: Path) -> str:
    """The entry of a folder that has the inputs."""
    return next(name for name, entry in entries(folder).items() if entry.inputs == name)


def official(reference: Reference, objective: Objective, batch: Batch, factor: float) -> dict[str, Any]:
    """Loss and gradients by official names; factor: what turns the sum into the official loss."""
    loss = factor * torch.func.functional_call(objective, reference.parameters(), (batch,))
    loss.sum().backward()
    grads = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in reference.weights.items()}
    return {"loss": loss.detach(), "grads": grads}


def official_negatives(folder: Path, rank: int, y: dict[str, Tensor]) -> dict[str, Any]:
    reference = Reference(folder, dense(folder))
    reference.weights["loss_prepare.logit_scale_retrieve"].data.fill_(2.5)
    head = f"gather.rank{rank}."
    images = reference.pictures(y[head + "image"])
    texts = reference.texts(y[head + "caption_ids"], y[head + "caption_invalid"])
    keys = torch.arange(2) + 2 * rank
    batch = Batch("pairs", images, partners=texts, scale="retrieve", smoothing=0.1, count=2, keys=keys)
    objective = Objective(reference.model, {}, {}, {"pairs": CandidateSpec(negatives="constant")})
    out = official(reference, objective, batch, 1 / batch.count)
    with torch.no_grad():
        queries, partners = (gather_constant(f) for f in reference.features([images, texts]))
        out["logits"] = logits(queries, partners, torch.tensor([2.5]))
    return out


def official_shares(folder: Path, rank: int, count: int) -> dict[str, Any]:
    """count: members of the set, split over two ranks."""
    reference = Reference(folder, dense(folder))
    reference.model.train()  # a policy is for training; nothing in this model is random there
    members = [[reference.summary(), reference.words(ids)] for ids in reference.x["vocab_ids"][:count]]
    inputs = reference.masked(slice(rank, rank + 1))
    objective = Objective(reference.model, {"words": Ready(members)}, {}, {"words": CandidateSpec(shard="always")})
    assert inputs.labels is not None
    batch = Batch("words", inputs, candidates="words", scale="text_mlm", count=len(inputs.labels))
    out = official(reference, objective, batch, 0.5 / batch.count)
    reference.load().train()
    with torch.no_grad():
        shares = Members(count, lambda numbers, keep: objective._pack("words", numbers, keep), shard=True)
        exact = Exact(CandidateSpec(), count, reference.model.config.hidden_size)
        compared = exact(reference.model, Inputs(inputs), shares, inputs.labels)
        out["logits"] = logits(compared.queries, compared.members, reference.model.log_scale("text_mlm"))
    return out


class HeadAfter(torch.nn.Module):
    """The official order of a split set: members are gathered in front of the output head, which takes them all."""

    def __init__(self, model: GeneralistModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Packed, share: Packed, count: int) -> tuple[Tensor, Tensor]:
        """Loss [1] of the inputs and logits Float[M count]; `share`: the sequences of this rank."""
        queries, own = (self.model.encoder(self.model.embed(p), At(p.layout))[0][p.asked] for p in (inputs, share))
        found = logits(self.model.head(queries), self.model.head(gather(own)[:count]), self.model.log_scale("text_mlm"))
        assert inputs.labels is not None
        return torch.nn.functional.cross_entropy(found, inputs.labels).reshape(1), found


def official_head_after(folder: Path, rank: int, count: int) -> dict[str, Any]:
    reference = Reference(folder, dense(folder))
    share_size = -(-count // 2)
    ids = [*range(share_size * rank, min(share_size * (rank + 1), count))]
    ids += [0] * (share_size - len(ids))  # entry 0 fills the second share
    share = pack([[reference.summary(), reference.words(reference.x["vocab_ids"][i])] for i in ids])
    inputs = reference.masked(slice(rank, rank + 1))
    arranged = HeadAfter(reference.model)
    loss, found = torch.func.functional_call(arranged, reference.parameters(), (inputs, share, count))
    loss = 0.5 * loss
    loss.sum().backward()
    grads = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in reference.weights.items()}
    return {"loss": loss.detach(), "grads": grads, "logits": found.detach()}


# --- the processes ---


def official_parts(folder: Path, rank: int) -> dict[str, Any]:
    """What the file of two processes is compared with."""
    from safetensors.torch import load_file

    y = {k[2:]: v for k, v in load_file(next(folder.glob("*two_ranks.safetensors"))).items()}
    count = y["shard.rank0.logits"].shape[1]
    return {
        "gather": official_negatives(folder, rank, y),
        "shard": official_shares(folder, rank, count),
        "head_after": official_head_after(folder, rank, count),
    }


def work(rank: int, out: Path, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for negatives in ("gathered", "local"):
        objective, modalities = made({"pairs": CandidateSpec(negatives=negatives)})
        found[negatives] = result(objective, retrieval(modalities, slice(3 * rank, 3 * rank + 3)))
    for shard in ("always", "never"):
        objective, modalities = made({"words": CandidateSpec(shard=shard)})
        batch = choosing(modalities, slice(2) if rank == 0 else slice(2, 5))
        sequences: list[int] = []
        objective.model.encoder.register_forward_pre_hook(
            lambda m, a, to=sequences: to.append(sum(g.count for g in a[1].groups))
        )
        found[shard] = result(objective, batch) | {"encoded": sequences}
    found["taught"] = {}
    for negatives in ("gathered", "constant"):
        objective = taught(made({"pairs": CandidateSpec(negatives=negatives)})[0])
        found["taught"][negatives] = result(objective, retrieval(modalities, slice(3 * rank, 3 * rank + 3)))
    for policy in ("exact", "cached"):
        objective = taught(made({"words": CandidateSpec(shard="always", policy=policy)})[0])
        found["taught"][policy] = result(objective, batch)
    objective, modalities = made({"words": CandidateSpec(shard="always", policy="cached", every=3)})
    found["cached"] = [result(objective, batch)["loss"] for _ in range(3)]
    found["mixers"] = {}
    for name in (*TOKEN_MIXERS, *CHANNEL_MIXERS):
        objective, modalities = of_mixer(name)
        found["mixers"][name] = result(objective, pictures(modalities, slice(2) if rank == 0 else slice(2, 5)))
    found["auto"] = made({})[0].shards("words")
    found["mixed"] = []
    for specs in ({"words": CandidateSpec(shard="always")}, {}):
        try:
            objective, modalities = made(specs, mixed=True)
            objective(retrieval(modalities, slice(3 * rank, 3 * rank + 3)))
        except UserError as error:
            found["mixed"].append(str(error))
    found["ddp"] = ddp_worker.under_ddp(rank)
    found["official"] = {str(folder): official_parts(folder, rank) for folder in folders}
    torch.save(found, out / f"rank{rank}.pt")
    dist.destroy_process_group()
