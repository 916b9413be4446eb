"""A result with every feature a report can show, hostile strings included."""

from memspace.auditing.results import Chapter, Figure, Finding, Gallery, Item, Passage, Results, Series
from memspace.measurement import Measurement, Unmeasured

HOSTILE = "<script>window.hacked = 1</script>&\"'"


def sample() -> Results:
    grey = [[0.0, 0.5], [1.0, 0.25]]
    colour = [[(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)], [(0.0, 0.0, 1.0), (1.0, 1.0, 1.0)]]
    figures = (
        Figure(
            "line",
            "A line " + HOSTILE,
            "With a band.",
            "x",
            "y",
            (Series("s", [1.0, 10.0, 100.0], [1.0, 2.0, 3.0], low=[0.5, 1.5, 2.5], high=[1.5, 2.5, 3.5]),),
            "log",
            "linear",
            ((10.0, "here " + HOSTILE),),
        ),
        Figure("bars", "Bars", "By layer.", "layer", "share", (Series("b", ["one", HOSTILE], [0.25, 0.75], "bar"),)),
        Figure(
            "points",
            "Points",
            "With errors.",
            "x",
            "y",
            (Series("p", [0.1, 0.9], [0.2, 0.8], "points", [0.1, 0.7], [0.3, 0.9], ["first", HOSTILE]),),
        ),
    )
    galleries = (
        Gallery("g", "Pictures", "Grey and colour.", (Item(3, "three", grey, flag="1 → 2"), Item(4, HOSTILE, colour))),
        Gallery(
            "t", "Texts", "With a query.", (Item(5, "five", text=HOSTILE, flag="supports"),), Item(6, "q", text="?")
        ),
    )
    passages = (Passage("p", "Words", "Coloured.", ("so", HOSTILE, "it goes"), (0.5, -2.0, 1e-9), "nats"),)
    measurements = (
        Measurement("a.b", 1.23456, "nats", "exact", 10, (1.2, 1.3), "liang2019 [eq. 8]"),
        Measurement("a.nan", float("nan"), "1", "failed " + HOSTILE, 10),
        Measurement("a.doubt", 5e-9, "bits", "guess", 1, None, "our handbook " + HOSTILE, False, "because"),
    )
    findings = tuple(
        Finding(level, f"{level} {HOSTILE}", "evidence", "action", "one") for level in ("good", "note", "warn", "bad")
    )
    chapters = (
        Chapter(
            "one",
            "One",
            "Why?",
            "Because.",
            measurements,
            (),
            findings,
            figures,
            galleries,
            ("A remark.",),
            1.5,
            passages,
        ),
        Chapter("two", "Two", "What?", "Nothing.", (), (Unmeasured("two.x", "not known", "hand it over"),)),
    )
    tables = {"examples": {"index": [0, 1], "loo_loss": [0.5, 1.5]}, "layers": {"layer": ["a", HOSTILE]}}
    return Results(
        "sample " + HOSTILE,
        "2026-01-02T03:04:05+00:00",
        "0.1.0",
        {"model": HOSTILE},
        {"seed": 0},
        "a plan",
        chapters,
        {"total": 2.0},
        tables,
    )
