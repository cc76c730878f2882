import pytest
import torch
from families import builders

from spro_hf.diffusion import memo
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.memo import remembered_prompts

CAPTIONS = ["a red circle", "a blue square on a white ground", "a red circle", "two green triangles"]


class Pipe:
    """Embeddings are the lengths of the prompts, nine times; counts the prompts that it was given."""

    def __init__(self):
        self.read = []

    def encode_prompt(
        self, prompt, negative_prompt=None, num_videos_per_prompt=1, layers=(1, 2), embeds=None, **kwargs
    ):
        prompt = [prompt] if isinstance(prompt, str) else prompt
        self.read += prompt
        return (torch.tensor([[float(len(p))] * 9 for p in prompt]), torch.arange(7), [p.upper() for p in prompt])


def test_a_prompt_is_encoded_once(sd3):
    seen = []
    sd3.text_encoder.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    plain = {"num_inference_steps": 1, "guidance_scale": 1.0}
    Environment(sd3, plain, batch_size=2).render(CAPTIONS, [0, 1, 2, 3])
    assert seen == [2, 1]  # two new prompts, then one new beside one that is known


def test_memo_gives_what_the_pipeline_gives_and_forgets(sd3):
    ask = {"prompt_2": None, "prompt_3": None, "device": torch.device("cpu"), "max_sequence_length": 2}
    ask["negative_prompt"] = "red"
    with torch.no_grad():
        stock = sd3.encode_prompt(list(CAPTIONS), **ask)
        with remembered_prompts(sd3):
            sd3.encode_prompt(CAPTIONS[:1], **ask)
            memo = sd3.encode_prompt(list(CAPTIONS), **ask)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(stock, memo, strict=True))
    assert memo[0].shape == stock[0].shape == (4, sd3.tokenizer.model_max_length + 2, 128)
    with torch.no_grad():
        sd3.text_encoder.text_model.embeddings.token_embedding.weight.mul_(2)
        with remembered_prompts(sd3):
            assert not torch.allclose(sd3.encode_prompt(list(CAPTIONS), **ask)[0], memo[0], atol=1e-3)
    assert "encode_prompt" not in vars(sd3)


def test_memo_joins_lists_and_shares_what_has_no_batch():
    pipe = Pipe()
    with remembered_prompts(pipe):
        pipe.encode_prompt(["ab", "c"])
        embeds, shared, texts = pipe.encode_prompt(["c", "ab", "c"])
    assert (embeds[:, 0].tolist(), shared.tolist(), texts) == ([1, 2, 1], [*range(7)], ["C", "AB", "C"])
    assert pipe.read == ["ab", "c"]


def test_memo_leaves_ragged_embeddings_to_the_pipeline():
    class Padding:
        def encode_prompt(self, prompt):
            longest = max(map(len, prompt))
            return (torch.tensor([[ord(c) for c in p.ljust(longest)] for p in prompt]),)

    pipe = Padding()
    with remembered_prompts(pipe):
        pipe.encode_prompt(["a"])
        assert pipe.encode_prompt(["a", "bc"])[0].tolist() == [[97, 32], [98, 99]]


@pytest.mark.parametrize(
    ("more", "remembered"),
    [
        ({"layers": (3, 4), "instruction": ["say", "it"]}, True),  # FLUX.2's and Sana's
        ({"num_videos_per_prompt": 1, "dtype": torch.float32, "device": torch.device("cpu")}, True),
        ({"num_videos_per_prompt": 2}, False),
        ({"num_images_per_prompt": 2}, False),
        ({"negative_prompt": ["x", "y"]}, False),  # one for each sample
        ({"negative_prompt": "x"}, True),
        ({"embeds": torch.zeros(2, 3)}, False),
    ],
)  # fmt: skip
def test_what_is_remembered(more, remembered):
    pipe = Pipe()
    with remembered_prompts(pipe):
        for _ in range(2):
            assert pipe.encode_prompt(["ab", "c"], **more)[0][:, 0].tolist() == [2, 1]
    assert pipe.read == ["ab", "c"] * (1 if remembered else 2)


def test_other_arguments_are_other_prompts():
    pipe = Pipe()
    with remembered_prompts(pipe):
        for more in ({}, {"layers": (1,)}, {"layers": (1, 2)}, {"negative_prompt": "x"}, {"layers": (1,)}):
            pipe.encode_prompt(["ab"], **more)
    assert pipe.read == ["ab"] * 4


