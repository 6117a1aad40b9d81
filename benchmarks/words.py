"""Words of the old vocabulary, and how long the sentences are."""

import ast
import itertools
import re
import statistics
from collections.abc import Iterable, Iterator

from benchmarks.sources import PRODUCT, Offender, Source, product

OLD_WORDS = {
    "CELLS": "MAX_WINDOWS",
    "Course": "PrequentialTraining",
    "Examined": "Evaluation",
    "FRESH": "REFIT_SHARE",
    "GONE": "COLLAPSE",
    "Known": "CovisitationIndex",
    "LATE": "REFIT_TAIL_SHARE",
    "LEAST": "MIN_WINDOWS, or MIN_ and the noun",
    "LEAST_MOVE": "MIN_RELATIVE_MOVE",
    "MENDED": "MIN_RECOVERY",
    "PARTS": "the noun",
    "Part": "the noun: Slice, Stretch, Shard",
    "Raw": "RawLines",
    "STRANGE": "REMAPPED_CORRELATION",
    "TOO_OFTEN": "PLACEHOLDER_RATIO",
    "Trained": "TrainingResult",
    "View": "Probe",
    "Vital": "SignalStatus",
    "Vitals": "MonitorStatus",
    "Work": "TrainingContext",
    "_place": "_init_from_table",
    "_welcome": "_init_new_articles",
    "alike": "frequency_correlation",
    "apart": "non_overlapping",
    "at_mix": "standardised_mean",
    "begun": "start_study",
    "beside": "the noun",
    "bury": "mark_orphans_killed",
    "continued": "resume_study",
    "distrust": "exclude",
    "distrusted": "excluded intervals",
    "examine": "evaluate",
    "familiar": "label_correlation",
    "faulty": "fault",
    "forgotten": "drop_times",
    "found": "what it holds: rows, version, errors, signals",
    "gone": "the noun",
    "heard": "the noun",
    "hopeless": "should_prune",
    "in_order": "groups_by_start",
    "in_parts": "stretch_means",
    "known": "training_profile, seen_mask, is_known, or the noun",
    "newcomer": "new_label_shares",
    "noted": "the noun",
    "octave": "length_bin",
    "one": "the noun",
    "other": "the noun",
    "poverty": "noise",
    "quiet": "reference_windows, or is_stable",
    "said": "the noun",
    "settle": "publish_rejects, finish_trial or resolve_alarms",
    "settle_alarms": "resolve_alarms",
    "settled": "params",
    "taught": "refit_helps",
    "told": "the noun",
    "told_before": "the question that it answers",
    "unheard": "ignore",
    "usual": "mean, or the noun",
    "usual_windows": "calibration_windows",
    "vitals": "monitor_status",
    "what": "the noun",
}
"""Identifiers of the old vocabulary, as whole names, and the better name of each."""
OLD_PHRASES = {
    "world changed": "concept drift",
    "world has changed": "the right answers have changed; concept drift",
    "data broken": "data fault",
    "season or mix": "covariate shift",
    "learning anew": "retraining, refitting",
    "learn anew": "retrain, refit",
    "learns anew": "retrains, refits",
    "learnt anew": "retrained, refitted",
    "`familiar`": "`label_correlation`",
    "`fresh`": "`refit_baseline`",
    "`late`": "`refit_baseline_tail`",
    "`worth`": "`min_gain`",
    "`needed`": "`confirmations`",
    "`of`": "`out_of`",
    "`octave`": "`length_bin`",
    "octaves": "length bins",
    "vitals": "status",
}
"""Phrases of the old vocabulary in docs, docstrings and strings, and the better words."""
OLD_VALUES = {
    "quiet": "stable",
    "familiar": "label_correlation",
    "fresh": "refit_baseline",
    "late": "refit_baseline_tail",
}
"""Strings of the old vocabulary, as whole strings."""
EXEMPT = {
    "benchmarks/words.py": "lists the old words",
    "kreislauf/monitoring/renamed.py": "maps stored names to those of today",
    "tests/flows/test_stored.py": "reads stored names",
    "tests/serving/test_metrics.py": "reads stored names",
    "tests/stored/make.py": "runs with an earlier version's code",
    "tests/test_style.py": "plants old words",
}
"""Files that must spell the old words, and why."""
LONG_SENTENCE = 35
"""Words from which a sentence is named to people; no goal depends on it."""
CODE = (*PRODUCT, "benchmarks", "notebooks", "tests")
"""Folders whose identifiers and strings are searched."""


