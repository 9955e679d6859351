"""Checks for the exercises: each tries a learner's function and answers in one sentence.

In a lesson the last line of a cell is `checks.lesson_01_optimizer_steps(optimizer_steps)`; in a solution the same call
stands behind `assert`. A new check is a function under `@exercise` that takes the learner's function, calls it on
inputs it makes itself, compares with `expect`, and returns what the learner has now understood.
"""

import functools
import linecache
import math
import reprlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

RIGHT, NOT_YET, NOT_STARTED = "Right", "Not yet", "Not started yet"


@dataclass(frozen=True)
class Verdict:
    """The answer of a check: true if the exercise is solved, printed as one sentence."""

    passed: bool
    sentence: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        style = "border-left: 4px solid %s; padding-left: 0.6em" % ("#009e73" if self.passed else "#d55e00")
        return f'<p style="{style}">{escape(self.sentence)}</p>'


class Wrong(Exception):
    """Ends a check; the message tells the learner what differs. `expect` raises it, and so may a check."""


def exercise(check: Callable[..., str]) -> Callable[..., Verdict]:
    """Turns a check into one that never raises: whatever the learner's function does becomes a Verdict."""

    @functools.wraps(check)
    def judge(function: Callable, *context) -> Verdict:
        if not callable(function):
            return Verdict(False, f"{NOT_YET}: hand over the function itself, by its name without brackets.")
        name = getattr(function, "__name__", "your function")
        raised, answers = [], []

        def watched(*args, **kwargs):
            try:
                answers.append(function(*args, **kwargs))
            except Exception as error:
                raised.append(error)
                raise
            return answers[-1]

        try:
            return Verdict(True, f"{RIGHT}: {check(watched, *context)}")
        except Exception as error:
            if error in raised:
                return _failed(name, function, error)
            if answers and (answers[-1] is None or answers[-1] is ...):
                return Verdict(False, f"{NOT_STARTED}: {name} returns nothing; is its `return` missing?")
            if isinstance(error, Wrong):
                return Verdict(False, f"{NOT_YET}: {error}")
            got = f"{_show(answers[-1])} (a {type(answers[-1]).__name__})" if answers else "nothing"
            return Verdict(False, f"{NOT_YET}: {name} returned {got}, which is no answer here: {error}")

    return judge


def expect(answer, expected, given: str, hints: tuple = (), tolerance: float = 1e-4) -> None:
    """Compares an answer with the expected one: numbers, texts, tensors, arrays, or lists and dicts of them.

    Args:
        answer: what the learner's function returned.
        expected: the right answer.
        given: the inputs in words; completes "for ...".
        hints: pairs of a wrong answer that is often given and the sentence that helps.
        tolerance: relative, where a fraction is expected; whole numbers must be equal.

    Raises:
        Wrong: they differ.
    """
    if _same(answer, expected, tolerance):
        return
    for wrong, hint in hints:
        if _same(answer, wrong, tolerance):
            raise Wrong(f"for {given}, {_show(answer)} is not the answer. {hint}")
    raise Wrong(f"for {given}, expected {_show(expected)}, got {_show(answer)}.")


