"""Entry point of the ingest job: `flink run -py jobs/entry/ingest.py SETTINGS`.

It stands alone in its folder because `flink run -py` puts the script's folder first on the module path, where our
packages would hide others (jobs.kafka would be taken for kafka-python).
"""

import sys

from jobs.ingest import main

main(sys.argv[1:])
