"""Checks of lesson 05: the loop written by hand."""

from collections.abc import Callable

from helpers.checks.judging import exercise, expect


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
