"""Checks of lesson 08: named entities."""

from collections.abc import Callable

from helpers.checks.judging import exercise, expect


@exercise
def lesson_08_all_pieces(function: Callable) -> str:
    """`function(word_ids, tags)` labels every token: special ones with -100, later pieces of a named word with I."""
    for word_ids, tags in (
        ([None, 0, 1, 1, 2, None], ["O", "B-PER", "I-PER"]),
        ([None, 0, 0, 0, 1, 1, None], ["B-LOC", "O"]),
        ([None, 0, 1, 1, 1, None, None], ["B-ORG", "I-ORG"]),
        ([None, 1, 1, None], ["O", "B-MISC"]),
    ):
        pieces = list(zip([None, *word_ids], word_ids, strict=False))
        first = [-100 if word is None else tags[word] for word in word_ids]
        later = [word is not None and before == word for before, word in pieces]
        expected = [f"I-{tag[2:]}" if again and tag != "O" else tag for tag, again in zip(first, later, strict=True)]
        hints = (
            (first, "A second B opens a second entity: later pieces of a word get I."),
            ([-100 if again else tag for tag, again in zip(first, later, strict=True)], "Here every piece counts."),
            (
                [f"I-{tag[2:]}" if again else tag for tag, again in zip(first, later, strict=True)],
                "Pieces of a word outside of all entities stay O.",
            ),
            (["O" if tag == -100 else tag for tag in expected], "Special tokens get -100, which no loss counts."),
            ([tag for tag in expected if tag != -100], "One label for each token, the special ones too."),
        )
        expect(function(list(word_ids), list(tags)), expected, f"the words {word_ids} and the tags {tags}", hints)
    return "one entity stays one entity, in however many pieces it comes."


@exercise
def lesson_08_word_tags(function: Callable) -> str:
    """`function(word_ids, token_tags, num_words)` gives each word the tag of its first token, or O if it has none."""
    for word_ids, token_tags, num_words in (
        ([None, 0, 1, 1, 2, None], ["O", "B-PER", "I-PER", "B-LOC", "O", "O"], 3),
        ([None, 0, 0, 2, None], ["B-LOC", "B-ORG", "O", "B-LOC", "O"], 3),
        ([None, 0, 1, None], ["O", "O", "B-PER", "O"], 5),
    ):
        pieces = [(word, tag) for word, tag in zip(word_ids, token_tags, strict=True) if word is not None]
        last, first = dict(pieces), dict(reversed(pieces))
        first, last = ([some.get(word, "O") for word in range(num_words)] for some in (first, last))
        seen = [tag for word, tag in enumerate(first) if word in word_ids]
        hints = (
            (last, "The first piece of a word was trained to know; later ones were not."),
            (seen, "A word without a token, or cut off, gets O; count the words."),
            (token_tags[1:-1], "One tag for each word, not for each token."),
        )
        given = f"the words {word_ids} of {num_words}, tagged {token_tags}"
        expect(function(list(word_ids), list(token_tags), num_words), first, given, hints)
    return "every word has its tag, and what the model never saw counts as O."


@exercise
def lesson_08_spans(function: Callable) -> str:
    """`function(tags)` lists the entities of BIO tags as (type, first word, last word)."""
    for tags, spans in (
        (["B-PER", "I-PER", "O", "B-LOC"], [("PER", 0, 1), ("LOC", 3, 3)]),
        (["O", "B-ORG", "B-ORG", "I-ORG"], [("ORG", 1, 1), ("ORG", 2, 3)]),
        (["B-LOC", "I-LOC", "B-PER", "O", "O"], [("LOC", 0, 1), ("PER", 2, 2)]),
        (["O", "O"], []),
        (["O", "B-MISC", "I-MISC", "I-MISC"], [("MISC", 1, 3)]),
    ):
        hints = (
            ([("ORG", 1, 3)], "A B always opens a new entity, also right behind another of its type."),
            ([(kind, first, last + 1) for kind, first, last in spans], "The last word itself, not the place behind."),
            ([span for span in spans if span[2] < len(tags) - 1], "An entity may end with the sentence."),
            ([(tags[span[1]], *span[1:]) for span in spans], "The type is what stands behind the hyphen."),
            ([(tag[2:], i, i) for i, tag in enumerate(tags) if tag != "O"], "I continues what B has opened."),
        )
        expect(function(list(tags)), spans, f"the tags {tags}", hints)
    return "B opens, I continues, anything else closes."


@exercise
def lesson_08_entity_f1(function: Callable) -> str:
    """`function(truth, found)` returns precision, recall and F1 of two lists of entities."""
    a, b, c, d = ("PER", 0, 1), ("LOC", 3, 3), ("ORG", 5, 6), ("ORG", 5, 5)
    for truth, found in (([a, b], [a]), ([a, b, c], [a, d]), ([a, b, c], [a, b, c, d]), ([a], [b, c]), ([a, b], [])):
        overlaps = sum(any(t[1] <= f[2] and f[1] <= t[2] for t in truth) for f in found)
        (precision, recall, f1), generous = (
            (hits / max(len(found), 1), hits / len(truth), 2 * hits / (len(truth) + len(found)))
            for hits in (len(set(truth) & set(found)), overlaps)
        )
        hints = (
            ((recall, precision, f1), "First precision: the share of what was found that is right."),
            ((precision, recall, (precision + recall) / 2), "F1 is the harmonic mean of the two, not their mean."),
            (generous, "An entity with another end or another type is no hit."),
        )
        expect(function(list(truth), list(found)), (precision, recall, f1), f"truth {truth}, found {found}", hints)
    return "an entity is right as a whole or not at all."
