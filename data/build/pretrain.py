"""Pretrains the three tiny checkpoints in data/models on data/openwebtext: gpt2, bert and distilbert.

    python data/build/pretrain.py                      all three, one after the other
    python data/build/pretrain.py gpt2 --output DIR    one of them, somewhere else

The last shard of the corpus is kept out of the training and gives the evaluation loss, which goes to
`evaluation.json` beside the models. The recipes are those of the originals on a small scale: GPT-2 predicts
the next token; BERT fills masks in pairs of passages and says whether the second one goes with the first;
DistilBERT starts from every other layer of that BERT and learns from its predictions.
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from grammar import Random
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from tables import DATA
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    default_data_collator,
    set_seed,
)

SEED = 7
VOCAB_SIZE = 4096
POSITIONS = 256
WIDTH, LAYERS, HEADS = 128, 4, 4
# Twice BERT's share: a small model learns faster from more masks (Wettig et al. 2023).
MASKED = 0.3


def corpus() -> tuple[list[str], list[str]]:
    """Returns the articles to train on and those of the last shard, to evaluate on."""
    shards = sorted(str(path) for path in (DATA / "openwebtext").rglob("*.parquet"))
    read = lambda files: load_dataset("parquet", data_files=files, split="train")["text"]  # noqa: E731
    return list(read(shards[:-1])), list(read(shards[-1:]))


def train(model, dataset: list[dict], collator, loss_of, *, epochs: int, batch_size: int) -> None:
    """Trains in place: bf16, Muon for the matrices inside the blocks, AdamW for the rest, warm-up, then linear decay.

    Muon needs about half the tokens that AdamW needs here, and half an hour is all that a rebuild may take.
    """
    set_seed(SEED)
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and (".h." in name or ".layer." in name)]
    rest = [p for p in model.parameters() if all(p is not other for other in inside)]
    optimizers = [
        torch.optim.Muon(inside, lr=0.02, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    ]
    rng = Random(SEED)
    # Batches of similar lengths, in random order: little padding, and still another order each epoch.
    by_length = sorted(range(len(dataset)), key=lambda index: len(dataset[index]["input_ids"]))
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length) - batch_size + 1, batch_size)]
    steps = epochs * len(batches)
    share = lambda step: min((step + 1) / (0.05 * steps), (steps - step) / (0.95 * steps), 1.0)  # noqa: E731
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    model.train()
    start, losses = time.perf_counter(), []
    for _ in range(epochs):
        for batch in rng.shuffled(batches):
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, collator([dataset[index] for index in batch]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            model.zero_grad()
            losses.append(loss.item())
            if len(losses) % 100 == 0:
                done = len(losses) / steps
                left = (time.perf_counter() - start) * (1 / done - 1) / 60
                print(f"  {done:4.0%}  loss {np.mean(losses[-100:]):.3f}  {left:.1f} minutes left", flush=True)


def save(model, tokenizer, output: Path) -> None:
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    # Weights are written readable by the owner alone.
    (output / "model.safetensors").chmod(0o644)


# --- GPT-2 ---------------------------------------------------------------------------------------


def gpt2_tokenizer(texts: list[str]) -> GPT2Tokenizer:
    """Trains a byte-level BPE tokenizer with the one special token of the original."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    parts = json.loads(tokenizer.to_str())["model"]
    return GPT2Tokenizer(
        vocab=parts["vocab"], merges=[tuple(pair) for pair in parts["merges"]], model_max_length=POSITIONS
    )


def blocks(tokenizer, texts: list[str], length: int = POSITIONS) -> list[dict]:
    """Joins the texts with end-of-text between them and cuts the whole into blocks of `length` tokens."""
    end = tokenizer.eos_token_id
    ids = [token for text in tokenizer(texts)["input_ids"] for token in (*text, end)]
    return [
        {"input_ids": ids[i : i + length], "labels": ids[i : i + length]} for i in range(0, len(ids) - length, length)
    ]


