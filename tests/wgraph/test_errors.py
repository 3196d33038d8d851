from graphflow.errors import UnknownNameError, unknown_name


def test_a_near_name_is_proposed():
    assert unknown_name("operation", "vot", ["vote", "review"]) == (
        "unknown operation 'vot' (did you mean 'vote'?); allowed: review, vote"
    )


def test_no_name_is_proposed_where_none_is_near():
    assert unknown_name("field of 'think'", "failed", []) == "unknown field of 'think' 'failed'; allowed: none"


def test_an_unknown_name_is_a_key_error_that_reads_as_a_sentence():
    error = UnknownNameError("unknown step 'a'; allowed: b")
    assert isinstance(error, KeyError)
    assert str(error) == "unknown step 'a'; allowed: b"
    assert str(KeyError("a")) == "'a'"  # what is overridden