def identifiers(file: Source) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is named or asked for by name."""
    for node in file.nodes:
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.end_lineno or node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.lineno, node.arg
        elif isinstance(node, ast.alias):
            yield node.lineno, node.asname or node.name.split(".")[-1]


def old_identifiers(file: Source) -> list[Offender]:
    """Names of the old vocabulary, and model types that are called `kind`."""
    offenders = [
        Offender("old_words", file.path, line, f"{name} -> {OLD_WORDS[name]}")
        for line, name in identifiers(file)
        if name in OLD_WORDS
    ]
    for node in file.nodes:
        if not isinstance(node, ast.arg | ast.AnnAssign):
            continue
        if re.match(r"kind: '?(\w+\.)*ModelSpec", ast.unparse(node)):
            reason = "kind: ModelSpec -> model_type"
            offenders.append(Offender("old_words", file.path, node.lineno, reason))
    return offenders


def old_phrases(path: str, line: int, text: str) -> list[Offender]:
    """Phrases of the old vocabulary in a text that begins at `line`."""
    return [
        Offender("old_words", path, line + text[: match.start()].count("\n"), f"{old} -> {new}")
        for old, new in OLD_PHRASES.items()
        for match in re.finditer(pattern(old), text, re.IGNORECASE)
    ]


def pattern(phrase: str) -> str:
    """Regular expression of a phrase as whole words, whatever blanks are between them."""
    return r"(?<!\w)" + r"\s+".join(map(re.escape, phrase.split())) + r"(?!\w)"


def strings(file: Source) -> Iterator[tuple[int, str]]:
    """Line and text of each string, docstrings included."""
    for node in file.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def old_words(files: Iterable[Source], pages: Iterable[tuple[str, str]]) -> list[Offender]:
    """Old words of code (`CODE`, without `EXEMPT`) and of Markdown `pages` (path and text)."""
    offenders = []
    for file in files:
        if file.path.split("/")[0] in CODE and file.path not in EXEMPT:
            offenders += old_identifiers(file)
            for line, text in strings(file):
                offenders += old_phrases(file.path, line, text)
                if text in OLD_VALUES:
                    reason = f'"{text}" -> "{OLD_VALUES[text]}"'
                    offenders.append(Offender("old_words", file.path, line, reason))
    for path, text in pages:
        offenders += old_phrases(path, 1, text)
    return offenders


def docstrings(file: Source) -> Iterator[tuple[int, str]]:
    """Line and text of a file's docstrings: of modules, classes, functions and constants."""
    for node in file.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


SECTIONS = r"^\s*(?:Args|Returns|Raises|Yields|Attributes):"
"""Headings of a docstring's sections."""
ARGUMENT = re.compile(r"^\s*\w[\w.]*(?:, \w[\w.]*)*:\s", re.MULTILINE)
"""Beginning of an entry of a section, which begins a sentence."""
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+", re.MULTILINE)
"""Beginning of an entry of a list, which begins a sentence."""
END = re.compile(r"(?<=[.!?])[)\"'`*]*\s+(?=[\"'`(*\[]*[A-Z0-9`])|\n\s*\n|\x00")
"""Place between two sentences."""


def sentence_lengths(text: str) -> list[int]:
    """Words of each sentence of running text; headings, tables and code do not count."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"^\s*(\||#|!\[|<|>>>).*$|^(    ){1,2}\w.* = .*$", "\n", text, flags=re.MULTILINE)
    prose, *sections = re.split(SECTIONS, text, flags=re.MULTILINE)
    sections = [ARGUMENT.sub("\x00", section) for section in sections]
    text = ITEM.sub("\x00", "\x00".join([prose, *sections]))
    sentences = [re.findall(r"\S*\w\S*", sentence) for sentence in END.split(text)]
    return [len(words) for words in sentences if words]


def words_a_sentence(files: Iterable[Source], pages: Iterable[tuple[str, str]]) -> float:
    """The larger of two medians of words by sentence: the product's docstrings, and docs/*.md."""
    docstring_texts = [text for file in product(files) for _, text in docstrings(file)]
    doc_texts = [text for path, text in pages if path.startswith("docs/")]
    medians = [
        statistics.median(length for text in texts for length in sentence_lengths(text))
        for texts in (docstring_texts, doc_texts)
        if texts
    ]
    return float(max(medians))


def long_sentences(files: Iterable[Source], pages: Iterable[tuple[str, str]]) -> list[Offender]:
    """Texts of the product's docstrings and of docs/*.md, by line, with a sentence that is long."""
    texts = [(file.path, line, text) for file in product(files) for line, text in docstrings(file)]
    for path, page in pages:
        if path.startswith("docs/"):
            starts = [0, *(match.end() for match in re.finditer(r"\n\s*\n", page))]
            for start, end in itertools.pairwise([*starts, len(page)]):
                texts.append((path, page[:start].count("\n") + 1, page[start:end]))
    offenders = []
    for path, line, text in texts:
        longest = max(sentence_lengths(text), default=0)
        if longest > LONG_SENTENCE:
            reason = f"a sentence of {longest} words"
            offenders.append(Offender("long_sentences", path, line, reason))
    return offenders


def merged_sections(files: Iterable[Source]) -> list[Offender]:
    """Docstrings in which `Args:` or the like does not stand on a line of its own."""
    return [
        Offender("merged_sections", file.path, line, match[0].strip())
        for file in product(files)
        for line, text in docstrings(file)
        for match in re.finditer(SECTIONS + r" *\S.*$", text, re.MULTILINE)
    ]
