# %% [markdown]
# # 02 · Film reviews with GPT-2
#
# One whole job, from the raw file to a saved model that names its labels: GPT-2 learns to tell a good review from a bad one, and you see what the pretraining was worth.
#
# <!-- measured -->
# <!-- /measured -->
#
# **Before you start:** lesson 01, or its words: batch, loss, learning rate, epoch, validation.
#
# **Afterwards you can** fine-tune a classifier with `Trainer`, pad batches without waste, predict steps, tokens and memory, read curves and mistakes, save and reload the model, and find out why a run does not fit or does not learn.

# %% [markdown]
# ```mermaid
# flowchart LR
#     R["Reviews<br/>text and label"] --> S["Split<br/>train, validation, test"]
#     S --> T["Tokenise<br/>and pad"]
#     T --> F["Trainer<br/>GPT-2 with a<br/>classification head"]
#     C["Checkpoint<br/>pretrained GPT-2"] --> F
#     F -. "validation loss" .-> F
#     F --> E["Test, once:<br/>accuracy, mistakes"]
#     E --> P["Save, reload,<br/>pipeline"]
#     classDef calm fill:#e8f0f7,stroke:#33658a,color:#1b2a38
#     classDef warm fill:#fbf1e3,stroke:#b7791f,color:#3b2a0f
#     class R,S,T,C calm
#     class F,E,P warm
# ```

# %%
from helpers.profiles import load_profile

profile = load_profile()
settings = profile.imdb
settings

# %% [markdown]
# With `load_profile("full")` these cells are the recipe that one finds published for GPT-2 on IMDB: 124 million parameters, reviews cut at 512 tokens, batches of 8, a learning rate of 2e-5, weight decay of 0.01, three epochs. It is said to reach 85 to 90 % or better. We have not measured that; what the outputs below show is the `reduced` profile.
#
# ## Look at the data first

# %%
import datasets

datasets.disable_progress_bars()
reviews = datasets.load_dataset(settings.dataset, settings.config, revision=settings.revision)
reviews

# %% [markdown]
# Two columns. The labels are numbers, and the data set knows their names, so nobody has to remember which of the two is 1.

# %%
label_names = reviews["train"].features["label"].names

for row in reviews["train"].shuffle(seed=4).select(range(2)):
    print(f"{label_names[row['label']]}: {row['text'][:500]}\n")

# %% [markdown]
# Before you read on, label those two yourself, and find the words that decided it. A review praises and blames in one breath, so counting kind words will not do.
#
# For a first try one takes a small piece: the first 200 rows. What could possibly be wrong with them?

# %%
from collections import Counter


def count_labels(rows):
    return dict(Counter(label_names[label] for label in rows["label"]))


print("all rows:          ", count_labels(reviews["train"]))
print("the first 200:     ", count_labels(reviews["train"].select(range(200))))
print("shuffled, then 200:", count_labels(reviews["train"].shuffle(seed=settings.seed).select(range(200))))

# %% [markdown]
# The file is sorted by label, here and on the Hub. A model trained on its first rows learns to say "neg" and is right every single time, until it meets a good film. Shuffle before you select.

# %%
assert len(count_labels(reviews["train"].select(range(200)))) == 1

# %% [markdown]
# ## Three splits
#
# IMDB comes with train and test. We need a third, **validation**, to choose things by: when to stop, which learning rate. Many guides choose by the test split. Is that so bad? Imagine ten checkpoints, all exactly equally good: on new reviews each is right 80 % of the time. We test all ten on 600 reviews and report the best. What will we report?

# %%
import numpy as np

scores = np.random.default_rng(0).binomial(n=600, p=0.80, size=(10_000, 10)) / 600
print(f"one of them, on average: {scores.mean():.1%}   the best of ten, on average: {scores.max(axis=1).mean():.1%}")
assert scores.max(axis=1).mean() > scores.mean() + 0.02

# %% [markdown]
# More than two points out of nothing but choosing. Whatever you choose by is used up as a test. So the validation rows are taken off the training split, and `test` is looked at once, at the end. `stratify_by_column` keeps the share of both labels; the method calls its second part "test", whatever we use it for.

