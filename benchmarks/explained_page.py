"""Write the picture of docs/reading.md: the words of a review, coloured by what each adds.

python -m benchmarks.explained_page [FOLDER]

Needs chromium and its driver, and selenium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from torch import Tensor, nn

import memspace

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCORES = {"great": 2, "good": 1, "fine": 1, "bad": -1, "dull": -1, "awful": -2}
WORDS = (*SCORES, "a", "the", "film", "plot", "actor", "was", "is", "and")
LENGTH, TRAIN, TEST = 9, 200, 100


class Reviewer(nn.Module):
    """The mean of word vectors, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(len(WORDS), 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) words as numbers → (B, 2)."""
        logits: Tensor = self.head(torch.tanh(self.hidden(self.words(x).mean(1))))
        return logits


def reviews(seed: int = 0) -> memspace.Task:
    """Train the network on reviews whose label is the sign of their score."""
    torch.manual_seed(seed)
    x = torch.randint(0, len(WORDS), (TRAIN + TEST, LENGTH))
    worth = torch.tensor([float(SCORES.get(w, 0)) for w in WORDS])
    y = (worth[x].sum(1) > 0).long()
    model = Reviewer()
    optimiser = torch.optim.Adam(model.parameters(), 0.03, weight_decay=1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[:TRAIN]), y[:TRAIN]).backward()
        optimiser.step()
    return memspace.Task(
        model,
        (x[:TRAIN], y[:TRAIN]),
        test=(x[TRAIN:], y[TRAIN:]),
        name="reviews",
        class_names=("negative", "positive"),
        show=lambda ids: " ".join(WORDS[int(k)] for k in ids),
        decay=1e-3,
    )


def photograph(page: Path, selector: str, to: Path, width: int = 900) -> None:
    """Take a picture of one part of a page."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1400"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get(page.resolve().as_uri())
        (part,) = driver.find_elements(By.CSS_SELECTOR, selector)
        to.write_bytes(part.screenshot_as_png)
    finally:
        driver.quit()


def main() -> None:
    """Write the page and its picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    with tempfile.TemporaryDirectory() as made:
        page = Path(made) / "reviews.html"
        result = memspace.explain(reviews(), 5, page=page)
        print(result)
        photograph(page, "#input .gallery", folder / "explain-words.png")


if __name__ == "__main__":
    main()