def test_a_string_is_a_prompt_too():
    """FLUX and Qwen-Image give their negative prompt so, as it stands in the recipe, once for all samples."""
    pipe = Pipe()
    with remembered_prompts(pipe):
        for _ in range(2):
            assert pipe.encode_prompt("abc")[0].tolist() == [[3] * 9]
        assert pipe.encode_prompt(["abc", "d"])[2] == ["ABC", "D"]
    assert pipe.read == ["abc", "d"]


def test_one_within_another_has_the_same_memory():
    pipe = Pipe()
    with remembered_prompts(pipe):
        pipe.encode_prompt(["ab"])
        with remembered_prompts(pipe):
            pipe.encode_prompt(["ab", "c"])
        pipe.encode_prompt(["c"])
        assert pipe.read == ["ab", "c"]
    with remembered_prompts(pipe):
        pipe.encode_prompt(["c"])
    assert pipe.read == ["ab", "c", "c"]
    with pytest.raises(ZeroDivisionError), remembered_prompts(pipe):
        _ = 1 / 0
    assert "encode_prompt" not in vars(pipe)


def test_the_oldest_prompts_are_forgotten(monkeypatch):
    monkeypatch.setattr(memo, "KEPT", 2 * 9 * 4)  # two prompts of nine float32 each
    pipe = Pipe()
    with remembered_prompts(pipe):
        assert pipe.encode_prompt(["a", "bb", "ccc"])[0][:, 0].tolist() == [1, 2, 3]  # more than it keeps
        pipe.encode_prompt(["bb"])
        pipe.encode_prompt(["dddd"])  # bb was asked for after ccc
        pipe.encode_prompt(["bb"])
        pipe.encode_prompt(["ccc"])
    assert pipe.read == ["a", "bb", "ccc", "dddd", "ccc"]


def test_a_mask_that_is_left_out_where_nothing_is_padded():
    """Qwen-Image has no mask for prompts of one length. B was padded to A's, which is C's: theirs do not go together."""
    pipe = builders.qwen_image()
    a, b, c = "a blue square on a white ground", "a red circle", "a red circle on a white ground"
    with torch.no_grad():
        pieces = [pipe.encode_prompt([prompt]) for prompt in (a, b, c)]
        stock = pipe.encode_prompt([c, b])
        lengths = [piece[0].shape[1] for piece in pieces]
        assert lengths[0] == lengths[2] > lengths[1] and pieces[2][1] is None
        with remembered_prompts(pipe):
            both = pipe.encode_prompt([a, b])
            pipe.encode_prompt([c])
            got = pipe.encode_prompt([c, b])
            again = pipe.encode_prompt([b, a])
    assert stock[1].sum(1).tolist() == [lengths[2], lengths[1]]
    assert all(map(torch.equal, got, stock))
    assert all(torch.equal(part[[1, 0]], piece) for part, piece in zip(both, again, strict=True))


def test_as_many_prompts_as_tokens():
    """FLUX's positions, (tokens, 3), belong to no prompt, also where there are sixteen of both."""
    pipe = builders.flux()
    prompts = [f"{'red ' * i}circle" for i in range(16)]
    with torch.no_grad(), remembered_prompts(pipe):
        pipe.encode_prompt(prompts, max_sequence_length=16)
        got = pipe.encode_prompt(prompts[:3], max_sequence_length=16)
    with torch.no_grad():
        stock = pipe.encode_prompt(prompts[:3], max_sequence_length=16)
    assert got[2].shape == (16, 3)
    for part, expected in zip(got, stock, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)


def test_several_videos_of_a_prompt():
    pipe = builders.wan()
    with torch.no_grad():
        stock, _ = pipe.encode_prompt(CAPTIONS[:2], None, False, 2, max_sequence_length=16)
        with remembered_prompts(pipe):
            once, _ = pipe.encode_prompt(CAPTIONS[:2], None, False, 1, max_sequence_length=16)
            twice, _ = pipe.encode_prompt(CAPTIONS[:2], None, False, 2, max_sequence_length=16)
    assert torch.equal(twice, stock) and torch.equal(twice[::2], once)


def test_what_is_remembered_has_no_gradient(sd3):
    sd3.text_encoder.requires_grad_(True)
    with remembered_prompts(sd3):
        assert not any(part is not None and part.requires_grad for part in sd3.encode_prompt(CAPTIONS, None, None))
