"""Checks never raise, say what is wrong in one sentence, and pass the right answer only."""

import json
import linecache
import math
from itertools import pairwise
from pathlib import Path

import pytest

from helpers import checks
from helpers.checks import Verdict, Wrong, exercise, expect


@exercise
def double(function):
    """A check as short as they get."""
    for number in (1, 3):
        expect(function(number), 2 * number, f"{number}", hints=((number**2, "That is the square."),))
    return "twice is twice."


def steps(examples, batch, accumulation, epochs):
    return math.ceil(math.ceil(examples / batch) / accumulation) * epochs


def cell(source):
    """Runs source as a notebook cell does: its lines are in linecache under a made-up file name."""
    name = f"cell-{abs(hash(source))}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope = {}
    exec(compile(source, name, "exec"), scope)
    return next(value for key, value in scope.items() if key != "__builtins__")


def test_right_answer():
    verdict = double(lambda number: number + number)
    assert verdict and repr(verdict) == "Right: twice is twice."


def test_untouched_stub():
    def stub(number):
        raise NotImplementedError

    assert not double(stub)
    assert repr(double(stub)) == "Not started yet: write stub at `raise NotImplementedError`, then run it again."
    assert repr(double(lambda number: None)).startswith("Not started yet: <lambda> returns nothing")
    assert repr(double(lambda number: ...)).startswith("Not started yet")


def test_not_implemented_by_a_library_is_not_a_stub():
    def abs_of_a_list(number):
        return cell("def kernel():\n    raise NotImplementedError('no such kernel')\n")()

    verdict = double(abs_of_a_list)
    assert repr(verdict).startswith("Not yet: abs_of_a_list raised NotImplementedError: no such kernel, in line")


def test_wrong_answer_and_hint():
    assert repr(double(lambda number: number + 1)) == "Not yet: for 3, expected 6, got 4."
    assert repr(double(lambda number: number**2)) == "Not yet: for 1, 1 is not the answer. That is the square."


def test_exception_names_the_line_of_the_learner():
    verdict = double(cell("def half(number):\n    zero = number - number\n    return number / zero\n"))
    assert repr(verdict) == (
        "Not yet: half raised ZeroDivisionError: division by zero, in line 3 of its cell: `return number / zero`"
    )
    assert "raised TypeError" in repr(double(lambda: 3))


def test_exception_inside_a_library_names_the_line_that_called_it():
    def read(number):
        return json.loads("{")

    verdict = double(read)
    assert "raised JSONDecodeError" in repr(verdict) and 'return json.loads("{")' in repr(verdict)


@pytest.mark.parametrize("answer", ["2", [2], {"2": 2}, object(), float("nan"), True, 2.5, -2, float])
def test_odd_answers_are_wrong_and_do_not_raise(answer):
    verdict = double(lambda number: answer)
    assert not verdict and repr(verdict).startswith("Not yet: for 1, expected 2, got ")


def test_answer_that_the_check_cannot_use():
    @exercise
    def first(function):
        expect(function()[0] + 1, 2, "nothing")
        return "one."

    assert repr(first(lambda: "abc")).startswith("Not yet: <lambda> returned 'abc' (a str), which is no answer here: ")
    assert repr(first(lambda: None)).startswith("Not started yet")


def test_something_else_than_a_function():
    assert repr(double(7)) == "Not yet: hand over the function itself, by its name without brackets."


def test_check_may_take_context_and_say_wrong_itself():
    @exercise
    def above(function, limit):
        if function() <= limit:
            raise Wrong("too low.")
        return "high enough."

    assert above(lambda: 3, 2)
    assert repr(above(lambda: 1, 2)) == "Not yet: too low."


