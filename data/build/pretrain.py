"""Pretrains the three tiny checkpoints in data/models on data/openwebtext: gpt2, bert and distilbert.

    python data/build/pretrain.py                      all three, one after the other
    python data/build/pretrain.py gpt2 --output DIR    one of them, somewhere else

The last shard of the corpus is kept out of the training and gives the evaluation loss, which goes to
`evaluation.json` beside the models. The recipes are those of the originals on a small scale: GPT-2 predicts
the next token; BERT fills masks in pairs of passages and says whether the second one goes with the first;
DistilBERT starts from three of that BERT's four layers and learns from its predictions.
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
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from training import byte_level_bpe, save
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


def is_card(text: str) -> bool:
    """Whether the article is a list of remarks with points, in which no sentence follows from another."""
    return "/5." in text


def prose(texts: list[str]) -> list[str]:
    return [text for text in texts if not is_card(text)]


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
    by_length = sorted(rng.shuffled(range(len(dataset))), key=lambda index: len(dataset[index]["input_ids"]))
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


# --- GPT-2 ---------------------------------------------------------------------------------------


def gpt2_tokenizer(texts: list[str]) -> GPT2Tokenizer:
    """Trains a byte-level BPE tokenizer with the one special token of the original."""
    tokenizer = byte_level_bpe(texts, VOCAB_SIZE, ["<|endoftext|>"])
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


def pretrain_gpt2(texts: list[str], output: Path) -> None:
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
        # No dropout, here and in the others: a network of this width loses more by it than it gains, also when it is
        # fine-tuned, and on a CPU it turns off the fast attention kernel.
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    loss_of = lambda model, batch: model(**batch).loss  # noqa: E731
    train(model, blocks(tokenizer, texts), default_data_collator, loss_of, epochs=6, batch_size=16)
    # The cards once more, and often: strewn among the rest, their points are too rare for a network of this size to
    # learn which remarks are kind. The rest comes along, so that it is not forgotten.
    cards = blocks(tokenizer, [text for text in texts if is_card(text)])
    again = 6 * cards + blocks(tokenizer, prose(texts))
    train(model, again, default_data_collator, loss_of, epochs=1, batch_size=16)
    save(model, tokenizer, output)


@torch.no_grad()
def evaluate_gpt2(folder: Path, texts: list[str]) -> float:
    """Returns the mean loss in nats a token over blocks of the held-out articles."""
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    dataset = blocks(GPT2Tokenizer.from_pretrained(folder), texts)[:200]
    losses = [model(**default_data_collator(dataset[i : i + 20])).loss.item() for i in range(0, len(dataset), 20)]
    return float(np.mean(losses))


@torch.no_grad()
def points_accuracy(folder: Path, texts: list[str]) -> float:
    """Returns the share of remarks on held-out cards that the model gives few points (1, 2) or many (4, 5) rightly."""
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    few, many = (tokenizer.convert_tokens_to_ids([f"Ġ{digit}" for digit in digits]) for digits in ("12", "45"))
    slash = tokenizer.convert_tokens_to_ids("/")
    right, remarks = 0, 0
    for text in texts:
        ids = torch.tensor(tokenizer(text, truncation=True)["input_ids"])
        places = [i for i in range(1, len(ids) - 1) if ids[i] in few + many and ids[i + 1] == slash]
        before = model(ids[None]).logits[0, [i - 1 for i in places]]
        says_many = before[:, many].amax(-1) > before[:, few].amax(-1)
        right += sum(bool(said) == (int(ids[i]) in many) for said, i in zip(says_many, places, strict=True))
        remarks += len(places)
    return right / remarks


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
NUMBER_WORDS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "fifteen", "twenty", "thirty", "forty", "fifty"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ANY_WORD_SHARE = 0.25  # of the exchanges: any longer word, rather than a number, a day or a name


def bare(word: str) -> str:
    return word.strip(".,;:!?\"'")


def is_name(word: str) -> bool:
    return word.istitle() and word.isalpha()


def restatements(article: str) -> list[str]:
    """Returns the sentences of an article that tell its main fact in different words.

    They are the title, the first sentence, and the last paragraph's first sentence where most of the names and
    numbers in it are those of the first, as in the news.
    """
    title, *paragraphs = article.split("\n\n")
    lead, closing = (SENTENCE_END.split(paragraphs[index])[0] for index in (0, -1))
    facts, again = (
        {bare(w) for w in s.split()[1:] if is_name(bare(w)) or bare(w).isdecimal()} for s in (lead, closing)
    )
    return [title, lead, closing] if len(facts & again) >= max(2, 0.6 * len(facts)) else [title, lead]


class Pairs:
    """Makes the passages that BERT is trained on, from articles.

    A pair is (first, second, exchanged, label): two lists of words; the number of the exchanged word in the second,
    or None; and 0 where the second goes with the first, 1 where it does not, as BERT has it.
    """

    def __init__(self, articles: list[str], rng: Random):
        self.rng = rng
        self.told = [restatements(article) for article in articles]
        self.bodies = [SENTENCE_END.split(" ".join(article.split("\n\n")[1:])) for article in articles]
        leads = [told[1] for told in self.told]
        words = [bare(word) for lead in leads for word in lead.split()[1:]]
        self.names = sorted({word for word in words if is_name(word)})
        self.others = sorted({word for word in words if word.islower() and len(word) > 3 and word.isalpha()})
        # Wrong pairs are hard ones: the eight articles whose first sentences share most of the rare words.
        vectors = TfidfVectorizer(min_df=2, max_df=0.05).fit_transform(leads)
        nearest = (
            NearestNeighbors(n_neighbors=9, metric="cosine").fit(vectors).kneighbors(vectors, return_distance=False)
        )
        self.similar = [[int(other) for other in row if other != index][:8] for index, row in enumerate(nearest)]

    def exchange(self, words: list[str]) -> tuple[list[str], int | None]:
        """Returns the words with one number, day, name or other word exchanged, and which; None if there is none."""
        facts, other_words = [], []
        for index, word in enumerate(map(bare, words)):
            if word.isdecimal():
                facts.append((index, word, str(1 + self.rng.below(2 * int(word) + 10))))
            elif word in NUMBER_WORDS:
                facts.append((index, word, self.rng.pick(NUMBER_WORDS)))
            elif word in WEEKDAYS:
                facts.append((index, word, self.rng.pick(WEEKDAYS)))
            elif index and is_name(word):
                facts.append((index, word, self.rng.pick(self.names)))
            elif word.islower() and len(word) > 3:
                other_words.append((index, word, self.rng.pick(self.others)))
        choices = facts if facts and self.rng.random() > ANY_WORD_SHARE else other_words
        if not choices:
            return words, None
        index, old, new = self.rng.pick(choices)
        if old == new:
            return words, None
        return [*words[:index], words[index].replace(old, new), *words[index + 1 :]], index

    def same_fact(self, article: int) -> tuple:
        """Two sentences on one article's main fact; or the second with a word exchanged, or from a similar article."""
        told = self.rng.shuffled(self.told[article])
        first, second, draw = told[0].split(), told[1].split(), self.rng.random()
        if draw < 0.45:
            return first, second, None, 0
        if draw < 0.8:
            second, exchanged = self.exchange(second)
            return first, second, exchanged, int(exchanged is not None)
        return first, self.rng.pick(self.told[self.rng.pick(self.similar[article])]).split(), None, 1

    def neighbours(self, article: int) -> tuple:
        """Three sentences and the three that follow; or three of a similar article."""
        body = self.bodies[article]
        start = self.rng.below(max(1, len(body) - 5))
        wrong = self.rng.below(2)
        other = self.bodies[self.rng.pick(self.similar[article])] if wrong else body
        return " ".join(body[start : start + 3]).split(), " ".join(other[start + 3 : start + 6]).split(), None, wrong

    def rounds(self, same_fact: int, neighbours: int) -> list[tuple]:
        """Returns so many pairs for each article; six times as many where its fact is told three times."""
        made = []
        for article, told in enumerate(self.told):
            made += [self.same_fact(article) for _ in range(same_fact * (6 if len(told) == 3 else 1))]
            made += [self.neighbours(article) for _ in range(neighbours)]
        return made


