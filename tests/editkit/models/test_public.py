from __future__ import annotations

import pytest

import editkit.models


def test_every_public_name_is_there():
    for name in editkit.models.__all__:
        assert getattr(editkit.models, name) is not None
    assert set(editkit.models.__all__) <= set(dir(editkit.models))


def test_the_names_stay_what_they_are_after_their_modules_are_imported():
    import editkit.models.identity
    import editkit.models.load
    import editkit.models.source

    assert callable(editkit.models.fingerprint)
    assert callable(editkit.models.resolve)
    assert callable(editkit.models.load_model)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        editkit.models.no_such_name  # noqa: B018 -- the access is the test
