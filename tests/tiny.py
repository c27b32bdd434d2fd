"""A tiny random model and its tokenizer, built in code: tests need no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

CONTEXT = 256
VOCABULARY = 800
WORDS = (
    "Canberra Paris Rome Berlin Oslo Madrid Sydney London Lisbon Vienna Ada Grace Elder Edith "
    "red green blue black white yellow one two three four five six seven eight nine ten yes no "
    "cat dog bird fish horse sun moon star sea sky tea milk rice bread salt gold iron silver "
    "right wrong better answer good bad old new first second third last target A B C D E"
).split()
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with one token for each of ``WORDS``; `<e>` ends a text, `<p>` pads.

    A random model is no language model: one learned vector can make it say a word of one token
    and stop, but not spell. So the words that tests teach are tokens; all else falls to bytes.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<u>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<p>", "<e>", "<u>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {w}" for w in WORDS] + list(WORDS), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<e>",
        pad_token="<p>",
        unk_token="<u>",
        additional_special_tokens=marks[3:],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random Llama: 4 layers, width 64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": CONTEXT,
                "initializer_range": 0.2,
                "eos_token_id": 1,
                "pad_token_id": 0,
                "bos_token_id": None,
                "tie_word_embeddings": False,
                **changes,
            }
        )
        return _ending(LlamaForCausalLM(config).eval())


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """A random GPT-2: 4 layers, width 64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=64,
            n_layer=4,
            n_head=4,
            n_positions=CONTEXT,
            initializer_range=0.2,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            tie_word_embeddings=False,
        )
        return _ending(GPT2LMHeadModel(config).eval())


def tiny_t5(seed: int = 0) -> T5ForConditionalGeneration:
    """A random T5: 3 + 2 layers, width 64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=3,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.1,
            initializer_factor=1.0,
            eos_token_id=1,
            pad_token_id=0,
            decoder_start_token_id=0,
            tie_word_embeddings=False,
        )
        model = T5ForConditionalGeneration(config).eval()
        for block in model.decoder.block:  # at random it would hardly listen to the encoder
            block.layer[1].EncDecAttention.o.weight.data *= 8
        return _ending(model, habit=16.0)


def tiny_bert(seed: int = 0) -> BertForSequenceClassification:
    """A random BERT classifier: 3 layers, width 64, labels `negative`, `neutral`, `positive`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(BertConfig(**_LABELS, num_hidden_layers=3)).eval()


def tiny_llama_classifier(seed: int = 0) -> LlamaForSequenceClassification:
    """A random Llama with a classification head, and the labels of ``tiny_bert``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(**_LABELS, num_hidden_layers=3)
        return LlamaForSequenceClassification(config).eval()


_LABELS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "id2label": {0: "negative", 1: "neutral", 2: "positive"},
    "label2id": {"negative": 0, "neutral": 1, "positive": 2},
}


def _ending(model: Any, *, habit: float = 4.0) -> Any:
    """Makes a word likely to be followed by the end: the one habit of language that edits need."""
    tokenizer = tiny_tokenizer()
    pieces = [tokenizer(text).input_ids for word in WORDS for text in (word, f" {word}")]
    words = [ids[0] for ids in pieces if len(ids) == 1]
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id, -1] += habit
        model.get_input_embeddings().weight[words, -1] += 12.0
    return model


def save_tiny(folder: Path, *, seed: int = 0) -> Path:
    """Writes the tiny Llama and its tokenizer as a local model folder."""
    tiny_llama(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


class Int8Linear(nn.Module):
    """A linear map as quantisation libraries replace it: integers, scales, no float weight."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        scale = plain.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("packed", (plain.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.packed.to(inputs.dtype) * self.scale)


def int8(model: Any) -> Any:
    """A model of which all linear maps but the head are quantised."""
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and path != "lm_head":
            model.set_submodule(path, Int8Linear(module))
    return model
