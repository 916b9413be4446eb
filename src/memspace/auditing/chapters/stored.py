"""Chapter 4: what is stored: memorised examples, labels that look wrong, where they are kept, who supports whom."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.auditing.chapters.regression import outliers
from memspace.auditing.chapters.several_labels import verdict_on_labels, wrong_outputs
from memspace.auditing.chapters.twice import Lists, twice
from memspace.auditing.claims import above, reliable
from memspace.auditing.expected import beyond_a_guess
from memspace.auditing.judge import noise_measurement
from memspace.auditing.pictures import item
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Gallery, Series
from memspace.auditing.thresholds import MEMORISED_BY_TOP
from memspace.intervals import of_share
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.metric.trust import FIDELITY, beyond

__all__ = ["stored"]

SHOWN = 24
TOP_SHARE = "memory.top_percent_share"


def _named(r: Reading, label: Tensor) -> str:
    k = int(label)
    names = r.task.class_names
    return names[k] if names is not None and 0 <= k < len(names) else str(k)


def stored(r: Reading, tables: dict[str, dict[str, object]], seed: int = 0) -> Chapter:
    """The chapter; adds columns to ``examples`` and makes ``influence``."""
    task, n = r.task, r.n
    plain = r.y.dim() == 1 and not r.y.is_floating_point()
    influence = r.self_influence
    rise = r.loo_loss - r.loss
    examples = tables["examples"]
    examples |= {
        "index": task.train.numbers(torch.arange(n)).tolist(),
        "train_loss": r.loss.tolist(),
        "self_influence": influence.tolist(),
        "loo_loss": r.loo_loss.tolist(),
    }
    if plain:
        examples["label"] = r.y.tolist()
        examples["predicted"] = task.likelihood.predict(r.f).tolist()
    order = influence.argsort(descending=True)
    share = float(influence[order[: max(1, n // 100)]].sum() / influence.sum())
    doubt = _doubt(r)
    nats = "nats per example" if r.sequence else "nats"  # the losses of a sequence are told per position
    how = f"gᵀM⁻¹g, γ={r.damping.value:.2g}; {r.estimator}"
    own = from_samples("memory.self_influence", influence.tolist(), nats, how, source="koh2017", note=doubt)
    first = r.loo_f is None
    against = beyond_a_guess(task.likelihood, r.f, r.y, r.loo_loss, r.loo_f) or (doubt if first else "")
    how = "first order: self-influence" if first else "leave-one-out loss less training loss"
    rises = from_samples("memory.loo_loss_rise", rise.tolist(), nats, how, source="rad2020", note=against)
    measurements = [
        replace(own, reliable=own.reliable and not doubt),
        replace(rises, reliable=rises.reliable and not against),
        Measurement(
            TOP_SHARE,
            share,
            "1",
            "share of all self-influence held by the top 1% of examples",
            n,
            reliable=r.damping.reliable,
            note="exact for these data and this damping",
        ),
    ]
    unmeasured: list[Unmeasured] = []
    findings: list[Finding] = []
    galleries = [
        Gallery(
            "memorised",
            "Most memorised",
            "The training examples whose prediction depends most on having been stored themselves.",
            tuple(
                item(
                    task,
                    task.train,
                    int(i),
                    f"self-influence {float(influence[i]):.3g} nats"
                    + (f", label {_named(r, r.y[i])}" if plain else ""),
                )
                for i in order[:SHOWN].tolist()
            ),
        )
    ]
    names = r.space.labels
    where = r.parts[order[: max(10, n // 20)]].sum(0) / influence[order[: max(10, n // 20)]].sum()
    everywhere = r.parts.sum(0) / influence.sum()
    figures = [
        Figure(
            "where",
            "Where memories are kept",
            "Each layer's share of self-influence, for the most memorised 5% and for all; parts sum to the whole.",
            "layer",
            "share",
            (
                Series("most memorised 5%", names, where.tolist(), "bar"),
                Series("all examples", names, everywhere.tolist(), "bar"),
            ),
        ),
    ]
    if r.labels is not None and plain:
        figures += _wrong_labels(r, tables, measurements, findings, galleries)
    elif not (
        outliers(r, tables, measurements, findings, galleries) or wrong_outputs(r, tables, measurements, findings, seed)
    ):
        unmeasured.append(
            Unmeasured(
                "labels.noise",
                "labels of sequences or without classes are not judged one by one",
                "audit a classifier with one label per example",
            )
        )
    again = Lists()
    failed = attempt("duplicates", lambda: twice(r, seed, tables, again))
    unmeasured += [failed] if failed is not None else []
    measurements, unmeasured = [*measurements, *again.measurements], [*unmeasured, *again.unmeasured]
    findings, galleries = [*findings, *again.findings], [*galleries, *again.galleries]
    tables["influence"] = _influence(r, galleries, plain, doubt)
    top = names[int(everywhere.argmax())]
    findings.append(
        _concentrated(
            max(1, n // 100),
            share,
            f"Self-influence {float(influence[order[0]]):.2g} nats at the top against {float(influence.median()):.2g} "
            f"at the median; the largest part lies in {top}.",
        )
    )
    answer = f"Leaving an example out raises its own loss by {float(rise.mean()):.3g} nats on average; the most memorised one by {float(rise[order[0]]):.3g}."
    if r.labels is not None:
        answer += f" {r.labels.model.statement[0].upper()}{r.labels.model.statement[1:]}."
    return Chapter(
        "stored",
        "What is stored",
        "Which examples has the network memorised, which labels look wrong, and who supports a prediction?",
        answer,
        tuple(measurements),
        tuple(unmeasured),
        tuple(findings),
        tuple(figures),
        tuple(galleries),
        (f"Influence and self-influence are not reliable in size: {doubt}.",) if doubt else (),
    )


def _doubt(r: Reading) -> str:
    """Why the metric behind influence is not to be relied on, where it is an approximation; else nothing."""
    if r.fidelity is None:
        return ""
    name = r.metric.representation
    if isinstance(r.fidelity, Unmeasured):
        return f"{name} was not held against exact products"
    return beyond(r.fidelity.relative_error, FIDELITY, f"the relative error of {name}")


def _wrong_labels(
    r: Reading,
    tables: dict[str, dict[str, object]],
    measurements: list[Measurement],
    findings: list[Finding],
    galleries: list[Gallery],
) -> list[Figure]:
    assert r.labels is not None
    task, n, model = r.task, r.n, r.labels.model
    p, suggested = r.labels.p, r.labels.suggested
    tables["examples"] |= {"p_wrong_label": p.tolist(), "suggested_label": suggested.tolist()}
    low, high = model.interval
    noise = noise_measurement(model, r.labels.estimator)
    measurements += [
        noise,
        Measurement(
            "labels.expected_wrong",
            float(p.sum()),
            "labels",
            f"sum of the probabilities; judged by {r.labels.estimator}",
            n,
            (n * low, n * high),
            reliable=model.reliable,
            note=model.statement,
        ),
    ]
    order = p.argsort(descending=True)
    likely = int((p > 0.5).sum())
    shown = [int(i) for i in order[:SHOWN] if float(p[i]) > 0.5]
    truth = task.true_labels
    items = []
    for i in shown:
        caption = f"{float(p[i]):.0%} wrong"
        if truth is not None:
            caption += f"; truly {_named(r, truth[i])}"
        items.append(item(task, task.train, i, caption, f"{_named(r, r.y[i])} → {_named(r, suggested[i])}"))
    if items:
        galleries.append(
            Gallery(
                "wrong-labels",
                "Labels that look wrong",
                "Most suspicious first, with the label the network would give without having seen the example.",
                tuple(items),
            )
        )
    findings.append(verdict_on_labels(noise, likely))
    figures = []
    if truth is not None:
        wrong = truth.to(r.y.device) != r.y
        if bool(wrong.any()):
            from sklearn.metrics import average_precision_score

            flags = wrong.cpu().numpy()
            for name, score in (
                ("p_wrong_label", p),
                ("training_loss", r.loss),
                ("self_influence", r.self_influence),
            ):
                measurements.append(
                    Measurement(
                        f"labels.average_precision.{name}",
                        float(average_precision_score(flags, score.cpu().numpy())),
                        "1",
                        "against the known corrupted labels",
                        n,
                    )
                )
            right = (suggested[wrong] == truth.to(suggested.device)[wrong]).double()
            measurements.append(
                from_samples(
                    "labels.suggestion_accuracy",
                    right.tolist(),
                    "1",
                    "suggested label equals the true one, over the truly wrong labels",
                )
            )
            figures.append(_calibration(p, wrong))
    return figures


def _concentrated(count: int, share: float, evidence: str) -> Finding:
    """How much of the memory the top 1% hold; a warning where a few examples hold much of it."""
    hold = "example holds" if count == 1 else "examples hold"
    title = f"The {'most' if count == 1 else f'{count:,} most'} memorised {hold} {share:.0%} of all self-influence"
    note = Finding("note", title, evidence, "Nothing to do.", "stored", claims=(reliable(TOP_SHARE),))
    return Finding(
        "warn",
        title,
        evidence,
        "Look through the most memorised examples: rare but right ones deserve more data, wrong ones a new label.",
        "stored",
        claims=(above(TOP_SHARE, MEMORISED_BY_TOP),),
        otherwise=note,
    )


def _calibration(p: Tensor, wrong: Tensor) -> Figure:
    edges = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98], dtype=p.dtype, device=p.device)
    bins = torch.bucketize(p, edges)
    x, y, low, high, text = [], [], [], [], []
    for k in range(len(edges) + 1):
        inside = bins == k
        m = int(inside.sum())
        if m == 0:
            continue
        rate = float(wrong[inside].double().mean())
        ends = of_share(float(wrong[inside].double().sum()), m).ends or (0.0, 1.0)
        x.append(float(p[inside].mean()))
        y.append(rate)
        low.append(ends[0])
        high.append(ends[1])
        text.append(f"{m} examples")
    return Figure(
        "calibration",
        "Is the confidence honest?",
        "Share of truly wrong labels among examples given about the same probability; the diagonal is perfect calibration.",
        "probability that the label is wrong",
        "truly wrong",
        (
            Series("this audit", x, y, "points", low=low, high=high, text=text),
            Series("perfect", [0, 1], [0, 1]),
        ),
    )


def _influence(r: Reading, galleries: list[Gallery], plain: bool, doubt: str) -> dict[str, object]:
    task = r.task
    data = task.test if task.test is not None else task.train
    f, y = (r.test_f, r.test_y) if r.test_f is not None and r.test_y is not None else (r.f, r.y)
    columns: dict[str, list[object]] = {"query": [], "train_index": [], "rank": [], "influence": []}
    for k, q in enumerate(r.queries.tolist()):
        scores = r.influence[k]
        order = scores.argsort(descending=True)
        for rank, i in enumerate([*order[:10].tolist(), *order.flip(0)[:10].tolist()]):
            columns["query"].append(int(data.numbers(torch.tensor(q))))
            columns["train_index"].append(int(task.train.numbers(torch.tensor(i))))
            columns["rank"].append(rank + 1 if rank < 10 else -(rank - 9))
            columns["influence"].append(float(scores[i]))
        if k >= 6:
            continue
        about = ""
        if plain:
            about = f"label {_named(r, y[q])}, predicted {_named(r, task.likelihood.predict(f[q : q + 1])[0])}"
        items = [
            item(
                task,
                task.train,
                int(i),
                f"{float(scores[i]):+.2g} nats" + (f", label {_named(r, r.y[i])}" if plain else ""),
                "supports" if float(scores[i]) > 0 else "opposes",
            )
            for i in [*order[:5].tolist(), *order.flip(0)[:5].tolist()]
        ]
        galleries.append(
            Gallery(
                f"query-{q}",
                f"Why this prediction? Example {q}",
                _caption(task.likelihood.classifies, doubt),
                tuple(items),
                item(task, data, q, about),
            )
        )
    return dict(columns)


def _caption(classifies: bool, doubt: str) -> str:
    said = "Training examples without which "
    said += (
        "the network would be less sure (supports) or surer (opposes) of what it predicts."
        if classifies
        else "this example's loss would rise (supports) or fall (opposes)."
    )
    return f"{said} Not reliable in size: {doubt}." if doubt else said