def pretrain_gpt2(texts: list[str], output: Path, epochs: int = 6) -> None:
    tokenizer = gpt2_tokenizer(texts)
    end = tokenizer.eos_token_id
    set_seed(SEED)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        # The same function as gelu_new, in one kernel instead of eight.
        activation_function="gelu_pytorch_tanh",
        # Dropout on the attention weights would turn off the fast attention kernel on a CPU.
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    dataset = blocks(tokenizer, texts)
    train(model, dataset, default_data_collator, lambda m, batch: m(**batch).loss, epochs=epochs, batch_size=16)
    model.config.update({"resid_pdrop": 0.1, "embd_pdrop": 0.1})
    save(model, tokenizer, output)


@torch.no_grad()
def evaluate_gpt2(folder: Path, texts: list[str]) -> float:
    """Returns the mean loss in nats a token over blocks of the held-out articles."""
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    dataset = blocks(GPT2Tokenizer.from_pretrained(folder), texts)[:200]
    losses = [model(**default_data_collator(dataset[i : i + 20])).loss.item() for i in range(0, len(dataset), 20)]
    return float(np.mean(losses))


# --- BERT ----------------------------------------------------------------------------------------


def bert_tokenizer(texts: list[str]) -> BertTokenizer:
    """Trains a lower-casing WordPiece tokenizer with BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=POSITIONS)


SENTENCE_END = re.compile(r"(?<=[.!?])[\"”]?\s+")
NUMBER_WORDS = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "fifteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def exchange(sentence: str, rng: Random, names: list[str]) -> str:
    """Returns the sentence with one number, weekday or name exchanged for another; the same if it has none."""
    words = sentence.split()
    candidates = []
    for index, word in enumerate(words):
        bare = word.strip(".,;:!?\"'")
        if bare.isdigit():
            candidates.append((index, bare, str(1 + rng.below(2 * int(bare) + 10))))
        elif bare in NUMBER_WORDS:
            candidates.append((index, bare, rng.pick(NUMBER_WORDS)))
        elif bare in WEEKDAYS:
            candidates.append((index, bare, rng.pick(WEEKDAYS)))
        elif index and bare.istitle():
            candidates.append((index, bare, rng.pick(names)))
    if candidates:
        index, old, new = rng.pick(candidates)
        words[index] = words[index].replace(old, new)
    return " ".join(words)


def similar_leads(leads: list[str]) -> list[list[int]]:
    """Returns for each lead the numbers of the eight others that share most of its rare words."""
    vectors = TfidfVectorizer(min_df=2, max_df=0.05).fit_transform(leads)
    neighbours = NearestNeighbors(n_neighbors=9, metric="cosine").fit(vectors)
    found = neighbours.kneighbors(vectors, return_distance=False)
    return [[int(other) for other in row if other != index][:8] for index, row in enumerate(found)]


def pairs(texts: list[str], rng: Random, rounds: int) -> list[tuple[str, str, int]]:
    """Returns passages (first, second, label); label 0 where the second goes with the first, as BERT has it.

    For each article and round one pair of a title and the first sentence under it, which tell the same in
    different words, and one of two neighbouring passages. Half of the seconds are wrong: those of a similar
    article, of any article, or the right one with a number, a day or a name exchanged.
    """
    titles, leads, bodies = [], [], []
    for text in texts:
        title, *paragraphs = text.split("\n\n")
        titles.append(title)
        leads.append(SENTENCE_END.split(paragraphs[0])[0])
        bodies.append(SENTENCE_END.split(" ".join(paragraphs)))
    names = sorted({word for lead in leads for word in lead.split()[1:] if word.istitle() and word.isalpha()})
    similar = similar_leads(leads)
    result = []
    for _ in range(rounds):
        for index in rng.shuffled(range(len(texts))):
            first, second = (titles[index], leads[index]) if rng.below(2) else (leads[index], titles[index])
            wrong = [rng.pick(titles if second is titles[index] else leads), exchange(second, rng, names), None]
            other = rng.pick(similar[index])
            wrong[2] = titles[other] if second is titles[index] else leads[other]
            result.append(right_or_wrong(first, second, wrong, rng))
            body = bodies[index]
            start = rng.below(max(1, len(body) - 5))
            first, second = " ".join(body[start : start + 3]), " ".join(body[start + 3 : start + 6])
            wrong = [" ".join(rng.pick(bodies)[3:6]), exchange(first, rng, names), " ".join(bodies[other][3:6])]
            result.append(right_or_wrong(first, second, wrong, rng))
    return result


def right_or_wrong(first: str, second: str, wrong: list[str], rng: Random) -> tuple[str, str, int]:
    if rng.below(2):
        return first, second, 0
    second_wrong = rng.pick(wrong)
    return first, second_wrong, int(second_wrong != second)


def encode(tokenizer, passages: list[tuple[str, str, int]], length: int = 128) -> list[dict]:
    encoded = tokenizer([p[0] for p in passages], [p[1] for p in passages], truncation=True, max_length=length)
    return [
        {
            "input_ids": encoded["input_ids"][i],
            "token_type_ids": encoded["token_type_ids"][i],
            "attention_mask": encoded["attention_mask"][i],
            "next_sentence_label": passages[i][2],
        }
        for i in range(len(passages))
    ]


def bert_loss(model: BertForPreTraining, batch) -> torch.Tensor:
    """Masked-token loss plus pair loss; the head sees the masked positions alone, which saves a third of the time."""
    labels, pair_labels = batch.pop("labels"), batch.pop("next_sentence_label")
    hidden = model.bert(**batch)
    masked = labels != -100
    tokens, pair = model.cls(hidden.last_hidden_state[masked], hidden.pooler_output)
    cross_entropy = torch.nn.functional.cross_entropy
    return cross_entropy(tokens.float(), labels[masked]) + cross_entropy(pair.float(), pair_labels)


def pretrain_bert(texts: list[str], output: Path, rounds: int = 6) -> None:
    tokenizer = bert_tokenizer(texts)
    set_seed(SEED)
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    dataset = encode(tokenizer, pairs(texts, Random(SEED), rounds))
    model = BertForPreTraining(config)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED)
    # The rounds are the epochs: each has other wrong pairs, and the collator masks other tokens.
    train(model, dataset, collator, bert_loss, epochs=1, batch_size=48)
    model.config.update({"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0})
    save(model, tokenizer, output)


@torch.no_grad()
def evaluate_bert(folder: Path, texts: list[str]) -> tuple[float, float]:
    """Returns the masked-token loss in nats and the accuracy of the pair label on held-out articles."""
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = BertForPreTraining.from_pretrained(folder).eval()
    set_seed(SEED)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED)
    dataset = encode(tokenizer, pairs(texts, Random(SEED), rounds=1))[:800]
    losses, right = [], 0
    for start in range(0, len(dataset), 50):
        batch = collator(dataset[start : start + 50])
        labels, pair_labels = batch.pop("labels"), batch.pop("next_sentence_label")
        output = model(**batch)
        losses.append(
            torch.nn.functional.cross_entropy(output.prediction_logits.flatten(0, 1), labels.flatten()).item()
        )
        right += (output.seq_relationship_logits.argmax(-1) == pair_labels).sum().item()
    return float(np.mean(losses)), right / len(dataset)


# --- DistilBERT ----------------------------------------------------------------------------------


def distillation_loss(teacher: BertForPreTraining, temperature: float = 2.0):
    """Returns the masked-token loss plus the distance to the teacher's softened predictions (Sanh et al. 2019)."""

    def loss_of(model: DistilBertForMaskedLM, batch) -> torch.Tensor:
        masked = batch["labels"] != -100
        output = model(**batch)
        with torch.no_grad():
            hidden = teacher.bert(batch["input_ids"], batch["attention_mask"])
            taught = teacher.cls.predictions(hidden.last_hidden_state[masked]).float() / temperature
        student = output.logits[masked].float() / temperature
        divergence = torch.nn.functional.kl_div(
            student.log_softmax(-1), taught.log_softmax(-1), reduction="batchmean", log_target=True
        )
        return output.loss + temperature**2 * divergence

    return loss_of


