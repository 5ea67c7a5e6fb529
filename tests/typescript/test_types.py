"""A wrong payload is a type error on the site, a right one is none."""

from __future__ import annotations

import json

from generated.operations import CURRENT
from tests.typescript.site import PACKAGE, Site


def test_what_the_contract_refuses_by_type_does_not_compile_and_what_it_takes_does(site: Site) -> None:
    done = site.check_types("types.ts")
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_package_bears_the_contracts_release_and_needs_no_other() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    assert package["version"] == CURRENT
    assert not [name for name in package if "ependencies" in name]
