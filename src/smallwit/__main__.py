"""`python -m smallwit`: the command line."""

import sys

from smallwit.cli import main

sys.exit(main())
