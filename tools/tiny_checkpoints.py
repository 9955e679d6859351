"""A tiny random checkpoint of each architecture that people fine-tune, with a tokenizer of its kind, as on the Hub.

The shapes are those of `memory_cases.py`; the tokenizers are trained on our reviews. What differs between real ones is
kept: WordPiece, byte-level BPE, Unigram and SentencePiece's BPE; which special tokens stand around a text; that some
have no token for padding; and that the weights of modern ones are stored in bf16.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from memory_cases import ARCHITECTURES, BERT, DISTILBERT, GPT2, LLAMA, QWEN2, ROBERTA

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {"GPT-2": GPT2, "BERT": BERT, "RoBERTa": ROBERTA, "DistilBERT": DISTILBERT, "Llama": LLAMA, "Qwen2": QWEN2}
SHAPES |= ARCHITECTURES
VOCABULARY, LONGEST = 1500, 512


@dataclass(frozen=True)
class Kind:
    """A tokenizer: its model, and its special tokens by the names of `PreTrainedTokenizerFast`.

    `template` says what stands around a text ($A) and around a pair ($A, $B), in the notation of `TemplateProcessing`.
    """

    model: str  # wordpiece, bytes, unigram or sentencepiece
    special: dict[str, str]
    template: tuple[str, str] = ("$A", "$A $B:1")
    padding_side: str = "right"
    nameless: tuple[str, ...] = ()  # special tokens that transformers has no name for


_BRACKETS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
_BRACKETS |= {"mask_token": "[MASK]"}
_AROUND = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
_ANGLES = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
_ANGLES |= {"unk_token": "<unk>", "mask_token": "<mask>"}
_END = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
_IM = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

WORDPIECE = Kind("wordpiece", _BRACKETS, _AROUND)
BRACKETS_BYTES = Kind("bytes", _BRACKETS, _AROUND)
ROBERTAS = Kind("bytes", _ANGLES, ("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1"))
BRACKETS_UNIGRAM = Kind("unigram", _BRACKETS, _AROUND)
XLM_RS = Kind("unigram", _ANGLES, ROBERTAS.template)
T5S = Kind("unigram", {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}, ("$A </s>", "$A </s> $B </s>"))
LLAMAS = Kind(
    "sentencepiece",
    {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ("<s> $A", "<s> $A <s>:1 $B:1"),
)
GEMMAS = Kind(
    "sentencepiece",
    {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
    ("<bos> $A", "<bos> $A <bos>:1 $B:1"),
)
NO_PADDING, QWENS = Kind("bytes", _END), Kind("bytes", _IM)
PADDED = Kind("bytes", {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"})
MPNETS = Kind("wordpiece", _ANGLES | {"unk_token": "[UNK]"}, ROBERTAS.template)
_BEGIN = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
EUROBERTS = Kind(
    "bytes",
    _BEGIN | {"pad_token": "<|pad|>", "mask_token": "<|mask|>"},
    ("<|begin_of_text|> $A <|end_of_text|>", "<|begin_of_text|> $A <|end_of_text|> $B:1 <|end_of_text|>:1"),
)
XLNETS = Kind(
    "unigram",
    {"cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
    ("$A <sep> <cls>:2", "$A <sep> $B:1 <sep>:1 <cls>:2"),
    padding_side="left",
)
_BEGUN = "<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1"
LLAMA_3S = Kind("bytes", _BEGIN, _BEGUN)
BEGUN = Kind("bytes", _BEGIN | {"pad_token": "<|pad|>"}, _BEGUN)
MBARTS = Kind("unigram", _ANGLES, ("$A </s> en_XX", "$A $B </s> en_XX"), nameless=("en_XX",))

KINDS = {
    **dict.fromkeys(("BERT", "DistilBERT", "ELECTRA"), WORDPIECE),
    **dict.fromkeys(("RoBERTa", "BART"), ROBERTAS),
    **dict.fromkeys(("ALBERT", "DeBERTa-v3"), BRACKETS_UNIGRAM),
    **dict.fromkeys(("ModernBERT", "DeBERTa"), BRACKETS_BYTES),
    **dict.fromkeys(("T5", "Flan-T5"), T5S),
    **dict.fromkeys(("Llama", "Mistral", "Mixtral"), LLAMAS),
    **dict.fromkeys(("Gemma 2", "Gemma 3"), GEMMAS),
    **dict.fromkeys(("GPT-2", "GPT-NeoX", "Falcon", "Mamba"), NO_PADDING),
    **dict.fromkeys(("Qwen2", "Qwen3", "SmolLM3", "Phi-3"), QWENS),
    **dict.fromkeys(("OLMo 2", "OPT", "BLOOM", "Granite"), PADDED),
    **dict.fromkeys(("XLM-R", "CamemBERT"), XLM_RS),
    "MPNet": MPNETS,
    "EuroBERT": EUROBERTS,
    "NomicBERT": WORDPIECE,
    "XLNet": XLNETS,
    "Longformer": ROBERTAS,
    "BigBird": BRACKETS_UNIGRAM,
    "Llama 3": LLAMA_3S,
    **dict.fromkeys(("Gemma", "Gemma 3n", "Gemma 4"), GEMMAS),
    **dict.fromkeys(("Phi-2", "StableLM", "StarCoder", "StarCoder 2", "GPT-J", "MiniMax"), NO_PADDING),
    **dict.fromkeys(("Qwen2-MoE", "Qwen3-MoE", "Qwen3.5"), QWENS),
    **dict.fromkeys(("OLMo 3", "GLM-4"), PADDED),
    **dict.fromkeys(("Cohere 2", "GPT-OSS", "LFM2", "Falcon-H1"), BEGUN),
    **dict.fromkeys(("Nemotron", "ERNIE 4.5"), LLAMAS),
    "mT5": T5S,
    "mBART": MBARTS,
}
IN_BF16 = (
    "Llama",
    "Qwen2",
    "Qwen3",
    "Gemma 2",
    "Gemma 3",
    "Phi-3",
    "SmolLM3",
    "OLMo 2",
    "Mistral",
    "Mixtral",
    "Granite",
    *("EuroBERT", "Llama 3", "Gemma", "Gemma 3n", "Gemma 4", "Cohere 2", "StableLM", "StarCoder 2", "Qwen2-MoE"),
    *("Qwen3-MoE", "Qwen3.5", "OLMo 3", "GLM-4", "Nemotron", "GPT-OSS", "ERNIE 4.5", "LFM2", "Falcon-H1", "MiniMax"),
)


def texts() -> list[str]:
    """What the tokenizers are trained on."""
    with (ROOT / "data" / "documents.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def make_tokenizer(kind: Kind):
    """A tokenizer of this kind, with a vocabulary of our documents."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([*kind.special.values(), *kind.nameless]))
    unknown = kind.special.get("unk_token")
    options = dict(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    if kind.model == "wordpiece":
        tokenizer, trainer = Tokenizer(models.WordPiece(unk_token=unknown)), trainers.WordPieceTrainer(**options)
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    elif kind.model == "bytes":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer(initial_alphabet=alphabet, **options)
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
    else:
        if kind.model == "unigram":
            tokenizer, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(unk_token=unknown, **options)
        else:
            tokenizer = Tokenizer(models.BPE(unk_token=unknown, fuse_unk=True))
            trainer = trainers.BpeTrainer(**options)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(texts(), trainer)
    single, pair = kind.template
    around = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, padding_side=kind.padding_side, **kind.special
    )


def make_checkpoint(name: str, folder: Path, **changed) -> Path:
    """Writes model and tokenizer of one of `SHAPES` into a folder, and returns it; `changed` are keys of its config."""
    import torch
    from transformers import (
        CONFIG_MAPPING,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
        set_seed,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    values, tokenizer = dict(SHAPES[name]), make_tokenizer(KINDS[name])
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if KINDS[name].model == "wordpiece" or "cls_token" in KINDS[name].special:
        ids |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    if values["model_type"] in ("t5", "mt5", "bart", "mbart"):
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
    config = CONFIG_MAPPING[values.pop("model_type")](**values | ids | {"vocab_size": len(tokenizer)} | changed)
    if config.is_encoder_decoder:
        kind = AutoModelForSeq2SeqLM
    else:
        kind = AutoModelForMaskedLM if type(config) in MODEL_FOR_MASKED_LM_MAPPING else AutoModelForCausalLM
    set_seed(0)
    model = kind.from_config(config)
    (model.to(torch.bfloat16) if name in IN_BF16 else model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
