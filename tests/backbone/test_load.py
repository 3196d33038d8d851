"""Loading: clear errors, the three real families at tiny size, what is shipped."""

import pytest
import torch

from graphflow.backbone.compat import UnsupportedModelError, check_family
from graphflow.backbone.load import Backbone, BackboneConfig, BackboneError, load_backbone
from graphflow.backbone.turns import MINI
from graphflow.engine.fidelity import exact_logits
from graphflow.errors import UnknownNameError
from graphflow.kv import UnsupportedRopeError
from graphflow.wgraph.operation import Kind, Operation
from tests.tiny import COMMON, FAMILIES, tiny_backbone, tiny_model, tiny_tokenizer


def test_an_absent_folder_names_the_ways_out():
    with pytest.raises(BackboneError, match="backbone.path: no model in .*shipped backbones are"):
        load_backbone(BackboneConfig(name="no-such-model"))


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="backbone.dtype must be one of float32, bfloat16, float16, got 'float8'"):
        BackboneConfig(dtype="float8")


def test_an_unknown_turn_format_is_refused(tmp_path):
    save(tmp_path, "qwen2")
    with pytest.raises(UnknownNameError, match="qwenn"):
        load_backbone(BackboneConfig(path=str(tmp_path), turns="qwenn"))


def save(folder, family):
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_local_folder_loads_and_gives_the_same_logits(family, tmp_path):
    save(tmp_path, family)
    backbone = load_backbone(BackboneConfig(name="saved", path=str(tmp_path)))
    fresh = tiny_backbone(family)
    assert backbone.fingerprint == fresh.fingerprint
    ids = torch.tensor([[1, 9, 12, 30]])
    assert torch.allclose(backbone.model(ids).logits, fresh.model(ids).logits, atol=1e-5)


def test_random_weights_differ_from_saved_ones(tmp_path):
    save(tmp_path, "qwen2")
    backbone = load_backbone(BackboneConfig(name="random", path=str(tmp_path), random=True, seed=3))
    assert backbone.fingerprint != tiny_backbone().fingerprint


def test_other_families_and_moving_frequencies_are_refused():
    from transformers import GPT2Config, Qwen2Config, Qwen2ForCausalLM

    with pytest.raises(UnsupportedModelError, match="model_type must be one of .* got 'gpt2'"):
        check_family(GPT2Config())
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    model = Qwen2ForCausalLM(Qwen2Config(**{**COMMON, "num_hidden_layers": 1}, rope_parameters=rope))
    from graphflow.backbone.compat import rope_of

    with pytest.raises(UnsupportedRopeError, match="dynamic"):
        rope_of(model)


def test_windows_that_the_masks_do_not_have_are_refused():
    """Mistral's layers all slide where it has a window; without one its logits are the model's own."""
    from transformers import MistralConfig, MistralForCausalLM

    with pytest.raises(UnsupportedModelError, match="sliding_window must be null for model_type 'mistral'.* got 16"):
        check_family(MistralConfig(**COMMON, sliding_window=16))
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**{**COMMON, "initializer_range": 0.3}, sliding_window=None)).eval()
    ids = [index % 20 + 8 for index in range(40)]
    backbone = Backbone("mistral", model, tiny_tokenizer(), MINI)
    with torch.inference_mode():
        want = model(torch.tensor([ids])).logits[0]
    assert torch.allclose(exact_logits(backbone, ids, len(ids)), want, atol=1e-5)


def test_real_configuration_classes_build_at_tiny_size():
    """The paper's backbones have the class, layer types and geometry that the code counts on."""
    from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2Config

    from graphflow.backbone.load import Backbone
    from graphflow.backbone.turns import turn_format

    real = {
        "qwen": Qwen2Config(hidden_size=3584, num_attention_heads=28, num_key_value_heads=4, num_hidden_layers=28),
        "llama": LlamaConfig(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=32),
        "gemma": Gemma2Config(num_attention_heads=16, num_key_value_heads=8, head_dim=256, num_hidden_layers=42),
    }
    per_token = {"qwen": 57_344, "llama": 131_072, "gemma": 344_064}
    for turns, config in real.items():
        heads, layers = config.num_key_value_heads, config.num_hidden_layers
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        assert layers * 2 * heads * dim * 2 == per_token[turns]
        values = {**config.to_dict(), **COMMON}
        values.pop("layer_types", None)
        tiny = type(config)(**values)
        backbone = Backbone("tiny", AutoModelForCausalLM.from_config(tiny), tiny_tokenizer(), turn_format(turns))
        assert backbone.shape(torch.bfloat16).bytes_per_token == 4 * 2 * 2 * 8 * 2


def test_room_is_for_task_prompt_and_all_that_may_be_written():
    backbone = tiny_backbone()
    operation = Operation("say", Kind.LLM, ("task",), "plan", prompt="one two", max_tokens=10)
    size = sum(len(backbone.encode(text)) for text in (backbone.turns.write_task("three"), "<|op|>one two<|out|>"))
    for limit, room in ((size + 10, True), (size + 9, False)):
        backbone.model.config.max_position_embeddings = limit
        assert backbone.has_room(operation, "three") is room
