"""A small text grammar: expands templates with words from hand-written lexicon files.

A lexicon file (`grammars/*.txt`) is a list of rules: a header, then one entry a line.

    # a comment
    [pet]
    a grey cat
    a old {colour} spaniel

    [leak = symptom | cause | cure]
    the tap drips at night | a worn washer | a new one costs less than a coffee

In an entry or a template

    {pet}             a random entry of rule `pet`, itself expanded; an entry comes again in the
                      same text only when the whole rule is used up
    {friend:pet}      the same, kept under the name `friend`
    {friend}          the text that was kept
    {fault:leak}      picks a record and writes its first field; {fault.cause} writes another field
    {fault!leak}      picks and keeps without writing anything (works for a plain rule, too)
    {3-20}            a random whole number; {n:3-20} keeps it
    <one|two|>        one of the alternatives, which may hold slots and further alternatives
    ¶                 a new paragraph

Afterwards "a" becomes "an" where it has to, sentences start with a capital, and spaces are single.
The characters { } < > | ¶ and a `[` or `#` that begins a line cannot be written: no text here needs them.
"""

import random
import re
from pathlib import Path

GRAMMARS = Path(__file__).with_name("grammars")
HEADER = re.compile(r"\[([\w.]+)(?:\s*=\s*([\w\s|]+))?\]$")
SLOT = re.compile(r"\{(?:(\w+)([:!]))?([\w.]+|\d+-\d+)\}")
NUMBERS = re.compile(r"(\d+)-(\d+)$")
# "an hour" but "a university", "a one-way street", "a European".
ARTICLE = re.compile(r"\b([Aa]) (?=([A-Za-z]+))")
SILENT_H = re.compile(r"(hour|honest|honou?r|heir)", re.I)
SPOKEN_CONSONANT = re.compile(r"(uni(?!n|m)|us[aeu]|eu|ut[ei]|ura|ubi|one(?![a-z])|once)", re.I)
SENTENCE_START = re.compile(r"(^|[.!?][\"”’)]*\s+|\n\s*|:\s+(?=[\"“]))([\"“‘(]*)([a-z])")


class Random(random.Random):
    """Draws from `random()` alone, whose sequence Python promises to keep between versions."""

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def pick(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items) -> list:
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


class Grammar:
    """The rules of one or several lexicon files; later files may not redefine a rule.

    Args:
        names: file names in `grammars/` without `.txt`, such as "common" or "articles/garden".

    Raises:
        ValueError: with the file and line, for a malformed record, a rule defined twice or empty,
            or a slot that names neither a rule nor a kept name.
    """

    def __init__(self, *names: str):
        self.rules: dict[str, list] = {}
        self.fields: dict[str, list[str]] = {}
        for name in names:
            self._read(GRAMMARS / f"{name}.txt")
        kept = {key for entry in self._strings() for key, _, _ in SLOT.findall(entry) if key}
        for entry in self._strings():
            for _, _, target in SLOT.findall(entry):
                root = target.split(".")[0]
                if target not in self.rules and root not in kept and not NUMBERS.match(target):
                    raise ValueError(f"{'+'.join(names)}: no rule and no kept name {{{target}}} in: {entry}")

    def _strings(self):
        for entries in self.rules.values():
            for entry in entries:
                yield from entry.values() if isinstance(entry, dict) else [entry]

    def _read(self, path: Path):
        rule = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if header := HEADER.match(line):
                rule, fields = header.groups()
                if rule in self.rules:
                    raise ValueError(f"{path.name}:{number}: rule [{rule}] is defined twice")
                self.rules[rule] = []
                if fields:
                    self.fields[rule] = [field.strip() for field in fields.split("|")]
            elif rule is None:
                raise ValueError(f"{path.name}:{number}: an entry before the first [rule]")
            elif rule in self.fields:
                values = [value.strip() for value in line.split("|")]
                if len(values) != len(self.fields[rule]):
                    wanted = ", ".join(self.fields[rule])
                    raise ValueError(f"{path.name}:{number}: {len(values)} fields, but [{rule}] has {wanted}")
                self.rules[rule].append(dict(zip(self.fields[rule], values, strict=True)))
            else:
                self.rules[rule].append(line)


class Writer:
    """Writes one text: remembers what was kept and which entries were used.

    Args:
        facts: kept names that are set from outside, each a string or a record (a dict of strings).
    """

    def __init__(self, grammar: Grammar, rng: Random, facts: dict | None = None):
        self.grammar, self.rng = grammar, rng
        self.facts = dict(facts or {})
        self.unused: dict[str, list] = {}

    def write(self, template: str) -> str:
        """Expands the template and polishes articles, capitals and spaces."""
        return polish(self._expand(template))

    def draw(self, rule: str):
        """Returns an entry of the rule that this text has not used yet: a template or a record."""
        if not self.unused.get(rule):
            self.unused[rule] = self.rng.shuffled(self.grammar.rules[rule])
        return self.unused[rule].pop()

    def _expand(self, template: str) -> str:
        # Alternatives first, from the inside out, so that slots in unchosen ones are never drawn.
        while "<" in template:
            end = template.index(">")
            start = template.rindex("<", 0, end)
            choice = self.rng.pick(template[start + 1 : end].split("|"))
            template = template[:start] + choice + template[end + 1 :]
        return SLOT.sub(self._slot, template)

    def _slot(self, match: re.Match) -> str:
        key, mark, target = match.groups()
        if key and key in self.facts and mark == "!":
            return ""  # kept already, by an earlier sentence or from outside
        if not key:
            root, _, field = target.partition(".")
            if root in self.facts:
                fact = self.facts[root]
                if isinstance(fact, dict):
                    return self._expand(fact[field] if field else next(iter(fact.values())))
                return fact
        if limits := NUMBERS.match(target):
            low, high = map(int, limits.groups())
            value = str(low + self.rng.below(high - low + 1))
        else:
            if target not in self.grammar.rules:
                raise ValueError(f"{{{target}}} is used before a sentence has kept it")
            value = self.draw(target)
            if isinstance(value, str):
                value = self._expand(value)
            else:
                # Fields are expanded once, so that a record tells the same story wherever it is used.
                value = {name: self._expand(text) for name, text in value.items()}
        if key:
            self.facts[key] = value
        if mark == "!":
            return ""
        return value if isinstance(value, str) else next(iter(value.values()))


def polish(text: str) -> str:
    """Sets articles, capitals and spaces right."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s*¶\s*", "\n\n", text)
    text = re.sub(r" ([,.;:!?])", r"\1", text)
    text = re.sub(r"([.!?])\1+", r"\1", text).replace("?.", "?").replace("!.", "!")

    def article(match):
        word = match[2]
        vowel = bool(SILENT_H.match(word)) or (word[0].lower() in "aeiou" and not SPOKEN_CONSONANT.match(word))
        return match[1] + ("n " if vowel else " ")

    text = ARTICLE.sub(article, text)
    return SENTENCE_START.sub(lambda m: m[1] + m[2] + m[3].upper(), text)
