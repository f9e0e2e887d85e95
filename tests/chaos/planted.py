"""kcore with a planted bug: `python -m tests.chaos.planted <mutant> apiserver …`.

Each file in mutants/ plants one, by `plant()`; a harness that does not find it proves nothing.
"""

import importlib
import sys

from kcore import __main__


def main() -> None:
    """Plants, then is kcore."""
    name = sys.argv.pop(1)
    importlib.import_module(f"tests.chaos.mutants.{name}").plant()
    __main__.main()


if __name__ == "__main__":
    main()
