import hashlib
import time

import pytest
import torch
from pretrained import pretrained_encoder
from tiny_encoders import text_checkpoint

from imer_bench.harness.language_models import LanguageModels, byte_tokenizer, freeze, is_random, resolve


@pytest.fixture(scope="module")
def tiny():
    return resolve("random-t5-tiny")


def test_a_random_encoder_is_frozen_and_of_a_real_class(tiny):
    from transformers import T5EncoderModel

    assert isinstance(tiny.encoder, T5EncoderModel)
    assert tiny.random
    assert tiny.width == tiny.word_embeddings.shape[1]
    assert not tiny.encoder.training
    assert not any(p.requires_grad for p in tiny.encoder.parameters())


def test_a_random_encoder_depends_on_its_seed_only(tiny):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = resolve("random:0:t5-tiny")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.weights_hash == tiny.weights_hash
    assert resolve("random:1:t5-tiny").weights_hash != tiny.weights_hash


@pytest.mark.parametrize("family", ["t5-tiny", "bert-tiny"])
def test_gradients_reach_the_embeddings_and_padding_does_not_matter(family):
    model = resolve(f"random-{family}")
    generator = torch.Generator().manual_seed(0)
    short = torch.randn(2, 4, model.width, generator=generator, requires_grad=True)
    mask = torch.ones(2, 4, dtype=torch.bool)
    states = model.encode_embeddings(short, mask)
    states[:, 0].square().sum().backward()
    assert short.grad is not None
    assert (short.grad.abs().sum(dim=-1) > 0).all()
    noise = 100 * torch.randn(2, 3, model.width, generator=generator)
    padded = torch.cat([short.detach(), noise], dim=1)
    longer = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        model.encode_embeddings(padded, longer)[:, :4], states.detach(), atol=1e-5, rtol=1e-5
    )


def test_byte_tokens_are_those_of_byt5():
    ids, pad = byte_tokenizer(["a", "é"], True)
    assert ids == [[ord("a") + 3, 1], [0xC3 + 3, 0xA9 + 3, 1]]
    assert pad == 0


def test_texts_are_padded_and_masked(tiny):
    tokens = tiny.tokenize(["ab", "abcd"])
    assert tokens.ids.shape == (2, 5)
    assert tokens.mask.sum(dim=1).tolist() == [3, 5]
    assert tiny.tokenize(["ab"], special=False).ids.tolist() == [[100, 101]]
    alone, _ = tiny.encode_texts(["ab"])
    together, _ = tiny.encode_texts(["ab", "abcd"])
    torch.testing.assert_close(together[0, :3], alone[0], atol=1e-5, rtol=1e-5)


def test_a_model_is_held_once():
    models = LanguageModels()
    first = models.resolve("random-t5-tiny")
    assert models.resolve("random-t5-tiny", "cpu") is first
    assert models.held == (first,)


def test_an_unknown_random_family_names_the_known_ones():
    with pytest.raises(LookupError, match="t5-tiny"):
        resolve("random-gpt-huge")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_without_a_cached_model_fails_fast_and_names_the_ways_out(monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, "1")
    begun = time.perf_counter()
    with pytest.raises(LookupError) as caught:
        resolve(f"{tmp_path.name}-nobody/no-such-model")
    assert time.perf_counter() - begun < 10
    message = str(caught.value)
    for part in (
        f"{tmp_path.name}-nobody/no-such-model",
        variable,
        "local folder",
        "learned",
        "random-t5-tiny",
    ):
        assert part in message


def test_a_local_folder_loads_what_was_saved(tmp_path):
    folder = text_checkpoint(tmp_path / "bert")
    loaded = resolve(str(folder))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.weights_hash == digest
    assert not loaded.random
    assert not loaded.encoder.training
    tokens = loaded.tokenize(["good film", "film"], special=False)
    assert tokens.mask.tolist() == [[True, True], [True, False]]
    assert torch.equal(tokens.ids[0, 1], tokens.ids[1, 0])


def test_an_id_is_found_below_the_folder_of_pretrained_models(tmp_path, monkeypatch):
    folder = text_checkpoint(tmp_path / "models" / "lab" / "bert")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LookupError, match=r"'lab/bert' at hand.*IMER_PRETRAINED"):
        resolve("lab/bert")
    monkeypatch.setenv("IMER_PRETRAINED", str(tmp_path / "models"))
    model = resolve("lab/bert")
    assert (model.name, model.weights_hash) == ("lab/bert", resolve(str(folder)).weights_hash)


def test_a_name_can_insist_on_weights(tmp_path):
    folder = text_checkpoint(tmp_path / "bert")
    digest = resolve(str(folder)).weights_hash
    assert resolve(f"{folder}@{digest[:12]}").weights_hash == digest
    text_checkpoint(folder, seed=1)
    with pytest.raises(ValueError, match=rf"@{digest[:12]}': the weights in .*bert have the SHA-256"):
        resolve(f"{folder}@{digest[:12]}")


def test_a_random_twin_differs_from_its_model_in_the_weights_alone(tmp_path):
    folder = text_checkpoint(tmp_path / "bert", seed=5)
    model, twin = resolve(str(folder)), resolve(f"random:0:{folder}")
    assert (model.random, twin.random) == (False, True)
    texts = ["not a good film", "fun"]
    assert torch.equal(model.tokenize(texts).ids, twin.tokenize(texts).ids)
    theirs, ours = model.encoder.state_dict(), twin.encoder.state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {
        name: value.shape for name, value in ours.items()
    }
    assert not torch.allclose(theirs["embeddings.word_embeddings.weight"], twin.word_embeddings)
    assert resolve(f"random:0:{folder}").weights_hash == twin.weights_hash
    assert resolve(f"random:1:{folder}").weights_hash != twin.weights_hash


def test_a_model_that_reads_left_to_right_is_refused():
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    with pytest.raises(ValueError, match="left to right"):
        freeze("gpt", GPT2Model(config), byte_tokenizer, True, torch.device("cpu"))


def test_random_names_are_recognised():
    assert is_random("random-bert-tiny")
    assert is_random("random:3:t5-tiny")
    assert is_random("random:0:google-t5/t5-base")
    assert not is_random("google-t5/t5-base")


@pytest.mark.slow
def test_a_real_sentence_encoder_knows_what_class_descriptions_mean():
    model = resolve(pretrained_encoder())
    assert not model.random
    states, mask = model.encode_texts(
        ["positive emotion", "negative emotion", "joy and delight", "grief and anger"]
    )
    weight = mask[..., None].float()
    vectors = torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)
    positive, negative, joy, grief = vectors
    assert positive @ joy > negative @ joy
    assert negative @ grief > positive @ grief