# %%
parts = reviews["train"].train_test_split(
    train_size=settings.max_train_samples,
    test_size=settings.max_eval_samples,
    stratify_by_column="label",
    seed=settings.seed,
)
train, validation = parts["train"], parts["test"]
test = reviews["test"].shuffle(seed=settings.seed).select(range(settings.max_test_samples))

# %%
for name, rows in {"train": train, "validation": validation, "test": test}.items():
    print(f"{name:10} {len(rows):6,} reviews   {np.mean(rows['label']):.1%} pos")

print("in train and in test:", len(set(train["text"]) & set(test["text"])))

# %% [markdown]
# The last line is worth having in every project: a review that stands in both splits is an answer given away.
#
# ## From text to tokens

# %%
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(settings.checkpoint, revision=settings.checkpoint_revision)
print(tokenizer.tokenize("The film is unforgettable, unfortunately."))
print(tokenizer("The film is unforgettable, unfortunately.")["input_ids"])

# %% [markdown]
# `Ġ` marks a space before a piece. Common words are one token, rarer ones are put together from several.
#
# `Dataset.map` runs a function over all rows and keeps the result on disk. With `batched=True` the function gets a thousand rows at a time, and the tokenizer, which is written in Rust, works through them without coming back to Python for each. How much is that worth?

# %%
import time


def tokenize(rows):
    return tokenizer(rows["text"], truncation=True, max_length=settings.max_length)


for batched in (False, True):
    start = time.perf_counter()
    train.map(tokenize, batched=batched, load_from_cache_file=False)
    print(f"batched={batched!s:5}  {time.perf_counter() - start:.2f} s")

# %%
train, validation, test = (rows.map(tokenize, batched=True) for rows in (train, validation, test))
lengths = np.array([len(ids) for ids in train["input_ids"]])
cut = (lengths == settings.max_length).mean()
print(f"median {np.median(lengths):.0f} tokens, longest {lengths.max()}, cut off at {settings.max_length}: {cut:.1%}")

# %%
import matplotlib.pyplot as plt

is_pos = np.array(train["label"]) == 1
plt.figure(figsize=(7, 3))
plt.hist([lengths[~is_pos], lengths[is_pos]], bins=25, stacked=True, label=label_names, color=["#d55e00", "#0072b2"])
plt.xlabel("tokens in a review")
plt.ylabel("reviews")
plt.legend()
plt.show()

# %% [markdown]
# Two things to take from the picture. Both labels have the same lengths, so length gives nothing away. And lengths differ a lot, yet a batch is a rectangle. What fills the corners?
#
# ## GPT-2 has nothing to fill with
#
# Put two reviews of different length into a rectangle:

# %%
pair = ["I liked it.", "I had been told that it was long, and it was: I looked at my watch before the first joke."]

try:
    tokenizer(pair, padding=True)
except ValueError as error:
    print(error)

# %% [markdown]
# GPT-2 was pretrained on one endless stream of text and never needed a padding token. The usual remedy is in the message: borrow end-of-text. That mends the tokenizer. The model is another matter, so we load it and look.
#
# `from_pretrained` would now report that the layer `score`, which turns the last hidden state into two numbers, is not in the checkpoint and starts at random. That is what training is for, so we ask the libraries to report errors only.

# %%
import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses a kernel that this course does not need

import transformers
from transformers import AutoModelForSequenceClassification, set_seed

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
tokenizer.pad_token = tokenizer.eos_token

set_seed(settings.seed)
model = AutoModelForSequenceClassification.from_pretrained(
    settings.checkpoint, revision=settings.checkpoint_revision, num_labels=len(label_names)
).eval()
print("tokenizer pads with", tokenizer.pad_token_id, "- the model believes it is", model.config.pad_token_id)

# %% [markdown]
# A GPT-2 classifier reads the hidden state of the *last* token, for only that one has seen the whole review. In a padded row the last token is filling, so the model has to know what filling looks like. Ours does not. One review alone, the same review filled up to 64 tokens, and the pair:

# %%
import torch


@torch.no_grad()
def logits(texts, **padding):
    return model(**tokenizer(texts, return_tensors="pt", **padding).to(model.device)).logits