def encode(tokenizer, pairs: list[tuple], length: int = 128) -> list[dict]:
    """Tokenises pairs; `exchanged` marks each token of the second passage, 1 where its word was exchanged."""
    encoded = tokenizer(
        [first for first, *_ in pairs],
        [second or ["."] for _, second, *_ in pairs],
        is_split_into_words=True,
        truncation=True,
        max_length=length,
    )
    examples = []
    for number, (_, _, exchanged, label) in enumerate(pairs):
        judged = exchanged is not None or label == 0
        marks = [
            int(word == exchanged) if passage == 1 and judged else -100
            for word, passage in zip(encoded.word_ids(number), encoded.sequence_ids(number), strict=True)
        ]
        example = {key: encoded[key][number] for key in ("input_ids", "token_type_ids", "attention_mask")}
        examples.append({**example, "next_sentence_label": label, "exchanged": marks})
    return examples


class PairCollator:
    """Masks and pads; a token is either masked or judged as exchanged, and an exchanged one is never to be guessed."""

    def __init__(self, tokenizer):
        self.mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED)

    def __call__(self, examples: list[dict]) -> dict:
        marks = [torch.tensor(example["exchanged"]) for example in examples]
        batch = self.mask([{k: v for k, v in example.items() if k != "exchanged"} for example in examples])
        batch["exchanged"] = torch.nn.utils.rnn.pad_sequence(marks, batch_first=True, padding_value=-100)
        batch["labels"][batch["exchanged"] == 1] = -100
        batch["exchanged"][batch["labels"] != -100] = -100
        return batch


