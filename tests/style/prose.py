"""Sentences of a Markdown page: what is left without code, tables, formulas on their own lines and link targets."""

import re

ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|vs|cf|eq|etc|Fig|No)\.")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`[^`\n]*`")
END = re.compile(r"(?<=[.!?])[)*\"”]*\s+(?=[\W_]*[A-ZΑ-Ω\d`\"“‘θγσ½ℓ]|$)")
WORD = re.compile(r"\w")


def _paragraphs(text: str) -> list[str]:
    """Return paragraphs, items of lists and headings, each on one line."""
    plain = LINK.sub(r"\1", FENCE.sub("\n", text))
    paragraphs: list[str] = []
    fresh = True
    for line in plain.splitlines():
        stripped = line.strip()
        item = re.match(r"([-*+]|\d+\.) ", stripped)
        code = line.startswith("    ") and not item
        if not stripped or stripped.startswith(("|", "![", "#")) or code:
            fresh = True
            continue
        if fresh or item:
            paragraphs.append(stripped[item.end() :] if item else stripped)
        else:
            paragraphs[-1] += " " + stripped
        fresh = False
    return paragraphs


def sentences(text: str) -> list[str]:
    """Return the sentences of a Markdown text.

    Args:
        text: The page, or a part of it.

    Returns:
        One string a sentence. Inline code counts as one word; tables, fenced and indented blocks, headings and the
        targets of links are left out.
    """
    found: list[str] = []
    for paragraph in _paragraphs(text):
        one_word = CODE.sub("Code", ABBREVIATIONS.sub(r"\1", paragraph))
        found += [s.strip() for s in END.split(one_word) if s.strip()]
    return found


def words(sentence: str) -> int:
    """Count the words of a sentence: what is set off by spaces and holds a letter or a digit.

    Args:
        sentence: One sentence.

    Returns:
        Their number.
    """
    return sum(1 for token in sentence.split() if WORD.search(token))
