"""Networks as transformers has them: memspace's loss and per-example gradients are those of ``outputs.loss``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.auditing.audit import plan_audit
from memspace.errors import ShapeError
from memspace.passes.coverage import coverage
from memspace.passes.engine import run_pass
from memspace.passes.outputs import outputs
from memspace.passes.statistics import GradientNorms
from memspace.passes.verify import verified_space

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VOCABULARY, LENGTH, N = 23, 8, 14
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 12, "max_position_embeddings": LENGTH}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_embd": 8, "n_layer": 2, "n_head": 2}

Examples = list[dict[str, Tensor]]


def _texts() -> Examples:
    """Padded on the right, every third with a prompt that is not learned."""
    g, made = torch.Generator().manual_seed(0), []
    for k in range(N):
        length = int(torch.randint(3, LENGTH + 1, (1,), generator=g))
        ids = torch.randint(1, VOCABULARY, (LENGTH,), generator=g)
        ids[length:] = 0
        labels = ids.clone()
        labels[length:] = -100
        labels[: 2 if k % 3 == 0 else 0] = -100
        made.append({"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels})
    return made


def _classed(texts: Examples) -> Examples:
    return [e | {"labels": e["input_ids"].sum() % 3} for e in texts]


def _tagged(texts: Examples) -> Examples:
    return [e | {"labels": torch.where(e["labels"] < 0, -100, e["input_ids"] % 3)} for e in texts]


def _translated(texts: Examples) -> Examples:
    model = _t5()
    decoded = [model.prepare_decoder_input_ids_from_labels(e["labels"].unsqueeze(0))[0] for e in texts]
    return [e | {"decoder_input_ids": d} for e, d in zip(texts, decoded, strict=True)]


def _t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Examples], Examples], bool]] = {
    "GPT-2": (lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)), lambda t: t, True),
    "Llama": (
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=1)),
        lambda t: t,
        True,
    ),
    "BERT, classes": (
        lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, num_labels=3)),
        _classed,
        False,
    ),
    "BERT, tags": (
        lambda: transformers.BertForTokenClassification(transformers.BertConfig(**SMALL, num_labels=3)),
        _tagged,
        False,
    ),
    "T5": (_t5, _translated, False),
}


def _made(name: str) -> tuple[nn.Module, Examples, memspace.Task, bool]:
    make, examples, moved = NETWORKS[name]
    torch.manual_seed(0)
    model, data = make().eval(), examples(_texts())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))  # untrained outputs hardly differ from token to token
    return model, data, memspace.Task(model=model, train=data), moved


def _batch(data: Examples) -> dict[str, Any]:
    return {k: torch.stack([e[k] for e in data]) for k in data[0]}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_and_gradients_are_those_of_the_network_itself(name: str) -> None:
    model, data, task, moved = _made(name)
    f, y = outputs(task, task.train)
    counted = task.likelihood.weight(f, y).flatten(0 if y.dim() < 2 else 1).reshape(N, -1).sum(1)
    labels = _batch(data)["labels"].reshape(N, -1)
    assert counted.tolist() == (labels[:, int(moved) :] != -100).sum(1).tolist()
    loss = float(task.likelihood.nll(f.double(), y).sum() / counted.sum())
    with torch.no_grad():
        assert loss == pytest.approx(float(model(**_batch(data)).loss), rel=1e-5)
    space = verified_space(task)
    norms = GradientNorms(space.blocks, "empirical")
    run_pass(task, space, [norms])
    for i in range(3):
        alone = model(**_batch([data[i]])).loss * counted[i]
        grads = torch.autograd.grad(alone, list(space.parameters(model).values()), allow_unused=True)
        want = sum(float(g.double().square().sum()) for g in grads if g is not None)
        assert float(norms.finish()["norms"][i].sum()) == pytest.approx(want, rel=1e-4)


def test_gpt2_is_read_on_the_fast_path_and_in_kronecker_bases() -> None:
    _, _, task, _ = _made("GPT-2")
    plan = plan_audit(task, memspace.Settings(representation="ekfac"))
    assert plan.loose == ()
    assert "example by example" not in plan.text()
    read = str(coverage(verified_space(task), plan.total, "ekfac"))
    assert "exact" in read
    assert "diagonal" not in read


def test_a_network_that_needs_decoder_inputs_says_where_they_come_from() -> None:
    torch.manual_seed(0)
    task = memspace.Task(model=_t5().eval(), train=_texts())
    with pytest.raises(ShapeError, match="prepare_decoder_input_ids_from_labels"):
        plan_audit(task, memspace.Settings())