def pretrain_distilbert(texts: list[str], output: Path, teacher_folder: Path, epochs: int = 2) -> None:
    teacher = BertForPreTraining.from_pretrained(teacher_folder).eval()
    tokenizer = BertTokenizer.from_pretrained(teacher_folder)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        dim=WIDTH,
        n_layers=LAYERS // 2,
        n_heads=HEADS,
        hidden_dim=4 * WIDTH,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_seed(SEED)
    model = DistilBertForMaskedLM(config)
    copy_layers(teacher, model)
    dataset = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=POSITIONS)["input_ids"]]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED)
    train(model, dataset, collator, distillation_loss(teacher), epochs=epochs, batch_size=24)
    model.config.update({"dropout": 0.1})
    save(model, tokenizer, output)


def copy_layers(teacher: BertForPreTraining, student: DistilBertForMaskedLM) -> None:
    """Starts the student from the teacher's embeddings, head, and every other layer."""
    weights = teacher.state_dict()
    names = {
        "attention.q_lin": "attention.self.query",
        "attention.k_lin": "attention.self.key",
        "attention.v_lin": "attention.self.value",
        "attention.out_lin": "attention.output.dense",
        "sa_layer_norm": "attention.output.LayerNorm",
        "ffn.lin1": "intermediate.dense",
        "ffn.lin2": "output.dense",
        "output_layer_norm": "output.LayerNorm",
    }
    heads = {
        "vocab_transform": "cls.predictions.transform.dense",
        "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
        "vocab_projector": "cls.predictions.decoder",
    }
    copied = {}
    for name in student.state_dict():
        stem, kind = name.rsplit(".", 1)
        if stem.startswith("distilbert.transformer.layer."):
            number, part = stem.removeprefix("distilbert.transformer.layer.").split(".", 1)
            source = f"bert.encoder.layer.{2 * int(number) + 1}.{names[part]}"
        elif stem in heads:
            source = heads[stem]
        else:
            source = stem.replace("distilbert.", "bert.")
        copied[name] = weights[f"{source}.{kind}"]
    student.load_state_dict(copied)


