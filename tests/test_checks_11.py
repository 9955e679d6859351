"""The checks of lesson 11: one right answer each, and the usual mistakes with the sentence that they get."""

from collections import Counter

from helpers import checks


def test_answer_tokens():
    check = checks.lesson_11_answer_tokens

    def answer(offsets, sequences, start, end, own=True, whole=True):
        pairs = enumerate(zip(offsets, sequences, strict=True))
        touched = [n for n, ((a, b), part) in pairs if (part == 1 or not own) and a < end and b > start]
        if not touched or (whole and (offsets[touched[0]][0] > start or offsets[touched[-1]][1] < end)):
            return 0, 0
        return touched[0], touched[-1]

    assert check(answer)
    assert "sequence id 1" in repr(check(lambda *given: answer(*given, own=False, whole=False)))
    assert "tokens of the question" in repr(check(lambda *given: answer(*given, own=False)))
    assert "outside of this window" in repr(check(lambda *given: answer(*given, whole=False)))
    assert "not the one behind" in repr(check(lambda *given: (answer(*given)[0], answer(*given)[1] + 1)))


def test_best_ends():
    check = checks.lesson_11_best_ends

    def best(starts, ends, longest):
        places = range(len(starts))
        pairs = [(s, e) for s in places for e in places if s <= e < s + longest]
        return max(pairs, key=lambda pair: starts[pair[0]] + ends[pair[1]])

    def each_for_itself(starts, ends, longest):
        return starts.index(max(starts)), ends.index(max(ends))

    assert check(best)
    assert "before the start" in repr(check(each_for_itself))
    assert "too long" in repr(check(lambda starts, ends, longest: best(starts, ends, len(starts))))
    assert not check(lambda starts, ends, longest: best(starts, ends, longest + 1))
    assert not check(lambda starts, ends, longest: best(starts, ends, max(longest - 1, 1)))
    assert "First the start" in repr(check(lambda *given: best(*given)[::-1]))
    assert "not their score" in repr(check(lambda s, e, n: s[best(s, e, n)[0]] + e[best(s, e, n)[1]]))


def test_word_f1():
    check = checks.lesson_11_word_f1

    def f1(said, right, count=Counter):
        a, b = said.lower().split(), right.lower().split()
        if not a or not b:
            return float(a == b)
        shared = sum((Counter(count(a)) & Counter(count(b))).values())
        return 2 * shared / (len(list(count(a))) + len(list(count(b)))) if count is set else 2 * shared / len(a + b)

    def share(said, right):
        return sum((Counter(said.lower().split()) & Counter(right.lower().split())).values())

    assert check(f1)
    assert "as often as both" in repr(check(lambda said, right: f1(said, right, set)))
    assert "That is the precision" in repr(check(lambda a, b: share(a, b) / max(len(a.split()), 1)))
    assert "That is the recall" in repr(check(lambda a, b: share(a, b) / max(len(b.split()), 1)))
    assert "same answer: none" in repr(check(lambda a, b: f1(a, b) if a or b else 0.0))
    capitals = lambda a, b: 2 * len(set(a.split()) & set(b.split())) / max(len((a + " " + b).split()), 1)  # noqa: E731
    assert "Capitals" in repr(check(capitals))


def test_best_threshold():
    check = checks.lesson_11_best_threshold

    def best(probabilities, answered, none, order=sorted, first=0.0):
        total = highest = sum(none)
        threshold = first
        for probability, yes, no in order(zip(probabilities, answered, none, strict=True)):
            total += yes - no
            if total > highest:
                highest, threshold = total, probability
        return threshold

    assert check(best)
    assert "in the order" in repr(check(lambda *given: best(*given, order=list)))
    assert "costs the questions" in repr(check(lambda probabilities, *_: max(probabilities)))
    assert "Nothing says that a half" in repr(check(lambda *given: 0.5))
    assert "none of them is possible" in repr(check(lambda *given: best(*given) or min(given[0])))
