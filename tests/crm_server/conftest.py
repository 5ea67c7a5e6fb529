"""One server for the tests that only ask it, and others for those that break it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, make_url

from crm_server import migrations, staff
from crm_server.audit_trail import Actor
from crm_server.database import Database, create_file
from crm_server.migrations import migrate
from crm_server.settings import Settings
from crm_server.staff import RANKS, Role
from tests.postgresql import shared_postgresql
from tests.servers import Crm, start_crm

ON_BOTH = pytest.mark.engines("sqlite", "postgresql")
ON_BOTH_IN_TIME = pytest.mark.engines("sqlite", pytest.param("postgresql", marks=pytest.mark.long))
"""Where other tests try on PostgreSQL, each time, what is particular to it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked with `engines` on each of these; everything else on SQLite, which is the default."""
    if "engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        metafunc.parametrize("engine", marker.args if marker else ("sqlite",), indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    """The engine of the databases that a test is given."""
    return str(request.param)


@pytest.fixture
def database(tmp_path: Path, engine: str) -> Iterator[Database]:
    """A migrated database of the test's own, without a server."""
    with open_new(tmp_path, engine) as database:
        yield database


@contextmanager
def open_new(directory: Path, engine: str) -> Iterator[Database]:
    """Open a new database that is migrated, on an engine."""
    url = f"sqlite:///{directory}/crm.sqlite3"
    if engine == "postgresql":
        url = shared_postgresql().url(shared_postgresql().create())
    database = Database(Settings.model_validate({"CRM_DATABASE_URL": url}).url)
    migrate(database)
    yield database
    database.close()


def migrate_to(step: str, path: Path) -> Database:
    """Create a database as an earlier release left it."""
    database = Database(make_url(f"sqlite:///{path}"))
    create_file(path)
    upgrade_to(database, step)
    return database


def upgrade_to(database: Database, step: str) -> None:
    """Bring a database to a step that need not be the newest."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, step)


@pytest.fixture(scope="session")
def crm(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm"), only=None, engine=engine) as crm:
        yield crm
    assert_nothing_private(crm)


@pytest.fixture(scope="session")
def tokens(crm: Crm) -> Mapping[Role, str]:
    """A staff token for each role."""
    return {role: staff_token(crm, role.title(), role) for role in RANKS}


def staff_token(crm: Crm, name: str, role: Role) -> str:
    """Add somebody beside the running server; return a token of theirs."""

    def write(connection: Connection) -> str:
        staff.add(connection, name, role, None, Actor("cli:tests"))
        return staff.make_token(connection, name, Actor("cli:tests"))

    return in_database(crm, write)


def in_database(crm: Crm, write: Callable[[Connection], str]) -> str:
    """Write beside a server, as the command line does."""
    database = Database(Settings.model_validate({"CRM_DATABASE_URL": crm.database_url}).url)
    try:
        with database.writing() as connection:
            return write(connection)
    finally:
        database.close()


@pytest.fixture
def own_crm(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Crm]:
    """A server that the test may stop, kill and starve."""
    with start_crm(tmp_path_factory.mktemp("own"), engine=engine) as crm:
        yield crm
    assert_nothing_private(crm)


def assert_nothing_private(crm: Crm) -> None:
    """Hold all that a server printed while it was tested against what must never be printed."""
    private = [
        crm.key,
        "Lovelace",
        "ada@example.com",
        "20 7946",
        "79460000",
        "St James",
        "cracked",
        "Sentinel",
        "Traceback",
        "staff_",
    ]
    assert [word for word in private if word in crm.log] == []


@pytest.fixture
def own_staff(tmp_path: Path) -> Iterator[tuple[Crm, Mapping[Role, str]]]:
    """A server with both doors and nothing in its queue, and a staff token for each role."""
    with start_crm(tmp_path, only=None) as crm:
        yield crm, {role: staff_token(crm, role.title(), role) for role in RANKS}
    assert_nothing_private(crm)
