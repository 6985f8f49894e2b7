"""Real text that every machine with Python has: the standard library's docstrings and sources, near-deduplicated.

A file gives its docstrings (as prose) and its top-level functions and classes (as code, docstrings and comments taken
out). Tests, encodings tables and bundled packages are left out. Files are visited in the order of a hash of their
name, so the choice does not depend on the file system, and one file in `HELDOUT_ONE_IN` is held out whole: controls,
canaries and validation rows come from modules that training never sees.

Cost: about 4 s for 4 MB of text (parsing dominates). The text depends on the Python that runs.
"""

import ast
import hashlib
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pythia_tools import dedup
from pythia_tools.core.errors import EnvironmentFailure

HELDOUT_ONE_IN = 5
LEFT_OUT = {
    "test", "tests", "idle_test", "idlelib", "encodings", "ensurepip", "turtledemo", "site-packages", "dist-packages",
    "__pycache__", "lib2to3", "_vendor", "__phello__",
}
DEFINITIONS = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
SHORTEST = 200
LONGEST = 6_000
_RUNS = re.compile(r"([^\w\s])\1{5,}")
_BLANKS = re.compile(r"\n{3,}")
_INDENTS = re.compile(r"^(?: {4})+", re.MULTILINE)


@dataclass(frozen=True)
class Text:
    """One cleaned document: where it came from, and whether its module is held out."""

    source: str
    heldout: bool
    text: str


def collect(train_chars: int, heldout_chars: int, dedup_threshold: float) -> list[Text]:
    """Distinct documents until both parts have that many characters (or the library ends).

    Near-duplicates at `dedup_threshold` (Jaccard of word 5-grams, exact) keep their first document; a held-out one that
    resembles a training document goes, whichever came first.
    Raises: EnvironmentFailure when this Python has no library sources.
    """
    found: list[Text] = []
    lacking = {False: train_chars, True: heldout_chars}
    for path, name, heldout in _files():
        if lacking[heldout] > 0:
            texts = [Text(name, heldout, text) for text in _units(path)]
            lacking[heldout] -= sum(len(t.text) for t in texts)
            found += texts
    kept = _distinct(found, dedup_threshold)
    if not kept:
        raise EnvironmentFailure(
            "this Python has no standard library sources (.py files), which the suite's corpus is made of; "
            "run with a Python that has them"
        )
    return kept


def clean(text: str) -> str:
    """Plain text: no control characters, no rulers, no indentation deeper than its nesting, no long gaps.

    Four spaces of indentation become one tab-like single space per level, so that tokens go to words.
    """
    text = "".join(c for c in text.expandtabs(4) if c == "\n" or c.isprintable())
    text = _INDENTS.sub(lambda m: " " * (len(m[0]) // 4), text)
    text = "\n".join(line.rstrip() for line in text.splitlines() if len(line) < 300)
    return _BLANKS.sub("\n\n", _RUNS.sub(lambda m: m[1] * 3, text)).strip()


def _files() -> Iterator[tuple[Path, str, bool]]:
    """Path, name and, from another part of its hash than the visiting order, whether it is held out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = [p.relative_to(root).as_posix() for p in root.rglob("*.py") if _wanted(p.relative_to(root))]
    for digest, name in sorted((hashlib.sha256(name.encode()).hexdigest(), name) for name in names):
        yield root / name, name, int(digest[-8:], 16) / 2**32 * HELDOUT_ONE_IN < 1


def _wanted(name: Path) -> bool:
    made = name.name.startswith(("_sysconfigdata", "test_")) or name.parts[0].startswith("config-")
    return not made and not LEFT_OUT & set(name.parts)


def _units(path: Path) -> Iterator[str]:
    """Docstrings, long string constants of pydoc's topics, and top-level definitions of one file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return  # a template or an unreadable file: the next one will do
    for raw in [*_prose(tree), *_code(tree)]:
        text = clean(raw)
        if len(text) >= SHORTEST:
            yield text[:LONGEST].rstrip()


def _prose(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | DEFINITIONS):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Dict):
            # pydoc's topics are one dictionary of long strings
            values = [v.value for v in node.values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
            yield from (v for v in values if len(v) > 1_000)


def _code(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, DEFINITIONS):
            for inner in ast.walk(node):
                if isinstance(inner, DEFINITIONS) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:] or [ast.Pass()]
            yield ast.unparse(node)


def _distinct(texts: list[Text], threshold: float) -> list[Text]:
    first = sorted(texts, key=lambda t: t.heldout)  # training documents first, so that they are the ones kept
    return [first[i] for i in dedup.kept_documents([t.text for t in first], dedup.DedupConfig(threshold=threshold))]