def _same(answer, expected, tolerance: float) -> bool:
    answer, expected = (value.tolist() if hasattr(value, "tolist") else value for value in (answer, expected))
    if isinstance(expected, dict):
        return (
            isinstance(answer, dict)
            and answer.keys() == expected.keys()
            and all(_same(answer[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(answer, list | tuple)
            and len(answer) == len(expected)
            and all(_same(*pair, tolerance) for pair in zip(answer, expected, strict=True))
        )
    if isinstance(expected, int | float) and isinstance(answer, int | float):
        if isinstance(expected, bool) != isinstance(answer, bool):
            return False
        rel_tol = tolerance if isinstance(expected, float) else 0  # a count is exact
        return math.isclose(answer, expected, rel_tol=rel_tol, abs_tol=1e-9)
    return type(answer) is type(expected) and answer == expected


def _show(value) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return f"{value:.6g}" if isinstance(value, float) else reprlib.repr(value)


def _failed(name: str, function: Callable, error: Exception) -> Verdict:
    """Says which exception the learner's code raised and in which of its lines."""
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, NotImplementedError) and frames[-1].filename == own:
        return Verdict(False, f"{NOT_STARTED}: write {name} at `raise NotImplementedError`, then run it again.")
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    where = next((f", in line {f.lineno} of its cell" for f in reversed(frames) if f.filename == own), "")
    line = next((linecache.getline(own, f.lineno).strip() for f in reversed(frames) if f.filename == own), "")
    return Verdict(False, f"{NOT_YET}: {name} raised {said}{where}" + (f": `{line}`" if line else "."))


@exercise
def lesson_01_optimizer_steps(function: Callable) -> str:
    """`function(num_examples, batch_size, gradient_accumulation_steps, num_train_epochs)` counts optimizer steps."""
    for examples, batch, accumulation, epochs in ((1600, 16, 1, 3), (1600, 16, 4, 2), (1601, 16, 1, 2), (100, 8, 4, 1)):
        batches = math.ceil(examples / batch)
        given = f"{examples} examples in batches of {batch}, {accumulation} to a step, {epochs} times over"
        hints = (
            (batches * epochs, "One step follows several batches when gradients accumulate."),
            (math.ceil(batches / accumulation), "An epoch is only one pass over the data."),
            (examples // (batch * accumulation) * epochs, "The last batch is smaller, but it is trained on too."),
        )
        answer = function(examples, batch, accumulation, epochs)
        expect(answer, math.ceil(batches / accumulation) * epochs, given, hints)
    return "batches round up, steps round up, and every epoch repeats them."


@exercise
def lesson_01_whole_batch_loss(function: Callable) -> str:
    """`function(losses, sizes)` returns the mean loss of all examples, given the means and sizes of the parts."""
    for losses, sizes in (([1.0, 3.0], [8, 8]), ([1.0, 3.0], [15, 1]), ([0.2, 0.4, 0.9], [13, 2, 1])):
        expected = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        hints = (
            (
                sum(losses) / len(losses),
                "That is the mean of the means: a part of one counts as much as one of fifteen.",
            ),
            (expected * sum(sizes), "That is the sum over all examples; a mean is divided by how many there are."),
            (sum(losses), "Each mean has to be weighed by its part's size."),
        )
        expect(function(losses, sizes), expected, f"losses {losses} of parts of {sizes}", hints)
    return "every example counts once, whichever part it came in."


@exercise
def lesson_01_static_bytes(function: Callable) -> str:
    """`function(parameters, trained)` counts the bytes of weights, gradients and AdamW's state in fp32."""
    for parameters, trained in ((1_000_000, 1_000_000), (124_439_808, 294_912), (1000, 0)):
        hints = (
            (16 * parameters, "Frozen parameters have no gradient and no optimizer state."),
            (4 * parameters + 4 * trained, "AdamW keeps two means for each trained parameter."),
            (4 * parameters + 8 * trained, "Gradients take 4 bytes each, and AdamW's two means 8."),
            (16 * trained, "The frozen weights take memory, too."),
        )
        given = f"{parameters:,} parameters, {trained:,} of them trained"
        expect(function(parameters, trained), 4 * parameters + 12 * trained, given, hints)
    return "4 bytes for every weight, and 12 more for each that is trained."


@exercise
def lesson_01_epoch_to_keep(function: Callable) -> str:
    """`function(history)` returns the epoch with the lowest validation loss."""
    for eval_losses in ((0.69, 0.5, 0.4), (0.69, 0.45, 0.6, 0.9), (0.69, 0.8, 0.9)):
        history = []
        for epoch, eval_loss in enumerate(eval_losses):
            history += [{"epoch": epoch - 0.5, "loss": 0.6 - 0.2 * epoch}] if epoch else []
            history += [{"epoch": float(epoch), "eval_loss": eval_loss}]
        hints = (
            (float(len(eval_losses) - 1), "That is the last epoch; has the validation loss turned before?"),
            (min(eval_losses), "That is the lowest loss; at which epoch was it?"),
        )
        given = f"validation losses {', '.join(map(str, eval_losses))}"
        expect(function(history), float(eval_losses.index(min(eval_losses))), given, hints)
    return "the lowest validation loss decides, wherever it stands."


@exercise
def lesson_02_padded_tokens(function: Callable) -> str:
    """`function(lengths, batch_size)` counts the tokens of batches in this order, each padded to its longest."""
    for lengths, size in (([5, 9, 2, 7, 4], 2), ([5, 9, 2, 7], 4), ([3, 3, 8], 1), ([2, 4, 5, 7, 9], 2)):
        batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
        hints = (
            (sum(lengths), "Those are the real tokens; the rectangle also holds filling."),
            (max(lengths) * len(lengths), "That fills up to the longest of all; each batch has a longest of its own."),
            (sum(size * max(batch) for batch in batches), "The last batch has fewer rows."),
            (sum(len(batch) * max(batch) for batch in batches if len(batch) == size), "The last batch counts, too."),
        )
        given = f"lengths {lengths} in batches of {size}"
        expect(function(lengths, size), sum(len(batch) * max(batch) for batch in batches), given, hints)
    return "a batch costs its rows times its longest, so batches of similar length cost least."


@exercise
def lesson_02_last_real_token(function: Callable) -> str:
    """`function(attention_mask)` finds the last real token of each row, whichever side is padded."""
    import torch

    right, left = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    for mask, side in ((right, "on the right"), (left, "on the left"), ([[1, 1, 0], [0, 1, 1]], "on either side")):
        expected = [max(i for i, real in enumerate(row) if real) for row in mask]
        hints = (
            ([sum(row) for row in mask], "That counts the real tokens; positions begin at 0."),
            ([sum(row) - 1 for row in mask], "With filling on the left, the count is not the position."),
            ([len(row) - 1 for row in mask], "The last position of a row may be filling."),
            ([row.index(1) for row in mask], "Those are the first real tokens: argmax stops at the first maximum."),
        )
        given = f"the mask {mask}, filled {side}"
        expect(function(torch.tensor(mask)), expected, given, hints)
    return "the model reads the right token, wherever the filling stands."


@exercise
def lesson_02_batch_and_accumulation(function: Callable) -> str:
    """`function(batch_size, largest_that_fits)` returns per_device_train_batch_size and gradient_accumulation_steps."""
    for size, limit in ((16, 4), (12, 5), (16, 100), (32, 24), (7, 3), (8, 1)):
        best = max(part for part in range(1, min(size, limit) + 1) if size % part == 0)
        given = f"{size} reviews, of which {limit} fit"
        answer = function(size, limit)
        hints = (
            ((size // best, best), "First the batch size, then the steps."),
            ((limit, size // limit), f"Together they make {limit * (size // limit)} reviews, at the most {limit} fit."),
            ((limit, -(-size // limit)), f"{limit} times {-(-size // limit)} is not {size}."),
            ((1, size), "One at a time always fits, but fewer and larger batches are faster."),
        )
        expect(answer, (best, size // best), given, hints)
    return "the update stays the same, and memory decides only how it is cut."


@exercise
def lesson_04_pair_row(function: Callable) -> str:
    """`function(first_ids, second_ids, length)` returns the row that BERT reads for a pair, filled up to a length."""
    for first, second, length in (([10, 11, 12], [20, 21], 10), ([10], [20, 21, 22, 23], 8), ([7, 8], [9], 6)):
        row = [2, *first, 3, *second, 3]
        types, filling = [0] * (len(first) + 2) + [1] * (len(second) + 1), [0] * (length - len(row))
        expected = {"input_ids": row, "token_type_ids": types, "attention_mask": [1] * len(row)}
        expected = {key: values + filling for key, values in expected.items()}
        answer = function(first, second, length)
        if not isinstance(answer, dict) or answer.keys() != expected.keys():
            raise Wrong(f"return a dict with the keys {', '.join(expected)}, got {_show(answer)}.")
        given = f"the sentences {first} and {second} and length {length}"
        ids = (([2, *first, 3, *second, *filling, 0], "Each of the two sentences ends with [SEP]."),)
        early = [0] * (len(first) + 1) + [1] * (len(second) + 2) + filling
        late = [0] * (len(first) + 2) + [1] * (length - len(first) - 2)
        kinds = ((early, "The first [SEP] belongs to the first sentence."), (late, "Filling is of type 0."))
        masks = (([1] * length, "Filling is 0 in the mask, or the model reads it."),)
        for key, hints in zip(expected, (ids, kinds, masks), strict=True):
            expect(answer[key], expected[key], f"{given}, in {key}", hints)
    return "that is what the tokenizer makes of a pair."


@exercise
def lesson_04_accuracy_and_f1(function: Callable) -> str:
    """`function(predictions, labels)` returns accuracy and F1 of class 1."""
    cases = ([1, 1, 0, 0, 1], [1, 0, 0, 1, 1]), ([1, 1, 1, 1], [1, 1, 0, 0]), ([0, 0, 1], [1, 1, 1]), ([0, 0], [0, 0])
    for predictions, labels in cases:
        pairs = list(zip(predictions, labels, strict=True))
        right, errors = pairs.count((1, 1)), pairs.count((1, 0)) + pairs.count((0, 1))
        accuracy = 1 - errors / len(pairs)
        f1, other = (2 * hits / (2 * hits + errors) if hits + errors else 0.0 for hits in (right, pairs.count((0, 0))))
        hints = (
            ((f1, accuracy), "First the accuracy, then F1."),
            ((accuracy, other), "That is the F1 of class 0."),
            ((accuracy, accuracy), "F1 leaves out the pairs that are rightly called 0."),
            ((accuracy, right / (right + errors) if right + errors else 0.0), "The true positives count twice."),
        )
        expect(function(predictions, labels), (accuracy, f1), f"predictions {predictions} and labels {labels}", hints)
    return "F1 never looks at the pairs that are rightly called 0, which is why always 1 scores so well."


@exercise
def lesson_04_evaluations_seen(function: Callable) -> str:
    """`function(eval_losses, patience)` says after how many evaluations early stopping ends a run."""
    losses = [0.7, 0.6, 0.65, 0.55, 0.56, 0.57, 0.5]
    for eval_losses, patience in ((losses, 1), (losses, 2), (losses, 3), ([0.6, 0.6, 0.6], 2), ([0.9, 0.8, 0.7], 1)):
        best, bad, seen, since, others = math.inf, 0, len(eval_losses), 0, []
        for number, loss in enumerate(eval_losses, 1):
            best, bad = (loss, 0) if loss < best else (best, bad + 1)
            if bad == patience:
                seen = number
                break
        for number, loss in enumerate(eval_losses, 1):  # the usual mistakes, in one pass
            since += number > 1 and loss >= eval_losses[number - 2]
            others += [number] if since == patience else []
        hints = (
            (seen - patience, "That is the best one; the run goes on until the patience is over."),
            (seen + 1, "The callback stops at once when the patience is over."),
            (others[0] if others else -1, "A loss below the best so far resets the count."),
        )
        expect(function(eval_losses, patience), seen, f"losses {eval_losses} and a patience of {patience}", hints)
    return "it stops that many evaluations after the best one, and keeps the best only if it was told to."


@exercise
def lesson_04_linear_rate(function: Callable) -> str:
    """`function(step, learning_rate, warmup_steps, total_steps)` returns the rate of the linear schedule."""
    for step, rate, warmup, total in ((0, 1e-3, 10, 100), (5, 1e-3, 10, 100), (55, 2e-4, 10, 100), (30, 1e-3, 0, 90)):
        down = rate * (total - step) / (total - warmup)
        hints = (
            (rate * (1 - step / total), "That goes down from the first step on, not from the end of the warm-up."),
            (rate * (step + 1) / max(1, warmup), "The first step is number 0, with a rate of 0."),
            (down, "During the warm-up the line goes up."),
        )
        given = f"step {step} of {total} with {warmup} of warm-up and a rate of {rate:g}"
        expect(function(step, rate, warmup, total), rate * step / warmup if step < warmup else down, given, hints)
    return "up, then down, and the rate that you chose is reached in a single step."


@exercise
def lesson_05_rows_of_batch(function: Callable) -> str:
    """`function(num_rows, batch_size, seed, epoch, batch)` lists the rows of one batch of a seeded order."""
    import torch

    for num_rows, size, seed, epoch, batch in ((40, 16, 42, 0, 0), (40, 16, 42, 3, 1), (40, 16, 7, 1, 2)):

        def drawn(seed, num_rows=num_rows):
            return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).tolist()

        part = slice(batch * size, (batch + 1) * size)
        hints = (
            (list(range(num_rows))[part], "Those are the rows in the file's order."),
            (drawn(seed)[part], "That is epoch 0; the generator is seeded anew with seed plus epoch."),
            (drawn(seed + epoch)[(batch - 1) * size : batch * size], "The first batch is number 0."),
        )
        given = f"{num_rows} rows in batches of {size}, seed {seed}, epoch {epoch}, batch {batch}"
        expect(function(num_rows, size, seed, epoch, batch), drawn(seed + epoch)[part], given, hints)
    return "a run that was cut off anywhere can go on with the right rows."


@exercise
def lesson_05_clip(function: Callable) -> str:
    """`function(gradients, max_norm)` clips a list of tensors together to one length."""
    import torch

    for values, max_norm in (([[3.0, 4.0], [12.0]], 1.0), ([[0.3], [0.4]], 1.0), ([[6.0, 8.0], [0.0]], 2.0)):
        tensors = [torch.tensor(value) for value in values]
        length = torch.cat(tensors).norm().item()
        hints = (
            ([(t * max_norm / length).tolist() for t in tensors], "What is shorter than max_norm stays as it is."),
            ([t.clamp(-max_norm, max_norm).tolist() for t in tensors], "That cuts each number, and turns the vector."),
            (
                [(t * min(1.0, max_norm / max(t.norm().item(), 1e-12))).tolist() for t in tensors],
                "One length for all tensors together, not one for each.",
            ),
        )
        answer = function([tensor.clone() for tensor in tensors], max_norm)
        answer = [a.tolist() if hasattr(a, "tolist") else a for a in answer] if isinstance(answer, list) else answer
        expected = [(t * min(1.0, max_norm / length)).tolist() for t in tensors]
        expect(answer, expected, f"gradients {values} and max_norm {max_norm}", hints)
    return "the direction stays, and only what is too long is made shorter."


@exercise
def lesson_05_shares(function: Callable) -> str:
    """`function(parts)` weighs the mean losses of micro-batches by their labels; -100 does not count."""
    for parts in ([[[5, 6, 7]], [[5, -100, -100]]], [[[1, 2], [3, -100]], [[4, -100], [-100, -100]]], [[[1]], [[2]]]):
        counts = [sum(label != -100 for row in part for label in row) for part in parts]
        rows, cells = [len(part) for part in parts], [sum(len(row) for row in part) for part in parts]
        hints = (
            (counts, "Those are the counts; factors that make a mean add up to 1."),
            ([1 / len(parts)] * len(parts), "That is the mean of means."),
            ([count / sum(rows) for count in rows], "That counts rows, but the loss is a mean over labels."),
            ([count / sum(cells) for count in cells], "A label of -100 is not counted."),
        )
        expect(function(parts), [count / sum(counts) for count in counts], f"labels {parts}", hints)
    return "each label counts once, whichever micro-batch it came in."


@exercise
def lesson_06_rows_of_process(function: Callable) -> str:
    """`function(order, batch_size, num_processes, process)` lists the rows that one process trains on, in its order."""
    order = [7, 3, 0, 5, 1, 6, 2, 4]
    for size, processes, process in ((2, 2, 0), (2, 2, 1), (1, 4, 2), (4, 2, 1), (2, 1, 0)):
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        expected = [row for batch in batches[process::processes] for row in batch]
        share = len(order) // processes
        hints = (
            (
                order[process * share : (process + 1) * share],
                "Those are blocks of the order; batches are dealt in turn.",
            ),
            (order[process::processes], "Whole batches are dealt out, not rows."),
            ([batch for batch in batches if batch[0] in expected], "One list of rows, not one for each batch."),
        )
        given = f"the order {order} in batches of {size}, process {process} of {processes}"
        expect(function(list(order), size, processes, process), expected, given, hints)
    return "together the processes train on what one process with the larger batch would."


@exercise
def lesson_06_gathered_rows(function: Callable) -> str:
    """`function(num_rows, batch_size, num_processes)` counts the rows that `gather` returns for a whole data set."""
    for rows, size, processes in ((9, 2, 2), (400, 64, 2), (400, 100, 4), (401, 100, 4), (5, 8, 1)):
        rounds = math.ceil(math.ceil(rows / size) / processes)
        expected = rounds * processes * size if processes > 1 else rows
        hints = (
            (rows, "That is what gather_for_metrics returns; gather keeps the rows that fill up."),
            (expected if processes > 1 else size * rounds, "One process fills nothing up."),
            (math.ceil(rows / size) * size, "Each process gets equally many batches."),
            (rounds * size, "That is one process; gather returns the rows of all."),
        )
        given = f"{rows} rows in batches of {size} on {processes} process(es)"
        expect(function(rows, size, processes), expected, given, hints)
    return "the surplus was counted twice, and gather_for_metrics drops it."


@exercise
def lesson_06_batch_and_accumulation(function: Callable) -> str:
    """`function(batch_size, num_processes, largest_that_fits)` keeps the batch of a step on several processes."""
    for size, processes, limit in ((16, 2, 4), (16, 2, 8), (48, 4, 5), (32, 1, 12), (24, 8, 100)):
        local = size // processes
        best = max(part for part in range(1, min(local, limit) + 1) if local % part == 0)
        whole = max(part for part in range(1, min(size, limit) + 1) if size % part == 0)
        given = f"{size} rows a step on {processes} process(es), of which {limit} fit on one"
        hints = (
            ((whole, size // whole), "Each process takes its share; yours together see too many rows."),
            ((1, local), "One at a time always fits, but fewer and larger batches are faster."),
            ((local // best, best), "First the batch size, then the steps."),
            ((limit, -(-local // limit)), f"{limit} times {-(-local // limit)} is not {local}."),
        )
        expect(function(size, processes, limit), (best, local // best), given, hints)
    return "learning rate and schedule stay valid, since a step sees as many rows as before."


@exercise
def lesson_09_lora_parameters(function: Callable) -> str:
    """`function(shapes, rank)` counts what LoRA trains beside linear layers of these (inputs, outputs)."""
    for shapes, rank in (([(128, 384)] * 3, 8), ([(768, 2304)], 1), ([(64, 64), (64, 256), (256, 64)], 4)):
        sides = [sum(shape) for shape in shapes]
        hints = (
            (sum(inputs * outputs for inputs, outputs in shapes), "That is W, which stays frozen."),
            (rank * sum(inputs for inputs, _ in shapes), "That is A alone; B turns rank features into the outputs."),
            (rank * sum(outputs for _, outputs in shapes), "That is B alone; A turns the inputs into rank features."),
            (rank * sides[0], "That is the first layer alone."),
            (rank**2 * sum(sides), "A and B have the rank on one side only."),
        )
        expect(function(shapes, rank), rank * sum(sides), f"layers {shapes} and rank {rank}", hints)
    return "the number grows with the sides of a matrix, not with its area, and in step with the rank."


@exercise
def lesson_09_merged_weight(function: Callable) -> str:
    """`function(W, A, B, alpha)` returns the weight of the merged layer; shapes as in nn.Linear."""
    import torch

    for outputs, inputs, rank, alpha in ((4, 6, 2, 4), (5, 3, 1, 2), (3, 3, 3, 2)):
        generator = torch.Generator().manual_seed(outputs)
        W, A, B = (torch.randn(s, generator=generator) for s in ((outputs, inputs), (rank, inputs), (outputs, rank)))
        given = f"W of {outputs} x {inputs}, A of {rank} x {inputs}, B of {outputs} x {rank} and alpha {alpha}"
        before = [W.clone(), A.clone(), B.clone()]
        answer = function(W, A, B, alpha)
        hints = (
            (alpha / rank * B @ A, "That is the change alone; W is still there."),
            (W + B @ A, "The change is scaled by alpha / r."),
            (W + alpha * B @ A, "alpha is divided by the rank, which A and B know."),
            (W - alpha / rank * B @ A, "The change is added."),
        )
        if hasattr(answer, "shape") and answer.shape != W.shape:
            raise Wrong(f"for {given}, the result is of shape {tuple(answer.shape)}, and W's is {tuple(W.shape)}.")
        if not all(torch.equal(*pair) for pair in zip((W, A, B), before, strict=True)):
            raise Wrong("W, A or B was changed in place; return a new tensor.")
        right = W + alpha / rank * B @ A
        if not (hasattr(answer, "shape") and torch.allclose(answer, right, atol=1e-5)):
            wrong = [hint for w, hint in hints if hasattr(answer, "shape") and torch.allclose(answer, w, atol=1e-5)]
            raise Wrong(f"for {given}, that is not the merged weight. {' '.join(wrong[:1])}".rstrip())
    return "one matrix as before: a merged model is as fast as the one you started from."


@exercise
def lesson_09_nf4_bytes(function: Callable) -> str:
    """`function(weights, double_quantisation)` counts the bytes of so many weights in NF4."""
    for weights, double in ((16384, False), (16384, True), (65536, True), (4194304, False), (4194304, True)):
        half, scales = weights // 2, weights // 64
        right = half + scales + 4 * scales // 256 if double else half + 4 * scales
        hints = (
            (half, "That is without the scales, one for each block of 64 weights."),
            (weights, "Two weights share a byte."),
            (half + 4 * scales, "With double quantisation the scales themselves take one byte each."),
            (half + scales, "Blocks of 256 scales have a scale of their own, of 4 bytes." if double
             else "A scale takes 4 bytes."),
            (half + scales + scales // 256, "A scale of scales takes 4 bytes."),
            (half + scales + 4 * scales // 256, "Without double quantisation each scale takes 4 bytes."),
        )  # fmt: skip
        given = f"{weights} weights {'with' if double else 'without'} double quantisation"
        expect(function(weights, double), right, given, hints)
    return "4.5 bits a weight, or 4.127 with double quantisation, and never quite 4."


@exercise
def lesson_03_parameters(function: Callable) -> str:
    """`function(vocab_size, n_positions, n_embd, n_layer)` counts the parameters of a GPT-2 with a tied head."""
    for vocab, positions, d, layers in ((50257, 1024, 768, 12), (4096, 256, 128, 4), (50257, 1024, 1280, 36)):
        tables, matrices, biases, norms = (vocab + positions) * d, 12 * d * d, 9 * d, 4 * d
        expected = tables + layers * (matrices + biases + norms) + 2 * d
        hints = (
            (expected + vocab * d, "The head is the embedding table again; it counts once."),
            (expected - positions * d, "Positions have an embedding, too."),
            (expected - layers * biases, "Each matrix has a bias, as wide as its output."),
            (expected - layers * norms, "Each block has two LayerNorms, and each of those a weight and a bias."),
            (expected - 2 * d, "One more LayerNorm follows the last block."),
        )
        given = f"{vocab} tokens, {positions} positions, width {d}, {layers} layers"
        expect(function(vocab, positions, d, layers), expected, given, hints)
    return "the blocks grow with the square of the width, the tables only with the width."


@exercise
def lesson_03_position(function: Callable) -> str:
    """`function(lengths, tokens)` returns (document, offset) of the next token of a packed stream."""
    for lengths, tokens in (([5, 3, 8], 6), ([5, 3, 8], 0), ([5, 3, 8], 8), ([4, 4, 1, 6], 9), ([7, 2], 6)):
        ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        document = sum(end <= tokens for end in ends)
        offset = tokens - (ends[document - 1] if document else 0)
        strict = sum(end < tokens for end in ends)
        hints = (
            ((offset, document), "First the document, then the offset."),
            ((document + 1, offset), "The first document is number 0."),
            ((document, offset + 1), "The offset counts the tokens that are behind us: 0 at the start of a document."),
            ((strict, tokens - (ends[strict - 1] if strict else 0)), "That document is finished; the next one begins."),
            ((document, lengths[document] - offset), "That is what is left of the document."),
        )
        answer = function(list(lengths), tokens)
        answer = tuple(answer) if isinstance(answer, list) else answer
        expect(answer, (document, offset), f"lengths {lengths} and {tokens} tokens", hints)
    return "no token is trained on twice, and none is left out."


@exercise
def lesson_03_perplexity(function: Callable) -> str:
    """`function(losses, tokens)` returns the perplexity of several files, given their mean losses and sizes."""
    for losses, tokens in (([3.0, 2.0], [100, 300]), ([4.0], [50]), ([2.5, 3.5, 1.0], [10, 10, 2000])):
        pairs = list(zip(losses, tokens, strict=True))
        mean = sum(loss * count for loss, count in pairs) / sum(tokens)
        hints = (
            (mean, "That is the loss; the perplexity is its exponential."),
            (math.exp(sum(losses) / len(losses)), "A file with more tokens weighs more."),
            (
                sum(math.exp(loss) * count for loss, count in pairs) / sum(tokens),
                "That averages perplexities; average the losses, then take the exponential.",
            ),
            (
                sum(map(math.exp, losses)) / len(losses),
                "Average the losses, weighed by tokens, before the exponential.",
            ),
            (2.0**mean, "The loss is in nats, so the base is e."),
        )
        expect(function(losses, tokens), math.exp(mean), f"losses {losses} over {tokens} tokens", hints)
    return "the same as if it had been one file."


@exercise
def lesson_07_label_ids(function: Callable) -> str:
    """`function(labels)` numbers the labels of a file, whatever their order, case, spaces and gaps."""
    for labels in (
        ["legal", "news", "legal"],
        [" News", "legal", None, "NEWS", "medical "],
        ["b", "", "a ", None, "A"],
    ):
        clean = [label.strip().lower() for label in labels if label and label.strip()]
        hints = (
            ({name: i for i, name in enumerate(dict.fromkeys(clean))}, "In order of appearance: sort the names."),
            ({name: i for i, name in enumerate(sorted(set(clean)), 1)}, "Numbers begin at 0."),
            ({name: i for i, name in enumerate(sorted({*clean, ""}))}, "A missing label is no class."),
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
