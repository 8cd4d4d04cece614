"""A character tokenizer: one token per character, exact round trips of ASCII.

It is a byte-level BPE without merges, in the class that transformers insists on for a Qwen2 model: AutoTokenizer
ignores any other class that such a folder names, and would split the text by Qwen's rules and drop the spaces.
"""

from __future__ import annotations

from transformers import Qwen2Tokenizer

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
BYTE_LEVEL = {"\n": "Ċ", " ": "Ġ"}  # how byte-level vocabularies write what is not printable
MAX_LENGTH = 512
# Enough for tools that insist on a chat template; a base model has no roles.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def build_tokenizer() -> Qwen2Tokenizer:
    """Token ids: 0 <pad>, 1 <eos>, 2 <unk>, then newline and printable ASCII. Nothing is added around a text."""
    characters = [BYTE_LEVEL.get(character, character) for character in CHARACTERS]
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate([PAD, EOS, UNK, *characters])},
        merges=[],
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        bos_token=None,
        model_max_length=MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