@torch.no_grad()
def evaluate_distilbert(folder: Path, texts: list[str]) -> float:
    """Returns the masked-token loss in nats on held-out articles."""
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = DistilBertForMaskedLM.from_pretrained(folder).eval()
    set_seed(SEED)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED)
    ids = tokenizer(texts[:400], truncation=True, max_length=POSITIONS)["input_ids"]
    losses = [
        model(**collator([{"input_ids": i} for i in ids[s : s + 50]])).loss.item() for s in range(0, len(ids), 50)
    ]
    return float(np.mean(losses))


def evaluate(name: str, folder: Path, texts: list[str]) -> dict[str, float]:
    """Returns the evaluation figures of one checkpoint on the held-out articles."""
    if name == "gpt2":
        return {"loss": round(evaluate_gpt2(folder, texts), 4)}
    if name == "distilbert":
        return {"loss": round(evaluate_distilbert(folder, texts), 4)}
    loss, accuracy = evaluate_bert(folder, texts)
    return {"loss": round(loss, 4), "pair_accuracy": round(accuracy, 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[], metavar="model", help="gpt2, bert, distilbert (default: all)")
    parser.add_argument("--output", type=Path, default=DATA / "models")
    arguments = parser.parse_args()
    texts, held_out = corpus()
    report_file = arguments.output / "evaluation.json"
    for name in arguments.models or ["gpt2", "bert", "distilbert"]:
        start = time.perf_counter()
        folder = arguments.output / name
        if name == "gpt2":
            pretrain_gpt2(texts, folder)
        elif name == "bert":
            pretrain_bert(texts, folder)
        elif name == "distilbert":
            pretrain_distilbert(texts, folder, teacher_folder=arguments.output / "bert")
        else:
            parser.error(f"unknown model {name!r}: choose from gpt2, bert, distilbert")
        report = json.loads(report_file.read_text()) if report_file.exists() else {}
        report[name] = evaluate(name, folder, held_out)
        report_file.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {report[name]} after {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
