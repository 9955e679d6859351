"""Checks of lesson 07: your own data."""

from collections.abc import Callable

from helpers.checks.judging import exercise, expect


@exercise
def lesson_07_label_ids(function: Callable) -> str:
    """`function(labels)` numbers the labels of a file, whatever their order, case, spaces and gaps."""
    for labels in (
        ["legal", "news", "legal"],
        [" News", "legal", None, "NEWS", "medical "],
        ["b", "", "a ", None, "A"],
        ["None", "damage", "NA ", None, "na", ""],
    ):
        clean = [label.strip().lower() for label in labels if label and label.strip()]
        hints = (
            ({name: i for i, name in enumerate(dict.fromkeys(clean))}, "In order of appearance: sort the names."),
            ({name: i for i, name in enumerate(sorted(set(clean)), 1)}, "Numbers begin at 0."),
            ({name: i for i, name in enumerate(sorted({*clean, ""}))}, "A missing label is no class."),
            (
                {name: i for i, name in enumerate(sorted({*clean} - {"none", "na", "nan", "null"}))},
                "A text such as “None” or “NA” is a class, too. Only None itself and an empty text are missing.",
            ),
            (
                {name: i for i, name in enumerate(sorted({str(label).strip().lower() for label in labels} - {""}))},
                "A missing label is None, which str() turns into a text.",
            ),
            (
                {name: i for i, name in enumerate(sorted({x for x in labels if x}))},
                "Case and spaces make no new class.",
            ),
            (dict(enumerate(sorted(set(clean)))), "That is id2label; the other way round."),
        )
        expect(function(list(labels)), {name: i for i, name in enumerate(sorted(set(clean)))}, f"{labels}", hints)
    return "the same names get the same numbers, however the file is sorted."


@exercise
def lesson_07_leaking_groups(function: Callable) -> str:
    """`function(groups, splits)` lists the groups that stand in more than one split, in order."""
    cases = (
        ([0, 1, 1, 2], ["train", "train", "test", "test"]),
        ([5, 5, 3, 3, 4, 4], ["train", "train", "test", "validation", "test", "test"]),
        ([2, 1, 2, 1, 2], ["train", "test", "test", "train", "validation"]),
        ([1, 2], ["train", "test"]),
    )
    for groups, splits in cases:
        places = {group: {s for g, s in zip(groups, splits, strict=True) if g == group} for group in groups}
        leaking = sorted(group for group in places if len(places[group]) > 1)
        hints = (
            (sorted({g for g in groups if groups.count(g) > 1}), "Twins in the same split give nothing away."),
            ([g for g in dict.fromkeys(groups) if g in leaking], "Sort them."),
            (len(leaking), "That is how many; say which."),
            (sorted(set(groups) - set(leaking)), "Those are the ones that do not leak."),
            (sorted(g for g in places if {"train", "test"} <= places[g]), "Validation is a split, too."),
        )
        expect(function(list(groups), list(splits)), leaking, f"groups {groups} in {splits}", hints)
    return "an empty list is the proof that no answer was given away."


@exercise
def lesson_07_macro_f1(function: Callable) -> str:
    """`function(matrix)` returns macro-F1 from a confusion matrix, whose rows are the truth."""
    for matrix in ([[5, 1], [2, 2]], [[8, 0, 1], [1, 3, 0], [2, 0, 0]], [[90, 0], [10, 0]]):
        size, total = range(len(matrix)), sum(map(sum, matrix))
        hits = [matrix[i][i] for i in size]
        true, said = [sum(matrix[i]) for i in size], [sum(row[i] for row in matrix) for i in size]
        f1 = [2 * h / (t + s) if t + s else 0.0 for h, t, s in zip(hits, true, said, strict=True)]
        spoken = [value for value, s in zip(f1, said, strict=True) if s]
        hints = (
            (sum(hits) / total, "That is the accuracy."),
            (sum(f * t for f, t in zip(f1, true, strict=True)) / total, "Each class counts once, whatever its size."),
            (sum(h / t for h, t in zip(hits, true, strict=True)) / len(matrix), "That is the mean recall."),
            (sum(spoken) / len(spoken), "A class that is never said has an F1 of 0, and counts."),
            (f1, "Those are the F1 of the classes; macro-F1 is their mean."),
        )
        expect(function([list(row) for row in matrix]), sum(f1) / len(matrix), f"the matrix {matrix}", hints)
    return "a class that the model has given up costs its full share."


@exercise
def lesson_07_threshold(function: Callable) -> str:
    """`function(confidences, right, target)` returns the lowest threshold at which the answers are good enough."""
    cases = (
        ([0.9, 0.8, 0.7, 0.6], [True, True, False, True], 0.75),
        ([0.5, 0.95, 0.6, 0.9], [False, False, True, True], 0.6),
        ([0.6, 0.9, 0.6], [False, True, True], 0.9),
        ([0.9, 0.4], [False, False], 0.5),
    )
    for confidences, right, target in cases:
        share = {}
        for threshold in sorted(set(confidences)):
            kept = [hit for hit, confidence in zip(right, confidences, strict=True) if confidence >= threshold]
            share[threshold] = sum(kept) / len(kept)
        enough = [threshold for threshold in share if share[threshold] >= target]
        first_bad = next((t for t in sorted(share, reverse=True) if share[t] < target), -1.0)
        hints = (
            (max(enough, default=-1.0), "Lower ones are good enough, too, and answer more."),
            (
                min((t for t in share if t > first_bad), default=None),
                "Going down, the accuracy may recover: try them all.",
            ),
            (target, "The target is an accuracy, the threshold a confidence."),
            (0.0, "If no threshold is good enough, return None."),
        )
        given = f"confidences {confidences}, right {right} and a target of {target}"
        expect(function(list(confidences), list(right), target), min(enough, default=None), given, hints)
    return "it answers as often as it may, and leaves the rest to a person."
