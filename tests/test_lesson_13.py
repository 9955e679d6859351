"""Lesson 13: its loss beside TRL's, other data and another checkpoint, and its effects on three seeds."""

import ast
import csv
import dataclasses
import json
import re
from pathlib import Path

import matrix
import nbformat
import pytest
from small_models import write_llama

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "13_preferences.ipynb"
CODE = [cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"]
LAST = "for rows in (train, validation, test):"  # of the cell up to which the lesson has loaded all that it trains on
OTHER = """inherits = "reduced"

[preferences]
dataset = "./pairs"
checkpoint = "./llama"
max_train_samples = 24
max_eval_samples = 6
max_test_samples = 80
max_length = 96
max_new_tokens = 12
per_device_train_batch_size = 4
per_device_eval_batch_size = 4
num_generations = 4
grpo_max_steps = 2
"""


@pytest.fixture(scope="module")
def lesson():
    """The lesson's names: its first cells are run, and of the others the functions are defined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNING_PROFILE", "reduced")
        space, loaded = {"__name__": "lesson"}, False
        for source in CODE:
            nodes = ast.parse(source).body
            if loaded:
                kinds = (ast.FunctionDef, ast.Import, ast.ImportFrom)
                nodes = [
                    node
                    for node in nodes
                    if isinstance(node, kinds) or re.match("MAX_STEPS|REQUESTS", ast.unparse(node))
                ]
                nodes = [node for node in nodes if "NotImplementedError" not in ast.unparse(node)]
            exec(compile(ast.Module(nodes, type_ignores=[]), LESSON.name, "exec"), space)
            loaded = loaded or LAST in source
    return space


def test_the_checkpoint_answers_well_now_and_then(lesson):
    before = lesson["judge"](lesson["reference"])
    assert 0.1 < before["good"].mean() < 0.6
    assert all(answer for answer in before["answer"])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL uses its old name
def test_the_loss_by_hand_is_trls(lesson, tmp_path):
    """On the same batches, at the first step and, with its log-ratios away from 0, after three."""
    import datasets
    import torch
    from trl import DPOConfig, DPOTrainer

    rows, beta = lesson["train"][:12], lesson["settings"].beta
    common = {"bf16": False, "activation_checkpointing": False, "use_cpu": True, "disable_tqdm": True, "seed": 1}
    trainer = DPOTrainer(
        lesson["load_model"](),
        ref_model=lesson["load_model"](),
        args=DPOConfig(
            str(tmp_path), beta=beta, per_device_train_batch_size=4, train_sampling_strategy="sequential", **common
        ),
        train_dataset=datasets.Dataset.from_list([row["pair"] for row in rows]),
        processing_class=lesson["tokenizer"],
    )
    moved, _ = lesson["fit"](lesson["dpo"], rows, 3)
    for model in (lesson["load_model"](), moved):
        trainer.model.load_state_dict(model.state_dict())
        for place, theirs in enumerate(trainer.get_train_dataloader()):
            ours = lesson["collate"](rows[4 * place : 4 * place + 4])
            assert all(torch.equal(ours[key], theirs[key]) for key in ("input_ids", "completion_mask"))
            with torch.no_grad():
                by_hand = lesson["dpo"](model, ours)[0]
                by_trl = trainer.compute_loss(trainer.model, theirs)
            assert by_hand.item() == pytest.approx(by_trl.item(), abs=1e-4)


def test_advantages_are_those_of_the_exercise(lesson):
    import torch

    from helpers import checks

    assert checks.lesson_13_advantages(lambda rewards: lesson["advantages"](torch.tensor([rewards]))[0].tolist())


def test_the_gradient_of_grpo_raises_what_was_rewarded(lesson):
    import torch

    model, row = lesson["load_model"](), lesson["train"][0]
    batch = lesson["as_batch"]([(row["prompt"], row["chosen"]), (row["prompt"], row["rejected"])])
    before = lesson["log_probs"](model, batch).detach()
    loss = lesson["grpo_loss"](model, batch, torch.tensor([1.0, -1.0]))
    loss.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.01 * weight.grad
        after = lesson["log_probs"](model, batch)
    assert after[0] - after[1] > before[0] - before[1]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Which bird?", "chosen": "An owl.", "rejected": "A cat."},
        {"chosen": "User: Which bird? Bot: An owl.", "rejected": "User: Which bird? Bot: A cat."},
        {"prompt": [{"role": "user", "content": "Which bird?"}]}
        | {
            key: [{"role": "assistant", "content": text}]
            for key, text in (("chosen", "An owl."), ("rejected", "A cat."))
        },
        {"prompt": "Which bird?"}
        | {
            key: [{"role": "user", "content": "Which bird?"}, {"role": "assistant", "content": text}]
            for key, text in (("chosen", "An owl."), ("rejected", "A cat."))
        },
        {"question": "Which bird?", "chosen": "\nAn owl.", "rejected": "A cat. "},
    ],
)
def test_every_usual_form_of_pairs_is_read(lesson, row):
    pair = lesson["as_messages"](row)
    assert pair["prompt"][-1]["role"] == "user" and "Which bird?" in pair["prompt"][-1]["content"]
    assert [pair[key][0]["role"] for key in ("chosen", "rejected")] == ["assistant"] * 2
    assert "owl" in pair["chosen"][0]["content"] and "cat" in pair["rejected"][0]["content"]


def test_every_checkpoint_is_loaded_in_fp32():
    calls = [call for source in CODE for call in re.findall(r"AutoModel\w*\.from_pretrained\([^)]*\)", source)]
    assert calls and all("dtype=torch.float32" in call for call in calls), calls


def table_of_texts(folder: Path) -> None:
    words = ["the", "house", "stands", "near", "an", "old", "bridge", "and", "nobody", "lives", "in", "it"]
    with (folder / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["prompt", "chosen", "rejected"])
        for n in range(60):
            some = words[n % 5 :]
            table.writerow([f"What about {words[n % 12]} {n}?", " ".join(some[: 3 + n % 4]), " ".join(some[::-1][:5])])


def lists_of_messages(folder: Path) -> None:
    """As on the Hub: the request within both lists, system prompts, several turns, empty and very long answers."""
    rows = []
    for n in range(60):
        request = [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"What about {n}?"}]
        request += [{"role": "assistant", "content": "Well."}, {"role": "user", "content": "Go on."}] * (n % 2)
        answers = [f"\nIt is {n + 1}." + " Really." * (n % 4), "I do not know." * (n % 7)]
        answers = ["Well. " * 500, "No."] if n == 3 else answers
        both = [[*request, {"role": "assistant", "content": answer}] for answer in answers]
        rows.append({"chosen": both[0], "rejected": both[1], "score_chosen": 7.5, "score_rejected": 2.0})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("write", [table_of_texts, lists_of_messages])
def test_it_runs_with_a_llama_without_a_template_and_other_pairs(tmp_path, write):
    write_llama(tmp_path / "llama")
    (tmp_path / "pairs").mkdir()
    write(tmp_path / "pairs")
    assert matrix.run_lesson("13", OTHER, tmp_path) == {}


@pytest.mark.slow
def test_the_checkpoint_is_trained_again_to_as_many_good_answers(lesson, build_program, tmp_path):
    from transformers import AutoModelForCausalLM

    build_program("chat").train(tmp_path)
    rebuilt = AutoModelForCausalLM.from_pretrained(tmp_path / "chat")
    rebuilt.generation_config = lesson["reference"].generation_config
    good = [lesson["judge"](model.eval())["good"].mean() for model in (lesson["reference"], rebuilt)]
    assert good[1] == pytest.approx(good[0], abs=0.15)
    committed = ROOT / "data/models/chat"
    for file in ("tokenizer.json", "chat_template.jinja", "config.json"):
        assert (tmp_path / "chat" / file).read_bytes() == (committed / file).read_bytes(), file


@pytest.fixture(scope="module")
def effects(lesson):
    """Share of good answers and words an answer on the test split, for each way, on three seeds."""
    settings, found = lesson["settings"], []
    for seed in range(3):
        lesson["settings"] = dataclasses.replace(settings, seed=seed)
        fit, dpo = lesson["fit"], lesson["dpo"]
        ways = {
            "before": lesson["reference"],
            "more SFT": fit(lesson["more_sft"])[0],
            "DPO": fit(dpo)[0],
            "balanced": fit(dpo, lesson["balance"](lesson["train"]))[0],
            "GRPO": lesson["grpo"]()[0],
        }
        judged = {way: lesson["judge"](model, seed=seed) for way, model in ways.items()}
        found.append({way: (table["good"].mean(), table["words"].mean()) for way, table in judged.items()})
        print(f"\nseed {seed}:", {way: f"{good:.0%}, {words:.1f} words" for way, (good, words) in found[-1].items()})
    lesson["settings"] = settings
    return found


def best(found, way, other, margin, number=0):
    """Whether on each seed one way is above another by a margin: in good answers, or with `number` 1 in words."""
    return all(seed[way][number] > seed[other][number] + margin for seed in found)


@pytest.mark.slow
def test_dpo_gives_more_good_answers_than_more_fine_tuning_and_that_more_than_before(effects):
    assert best(effects, "more SFT", "before", 0.08)
    assert best(effects, "DPO", "more SFT", 0.03)
    assert sum(seed["DPO"][0] - seed["more SFT"][0] for seed in effects) / 3 > 0.08


@pytest.mark.slow
def test_length_is_learned_from_the_pairs_and_not_from_balanced_ones(effects):
    assert best(effects, "DPO", "before", 1.5, number=1)
    assert best(effects, "DPO", "balanced", 1.0, number=1)
    grown = [[seed[way][1] - seed["before"][1] for way in ("balanced", "DPO")] for seed in effects]
    assert sum(balanced for balanced, _ in grown) < 0.6 * sum(dpo for _, dpo in grown)
    assert best(effects, "balanced", "more SFT", 0.03)


@pytest.mark.slow
def test_a_reward_gives_more_good_answers_of_the_same_length(effects):
    assert best(effects, "GRPO", "before", 0.15)
    assert all(abs(seed["GRPO"][1] - seed["before"][1]) < 2 for seed in effects)


def nonsense(lesson, answers):
    """The share of answers with a sentence behind the first full stop that is in no pair."""
    train, sides = lesson["train"], ("chosen", "rejected")
    known = {part.strip() for row in train for side in sides for part in lesson["text"](row, side).split(".")[1:]}
    return sum(not {part.strip() for part in answer.split(".")[1:]} <= known for answer in answers) / len(answers)


@pytest.mark.slow
def test_at_a_high_rate_what_the_reward_does_not_read_is_spoilt(lesson):
    settings, found = lesson["settings"], []
    for seed in range(3):
        lesson["settings"] = dataclasses.replace(settings, seed=seed)
        models = {factor: lesson["grpo"](rate=factor * settings.learning_rate / 2)[0] for factor in (1, 4)}
        judged = {"before": lesson["judge"](lesson["reference"], seed=seed)}
        judged |= {factor: lesson["judge"](model, seed=seed) for factor, model in models.items()}
        found.append({way: (table["good"].mean(), nonsense(lesson, table["answer"])) for way, table in judged.items()})
        print(
            f"\nseed {seed}:", {way: f"good {good:.0%}, nonsense {bad:.0%}" for way, (good, bad) in found[-1].items()}
        )
    lesson["settings"] = settings
    assert best(found, 4, 1, 0.1, number=1) and all(seed["before"][1] < 0.05 for seed in found)
    gained = [seed[4][0] - seed[1][0] for seed in found]
    assert min(gained) < 0 < max(gained)
