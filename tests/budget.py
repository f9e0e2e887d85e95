"""How much is tried: a part of it by default, all of it with KCORE_THOROUGH or in CI.

What is drawn at random is drawn anew in every run, so that little each time is much in a week;
`make test` tries it all at once. No test proves something else for it.
"""

import os

CI = bool(os.environ.get("CI"))
THOROUGH = CI or bool(os.environ.get("KCORE_THOROUGH"))

# Of what a thorough run tries, one in so many is tried by default.
SPREAD = 1 if THOROUGH else 5
# Storms over the whole cluster; `make sim N=` runs any number of them.
STORMS = 50 if THOROUGH else 5


def examples(thorough: int) -> int:
    """How many examples of a property are tried."""
    return thorough // SPREAD