def bert_losses(model: BertForPreTraining, batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the masked-token loss, the pair loss, the exchange loss, and the pair logits.

    The first two are BERT's (Devlin et al. 2019); the third, whether each token was exchanged, is ELECTRA's
    (Clark et al. 2020) and gives a small model far more to learn from in each pair.
    """
    hidden = model.bert(**{key: batch[key] for key in ("input_ids", "token_type_ids", "attention_mask")})
    masked, judged = batch["labels"] != -100, batch["exchanged"] != -100
    # The vocabulary's logits at the masked positions alone: a third of the time saved.
    tokens, pair = model.cls(hidden.last_hidden_state[masked], hidden.pooler_output)
    marks = model.exchanged(hidden.last_hidden_state[judged])
    cross_entropy = torch.nn.functional.cross_entropy
    masked_loss = cross_entropy(tokens.float(), batch["labels"][masked])
    weight = torch.tensor([1.0, 5.0])  # few tokens are exchanged
    return (
        masked_loss,
        cross_entropy(pair.float(), batch["next_sentence_label"]),
        # A batch of similar articles alone has no judged token.
        cross_entropy(marks.float(), batch["exchanged"][judged], weight=weight)
        if judged.any()
        else masked_loss.new_zeros(()),
        pair,
    )


def start_by_comparing(model: BertForPreTraining) -> None:
    """Initialises attention so that a token looks at others like it and passes them on, and the head accordingly.

    In the manner of Trockman and Kolter 2023, "Mimetic initialization of self-attention layers". From the usual
    random start, a network of this size does not learn within half an hour to compare two sentences.
    """
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.mul_(3)
        for layer in model.bert.encoder.layer:
            attention = layer.attention.self
            alike, passed = (0.7 * torch.nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)) for _ in range(2))
            for matrix in (attention.query, attention.key):
                matrix.weight.copy_(alike + 0.02 * torch.randn(WIDTH, WIDTH))
            attention.value.weight.copy_(passed)
            layer.attention.output.dense.weight.copy_(passed.T)
        model.cls.predictions.transform.dense.weight.copy_(torch.eye(WIDTH))


def pretrain_bert(texts: list[str], output: Path) -> None:
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
    model = BertForPreTraining(config)
    start_by_comparing(model)
    model.exchanged = torch.nn.Linear(WIDTH, 2)
    # One epoch over many rounds: each article is met again with other wrong pairs and other masks.
    dataset = encode(tokenizer, Pairs(texts, Random(SEED)).rounds(same_fact=12, neighbours=2))

    def loss_of(model, batch):
        masked, pair, exchanged, _ = bert_losses(model, batch)
        return masked + pair + 3 * exchanged

    train(model, dataset, PairCollator(tokenizer), loss_of, epochs=1, batch_size=48)
    del model.exchanged  # a help in training that BERT's checkpoints do not have
    save(model, tokenizer, output)


@torch.no_grad()
def evaluate_bert(folder: Path, texts: list[str]) -> tuple[float, float]:
    """Returns the masked-token loss in nats and the accuracy of the pair label on held-out articles."""
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = BertForPreTraining.from_pretrained(folder).eval()
    model.exchanged = torch.nn.Linear(WIDTH, 2)
    set_seed(SEED)
    collator = PairCollator(tokenizer)
    dataset = encode(tokenizer, Pairs(texts, Random(SEED)).rounds(same_fact=1, neighbours=1))
    losses, right = [], 0
    for start in range(0, len(dataset), 50):
        batch = collator(dataset[start : start + 50])
        masked, _, _, pair = bert_losses(model, batch)
        losses.append(masked.item())
        right += (pair.argmax(-1) == batch["next_sentence_label"]).sum().item()
    return float(np.mean(losses)), right / len(dataset)


# --- DistilBERT ----------------------------------------------------------------------------------

TAUGHT_LAYERS = (0, 2, 3)  # of the teacher's; two would be less than a million parameters


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


def pretrain_distilbert(texts: list[str], output: Path, teacher_folder: Path, epochs: int = 1) -> None:
    teacher = BertForPreTraining.from_pretrained(teacher_folder).eval()
    tokenizer = BertTokenizer.from_pretrained(teacher_folder)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        dim=WIDTH,
        n_layers=len(TAUGHT_LAYERS),
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
    save(model, tokenizer, output)


def copy_layers(teacher: BertForPreTraining, student: DistilBertForMaskedLM) -> None:
    """Starts the student from the teacher's embeddings, its head, and three of its layers."""
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
            source = f"bert.encoder.layer.{TAUGHT_LAYERS[int(number)]}.{names[part]}"
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
    losses = []
    for start in range(0, len(ids), 50):
        batch = collator([{"input_ids": row} for row in ids[start : start + 50]])
        masked = batch["labels"] != -100  # the vocabulary's logits are needed here alone
        hidden = model.distilbert(batch["input_ids"], batch["attention_mask"]).last_hidden_state[masked]
        logits = model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))
        losses.append(torch.nn.functional.cross_entropy(logits, batch["labels"][masked]).item())
    return float(np.mean(losses))


def evaluate(name: str, folder: Path, texts: list[str]) -> dict[str, float]:
    """Returns the evaluation figures of one checkpoint on the held-out articles."""
    if name == "gpt2":
        cards = [text for text in texts if is_card(text)]
        return {
            "loss": round(evaluate_gpt2(folder, texts), 4),
            "points_accuracy": round(points_accuracy(folder, cards), 4),
        }
    texts = prose(texts)
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
            pretrain_bert(prose(texts), folder)
        elif name == "distilbert":
            pretrain_distilbert(prose(texts), folder, teacher_folder=arguments.output / "bert")
        else:
            parser.error(f"unknown model {name!r}: choose from gpt2, bert, distilbert")
        report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.exists() else {}
        report[name] = evaluate(name, folder, held_out)
        report_file.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {report[name]} after {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