print("alone:            ", logits(pair[0])[0].tolist())
print("alone, filled up: ", logits(pair[0], padding="max_length", max_length=64)[0].tolist())
try:
    logits(pair, padding=True)
except ValueError as error:
    print("both:             ", error)

# %% [markdown]
# The third line is an error, and errors are friendly. The second is not: the same review gets other numbers, because the head read the filling, and nobody says a word. This is how it has to be:

# %%
model.config.pad_token_id = tokenizer.pad_token_id

right = logits(pair[0])
for padding in ({"padding": "max_length", "max_length": 64}, {"padding": "longest"}):
    print(logits(pair, **padding)[0].tolist())
    assert torch.allclose(logits(pair, **padding)[0], right[0], atol=1e-4)

# %% [markdown]
# The first review now has the logits it had alone, however much filling stands behind it. `Trainer` copies the tokenizer's pad token into the config when training starts, if it is given the tokenizer. A loop of your own, or a model that is evaluated before it is trained, has no such luck. Set both yourself.
#
# ## What filling costs
#
# Filling is not free: the model computes every layer for every token of the rectangle. Three ways to build batches:
#
# - fill every review up to `max_length`, as many guides do;
# - fill up to the longest review *of the batch*;
# - the same, with batches made of reviews of similar length.

# %%
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

to_longest = DataCollatorWithPadding(tokenizer)
to_maximum = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=settings.max_length)
ways = {
    "to the maximum": (to_maximum, "random"),
    "to the longest": (to_longest, "random"),
    "grouped by length": (to_longest, "group_by_length"),
}


# %%
def batches_of_an_epoch(collator, strategy):
    arguments = TrainingArguments(
        "outputs/02/padding",
        per_device_train_batch_size=settings.per_device_train_batch_size,
        train_sampling_strategy=strategy,
        use_cpu=profile.use_cpu,
        seed=settings.seed,
    )
    return list(Trainer(model, arguments, train_dataset=train, data_collator=collator).get_train_dataloader())


batches = {name: batches_of_an_epoch(*way) for name, way in ways.items()}
tokens = {name: sum(batch["input_ids"].numel() for batch in epoch) for name, epoch in batches.items()}

# %% [markdown]
# The dataloaders are those that `Trainer` would use. Before you look: how much of the first rectangle is filling?

# %%
real_tokens = int(lengths.sum())
for name, count in tokens.items():
    print(f"{name:18} {count:9,} tokens in an epoch, {1 - real_tokens / count:4.0%} of them filling")

assert tokens["grouped by length"] < 0.8 * tokens["to the longest"] < 0.8 * tokens["to the maximum"]

# %% [markdown]
# Tokens are not seconds, so we time real training steps: four batches from all over each epoch, three rounds, the ways taking turns so that a busy moment of the machine hits them alike. The median round counts.

# %%
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)


def seconds_for(some_batches):
    start = time.perf_counter()
    for batch in some_batches:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.bf16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # a GPU is asked to finish
    return time.perf_counter() - start


