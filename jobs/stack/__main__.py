"""`python -m jobs.stack`: fetch the jars that every user needs."""

import sys

from jobs.stack.jars import main

sys.exit(main())
