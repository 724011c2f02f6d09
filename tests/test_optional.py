import sys

import pytest

from mecoq_index._optional import require
from mecoq_index.errors import MecoqError, MissingDependencyError


def test_a_missing_package_names_its_extra():
    with pytest.raises(MissingDependencyError, match=r"the moon needs 'no_such_pkg', .*\[cheese\]"):
        require("no_such_pkg.sub", extra="cheese", purpose="the moon")
    with pytest.raises(MissingDependencyError, match=r"Install it with: pip install no_such_pkg$"):
        require("no_such_pkg", extra=None, purpose="the moon")
    with pytest.raises(MissingDependencyError, match=r"'mecoq-index\[cheese\]'\. Or look at it\.$"):
        require("no_such_pkg", extra="cheese", purpose="the moon", otherwise="Or look at it.")
    assert issubclass(MissingDependencyError, (MecoqError, ImportError))


def test_a_package_that_is_there_but_broken_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_pkg.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_dependency'"):
        require("broken_pkg", extra="x", purpose="y")
    assert "broken_pkg" not in sys.modules


def test_what_is_there_is_returned():
    assert require("json", extra="x", purpose="y") is sys.modules["json"]
