"""What Google's Flex Template launcher runs: python /template/main.py --command=curate --input=... --output=gs://..."""

import sys

from beam_pipeline.flex_template import main

if __name__ == "__main__":
    sys.exit(main())
