"""The script that a fork server is started with. It loads the sandbox alone: no smallwit, no installed package."""

import importlib
import importlib.util
import os
import sys


def _main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        "_sandbox", os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(1)
    package = importlib.util.module_from_spec(spec)
    sys.modules["_sandbox"] = package
    spec.loader.exec_module(package)
    importlib.import_module("_sandbox.server").main(sys.argv[1:])


_main()
