"""Settings: text for enums, and every guard tripped."""

import re

import pytest

from graphflow.kv.modes import KVConfig, Scope, StateMode


def test_enums_may_arrive_as_text():
    config = KVConfig(mode="no_pruning", scope="REQUEST")  # type: ignore[arg-type]
    assert (config.mode, config.scope) == (StateMode.NO_PRUNING, Scope.REQUEST)
    assert [mode.value for mode in StateMode if KVConfig(mode).has_bases] == [
        "stateless",
        "differential",
        "no_pruning",
        "blend",
    ]
    assert [mode.value for mode in StateMode if KVConfig(mode).by_tokens] == ["prefix", "operation_first"]


def test_scope_matters_only_where_there_are_residuals():
    per_request = {mode: KVConfig(mode, Scope.REQUEST).per_request for mode in StateMode}
    assert {mode for mode in StateMode if per_request[mode]} == {StateMode.DIFFERENTIAL, StateMode.NO_PRUNING}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mode", "diferential", "mode must be one of stateful, stateless, differential, no_pruning, stateful_int8,"),
        ("mode", "diferential", "Did you mean 'differential'?"),
        ("scope", "task", "scope must be one of path, request, got 'task'"),
        ("exact_head", -1, "exact_head must be an integer of 0 or more, got -1"),
        ("exact_tail", 0, "exact_tail must be an integer of 1 or more, got 0"),
        ("exact_tail", True, "exact_tail must be an integer of 1 or more, got True"),
        ("exact_tail", 1.5, "exact_tail must be an integer of 1 or more, got 1.5"),
        ("density", 0.0, "density must be in (0, 1], got 0.0"),
        ("density", "0.25", "density must be a number, got '0.25'"),
        ("hysteresis", None, "hysteresis must be a number, got None"),
        ("codec", None, "codec must be one of "),
        ("density", 1.1, "density must be in (0, 1], got 1.1"),
        ("value_bits", 4, "value_bits must be one of 8, 16, 32, got 4"),
        ("codec", "denser", "got 'denser'. Did you mean 'dense'?"),
        ("min_observations", 0, "min_observations must be an integer of 1 or more, got 0"),
        ("coverage", 0, "coverage must be in (0, 1], got 0"),
        ("decay", 1.01, "decay must be in (0, 1], got 1.01"),
        ("hysteresis", 1.5, "hysteresis must be in [0, 1], got 1.5"),
        ("judges_exact", "no", "judges_exact must be true or false, got 'no'"),
        ("prune_every", 0, "prune_every must be an integer of 1 or more, got 0"),
        ("workspace_items", -1, "workspace_items must be an integer of 0 or more, got -1"),
        ("workspace_bytes", -1, "workspace_bytes must be an integer of 0 or more, got -1"),
        ("store_bytes", -1, "store_bytes must be an integer of 0 or more, got -1"),
        ("store_bytes", 32_767, "store_bytes must be 0 or at least 8 x tracked_paths = 32,768, got 32,767"),
        ("tracked_paths", 0, "tracked_paths must be an integer of 1 or more, got 0"),
        ("learning_paths", 0, "learning_paths must be an integer of 1 or more, got 0"),
        ("dynamic_codec", "int9", "dynamic_codec must be one of none, sparse, dense, int8, int4, rows, mean_shift,"),
        ("dynamic_codec", "int9", "got 'int9'. Did you mean"),
        ("dynamic_density", 0.0, "dynamic_density must be in (0, 1], got 0.0"),
        ("saliency", "query", "saliency must be one of none, queries, got 'query'. Did you mean 'queries'?"),
        ("allocate", "equal", "allocate must be one of even, waterfill, got 'equal'"),
        ("base_anchor", "boss", "base_anchor must be one of none, bos, neutral, got 'boss'. Did you mean 'bos'?"),
        ("control", "other", "control must be one of none, zero, other_path, other_operation, other_request, got"),
        ("rerun", 1.5, "rerun must be in [0, 1], got 1.5"),
    ],
)
def test_guards(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        KVConfig(**{"mode": StateMode.DIFFERENTIAL, field: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "dense", "value_bits": 8}, "value_bits must be one of 16, 32 with codec dense, got 8"),
        ({"codec": "low_rank", "value_bits": 8}, "value_bits must be one of 16, 32 with codec low_rank, got 8"),
        ({"dynamic_codec": "dense", "value_bits": 8}, "must be one of 16, 32 with dynamic_codec dense, got 8"),
        ({"max_error": 0.1}, "max_error must be 0 unless allocate is waterfill, got 0.1"),
        ({"codec": "rows", "allocate": "waterfill"}, "one of sparse, mean_shift with allocate waterfill, got 'rows'"),
        ({"mode": "stateful", "control": "zero"}, "got 'zero' in mode stateful, scope path"),
        ({"scope": "request", "control": "zero"}, "got 'zero' in mode differential, scope request"),
        ({"mode": "prefix", "store": "here"}, "store must be empty in mode prefix, which has no bases, got 'here'"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        KVConfig(**settings)


def test_a_tree_of_tokens_may_be_bound_below_what_traffic_takes():
    """It counts no traffic, so the bound may be smaller than in other modes."""
    assert KVConfig("prefix", store_bytes=100).store_bytes == 100
