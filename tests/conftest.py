import hypothesis
import pytest

# The first example of a property pays for imports and compilation: no deadline holds for it.
hypothesis.settings.register_profile("jemtrack", deadline=None)
hypothesis.settings.load_profile("jemtrack")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the files in tests/golden are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))
