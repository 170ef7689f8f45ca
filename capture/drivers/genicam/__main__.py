"""Look for cameras: ``python -m capture.drivers.genicam PRODUCER ...`` ends with a line of JSON."""

import json
import sys

from capture.drivers.genicam.producers import seen_by

print("\n" + json.dumps(seen_by(sys.argv[1:])), flush=True)
