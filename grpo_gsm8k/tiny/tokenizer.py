"""A character tokenizer: one token per character, exact round trips of ASCII.

It is a byte-level BPE without merges in the class Qwen2Tokenizer: for a Qwen2 model, AutoTokenizer ignores any other
class named in the folder, and would split the text by Qwen's rules and drop the spaces.
"""

from __future__ import annotations

from transformers import Qwen2Tokenizer

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
BYTE_LEVEL = {"\n": "Ċ", " ": "Ġ"}  # how byte-level vocabularies represent these characters
MAX_LENGTH = 512
# For tools that require a chat template; this base model does not distinguish roles.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def build_tokenizer() -> Qwen2Tokenizer:
    """Build the tokenizer: ids 0 <pad>, 1 <eos>, 2 <unk>, then newline and printable ASCII; no BOS or EOS is added."""
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
