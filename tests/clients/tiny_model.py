"""Writes a model file small enough to make on the spot: llama architecture, random weights.

Its answers are readable nonsense, the same ones for the same seed at temperature 0, and end only
where the request says so: every token but the whole words has an output row of zeros.
"""

import itertools

import gguf
import numpy

WIDTH, HEADS, HIDDEN = 32, 4, 64
# Room for an answer that takes longer than it takes to leave it.
CONTEXT = 1 << 15
SPECIAL = ["<unk>", "<s>", "</s>"]
END = SPECIAL.index("</s>")
WORDS = ["".join(parts) for parts in itertools.product("bdklmnrst", "aeiou", ["n", "r", "st"])]
TEMPLATE = ("{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
            "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}")


def write(path, seed=1):
    """Writes the model to `path`."""
    tokens, kinds, scores = _vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_scores(scores)
    writer.add_bos_token_id(SPECIAL.index("<s>"))
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(SPECIAL.index("<unk>"))
    writer.add_chat_template(TEMPLATE)
    for name, values in _weights(len(tokens), numpy.random.default_rng(seed)):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary():
    """Returns tokens, their kinds and scores: enough to read any prompt, byte by byte if need be."""
    kind = gguf.TokenType
    groups = [
        (SPECIAL, kind.CONTROL, 0.0),
        ([f"<0x{byte:02X}>" for byte in range(256)], kind.BYTE, 0.0),
        (["\u2581", *map(chr, range(33, 127))], kind.NORMAL, -2.0),
        (["\u2581" + word for word in WORDS], kind.NORMAL, -1.0),
    ]
    rows = [(token, kind, score) for tokens, kind, score in groups for token in tokens]
    rows[0] = ("<unk>", kind.UNKNOWN, 0.0)
    tokens, kinds, scores = zip(*rows)
    return list(tokens), [int(kind) for kind in kinds], list(scores)


def _weights(vocabulary, random):
    def matrix(rows, columns):
        values = random.standard_normal((rows, columns)) / columns**0.5
        return values.astype(numpy.float32)

    ones = numpy.ones(WIDTH, numpy.float32)
    output = matrix(vocabulary, WIDTH)
    output[:-len(WORDS)] = 0
    yield "token_embd.weight", matrix(vocabulary, WIDTH)
    yield "output.weight", output
    yield "output_norm.weight", ones
    for norm in "attn_norm", "ffn_norm":
        yield f"blk.0.{norm}.weight", ones
    for part in "attn_q", "attn_k", "attn_v", "attn_output":
        yield f"blk.0.{part}.weight", matrix(WIDTH, WIDTH)
    yield "blk.0.ffn_gate.weight", matrix(HIDDEN, WIDTH)
    yield "blk.0.ffn_up.weight", matrix(HIDDEN, WIDTH)
    yield "blk.0.ffn_down.weight", matrix(WIDTH, HIDDEN)