def test_keyboard_interrupt_passes():
    def stuck(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        double(stuck)


@pytest.mark.parametrize(
    ("answer", "expected", "equal"),
    [
        (0.30001, 0.3, True),
        (0.31, 0.3, False),
        (100_000, 100_001, False),
        (3.0, 3, True),
        (3.0001, 3, False),
        (True, 1, False),
        (1, True, False),
        ([1, 2], (1, 2), True),
        ([1], [1, 2], False),
        ({"a": [1.0]}, {"a": [1.0]}, True),
        ({"a": 1}, {"b": 1}, False),
        ("yes", "yes", True),
        ("yes", "no", False),
        (None, 0, False),
        ("", 0, False),
    ],
)
def test_comparison(answer, expected, equal):
    if equal:
        expect(answer, expected, "these")
    else:
        with pytest.raises(Wrong, match="for these, expected"):
            expect(answer, expected, "these")


def test_comparison_of_tensors_and_arrays():
    import numpy as np
    import torch

    expect(torch.tensor([1.0, 2.0], requires_grad=True), [1.0, 2.0], "a tensor")
    expect(torch.tensor(3), 3, "a scalar tensor")
    expect(np.float32(0.1), 0.1, "a NumPy scalar")
    expect([True, False], torch.tensor([True, False]), "a mask")
    with pytest.raises(Wrong):
        expect(torch.tensor([[1.0, 2.0]]), [1.0, 2.0], "another shape")


def test_shown_as_html():
    html = Verdict(False, "Not yet: 1 < 2.")._repr_html_()
    assert "1 &lt; 2" in html and html != Verdict(True, "Not yet: 1 < 2.")._repr_html_()


def test_every_check_tells_a_stub_from_an_answer():
    def stub(*args, **kwargs):
        raise NotImplementedError

    lessons = {name: value for name, value in vars(checks).items() if name.startswith("lesson_") and callable(value)}
    files = {path.stem for path in Path(checks.__file__).parent.glob("lesson_*.py")}
    assert files and files == {name[: len("lesson_01")] for name in lessons}
    for name, check in lessons.items():
        assert check.__doc__, name
        assert repr(check(stub)).startswith(checks.NOT_STARTED), name


def test_lesson_01_optimizer_steps():
    check = checks.lesson_01_optimizer_steps
    assert check(steps)
    assert "gradients accumulate" in repr(check(lambda n, b, a, e: math.ceil(n / b) * e))
    assert "one pass over the data" in repr(check(lambda n, b, a, e: math.ceil(math.ceil(n / b) / a)))
    assert "The last batch is smaller" in repr(check(lambda n, b, a, e: n // b // a * e))
    assert not check(lambda n, b, a, e: n // (b * a) * e)


def test_lesson_01_optimizer_steps_is_what_the_trainer_does(tmp_path):
    """The formula of the check against Trainer itself, on a model of two parameters."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def forward(self, x, labels):
            return {"loss": (self.linear(x) - labels).square().mean()}

    rows = [{"x": [1.0], "labels": [0.0]}] * 21
    arguments = TrainingArguments(
        tmp_path,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_train_epochs=2,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(Tiny(), arguments, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == steps(21, 4, 4, 2) == 4


def test_lesson_02_padded_tokens():
    check = checks.lesson_02_padded_tokens

    def batches(lengths, size):
        return [lengths[i : i + size] for i in range(0, len(lengths), size)]

    assert check(lambda lengths, size: sum(len(batch) * max(batch) for batch in batches(lengths, size)))
    assert "the real tokens" in repr(check(lambda lengths, size: sum(lengths)))
    assert "a longest of its own" in repr(check(lambda lengths, size: max(lengths) * len(lengths)))
    assert "has fewer rows" in repr(check(lambda lengths, size: sum(size * max(b) for b in batches(lengths, size))))
    full_only = check(lambda lengths, size: sum(size * max(b) for b in batches(lengths, size) if len(b) == size))
    assert "counts, too" in repr(full_only)
    assert not check(lambda lengths, size: sum(len(b) * max(b) for b in batches(sorted(lengths), size)))


def test_lesson_02_padded_tokens_is_what_the_collator_makes():
    from tokenizers import Tokenizer, models
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "film": 1}, unk_token="[PAD]"))
    collate = DataCollatorWithPadding(PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]"))

    def by_collator(lengths, size):
        rows = [{"input_ids": [1] * length} for length in lengths]
        return sum(collate(rows[i : i + size])["input_ids"].numel() for i in range(0, len(rows), size))

    assert checks.lesson_02_padded_tokens(by_collator)


def test_lesson_02_last_real_token():
    import torch

    check = checks.lesson_02_last_real_token
    assert check(lambda mask: (mask * torch.arange(mask.shape[1])).argmax(dim=1))
    assert check(lambda mask: [max(i for i, real in enumerate(row) if real) for row in mask.tolist()])
    assert "positions begin at 0" in repr(check(lambda mask: mask.sum(1)))
    assert "the count is not the position" in repr(check(lambda mask: mask.sum(1) - 1))
    assert "may be padding" in repr(check(lambda mask: [mask.shape[1] - 1] * len(mask)))
    assert "the first real tokens" in repr(check(lambda mask: mask.argmax(1)))
    assert not check(lambda mask: mask.shape[1] - 1 - mask.flip(1).argmax(1, keepdim=True))


def test_lesson_02_batch_and_accumulation():
    check = checks.lesson_02_batch_and_accumulation

    def right(size, limit):
        part = next(part for part in range(min(size, limit), 0, -1) if size % part == 0)
        return part, size // part

    assert check(right)
    assert check(lambda size, limit: list(right(size, limit)))
    assert "First the batch size" in repr(check(lambda size, limit: right(size, limit)[::-1]))
    assert "is not 12" in repr(check(lambda size, limit: (limit, math.ceil(size / limit))))
    assert "Together they make 10" in repr(check(lambda size, limit: (limit, size // limit)))
    assert "One at a time" in repr(check(lambda size, limit: (1, size)))
    assert not check(lambda size, limit: size // limit)


def test_lesson_04_pair_row():
    from transformers import AutoTokenizer

    check = checks.lesson_04_pair_row

    def right(first, second, length, cls=2, sep=3, pad=0):
        row = [cls, *first, sep, *second, sep]
        rest = length - len(row)
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        ids, mask = row + [pad] * rest, [1] * len(row) + [0] * rest
        return {"input_ids": ids, "token_type_ids": types + [0] * rest, "attention_mask": mask}

    def with_(key, change):
        def wrong(first, second, length):
            answer = right(first, second, length)
            return answer | {key: change(answer[key], len(first), length)}

        return repr(check(wrong))

    assert check(right)
    assert "keys input_ids, token_type_ids" in repr(check(lambda *given: right(*given)["input_ids"]))
    assert "ends with [SEP]" in with_(
        "input_ids", lambda ids, n, _: [0 if i == 3 and k > n + 1 else i for k, i in enumerate(ids)]
    )
    assert "belongs to the first" in with_("token_type_ids", lambda types, n, _: [*types[: n + 1], 1, *types[n + 2 :]])
    assert "Padding is of type 0" in with_(
        "token_type_ids", lambda types, n, length: [0] * (n + 2) + [1] * (length - n - 2)
    )
    assert "Padding is 0 in the mask" in with_("attention_mask", lambda mask, n, length: [1] * length)

    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "data/models/bert")
    sentences = "The mill is closed.", "It will not open on Monday."
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in sentences]
    expected = tokenizer(*sentences, padding="max_length", max_length=24)
    special = dict(cls=tokenizer.cls_token_id, sep=tokenizer.sep_token_id, pad=tokenizer.pad_token_id)
    assert right(*ids, 24, **special) == dict(expected)  # the form in the exercise is the tokenizer's


def test_lesson_04_accuracy_and_f1():
    from sklearn.metrics import accuracy_score, f1_score

    check = checks.lesson_04_accuracy_and_f1

    def scores(predictions, labels, pos_label=1):
        return accuracy_score(labels, predictions), f1_score(
            labels, predictions, pos_label=pos_label, zero_division=0.0
        )

    assert check(scores)
    assert "First the accuracy" in repr(check(lambda *given: scores(*given)[::-1]))
    assert "the F1 of class 0" in repr(check(lambda *given: scores(*given, pos_label=0)))
    assert "leaves out" in repr(check(lambda *given: scores(*given)[:1] * 2))
    assert "raised ZeroDivisionError" in repr(
        check(lambda said, labels: (scores(said, labels)[0], dividing(said, labels)))
    )


def dividing(predictions, labels):
    """F1 by the formula, without the case of nothing to divide by."""
    right = sum(said and label for said, label in zip(predictions, labels, strict=True))
    return 2 * right / (sum(predictions) + sum(labels))


def test_lesson_04_evaluations_seen_is_what_the_callback_does():
    from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

    check = checks.lesson_04_evaluations_seen
    arguments = TrainingArguments(
        "outputs", load_best_model_at_end=True, metric_for_best_model="loss", eval_strategy="steps", use_cpu=True
    )

    def by_the_callback(eval_losses, patience):
        callback, state, control = EarlyStoppingCallback(patience), TrainerState(), TrainerControl()
        for number, loss in enumerate(eval_losses, 1):
            callback.on_evaluate(arguments, state, control, {"eval_loss": loss})
            state.best_metric = min(loss, state.best_metric or math.inf)  # Trainer does this when it saves
            if control.should_training_stop:
                return number
        return len(eval_losses)

    def after_any_rise(eval_losses, patience):
        rises = 0
        for number, (before, loss) in enumerate(pairwise(eval_losses), 2):
            rises += loss >= before
            if rises == patience:
                return number
        return len(eval_losses)

    assert check(by_the_callback)
    assert "goes on until" in repr(check(lambda *given: by_the_callback(*given) - given[1]))
    assert "stops at once" in repr(check(lambda *given: by_the_callback(*given) + 1))
    assert "resets the count" in repr(check(after_any_rise))


def test_lesson_04_linear_rate_is_the_schedule_of_transformers():
    import torch
    from transformers import get_scheduler

    check = checks.lesson_04_linear_rate

    def by_transformers(step, learning_rate, warmup_steps, total_steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
        schedule = get_scheduler("linear", optimizer, warmup_steps, total_steps)
        for _ in range(step):
            optimizer.step()
            schedule.step()
        return schedule.get_last_lr()[0]

    assert check(by_transformers)
    assert "the end of the warm-up" in repr(check(lambda step, rate, warmup, total: rate * (1 - step / total)))
    assert "the line goes up" in repr(check(lambda step, rate, warmup, total: rate * (total - step) / (total - warmup)))
    assert "number 0" in repr(check(lambda step, rate, warmup, total: rate * (step + 1) / max(1, warmup)))


def test_lesson_05_rows_of_batch():
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    check = checks.lesson_05_rows_of_batch

    def by_loader(num_rows, batch_size, seed, epoch, batch):
        order = torch.Generator()
        sampler = RandomSampler(range(num_rows), generator=order)
        loader = DataLoader(range(num_rows), batch_size, sampler=sampler, collate_fn=list)
        order.manual_seed(seed + epoch)
        return list(loader)[batch]

    def by_hand(num_rows, batch_size, seed):
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).tolist()
        return [order[i : i + batch_size] for i in range(0, num_rows, batch_size)]

    assert check(by_loader)
    assert check(lambda n, size, seed, epoch, batch: by_hand(n, size, seed + epoch)[batch])
    assert "file's order" in repr(check(lambda n, size, seed, epoch, b: list(range(n))[b * size : (b + 1) * size]))
    assert "seed plus epoch" in repr(check(lambda n, size, seed, epoch, batch: by_hand(n, size, seed)[batch]))
    assert not check(lambda n, size, seed, epoch, batch: by_hand(n, size, seed + epoch)[batch - 1])


def test_lesson_05_clip():
    import torch

    check = checks.lesson_05_clip

    def by_torch(gradients, max_norm):
        parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return [parameter.grad for parameter in parameters]

    assert check(by_torch)
    assert "cuts each number" in repr(check(lambda gradients, most: [g.clamp(-most, most) for g in gradients]))
    assert "One length for all" in repr(check(lambda gradients, most: [g * most / g.norm() for g in gradients]))
    length = lambda gradients: torch.cat(gradients).norm()  # noqa: E731
    assert "stays as it is" in repr(check(lambda gradients, most: [g * most / length(gradients) for g in gradients]))


def test_lesson_05_shares():
    check = checks.lesson_05_shares

    def counts(parts, count=lambda row: sum(label != -100 for label in row)):
        return [sum(count(row) for row in part) for part in parts]

    def to_one(numbers):
        return [number / sum(numbers) for number in numbers]

    assert check(lambda parts: to_one(counts(parts)))
    assert "add up to 1" in repr(check(counts))
    assert "mean of means" in repr(check(lambda parts: [1 / len(parts)] * len(parts)))
    assert "-100" in repr(check(lambda parts: to_one(counts(parts, len))))
    assert not check(lambda parts: to_one([len(part) for part in parts]))


def test_lesson_06_rows_of_process():
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    check = checks.lesson_06_rows_of_process

    def by_accelerate(order, batch_size, num_processes, process):
        shard = BatchSamplerShard(BatchSampler(order, batch_size, drop_last=False), num_processes, process)
        return [row for batch in shard for row in batch]

    assert check(by_accelerate)
    assert "dealt in turn" in repr(check(lambda o, b, n, p: o[p * len(o) // n : (p + 1) * len(o) // n]))
    assert "Whole batches" in repr(check(lambda order, size, processes, process: order[process::processes]))


def test_lesson_06_gathered_rows():
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    check = checks.lesson_06_gathered_rows

    def by_accelerate(num_rows, batch_size, num_processes):
        if num_processes == 1:
            return num_rows  # nothing is sharded
        batches = BatchSampler(range(num_rows), batch_size, drop_last=False)
        shards = [BatchSamplerShard(batches, num_processes, process) for process in range(num_processes)]
        return sum(len(batch) for shard in shards for batch in shard)

    assert check(by_accelerate)
    assert "gather_for_metrics returns" in repr(check(lambda rows, size, processes: rows))
    assert "equally many batches" in repr(check(lambda rows, size, processes: math.ceil(rows / size) * size))
    assert "fills nothing" in repr(check(lambda r, b, n: math.ceil(math.ceil(r / b) / n) * n * b))


def test_lesson_06_batch_and_accumulation():
    check = checks.lesson_06_batch_and_accumulation

    def right(size, processes, limit):
        local = size // processes
        part = next(part for part in range(min(local, limit), 0, -1) if local % part == 0)
        return part, local // part

    assert check(right)
    assert "First the batch size" in repr(check(lambda *sizes: right(*sizes)[::-1]))
    assert "Each process takes its share" in repr(check(lambda size, processes, limit: right(size, 1, limit)))
    assert "One at a time" in repr(check(lambda size, processes, limit: (1, size // processes)))


def test_lesson_09_lora_parameters_is_what_peft_counts():
    import peft
    from torch import nn

    check = checks.lesson_09_lora_parameters

    def by_peft(shapes, rank):
        layers = nn.Sequential(*[nn.Linear(*shape) for shape in shapes])
        names = [str(index) for index in range(len(shapes))]
        model = peft.get_peft_model(layers, peft.LoraConfig(r=rank, target_modules=names))
        return model.get_nb_trainable_parameters()[0]

    assert check(by_peft)
    assert "stays frozen" in repr(check(lambda shapes, rank: sum(i * o for i, o in shapes)))
    assert "A alone" in repr(check(lambda shapes, rank: rank * sum(i for i, _ in shapes)))
    assert "B alone" in repr(check(lambda shapes, rank: rank * sum(o for _, o in shapes)))
    assert "first layer" in repr(check(lambda shapes, rank: rank * sum(shapes[0])))
    assert "one side only" in repr(check(lambda shapes, rank: rank * rank * sum(map(sum, shapes))))


def test_lesson_09_merged_weight_is_what_peft_merges():
    import peft
    import torch
    from torch import nn

    check = checks.lesson_09_merged_weight

    def by_peft(W, A, B, alpha):
        layer = nn.Sequential(nn.Linear(*W.shape[::-1], bias=False))
        model = peft.get_peft_model(layer, peft.LoraConfig(r=len(A), lora_alpha=alpha, target_modules=["0"]))
        with torch.no_grad():
            for name, value in (("base_layer", W), ("lora_A.default", A), ("lora_B.default", B)):
                model.get_submodule(f"base_model.model.0.{name}").weight.copy_(value)
        return model.merge_and_unload()[0].weight.detach()

    assert check(by_peft)
    assert "W is still there" in repr(check(lambda W, A, B, alpha: alpha / len(A) * B @ A))
    assert "alpha / r" in repr(check(lambda W, A, B, alpha: W + B @ A))
    assert "divided by the rank" in repr(check(lambda W, A, B, alpha: W + alpha * B @ A))
    assert "changed in place" in repr(check(lambda W, A, B, alpha: W.add_(alpha / len(A) * B @ A)))
    assert "of shape (6, 4)" in repr(check(lambda W, A, B, alpha: (W + alpha / len(A) * B @ A).T))
    assert "raised RuntimeError" in repr(check(lambda W, A, B, alpha: W + A @ B))
    assert not check(lambda W, A, B, alpha: W)


def test_lesson_09_nf4_bytes_is_what_bitsandbytes_stores():
    functional = pytest.importorskip("bitsandbytes.functional")
    import torch

    check = checks.lesson_09_nf4_bytes

    def by_bitsandbytes(weights, double):
        packed, state = functional.quantize_4bit(torch.randn(weights), quant_type="nf4", compress_statistics=double)
        scales = [state.absmax, state.state2.absmax] if double else [state.absmax]
        return sum(tensor.numel() * tensor.element_size() for tensor in (packed, *scales))

    def right(weights, double):
        scales = weights // 64
        return weights // 2 + (scales + scales // 64 if double else 4 * scales)

    assert check(by_bitsandbytes) and check(right)
    assert "without the scales" in repr(check(lambda weights, double: weights // 2))
    assert "share a byte" in repr(check(lambda weights, double: weights))
    assert "one byte each" in repr(check(lambda weights, double: right(weights, False)))
    assert "Without double" in repr(check(lambda weights, double: right(weights, True)))


def test_lesson_03_parameters():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    check = checks.lesson_03_parameters

    def by_transformers(vocab_size, n_positions, n_embd, n_layer):
        config = GPT2Config(vocab_size=vocab_size, n_positions=n_positions, n_embd=n_embd, n_layer=n_layer, n_head=4)
        with torch.device("meta"):
            return GPT2LMHeadModel(config).num_parameters()

    def by_hand(vocab, positions, d, layers):
        return (vocab + positions) * d + layers * (12 * d * d + 13 * d) + 2 * d

    assert check(by_transformers) and check(by_hand)
    assert "counts once" in repr(check(lambda v, p, d, layers: by_hand(v, p, d, layers) + v * d))
    assert "follows the last" in repr(check(lambda v, p, d, layers: by_hand(v, p, d, layers) - 2 * d))
    assert "has a bias" in repr(check(lambda v, p, d, layers: by_hand(v, p, d, layers) - layers * 9 * d))


def test_lesson_03_position():
    check = checks.lesson_03_position

    def one_by_one(lengths, tokens):
        owners = [(i, k) for i, length in enumerate(lengths) for k in range(length)]
        return owners[tokens]

    assert check(one_by_one) and check(lambda lengths, tokens: list(one_by_one(lengths, tokens)))
    assert "First the document" in repr(check(lambda lengths, tokens: one_by_one(lengths, tokens)[::-1]))

    def stays(lengths, tokens):
        document = 0
        while tokens > lengths[document]:
            tokens -= lengths[document]
            document += 1
        return document, tokens

    assert "is finished" in repr(check(stays))


def test_lesson_03_perplexity():
    check = checks.lesson_03_perplexity

    def right(losses, tokens):
        return math.exp(sum(math.log(math.exp(x)) * n for x, n in zip(losses, tokens, strict=True)) / sum(tokens))

    assert check(right)
    assert "its exponential" in repr(check(lambda losses, tokens: math.log(right(losses, tokens))))
    assert "weighs more" in repr(check(lambda losses, tokens: math.exp(sum(losses) / len(losses))))
    assert "averages perplexities" in repr(
        check(lambda x, n: sum(math.exp(a) * b for a, b in zip(x, n, strict=True)) / sum(n))
    )


def test_lesson_07_label_ids():
    check = checks.lesson_07_label_ids

    def by_pandas(labels, order=sorted):
        import pandas as pd

        names = pd.Series(labels, dtype="object").dropna().str.strip().str.lower()
        return {name: number for number, name in enumerate(order(names[names != ""].unique()))}

    assert check(by_pandas)
    assert "sort the names" in repr(check(lambda labels: by_pandas(labels, order=list)))
    assert "begin at 0" in repr(check(lambda labels: {n: i + 1 for n, i in by_pandas(labels).items()}))
    assert "no new class" in repr(check(lambda labels: {n: i for i, n in enumerate(sorted({x for x in labels if x}))}))
    assert "other way round" in repr(check(lambda labels: {i: n for n, i in by_pandas(labels).items()}))

    def without(labels, words):
        return {n: i for i, n in enumerate(sorted(set(by_pandas(labels)) - words))}

    assert "is a class, too" in repr(check(lambda labels: without(labels, {"none", "na", "nan", "null"})))
    assert "turns into a text" in repr(check(lambda labels: by_pandas([str(label) for label in labels])))
    assert "raised TypeError" in repr(check(lambda labels: {n: i for i, n in enumerate(sorted(set(labels)))}))


def test_lesson_07_leaking_groups():
    check = checks.lesson_07_leaking_groups

    def right(groups, splits):
        places = {}
        for group, split in zip(groups, splits, strict=True):
            places.setdefault(group, set()).add(split)
        return sorted(group for group, where in places.items() if len(where) > 1)

    assert check(right)
    assert "same split" in repr(check(lambda groups, splits: sorted({g for g in groups if groups.count(g) > 1})))
    assert "Sort them" in repr(check(lambda groups, splits: sorted(right(groups, splits), key=groups.index)))
    assert "say which" in repr(check(lambda groups, splits: len(right(groups, splits))))

    def of_train_and_test(groups, splits):
        rows = list(zip(groups, splits, strict=True))
        return [g for g in right(groups, splits) if (g, "train") in rows and (g, "test") in rows]

    assert "Validation is a split" in repr(check(of_train_and_test))


def test_lesson_07_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    check = checks.lesson_07_macro_f1

    def scored(metric, **options):
        def function(matrix):
            pairs = [(i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) for _ in range(n)]
            return float(metric(*zip(*pairs, strict=True), **options))

        return function

    assert check(scored(f1_score, average="macro", zero_division=0))
    assert "accuracy" in repr(check(scored(accuracy_score)))
    assert "counts once" in repr(check(scored(f1_score, average="weighted", zero_division=0)))
    assert "mean recall" in repr(check(scored(recall_score, average="macro")))


def test_lesson_07_threshold():
    check = checks.lesson_07_threshold

    def right(confidences, hits, target, choose=min):
        def accuracy(threshold):
            kept = [hit for hit, confidence in zip(hits, confidences, strict=True) if confidence >= threshold]
            return sum(kept) / len(kept)

        return choose((t for t in confidences if accuracy(t) >= target), default=None)

    assert check(right)
    assert "Lower ones" in repr(check(lambda *given: right(*given, choose=max)))
    assert "The target is an accuracy" in repr(check(lambda confidences, hits, target: target))
    assert "return None" in repr(check(lambda *given: right(*given) or 0.0))

    def from_the_top(confidences, hits, target):
        best, kept = None, []
        for confidence, hit in sorted(zip(confidences, hits, strict=True), reverse=True):
            kept.append(hit)
            if sum(kept) / len(kept) < target:
                break
            best = confidence
        return best

    assert "may recover" in repr(check(from_the_top))


def test_lesson_08_all_pieces():
    check = checks.lesson_08_all_pieces

    def by_first(word_ids, tags):
        return [-100 if word is None else tags[word] for word in word_ids]

    def right(word_ids, tags, outside="O"):
        labels = by_first(word_ids, tags)
        for place in range(1, len(labels)):
            if word_ids[place] is not None and word_ids[place] == word_ids[place - 1]:
                labels[place] = outside if labels[place] == "O" else f"I-{labels[place][2:]}"
        return labels

    def only_first(word_ids, tags):
        twice = [None, *word_ids]
        return [-100 if twice[i] == twice[i + 1] else tag for i, tag in enumerate(by_first(word_ids, tags))]

    assert check(right)
    assert "second B" in repr(check(by_first))
    assert "every piece counts" in repr(check(only_first))
    assert "stay O" in repr(check(lambda words, tags: right(words, tags, outside="I-")))
    assert "no loss counts" in repr(check(lambda *given: ["O" if tag == -100 else tag for tag in right(*given)]))
    assert "special ones too" in repr(check(lambda *given: [tag for tag in right(*given) if tag != -100]))


def test_lesson_08_word_tags():
    check = checks.lesson_08_word_tags

    def chosen(word_ids, token_tags, num_words, place):
        places = [[i for i, word in enumerate(word_ids) if word == number] for number in range(num_words)]
        return [token_tags[found[place]] if found else "O" for found in places]

    assert check(lambda *given: chosen(*given, place=0))
    assert "trained to know" in repr(check(lambda *given: chosen(*given, place=-1)))
    assert "for each word" in repr(check(lambda word_ids, token_tags, num_words: token_tags[1:-1]))
    without = lambda word_ids, tags, n: [tags[word_ids.index(w)] for w in range(n) if w in word_ids]  # noqa: E731
    assert "cut off" in repr(check(without))


def test_lesson_08_spans():
    from seqeval.metrics.sequence_labeling import get_entities

    check = checks.lesson_08_spans
    assert check(get_entities)
    assert "behind the hyphen" in repr(check(lambda tags: [(tags[i], i, j) for _, i, j in get_entities(tags)]))
    assert "not the place behind" in repr(check(lambda tags: [(kind, i, j + 1) for kind, i, j in get_entities(tags)]))
    assert "end with the sentence" in repr(check(lambda tags: get_entities(tags[:-1])))
    without_b = lambda tags: get_entities([tag.replace("B-", "I-") for tag in tags])  # noqa: E731
    assert "A B always opens" in repr(check(without_b))
    assert "continues what B" in repr(check(lambda tags: get_entities([tag.replace("I-", "B-") for tag in tags])))
    assert repr(check(lambda tags: None)).startswith("Not started yet")


def test_lesson_08_entity_f1():
    check = checks.lesson_08_entity_f1

    def by_hand(truth, found, same=lambda t, f: t == f):
        hits = sum(any(same(t, f) for t in truth) for f in found)
        precision, recall = hits / len(found) if found else 0.0, hits / len(truth)
        return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0

    assert check(by_hand)
    assert "First precision" in repr(check(lambda *given: (by_hand(*given)[1], by_hand(*given)[0], by_hand(*given)[2])))
    assert "harmonic" in repr(check(lambda *given: (*by_hand(*given)[:2], sum(by_hand(*given)[:2]) / 2)))
    touch = lambda t, f: t[1] <= f[2] and f[1] <= t[2]  # noqa: E731
    assert "no hit" in repr(check(lambda truth, found: by_hand(truth, found, touch)))


def test_lesson_10_bits_per_character():
    check = checks.lesson_10_bits_per_character
    assert check(lambda loss, tokens, characters: loss / math.log(2) * tokens / characters)
    assert "These are nats" in repr(check(lambda loss, tokens, characters: loss * tokens / characters))
    assert "divide by ln 2" in repr(check(lambda loss, tokens, characters: loss * tokens / characters * math.log(2)))
    assert "bits a token" in repr(check(lambda loss, tokens, characters: loss / math.log(2)))
    assert "loss times tokens" in repr(check(lambda loss, tokens, chars: loss * chars / tokens / math.log(2)))


def test_lesson_10_old_tokens():
    check = checks.lesson_10_old_tokens
    assert check(lambda tokens, share: tokens / (1 - share) - tokens)
    assert check(lambda tokens, share: round(tokens * share / (1 - share)))
    assert "larger than the field" in repr(check(lambda tokens, share: tokens * share))
    assert "kept its size" in repr(check(lambda tokens, share: tokens * (1 - share)))
    assert "the whole mixture" in repr(check(lambda tokens, share: tokens / (1 - share)))


def test_lesson_10_choose():
    check = checks.lesson_10_choose

    def by_gain(runs, keep):
        return max((name for name in runs if keep(runs[name])), key=lambda name: runs[name][0], default="")

    assert check(lambda runs, limit: by_gain(runs, lambda run: run[1] <= limit))
    assert "exactly the limit" in repr(check(lambda runs, limit: by_gain(runs, lambda run: run[1] < limit)))
    assert "gains most" in repr(check(lambda runs, limit: by_gain(runs, lambda run: True)))
    assert "loses least" in repr(check(lambda runs, limit: min(runs, key=lambda name: runs[name][1])))


def test_lesson_13_margins():
    check = checks.lesson_13_margins

    def right(chosen, rejected, beta, hit=lambda gap: gap > 0):
        gaps = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
        return sum(map(hit, gaps)) / len(gaps), beta * sum(gaps) / len(gaps)

    assert check(right)
    assert "beta times" in repr(check(lambda chosen, rejected, beta: right(chosen, rejected, 1)))
    assert "not an order" in repr(check(lambda *given: right(*given, hit=lambda gap: gap >= 0)))
    above = lambda chosen, rejected, beta: (  # noqa: E731
        sum(ratio > 0 for ratio in chosen) / len(chosen),
        right(chosen, rejected, beta)[1],
    )
    assert "not one with 0" in repr(check(above))
    assert "Chosen minus rejected" in repr(check(lambda *given: (right(*given)[0], -right(*given)[1])))
    assert "not a count" in repr(
        check(lambda chosen, *given: (right(chosen, *given)[0] * len(chosen), right(chosen, *given)[1]))
    )


def test_lesson_13_reward():
    check = checks.lesson_13_reward

    def right(named, number, known):
        return float(len(named) == len(set(named)) == number and set(named) <= set(known))

    assert check(right)
    assert "not True or False" in repr(check(lambda *given: bool(right(*given))))
    assert "Counting alone" in repr(check(lambda named, number, known: float(len(named) == number)))
    assert "mistake" in repr(check(lambda named, number, known: float(len(set(named)) == number)))
    twice = lambda named, number, known: float(len(named) == number and set(named) <= set(known))  # noqa: E731
    other = lambda named, number, known: float(len(named) == len(set(named)) == number)  # noqa: E731
    assert "robin, robin" in repr(check(twice)) and "spades" in repr(check(other))


def test_lesson_13_advantages():
    import statistics

    check = checks.lesson_13_advantages

    def right(rewards, spread=statistics.stdev):
        mean, width = statistics.mean(rewards), spread(rewards)
        return [(reward - mean) / width if width else 0.0 for reward in rewards]

    assert check(right)
    assert "says nothing before" in repr(check(lambda rewards: rewards))
    assert "Divide by" in repr(check(lambda rewards: [one - statistics.mean(rewards) for one in rewards]))
    assert "n - 1" in repr(check(lambda rewards: right(rewards, statistics.pstdev)))
    assert "more than 0" in repr(check(lambda rewards: [-one for one in right(rewards)]))
    without = lambda rewards: [(r - statistics.mean(rewards)) / statistics.stdev(rewards) for r in rewards]  # noqa: E731
    assert "ZeroDivisionError" in repr(check(without))


def test_lesson_13_advantages_takes_what_torch_computes():
    import torch

    def in_torch(rewards):
        rewards = torch.tensor(rewards)
        return ((rewards - rewards.mean()) / (rewards.std() + 1e-4)).tolist()

    assert checks.lesson_13_advantages(in_torch)
    with_nan = lambda rewards: ((r := torch.tensor(rewards)) - r.mean()).div(r.std()).tolist()  # noqa: E731
    assert "the deviation is 0" in repr(checks.lesson_13_advantages(with_nan))


def test_lesson_13_balanced():
    check = checks.lesson_13_balanced

    def right(lengths, equal=True):
        places = {}
        for place, (better, worse) in enumerate(lengths):
            places.setdefault(better - worse, []).append(place)
        kept = [place for gap in places for place in places[gap][: len(places.get(-gap, []))] if gap or equal]
        return sorted(kept)

    def by_sign(lengths):
        longer = [n for n, (better, worse) in enumerate(lengths) if better > worse]
        shorter = [n for n, (better, worse) in enumerate(lengths) if better < worse]
        equal = [n for n, (better, worse) in enumerate(lengths) if better == worse]
        number = min(len(longer), len(shorter))
        return sorted(longer[:number] + shorter[:number] + equal)

    assert check(right)
    assert "keep it" in repr(check(lambda lengths: right(lengths, equal=False)))
    assert "By how much" in repr(check(by_sign))
    assert "that teach the length" in repr(check(lambda lengths: [n for n, (a, b) in enumerate(lengths) if a > b]))
    unsorted = lambda lengths: sorted(right(lengths), key=lambda n: (lengths[n][0] < lengths[n][1], n))  # noqa: E731
    assert "sort the places" in repr(check(unsorted))


def test_lesson_12_answer_labels():
    check = checks.lesson_12_answer_labels

    def labels(pieces, counts=lambda answer: answer):
        joined = [(token, answer) for tokens, answer in pieces for token in tokens]
        return [token for token, _ in joined], [token if counts(answer) else -100 for token, answer in joined]

    assert check(labels)
    assert check(lambda pieces: dict(zip(("input_ids", "labels"), labels(pieces), strict=True)))
    assert "First the ids" in repr(check(lambda pieces: labels(pieces)[::-1]))
    assert "has the label -100" in repr(check(lambda pieces: labels(pieces, lambda answer: True)))
    assert "Turn it round" in repr(check(lambda pieces: labels(pieces, lambda answer: not answer)))
    only = lambda pieces: [token for tokens, answer in pieces for token in tokens if answer]  # noqa: E731
    assert "As many labels" in repr(check(lambda pieces: (labels(pieces)[0], only(pieces))))
    last = lambda pieces: [(tokens, answer and n == len(pieces) - 1) for n, (tokens, answer) in enumerate(pieces)]  # noqa: E731
    assert "Each answer counts" in repr(check(lambda pieces: labels(last(pieces))))
    assert "Do not move" in repr(check(lambda pieces: (labels(pieces)[0], [-100, *labels(pieces)[1][:-1]])))


def test_lesson_12_packed_is_what_the_model_takes():
    import torch

    check = checks.lesson_12_packed

    def packed(lengths, see=lambda a, b, same: same and b <= a):
        owners = [number for number, length in enumerate(lengths) for _ in range(length)]
        positions = [place for length in lengths for place in range(length)]
        places = range(len(owners))
        return positions, [[bool(see(a, b, owners[a] == owners[b])) for b in places] for a in places]

    assert check(packed) and check(lambda lengths: tuple(map(torch.tensor, packed(lengths))))
    assert "begin at 0" in repr(check(lambda lengths: (list(range(sum(lengths))), packed(lengths)[1])))
    assert "first position is 0" in repr(check(lambda n: ([i + 1 for i in packed(n)[0]], packed(n)[1])))
    assert "another conversation" in repr(check(lambda n: packed(n, lambda a, b, same: b <= a)))
    assert "a later one" in repr(check(lambda n: packed(n, lambda a, b, same: same)))
    assert "sees itself" in repr(check(lambda n: packed(n, lambda a, b, same: same and b < a)))
    assert "The row looks" in repr(check(lambda n: packed(n, lambda a, b, same: same and b >= a)))
    assert "two things" in repr(check(lambda lengths: packed(lengths)[0]))


def test_lesson_12_is_list():
    check = checks.lesson_12_is_list
    lines = lambda words: "\n".join(f"- {word}" for word in words)  # noqa: E731
    assert check(lambda answer, words: answer.strip() == lines(words))
    assert "forgiven" in repr(check(lambda answer, words: answer == lines(words)))
    assert "Nothing else may be said" in repr(check(lambda answer, words: answer.rstrip().endswith(lines(words))))
    assert "too many" in repr(check(lambda answer, words: answer.startswith(lines(words))))
    assert "True or False" in repr(check(lambda answer, words: answer.count("-")))
