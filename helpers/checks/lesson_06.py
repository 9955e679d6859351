"""Checks of lesson 06: several processes."""

import math
from collections.abc import Callable

from helpers.checks.judging import exercise, expect


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