# %%
samples = {name: epoch[len(epoch) // 8 :: len(epoch) // 4] for name, epoch in batches.items()}
rounds = [{name: seconds_for(sample) for name, sample in samples.items()} for _ in range(3)]

seconds = {}
for name, sample in samples.items():
    rate = sum(batch["input_ids"].numel() for batch in sample) / np.median([times[name] for times in rounds])
    seconds[name] = tokens[name] / rate
    print(f"{name:18} {rate:8,.0f} tokens a second, so {seconds[name]:5.1f} s an epoch")

# %% [markdown]
# The same reviews, the same model, the same number of steps: the difference is time spent on filling. Grouping keeps some chance in the order (it sorts only within large random portions), and it puts the longest batch first, so a run that will not fit into memory says so in its first step.
#
# ## Set up the training
#
# `Trainer` reports the loss by itself. Accuracy it reports only if somebody tells it how:


# %%
def compute_metrics(evaluation):
    predictions = evaluation.predictions.argmax(axis=-1)
    return {"accuracy": float((predictions == evaluation.label_ids).mean())}


# %% [markdown]
# The recipe in two halves. How to learn:

# %%
learning = {
    "num_train_epochs": settings.num_train_epochs,
    "per_device_train_batch_size": settings.per_device_train_batch_size,
    "learning_rate": settings.learning_rate,
    "weight_decay": settings.weight_decay,
    "warmup_steps": settings.warmup_steps,  # below 1: a share of all steps
    "train_sampling_strategy": "group_by_length",
    "bf16": settings.bf16,
    "use_cpu": profile.use_cpu,
    "seed": settings.seed,
}

# %% [markdown]
# And how to watch: validate six times, keep the weights of the best time, judged by *validation* loss. Progress bars are off because these outputs are stored; at your desk, turn them on.

# %%
watching = {
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 1 / 6,  # below 1: a share of all steps
    "save_steps": 1 / 6,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "per_device_eval_batch_size": settings.per_device_eval_batch_size,
    "logging_steps": settings.logging_steps,
    "disable_tqdm": True,
}

# %%
from transformers import PrinterCallback


def new_trainer(model, name, train_dataset=train, eval_dataset=validation, **changes):
    trainer = Trainer(
        model,
        TrainingArguments(f"outputs/02/{name}", **learning | watching | changes),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=to_longest,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.remove_callback(PrinterCallback)  # the curves show what it would print
    return trainer


# %% [markdown]
# Last, the model itself. The names of the labels and the pad token go into its config, and so into the saved file, where whoever loads it later will find them.


# %%
names = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}


def pretrained_gpt2(**changes):
    set_seed(settings.seed)  # the head starts at random: the same random each time
    return AutoModelForSequenceClassification.from_pretrained(
        settings.checkpoint,
        revision=settings.checkpoint_revision,
        pad_token_id=tokenizer.pad_token_id,
        **names,
        **changes,
    )


model = pretrained_gpt2()
trainer = new_trainer(model, "pretrained")
print(f"{model.num_parameters():,} parameters on {model.device.type}")

# %% [markdown]
# ## Predict, run, compare
#
# Three numbers that you can know before you start: steps, tokens, and the memory at the peak. The widest batch decides the last one.

# %%
import math

from helpers.memory import estimate

steps = math.ceil(math.ceil(len(train) / settings.per_device_train_batch_size) * settings.num_train_epochs)
memory = estimate(
    model.config,
    task="sequence-classification",
    per_device_train_batch_size=settings.per_device_train_batch_size,
    sequence_length=int(lengths.max()),
    precision="bf16" if settings.bf16 else "fp32",
    device=model.device.type,
)
predicted_tokens = tokens["grouped by length"] * settings.num_train_epochs
print(f"{steps:,} steps, {predicted_tokens:,.0f} tokens, {memory.peak_bytes / 1e6:,.0f} MB")

# %% [markdown]
# The memory can be checked before the long run starts: the longest batch comes first, so three steps reach the peak (two would do, since AdamW makes its state at the end of the first). `measure` runs what it is given and follows its memory.

# %%
from helpers.memory import measure

unwatched = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "logging_steps": 1}
measured = measure(new_trainer(pretrained_gpt2(), "probe", max_steps=3, **unwatched).train)
print(f"predicted {memory.peak_bytes / 1e6:.0f} MB, measured {measured.peak_bytes / 1e6:.0f} MB")

# %% [markdown]
# On a GPU this is the number to hold against the size of your card. It fits; now the real run. The tokens are taken from `total_flos`, where `Trainer` counts its work as six operations for each token and each parameter outside the embeddings.

# %%
trainer.train()

state = trainer.state
tokens_seen = state.total_flos / (6 * model.num_parameters(exclude_embeddings=True))
print(f"steps:  predicted {steps:9,}, done {state.global_step:9,}")
print(f"tokens: predicted {predicted_tokens:9,.0f}, done {tokens_seen:9,.0f}")

# %%
assert state.global_step == steps
assert abs(tokens_seen / predicted_tokens - 1) < 0.05
assert abs(measured.peak_bytes / memory.peak_bytes - 1) < 0.15

# %% [markdown]
# The steps are exact. The tokens may differ a little, because each epoch shuffles anew.

# %%
from helpers import curves

curves.plot(state.log_history, metric="accuracy")

# %%
curves.diagnose(state.log_history)

# %%
losses = {row["step"]: row["eval_loss"] for row in state.log_history if "eval_loss" in row}
print("validation loss:", {step: round(loss, 3) for step, loss in losses.items()})
print("kept: the weights of step", min(losses, key=losses.get))

assert min(losses.values()) < math.log(2) - 0.05, "better than guessing: ln(2)"

# %% [markdown]
# ## What was the pretraining worth?
#
# The newborn twin from lesson 01 gets the same job: the same shape from `from_config`, random numbers in it, the same reviews, the same steps. How far does it get?

# %%
set_seed(settings.seed)
newborn = AutoModelForSequenceClassification.from_config(model.config)
newborn_trainer = new_trainer(newborn, "newborn")
newborn_trainer.train()

curves.plot({"pretrained": state.log_history, "newborn": newborn_trainer.state.log_history}, metric="accuracy")

# %% [markdown]
# ## The test split, once
#
# Everything is chosen, so we may look. One trap lies on the way. Are these the labels of the first twelve reviews?

# %%
outcome = trainer.predict(test)
print("with the predictions:", outcome.label_ids[:12].tolist())
print("in the test split:   ", test["label"][:12])

# %% [markdown]
# They are not. `train_sampling_strategy`, whatever its name says, groups the *evaluation* batches too, and the predictions come back in that order. Accuracy does not suffer, for each label travels with its prediction; but whoever then looks up row 7 reads the wrong review. For predictions in the order of the rows:

# %%
for finished in (trainer, newborn_trainer):
    finished.args.train_sampling_strategy = "sequential"

outcome = trainer.predict(test)
labels, predictions = outcome.label_ids, outcome.predictions.argmax(axis=-1)
assert labels.tolist() == test["label"][:]

# %% [markdown]
# An accuracy alone says little. Beside it stand the newborn and the laziest classifier there is, which always gives the more frequent answer. The last column is twice the standard error: on other reviews the result would move about that much.

# %%
right = {
    "always the same": labels == np.bincount(labels).argmax(),
    "newborn": newborn_trainer.predict(test).predictions.argmax(axis=-1) == labels,
    "pretrained": predictions == labels,
}
for name, hits in right.items():
    print(f"{name:16} {hits.mean():.1%} +- {2 * hits.std() / math.sqrt(len(hits)):.1%}")

# %%
accuracy = {name: hits.mean() for name, hits in right.items()}
assert accuracy["pretrained"] > accuracy["always the same"] + 0.15
assert accuracy["pretrained"] > accuracy["newborn"] + 0.03

# %% [markdown]
# Both saw the same labelled reviews. The difference is what reading unlabelled text had left in the parameters.
#
# Which mistakes does it make? Rows are the truth, columns the answer:

# %%
from sklearn.metrics import ConfusionMatrixDisplay

figure, axes = plt.subplots(figsize=(3.5, 3.5))
ConfusionMatrixDisplay.from_predictions(
    labels, predictions, display_labels=label_names, cmap="Blues", colorbar=False, ax=axes
)
plt.show()

# %% [markdown]
# And which is it sure about? The mistakes that it made with the highest probability are the ones to read.

# %%
import textwrap

probabilities = torch.tensor(outcome.predictions).softmax(dim=-1).amax(dim=-1).numpy()
surest_mistakes = np.flatnonzero(predictions != labels)
surest_mistakes = surest_mistakes[np.argsort(-probabilities[surest_mistakes])][:3]

for row in surest_mistakes.tolist():
    said, truth = label_names[predictions[row]], label_names[labels[row]]
    print(f"said {said} ({probabilities[row]:.1%}), is {truth}:")
    print(textwrap.fill(test[row]["text"][:600], width=110), "\n")

# %% [markdown]
# Read them slowly. Whose opinion is it? Reviewers quote praise in order to deny it ("I was of the other opinion"), and say good things about the music before they tell us to stay at home. The model weighs the words it has seen and misses who says them. That is worth more than a tenth of a point of accuracy: it says which reviews to collect next.
#
# ## Save, load, use
#
# `save_model` writes the weights, the config and the tokenizer into one directory. Does what comes back give the same answers? Not roughly: we compare the logits.

# %%
trainer.save_model("outputs/02/reviews-gpt2")

reloaded = AutoModelForSequenceClassification.from_pretrained("outputs/02/reviews-gpt2")
again = new_trainer(reloaded, "reloaded", train_sampling_strategy="sequential").predict(test)

print(f"largest difference between logits: {np.abs(again.predictions - outcome.predictions).max():.1e}")
assert np.allclose(again.predictions, outcome.predictions, atol=1e-4)

# %% [markdown]
# For daily use there is `pipeline`: text in, label name out. It reads tokenizer, pad token and label names from the same directory.

# %%
from transformers import pipeline

classify = pipeline("text-classification", model="outputs/02/reviews-gpt2", truncation=True)
for row in test.select(range(3)):
    print(f"{classify(row['text'])[0]}   truth: {label_names[row['label']]}   {row['text'][:60]} ...")

# %%
first = list(test[:20]["text"])
assert [answer["label"] for answer in classify(first)] == [label_names[i] for i in predictions[:20]]

# %% [markdown]
# ## When it does not fit
#
# Suppose that 16 reviews at a time run out of memory. `gradient_accumulation_steps` takes the same 16 in four small batches before one update. Lesson 01 showed by hand that the gradients add up to the same. Does `Trainer` do it right? One step each way, without dropout and with plain SGD, so that a difference is a difference:


# %%
def one_step(batch_size, accumulation, **attributes):
    changes = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "warmup_steps": 0, "max_grad_norm": 0}
    changes |= {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    trainer = new_trainer(
        pretrained_gpt2(resid_pdrop=0.0, embd_pdrop=0.0), "step", train.select(range(16)), **unwatched, **changes
    )
    vars(trainer).update(attributes)
    return measure(trainer.train), trainer


# %%
def compare(name, measured, trainer):
    update = trainer.model.score.weight - whole_trainer.model.score.weight
    log = trainer.state.log_history[0]
    print(
        f"{name:22} {measured.peak_bytes / 1e6:4.0f} MB   loss {log['loss']:.3f}   gradient {log['grad_norm']:.3f}"
        f"   head differs by {update.abs().max():.0e}"
    )


whole, whole_trainer = one_step(16, 1)
quarters, quarters_trainer = one_step(4, 4)
compare("16 at once", whole, whole_trainer)
compare("4 times 4", quarters, quarters_trainer)

# %% [markdown]
# Much less memory, and another update: loss and gradient are four times too large. `Trainer` divides by the number of small batches only if it thinks that the model has not done so already, and it thinks that of every model whose `forward` takes further keyword arguments. GPT-2's classification head takes them and ignores them (known as issue 47688 of transformers). Usually nobody notices, since gradient clipping and AdamW both forgive a factor of four. One line says how it is:

# %%
mended, mended_trainer = one_step(4, 4, loss_is_scaled_for_ga=False)
compare("4 times 4, divided", mended, mended_trainer)

assert mended.peak_bytes < whole.peak_bytes
assert (mended_trainer.model.score.weight - whole_trainer.model.score.weight).abs().max() < 1e-5
assert quarters_trainer.state.log_history[0]["loss"] > 3.5 * whole_trainer.state.log_history[0]["loss"]

# %% [markdown]
# The same update to rounding, for less memory. So on a card that is too small: halve the batch, double `gradient_accumulation_steps`, set `trainer.loss_is_scaled_for_ga = False`, and check the loss of the first step against one that you know. If even a batch of one does not fit: shorter reviews, `activation_checkpointing=True`, a smaller model.
#
# ## When it does not learn
#
# Two runs, each broken in one place: one has a learning rate a thousand times too low, the other got its labels shuffled by a careless join. Can you tell from the curves which is which?

# %%
some, few = train.select(range(320)), validation.select(range(60))
scrambled_labels = np.random.default_rng(0).permutation(some["label"]).tolist()
scrambled = some.remove_columns("label").add_column("label", scrambled_labels)

short = {"eval_dataset": few, "num_train_epochs": 1, "logging_steps": 2, "seed": 1}
first_patient = new_trainer(pretrained_gpt2(), "patient", some, learning_rate=settings.learning_rate / 1000, **short)
second_patient = new_trainer(pretrained_gpt2(), "patient", scrambled, **short)
for patient in (first_patient, second_patient):
    patient.train()

# %%
patients = {"first patient": first_patient.state.log_history, "second patient": second_patient.state.log_history}
curves.plot(patients)

# %%
for name, history in patients.items():
    print(f"--- {name}\n{curves.diagnose(history)}\n")

# %% [markdown]
# Both hover about ln 2 = 0.69, the price of guessing between two. Two faults, one curve, one diagnosis. A small experiment tells them apart: **can it learn eight reviews by heart?** Any healthy loop can, whatever the labels.


# %%
def learn_by_heart(rows, learning_rate):
    model = pretrained_gpt2(resid_pdrop=0.0, embd_pdrop=0.0)
    changes = {"max_steps": 25, "learning_rate": learning_rate, **unwatched}
    trainer = new_trainer(model, "by-heart", rows.select(range(8)), **changes)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


for name, rows, rate in (("first", some, settings.learning_rate / 1000), ("second", scrambled, settings.learning_rate)):
    by_heart = learn_by_heart(rows, rate)
    print(f"{name} patient: loss {by_heart[0]:.2f} -> {by_heart[-1]:.2f}")

# %% [markdown]
# The first cannot even learn eight reviews by heart: the fault is in the *training*, so look at the learning rate, at frozen parameters, at the loop. The second can, yet what it learns helps with no other review: the fault is in the *data*. Then read some rows with their labels, which takes a minute:

# %%
for row in scrambled.select(range(3)):
    print(f"{label_names[row['label']]}: {row['text'][-160:]}\n")
assert by_heart[-1] < 0.2

# %% [markdown]
# ## Exercises
#
# Write the function, run the cell, and the check answers. Solutions: `solutions/02_imdb_gpt2_classifier.ipynb`.
#
# **1. Count the rectangle.** Reviews of these `lengths` are taken in this order, `batch_size` at a time, and each batch is filled up to its longest. How many tokens does the model compute? *Hint: the last batch may have fewer rows.*

# %%
from helpers import checks


def padded_tokens(lengths, batch_size):
    raise NotImplementedError


checks.lesson_02_padded_tokens(padded_tokens)

# %% [markdown]
# **2. The last real token.** `attention_mask` is a tensor of shape (rows, length), 1 for real tokens and 0 for filling. Return the position of each row's last real token. *Hint: filling may stand on the left, so counting the ones is not enough.*


# %%
def last_real_token(attention_mask):
    raise NotImplementedError


checks.lesson_02_last_real_token(last_real_token)

# %% [markdown]
# **3. Make it fit.** You want updates over `batch_size` reviews, and at most `largest_that_fits` fit into memory. Return `(per_device_train_batch_size, gradient_accumulation_steps)` so that their product is exactly `batch_size`, in as few small batches as possible. *Hint: 12 reviews, 5 fit: 4 and 3.*


# %%
def batch_and_accumulation(batch_size, largest_that_fits):
    raise NotImplementedError


checks.lesson_02_batch_and_accumulation(batch_and_accumulation)

# %% [markdown]
# ## What you have seen
#
# - Look before you train: sorted files, rows in two splits, lengths.
# - Choose by validation, look at test once.
# - A GPT-2 classifier needs the pad token in the tokenizer *and* in the config, or it reads filling.
# - Filling is paid for. Batches of similar length cost almost none.
# - Steps, tokens and memory are known before the start. If the prediction is wrong, something else is, too.
# - The same network without pretraining learns less from the same reviews.
# - A run that does not fit takes smaller batches and accumulates; check that the loss of the first step stays the same.
# - A run that does not learn: let it learn eight rows by heart. If it cannot, look at the training; if it can, at the data.
#
# **Next:** lesson 03 makes such a checkpoint from nothing. **For real:** `load_profile("full")` in the first cell, with a GPU and a network. **To read:** Radford et al. 2019 (GPT-2), Maas et al. 2011 (the IMDB reviews).
