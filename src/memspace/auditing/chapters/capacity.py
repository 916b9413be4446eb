"""Chapter 3a: capacity used, by layer and by example."""

from __future__ import annotations

import numpy as np
import torch

from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.measures.complexity import LN2, information_bits

__all__ = ["capacity"]


def capacity(r: Reading, tables: dict[str, dict[str, object]], supplied: float | None = None) -> Chapter:
    """Bits used, by layer and by example.

    Args:
        supplied: bits of random labels that this architecture stores, as ``memspace capacity`` measures them.
    """
    g, n, found = r.damping.value, r.n, r.damping.found
    bits = information_bits(r.metric, g)
    by_layer = (r.layer_trace(lambda x: torch.log1p(x / g)) / (2 * LN2)).tolist()
    names = r.space.labels
    sizes = [b.size for b in r.space.blocks]
    tables["layers"]["bits"] = by_layer
    tables["layers"]["effective_parameters"] = r.layer_trace(lambda x: x / (x + g)).tolist()
    tables["layers"]["self_influence"] = r.parts.sum(0).tolist()
    measurements = [
        Measurement("capacity.bits_used", bits, "bits", r.estimator, n, None, "mackay1992", found),
        Measurement("capacity.bits_per_parameter", bits / r.space.size, "bits", r.estimator, n, reliable=found),
        Measurement("capacity.bits_per_example", bits / n, "bits", r.estimator, n, reliable=found),
    ]
    unmeasured = []
    if supplied is None:
        unmeasured.append(
            Unmeasured(
                "capacity.left",
                "the bits of random labels this architecture can store are not measured in an audit",
                "run `memspace capacity TASK` and pass its bits with --capacity",
            )
        )
    else:
        measurements.append(
            Measurement(
                "capacity.left",
                supplied - bits,
                "bits",
                f"{supplied:,.0f} bits of random labels (given) less the bits in use",
                n,
                note="assumes that a bit of the data costs what a bit of a random label costs; the capacity is a lower bound",
            )
        )
    figures = [
        Figure(
            "bits-by-layer",
            "Where the bits are",
            "Bits used by each layer; the parts sum to the whole.",
            "layer",
            "bits",
            (Series("bits", names, by_layer, "bar"),),
        )
    ]
    if r.leverage is not None:
        root = r.task.likelihood.fisher_root(r.f.double())
        held = root.transpose(1, 2) @ r.leverage @ root
        eye = torch.eye(held.shape[1], dtype=held.dtype, device=held.device)
        each = -0.5 * torch.linalg.slogdet(eye - held).logabsdet / LN2
        tables["examples"]["leverage"] = held.diagonal(dim1=1, dim2=2).sum(-1).tolist()
        tables["examples"]["bits"] = each.tolist()
        measurements.append(
            from_samples(
                "capacity.bits_given_the_rest",
                each.tolist(),
                "bits",
                "−½ log2 det(I − SᵀVS) per example: what each adds to all others",
                lower=0.0,
                source="cook1982 [leverage]",
            )
        )
        order = each.sort(descending=True).values
        share = np.cumsum(order.cpu().numpy()) / max(float(order.sum()), 1e-300)
        at = np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))
        half = int(np.searchsorted(share, 0.5)) + 1
        figures.append(
            Figure(
                "bits-by-example",
                "Which examples take the most bits",
                "Share of the per-example bits held by the examples with the most.",
                "share of examples",
                "share of bits",
                (Series("bits", ((at + 1) / n).tolist(), share[at].tolist()),),
            )
        )
        extra = f" {half / n:.0%} of the examples account for half of the per-example information."
    else:
        unmeasured.append(
            Unmeasured(
                "capacity.bits_given_the_rest",
                "leverage matrices of sequences are out of reach here",
                "use the self-influence of the chapter on what is stored",
            )
        )
        extra = ""
    top = int(np.argmax(np.asarray(by_layer) / np.asarray(sizes)))
    idle = int(np.argmin(np.asarray(by_layer) / np.asarray(sizes)))
    # That a fuller layer should be the one to widen has not been measured: the finding gives no advice.
    density = Finding(
        "note",
        f"{names[top]} holds the most bits per parameter, {names[idle]} the fewest",
        f"{by_layer[top] / sizes[top]:.2g} against {by_layer[idle] / sizes[idle]:.2g} bits per parameter.",
        "Nothing to do.",
        "capacity",
    )
    findings = (density,) if len(names) > 1 and bits > 0 else ()
    answer = f"{bits:,.0f} bits are in use, {bits / n:.2g} per training example and {bits / r.space.size:.2g} per parameter.{extra}"
    return Chapter(
        "capacity",
        "Capacity",
        "How full is the memory, and with what?",
        answer,
        tuple(measurements),
        tuple(unmeasured),
        findings,
        tuple(figures),
    )
