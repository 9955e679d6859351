"""Imported last by the process that tests fork from (warm.py): what each program would otherwise work out anew."""

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("bert")  # a third of a second for all models together, kept by transformers
gc.collect()
gc.freeze()  # nothing of what is there now is ever garbage: no child needs to look at it, and so to copy it
